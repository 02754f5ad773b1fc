//! What of a notification the work needs; Meta's documentation has the rest.
//!
//! Only what is always there is no `Option`, and what is unknown is let through: Meta adds to all of this.

use serde::Deserialize;

/// A notification on a queue has exactly one entry, and in it one change.
#[derive(Debug, Deserialize)]
pub(crate) struct Notification {
    pub(crate) entry: [Entry; 1],
}

#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    pub(crate) changes: [Change; 1],
}

#[derive(Debug, Deserialize)]
pub(crate) struct Change {
    pub(crate) value: Value,
}

/// The value of a change of the field `messages`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Value {
    pub(crate) messages: Vec<Message>,
    pub(crate) statuses: Vec<Receipt>,
    pub(crate) errors: Vec<Error>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Content {
    Text {
        text: Text,
    },
    Image {
        image: Media,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Text {
    pub(crate) body: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Media {
    pub(crate) mime_type: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) id: String,
    pub(crate) status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Sent,
    Delivered,
    Read,
    Played,
    Failed,
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Error {
    pub(crate) code: i64,
    pub(crate) title: String,
}
