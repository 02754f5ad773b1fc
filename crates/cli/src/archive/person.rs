//! Finds a person in the payload of a notification: by phone number, or by business-scoped user id.
//!
//! Meta names a person under many members (`from`, `to`, `wa_id`, `recipient_id`, `user_id`, participants of groups) and adds
//! more. Therefore every value counts that is the number or the id, whatever its member is called.

use std::{collections::BTreeSet, fmt, str::FromStr};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use thiserror::Error;
use whatsapp_webhook::notification::{Change, Fragment};

/// The lengths of phone numbers with country code, as the [numbering plan](https://www.itu.int/rec/T-REC-E.164/) allows them.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;
/// The members of an object that name one person: phone number, user id, and the user id for all portfolios of a business.
const SYNONYMS: [&[&str]; 6] = [
    &["wa_id", "user_id", "parent_user_id"],
    &["from", "from_user_id", "from_parent_user_id"],
    &["to", "to_user_id", "to_parent_user_id"],
    &["recipient_id", "recipient_user_id", "parent_recipient_user_id"],
    &["recipient_participant_id", "recipient_participant_user_id", "recipient_participant_parent_user_id"],
    CHANGED,
];
/// The members of the object `system` of a message that name its sender, who changed the number or the user id.
const CHANGED: &[&str] = &["wa_id", "new_wa_id", "user_id", "previous_user_id", "parent_user_id"];
/// The members that describe the phone number of the business.
const BUSINESS: [&str; 2] = ["display_phone_number", "phone_number_id"];
/// Message ids begin with this. The rest is base64, which contains the phone number of the other person.
const MESSAGE_ID: &str = "wamid.";
/// Base64 of both alphabets, with or without padding: message ids of all kinds occur.
const BASE64: [GeneralPurpose; 2] = [lenient(&alphabet::STANDARD), lenient(&alphabet::URL_SAFE)];

const fn lenient(alphabet: &alphabet::Alphabet) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config.with_decode_allow_trailing_bits(true))
}

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
        BASE64.iter().any(|base64| base64.decode(id).is_ok_and(|bytes| self.is_in_text(&bytes)))
    }

    /// Whether a text contains the id. It must not be a part of a longer one.
    fn is_in_text(&self, text: &[u8]) -> bool {
        if self.is_phone_number() {
            return text.split(|byte| !byte.is_ascii_digit()).any(|digits| digits == self.0.as_bytes());
        }
        let is_end = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        text.windows(self.0.len()).enumerate().any(|(start, window)| {
            let before = start.checked_sub(1).and_then(|before| text.get(before));
            window == self.0.as_bytes() && is_end(before) && is_end(text.get(start + window.len()))
        })
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

    /// Whether a fragment contains an id of the person, also in its envelope.
    #[must_use]
    pub fn is_in(&self, fragment: &Fragment<'_>) -> bool {
        match fragment {
            Fragment::Change(Change { json, .. }) | Fragment::Other(json) => self.is_in_json(&json.parts().concat()),
            Fragment::NotJson(body) => self.is_in_text(body),
        }
    }

    /// Whether a JSON text contains an id of the person as a value. A JSON text that cannot be interpreted counts as text.
    pub(crate) fn is_in_json(&self, json: &str) -> bool {
        let mut json_text = serde_json::Deserializer::from_str(json);
        let found = Search(self).deserialize(&mut json_text).and_then(|found| json_text.end().map(|()| found));
        found.unwrap_or_else(|_| self.is_in_text(json.as_bytes()))
    }

    /// Whether a text that is not JSON contains an id of the person.
    pub(crate) fn is_in_text(&self, text: &[u8]) -> bool {
        self.0.iter().any(|id| id.is_in_text(text))
    }

    /// Whether a member with this JSON text contains an id of the person.
    pub(crate) fn is_in_member(&self, name: &str, json: &str) -> bool {
        has_person(name) && (self.is(name) || self.is_in_json(json))
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
                for names in SYNONYMS {
                    self.add_synonyms(&ids_of(members, names));
                }
                if let Some(Value::Object(system)) = members.get("system") {
                    let sender = ids_of(members, &["from", "from_user_id"]);
                    self.add_synonyms(&[sender, ids_of(system, CHANGED)].concat());
                }
                members.values().for_each(|value| self.add_pairs(value));
            }
            _ => {}
        }
    }

    /// Adds all of these ids if the person has one of them.
    fn add_synonyms(&mut self, ids: &[PersonId]) {
        if ids.iter().any(|id| self.0.contains(id)) {
            self.0.extend(ids.iter().cloned());
        }
    }

    /// Adds the ids of another value of the same person.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// Returns the ids in these members.
fn ids_of(members: &Map<String, Value>, names: &[&str]) -> Vec<PersonId> {
    names.iter().filter_map(|name| members.get(*name)?.as_str()?.parse().ok()).collect()
}

/// Whether a member can name a person. A time can have the digits of a phone number.
fn has_person(name: &str) -> bool {
    !BUSINESS.contains(&name) && !name.ends_with("timestamp")
}

/// Searches a JSON text for a person. A `Value` would have only the last one of two members with the same name.
struct Search<'p>(&'p Person);

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(self.0.is(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<bool, E> {
        Ok(self.0.is(&number.to_string()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(is_in) = elements.next_element_seed(Search(self.0))? {
            found |= is_in;
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let mut found = false;
        while let Some(name) = members.next_key::<String>()? {
            if has_person(&name) {
                found |= members.next_value_seed(Search(self.0))? || self.0.is(&name);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use serde_json::json;
    use whatsapp_webhook::notification::split;

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
            json!({ "id": format!("wamid.{}", STANDARD.encode(b"\x1c\x18\x0b15550100123\x15\x02\0")) }),
            json!({ "id": format!("wamid.{}", STANDARD.encode(b"\x1c\x18\x0b15550100123\x15\x02").trim_end_matches('=')) }),
            json!({ "id": format!("wamid.{}", URL_SAFE.encode(b"\xff\xfe\xff15550100123\xff\xfe\xff")) }),
            json!({ "metadata": { "display_phone_number": "15550100100", "owner": "15550100123" } }),
        ] {
            assert!(ada.is_in_json(&value.to_string()), "{value}");
        }
        for value in [
            json!({ "from": "155501001234", "to": "5550100123", "user_id": "US.ada2", "name": "Ada" }),
            json!({ "metadata": { "display_phone_number": "15550100123" } }),
            json!({ "timestamp": "15550100123", "creation_timestamp": 15_550_100_123_u64 }),
            json!({ "text": { "body": "call 15550100123" } }),
            json!({ "id": format!("wamid.{}", STANDARD.encode("\x0c155501001234")) }),
        ] {
            assert!(!ada.is_in_json(&value.to_string()), "{value}");
        }
    }

    #[test]
    fn duplicate_member_hides_no_person() {
        let ada = person(&["15550100123"]);
        assert!(ada.is_in_json(r#"{"from":"15550100123","from":"15550100124"}"#));
        assert!(ada.is_in_json(r#"[{"a":{"15550100123":1},"a":2}]"#));
        assert!(!ada.is_in_json(r#"{"from":"15550100124","from":"15550100125"}"#));
    }

    #[test]
    fn members_around_a_change_count() {
        let ada = person(&["15550100123"]);
        let is_in = |body: &str| split(body.as_bytes()).iter().map(|fragment| ada.is_in(fragment)).collect::<Vec<_>>();
        for member in [r#""sender":"15550100123""#, r#""more":[{"wa_id":15550100123}]"#] {
            let change = r#"{"field":"messages","value":{}}"#;
            assert_eq!(
                is_in(&format!(r#"{{"entry":[{{"id":"1","changes":[{change},{change}],{member}}}]}}"#)),
                [true; 2]
            );
            assert_eq!(is_in(&format!(r#"{{{member},"entry":[{{"id":"1","changes":[{change}]}}]}}"#)), [true]);
        }
    }

    #[test]
    fn unreadable_text_is_searched_for_the_digits() {
        let ada = person(&["15550100123", "US.ada"]);
        assert!(ada.is_in(&Fragment::NotJson(b"from=15550100123&to=1")));
        assert!(ada.is_in(&Fragment::NotJson(b"\xff US.ada")));
        assert!(ada.is_in(&Fragment::NotJson(b"US.ada2, US.ada.")));
        assert!(!ada.is_in(&Fragment::NotJson(b"US.ada2 AUS.ada")), "ids of others");
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
        let (ada, all) = (person(&["15550100123"]), person(&["15550100123", "US.ada", "US.ENT.ada"]));
        for value in [
            json!({ "contacts": [{ "wa_id": "15550100123", "user_id": "US.ada", "parent_user_id": "US.ENT.ada" }] }),
            json!({ "messages": [{ "from": "15550100123", "from_user_id": "US.ada", "from_parent_user_id": "US.ENT.ada" }] }),
            json!({ "statuses": [{ "recipient_id": "15550100123", "recipient_user_id": "US.ada", "parent_recipient_user_id": "US.ENT.ada" }] }),
            json!({ "statuses": [{ "recipient_id": "group", "recipient_participant_id": "15550100123",
                "recipient_participant_user_id": "US.ada", "recipient_participant_parent_user_id": "US.ENT.ada" }] }),
        ] {
            assert_eq!(ada.with_paired_ids(&value), all, "{value}");
        }
    }

    /// Meta names the new id of a person in a system message only.
    #[test]
    fn changed_id_belongs_to_the_same_person() {
        for system in [
            json!({ "type": "user_changed_number", "new_wa_id": "15550100124" }),
            json!({ "type": "user_changed_number", "wa_id": "15550100124" }),
        ] {
            let value = json!({ "messages": [{ "from": "15550100123", "type": "system", "system": system }] });
            let both = person(&["15550100123", "15550100124"]);
            assert_eq!(person(&["15550100123"]).with_paired_ids(&value), both);
            assert_eq!(person(&["15550100124"]).with_paired_ids(&value), both);
        }
        let system = json!({ "type": "user_changed_user_id", "user_id": "US.2", "previous_user_id": "US.1" });
        let value = json!({ "messages": [{ "from_user_id": "US.1", "type": "system", "system": system }] });
        assert_eq!(person(&["US.1"]).with_paired_ids(&value), person(&["US.1", "US.2"]));
    }
}
