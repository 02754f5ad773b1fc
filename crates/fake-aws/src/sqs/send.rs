//! A sending call: what it says, whether it may, and what it is told.

use super::digest::{md5_of_attributes, md5_of_body};
use super::entry::Entry;
use super::error::{CONTENT_TYPE, CallError, EntryError};
use super::limits;
use super::queue::{Queues, Stored};
use super::selection::{Refusal, Selection};
use crate::answer::Answer;
use crate::ids::new_id;
use crate::lock::lock;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// A call that sends one message or a batch.
#[derive(Debug)]
pub(crate) struct Send {
    /// The queue's name, of its URL.
    pub(crate) queue: String,
    pub(crate) entries: Vec<Entry>,
    batch: bool,
}

impl Send {
    pub(crate) fn read(operation: &str, body: &[u8]) -> Result<Self, Answer> {
        #[derive(Deserialize)]
        struct Batch {
            #[serde(rename = "QueueUrl")]
            url: String,
            #[serde(rename = "Entries", default)]
            entries: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Single {
            #[serde(rename = "QueueUrl")]
            url: String,
            #[serde(flatten)]
            entry: Entry,
        }
        let malformed = |cause: serde_json::Error| CallError::serialization(&cause.to_string()).answer();
        match operation {
            "SendMessageBatch" => {
                let Batch { url, entries } = serde_json::from_slice(body).map_err(malformed)?;
                Ok(Self { queue: name_of(&url), entries, batch: true })
            }
            "SendMessage" => {
                let Single { url, entry } = serde_json::from_slice(body).map_err(malformed)?;
                Ok(Self { queue: name_of(&url), entries: vec![entry], batch: false })
            }
            _ => Err(CallError::unknown_operation(operation).answer()),
        }
    }

    /// Stores what may be stored, and says so.
    pub(crate) fn act(self, queues: &Mutex<Queues>, call: usize, refusal: Option<&Refusal>) -> Answer {
        let Self { queue, entries, batch } = self;
        let store = || {
            check(queues, &queue, &entries, batch)?;
            let entries = entries.into_iter().enumerate().collect();
            let mut results = Results::new(batch);
            results.store(queues, &queue, entries, call, refusal)?;
            Ok(results.answer())
        };
        store().unwrap_or_else(|error: CallError| error.answer())
    }

    /// The same, but stores the selected entries at `due`.
    pub(crate) async fn act_late(self, queues: &Mutex<Queues>, call: usize, late: &Selection, due: Instant) -> Answer {
        let Self { queue, entries, batch } = self;
        let store = async {
            let is_fifo = check(queues, &queue, &entries, batch)?;
            let mut late_groups = HashSet::new();
            let (late, early): (Vec<_>, Vec<_>) = entries.into_iter().enumerate().partition(|(index, entry)| {
                let is_late = late.includes(*index, entry) || is_fifo && late_groups.contains(&entry.group_id);
                if is_late {
                    late_groups.insert(entry.group_id.clone());
                }
                is_late
            });
            let mut results = Results::new(batch);
            results.store(queues, &queue, early, call, None)?;
            sleep_until(due).await;
            results.store(queues, &queue, late, call, None)?;
            Ok(results.answer())
        };
        store.await.unwrap_or_else(|error: CallError| error.answer())
    }
}

/// Checks the batch as a whole; returns whether its queue is a FIFO queue.
fn check(queues: &Mutex<Queues>, queue: &str, entries: &[Entry], batch: bool) -> Result<bool, CallError> {
    let queues = lock(queues);
    let is_fifo = queues.get(queue).ok_or_else(CallError::queue_does_not_exist)?.is_fifo;
    let check = if batch { limits::check_batch } else { limits::check_fifo };
    check(entries, is_fifo).map(|()| is_fifo)
}

/// What became of the entries of a call.
struct Results {
    batch: bool,
    successful: Vec<(usize, Value)>,
    failed: Vec<(usize, Value)>,
}

impl Results {
    const fn new(batch: bool) -> Self {
        Self { batch, successful: Vec::new(), failed: Vec::new() }
    }

    /// Stores entries, each with its index in the batch.
    fn store(
        &mut self,
        queues: &Mutex<Queues>,
        queue: &str,
        entries: Vec<(usize, Entry)>,
        call: usize,
        refusal: Option<&Refusal>,
    ) -> Result<(), CallError> {
        let mut queues = lock(queues);
        let queue = queues.get_mut(queue).ok_or_else(CallError::queue_does_not_exist)?;
        for (index, entry) in entries {
            let injected = refusal.filter(|refusal| refusal.entries.includes(index, &entry)).map(EntryError::injected);
            match injected.map_or_else(|| limits::check_entry(&entry, queue), Err) {
                Ok(()) => self.successful.push((index, accept(entry, queue, call, self.batch))),
                Err(error) if self.batch => self.failed.push((index, error.result(&entry.id))),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn answer(mut self) -> Answer {
        let mut document = if self.batch { json!({}) } else { self.successful.remove(0).1 };
        for (list, mut results) in [("Successful", self.successful), ("Failed", self.failed)] {
            if self.batch && !results.is_empty() {
                results.sort_unstable_by_key(|(index, _)| *index);
                document[list] = results.into_iter().map(|(_, result)| result).collect();
            }
        }
        Answer::new(200, CONTENT_TYPE, document.to_string()).header("x-amzn-requestid", new_id())
    }
}

/// Stores a message, and says under which id.
fn accept(entry: Entry, queue: &mut Stored, call: usize, in_batch: bool) -> Value {
    let mut result = json!({ "MD5OfMessageBody": md5_of_body(&entry.body) });
    if !entry.attributes.is_empty() {
        result["MD5OfMessageAttributes"] = json!(md5_of_attributes(&entry.attributes));
    }
    if !entry.system_attributes.is_empty() {
        result["MD5OfMessageSystemAttributes"] = json!(md5_of_attributes(&entry.system_attributes));
    }
    if in_batch {
        result["Id"] = json!(entry.id);
    }
    let receipt = queue.store(entry, call);
    result["MessageId"] = json!(receipt.message_id);
    if let Some(number) = receipt.sequence_number {
        result["SequenceNumber"] = json!(number);
    }
    result
}

/// The queue's name in its URL; the host and the account are not looked at.
fn name_of(url: &str) -> String {
    url.rsplit('/').next().unwrap_or_default().to_owned()
}
