//! Messages as a client sends them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
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
    /// The system attributes by name. SQS has one, `AWSTraceHeader`.
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

    /// Bytes that count towards the limits: the body, and of each attribute name, type and value.
    pub(super) fn size(&self) -> usize {
        let of_attribute =
            |(name, attribute): (&String, &Attribute)| name.len() + attribute.data_type.len() + attribute.value().len();
        self.body.len() + self.attributes.iter().map(of_attribute).sum::<usize>()
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

impl Attribute {
    /// The value's bytes, of a text or not.
    pub(super) fn value(&self) -> &[u8] {
        self.text.as_deref().map(str::as_bytes).or(self.bytes.as_deref()).unwrap_or_default()
    }
}

fn base64_bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    BASE64_STANDARD.decode(text).map(Some).map_err(serde::de::Error::custom)
}
