//! The messages of fragments.

use super::*;
use crate::notification::split;

const REQUEST: RequestContext<'_> = RequestContext { request_id: "r-1", group_key: "key", trace: None };

/// The message of a body with one fragment.
fn message_of(body: &[u8], fifo: bool) -> Message {
    let fragments = split(body);
    assert_eq!(fragments.len(), 1);
    Message::new(&fragments[0], &event_id(&fragments[0]), REQUEST, None, fifo)
}

fn standard(body: &str) -> Message {
    message_of(body.as_bytes(), false)
}

fn attribute<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    message.attributes.iter().find(|(found, _)| *found == name).map(|(_, value)| match value {
        Attribute::Text(text) => text.as_str(),
        Attribute::Number(_) => panic!("{name} is a number"),
    })
}

fn ids(body: &str) -> Vec<String> {
    split(body.as_bytes()).iter().map(event_id).collect()
}

#[test]
fn change_has_all_attributes() {
    let body = r#"{"entry":[{"id":"10","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"20"},"statuses":[{}]}}]}]}"#;
    let message = standard(body);
    let id = ids(body).remove(0);
    assert_eq!(message.body, body);
    assert_eq!(
        message.attributes,
        [
            ("field", text_attribute("messages")),
            ("entry_id", text_attribute("10")),
            ("kind", text_attribute("statuses")),
            ("phone_number_id", text_attribute("20")),
            ("event_id", text_attribute(&id)),
            ("request_id", text_attribute("r-1")),
        ]
    );
    assert_eq!((message.group_id.as_str(), message.deduplication_id), ("20", None));
}

#[test]
fn event_id_is_the_documented_hash() {
    // printf '\0\0\0\0\0\0\0\004"10"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\017{"field":"abc"}' | sha256sum
    assert_eq!(
        ids(r#"{"entry":[{"id":"10","changes":[{"field":"abc"}]}]}"#),
        ["2aca3f2ba88edec8fa9a422bdffbee4dd9162fdf938722bf0aa6a970832c9e26"]
    );
    // printf '\0\0\0\0\0\0\0\002{}' | sha256sum
    assert_eq!(ids("{}"), ["7cf4b3ea3b7fb829169af19d641905eb04c1a23d6057cbe10a975ba5bcfaa21e"]);
}

#[test]
fn event_id_does_not_depend_on_notification() {
    let both = ids(r#"{"object":"o","entry":[{"time":5,"id":"1","changes":[{"field":"a"},{"field":"b"}]}]}"#);
    let alone =
        |field| ids(&format!(r#"{{"entry": [ {{"id": "1","changes":[{{"field":"{field}"}}], "time": 5}} ] }}"#));
    assert_eq!(both, [alone("a"), alone("b")].concat());
}

#[test]
fn every_difference_changes_the_event_id() {
    let mut all: Vec<_> = [
        r#"{"entry":[{"id":"1","time":5,"changes":[{"field":"a"}]}]}"#,
        r#"{"entry":[{"id":"2","time":5,"changes":[{"field":"a"}]}]}"#,
        r#"{"entry":[{"id":"1","time":6,"changes":[{"field":"a"}]}]}"#,
        r#"{"entry":[{"id":"1","time":5,"changes":[{"field":"a" }]}]}"#,
        r#"{"entry":[{"id":"1","changes":[{"field":"a"}]}]}"#,
        r#"{"entry":[{"time":5,"changes":[{"field":"a"}]}]}"#,
        r#"{"entry":[{"id":5,"changes":[{"field":"a"}]}]}"#,
        r#"{"entry":[{"id":"1","changes":[]}]}"#,
        r#"{"entry":[{"id":"2","changes":[]}]}"#,
        "not json",
    ]
    .into_iter()
    .flat_map(ids)
    .collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!((all.len(), count), (10, 10));
}

#[test]
fn only_noncharacters_in_json_are_escaped() {
    let message = standard("{\"\u{fffe}\":\"a\u{ffff}\u{fffd}\u{ff01}\u{1f600}\u{7f}\\u0000\u{ffff}\"}");
    assert_eq!(message.body, "{\"\\ufffe\":\"a\\uffff\u{fffd}\u{ff01}\u{1f600}\u{7f}\\u0000\\uffff\"}");
    assert_eq!(attribute(&message, "encoding"), None);
}

#[test]
fn body_that_is_not_json_is_text_or_base64() {
    for (body, expected, encoding) in [
        (&b"hello\n"[..], "hello\n", None),
        (b"\xff\x00", "/wA=", Some("base64")),
        (b"a\x00", "YQA=", Some("base64")),
        ("x\u{fffe}".as_bytes(), "eO+/vg==", Some("base64")),
    ] {
        let message = message_of(body, false);
        assert_eq!((message.body.as_str(), attribute(&message, "encoding")), (expected, encoding));
    }
}

#[test]
fn value_that_sqs_would_reject_is_omitted() {
    let long = "x".repeat(2000);
    for rejected in ["", "a\\u0000b", "\\ufffe", &long, "\\ud800"] {
        let body = format!(
            r#"{{"entry":[{{"id":"{rejected}","changes":[{{"field":"{rejected}","value":{{"metadata":{{"phone_number_id":"{rejected}"}}}}}}]}}]}}"#
        );
        let message = standard(&body);
        let names: Vec<_> = message.attributes.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["event_id", "request_id"], "{rejected}");
        assert_eq!((message.group_id.as_str(), message.body.as_str()), ("-", body.as_str()));
    }
}

#[test]
fn value_with_control_characters_is_omitted() {
    let separators = ["\\n", "\\r", "\\t", "\\u0085", "\\u009b", "\\u007f", "\\u2028", "\\u2029"];
    let bidirectional = ["\\u061c", "\\u200e", "\\u200f", "\\u202a", "\\u202e", "\\u2066", "\\u2069", "\u{202d}"];
    for control in separators.into_iter().chain(bidirectional) {
        let field = |text: &str| {
            let message = standard(&format!(r#"{{"entry":[{{"changes":[{{"field":"{text}"}}]}}]}}"#));
            attribute(&message, "field").map(ToOwned::to_owned)
        };
        assert_eq!(field(&format!("a{control}b")), None, "{control}");
    }
    assert_eq!(attribute(&standard(r#"{"entry":[{"changes":[{"field":"größe 1"}]}]}"#), "field"), Some("größe 1"));
}

#[test]
fn standard_group_is_phone_number_or_account() {
    let group = |id: &str, number: &str| {
        standard(&format!(
            r#"{{"entry":[{{"id":{id},"changes":[{{"value":{{"metadata":{{"phone_number_id":{number}}}}}}}]}}]}}"#
        ))
        .group_id
    };
    let (fits, too_long) = (format!("\"{}\"", "9".repeat(128)), format!("\"{}\"", "9".repeat(129)));
    assert_eq!(group("\"10\"", "\"20\""), "20");
    assert_eq!(group("10", "20"), "20");
    assert_eq!(group("10", "null"), "10");
    assert_eq!(group("10", "\"2 0\""), "10");
    assert_eq!(group("10", "\"\\u00e4\""), "10");
    assert_eq!(group("10", &fits).len(), 128);
    assert_eq!(group("10", &too_long), "10");
    assert_eq!(group("[]", "{}"), "-");
    assert_eq!(standard("{}").group_id, "-");
}

#[test]
fn fifo_group_is_a_keyed_hash_of_the_conversation() {
    let fifo = |number: &str, contact: &str| {
        let body = format!(
            r#"{{"entry":[{{"id":"10","changes":[{{"value":{{"metadata":{{"phone_number_id":"{number}"}},"messages":[{{"from":"{contact}"}}]}}}}]}}]}}"#
        );
        message_of(body.as_bytes(), true)
    };
    let one = fifo("20", "15550100");
    // printf '20\00015550100' | openssl dgst -sha256 -hmac key
    assert_eq!(one.group_id, "1601e8f57ceaba21999cda622c7536f69de94bcd340a69d7d3eadb7098a8f04e");
    assert_eq!(one.deduplication_id.as_deref(), attribute(&one, "event_id"));
    assert_ne!(one.group_id, fifo("20", "15550101").group_id);
    assert_ne!(one.group_id, fifo("21", "15550100").group_id);
    assert_eq!(fifo("20", &"9".repeat(135)).group_id.len(), 64);
    assert_eq!(fifo("20", "").group_id, "20");
}

#[test]
fn size_includes_attributes_of_diversion() {
    let fragments = split(b"{}");
    let message = |reason| Message::new(&fragments[0], &"0".repeat(64), REQUEST, reason, false);
    let expected = 2
        + ("event_idString".len() + 64)
        + "request_idStringr-1".len()
        + "unrouted_reasonStringqueue-unavailable".len()
        + "diverted_fromString".len()
        + 80;
    assert_eq!(message(None).size(), expected);
    assert_eq!(message(Some(CatchAllReason::NoField)).size(), expected);
    let mut pointer = message(None);
    let body = pointer.replace_body_with_pointer("b", "k");
    assert_eq!(body, "{}");
    assert_eq!(pointer.size(), expected - 2 + pointer.body.len() + "ExtendedPayloadSizeNumber2".len());
}

#[test]
fn size_is_enough_for_every_reason() {
    let reasons = [
        CatchAllReason::NoRoute,
        CatchAllReason::NoField,
        CatchAllReason::NotJson,
        CatchAllReason::NotANotification,
        CatchAllReason::QueueUnavailable { queue: "q" },
        CatchAllReason::QueueUnavailable { queue: &"q".repeat(80) },
    ];
    let fragments = split(b"{}");
    for reason in reasons {
        let message = Message::new(&fragments[0], "id", REQUEST, Some(reason), false);
        let value = |name| attribute(&message, name).unwrap_or_default().len();
        let attributes = message.attributes.iter().map(|(name, _)| name.len() + "String".len() + value(name));
        assert!(message.size() >= message.body.len() + attributes.sum::<usize>(), "{reason:?}");
    }
}

#[test]
fn group_key_is_not_printed() {
    assert_eq!(format!("{REQUEST:?}"), r#"RequestContext { request_id: "r-1", .. }"#);
}

#[test]
fn pointer_has_format_of_extended_client_library() {
    let mut message = standard("{}");
    message.replace_body_with_pointer("bucket", "route/2026-01-02/id-1");
    assert_eq!(
        message.body,
        r#"["software.amazon.payloadoffloading.PayloadS3Pointer",{"s3BucketName":"bucket","s3Key":"route/2026-01-02/id-1"}]"#
    );
    assert_eq!(message.attributes.last(), Some(&("ExtendedPayloadSize", Attribute::Number(2))));
}

#[test]
fn diverted_message_names_its_queue() {
    let fragments = split(br#"{"entry":[{"id":"10","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"20"},"statuses":[{}]}}]}]}"#);
    let request = RequestContext { trace: Some("Root=1;Parent=2;Sampled=1"), ..REQUEST };
    let message = |reason| Message::new(&fragments[0], "id", request, reason, false);
    let diverted = message(Some(CatchAllReason::QueueUnavailable { queue: "in-messages.fifo" }));
    assert_eq!(attribute(&diverted, "unrouted_reason"), Some("queue-unavailable"));
    assert_eq!(attribute(&diverted, "diverted_from"), Some("in-messages.fifo"));
    assert_eq!((diverted.attributes.len(), diverted.trace), (8, None));
    for other in [message(None), message(Some(CatchAllReason::NoRoute))] {
        assert_eq!(attribute(&other, "diverted_from"), None);
        assert!(other.trace.is_some());
    }
}

#[test]
fn diverted_copies_differ_in_deduplication_id() {
    let fragments = split(br#"{"entry":[{"changes":[{"field":"a"}]}]}"#);
    let id = "0".repeat(64);
    let ids = |queue: Option<&str>| {
        let reason = queue.map(|queue| CatchAllReason::QueueUnavailable { queue });
        let message = Message::new(&fragments[0], &id, REQUEST, reason, true);
        let raw = Message::raw_base64(&fragments[0], &id, queue, true);
        assert_eq!(message.deduplication_id, raw.deduplication_id);
        message.deduplication_id.unwrap()
    };
    assert_eq!(ids(None), id);
    let diverted = [ids(Some("x")), ids(Some("y.fifo"))];
    assert!(diverted.iter().all(|other| *other != id && other.len() == 64));
    assert_ne!(diverted[0], diverted[1]);
    assert_eq!(ids(Some("x")), diverted[0]);
}

#[test]
fn raw_form_has_all_bytes_and_few_attributes() {
    let body = b"{\"entry\":[{\"changes\":[{\"field\":\"a\"}]}]}";
    let fragments = split(body);
    let message = Message::raw_base64(&fragments[0], "id", None, true);
    assert_eq!(BASE64.decode(&message.body).unwrap(), body);
    assert_eq!(message.attributes, [("event_id", text_attribute("id")), ("encoding", text_attribute("base64"))]);
    assert_eq!((message.group_id.as_str(), message.deduplication_id.as_deref()), ("-", Some("id")));
    let diverted = Message::raw_base64(&fragments[0], "id", Some("in-a"), false);
    assert_eq!(diverted.attributes[..2], message.attributes);
    assert_eq!(diverted.attributes[2..], [("diverted_from", text_attribute("in-a"))]);
}

#[test]
fn replayed_message_differs_in_one_attribute() {
    let body = br#"{"entry":[{"id":"10","changes":[{"field":"messages","value":{"messages":[{"from":"1"}]}}]}]}"#;
    for fifo in [false, true] {
        let original = message_of(body, fifo);
        let mut replayed = original.clone().replayed("2026-01-02T03:04:05Z");
        assert_eq!(replayed.attributes.pop(), Some(("replayed", text_attribute("2026-01-02T03:04:05Z"))));
        replayed.deduplication_id.clone_from(&original.deduplication_id);
        assert_eq!(replayed, original);
    }
}

#[test]
fn replay_is_not_deduplicated_with_the_original() {
    let original = message_of(b"{}", true);
    let id = |time: &str| original.clone().replayed(time).deduplication_id.unwrap();
    let first = id("2026-01-02T03:04:05Z");
    assert_ne!(Some(&first), original.deduplication_id.as_ref());
    assert_ne!(first, id("2026-01-02T03:04:06Z"));
    assert_eq!(first, id("2026-01-02T03:04:05Z"), "a copy of the same replay is dropped");
    assert!(first.len() <= 128 && first.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(message_of(b"{}", false).replayed("2026-01-02T03:04:05Z").deduplication_id, None);
}

/// SQS accepts ten attributes.
#[test]
fn replayed_pointer_has_at_most_ten_attributes() {
    let body = br#"{"entry":[{"id":"10","changes":[{"field":"new","value":{"metadata":{"phone_number_id":"20"},"errors":[{}]}}]}]}"#;
    let fragments = split(body);
    for reason in [CatchAllReason::NoRoute, CatchAllReason::QueueUnavailable { queue: "a" }] {
        let mut message = Message::new(&fragments[0], "e", REQUEST, Some(reason), false).replayed("t");
        message.replace_body_with_pointer("bucket", "key");
        assert!(message.attributes.len() <= 10, "{:?}", message.attributes);
    }
}

#[test]
fn object_key_has_route_date_and_event() {
    assert_eq!(object_key(Some("messages"), "2026-01-02", "e", 26), "messages/2026-01-02/e-000000000000001a");
    assert_eq!(object_key(None, "2026-01-02", "e", u64::MAX), "unrouted/2026-01-02/e-ffffffffffffffff");
}
