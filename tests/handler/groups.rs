//! The groups of a FIFO queue: one conversation has one group, whichever identifiers a payload has.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use whatsapp_webhook::{
    message::{RequestContext, group_id},
    notification::{Fragment, split},
};

use crate::support::corpus;

const BUSINESS: &str = "15550100100";
const PERSON: &str = "15550100101";
const OTHER_PERSON: &str = "15550100102";
const USER_ID: &str = "US.10000000000000000001";
const OTHER_USER_ID: &str = "US.10000000000000000002";
const CHAT: &str = "a-group-chat";

/// Every name under which a payload has a phone number or a user id of a person.
const PHONE_NUMBERS: [&str; 5] = ["from", "to", "recipient_id", "wa_id", "recipient_participant_id"];
const USER_IDS: [&str; 5] =
    ["from_user_id", "to_user_id", "recipient_user_id", "user_id", "recipient_participant_user_id"];
const ITEMS: [&str; 4] = ["messages", "statuses", "calls", "message_echoes"];

/// The group ids of the changes of a body.
fn groups(body: &str) -> Vec<String> {
    let request = RequestContext { request_id: "request", group_key: "a key", trace: None };
    let fragments = split(body.as_bytes());
    let changes = fragments.iter().filter(|fragment| matches!(fragment, Fragment::Change(_)));
    changes.map(|change| group_id(change, request, true)).collect()
}

/// The group id of a change with this value.
fn group(value: &Value) -> String {
    let body = json!({ "entry": [{ "id": "1", "changes": [{ "value": value, "field": "messages" }] }] });
    let [group] = &groups(&body.to_string())[..] else { panic!("{body}") };
    group.clone()
}

fn with_metadata(members: &Value) -> Value {
    let mut value = json!({ "metadata": { "phone_number_id": "7", "display_phone_number": "+1 555-010-0100" } });
    value.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    value
}

/// The values of all changes of the corpus.
fn corpus_values() -> Option<Vec<(String, Value)>> {
    let payloads = corpus::payloads(&corpus::folder()?);
    let values = payloads.iter().flat_map(|(name, body)| {
        let body: Value = serde_json::from_str(body).unwrap();
        let entries = body["entry"].as_array().cloned().unwrap_or_default();
        let changes = entries.into_iter().flat_map(|entry| entry["changes"].as_array().cloned().unwrap_or_default());
        changes.map(|change| (name.clone(), change["value"].clone())).collect::<Vec<_>>()
    });
    Some(values.filter(|(_, value)| value.is_object()).collect())
}

/// The objects of a value that identify people: its contacts, and the items of its arrays.
fn people(value: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let members = value.as_object_mut().unwrap().iter_mut();
    let arrays = members.filter(|(name, _)| *name == "contacts" || ITEMS.contains(&name.as_str()));
    arrays.filter_map(|(_, array)| array.as_array_mut()).flatten().filter_map(Value::as_object_mut)
}

fn without(value: &Value, names: &[&str]) -> Value {
    let mut value = value.clone();
    people(&mut value).for_each(|object| object.retain(|name, _| !names.contains(&name.as_str())));
    value
}

fn without_contacts(value: &Value) -> Value {
    let mut value = value.clone();
    value.as_object_mut().unwrap().remove("contacts");
    value
}

/// The same messages as Meta sends them while Meta Business Agent has the chat.
fn in_standby(value: &Value) -> Value {
    let mut outer = value.clone();
    let members = outer.as_object_mut().unwrap();
    let inner: Map<String, Value> = ["contacts", "messages", "statuses"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), members.remove(name)?)))
        .collect();
    members.insert("standby".to_owned(), inner.into());
    outer
}

/// The messages of the corpus that one person wrote to one business, with the same identifiers in each.
fn messages_of_one_person() -> Option<Vec<(String, Value)>> {
    let mut all = corpus_values()?;
    all.retain(|(_, value)| {
        let first = &value["messages"][0];
        first.is_object() && first["type"] != "system"
    });
    for (_, value) in &mut all {
        value["metadata"] = with_metadata(&json!({}))["metadata"].clone();
        value["contacts"] = json!([{ "profile": { "name": "Ada Fenwick" }, "wa_id": PERSON, "user_id": USER_ID }]);
        for message in value["messages"].as_array_mut().unwrap() {
            message.as_object_mut().unwrap().remove("group_id");
            message["from"] = PERSON.into();
            message["from_user_id"] = USER_ID.into();
        }
    }
    assert!(all.len() > 100, "only {} messages", all.len());
    Some(all)
}

#[test]
fn person_with_user_id_has_one_group() {
    let expected = group(&with_metadata(&json!({ "messages": [{ "from_user_id": USER_ID }] })));
    for (name, message) in messages_of_one_person().into_iter().flatten() {
        let hidden = without(&message, &PHONE_NUMBERS);
        for value in [
            message.clone(),
            without_contacts(&message),
            without_contacts(&hidden),
            without(&message, &["from_user_id"]),
            without(&hidden, &["from_user_id"]),
            without(&message, &["profile"]),
            in_standby(&message),
            in_standby(&hidden),
            hidden,
        ] {
            assert_eq!(group(&value), expected, "{name}: {value}");
        }
    }
    for members in [
        json!({ "statuses": [{ "recipient_id": PERSON, "recipient_user_id": USER_ID }] }),
        json!({ "statuses": [{ "recipient_user_id": USER_ID }] }),
        json!({ "contacts": [{ "wa_id": PERSON, "user_id": USER_ID }], "statuses": [{ "recipient_id": PERSON }] }),
        json!({ "contacts": [{ "user_id": USER_ID }], "statuses": [{}] }),
        json!({ "calls": [{ "event": "connect", "from": PERSON, "to": BUSINESS, "from_user_id": USER_ID }] }),
        json!({ "calls": [{ "event": "terminate", "from": BUSINESS, "to": PERSON, "to_user_id": USER_ID }] }),
        json!({ "contacts": [{ "user_id": USER_ID }], "calls": [{ "event": "connect", "to": BUSINESS }] }),
        json!({ "message_echoes": [{ "from": BUSINESS, "to_user_id": USER_ID }] }),
        json!({ "user_preferences": [{ "wa_id": PERSON, "user_id": USER_ID }] }),
    ] {
        assert_eq!(group(&with_metadata(&members)), expected, "{members}");
    }
}

#[test]
fn person_without_user_id_has_one_group() {
    let expected = group(&with_metadata(&json!({ "messages": [{ "from": PERSON }] })));
    for (name, message) in messages_of_one_person().into_iter().flatten() {
        let message = without(&message, &USER_IDS);
        for value in [without_contacts(&message), without(&message, &["from"]), in_standby(&message), message] {
            assert_eq!(group(&value), expected, "{name}: {value}");
        }
    }
    for members in [
        json!({ "statuses": [{ "recipient_id": PERSON }] }),
        json!({ "contacts": [{ "wa_id": PERSON }], "statuses": [{}] }),
        json!({ "contacts": [{ "wa_id": PERSON }], "calls": [{ "event": "connect", "from": PERSON, "to": BUSINESS }] }),
        json!({ "calls": [{ "event": "terminate", "from": PERSON, "to": BUSINESS }] }),
        json!({ "calls": [{ "event": "terminate", "from": BUSINESS, "to": PERSON }] }),
        json!({ "statuses": [{ "type": "call", "status": "ACCEPTED", "recipient_id": PERSON }] }),
        json!({ "message_echoes": [{ "from": BUSINESS, "to": PERSON }] }),
        json!({ "messages": [{ "from": format!("+{PERSON}") }], "statuses": [{ "recipient_id": PERSON }] }),
    ] {
        assert_eq!(group(&with_metadata(&members)), expected, "{members}");
    }
}

#[test]
fn group_chat_has_one_group() {
    let expected = group(&with_metadata(&json!({ "messages": [{ "group_id": CHAT }] })));
    for (name, message) in messages_of_one_person().into_iter().flatten() {
        for (person, user_id) in [(PERSON, USER_ID), (OTHER_PERSON, OTHER_USER_ID)] {
            let mut value = message.clone();
            for object in people(&mut value) {
                let ids = [("wa_id", person), ("user_id", user_id), ("from", person), ("from_user_id", user_id)];
                for (id, text) in ids {
                    object.entry(id).and_modify(|id| *id = text.into());
                }
            }
            for message in value["messages"].as_array_mut().unwrap() {
                message["group_id"] = CHAT.into();
            }
            for value in [in_standby(&value), without_contacts(&value), value] {
                assert_eq!(group(&value), expected, "{name}: {value}");
            }
        }
    }
    for members in [
        json!({ "contacts": [{ "wa_id": PERSON, "user_id": USER_ID }], "statuses": [{
            "recipient_id": CHAT, "recipient_type": "group",
            "recipient_participant_id": PERSON, "recipient_participant_user_id": USER_ID,
        }] }),
        json!({ "statuses": [{ "recipient_id": CHAT, "recipient_type": "group" }] }),
        json!({ "groups": [{ "group_id": CHAT, "type": "group_participants_add", "wa_id": PERSON }] }),
    ] {
        assert_eq!(group(&with_metadata(&members)), expected, "{members}");
    }
}

/// Meta's system messages have no contacts. The consumer handles a changed id before the first message under the new id.
#[test]
fn changed_id_belongs_to_the_new_group() {
    let system = |system: Value| {
        let message = json!({ "from": PERSON, "from_user_id": USER_ID, "type": "system", "system": system });
        group(&with_metadata(&json!({ "messages": [message] })))
    };
    let new = group(&with_metadata(&json!({ "messages": [{ "from": PERSON, "from_user_id": OTHER_USER_ID }] })));
    let old = group(&with_metadata(&json!({ "messages": [{ "from": OTHER_PERSON, "from_user_id": USER_ID }] })));
    let changed_user_id = json!({ "type": "user_changed_user_id", "user_id": OTHER_USER_ID });
    assert_eq!(system(changed_user_id), new);
    // The user id is the same, so the new number makes no new conversation.
    assert_eq!(system(json!({ "type": "user_changed_number", "wa_id": OTHER_PERSON })), old);
}

/// What identifies the conversation of a corpus change, read by names alone, wherever they are in contacts and items.
fn identity(value: &Value) -> Option<(String, &'static str, String)> {
    let number = value["metadata"]["phone_number_id"].as_str()?.to_owned();
    // Some examples have a word in place of the number, the same one for the person.
    let business = value["metadata"]["display_phone_number"].as_str();
    let business = business.filter(|number| number.contains(char::is_numeric)).unwrap_or_default();
    let mut texts = BTreeMap::<String, String>::new();
    let items = ITEMS.iter().chain(&["groups", "user_preferences"]).find_map(|name| value[name].get(0));
    for object in [items?, &value["contacts"][0]].into_iter().filter_map(Value::as_object) {
        for (name, text) in object.iter().filter_map(|(name, text)| Some((name, text.as_str()?))) {
            texts.entry(name.clone()).or_insert_with(|| text.to_owned());
        }
    }
    let found = |names: &[&str]| names.iter().find_map(|name| texts.get(*name)).cloned();
    let chat = if texts.get("recipient_type").is_some_and(|kind| kind == "group") {
        found(&["recipient_id"])
    } else {
        found(&["group_id"])
    };
    let person = || {
        let phone_numbers = PHONE_NUMBERS[..4].iter().filter_map(|name| texts.get(*name));
        phone_numbers.map(|phone| phone.trim_start_matches('+').to_owned()).find(|phone| phone != business)
    };
    let system = |name| items?["system"][name].as_str().map(str::to_owned);
    chat.map(|id| ("chat", id))
        .or_else(|| system("user_id").or_else(|| found(&USER_IDS[..4])).map(|id| ("user", id)))
        .or_else(|| system("wa_id").or_else(person).map(|id| ("phone", id)))
        .map(|(kind, id)| (number, kind, id))
}

#[test]
fn corpus_conversations_have_a_group_each() {
    let mut by_identity = BTreeMap::<_, BTreeSet<String>>::new();
    let mut kinds = BTreeSet::new();
    for (name, value) in corpus_values().into_iter().flatten() {
        let Some(identity) = identity(&value) else { continue };
        let group = group(&value);
        assert_eq!(group.len(), 64, "{name} {identity:?} has the group of its number");
        kinds.insert(identity.1);
        by_identity.entry(identity).or_default().insert(group);
    }
    let groups: BTreeSet<_> = by_identity.values().flatten().collect();
    assert!(by_identity.values().all(|groups| groups.len() == 1), "{by_identity:#?}");
    assert_eq!(groups.len(), by_identity.len(), "two conversations share a group: {by_identity:#?}");
    assert!(corpus::folder().is_none() || kinds.len() == 3, "{kinds:?}");
}
