//! The log at every level contains no part of a payload, header or secret, and no personal data.

use std::time::Duration;

use fake_aws::{Fault, Frequency};
use futures_util::future::join_all;
use serde_json::json;
use whatsapp_webhook::signature::sign;

use crate::{
    log_line,
    notification::{Notification, message},
    webhook::{APP_SECRET, SECRET_ID, VERIFY_TOKEN, Webhook, event, secret, signed},
};

/// Texts in the payloads, headers and secrets of these tests.
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
async fn log_contains_no_private_text_at_any_level() {
    join_all(["TRACE", "INFO"].map(async |level| {
        let webhook = Webhook::with_variables(&[
            ("AWS_LAMBDA_LOG_LEVEL", level),
            ("AWS_LAMBDA_LOG_FORMAT", "JSON"),
            ("ARCHIVE_BUCKET", "payloads"),
            ("RUST_LOG", "trace"),
            ("RUST_BACKTRACE", "1"),
        ]);
        let signatures = send_every_kind_of_request(&webhook).await;
        let lines = webhook.function.stop();
        assert!(lines.len() > 20, "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("notification not archived")), "{lines:#?}");
        for line in &lines {
            for private in PRIVATE.into_iter().chain(signatures.iter().map(String::as_str)) {
                assert!(!line.contains(private), "{private} in {line}");
            }
            log_line::parse(line);
        }
    }))
    .await;
}

/// Sends requests that succeed, are rejected, or fail. Returns their signatures.
async fn send_every_kind_of_request(webhook: &Webhook) -> Vec<String> {
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
    let mut with_invalid_host = signed(APP_SECRET, body);
    with_invalid_host["headers"]["host"] = json!("Sesame b");
    assert_eq!(webhook.send(with_invalid_host).await.status, 200);
    let _ = webhook.invoke(json!({"Sesame": "Sesame"}), deadline).await;

    let echo = format!("<html>{}</html>", sent.body);
    for (fault, status) in [
        (Fault::reject_all_entries().sender_fault(), 503),
        (Fault::reject_all_entries().code("InvalidMessageContents").sender_fault(), 503),
        (Fault::internal_error(), 503),
        (Fault::throttled(), 503),
        (Fault::access_denied(), 503),
        (Fault::kms_disabled(), 503),
        (Fault::drop_unread(), 503),
        (Fault::drop_connection(), 503),
        (Fault::hang(), 503),
        (Fault::commit_then_truncate(), 503),
        (Fault::commit_then_respond(200, &echo), 503),
        (Fault::commit_then_respond(400, &echo), 503),
        (Fault::commit_then_respond(400, &sent.body), 503),
        (Fault::commit_then_respond(500, &echo), 503),
    ] {
        webhook.reset();
        webhook.aws.sqs().inject_fault(fault.clone(), Frequency::Always);
        assert_eq!(webhook.deliver_within(body, Duration::from_millis(1_400)).await.status, status, "{}", fault.name());
    }
    for fault in
        [Fault::internal_error(), Fault::access_denied(), Fault::hang(), Fault::commit_then_respond(400, &echo)]
    {
        webhook.reset();
        webhook.aws.s3().inject_fault(fault.clone(), Frequency::Always);
        let response = webhook.deliver_within(&large.body, Duration::from_secs(4)).await;
        assert_eq!(response.status, 503, "{}", fault.name());
    }
    webhook.reset();
    [APP_SECRET, "forger"].into_iter().map(|app_secret| sign(app_secret, body).replace("sha256=", "")).collect()
}

#[tokio::test]
async fn log_contains_no_secret_after_a_failed_refresh() {
    let echo = secret(&json!("a-new-secret"));
    let quoted = json!({ "SecretString": echo }).to_string();
    for fault in [
        Fault::commit_then_respond(200, &echo),
        Fault::commit_then_respond(200, &quoted[..quoted.len() - 5]),
        Fault::commit_then_respond(200, &quoted.replace("SecretString\":", "SecretString\": x")),
        Fault::commit_then_respond(400, &echo),
        Fault::commit_then_respond(500, &format!("<html>{echo}</html>")),
        Fault::commit_then_truncate(),
    ] {
        let webhook = Webhook::with_variables(&[("AWS_LAMBDA_LOG_LEVEL", "TRACE")]);
        webhook.function.wait_for_init(Duration::from_secs(10)).await.unwrap();
        webhook.aws.set_secret(SECRET_ID, &echo);
        webhook.aws.secrets().inject_fault(fault.clone(), Frequency::Always);
        assert_eq!(webhook.send(signed("forger", b"{}")).await.status, 401);
        let lines = webhook.function.stop();
        assert!(lines.iter().any(|line| line.contains("the cached secret stays in use")), "{lines:#?}");
        let leaked = lines.iter().find(|line| line.contains("a-new-secret") || line.contains(VERIFY_TOKEN));
        assert_eq!(leaked, None, "{}", fault.name());
    }
}

#[tokio::test]
async fn log_line_counts_stored_and_diverted_changes() {
    let webhook = Webhook::start();
    for name in ["messages", "security"] {
        webhook.queue(name).inject_fault(Fault::access_denied(), Frequency::Always);
    }
    let sent = Notification::of(&["messages", "security", "messages", "account_update", "calls"]);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let stored = webhook.function.wait_for_log_line(r#""message":"stored""#, Duration::from_secs(5)).await;
    let stored = log_line::parse(&stored.unwrap());
    assert_eq!((&stored["level"], &stored["body.bytes"]), (&json!("INFO"), &json!(sent.body.len())));
    let counts = ["Changes", "Stored", "Unrouted", "Diverted"].map(|name| &stored[name]);
    assert_eq!(counts, [&json!(5), &json!(5), &json!(1), &json!(3)]);
    assert!(stored["StoreTime"].as_f64().unwrap() > 0.0);
}
