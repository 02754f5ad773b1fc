//! Notifications in the format of Meta, with the expected messages.

use sha2::{Digest, Sha256};

const HEAD: &str =
    r#"{"object":"whatsapp_business_account","entry":[{"id":"102290129340398","time":1739321024,"changes":["#;
const TAIL: &str = "]}]}";

/// The business number in the values of [`message`] and [`status`].
pub(crate) const NUMBER: &str = "106540352242922";

/// A notification with one entry, and its changes in order.
#[derive(Debug, Clone)]
pub(crate) struct Notification {
    pub(crate) body: String,
    pub(crate) changes: Vec<Change>,
}

/// A change with the expected attributes of its message.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) field: String,
    pub(crate) kind: Option<&'static str>,
    pub(crate) number: Option<&'static str>,
    /// The expected body: the notification with only this change.
    pub(crate) text: String,
    pub(crate) event_id: String,
}

impl Notification {
    /// Builds a notification from fields and the JSON text of their values.
    pub(crate) fn new<F: AsRef<str>, V: AsRef<str>>(changes: impl IntoIterator<Item = (F, V)>) -> Self {
        let (texts, changes): (Vec<_>, Vec<_>) =
            changes.into_iter().map(|(field, value)| change(field.as_ref(), value.as_ref())).unzip();
        Self { body: format!("{HEAD}{}{TAIL}", texts.join(",")), changes }
    }

    /// Builds a notification with one change for each field. The suffix `.statuses` makes it a receipt.
    pub(crate) fn of(fields: &[&str]) -> Self {
        Self::new(fields.iter().enumerate().map(|(index, field)| match field.split_once('.') {
            Some((field, "statuses")) => (field, status(index)),
            _ if *field == "messages" => (*field, message(index, "hello")),
            _ => (*field, format!(r#"{{"event":"E{index}"}}"#)),
        }))
    }
}

/// The value of a change with a message.
pub(crate) fn message(index: usize, text: &str) -> String {
    format!(
        r#"{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"12025550181","phone_number_id":"{NUMBER}"}},"contacts":[{{"profile":{{"name":"Zs\u00f3fia"}},"wa_id":"12025550134"}}],"messages":[{{"from":"12025550134","id":"wamid.{index}","timestamp":"1739321024","text":{{"body":"{text}"}},"type":"text"}}]}}"#
    )
}

/// The value of a change with a receipt.
pub(crate) fn status(index: usize) -> String {
    format!(
        r#"{{"messaging_product":"whatsapp","metadata":{{"phone_number_id":"{NUMBER}"}},"statuses":[{{"id":"wamid.{index}","status":"delivered","recipient_id":"12025550134"}}]}}"#
    )
}

fn change(field: &str, value: &str) -> (String, Change) {
    // Meta does not promise an order of the members.
    let text = format!(r#"{{"value":{value}, "field":"{field}"}}"#);
    let kind = ["messages", "statuses"].into_iter().find(|kind| value.contains(&format!(r#""{kind}":[{{"#)));
    let change = Change {
        field: field.to_owned(),
        kind,
        number: value.contains("phone_number_id").then_some(NUMBER),
        event_id: event_id(&[r#""102290129340398""#, "1739321024", &text]),
        text: format!("{HEAD}{text}{TAIL}"),
    };
    (text, change)
}

/// Computes SHA-256 over the parts, each preceded by its length.
pub(crate) fn event_id(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())
}
