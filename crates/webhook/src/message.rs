//! The contract with consumers: the form of a fragment as an SQS message.

use std::{borrow::Cow, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::notification::{Change, EnvelopedJson, Fragment};

/// The maximum size in bytes of a message in SQS, including its attributes, and of all messages of a batch together.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
pub const MAX_MESSAGE_BYTES: usize = 1_048_576;

/// A value with more bytes than this is omitted from the attributes. Meta's fields and ids are far shorter.
const MAX_ATTRIBUTE_BYTES: usize = 256;

/// The maximum length of a message group id in SQS.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
const MAX_GROUP_ID_CHARACTERS: usize = 128;

/// The group id of messages without another one, see [`group_id`], and of the raw form.
pub const DEFAULT_GROUP_ID: &str = "-";

/// The maximum length of the name of a queue.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html>
pub const MAX_QUEUE_NAME_BYTES: usize = 80;

const UNROUTED_REASON: &str = "unrouted_reason";
const DIVERTED_FROM: &str = "diverted_from";
const REPLAYED: &str = "replayed";

/// The key prefix of objects without a route.
const UNROUTED_PREFIX: &str = "unrouted";

/// The reason why a message is on the catch-all queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchAllReason<'q> {
    /// No route matches the change.
    NoRoute,
    /// The change has no usable field: none, an empty one, or one that is not a string.
    NoField,
    /// The body is not JSON, or not UTF-8.
    NotJson,
    /// The fragment is JSON without a readable change, or over the limits, see [`Fragment::Other`].
    NotANotification,
    /// The message was diverted, because a queue of its route did not store it.
    QueueUnavailable {
        /// The name of the queue.
        queue: &'q str,
    },
}

impl<'q> CatchAllReason<'q> {
    /// The value of the attribute `unrouted_reason`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::NoField => "no-field",
            Self::NotJson => "not-json",
            Self::NotANotification => "not-a-notification",
            Self::QueueUnavailable { .. } => "queue-unavailable",
        }
    }

    /// The value of the attribute `diverted_from`: the name of the queue that did not store the message.
    #[must_use]
    pub const fn diverted_from(self) -> Option<&'q str> {
        if let Self::QueueUnavailable { queue } = self { Some(queue) } else { None }
    }

    /// The reason for a fragment without a matching route.
    #[must_use]
    pub const fn of_fragment(fragment: &Fragment<'_>) -> Self {
        match fragment {
            Fragment::Change(Change { field: Some(_), .. }) => Self::NoRoute,
            Fragment::Change(_) => Self::NoField,
            Fragment::Other(_) => Self::NotANotification,
            Fragment::NotJson(_) => Self::NotJson,
        }
    }
}

/// The values that all messages of a request share.
#[derive(Clone, Copy)]
pub struct RequestContext<'r> {
    /// API Gateway's id of the request.
    pub request_id: &'r str,
    /// The HMAC key of conversation group ids, see [`AppCredentials::group_key`](crate::credentials::AppCredentials::group_key).
    /// It is confidential only if the secret has the member `group_key`. The default is the secret's id. Anyone who has the key
    /// and a group id can find the phone number by hashing all phone numbers.
    pub group_key: &'r str,
    /// The X-Ray tracing header, if the trace of the request is sampled.
    pub trace: Option<&'r str>,
}

impl std::fmt::Debug for RequestContext<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RequestContext").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

/// A message to be sent to SQS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The text of the fragment, its base64, or a pointer to an object in S3.
    pub body: String,
    /// The attributes, by name.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// The message group id. A FIFO queue keeps the order within a group. A standard queue is fair between groups.
    pub group_id: String,
    /// The deduplication id. A FIFO queue requires one, and a standard queue rejects one.
    pub deduplication_id: Option<String>,
    /// The X-Ray tracing header. It does not count towards the size limit.
    pub trace: Option<String>,
}

/// The SQS data type of a text attribute.
const TEXT_TYPE: &str = "String";

/// The value of a message attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// The SQS type `String`.
    Text(String),
    /// The SQS type `Number`.
    Number(usize),
}

impl Attribute {
    /// The value in the form that SQS requires: a number as text.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
        }
    }

    /// The SQS data type.
    #[must_use]
    pub const fn data_type(&self) -> &'static str {
        match self {
            Self::Text(_) => TEXT_TYPE,
            Self::Number(_) => "Number",
        }
    }
}

impl Message {
    /// Builds the message of a fragment in the form of the contract.
    ///
    /// `reason` is why the message goes to the catch-all queue, or `None` on a queue of its route. `fifo` is whether the queue
    /// is a FIFO queue.
    ///
    /// Every message has the attribute `event_id`, and a body whose characters SQS accepts. The attributes omit empty and long
    /// values, and values with control characters.
    #[must_use]
    pub fn new(
        fragment: &Fragment<'_>,
        event_id: &str,
        request: RequestContext<'_>,
        reason: Option<CatchAllReason<'_>>,
        fifo: bool,
    ) -> Self {
        let diverted_from = reason.and_then(CatchAllReason::diverted_from);
        let (body, encoding) = body(fragment);
        // SQS accepts ten attributes. A change has at most eight, because it is not encoded. `replayed` and
        // `replace_body_with_pointer` add one each.
        let mut attributes = Vec::with_capacity(10);
        let mut add = |name, value: Option<&str>| {
            attributes.extend(value.filter(|value| fits_attribute(value)).map(|value| (name, text_attribute(value))));
        };
        if let Fragment::Change(change) = fragment {
            add("field", change.field.as_deref());
            add("entry_id", change.entry_id().as_deref());
            add("kind", change.kind.map(crate::notification::Kind::name));
            add("phone_number_id", change.phone_number_id.as_deref());
        }
        add("event_id", Some(event_id));
        add("request_id", Some(request.request_id));
        add(UNROUTED_REASON, reason.map(CatchAllReason::name));
        add(DIVERTED_FROM, diverted_from);
        add("encoding", encoding);
        Self {
            body,
            attributes,
            group_id: group_id(fragment, request, fifo),
            deduplication_id: fifo.then(|| deduplication_id(event_id, diverted_from)),
            // SQS may have rejected a diverted message because of this header.
            trace: request.trace.filter(|_| diverted_from.is_none()).map(ToOwned::to_owned),
        }
    }

    /// Builds the raw form, the fallback for a message whose usual form SQS rejects.
    ///
    /// The body is base64, and the few attributes are short ASCII, so that SQS can reject only the size. `diverted_from` is the
    /// name of the queue that did not store the message, or `None` if the message was not diverted.
    #[must_use]
    pub fn raw_base64(fragment: &Fragment<'_>, event_id: &str, diverted_from: Option<&str>, fifo: bool) -> Self {
        let mut attributes = vec![("event_id", text_attribute(event_id)), ("encoding", text_attribute("base64"))];
        attributes.extend(diverted_from.map(|queue| (DIVERTED_FROM, text_attribute(queue))));
        Self {
            body: BASE64.encode(bytes(fragment)),
            attributes,
            group_id: DEFAULT_GROUP_ID.to_owned(),
            deduplication_id: fifo.then(|| deduplication_id(event_id, diverted_from)),
            trace: None,
        }
    }

    /// Replaces the body with a pointer to an S3 object, in the format of the Amazon SQS Extended Client Library. Returns the body.
    ///
    /// Source: <https://github.com/awslabs/payload-offloading-java-common-lib-for-aws>
    pub fn replace_body_with_pointer(&mut self, bucket: &str, key: &str) -> String {
        let pointer =
            json!(["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": bucket, "s3Key": key}]);
        let body = std::mem::replace(&mut self.body, pointer.to_string());
        self.attributes.push(("ExtendedPayloadSize", Attribute::Number(body.len())));
        body
    }

    /// Marks a message that was built from an archived notification. `time` is the time of the replay in UTC, in the form
    /// `2026-01-02T03:04:05Z`.
    ///
    /// SQS would drop the message from a FIFO queue if it stored the original less than five minutes ago. Therefore the
    /// deduplication id is a hash that includes the time of the replay. Two copies of one replay still have the same id.
    #[must_use]
    pub fn replayed(mut self, time: &str) -> Self {
        self.attributes.push((REPLAYED, text_attribute(time)));
        self.deduplication_id = self.deduplication_id.map(|id| hash_of([&id, REPLAYED, time]));
        self
    }

    /// An upper bound of the size in bytes that SQS counts: the body, and the name, type and value of each attribute.
    ///
    /// It always includes the attributes of a diverted message, because the message must still fit after a diversion.
    #[must_use]
    pub fn size(&self) -> usize {
        // `unrouted_reason` counts with the value of this message or of a diverted one, whichever is longer.
        let (mut other_attributes, mut reason) = (0, DIVERTED_REASON_BYTES);
        for (name, value) in &self.attributes {
            let size = attribute_size(name, value);
            match *name {
                UNROUTED_REASON => reason = reason.max(size),
                DIVERTED_FROM => {}
                _ => other_attributes += size,
            }
        }
        self.body.len() + other_attributes + reason + MAX_DIVERTED_FROM_BYTES
    }
}

/// The size of the attribute `unrouted_reason` of a diverted message.
const DIVERTED_REASON_BYTES: usize =
    UNROUTED_REASON.len() + TEXT_TYPE.len() + CatchAllReason::QueueUnavailable { queue: "" }.name().len();

/// The maximum size of the attribute `diverted_from`.
const MAX_DIVERTED_FROM_BYTES: usize = DIVERTED_FROM.len() + TEXT_TYPE.len() + MAX_QUEUE_NAME_BYTES;

/// The deduplication id on a FIFO queue: the event id, or for a diverted message a hash of the event id and the queue's name.
///
/// If several queues do not store a change, a message is diverted for each of them, all with the same event id. With equal
/// deduplication ids, a FIFO catch-all queue would store only one of them.
fn deduplication_id(event_id: &str, diverted_from: Option<&str>) -> String {
    diverted_from.map_or_else(|| event_id.to_owned(), |queue| hash_of([event_id, queue]))
}

fn hash_of<const N: usize>(texts: [&str; N]) -> String {
    hex::encode(texts.into_iter().fold(Sha256::new(), Sha256::chain_update).finalize())
}

/// The key of the object with a body that is too large for SQS, under the prefix of its route. `None`: no route matches. `date`
/// has the form `2026-01-02`.
///
/// A consumer's library deletes the object together with its message. Two messages must therefore never share an object, not
/// even two copies of the same message: `random` differs for each.
#[must_use]
pub fn object_key(route: Option<&str>, date: &str, event_id: &str, random: u64) -> String {
    format!("{}/{date}/{event_id}-{random:016x}", route.unwrap_or(UNROUTED_PREFIX))
}

/// The consumers' idempotency key, as 64 hexadecimal digits. A change has the same event id in every notification that
/// contains it with the same entry id and entry time.
///
/// The event id of a change is the SHA-256 of three JSON texts: the entry id, the entry time and the change itself. Each text is
/// preceded by its length in bytes, as a big-endian 64-bit number. A missing id or time counts as an empty text.
///
/// The event id of another fragment is the SHA-256 of its length and its bytes.
#[must_use]
pub fn event_id(fragment: &Fragment<'_>) -> String {
    let mut hash = Sha256::new();
    let mut update = |slices: &[&[u8]]| {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        hash.update(u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
        for slice in slices {
            hash.update(slice);
        }
    };
    match fragment {
        Fragment::Change(change) => {
            for text in [change.entry_id_json, change.entry_time_json, Some(change.json.element())] {
                update(&[text.unwrap_or_default().as_bytes()]);
            }
        }
        Fragment::Other(json) => update(&json.parts().map(str::as_bytes)),
        Fragment::NotJson(body) => update(&[body]),
    }
    hex::encode(hash.finalize())
}

/// The message group id. On a FIFO queue it is a hash of the conversation.
///
/// A change without a conversation, and every change on a standard queue, has the first of these that SQS accepts: the phone
/// number id, the entry id, `-`. Other fragments have `-`.
#[must_use]
pub fn group_id(fragment: &Fragment<'_>, request: RequestContext<'_>, fifo: bool) -> String {
    let Fragment::Change(change) = fragment else { return DEFAULT_GROUP_ID.to_owned() };
    let number = change.phone_number_id.as_deref();
    if let Some(conversation) = fifo.then(|| change.conversation()).flatten() {
        return conversation_group_id(request.group_key, number.unwrap_or_default(), &conversation);
    }
    let entry_id = change.entry_id();
    let group = [number, entry_id.as_deref()].into_iter().flatten().find(|group| is_group_id(group));
    group.unwrap_or(DEFAULT_GROUP_ID).to_owned()
}

fn conversation_group_id(key: &str, number: &str, conversation: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(number.as_bytes());
    mac.update(&[0]);
    // In some payloads a plus sign precedes the phone number.
    mac.update(conversation.trim_start_matches('+').as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// The body of a message, and the value of the attribute `encoding` if the body is encoded.
fn body(fragment: &Fragment<'_>) -> (String, Option<&'static str>) {
    match fragment {
        Fragment::Change(Change { json, .. }) | Fragment::Other(json) => (json_text(json), None),
        Fragment::NotJson(body) => match std::str::from_utf8(body) {
            Ok(text) if text.chars().all(is_allowed_by_sqs) => (text.to_owned(), None),
            _ => (BASE64.encode(body), Some("base64")),
        },
    }
}

/// The bytes of a fragment, as Meta sent them.
fn bytes(fragment: &Fragment<'_>) -> Vec<u8> {
    match fragment {
        Fragment::Change(Change { json, .. }) | Fragment::Other(json) => json.parts().concat().into_bytes(),
        Fragment::NotJson(body) => body.to_vec(),
    }
}

/// Joins the parts, and replaces U+FFFE and U+FFFF by their JSON escapes, because SQS rejects these characters. JSON contains
/// them only in strings, where an escape has the same meaning.
fn json_text(json: &EnvelopedJson<'_>) -> String {
    let mut text = String::with_capacity(json.len());
    for slice in json.parts() {
        let mut rest = slice;
        while let Some(position) = find_noncharacter(rest) {
            let (before, noncharacter_and_after) = rest.split_at(position);
            let mut characters = noncharacter_and_after.chars();
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

/// The position of the first U+FFFE or U+FFFF. Searches for 0xef, the first byte of both in UTF-8, which is rare.
fn find_noncharacter(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    memchr::memchr_iter(0xef, bytes).find(|at| bytes[at + 1] == 0xbf && bytes[at + 2] >= 0xbe)
}

/// Whether SQS accepts the character in bodies and attributes.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
fn is_allowed_by_sqs(character: char) -> bool {
    !matches!(character, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a value may be an attribute.
///
/// Consumers log attributes. Control characters are not allowed, because they could break a line of a log or change the
/// direction of its text.
fn fits_attribute(value: &str) -> bool {
    let is_safe = |character| is_allowed_by_sqs(character) && !character.is_control() && !is_layout_control(character);
    !value.is_empty() && value.len() <= MAX_ATTRIBUTE_BYTES && value.chars().all(is_safe)
}

/// Line and paragraph separators, and the controls of the Unicode bidirectional algorithm.
///
/// Source: <https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>
fn is_layout_control(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether SQS accepts a value as a message group id.
#[must_use]
pub fn is_group_id(value: &str) -> bool {
    !value.is_empty() && value.len() <= MAX_GROUP_ID_CHARACTERS && value.bytes().all(|byte| byte.is_ascii_graphic())
}

fn text_attribute(value: &str) -> Attribute {
    Attribute::Text(value.to_owned())
}

fn attribute_size(name: &str, value: &Attribute) -> usize {
    name.len() + value.data_type().len() + value.text().len()
}

#[cfg(test)]
mod tests;
