//! The request format of `SendMessageBatch`, and the limits of SQS.
//!
//! Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::faults::Fate;

const MAX_BYTES: usize = 1_048_576;
const MAX_ENTRIES: usize = 10;
const MAX_ATTRIBUTES: usize = 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Batch {
    pub(crate) queue_url: String,
    #[serde(default)]
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    id: String,
    pub(crate) message_body: String,
    #[serde(default)]
    message_attributes: BTreeMap<String, Attribute>,
    pub(crate) message_group_id: Option<String>,
    pub(crate) message_deduplication_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    data_type: String,
    string_value: String,
}

impl Batch {
    pub(crate) fn queue_name(&self) -> &str {
        self.queue_url.rsplit('/').next().unwrap_or_default()
    }

    /// Returns why SQS rejects the batch or one of its entries.
    pub(crate) fn violated_limit(&self, is_fifo: bool) -> Option<&'static str> {
        let ids: BTreeSet<_> = self.entries.iter().map(|entry| &entry.id).collect();
        let bytes: usize = self.entries.iter().map(Entry::bytes).sum();
        if self.entries.len() > MAX_ENTRIES {
            Some("more than 10 entries")
        } else if ids.len() < self.entries.len() {
            Some("two entries with the same id")
        } else if bytes > MAX_BYTES {
            Some("more than 1 MiB")
        } else {
            self.entries.iter().find_map(|entry| entry.violated_limit(is_fifo))
        }
    }

    /// Returns the response of SQS: an error for an empty batch, otherwise a result for each entry.
    pub(crate) fn respond(&self, fate: &Fate) -> (u16, Value) {
        if self.entries.is_empty() {
            return (400, json!({"__type": "com.amazonaws.sqs#EmptyBatchRequest", "message": "simulated"}));
        }
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for (index, Entry { id, .. }) in self.entries.iter().enumerate() {
            if fate.is_entry_stored(index) {
                successful.push(json!({"Id": id, "MessageId": "m", "MD5OfMessageBody": "d"}));
            } else if let Some(error) = fate.not_stored.1 {
                failed.push(json!({"Id": id, "Code": error.code, "SenderFault": error.is_sender_fault}));
            }
        }
        (200, json!({"Successful": successful, "Failed": failed}))
    }
}

impl Entry {
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.message_attributes.get(name).map(|attribute| attribute.string_value.as_str())
    }

    fn bytes(&self) -> usize {
        let attributes = self.message_attributes.iter();
        let attributes = attributes.map(|(name, value)| name.len() + value.data_type.len() + value.string_value.len());
        self.message_body.len() + attributes.sum::<usize>()
    }

    fn violated_limit(&self, is_fifo: bool) -> Option<&'static str> {
        let texts = self.message_attributes.values().map(|attribute| &attribute.string_value);
        let is_attribute = |name: &str, attribute: &Attribute| {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            let is_number = attribute.string_value.parse::<f64>().is_ok();
            (1..=256).contains(&name.len())
                && name.bytes().all(is_name)
                && (attribute.data_type == "String" || (attribute.data_type == "Number" && is_number))
        };
        let fifo_ids = [&self.message_group_id, &self.message_deduplication_id];
        if !(1..=80).contains(&self.id.len()) || !self.id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            Some("an id of an entry that is not alphanumeric")
        } else if texts.chain([&self.message_body]).any(|text| text.is_empty() || !text.chars().all(is_allowed)) {
            Some("an empty text, or a character that SQS does not allow")
        } else if self.message_attributes.len() > MAX_ATTRIBUTES
            || !self.message_attributes.iter().all(|(name, value)| is_attribute(name, value))
        {
            Some("an attribute with a wrong name, type or value, or too many of them")
        } else if fifo_ids.into_iter().flatten().any(|id| !is_fifo_id(id)) {
            Some("a group id or deduplication id that is too long, or not printable ASCII")
        } else if is_fifo && fifo_ids.contains(&&None) {
            Some("no group id or no deduplication id on a FIFO queue")
        } else if !is_fifo && self.message_deduplication_id.is_some() {
            Some("a deduplication id on a standard queue")
        } else {
            None
        }
    }
}

fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

fn is_fifo_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}
