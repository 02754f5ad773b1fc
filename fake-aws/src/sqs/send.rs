//! A sending call: what it says, whether it may, and what it is told.

use super::digest::{md5_of_attributes, md5_of_body};
use super::error::{CONTENT_TYPE, CallError, EntryError};
use super::limits;
use super::queue::Stored;
use crate::answer::Answer;
use crate::aws::State;
use crate::call::CallInFlight;
use crate::fault::Refusal;
use crate::{lock, new_id};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The only system attribute that a sender may set.
pub(super) const TRACE_HEADER: &str = "AWSTraceHeader";

/// A message as its sender sent it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// The entry's id within its batch; empty for a message that was sent alone.
    #[serde(rename = "Id", default)]
    pub id: String,
    /// The body.
    #[serde(rename = "MessageBody", default)]
    pub body: String,
    /// The attributes, by name.
    #[serde(rename = "MessageAttributes", default)]
    pub attributes: BTreeMap<String, Attribute>,
    /// The system attributes, by name; SQS knows one, `AWSTraceHeader`.
    #[serde(rename = "MessageSystemAttributes", default)]
    pub system_attributes: BTreeMap<String, Attribute>,
    /// `MessageGroupId`.
    #[serde(rename = "MessageGroupId")]
    pub group_id: Option<String>,
    /// `MessageDeduplicationId`.
    #[serde(rename = "MessageDeduplicationId")]
    pub deduplication_id: Option<String>,
}

impl Entry {
    /// The tracing header.
    #[must_use]
    pub fn trace(&self) -> Option<&str> {
        self.system_attributes.get(TRACE_HEADER)?.text.as_deref()
    }

    /// The text of a String or Number attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name)?.text.as_deref()
    }
}

/// A message attribute: a type and a value of text or bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Attribute {
    /// `String`, `Number` or `Binary`, perhaps with a label of its own after a dot.
    #[serde(rename = "DataType", default)]
    pub data_type: String,
    /// `StringValue`.
    #[serde(rename = "StringValue")]
    pub text: Option<String>,
    /// `BinaryValue`.
    #[serde(rename = "BinaryValue", default, deserialize_with = "base64_bytes")]
    pub bytes: Option<Vec<u8>>,
}

fn base64_bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    BASE64_STANDARD.decode(text).map(Some).map_err(serde::de::Error::custom)
}

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
    pub(crate) fn act(self, state: &State, call: &CallInFlight, refusal: Option<&Refusal>) -> Answer {
        self.store(state, call, refusal).unwrap_or_else(|error| error.answer())
    }

    fn store(self, state: &State, call: &CallInFlight, refusal: Option<&Refusal>) -> Result<Answer, CallError> {
        let mut queues = lock(&state.queues);
        let queue = queues.get_mut(&self.queue).ok_or_else(CallError::queue_does_not_exist)?;
        if self.batch {
            limits::check_batch(&self.entries, queue.is_fifo)?;
        } else {
            limits::check_fifo(&self.entries, queue.is_fifo)?;
        }
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for (place, entry) in self.entries.into_iter().enumerate() {
            let injected = refusal.filter(|refusal| refusal.hits(place, &entry)).map(EntryError::injected);
            match injected.map_or_else(|| limits::check_entry(&entry, queue), Err) {
                Ok(()) => successful.push(accept(entry, queue, call, self.batch)),
                Err(error) if self.batch => failed.push(error.result(&entry.id)),
                Err(error) => return Err(error.into()),
            }
        }
        let mut document = if self.batch { json!({}) } else { successful.remove(0) };
        for (list, results) in [("Successful", successful), ("Failed", failed)] {
            if !results.is_empty() {
                document[list] = Value::Array(results);
            }
        }
        Ok(Answer::new(200, CONTENT_TYPE, document.to_string()).header("x-amzn-requestid", new_id()))
    }
}

/// Stores a message, and says under which id.
fn accept(entry: Entry, queue: &mut Stored, call: &CallInFlight, in_batch: bool) -> Value {
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
