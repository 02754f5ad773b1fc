//! What a sample should bring about: its answer, and the messages on the queues.
//!
//! Worked out here from the wire form alone, without the function's own code, so that the two can disagree.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use whatsapp_webhook::routes::CATCH_ALL;

use crate::meta::samples::{Sample, Signer, VERIFY_TOKEN};

/// What should come of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The status of the answer.
    pub status: u16,
    /// The body of the answer.
    pub answer: String,
    /// What should be found on the queues.
    pub pieces: Vec<Piece>,
}

/// What one message on a queue stands for: a change, or what was no change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The change's field.
    pub field: Option<String>,
    /// What the change's value has, where it is under a field that Meta uses for several things.
    pub kind: Option<&'static str>,
    /// Why it is on the catch-all queue whatever the routes are.
    pub reason: Option<&'static str>,
    /// The text of the change, of the entry without a change, of the array's element or of the body, as it was sent.
    pub text: String,
    /// The texts of what is around it by name: the other members of its entry, and of its envelope.
    pub around: [Members; 2],
}

type Members = BTreeMap<String, String>;

impl Expected {
    /// Works out what should come of a sample delivered with the right secret.
    #[must_use]
    pub fn of(sample: &Sample) -> Self {
        let (status, answer, pieces) = match (sample.method.as_str(), sample.signer()) {
            ("GET", _) if sample.query_value("hub.verify_token").as_deref() != Some(VERIFY_TOKEN) => {
                (403, None, vec![])
            }
            ("GET", _) => match sample.query_value("hub.challenge") {
                Some(challenge) => (200, Some(challenge), vec![]),
                None => (400, None, vec![]),
            },
            ("POST", Signer::Meta) => (200, None, Piece::all_of(&sample.body)),
            ("POST", Signer::Forger | Signer::Nobody) => (401, None, vec![]),
            _ => (405, None, vec![]),
        };
        Self { status, answer: answer.unwrap_or_default(), pieces }
    }
}

impl Piece {
    /// Takes a body apart. The body of a message on a queue comes out as one piece, the same as the one it was made of.
    #[must_use]
    pub fn all_of(body: &[u8]) -> Vec<Self> {
        if body.is_empty() {
            return Vec::new();
        }
        let Ok(text) = str::from_utf8(body) else {
            return vec![Self::no_change("not-json", &String::from_utf8_lossy(body))];
        };
        match (serde_json::from_str::<Vec<&RawValue>>(text), serde_json::from_str::<&RawValue>(text)) {
            (Ok(elements), _) if !elements.is_empty() => {
                elements.into_iter().flat_map(|element| Self::all_of_envelope(element.get())).collect()
            }
            (_, Ok(_)) => Self::all_of_envelope(text),
            (_, Err(_)) => vec![Self::no_change("not-json", text)],
        }
    }

    /// The first of these routes that there is: of field and kind, of the field, the catch-all.
    #[must_use]
    pub fn route(&self, exists: impl Fn(&str) -> bool) -> String {
        let Some(field) = &self.field else { return CATCH_ALL.to_owned() };
        self.kind
            .map(|kind| format!("{field}.{kind}"))
            .into_iter()
            .chain([field.clone()])
            .find(|route| exists(route))
            .unwrap_or_else(|| CATCH_ALL.to_owned())
    }

    /// The attribute `unrouted_reason` that a message on this route has.
    #[must_use]
    pub fn reason_on(&self, route: &str) -> Option<&'static str> {
        self.reason.or((route == CATCH_ALL).then_some("no-route"))
    }

    fn all_of_envelope(text: &str) -> Vec<Self> {
        let Some((entries, envelope)) = taken(text, "entry") else {
            return vec![Self::no_change("not-a-notification", text)];
        };
        entries.into_iter().flat_map(|entry| Self::all_of_entry(entry.get(), &envelope)).collect()
    }

    fn all_of_entry(text: &str, envelope: &Members) -> Vec<Self> {
        let Some((changes, entry)) = taken(text, "changes") else {
            let around = [Members::new(), envelope.clone()];
            return vec![Self { around, ..Self::no_change("not-a-notification", text) }];
        };
        let around = [entry, envelope.clone()];
        changes.into_iter().map(|change| Self::change(change.get(), around.clone())).collect()
    }

    fn change(text: &str, around: [Members; 2]) -> Self {
        let Change { field, value } = serde_json::from_str(text).unwrap_or_default();
        let filled = |name: &&str| value[*name].as_array().is_some_and(|members| !members.is_empty());
        let field = field.as_str().filter(|field| !field.is_empty()).map(str::to_owned);
        Self {
            reason: field.is_none().then_some("no-field"),
            field,
            kind: ["messages", "statuses", "errors"].into_iter().find(filled),
            text: text.to_owned(),
            around,
        }
    }

    fn no_change(reason: &'static str, text: &str) -> Self {
        Self { field: None, kind: None, reason: Some(reason), text: text.to_owned(), around: Default::default() }
    }
}

/// The elements of the array that an object has under a name, and its other members; none if there are no elements.
fn taken<'a>(object: &'a str, array: &str) -> Option<(Vec<&'a RawValue>, Members)> {
    let mut members: BTreeMap<String, &RawValue> = serde_json::from_str(object).ok()?;
    let elements: Vec<&RawValue> = serde_json::from_str(members.remove(array)?.get()).ok()?;
    let others = members.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect();
    (!elements.is_empty()).then_some((elements, others))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Change {
    field: Value,
    value: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_goes_to_the_route_of_its_kind_where_there_is_one() {
        let pieces =
            Piece::all_of(br#"{"entry":[{"changes":[{"field":"messages","value":{"messages":[],"statuses":[1]}}]}]}"#);

        let [receipt] = pieces.as_slice() else { panic!("{pieces:?}") };
        assert_eq!(receipt.route(|_| true), "messages.statuses");
        assert_eq!(receipt.route(|route| route == "messages"), "messages");
        assert_eq!(receipt.route(|_| false), "*");
        assert_eq!(receipt.reason_on("*"), Some("no-route"));
        assert_eq!(receipt.text, r#"{"field":"messages","value":{"messages":[],"statuses":[1]}}"#);
    }

    #[test]
    fn neighbours_of_what_is_no_change_are_changes_all_the_same() {
        let body = br#"[{"entry":[{"id":"1","messaging":[]},{"changes":[{"field":"security"},{"value":2}]}]},{"a":1}]"#;

        let found: Vec<_> = Piece::all_of(body).into_iter().map(|piece| (piece.reason, piece.text)).collect();
        assert_eq!(
            found,
            [
                (Some("not-a-notification"), r#"{"id":"1","messaging":[]}"#.to_owned()),
                (None, r#"{"field":"security"}"#.to_owned()),
                (Some("no-field"), r#"{"value":2}"#.to_owned()),
                (Some("not-a-notification"), r#"{"a":1}"#.to_owned()),
            ]
        );
    }

    #[test]
    fn a_body_that_is_no_json_is_one_piece() {
        assert_eq!(Piece::all_of(b"entry=1"), [Piece::no_change("not-json", "entry=1")]);
        assert_eq!(Piece::all_of(b"[]"), [Piece::no_change("not-a-notification", "[]")]);
        assert_eq!(Piece::all_of(b""), []);
    }
}
