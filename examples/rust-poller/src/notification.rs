//! What of a notification the work needs; Meta's documentation has the rest.
//!
//! Only what is always there is no `Option`, and what is unknown is let through: Meta adds to all of this.

use serde::Deserialize;
use serde_json::Value;

use crate::failure::Failure;

/// A notification on a queue has exactly one entry, and in it one change.
#[derive(Debug, Deserialize)]
struct Notification {
    object: Option<String>,
    entry: [Entry; 1],
}

#[derive(Debug, Deserialize)]
struct Entry {
    changes: [Change; 1],
}

#[derive(Debug, Deserialize)]
struct Change {
    field: String,
    value: Lists,
}

/// The value of a change of the field `messages`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lists {
    messages: Vec<Value>,
    statuses: Vec<Value>,
    errors: Vec<Value>,
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

/// The items of the only change, each with its list and position. They are read one by one, because one that is unreadable
/// must not hold up the others.
pub(crate) fn items(body: &[u8]) -> Result<Vec<(&'static str, usize, Value)>, Failure> {
    let Notification { object, entry: [Entry { changes: [Change { field, value }] }] } = serde_json::from_slice(body)?;
    // All three, whatever the attribute `kind`: it names only the first that is not empty.
    let lists = [("messages", value.messages), ("statuses", value.statuses), ("errors", value.errors)];
    let items = lists
        .into_iter()
        .flat_map(|(list, items)| items.into_iter().enumerate().map(move |(position, item)| (list, position, item)));
    let items: Vec<_> = items.collect();
    // This ends as a dead letter, which somebody looks at.
    let is_other_product = object.is_some_and(|object| object != "whatsapp_business_account");
    if is_other_product || field != "messages" || items.is_empty() {
        return Err("neither a message nor a receipt nor an error".into());
    }
    Ok(items)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn change_of_another_product_is_rejected() {
        let body = br#"{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"messages","value":{"messages":[{}]}}]}]}"#;
        assert_eq!(items(body).unwrap().len(), 1);
        let text = str::from_utf8(body).unwrap();
        items(text.replace("whatsapp_business_account", "instagram").as_bytes()).unwrap_err();
        assert_eq!(items(text.replace(r#""object":"whatsapp_business_account","#, "").as_bytes()).unwrap().len(), 1);
    }
}
