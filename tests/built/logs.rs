//! The log at its finest: nothing of a payload, a header, a secret or a person is in it.

use std::time::Duration;

use fake_aws::{Fault, Times};
use futures_util::future::join_all;
use serde_json::json;
use whatsapp_webhook::signature::sign;

use crate::{
    line,
    notification::{Notification, message},
    webhook::{APP_SECRET, SECRET_ID, VERIFY_TOKEN, Webhook, event, secret, signed},
};

/// In payloads, headers and secrets of these tests.
const PRIVATE: [&str; 22] = [
    APP_SECRET,
    VERIFY_TOKEN,
    "forger",
    "a-new-secret",
    "Sesame",
    "fia",
    "12025550134",
    "12025550181",
    "106540352242922",
    "102290129340398",
    "wamid",
    "1739321024",
    "1158201444",
    "hub.",
    "sha256",
    "facebookexternalua",
    "192.0.2.44",
    "execute-api",
    "whatsapp_business_account",
    "c2Vzc2lvbg",
    "wJalrXUtnFEMI",
    "AKIAIOSFODNN7EXAMPLE",
];

#[tokio::test]
async fn no_line_at_any_level_has_a_word_of_what_came_in() {
    join_all(["TRACE", "INFO"].map(async |level| {
        let webhook = Webhook::with(&[
            ("AWS_LAMBDA_LOG_LEVEL", level),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
            ("RUST_LOG", "trace"),
            ("RUST_BACKTRACE", "1"),
        ]);
        let signatures = requests_of_every_kind(&webhook).await;
        let lines = webhook.function.stop();
        assert!(lines.len() > 20, "{lines:#?}");
        for line in &lines {
            for private in PRIVATE.into_iter().chain(signatures.iter().map(String::as_str)) {
                assert!(!line.contains(private), "{private} in {line}");
            }
            line::read(line);
        }
    }))
    .await;
}

/// Sends what succeeds, what is refused, and what fails; gives the signatures that were sent.
async fn requests_of_every_kind(webhook: &Webhook) -> Vec<String> {
    let deadline = Duration::from_secs(3);
    let sent = Notification::of(&["messages", "messages.statuses", "security", "calls", "messages"]);
    let large = Notification::new([("messages", message(0, &"Sesame".repeat(180_000)))]);
    let body = sent.body.as_bytes();

    assert_eq!(webhook.deliver(body).await.status, 200);
    assert_eq!(webhook.deliver(&large.body).await.status, 200);
    assert_eq!(webhook.deliver(b"Sesame \xff").await.status, 200);
    assert_eq!(webhook.deliver("Sesame").await.status, 200);
    assert_eq!(webhook.deliver("").await.status, 200);
    assert_eq!(webhook.challenge(VERIFY_TOKEN).await.status, 200);
    assert_eq!(webhook.challenge("forger").await.status, 403);
    assert_eq!(webhook.send(signed("forger", body)).await.status, 401);
    assert_eq!(webhook.send(event("POST", "", &[("cookie", "Sesame")], body)).await.status, 401);
    assert_eq!(webhook.send(event("POST", "", &[("x-hub-signature-256", "Sesame")], body)).await.status, 401);
    assert_eq!(webhook.send(event("Sesame", "hub.mode=Sesame", &[], body)).await.status, 405);
    let mut panicking = signed(APP_SECRET, body);
    panicking["headers"]["host"] = json!("Sesame b");
    let _ = webhook.invoke(panicking, deadline).await;
    let _ = webhook.invoke(json!({"Sesame": "Sesame"}), deadline).await;

    let echo = format!("<html>{}</html>", sent.body);
    for (fault, status) in [
        (Fault::refuse_all_entries().senders_fault(), 503),
        (Fault::refuse_all_entries().code("InvalidMessageContents").senders_fault(), 503),
        (Fault::internal_error(), 503),
        (Fault::throttled(), 503),
        (Fault::access_denied(), 503),
        (Fault::kms_disabled(), 503),
        (Fault::drop_unread(), 503),
        (Fault::drop_connection(), 503),
        (Fault::hang(), 503),
        (Fault::store_and_truncate(), 503),
        (Fault::store_and_answer(200, &echo), 503),
        (Fault::store_and_answer(400, &echo), 503),
        (Fault::store_and_answer(400, &sent.body), 503),
        (Fault::store_and_answer(500, &echo), 503),
    ] {
        webhook.reset();
        webhook.aws.sqs().fault(fault.clone(), Times::Always);
        assert_eq!(webhook.deliver_within(body, Duration::from_millis(1_400)).await.status, status, "{}", fault.name());
    }
    for fault in [Fault::internal_error(), Fault::access_denied(), Fault::hang(), Fault::store_and_answer(400, &echo)] {
        webhook.reset();
        webhook.aws.s3().fault(fault.clone(), Times::Always);
        let answer = webhook.deliver_within(&large.body, Duration::from_secs(4)).await;
        assert_eq!(answer.status, 503, "{}", fault.name());
    }
    webhook.reset();
    [APP_SECRET, "forger"].into_iter().map(|of| sign(of, body).replace("sha256=", "")).collect()
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_again_is_in_no_line() {
    let echo = secret(&json!("a-new-secret"));
    let quoted = json!({ "SecretString": echo }).to_string();
    for fault in [
        Fault::store_and_answer(200, &echo),
        Fault::store_and_answer(200, &quoted[..quoted.len() - 5]),
        Fault::store_and_answer(200, &quoted.replace("SecretString\":", "SecretString\": x")),
        Fault::store_and_answer(400, &echo),
        Fault::store_and_answer(500, &format!("<html>{echo}</html>")),
        Fault::store_and_truncate(),
    ] {
        let webhook = Webhook::with(&[("AWS_LAMBDA_LOG_LEVEL", "TRACE")]);
        webhook.function.ready(Duration::from_secs(10)).await.unwrap();
        webhook.aws.set_secret(SECRET_ID, &echo);
        webhook.aws.secrets().fault(fault.clone(), Times::Always);
        assert_eq!(webhook.send(signed("forger", b"{}")).await.status, 401);
        let lines = webhook.function.stop();
        assert!(lines.iter().any(|line| line.contains("the cached secret stays in use")), "{lines:#?}");
        let told = lines.iter().find(|line| line.contains("a-new-secret") || line.contains(VERIFY_TOKEN));
        assert_eq!(told, None, "{}", fault.name());
    }
}

#[tokio::test]
async fn the_line_of_a_notification_counts_what_is_stored_where() {
    let webhook = Webhook::start();
    for name in ["messages", "security"] {
        webhook.queue(name).fault(Fault::access_denied(), Times::Always);
    }
    let sent = Notification::of(&["messages", "security", "messages", "account_update", "calls"]);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let stored = webhook.function.log_line(r#""message":"stored""#, Duration::from_secs(5)).await;
    let stored = line::read(&stored.unwrap());
    assert_eq!((&stored["level"], &stored["body.bytes"]), (&json!("INFO"), &json!(sent.body.len())));
    let counts = ["Changes", "Stored", "Unrouted", "Diverted"].map(|name| &stored[name]);
    assert_eq!(counts, [&json!(5), &json!(5), &json!(1), &json!(3)]);
    assert!(stored["StoreTime"].as_f64().unwrap() > 0.0);
}
