//! Removes a person from the text of a notification. All other bytes remain, so a change without the person keeps its event id.
//!
//! The smallest part that is removed is an element of an array in a value, such as a message, a receipt or a contact. If
//! nothing but other people's `contacts` is left in a change, the change is removed, and so on up to the notification.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::person::Person;

/// Arrays whose elements contain the data of several people, in arrays again.
const NESTED: [&str; 2] = ["groups", "history"];
/// The array that describes the people of the other arrays.
const CONTACTS: &str = "contacts";
/// The object of a value that has the arrays while Meta Business Agent has the chat.
const STANDBY: &str = "standby";

/// What remains of a text without a person.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Remainder {
    /// The whole text: the person is not in it.
    Same,
    /// This text.
    Text(String),
    /// Nothing.
    Nothing,
}

/// Removes a person from a body. Adds the ids that the body pairs with those of the person.
pub(crate) fn remove_person(body: &[u8], person: &Person, ids: &mut Person) -> Remainder {
    let json =
        std::str::from_utf8(body).ok().and_then(|text| Some((text, serde_json::from_str::<&RawValue>(text).ok()?)));
    let Some((text, json)) = json else {
        return if person.is_in_text(body) { Remainder::Nothing } else { Remainder::Same };
    };
    let eraser = Eraser { person, ids: std::cell::RefCell::new(ids) };
    if json.get().starts_with('[') {
        return eraser.array(text, |envelope| eraser.envelope(envelope)).0;
    }
    eraser.envelope(text)
}

struct Eraser<'p> {
    person: &'p Person,
    ids: std::cell::RefCell<&'p mut Person>,
}

impl Eraser<'_> {
    fn envelope(&self, envelope: &str) -> Remainder {
        self.level(envelope, "entry", |entry| self.level(entry, "changes", |change| self.change(change)))
    }

    /// An object whose array `member` contains the data of people. Without this array, it remains or goes as a whole.
    ///
    /// Other members remain, because they are about all elements. The caller must search the result for the person.
    fn level(&self, json: &str, member: &str, element: impl Fn(&str) -> Remainder) -> Remainder {
        let members = unique_members(json).unwrap_or_default();
        let array = members.iter().find(|(name, array)| name == member && array.get().starts_with('['));
        let Some((_, array)) = array else { return whole(self.person, json) };
        match self.array(array.get(), element).0 {
            Remainder::Text(text) => Remainder::Text(splice(json, &[(array, text)])),
            other => other,
        }
    }

    fn change(&self, change: &str) -> Remainder {
        let members = unique_members(change).unwrap_or_default();
        let value = members.iter().find(|(name, value)| name == "value" && value.get().starts_with('{'));
        let Some((_, value)) = value else { return whole(self.person, change) };
        if members.iter().any(|(name, other)| name != "value" && self.person.is_in_json(other.get())) {
            return Remainder::Nothing;
        }
        match self.arrays(self.person, value.get()) {
            Remainder::Text(text) => Remainder::Text(splice(change, &[(value, text)])),
            other => other,
        }
    }

    /// An object whose arrays contain the data of people: a value, or an element of a nested array.
    fn arrays(&self, person: &Person, json: &str) -> Remainder {
        let (Some(members), Ok(value)) = (unique_members(json), serde_json::from_str::<Value>(json)) else {
            return whole(person, json);
        };
        if !person.is_in_json(json) {
            return Remainder::Same;
        }
        let person = person.with_paired_ids(&value);
        self.ids.borrow_mut().extend(person.clone());
        let (mut edits, mut has_items) = (Vec::new(), false);
        for (name, raw) in &members {
            let remainder = match (name.as_ref(), raw.get().as_bytes()[0]) {
                (name, b'[') => {
                    let is_nested = NESTED.contains(&name);
                    let element =
                        |json: &str| if is_nested { self.arrays(&person, json) } else { whole(&person, json) };
                    let (remainder, left) = self.array(raw.get(), element);
                    has_items |= left > 0 && name != CONTACTS;
                    // An empty array is a value too.
                    if remainder == Remainder::Nothing { Remainder::Text("[]".to_owned()) } else { remainder }
                }
                (STANDBY, _) => {
                    let remainder = self.arrays(&person, raw.get());
                    has_items |= remainder != Remainder::Nothing;
                    remainder
                }
                (name, _) => {
                    if person.is_in_member(name, raw.get()) {
                        Remainder::Nothing
                    } else {
                        Remainder::Same
                    }
                }
            };
            match remainder {
                Remainder::Same => {}
                Remainder::Text(text) => edits.push((*raw, text)),
                Remainder::Nothing => return Remainder::Nothing,
            }
        }
        // Without an edit, the person is in no part that can be removed, so the whole object goes.
        if has_items && !edits.is_empty() { Remainder::Text(splice(json, &edits)) } else { Remainder::Nothing }
    }

    /// Removes the elements that contain only data of the person. Returns also the number of elements that are left.
    fn array(&self, json: &str, element: impl Fn(&str) -> Remainder) -> (Remainder, usize) {
        let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(json) else { return (whole(self.person, json), 1) };
        let remainders: Vec<_> = elements.iter().map(|raw| element(raw.get())).collect();
        let left = remainders.iter().filter(|remainder| **remainder != Remainder::Nothing).count();
        if remainders.iter().all(|remainder| *remainder == Remainder::Same) {
            return (Remainder::Same, left);
        }
        if left == 0 {
            return (Remainder::Nothing, 0);
        }
        let mut text = json[..offset(json, elements[0])].to_owned();
        let mut is_first = true;
        for (index, (raw, remainder)) in elements.iter().zip(&remainders).enumerate() {
            let kept = match remainder {
                Remainder::Nothing => continue,
                Remainder::Same => raw.get(),
                Remainder::Text(text) => text,
            };
            if !is_first {
                let separator_start = end(json, elements[index - 1]);
                text.push_str(&json[separator_start..offset(json, raw)]);
            }
            is_first = false;
            text.push_str(kept);
        }
        text.push_str(&json[end(json, elements[elements.len() - 1])..]);
        (Remainder::Text(text), left)
    }
}

fn whole(person: &Person, json: &str) -> Remainder {
    if person.is_in_json(json) { Remainder::Nothing } else { Remainder::Same }
}

/// The offset of a part in the text that it was read from.
fn offset(whole: &str, part: &RawValue) -> usize {
    part.get().as_ptr().addr() - whole.as_ptr().addr()
}

fn end(whole: &str, part: &RawValue) -> usize {
    offset(whole, part) + part.get().len()
}

/// Replaces parts of a text, which are in its order.
fn splice(json: &str, edits: &[(&RawValue, String)]) -> String {
    let (mut text, mut copied) = (String::with_capacity(json.len()), 0);
    for (raw, new) in edits {
        text.push_str(&json[copied..offset(json, raw)]);
        text.push_str(new);
        copied = end(json, raw);
    }
    text.push_str(&json[copied..]);
    text
}

/// The members of an object, in order. `None` if it is not an object, or if a name occurs twice.
fn unique_members(json: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    let Members(members) = serde_json::from_str(json).ok()?;
    let mut names: Vec<_> = members.iter().map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    let is_unique = names.windows(2).all(|pair| pair[0] != pair[1]);
    is_unique.then_some(members)
}

struct Members<'j>(Vec<(Cow<'j, str>, &'j RawValue)>);

impl<'de: 'j, 'j> Deserialize<'de> for Members<'j> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = members.next_entry::<String, _>()? {
                    pairs.push((Cow::Owned(name), value));
                }
                Ok(pairs)
            }
        }

        json.deserialize_map(MembersVisitor).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use whatsapp_webhook::{message::event_id, notification::split};

    use super::*;

    fn ada() -> Person {
        "+1 555 010 0123".parse().ok().into_iter().collect()
    }

    fn erased(body: &str) -> Remainder {
        remove_person(body.as_bytes(), &ada(), &mut Person::default())
    }

    #[track_caller]
    fn assert_erased(body: &str, expected: &str) {
        assert_eq!(erased(body), Remainder::Text(expected.to_owned()));
        assert!(!split(expected.as_bytes()).iter().any(|fragment| ada().is_in(fragment)));
    }

    /// Wraps changes in an envelope with unusual white space.
    fn notification(changes: &str) -> String {
        format!(
            "{{ \"object\":\"whatsapp_business_account\",\n \"entry\":[{{\"id\":\"1\", \"changes\": [ {changes} ]}} ] }}\n"
        )
    }

    const ADA: &str = r#"{"field":"messages","value":{"messages":[{"from":"15550100123","text":{"body":"\/"}}]}}"#;
    const BO: &str = r#"{"value":{"messages":[ {"from":"15550100124", "n":1.00} ]},  "field":"messages"}"#;
    const CY: &str = r#"{"field":"flows","value":{}}"#;

    #[test]
    fn other_changes_keep_their_bytes_and_event_ids() {
        for (before, after) in [
            (format!("{ADA} , {BO},{CY}"), format!("{BO},{CY}")),
            (format!("{BO} , {ADA},{CY}"), format!("{BO},{CY}")),
            (format!("{BO} ,{CY}\t,{ADA}"), format!("{BO} ,{CY}")),
        ] {
            let (before, after) = (notification(&before), notification(&after));
            assert_erased(&before, &after);
            let ids = |body: &str| split(body.as_bytes()).iter().map(event_id).collect::<Vec<_>>();
            assert!(ids(&after).iter().all(|id| ids(&before).contains(id)));
        }
        assert_eq!(erased(&notification(&format!("{BO},{CY}"))), Remainder::Same);
    }

    #[test]
    fn nothing_remains_of_a_notification_about_one_person() {
        for body in [
            notification(ADA),
            notification(&format!("{ADA},{ADA}")),
            format!("[{}]", notification(ADA)),
            r#"{"object":"page","entry":[{"messaging":[{"sender":{"id":"15550100123"}}]}]}"#.to_owned(),
            r#"{"field":"messages","value":{"from":"15550100123"}}"#.to_owned(),
            "from=15550100123".to_owned(),
            r#"{"entry":[{"changes":[{"field":"messages","value":{},"value":{"from":"15550100123"}}]}]}"#.to_owned(),
        ] {
            assert_eq!(erased(&body), Remainder::Nothing, "{body}");
        }
    }

    #[test]
    fn shared_change_keeps_the_items_of_others() {
        let change = |value: &str| notification(&format!(r#"{{"field":"messages","value":{value}}}"#));
        for (before, after) in [
            (
                r#"{"metadata":{"display_phone_number":"15550100123"},"contacts":[{"wa_id":"15550100123"}, {"wa_id":"15550100124"}],"messages":[{"from":"15550100124"} ,{"from":"15550100123"}]}"#,
                r#"{"metadata":{"display_phone_number":"15550100123"},"contacts":[{"wa_id":"15550100124"}],"messages":[{"from":"15550100124"}]}"#,
            ),
            (
                r#"{"messages":[{"from":"15550100123"}],"statuses":[{"recipient_id":"15550100124"}]}"#,
                r#"{"messages":[],"statuses":[{"recipient_id":"15550100124"}]}"#,
            ),
            (
                r#"{"standby":{"contacts":[{"wa_id":"15550100123"}],"messages":[{"from":"15550100123"},{"from":"15550100124"}]}}"#,
                r#"{"standby":{"contacts":[],"messages":[{"from":"15550100124"}]}}"#,
            ),
            (
                r#"{"groups":[{"group_id":"g","added_participants":[{"wa_id":"15550100124"},{"wa_id":"15550100123"}]}]}"#,
                r#"{"groups":[{"group_id":"g","added_participants":[{"wa_id":"15550100124"}]}]}"#,
            ),
            (
                r#"{"history":[{"metadata":{"phase":0},"threads":[{"id":"15550100123","messages":[{"from":"15550100199"}]},{"id":"15550100124","messages":[]}]}]}"#,
                r#"{"history":[{"metadata":{"phase":0},"threads":[{"id":"15550100124","messages":[]}]}]}"#,
            ),
        ] {
            assert_erased(&change(before), &change(after));
        }
    }

    #[test]
    fn contacts_of_others_alone_do_not_keep_a_change() {
        let value = r#"{"contacts":[{"wa_id":"15550100124"}],"messages":[{"from":"15550100123"}]}"#;
        assert_eq!(erased(&notification(&format!(r#"{{"field":"messages","value":{value}}}"#))), Remainder::Nothing);
    }

    #[test]
    fn item_with_the_paired_id_alone_is_removed() {
        let value = r#"{"contacts":[{"wa_id":"15550100123","user_id":"US.ada"}],"messages":[{"from_user_id":"US.ada"},{"from_user_id":"US.bo"}]}"#;
        let body = notification(&format!(r#"{{"field":"messages","value":{value}}}"#));
        let mut ids = Person::default();
        let Remainder::Text(text) = remove_person(body.as_bytes(), &ada(), &mut ids) else { panic!("{body}") };
        assert!(text.contains(r#""contacts":[],"messages":[{"from_user_id":"US.bo"}]"#), "{text}");
        assert_eq!(ids.ids().collect::<Vec<_>>(), ["15550100123", "US.ada"]);
    }

    #[test]
    fn duplicate_member_of_an_item_is_removed() {
        let value = r#"{"messages":[{"from":"15550100123","from":"1"},{"from":"15550100124"}]}"#;
        let change = |value: &str| notification(&format!(r#"{{"field":"messages","value":{value}}}"#));
        assert_erased(&change(value), &change(r#"{"messages":[{"from":"15550100124"}]}"#));
    }

    #[test]
    fn entry_of_one_person_is_removed() {
        let entry = |changes: &str| format!(r#"{{"id":"1","changes":[{changes}]}}"#);
        let body = format!(r#"{{"entry":[{}, {}]}}"#, entry(ADA), entry(BO));
        assert_erased(&body, &format!(r#"{{"entry":[{}]}}"#, entry(BO)));
    }
}
