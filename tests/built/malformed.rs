//! Events that API Gateway does not send, or that its decoder cannot cope with: one failed invocation at most.

use std::time::Duration;

use fake_aws::Outcome;
use serde_json::{Value, json};

use crate::{
    line,
    notification::Notification,
    stored::Copy::Own,
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, Webhook, event, signed},
};

/// In every one of these events, and in no log.
const WORD: &str = "Sesame";

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut event = signed(APP_SECRET, WORD.as_bytes());
    change(&mut event);
    event
}

fn host(host: &str) -> Value {
    with(|event| event["headers"]["host"] = json!(host))
}

fn query(query: &str) -> Value {
    let query = format!("hub.mode=subscribe&{query}&hub.challenge={WORD}");
    event("GET", &query, &[], b"")
}

#[tokio::test]
async fn an_event_that_makes_the_decoder_panic_is_one_failed_invocation() {
    let panicking = [
        host(&format!("{WORD} b")),
        host(&format!("[::1{WORD}")),
        host(&format!("{WORD}:99999")),
        with(|event| {
            event["body"] = json!(format!("{WORD}!*"));
            event["isBase64Encoded"] = json!(true);
        }),
        query("a=\u{1}b"),
        query("a=b\u{7f}\n"),
    ];
    // Otherwise this shows nothing.
    assert!(survives(panicking).await > 0);
}

#[tokio::test]
async fn an_odd_event_is_answered_or_is_one_failed_invocation() {
    let odd = [
        host(""),
        host("\u{0}"),
        host("é"),
        query("hub.verify_token=%ff%fe"),
        query("a=ä"),
        query("%%%=%&&&==;"),
        with(|event| event["headers"]["x-hub-signature-256"] = json!("sha256=é\u{1}")),
        with(|event| event["headers"]["bad name"] = json!(WORD)),
        with(|event| event["headers"] = json!({})),
        with(|event| event["headers"] = Value::Null),
        with(|event| event["body"] = Value::Null),
        with(|event| event["body"] = json!({"a": WORD})),
        with(|event| event["rawPath"] = json!(format!("/{WORD} /\u{1}"))),
        with(|event| event["rawPath"] = json!(format!("//{WORD}/../%zz"))),
        with(|event| event["requestContext"]["http"]["method"] = json!("G E T")),
        with(|event| event["requestContext"]["http"]["method"] = json!("")),
        with(|event| event["requestContext"]["requestId"] = json!("\u{1}")),
        with(|event| event["requestContext"] = json!({"requestId": WORD})),
        with(|event| event["cookies"] = json!([WORD, "a=b\n"])),
        with(|event| event["version"] = json!("1.0")),
        json!({"Records": [{"eventSource": "aws:sqs", "body": WORD}]}),
        json!({}),
        json!([WORD]),
        json!(WORD),
        Value::Null,
    ];
    survives(odd).await;
}

/// Invokes one function with each event, and after each with one that must be served; the log gives nothing away. Tells
/// how many of them made it panic.
async fn survives(events: impl IntoIterator<Item = Value>) -> usize {
    let (webhook, sent) = (Webhook::start(), Notification::of(&["messages"]));
    let mut panics = 0;
    for event in events {
        panics += usize::from(panics_at(&webhook, &event).await);
        webhook.reset();
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "after {event}");
        assert_eq!(webhook.copies(&sent), [[Own]]);
    }
    let lines = webhook.function.stop();
    for line in &lines {
        assert!(!line.contains(WORD), "{line}");
        line::read(line);
    }
    let places = lines.iter().filter(|line| line.contains("panic.location")).count();
    assert_eq!(places, panics, "{lines:#?}");
    panics
}

async fn panics_at(webhook: &Webhook, event: &Value) -> bool {
    let invocation = webhook.invoke(event, LAMBDA_TIMEOUT).await;
    assert!(invocation.elapsed < Duration::from_secs(3), "{:?}", invocation.elapsed);
    match invocation.outcome {
        Outcome::Response(response) => {
            let status = response["statusCode"].as_u64().unwrap();
            assert!([200, 400, 401, 403, 405].contains(&status), "{event}: {response}");
            false
        }
        Outcome::FunctionError { error_message, .. } => {
            assert!(!error_message.contains(WORD), "{error_message}");
            error_message.contains("panicked")
        }
        outcome => panic!("{event}: {outcome:?}"),
    }
}
