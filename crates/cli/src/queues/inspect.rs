//! The messages that wait on a queue: counts them by their attributes, deletes them, or copies them to files or S3.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{self, Path, PathBuf},
    str::FromStr,
};

use aws_sdk_sqs::{
    primitives::{DateTime, DateTimeFormat},
    types::{Message, MessageSystemAttributeName},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    backlog::QueueDepth,
    error::QueueError,
    queue::{Queue, queue_name, sibling_url, sqs_client},
    resend::{attribute, system_attribute},
    scan::{Action, Filter, ScanLimits, ScanReport, scan},
};
use crate::aws::{cli::AwsCli, stack_info::StackInfo};

/// Messages per visit.
const CHUNK: usize = 10;
/// Larger, because each upload starts a process of `aws s3 cp`.
const S3_CHUNK: usize = 200;

/// A queue of a stack's account, whose messages are counted, deleted or copied.
#[derive(Debug)]
pub struct InspectedQueue {
    queue: Queue,
    /// Whether a route other than the catch-all route leads to the queue.
    has_consumers: bool,
}

/// The effect of a receive on the messages of a queue.
#[derive(Debug, Serialize)]
pub struct ReceiveEffect {
    /// The number of receives after which SQS moves a message to the dead-letter queue.
    pub max_receives: Option<u64>,
    /// Whether the queue is FIFO.
    pub is_fifo: bool,
}

/// The message attributes, set by the function, by which messages are counted. Only messages of FIFO queues have a group id, so it
/// is not used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct MessageCategory {
    /// The field.
    pub field: Option<String>,
    /// The kind.
    pub kind: Option<String>,
    /// The value of `unrouted_reason`.
    pub reason: Option<String>,
    /// The day of sending, in UTC.
    pub sent: String,
}

/// The number of messages with the same attributes.
#[derive(Debug, Serialize)]
pub struct CategoryCount {
    /// The attributes.
    #[serde(flatten)]
    pub category: MessageCategory,
    /// The number of messages.
    pub count: usize,
    /// The highest number of receives of one of them, this one included.
    pub max_receive_count: u64,
}

/// Where messages are copied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportDestination {
    /// A folder, with a file for each message.
    Folder(PathBuf),
    /// A URL such as `s3://bucket/prefix`, with an object for each message.
    S3(String),
}

/// The result of a copy.
#[derive(Debug, Serialize)]
pub struct ExportReport {
    /// The scan of the queue.
    #[serde(flatten)]
    pub scan: ScanReport,
    /// Messages that were copied.
    pub copied: usize,
    /// Messages that an earlier run copied.
    pub copied_before: usize,
    /// Messages that were not selected.
    pub not_selected: usize,
}

impl FromStr for ExportDestination {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("s3://") {
            Some("") => Err("name a bucket, such as s3://bucket/prefix"),
            Some(path) => Ok(Self::S3(format!("s3://{}", path.trim_end_matches('/')))),
            None if text.is_empty() => Err("name a folder, or a URL such as s3://bucket/prefix"),
            None => Ok(Self::Folder(PathBuf::from(text))),
        }
    }
}

impl InspectedQueue {
    /// Returns the queue of a route, or else the queue with this name in the account of the stack.
    ///
    /// A route with several queues is an error, which contains their names.
    pub fn find(stack: &StackInfo, route_or_name: &str) -> Result<Self, Vec<String>> {
        let url = match stack.queue_urls().remove(route_or_name).as_deref() {
            Some([url]) => (*url).to_owned(),
            Some(urls) => return Err(urls.iter().map(|url| queue_name(url).to_owned()).collect()),
            None => sibling_url(&stack.routes.catch_all().url, route_or_name),
        };
        Ok(Self { queue: Queue::new(&sqs_client(stack), &url), has_consumers: stack.has_consumers(&url) })
    }

    /// Returns the message counts, without receiving a message.
    pub async fn depth(&self) -> QueueDepth {
        QueueDepth::read(&self.queue).await
    }

    /// Returns the effect of a receive.
    pub async fn receive_effect(&self) -> Result<ReceiveEffect, QueueError> {
        let max_receives = self.queue.describe().await?.max_receives;
        Ok(ReceiveEffect { max_receives, is_fifo: self.queue.is_fifo() })
    }

    /// Counts the messages by their attributes. Bodies are dropped unread.
    pub async fn peek(&self, limits: &ScanLimits<'_>) -> (Vec<CategoryCount>, ScanReport) {
        let mut counts = BTreeMap::<MessageCategory, (usize, u64)>::new();
        let report = scan(&self.queue, self.has_consumers, limits, CHUNK, async |messages| {
            for message in messages {
                let receives = system_attribute(message, &MessageSystemAttributeName::ApproximateReceiveCount);
                let (count, max) = counts.entry(MessageCategory::of(message)).or_default();
                *count += 1;
                *max = (*max).max(receives.and_then(|receives| receives.parse().ok()).unwrap_or_default());
            }
            Ok(vec![Action::Keep; messages.len()])
        });
        let report = report.await;
        let counts = counts.into_iter();
        (
            counts
                .map(|(category, (count, max_receive_count))| CategoryCount { category, count, max_receive_count })
                .collect(),
            report,
        )
    }

    /// Deletes the selected messages.
    pub async fn drop_messages(&self, filter: &Filter, limits: &ScanLimits<'_>) -> ScanReport {
        scan(&self.queue, self.has_consumers, limits, CHUNK, async |messages| {
            let action = |message: &Message| if filter.matches(message) { Action::Delete } else { Action::Keep };
            Ok(messages.iter().map(action).collect())
        })
        .await
    }

    /// Copies the selected messages, and deletes those that are copied if `delete` is set.
    pub async fn export(
        &self,
        filter: &Filter,
        to: &ExportDestination,
        delete: bool,
        limits: &ScanLimits<'_>,
        aws: &AwsCli,
    ) -> ExportReport {
        let (mut copied, mut copied_before, mut not_selected) = (0, 0, 0);
        let chunk = if matches!(to, ExportDestination::S3(_)) { S3_CHUNK } else { CHUNK };
        let scan = scan(&self.queue, self.has_consumers, limits, chunk, async |messages| {
            let selected: Vec<_> = messages.iter().filter(|message| filter.matches(message)).collect();
            not_selected += messages.len() - selected.len();
            let new = match to {
                ExportDestination::Folder(folder) => write_all(&folder.join(&self.queue.name), &selected),
                ExportDestination::S3(url) => copy_to_s3(aws, &format!("{url}/{}/", self.queue.name), &selected).await,
            };
            let new = new?;
            copied += new;
            copied_before += selected.len() - new;
            let is_deleted = |message: &Message| delete && filter.matches(message);
            Ok(messages.iter().map(|message| if is_deleted(message) { Action::Delete } else { Action::Keep }).collect())
        });
        let scan = scan.await;
        ExportReport { scan, copied, copied_before, not_selected }
    }
}

impl MessageCategory {
    fn of(message: &Message) -> Self {
        let text = |name| attribute(message, name).map(str::to_owned);
        let sent = system_attribute(message, &MessageSystemAttributeName::SentTimestamp);
        let sent = sent.and_then(|sent| sent.parse().ok()).map(DateTime::from_millis);
        let sent = sent.and_then(|sent| sent.fmt(DateTimeFormat::DateTime).ok()).unwrap_or_default();
        Self {
            field: text("field"),
            kind: text("kind"),
            reason: text("unrouted_reason"),
            sent: sent.chars().take("2026-01-01".len()).collect(),
        }
    }
}

/// Writes a file for each message, unless an earlier run wrote it. Returns the number of new files.
fn write_all(folder: &Path, messages: &[&Message]) -> Result<usize, String> {
    let written = || -> io::Result<usize> {
        let folder = path::absolute(folder)?;
        let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(&folder);
        // The messages contain what customers write, so only this user may read them.
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut count = 0;
        for message in messages {
            let path = folder.join(file_name(message));
            if path.exists() {
                continue;
            }
            let partial = path.with_extension("partial");
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            file.write_all(document(message).to_string().as_bytes())?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            count += 1;
        }
        // The names of the files and of new folders too are on the disk before a message is deleted.
        for folder in folder.ancestors().take_while(|folder| folder.starts_with(existing)) {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(count)
    };
    written().map_err(|error| format!("cannot write to {}: {error}", folder.display()))
}

/// Copies the messages as objects. A message has the same key in each run, so that a second copy replaces the first.
async fn copy_to_s3(aws: &AwsCli, url: &str, messages: &[&Message]) -> Result<usize, String> {
    if messages.is_empty() {
        return Ok(0);
    }
    let folder = std::env::temp_dir().join(format!("ingress-export-{:016x}", fastrand::u64(..)));
    let result = match write_all(&folder, messages) {
        Ok(_) => aws.copy_folder(&folder, url).await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    // If it fails, the temporary folder remains, readable by this user only.
    let _ = fs::remove_dir_all(&folder);
    result.map(|()| messages.len())
}

/// Returns the file name. Replaces all other characters, so that an id that is not a UUID cannot contain a path.
fn file_name(message: &Message) -> String {
    let id = message.message_id.as_deref().unwrap_or_default();
    let id: String = id.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '-' }).collect();
    format!("{id}.json")
}

/// Returns a message in the form of `receive-message`.
fn document(message: &Message) -> Value {
    let mut attributes = Map::new();
    for (name, value) in message.message_attributes.iter().flatten() {
        let mut members = json!({ "DataType": value.data_type });
        if let Some(text) = &value.string_value {
            members["StringValue"] = json!(text);
        }
        if let Some(bytes) = &value.binary_value {
            members["BinaryValue"] = json!(BASE64_STANDARD.encode(bytes));
        }
        attributes.insert(name.clone(), members);
    }
    let system = message.attributes.iter().flatten();
    let system: Map<_, _> = system.map(|(name, value)| (name.as_str().to_owned(), json!(value))).collect();
    json!({
        "MessageId": message.message_id,
        "MD5OfBody": message.md5_of_body,
        "Body": message.body,
        "Attributes": system,
        "MessageAttributes": attributes,
    })
}
