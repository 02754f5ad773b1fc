//! The calls to SQS for one queue: count, receive, change the visibility, and delete messages.

use std::{collections::HashMap, fmt::Display, time::Duration};

use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, Config, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    types::{
        BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message,
        MessageSystemAttributeName,
        QueueAttributeName::{
            self, ApproximateNumberOfMessages, ApproximateNumberOfMessagesDelayed,
            ApproximateNumberOfMessagesNotVisible, KmsMasterKeyId, RedrivePolicy,
        },
    },
};
use serde::Serialize;
use serde_json::Value;
use whatsapp_webhook::aws_error::{ErrorClass, classify};

use super::error::QueueError;
use crate::{aws::stack_info::StackInfo, http::aws_client};

/// The limit of SQS for one receive and one batch.
pub(crate) const MAX_BATCH: i32 = 10;
/// Long polling [queries all servers of SQS](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html),
/// short polling only some.
pub(crate) const LONG_POLL: Duration = Duration::from_secs(1);

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// The limit of a call with its retries.
pub(crate) const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
/// The limit of a receive. Longer than [`ATTEMPT_TIMEOUT`], because a response may have 10 MiB.
pub(crate) const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A queue, and a client to call it with.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) name: String,
}

/// The approximate message counts of SQS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages that a consumer would receive.
    pub visible: usize,
    /// Messages that a consumer received and has not deleted.
    pub in_flight: usize,
    /// Messages whose delay has not elapsed.
    pub delayed: usize,
}

/// Whether a queue can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "state_reason", rename_all = "snake_case")]
pub enum QueueState {
    /// The queue exists, and its key, if it has one, is enabled.
    Usable,
    /// The queue does not exist.
    Gone,
    /// The caller lacks the permission to read the queue's attributes.
    AccessDenied,
    /// The queue's KMS key is not enabled. Contains the key and its state.
    KeyDisabled(String),
    /// The call failed for another reason.
    Unknown(String),
}

impl QueueState {
    /// Returns the state of a queue whose attributes could not be read.
    pub(crate) fn of_error(error: &QueueError) -> Self {
        if error.is_gone() {
            Self::Gone
        } else if error.is_access_denied() {
            Self::AccessDenied
        } else {
            Self::Unknown(error.to_string())
        }
    }
}

impl Display for QueueState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(match self {
            Self::Usable => "usable",
            Self::Gone => "gone",
            Self::AccessDenied => "access denied",
            Self::KeyDisabled(_) => "key disabled",
            Self::Unknown(_) => "unknown",
        })
    }
}

/// The attributes of a queue that describe its use.
#[derive(Debug, Clone)]
pub(crate) struct QueueDescription {
    pub(crate) counts: Counts,
    /// The name of the dead-letter queue.
    pub(crate) dead_letter_queue: Option<String>,
    /// The number of receives after which SQS moves a message to the dead-letter queue.
    pub(crate) max_receives: Option<u64>,
    /// The KMS key that encrypts the messages.
    pub(crate) kms_key: Option<String>,
}

impl Counts {
    /// Returns the number of all messages.
    #[must_use]
    pub fn total(&self) -> usize {
        self.visible + self.in_flight + self.delayed
    }
}

impl Queue {
    pub(crate) fn new(client: &Client, url: &str) -> Self {
        Self { client: client.clone(), url: url.to_owned(), name: queue_name(url).to_owned() }
    }

    /// Returns the queue with this name in the same account.
    pub(crate) fn sibling(&self, name: &str) -> Self {
        Self::new(&self.client, &sibling_url(&self.url, name))
    }

    pub(crate) fn is_fifo(&self) -> bool {
        is_fifo(&self.url)
    }

    /// Returns the message counts, and the name of the dead-letter queue if there is one.
    pub(crate) async fn counts(&self) -> Result<(Counts, Option<String>), QueueError> {
        self.describe().await.map(|described| (described.counts, described.dead_letter_queue))
    }

    /// Reads the message counts, the redrive policy and the key.
    pub(crate) async fn describe(&self) -> Result<QueueDescription, QueueError> {
        const NAMES: [QueueAttributeName; 5] = [
            ApproximateNumberOfMessages,
            ApproximateNumberOfMessagesNotVisible,
            ApproximateNumberOfMessagesDelayed,
            RedrivePolicy,
            KmsMasterKeyId,
        ];
        let attributes = self.attributes(&NAMES, "count the messages of").await?;
        let count = |name| attributes.get(&name).and_then(|count: &String| count.parse().ok()).unwrap_or_default();
        let policy = attributes.get(&RedrivePolicy).and_then(|policy| serde_json::from_str::<Value>(policy).ok());
        let policy = policy.unwrap_or_default();
        let max_receives = policy["maxReceiveCount"].as_u64();
        Ok(QueueDescription {
            counts: Counts {
                visible: count(ApproximateNumberOfMessages),
                in_flight: count(ApproximateNumberOfMessagesNotVisible),
                delayed: count(ApproximateNumberOfMessagesDelayed),
            },
            dead_letter_queue: policy["deadLetterTargetArn"]
                .as_str()
                .and_then(|arn| arn.rsplit(':').next())
                .map(str::to_owned),
            max_receives: max_receives.or_else(|| policy["maxReceiveCount"].as_str()?.parse().ok()),
            kms_key: attributes.get(&KmsMasterKeyId).filter(|key| !key.is_empty()).cloned(),
        })
    }

    /// Reads attributes of the queue.
    pub(crate) async fn attributes(
        &self,
        names: &[QueueAttributeName],
        action: &'static str,
    ) -> Result<HashMap<QueueAttributeName, String>, QueueError> {
        let call = self.client.get_queue_attributes().queue_url(&self.url).set_attribute_names(Some(names.to_vec()));
        let response = call.send().await.map_err(QueueError::from_sdk(action, &self.name))?;
        Ok(response.attributes.unwrap_or_default())
    }

    /// Reads the tags of the queue.
    pub(crate) async fn tags(&self) -> Result<HashMap<String, String>, QueueError> {
        let response = self.client.list_queue_tags().queue_url(&self.url).send().await;
        Ok(response.map_err(QueueError::from_sdk("read the tags of", &self.name))?.tags.unwrap_or_default())
    }

    /// Receives at most `max` messages with all their attributes. SQS waits up to `wait` for the first one.
    ///
    /// The SDK does not retry: the messages of a lost response are hidden, and the caller has to count it.
    pub(crate) async fn receive(
        &self,
        max: i32,
        visibility_timeout: Duration,
        wait: Duration,
    ) -> Result<Vec<Message>, QueueError> {
        let call = self.client.receive_message().queue_url(&self.url).message_attribute_names("All");
        let call = call.message_system_attribute_names(MessageSystemAttributeName::All);
        let call = call.max_number_of_messages(max.min(MAX_BATCH)).visibility_timeout(seconds(visibility_timeout));
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(RECEIVE_TIMEOUT).build();
        let single_attempt = Config::builder().retry_config(RetryConfig::disabled()).timeout_config(timeouts);
        let call = call.wait_time_seconds(seconds(wait)).customize().config_override(single_attempt);
        let received = call.send().await;
        Ok(received.map_err(QueueError::from_sdk("receive from", &self.name))?.messages.unwrap_or_default())
    }

    /// Makes received messages visible at once. Continues after an error, and returns the first one with the number of messages
    /// that are still hidden.
    pub(crate) async fn release(&self, receipts: &[String]) -> Result<(), QueueError> {
        let (mut hidden, mut reason) = (0, String::new());
        for batch in receipts.chunks(usize::try_from(MAX_BATCH).unwrap_or(1)) {
            if let Err((count, error)) = self.change_visibility(batch, Duration::ZERO).await {
                hidden += count;
                reason = if reason.is_empty() { error } else { reason };
            }
        }
        if hidden == 0 {
            return Ok(());
        }
        let messages = format!("{hidden} of {} messages of {}", receipts.len(), self.name);
        Err(QueueError::new("release", &messages, reason))
    }

    /// Returns the approximate number of messages that SQS does not return, because a message before them in their group is
    /// hidden. Call it after the queue was read to its end. On a standard queue it is 0.
    pub(crate) async fn count_blocked(&self, hidden: usize) -> usize {
        if hidden == 0 || !self.is_fifo() {
            return 0;
        }
        self.counts().await.map_or(0, |(counts, _)| counts.visible)
    }

    /// Sets the visibility timeout of at most ten received messages, counted from now. An error has the number of messages
    /// without this timeout, and the reason.
    ///
    /// Ignores that SQS rejects a message: it does so if the message is deleted or visible already.
    pub(crate) async fn change_visibility(
        &self,
        receipts: &[String],
        visibility_timeout: Duration,
    ) -> Result<(), (usize, String)> {
        let entries = receipts.iter().enumerate().filter_map(|(id, receipt)| {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id.to_string());
            entry.receipt_handle(receipt).visibility_timeout(seconds(visibility_timeout)).build().ok()
        });
        let call = self.client.change_message_visibility_batch().queue_url(&self.url);
        let response = call.set_entries(Some(entries.collect())).send().await;
        let response = response.map_err(|error| {
            (receipts.len(), QueueError::from_sdk("change the visibility of", &self.name)(error).reason)
        })?;
        let is_ignored =
            |entry: &&BatchResultErrorEntry| classify(entry.code(), entry.sender_fault()) == ErrorClass::Rejected;
        let changed = response.successful().len() + response.failed().iter().filter(is_ignored).count();
        let failed = response.failed().iter().find(|entry| !is_ignored(entry));
        let reason = failed.map_or("the response of SQS has no result for a message", BatchResultErrorEntry::code);
        if changed >= receipts.len() { Ok(()) } else { Err((receipts.len() - changed, reason.to_owned())) }
    }

    /// Deletes at most ten messages. Returns the indices of those that SQS did not delete.
    pub(crate) async fn delete(&self, receipts: &[&str]) -> Result<Vec<usize>, QueueError> {
        let entries = receipts.iter().enumerate().filter_map(|(id, receipt)| {
            DeleteMessageBatchRequestEntry::builder().id(id.to_string()).receipt_handle(*receipt).build().ok()
        });
        let call = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries.collect()));
        let response = call.send().await.map_err(QueueError::from_sdk("delete from", &self.name))?;
        let deleted: Vec<usize> = response.successful().iter().filter_map(|entry| entry.id().parse().ok()).collect();
        Ok((0..receipts.len()).filter(|index| !deleted.contains(index)).collect())
    }
}

/// Creates a client for the queues of a stack.
pub(crate) fn sqs_client(stack: &StackInfo) -> Client {
    let key =
        Credentials::new(&stack.access_key_id, &stack.secret_access_key, stack.session_token.clone(), None, "stack");
    let timeouts =
        TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).operation_timeout(OPERATION_TIMEOUT);
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_client())
        .region(Region::new(stack.region.clone()))
        .endpoint_url(&stack.aws_endpoint)
        .credentials_provider(key)
        .timeout_config(timeouts.build());
    Client::from_conf(config.build())
}

/// Returns the last segment of a queue's URL.
pub(crate) fn queue_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// Returns the URL of the queue with this name in the account of another queue.
pub(crate) fn sibling_url(url: &str, name: &str) -> String {
    url.rsplit_once('/').map_or_else(|| name.to_owned(), |(account, _)| format!("{account}/{name}"))
}

/// Returns the name that the template gives the dead-letter queue of a queue.
pub(crate) fn dead_letter_queue_name(name: &str) -> String {
    name.strip_suffix(".fifo").map_or_else(|| format!("{name}-dead"), |name| format!("{name}-dead.fifo"))
}

pub(crate) fn is_fifo(url: &str) -> bool {
    url.rsplit_once('.').is_some_and(|(_, suffix)| suffix == "fifo")
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}
