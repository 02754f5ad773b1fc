//! The messages in a call.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The only system attribute that a sender may set.
pub(super) const TRACE_HEADER: &str = "AWSTraceHeader";

/// A message in a call, before it is stored.
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
    /// Returns the X-Ray trace header.
    #[must_use]
    pub fn trace(&self) -> Option<&str> {
        self.system_attributes.get(TRACE_HEADER)?.text.as_deref()
    }

    /// Returns the text of a `String` or `Number` attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name)?.text.as_deref()
    }

    /// Returns the size that SQS limits: the bytes of the body and of the names, types and values of the attributes.
    pub(super) fn size(&self) -> usize {
        let attribute_size =
            |(name, attribute): (&String, &Attribute)| name.len() + attribute.data_type.len() + attribute.value().len();
        self.body.len() + self.attributes.iter().map(attribute_size).sum::<usize>()
    }
}

/// A message attribute: a type and a value of text or bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Attribute {
    /// `String`, `Number` or `Binary`, optionally with a custom suffix after a dot.
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
    /// Returns the bytes of the text or binary value.
    pub(super) fn value(&self) -> &[u8] {
        self.text.as_deref().map(str::as_bytes).or(self.bytes.as_deref()).unwrap_or_default()
    }
}

fn base64_bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    BASE64_STANDARD.decode(text).map(Some).map_err(serde::de::Error::custom)
}
