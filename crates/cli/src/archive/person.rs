//! Finds a person in the payload of a notification: by phone number, or by business-scoped user id.
//!
//! Meta names a person under many members (`from`, `to`, `wa_id`, `recipient_id`, `user_id`, participants of groups) and adds
//! more. Therefore every value counts that is the number or the id, whatever its member is called.

use std::{collections::BTreeSet, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Map, Value};
use thiserror::Error;
use whatsapp_webhook::notification::Fragment;

/// The lengths of phone numbers with country code, as the [numbering plan](https://www.itu.int/rec/T-REC-E.164/) allows them.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;
/// The pairs of members that name one person: phone number and user id.
const PAIRS: [[&str; 2]; 5] = [
    ["wa_id", "user_id"],
    ["from", "from_user_id"],
    ["to", "to_user_id"],
    ["recipient_id", "recipient_user_id"],
    ["recipient_participant_id", "recipient_participant_user_id"],
];
/// The object of a value that describes the phone number of the business.
const BUSINESS: &str = "metadata";
/// Message ids begin with this. The rest is base64, which contains the phone number of the other person.
const MESSAGE_ID: &str = "wamid.";

/// A phone number as digits with the country code, or a user id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PersonId(String);

/// The text is neither a phone number nor a user id.
#[derive(Debug, Error)]
#[error("neither a phone number with its country code, such as +1 555 0100 123, nor a user id such as US.1a2b3c")]
pub struct PersonIdError;

/// The ids of one person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person(BTreeSet<PersonId>);

impl PersonId {
    /// Returns the digits or the user id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_phone_number(&self) -> bool {
        self.0.bytes().all(|byte| byte.is_ascii_digit())
    }

    fn is(&self, text: &str) -> bool {
        if !self.is_phone_number() {
            return text == self.0;
        }
        phone_digits(text).is_some_and(|digits| digits == self.0)
            || text.strip_prefix(MESSAGE_ID).is_some_and(|id| self.is_in_message_id(id))
    }

    fn is_in_message_id(&self, id: &str) -> bool {
        BASE64.decode(id).is_ok_and(|bytes| self.is_in_text(&bytes))
    }

    /// Whether a text contains the id. A phone number must not be a part of a longer one.
    fn is_in_text(&self, text: &[u8]) -> bool {
        if self.is_phone_number() {
            return text.split(|byte| !byte.is_ascii_digit()).any(|digits| digits == self.0.as_bytes());
        }
        text.windows(self.0.len()).any(|window| window == self.0.as_bytes())
    }
}

impl FromStr for PersonId {
    type Err = PersonIdError;

    fn from_str(text: &str) -> Result<Self, PersonIdError> {
        let text = text.trim();
        if let Some(digits) = phone_digits(text) {
            return Ok(Self(digits));
        }
        let is_user_id = text.split_once('.').is_some_and(|(country, id)| {
            let is_country = country.len() == 2 && country.bytes().all(|byte| byte.is_ascii_uppercase());
            is_country && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
        });
        if is_user_id { Ok(Self(text.to_owned())) } else { Err(PersonIdError) }
    }
}

/// Returns the digits of a phone number in any writing, without the international prefix. `None` if it is not a phone number.
fn phone_digits(text: &str) -> Option<String> {
    let is_separator = |character: char| " -()./\u{a0}\u{202f}".contains(character);
    let text = text.strip_prefix('+').unwrap_or(text);
    if !text.chars().all(|character| character.is_ascii_digit() || is_separator(character)) {
        return None;
    }
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.strip_prefix("00").map(str::to_owned).unwrap_or(digits);
    PHONE_DIGITS.contains(&digits.len()).then_some(digits)
}

impl FromIterator<PersonId> for Person {
    fn from_iter<I: IntoIterator<Item = PersonId>>(ids: I) -> Self {
        Self(ids.into_iter().collect())
    }
}

impl Person {
    /// Returns the ids.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(PersonId::as_str)
    }

    /// Whether a fragment contains an id of the person.
    #[must_use]
    pub fn is_in(&self, fragment: &Fragment<'_>) -> bool {
        match fragment {
            Fragment::Change(change) => self.is_in_json(change.json.element()),
            Fragment::Other(json) => self.is_in_json(json.element()),
            Fragment::NotJson(body) => self.is_in_text(body),
        }
    }

    /// Whether a JSON text contains an id of the person as a value. A JSON text that cannot be interpreted counts as text.
    pub(crate) fn is_in_json(&self, json: &str) -> bool {
        let value = serde_json::from_str::<Value>(json);
        value.map_or_else(|_| self.is_in_text(json.as_bytes()), |value| self.is_in_value(&value))
    }

    /// Whether a text that is not JSON contains an id of the person.
    pub(crate) fn is_in_text(&self, text: &[u8]) -> bool {
        self.0.iter().any(|id| id.is_in_text(text))
    }

    pub(crate) fn is_in_value(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.is(text),
            Value::Number(number) => self.is(&number.to_string()),
            Value::Array(elements) => elements.iter().any(|element| self.is_in_value(element)),
            Value::Object(members) => members.iter().any(|(name, value)| self.is_in_member(name, value)),
            Value::Null | Value::Bool(_) => false,
        }
    }

    /// Whether a member contains an id of the person. A time can have the digits of a phone number.
    pub(crate) fn is_in_member(&self, name: &str, value: &Value) -> bool {
        name != BUSINESS && !name.ends_with("timestamp") && (self.is(name) || self.is_in_value(value))
    }

    fn is(&self, text: &str) -> bool {
        self.0.iter().any(|id| id.is(text))
    }

    /// Returns the person with further ids: a payload names a phone number and a user id in one object, and this person has one of both.
    pub(crate) fn with_paired_ids(&self, value: &Value) -> Self {
        let mut person = self.clone();
        loop {
            let known = person.0.len();
            person.add_pairs(value);
            if person.0.len() == known {
                return person;
            }
        }
    }

    fn add_pairs(&mut self, value: &Value) {
        match value {
            Value::Array(elements) => elements.iter().for_each(|element| self.add_pairs(element)),
            Value::Object(members) => {
                for [phone_number, user_id] in PAIRS {
                    let pair = [phone_number, user_id].map(|name| id_of(members, name));
                    if let [Some(one), Some(other)] = pair
                        && (self.0.contains(&one) || self.0.contains(&other))
                    {
                        self.0.extend([one, other]);
                    }
                }
                members.values().for_each(|value| self.add_pairs(value));
            }
            _ => {}
        }
    }

    /// Adds the ids of another value of the same person.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

fn id_of(members: &Map<String, Value>, name: &str) -> Option<PersonId> {
    members.get(name)?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn person(ids: &[&str]) -> Person {
        ids.iter().map(|id| id.parse().unwrap()).collect()
    }

    #[test]
    fn phone_number_is_read_in_any_writing() {
        for text in ["+1 (555) 010-0123", "15550100123", "0015550100123", " +1.555.010.0123 ", "1\u{a0}555 0100 123"] {
            assert_eq!(text.parse::<PersonId>().unwrap().as_str(), "15550100123", "{text}");
        }
        assert_eq!("US.1a2B".parse::<PersonId>().unwrap().as_str(), "US.1a2B");
        for text in ["", "+", "123456", "1234567890123456", "Ada", "us.1", "US.", "US.a b", "1555010012x"] {
            assert!(text.parse::<PersonId>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_value_of_a_payload_counts() {
        let ada = person(&["+1 555 010 0123", "US.ada"]);
        for value in [
            json!({ "from": "15550100123" }),
            json!({ "statuses": [{ "recipient_id": "+15550100123" }] }),
            json!({ "contacts": [{ "wa_id": 15_550_100_123_u64 }] }),
            json!({ "groups": [{ "added_participants": [{ "wa_id": "1555-010-0123" }] }] }),
            json!({ "messages": [{ "from_user_id": "US.ada" }] }),
            json!({ "threads": { "15550100123": [] } }),
            json!({ "id": format!("wamid.{}", BASE64.encode(b"\x1c\x18\x0b15550100123\x15\x02\0")) }),
        ] {
            assert!(ada.is_in_json(&value.to_string()), "{value}");
        }
        for value in [
            json!({ "from": "155501001234", "to": "5550100123", "user_id": "US.ada2", "name": "Ada" }),
            json!({ "metadata": { "display_phone_number": "15550100123" } }),
            json!({ "timestamp": "15550100123", "creation_timestamp": 15_550_100_123_u64 }),
            json!({ "text": { "body": "call 15550100123" } }),
            json!({ "id": format!("wamid.{}", BASE64.encode("\x0c155501001234")) }),
        ] {
            assert!(!ada.is_in_json(&value.to_string()), "{value}");
        }
    }

    #[test]
    fn unreadable_text_is_searched_for_the_digits() {
        let ada = person(&["15550100123", "US.ada"]);
        assert!(ada.is_in(&Fragment::NotJson(b"from=15550100123&to=1")));
        assert!(ada.is_in(&Fragment::NotJson(b"\xff US.ada")));
        assert!(ada.is_in_json(r#"{"name":"\ud800","from":"15550100123"}"#), "a lone surrogate");
        assert!(!ada.is_in(&Fragment::NotJson(b"from=155501001230")));
    }

    #[test]
    fn ids_of_a_pair_belong_together() {
        let value = json!({
            "contacts": [{ "wa_id": "15550100123", "user_id": "US.ada" }, { "wa_id": "15550100124", "user_id": "US.bo" }],
            "messages": [{ "from": "15550100199", "from_user_id": "US.ada" }],
        });
        let known = person(&["15550100123"]).with_paired_ids(&value);
        assert_eq!(known, person(&["15550100123", "15550100199", "US.ada"]));
        assert_eq!(person(&["15550100100"]).with_paired_ids(&value), person(&["15550100100"]));
    }
}
