//! For any signed body: nothing panics, the fragments are those of the oracle, and SQS accepts every message.
//!
//! An input is a body. An input that starts with NUL is the plan of a JSON body.
#![no_main]

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use oracle::{Fragment as Expected, fragments, is_json, scalar};
use sha2::{Digest, Sha256};
use whatsapp_ingress_fuzz::{
    message::{
        Attribute,
        CatchAllReason::{self, QueueUnavailable},
        Message, RequestContext, event_id,
    },
    notification::{Fragment, Kind, split},
    plan,
};

const REQUEST: RequestContext<'_> = RequestContext { request_id: "request", group_key: "key", trace: None };

/// The queue of a diverted message.
const QUEUE: &str = "messages.fifo";

/// The maximum length of a queue name in SQS.
const MAX_QUEUE_NAME: usize = 80;

/// The limit of compared fragments, to save time.
const MAX_COMPARED_FRAGMENTS: usize = 200;

fuzz_target!(|input: &[u8]| {
    if let Some(plan) = input.strip_prefix(b"\0") {
        let Ok(body) = plan::body(&mut Unstructured::new(plan)) else { return };
        assert!(is_json(&body), "{body}");
        check(body.as_bytes());
    }
    check(input);
});

fn check(body: &[u8]) {
    let (found, expected) = (split(body), fragments(body));
    assert_eq!(found.len(), expected.len());
    for (fragment, expected) in found.iter().zip(&expected).take(MAX_COMPARED_FRAGMENTS) {
        assert_equals_oracle(fragment, expected, body);
        assert_unchanged_by_second_split(fragment);
        let id = event_id(fragment);
        for (reason, fifo) in [
            (None, true),
            (Some(CatchAllReason::of_fragment(fragment)), false),
            (Some(QueueUnavailable { queue: QUEUE }), false),
        ] {
            let message = Message::new(fragment, &id, REQUEST, reason, fifo);
            assert_attributes(&message, fragment, expected, reason);
            assert_allowed_by_sqs(message, fifo);
        }
        for diverted_from in [None, Some(QUEUE)] {
            let raw_base64 = Message::raw_base64(fragment, &id, diverted_from, true);
            assert_eq!(BASE64.decode(&raw_base64.body).expect("is base64"), bytes(fragment));
            assert_allowed_by_sqs(raw_base64, true);
        }
    }
}

fn bytes(fragment: &Fragment<'_>) -> Vec<u8> {
    match fragment {
        Fragment::Change(change) => change.json.parts().concat().into_bytes(),
        Fragment::Other(json) => json.parts().concat().into_bytes(),
        Fragment::NotJson(body) => body.to_vec(),
    }
}

fn assert_equals_oracle(fragment: &Fragment<'_>, expected: &Expected, body: &[u8]) {
    let mut hashed: Vec<Vec<u8>> = Vec::new();
    match fragment {
        Fragment::Change(change) => {
            let found = Expected::Change(oracle::Change {
                text: change.json.parts().concat(),
                inner: change.json.element().to_owned(),
                entry_id: change.entry_id_json.map(ToOwned::to_owned),
                entry_time: change.entry_time_json.map(ToOwned::to_owned),
                field: change.field.as_deref().map(ToOwned::to_owned),
                kind: change.kind.map(Kind::name),
                phone_number_id: change.phone_number_id.as_deref().map(ToOwned::to_owned),
            });
            assert_eq!(found, *expected);
            let parts = [change.entry_id_json, change.entry_time_json, Some(change.json.element())];
            hashed.extend(parts.map(|part| part.unwrap_or_default().as_bytes().to_vec()));
            assert_eq!(change.json.len(), bytes(fragment).len());
        }
        Fragment::Other(json) => {
            let (text, inner) = (json.parts().concat(), json.element().to_owned());
            assert_eq!(Expected::Other { text, inner }, *expected);
            hashed.push(bytes(fragment));
        }
        Fragment::NotJson(bytes) => {
            assert_eq!((*bytes, expected), (body, &Expected::NotJson(body.to_vec())));
            hashed.push(body.to_vec());
        }
    }
    let text: Vec<u8> =
        hashed.iter().flat_map(|part| [&(part.len() as u64).to_be_bytes(), &part[..]].concat()).collect();
    assert_eq!(event_id(fragment), hex::encode(Sha256::digest(text)));
}

fn assert_unchanged_by_second_split(fragment: &Fragment<'_>) {
    let bytes = bytes(fragment);
    if let Fragment::Other(json) = fragment
        && json.element().trim_start().starts_with('[')
        && json.parts().concat() == json.element()
    {
        // Only the outermost array is split, so the second split would split an array inside it.
        return;
    }
    let second = split(&bytes);
    assert_eq!(second.len(), 1);
    assert_eq!(event_id(&second[0]), event_id(fragment));
    assert_eq!(self::bytes(&second[0]), bytes);
    assert_eq!(std::mem::discriminant(&second[0]), std::mem::discriminant(fragment));
}

fn assert_attributes(
    message: &Message,
    fragment: &Fragment<'_>,
    expected: &Expected,
    reason: Option<CatchAllReason<'_>>,
) {
    let attribute = |key: &str| {
        message.attributes.iter().find(|(name, _)| *name == key).map(|(_, value)| match value {
            Attribute::Text(text) => text.as_str(),
            Attribute::Number(_) => panic!("{key} is a number"),
        })
    };
    if let Fragment::NotJson(body) = fragment {
        if attribute("encoding") == Some("base64") {
            assert_eq!(BASE64.decode(&message.body).expect("is base64"), *body);
            assert!(!std::str::from_utf8(body).is_ok_and(is_text_for_sqs));
        } else {
            assert_eq!(message.body.as_bytes(), *body);
        }
    } else {
        let text = String::from_utf8(bytes(fragment)).expect("is text");
        assert_eq!(message.body, text.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff"));
        assert!(is_json(&message.body));
        assert_eq!(attribute("encoding"), None);
    }
    let valid_attribute = |value: &Option<String>| {
        let is_safe = |value: &str| is_text_for_sqs(value) && !value.chars().any(is_control);
        value.clone().filter(|value| !value.is_empty() && value.len() <= 256 && is_safe(value))
    };
    if let Expected::Change(oracle::Change { entry_id, field, kind, phone_number_id, .. }) = expected {
        assert_eq!(attribute("field"), valid_attribute(field).as_deref());
        assert_eq!(attribute("entry_id"), valid_attribute(&entry_id.as_deref().and_then(scalar)).as_deref());
        assert_eq!(attribute("kind"), *kind);
        assert_eq!(attribute("phone_number_id"), valid_attribute(phone_number_id).as_deref());
    }
    assert_eq!(attribute("event_id"), Some(&*event_id(fragment)));
    assert_eq!(attribute("request_id"), Some("request"));
    assert_eq!(attribute("unrouted_reason"), reason.map(CatchAllReason::name));
    let is_diverted = matches!(reason, Some(QueueUnavailable { .. }));
    assert_eq!(attribute("diverted_from"), is_diverted.then_some(QUEUE));
}

/// Returns whether a character can break a log line or change its text direction.
fn is_control(character: char) -> bool {
    let layout_characters = "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
    character.is_control() || layout_characters.contains(character)
}

fn assert_allowed_by_sqs(mut message: Message, fifo: bool) {
    assert!(!message.body.is_empty() && is_text_for_sqs(&message.body));
    // The pointer adds one.
    assert!(message.attributes.len() <= 9);
    let names: HashSet<_> = message.attributes.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), message.attributes.len());
    for (name, value) in &message.attributes {
        let Attribute::Text(text) = value else { panic!("{name} is a number") };
        assert!(!text.is_empty() && is_text_for_sqs(text), "{name}: {text:?}");
    }
    assert_allowed_as_id(&message.group_id);
    assert_eq!(message.deduplication_id.is_some(), fifo);
    message.deduplication_id.iter().for_each(|id| assert_allowed_as_id(id));

    // The size reserves space for any reason and any queue name. The two longest reasons differ by one byte.
    let reason_size = |reason: &str| "unrouted_reasonString".len() + reason.len();
    let is_reason = |(name, _): &&(&str, Attribute)| *name == "unrouted_reason";
    let others = message.attributes.iter().filter(|(name, _)| *name != "diverted_from");
    let total: usize = others.map(|(name, value)| attribute_size(name, value)).sum();
    let reason = message.attributes.iter().find(is_reason).map_or(0, |(name, value)| attribute_size(name, value));
    let diverted_from = "diverted_fromString".len() + MAX_QUEUE_NAME;
    let needed = message.body.len() + total - reason + reason.max(reason_size("queue-unavailable")) + diverted_from;
    let size = message.size();
    assert!((needed..=needed + 1).contains(&size), "the size is {size}, but {needed} bytes are needed");

    let body = message.body.clone();
    assert_eq!(message.replace_body_with_pointer("bucket", "key"), body);
    assert!(is_json(&message.body) && is_text_for_sqs(&message.body));
    assert_eq!(message.attributes.pop(), Some(("ExtendedPayloadSize", Attribute::Number(body.len()))));
}

fn attribute_size(name: &str, value: &Attribute) -> usize {
    let Attribute::Text(text) = value else { panic!("{name} is a number") };
    name.len() + "String".len() + text.len()
}

fn assert_allowed_as_id(id: &str) {
    let is_allowed =
        |character: char| character.is_ascii_alphanumeric() || "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~".contains(character);
    assert!((1..=128).contains(&id.len()) && id.chars().all(is_allowed), "{id:?}");
}

/// Returns whether all characters are allowed by SQS: `#x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF`.
fn is_text_for_sqs(text: &str) -> bool {
    text.chars().all(|character| {
        matches!(u32::from(character), 0x9 | 0xa | 0xd | 0x20..=0xd7ff | 0xe000..=0xfffd | 0x1_0000..=0x10_ffff)
    })
}
