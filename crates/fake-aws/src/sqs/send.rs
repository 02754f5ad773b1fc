//! Parses, checks and executes calls that send messages.

use super::digest::{md5_of_attributes, md5_of_body};
use super::entry::Entry;
use super::error::{CONTENT_TYPE, CallError, EntryError};
use super::limits;
use super::queue::{QueueState, Queues};
use super::selection::{EntryFault, Selection};
use crate::ids::new_id;
use crate::lock::lock;
use crate::response::ServiceResponse;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// A well-formed call of `SendMessage` or `SendMessageBatch`.
#[derive(Debug)]
pub(crate) struct SendCall {
    /// The name of the queue.
    pub(crate) queue: String,
    pub(crate) entries: Vec<Entry>,
    is_batch: bool,
}

impl SendCall {
    pub(crate) fn parse(operation: &str, body: &[u8]) -> Result<Self, ServiceResponse> {
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
        let malformed = |cause: serde_json::Error| CallError::serialization(&cause.to_string()).to_response();
        match operation {
            "SendMessageBatch" => {
                let Batch { url, entries } = serde_json::from_slice(body).map_err(malformed)?;
                Ok(Self { queue: queue_name(&url), entries, is_batch: true })
            }
            "SendMessage" => {
                let Single { url, entry } = serde_json::from_slice(body).map_err(malformed)?;
                Ok(Self { queue: queue_name(&url), entries: vec![entry], is_batch: false })
            }
            _ => Err(CallError::unknown_operation(operation).to_response()),
        }
    }

    /// Stores the valid entries.
    pub(crate) fn execute(
        self,
        queues: &Mutex<Queues>,
        call_number: usize,
        entry_fault: Option<&EntryFault>,
    ) -> ServiceResponse {
        let Self { queue, entries, is_batch } = self;
        let store = || {
            check_call(queues, &queue, &entries, is_batch)?;
            let entries = entries.into_iter().enumerate().collect();
            let mut results = SendResults::new(is_batch);
            results.store(queues, &queue, entries, call_number, entry_fault)?;
            Ok(results.into_response())
        };
        store().unwrap_or_else(|error: CallError| error.to_response())
    }

    /// Stores the valid entries, the selected ones at `commit_at` and the others immediately.
    pub(crate) async fn execute_delayed(
        self,
        queues: &Mutex<Queues>,
        call_number: usize,
        selection: &Selection,
        commit_at: Instant,
    ) -> ServiceResponse {
        let Self { queue, entries, is_batch } = self;
        let store = async {
            let is_fifo = check_call(queues, &queue, &entries, is_batch)?;
            let mut delayed_groups = HashSet::new();
            let (delayed, immediate): (Vec<_>, Vec<_>) = entries.into_iter().enumerate().partition(|(index, entry)| {
                let is_delayed =
                    selection.includes(*index, entry) || is_fifo && delayed_groups.contains(&entry.group_id);
                if is_delayed {
                    delayed_groups.insert(entry.group_id.clone());
                }
                is_delayed
            });
            let mut results = SendResults::new(is_batch);
            results.store(queues, &queue, immediate, call_number, None)?;
            sleep_until(commit_at).await;
            results.store(queues, &queue, delayed, call_number, None)?;
            Ok(results.into_response())
        };
        store.await.unwrap_or_else(|error: CallError| error.to_response())
    }
}

/// Checks the call as a whole. Returns whether the queue is a FIFO queue.
fn check_call(queues: &Mutex<Queues>, queue: &str, entries: &[Entry], is_batch: bool) -> Result<bool, CallError> {
    let queues = lock(queues);
    let is_fifo = queues.get(queue).ok_or_else(CallError::queue_does_not_exist)?.is_fifo;
    let check = if is_batch { limits::check_batch } else { limits::check_single };
    check(entries, is_fifo).map(|()| is_fifo)
}

/// The results of the entries, each with its index in the call.
struct SendResults {
    is_batch: bool,
    successful: Vec<(usize, Value)>,
    failed: Vec<(usize, Value)>,
}

impl SendResults {
    const fn new(is_batch: bool) -> Self {
        Self { is_batch, successful: Vec::new(), failed: Vec::new() }
    }

    /// Stores the valid entries and records a result for each entry.
    fn store(
        &mut self,
        queues: &Mutex<Queues>,
        queue: &str,
        entries: Vec<(usize, Entry)>,
        call_number: usize,
        entry_fault: Option<&EntryFault>,
    ) -> Result<(), CallError> {
        let mut queues = lock(queues);
        let queue = queues.get_mut(queue).ok_or_else(CallError::queue_does_not_exist)?;
        for (index, entry) in entries {
            let injected = entry_fault.filter(|fault| fault.entries.includes(index, &entry)).map(EntryError::injected);
            match injected.map_or_else(|| limits::check_entry(&entry, queue), Err) {
                Ok(()) => self.successful.push((index, store_entry(entry, queue, call_number, self.is_batch))),
                Err(error) if self.is_batch => self.failed.push((index, error.to_result(&entry.id))),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn into_response(mut self) -> ServiceResponse {
        let mut document = if self.is_batch { json!({}) } else { self.successful.remove(0).1 };
        for (list, mut results) in [("Successful", self.successful), ("Failed", self.failed)] {
            if self.is_batch && !results.is_empty() {
                results.sort_unstable_by_key(|(index, _)| *index);
                document[list] = results.into_iter().map(|(_, result)| result).collect();
            }
        }
        ServiceResponse::new(200, CONTENT_TYPE, document.to_string()).with_header("x-amzn-requestid", new_id())
    }
}

/// Stores a message and makes its result.
fn store_entry(entry: Entry, queue: &mut QueueState, call_number: usize, is_batch: bool) -> Value {
    let mut result = json!({ "MD5OfMessageBody": md5_of_body(&entry.body) });
    if !entry.attributes.is_empty() {
        result["MD5OfMessageAttributes"] = json!(md5_of_attributes(&entry.attributes));
    }
    if !entry.system_attributes.is_empty() {
        result["MD5OfMessageSystemAttributes"] = json!(md5_of_attributes(&entry.system_attributes));
    }
    if is_batch {
        result["Id"] = json!(entry.id);
    }
    let stored = queue.store(entry, call_number);
    result["MessageId"] = json!(stored.message_id);
    if let Some(number) = stored.sequence_number {
        result["SequenceNumber"] = json!(number);
    }
    result
}

/// Extracts the name of the queue from its URL. Ignores the host and the account.
fn queue_name(url: &str) -> String {
    url.rsplit('/').next().unwrap_or_default().to_owned()
}
