//! Every signed body is stored: status 200, unchanged bytes, and other changes on their queues.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use fake_aws::Message;
use serde_json::json;

use crate::{
    notification::{Notification, event_id, message},
    stored::Placement::{Own, Unrouted},
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, Webhook, signed},
};

/// An expected message: queue, `unrouted_reason` and decoded body.
type Expected<'e> = (&'e str, Option<&'e str>, Vec<u8>);

async fn deliver_and_decode(webhook: &Webhook, body: &[u8]) -> Vec<(String, Option<String>, Vec<u8>)> {
    webhook.reset();
    let before = webhook.aws.calls().len();
    assert_eq!(webhook.deliver(body).await.status, 200);
    // Each message was sent once, so SQS rejected none.
    let sent: usize = webhook.aws.calls()[before..].iter().map(|call| call.entries).sum();
    let stored = webhook.stored_messages();
    assert_eq!(sent, stored.len());
    let decode = |(queue, message): (String, Message)| {
        let reason = message.attribute("unrouted_reason").map(str::to_owned);
        (queue, reason, decoded(&message))
    };
    let mut kept: Vec<_> = stored.into_iter().map(decode).collect();
    kept.sort_unstable();
    kept
}

fn decoded(message: &Message) -> Vec<u8> {
    match message.attribute("encoding") {
        Some("base64") => BASE64.decode(&message.body).unwrap(),
        _ => message.body.clone().into_bytes(),
    }
}

async fn expect_stored(webhook: &Webhook, body: &[u8], expected: &[Expected<'_>]) {
    let mut expected: Vec<_> = expected
        .iter()
        .map(|(queue, reason, bytes)| ((*queue).to_owned(), reason.map(str::to_owned), bytes.clone()))
        .collect();
    expected.sort_unstable();
    let kept = deliver_and_decode(webhook, body).await;
    let excerpt: String = String::from_utf8_lossy(body).chars().take(200).collect();
    assert!(kept == expected, "of {excerpt}:\n{}\nnot\n{}", list(&kept), list(&expected));
}

fn list(messages: &[(String, Option<String>, Vec<u8>)]) -> String {
    let line = |(queue, reason, bytes): &(String, Option<String>, Vec<u8>)| {
        let text: String = String::from_utf8_lossy(bytes).chars().take(300).collect();
        format!("  {queue} {reason:?} {} bytes: {text}", bytes.len())
    };
    messages.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn body_that_is_not_json_is_stored_whole() {
    let webhook = Webhook::start();
    let notification = Notification::of(&["messages", "security"]).body;
    let bodies: [&[u8]; 14] = [
        b"hello",
        b" ",
        b"\n\t\r",
        b"\0",
        b"\x01\x02\x1b",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"{\"entry\":[\xff]}",
        "\u{feff}{}".as_bytes(),
        "\u{fffe}\u{ffff}".as_bytes(),
        b"{\"object\":\"whatsapp_business_account\",",
        b"{}{}",
        b"NaN",
        &notification.as_bytes()[..notification.len() - 1],
    ];
    for body in bodies {
        expect_stored(&webhook, body, &[("unrouted", Some("not-json"), body.to_vec())]).await;
    }
}

#[tokio::test]
async fn json_without_a_change_is_stored_whole() {
    let webhook = Webhook::start();
    for body in [
        "{}",
        "null",
        "7",
        r#""text""#,
        r#"{"object":"whatsapp_business_account"}"#,
        r#"{"object":"whatsapp_business_account","entry":[]}"#,
        r#"{"object":"whatsapp_business_account","entry":{}}"#,
        r#"{"object":"whatsapp_business_account","entry":null}"#,
        r#"{"entry":[{"id":"1","changes":[{"field":"security"}]}],"entry":[]}"#,
        r#"{"field":"messages","value":{"messages":[]}}"#,
        r#"{"object":"page","entry":[{"id":"1","time":1,"messaging":[{"sender":{"id":"2"}}]}]}"#,
        r#"{"object":"instagram","entry":[{"id":"1","standby":[]}]}"#,
        r#"{"object":"user","entry":[{"uid":"1","changed_fields":["name"]}]}"#,
        r#"{"entry":[{"id":"1","changes":[]}]}"#,
        r#"{"entry":[{"id":"1","changes":{"field":"security"}}]}"#,
        r#"{"entry":[{"id":"1","id":"2","changes":[{"field":"security"}]}]}"#,
        r#"{"entry":[{"id":"1","changes":[{"field":"security"}],"changes":[]}]}"#,
        r#"{"entry":[{"changes":[{"field":"security","field":"messages"}]}]}"#,
        r#"{"entry":[{"changes":[7]}]}"#,
        r#"{"entry":["\ud800"]}"#,
        r#"{"\ud800":1}"#,
        "[]",
    ] {
        let reason = if body == r#"{"entry":[{"changes":[7]}]}"# { "no-field" } else { "not-a-notification" };
        expect_stored(&webhook, body.as_bytes(), &[("unrouted", Some(reason), body.into())]).await;
    }
}

#[tokio::test]
async fn json_without_a_change_does_not_affect_changes() {
    let webhook = Webhook::start();
    let change = r#"{"field":"security","value":1}"#;
    let body = format!(
        r#"{{"object":"o","entry":[{{"id":"1","changes":[{change}]}},7,{{"messaging":[1]}},{{"changes":[{change},null,{{"value":2}},{{"field":""}},{{"field":[1]}}]}}],"more":1}}"#
    );
    let json = |entry: &str| format!(r#"{{"object":"o","entry":[{entry}],"more":1}}"#).into_bytes();
    let alone = |change: &str| json(&format!(r#"{{"changes":[{change}]}}"#));
    let (no_field, other) = (Some("no-field"), Some("not-a-notification"));
    expect_stored(
        &webhook,
        body.as_bytes(),
        &[
            ("security", None, json(&format!(r#"{{"id":"1","changes":[{change}]}}"#))),
            ("security", None, alone(change)),
            ("unrouted", other, json("7")),
            ("unrouted", other, json(r#"{"messaging":[1]}"#)),
            ("unrouted", no_field, alone("null")),
            ("unrouted", no_field, alone(r#"{"value":2}"#)),
            ("unrouted", no_field, alone(r#"{"field":""}"#)),
            ("unrouted", no_field, alone(r#"{"field":[1]}"#)),
        ],
    )
    .await;
}

#[tokio::test]
async fn array_of_notifications_is_split() {
    let webhook = Webhook::start();
    let envelope = r#"{"entry":[{"changes":[{"field":"security"}]}]}"#;
    let body = format!(r#"[{envelope}, 7 ,{{"a":[]}}]"#);
    let other = Some("not-a-notification");
    expect_stored(
        &webhook,
        body.as_bytes(),
        &[
            ("security", None, envelope.into()),
            ("unrouted", other, b"7".to_vec()),
            ("unrouted", other, br#"{"a":[]}"#.to_vec()),
        ],
    )
    .await;
}

#[tokio::test]
async fn deeply_nested_json_is_stored() {
    let webhook = Webhook::start();
    let depth = 100_000;
    let (open, close) = ("[".repeat(depth), "]".repeat(depth));
    let deep = format!("{open}{close}");
    let objects = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    expect_stored(&webhook, objects.as_bytes(), &[("unrouted", Some("not-a-notification"), objects.clone().into())])
        .await;
    expect_stored(&webhook, open.as_bytes(), &[("unrouted", Some("not-json"), open.clone().into())]).await;
    let whole = deliver_and_decode(&webhook, deep.as_bytes()).await;
    assert_eq!(whole.len(), 1);
    let sent = Notification::new([("security", deep.as_str()), ("security", objects.as_str()), ("calls", "1")]);
    webhook.reset();
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), [[Own], [Own], [Unrouted]]);
    for place in ["contacts", "messages", "statuses", "metadata"] {
        let sent = Notification::new([("security", format!(r#"{{"{place}":{deep}}}"#))]);
        webhook.reset();
        assert_eq!(webhook.deliver(&sent.body).await.status, 200);
        assert_eq!(webhook.stored_messages()[0].1.body, sent.changes[0].text);
    }
}

#[tokio::test]
async fn characters_that_sqs_rejects_are_escaped() {
    let webhook = Webhook::start();
    let sent = Notification::new([
        ("security", r#"{"text":"\ud83d \ude00 \u0000 \uffff"}"#),
        ("security", r#"{"\ud800":"\udfff","text":1}"#),
        ("security", r#"{"text":"\u00e4\/\u2028","number":12345678901234567890.10e+400}"#),
    ]);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), vec![[Own]; 3]);
    webhook.reset();
    let literal = Notification::new([("security", "\"a\u{fffe}b\u{ffff}\u{fffd}\u{1ffff}\"")]);
    assert_eq!(webhook.deliver(&literal.body).await.status, 200);
    let escaped = literal.changes[0].text.replace('\u{fffe}', r"\ufffe").replace('\u{ffff}', r"\uffff");
    assert_eq!(webhook.stored_messages()[0].1.body, escaped);
}

#[tokio::test]
async fn duplicate_or_mistyped_members_do_not_matter() {
    let webhook = Webhook::start();
    for value in [
        "null",
        "[]",
        r#""text""#,
        r#"{"metadata":7,"messages":{},"contacts":null}"#,
        r#"{"metadata":{"phone_number_id":{}},"messages":[null]}"#,
        r#"{"metadata":{"phone_number_id":null},"metadata":{"phone_number_id":null},"statuses":[[]]}"#,
        r#"{"messages":[7],"messages":[],"statuses":"x"}"#,
    ] {
        let change = format!(r#"{{"field":"security","value":{value}}}"#);
        let body = format!(r#"{{"entry":[{{"changes":[{change}]}}]}}"#);
        expect_stored(&webhook, body.as_bytes(), &[("security", None, body.clone().into())]).await;
    }
}

#[tokio::test]
async fn invalid_attribute_values_are_left_out() {
    let webhook = Webhook::start();
    let long = "m".repeat(2_000);
    let odd = r"\u0000\u001f\ufffe\uffff\u000b";
    let wide = "ä".repeat(250);
    for text in ["", " ", &long, odd, &wide, r"\ud800", r"a b/\\\u00e4", "*", "messages.statuses", "-", "\u{1f600}"] {
        for body in [
            format!(r#"{{"entry":[{{"id":"1","changes":[{{"field":"{text}","value":{{}}}}]}}]}}"#),
            format!(r#"{{"entry":[{{"id":"{text}","changes":[{{"field":"calls","value":{{}}}}]}}]}}"#),
            format!(
                r#"{{"entry":[{{"id":"{text}","time":"{text}","changes":[{{"field":"calls","value":{{"metadata":{{"phone_number_id":"{text}"}},"messages":[{{"from":"{text}"}}]}}}}]}}]}}"#
            ),
        ] {
            let kept = deliver_and_decode(&webhook, body.as_bytes()).await;
            let [(queue, reason, bytes)] = &kept[..] else { panic!("{body}") };
            assert_eq!((queue.as_str(), bytes.as_slice()), ("unrouted", body.as_bytes()));
            assert!(matches!(reason.as_deref(), Some("no-route" | "no-field")), "{reason:?}");
        }
    }
    let numbers = r#"{"entry":[{"id":102290129340398,"time":1.5e3,"changes":[{"field":"calls","value":{"metadata":{"phone_number_id":106540352242922}}}]}]}"#;
    let _ = deliver_and_decode(&webhook, numbers.as_bytes()).await;
    let (_, stored) = webhook.stored_messages().remove(0);
    assert_eq!(stored.attribute("entry_id"), Some("102290129340398"));
    assert_eq!(
        (stored.attribute("phone_number_id"), stored.group_id.as_deref()),
        (Some("106540352242922"), Some("106540352242922"))
    );
}

#[tokio::test]
async fn base64_body_and_header_case_do_not_matter() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "calls"]);
    let mut event = signed(APP_SECRET, sent.body.as_bytes());
    event["body"] = json!(BASE64.encode(&sent.body));
    event["isBase64Encoded"] = json!(true);
    let signature = event["headers"].as_object_mut().unwrap().remove("x-hub-signature-256").unwrap();
    event["headers"]["X-HUB-Signature-256"] = signature;
    assert_eq!(webhook.send(event).await.status, 200);
    assert_eq!(webhook.copies(&sent), [[Own], [Unrouted]]);
}

#[tokio::test]
async fn event_id_does_not_depend_on_the_batch() {
    let webhook = Webhook::start();
    let batched = Notification::of(&["messages", "security", "messages"]);
    assert_eq!(webhook.deliver(&batched.body).await.status, 200);
    for change in &batched.changes {
        assert_eq!(webhook.deliver(&change.text).await.status, 200);
    }
    assert_eq!(webhook.copies(&batched), vec![[Own, Own]; 3]);
    webhook.reset();
    assert_eq!(webhook.deliver(r#"{"a":1}"#).await.status, 200);
    assert_eq!(webhook.stored_messages()[0].1.attribute("event_id"), Some(event_id(&[r#"{"a":1}"#]).as_str()));
}

#[tokio::test]
async fn empty_body_is_accepted_with_a_warning() {
    let webhook = Webhook::start();
    assert_eq!(webhook.deliver("").await.status, 200);
    assert_eq!(webhook.stored_messages().len(), 0);
    let warning = webhook.function.wait_for_log_line("empty notification", LAMBDA_TIMEOUT).await;
    assert!(warning.is_some_and(|line| line.contains("WARN")));
}

#[tokio::test]
async fn more_changes_than_meta_sends_are_stored() {
    let webhook = Webhook::start();
    let sent = Notification::new((0..2_000).map(|index| ("messages", message(index, "hello"))));
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    // On a busy machine a call can time out and be repeated.
    let kept: BTreeSet<_> =
        webhook.stored_messages().into_iter().map(|(queue, message)| (queue, message.entry.body)).collect();
    let expected = sent.changes.iter().map(|change| ("messages".to_owned(), change.text.clone())).collect();
    assert!(kept == expected, "{} of {}", kept.intersection(&expected).count(), expected.len());
}
