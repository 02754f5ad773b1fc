//! The contract with consumers: what a fragment of a notification looks like as an SQS message.

use std::{borrow::Cow, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::notification::{Change, EnvelopedJson, Fragment, string_or_number};

/// The most bytes that SQS takes as one message or one batch, attributes included (UTF-8, 1 MiB).
pub const MAX_MESSAGE_BYTES: usize = 1_048_576;

/// A value longer than this, in bytes, is left out of the attributes: no field or id of Meta's comes near.
const MOST_ATTRIBUTE_BYTES: usize = 256;

/// The most characters that SQS takes as a message group id.
const MOST_GROUP_CHARACTERS: usize = 128;

/// The group of messages without a phone number and an account.
pub const NO_GROUP: &str = "-";

/// Why a message is on the catch-all queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unrouted {
    /// No route has the change's field.
    NoRoute,
    /// The change has no field.
    NoField,
    /// The body is not JSON, or not UTF-8.
    NotJson,
    /// JSON, or an entry, without a change.
    NotANotification,
    /// The queue of the route did not take the message.
    QueueUnavailable,
}

impl Unrouted {
    /// The value of the attribute `unrouted_reason`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::NoField => "no-field",
            Self::NotJson => "not-json",
            Self::NotANotification => "not-a-notification",
            Self::QueueUnavailable => "queue-unavailable",
        }
    }

    /// Why a fragment that no route was found for is unrouted.
    #[must_use]
    pub const fn of(fragment: &Fragment<'_>) -> Self {
        match fragment {
            Fragment::Change(Change { field: Some(_), .. }) => Self::NoRoute,
            Fragment::Change(_) => Self::NoField,
            Fragment::Other(_) => Self::NotANotification,
            Fragment::NotJson(_) => Self::NotJson,
        }
    }
}

/// What all messages of one request have in common.
#[derive(Clone, Copy)]
pub struct Origin<'o> {
    /// API Gateway's id of the request.
    pub request_id: &'o str,
    /// The key of the conversations' group ids, so that nobody guesses phone numbers back from them.
    pub group_key: &'o str,
    /// The tracing header, if the request is part of a trace that is recorded.
    pub trace: Option<&'o str>,
}

impl std::fmt::Debug for Origin<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Origin").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

/// A message as SQS is to store it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The body: a notification with one change, or what else was signed.
    pub body: String,
    /// The attributes, by name.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Keeps order within the group on a FIFO queue, and fairness between groups on a standard one.
    pub group_id: String,
    /// Set for FIFO queues, which refuse a message without; others refuse one with.
    pub deduplication_id: Option<String>,
    /// The tracing header, which counts towards no limit.
    pub trace: Option<String>,
}

/// The value of a message attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// Of SQS's type `String`.
    Text(String),
    /// Of SQS's type `Number`.
    Number(usize),
}

impl Attribute {
    /// The value as SQS is sent it: a number is a text too.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
        }
    }

    /// The name of SQS's type.
    #[must_use]
    pub const fn data_type(&self) -> &'static str {
        match self {
            Self::Text(_) => "String",
            Self::Number(_) => "Number",
        }
    }
}

impl Message {
    /// Puts a fragment into the form that consumers rely on.
    ///
    /// Every message has a body that SQS takes and the attribute `event_id`; what SQS would refuse as an attribute
    /// or as a group id is left out and never costs the message.
    #[must_use]
    pub fn new(
        fragment: &Fragment<'_>,
        event_id: &str,
        origin: Origin<'_>,
        unrouted: Option<Unrouted>,
        fifo: bool,
    ) -> Self {
        let (body, encoding) = body(fragment);
        let mut attributes = Vec::with_capacity(9);
        let mut set = |name, value: Option<&str>| {
            attributes.extend(value.filter(|value| fits_attribute(value)).map(|value| (name, text(value))));
        };
        if let Fragment::Change(change) = fragment {
            set("field", change.field.as_deref());
            set("entry_id", change.entry_id.and_then(string_or_number_text).as_deref());
            set("kind", change.kind.map(crate::notification::Kind::name));
            set("phone_number_id", change.phone_number_id.as_deref());
        }
        set("event_id", Some(event_id));
        set("request_id", Some(origin.request_id));
        set("unrouted_reason", unrouted.map(Unrouted::name));
        set("encoding", encoding);
        Self {
            body,
            attributes,
            group_id: group_id(fragment, origin, fifo),
            deduplication_id: fifo.then(|| event_id.to_owned()),
            // What is diverted was perhaps refused for it.
            trace: origin.trace.filter(|_| unrouted != Some(Unrouted::QueueUnavailable)).map(ToOwned::to_owned),
        }
    }

    /// The last form that is tried when SQS refuses the contract's: nothing in it can be refused.
    #[must_use]
    pub fn bare(fragment: &Fragment<'_>, event_id: &str, fifo: bool) -> Self {
        Self {
            body: BASE64.encode(bytes(fragment)),
            attributes: vec![("event_id", text(event_id)), ("encoding", text("base64"))],
            group_id: NO_GROUP.to_owned(),
            deduplication_id: fifo.then(|| event_id.to_owned()),
            trace: None,
        }
    }

    /// Replaces the body by the pointer to where it was stored, as the Amazon SQS Extended Client Library
    /// writes and reads it; gives the body back.
    pub fn point_to(&mut self, bucket: &str, key: &str) -> String {
        let pointer =
            json!(["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": bucket, "s3Key": key}]);
        let body = std::mem::replace(&mut self.body, pointer.to_string());
        self.attributes.push(("ExtendedPayloadSize", Attribute::Number(body.len())));
        body
    }

    /// Bytes that SQS counts for the message: its body, and name, type and value of each attribute.
    ///
    /// Always with room for the `unrouted_reason` of a diverted message, so that it still fits the catch-all.
    #[must_use]
    pub fn size(&self) -> usize {
        let diverted = attribute_size("unrouted_reason", &text(Unrouted::QueueUnavailable.name()));
        let (mut others, mut reason) = (0, diverted);
        for (name, value) in &self.attributes {
            let size = attribute_size(name, value);
            if *name == "unrouted_reason" {
                // A reason of its own can be the longer one.
                reason = reason.max(size);
            } else {
                others += size;
            }
        }
        self.body.len() + others + reason
    }
}

/// The consumers' idempotency key: the same for the same change, however Meta batched it, in 64 hex digits.
///
/// SHA-256 over the raw JSON texts of entry id, entry time and change, each after its length as 8 bytes,
/// big-endian, with nothing after a 0 where there is none. For what is not a change, the fragment alone.
#[must_use]
pub fn event_id(fragment: &Fragment<'_>) -> String {
    let mut hash = Sha256::new();
    let mut part = |slices: &[&[u8]]| {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        hash.update(u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
        for slice in slices {
            hash.update(slice);
        }
    };
    match fragment {
        Fragment::Change(change) => {
            for text in [change.entry_id, change.entry_time, Some(change.json.element())] {
                part(&[text.unwrap_or_default().as_bytes()]);
            }
        }
        Fragment::Other(json) => part(&json.parts().map(str::as_bytes)),
        Fragment::NotJson(body) => part(&[body]),
    }
    hex::encode(hash.finalize())
}

/// The message group: on a FIFO queue the conversation, on a standard queue the phone number or the account.
#[must_use]
pub fn group_id(fragment: &Fragment<'_>, origin: Origin<'_>, fifo: bool) -> String {
    let Fragment::Change(change) = fragment else { return NO_GROUP.to_owned() };
    let number = change.phone_number_id.as_deref();
    if let Some(contact) = fifo.then(|| change.contact()).flatten() {
        return conversation(origin.group_key, number.unwrap_or_default(), &contact);
    }
    let entry_id = change.entry_id.and_then(string_or_number_text);
    let group = [number, entry_id.as_deref()].into_iter().flatten().find(|group| is_group_id(group));
    group.unwrap_or(NO_GROUP).to_owned()
}

fn conversation(key: &str, number: &str, contact: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(number.as_bytes());
    mac.update(&[0]);
    mac.update(contact.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// The body of a fragment, and how it is encoded where it is not the fragment's own text.
fn body(fragment: &Fragment<'_>) -> (String, Option<&'static str>) {
    match fragment {
        Fragment::Change(Change { json, .. }) | Fragment::Other(json) => (json_text(json), None),
        Fragment::NotJson(body) => match std::str::from_utf8(body) {
            Ok(text) if text.chars().all(is_taken) => (text.to_owned(), None),
            _ => (BASE64.encode(body), Some("base64")),
        },
    }
}

fn bytes(fragment: &Fragment<'_>) -> Vec<u8> {
    match fragment {
        Fragment::Change(Change { json, .. }) | Fragment::Other(json) => json.parts().concat().into_bytes(),
        Fragment::NotJson(body) => body.to_vec(),
    }
}

/// Joins the slices; the only characters of a JSON text that SQS refuses become their escapes, which mean the
/// same: both can only stand inside a string.
fn json_text(json: &EnvelopedJson<'_>) -> String {
    let mut text = String::with_capacity(json.len());
    for slice in json.parts() {
        let mut rest = slice;
        while let Some(at) = find_noncharacter(rest) {
            let (before, from) = rest.split_at(at);
            let mut characters = from.chars();
            let character = characters.next().map_or(0, u32::from);
            text.push_str(before);
            // Writing to a string cannot fail.
            let _ = write!(text, "\\u{character:04x}");
            rest = characters.as_str();
        }
        text.push_str(rest);
    }
    text
}

/// Where U+FFFE or U+FFFF stands; both begin with a byte that is rare.
fn find_noncharacter(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    memchr::memchr_iter(0xef, bytes).find(|at| bytes[at + 1] == 0xbf && bytes[at + 2] >= 0xbe)
}

/// Whether SQS takes the character in bodies and attributes.
fn is_taken(character: char) -> bool {
    !matches!(character, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a value may be an attribute. Consumers log attributes, so none can break a line or change its direction.
fn fits_attribute(value: &str) -> bool {
    let is_safe = |character| is_taken(character) && !character.is_control() && !is_layout_control(character);
    !value.is_empty() && value.len() <= MOST_ATTRIBUTE_BYTES && value.chars().all(is_safe)
}

/// Line and paragraph separators, and the controls of the Unicode bidirectional algorithm.
///
/// Source: <https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>
fn is_layout_control(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether SQS accepts a value as a message group id, and log readers its characters.
#[must_use]
pub fn is_group_id(value: &str) -> bool {
    !value.is_empty() && value.len() <= MOST_GROUP_CHARACTERS && value.bytes().all(|byte| byte.is_ascii_graphic())
}

fn string_or_number_text(json: &str) -> Option<String> {
    let json = serde_json::from_str(json).ok()?;
    string_or_number(json).map(Cow::into_owned)
}

fn text(value: &str) -> Attribute {
    Attribute::Text(value.to_owned())
}

fn attribute_size(name: &str, value: &Attribute) -> usize {
    name.len() + value.data_type().len() + value.text().len()
}

#[cfg(test)]
mod tests;
