//! The metrics: each invocation writes one log line with its counts.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use fake_aws::{Fault, Frequency};
use serde_json::{Value, json};
use whatsapp_ingress::metrics::Unit;

use crate::{
    log_line,
    notification::{Notification, message, status},
    webhook::{SECRET_ID, VERIFY_TOKEN, Webhook, event, secret, signed},
};

/// Waits until there is a log line with metrics for each invocation, and returns these lines.
async fn lines(webhook: &Webhook, invocations: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let lines = webhook.function.logs();
        let lines: Vec<_> =
            lines.iter().filter(|line| line.contains(r#""_aws""#)).map(|line| log_line::parse(line)).collect();
        if lines.len() >= invocations || Instant::now() >= deadline {
            assert_eq!(lines.len(), invocations, "one line for each invocation: {lines:#?}");
            return lines;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Returns the counts of the last invocation.
pub(crate) async fn counts(webhook: &Webhook, invocations: usize) -> BTreeMap<String, u64> {
    let lines = lines(webhook, invocations).await;
    let last = &lines[invocations - 1];
    let counts = log_line::metrics(last).0.into_keys().filter(|name| log_line::unit(name) == Unit::Count);
    counts.map(|name| (name.to_owned(), last[name].as_u64().unwrap())).collect()
}

pub(crate) fn expected(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn changes_are_counted_by_route() {
    let webhook = Webhook::start();
    let fields = ["messages", "messages", "messages.statuses", "security", "calls", "flows"];
    assert_eq!(webhook.deliver(&Notification::of(&fields).body).await.status, 200);
    let expected = expected(&[
        ("Notifications", 1),
        ("Changes", 6),
        ("Changes.messages", 2),
        ("Changes.messages.statuses", 1),
        ("Changes.security", 1),
        ("Stored", 6),
        ("Unrouted", 2),
        ("Unrouted.no-route", 2),
    ]);
    assert_eq!(counts(&webhook, 1).await, expected);
}

#[tokio::test]
async fn unrouted_fragments_are_counted_by_reason() {
    let webhook = Webhook::start();
    let change = |change: &str| format!(r#"{{"object":"o","entry":[{{"id":"1","changes":[{change}]}}]}}"#);
    for (index, (body, reason)) in [
        (change(r#"{"field":"calls","value":{}}"#).into_bytes(), "no-route"),
        (change(r#"{"value":{}}"#).into_bytes(), "no-field"),
        (b"not \xff".to_vec(), "not-json"),
        (b"{}".to_vec(), "not-a-notification"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(webhook.deliver(&body).await.status, 200);
        let reason = format!("Unrouted.{reason}");
        let expected = expected(&[("Notifications", 1), ("Changes", 1), ("Stored", 1), ("Unrouted", 1), (&reason, 1)]);
        assert_eq!(counts(&webhook, index + 1).await, expected);
    }
}

#[tokio::test]
async fn diverted_changes_are_counted_by_route() {
    let webhook = Webhook::start();
    for name in ["messages", "statuses"] {
        webhook.queue(name).inject_fault(Fault::access_denied(), Frequency::Always);
    }
    let sent = Notification::of(&["messages", "security", "messages", "messages.statuses", "calls"]);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let expected = expected(&[
        ("Notifications", 1),
        ("Changes", 5),
        ("Changes.messages", 2),
        ("Changes.messages.statuses", 1),
        ("Changes.security", 1),
        ("Stored", 5),
        ("Diverted", 3),
        ("Diverted.messages", 2),
        ("Diverted.messages.statuses", 1),
        ("Unrouted", 1),
        ("Unrouted.no-route", 1),
    ]);
    assert_eq!(counts(&webhook, 1).await, expected);
}

#[tokio::test]
async fn not_stored_change_is_counted_only_as_not_stored() {
    let webhook = Webhook::start();
    webhook.queue("messages").inject_fault(Fault::access_denied(), Frequency::Always);
    let sent = Notification::of(&["messages", "messages", "messages", "security"]);
    let not_stored = sent.changes[1].event_id.clone();
    let reject = Fault::reject_entries(move |entry| entry.attribute("event_id") == Some(&not_stored));
    webhook.queue("unrouted").inject_fault(reject, Frequency::Always);
    assert_eq!(webhook.deliver_within(&sent.body, Duration::from_secs(3)).await.status, 503);
    assert_eq!(lines(&webhook, 1).await[0]["reason"], json!("1 of 4 not stored, 2 diverted"));
    let mut counts = counts(&webhook, 1).await;
    assert!(counts.remove("QueueRetries").is_some_and(|retries| retries >= 1), "{counts:?}");
    let expected = expected(&[
        ("Notifications", 1),
        ("Changes", 4),
        ("Changes.messages", 3),
        ("Changes.security", 1),
        ("Stored", 3),
        ("Diverted", 2),
        ("Diverted.messages", 2),
        ("NotStored", 1),
    ]);
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn repeated_entries_are_counted_as_retries() {
    let webhook = Webhook::start();
    webhook.queue("messages").inject_fault(Fault::reject_entry(1), Frequency::Next(2));
    let sent = Notification::of(&["messages", "messages", "messages"]);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    // The retry is a batch with one entry, to which the fault does not apply.
    assert_eq!(counts(&webhook, 1).await["QueueRetries"], 1);
    webhook.reset();
    webhook.queue("messages").inject_fault(Fault::internal_error(), Frequency::Once);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(counts(&webhook, 2).await["QueueRetries"], 3);
    // If SQS rejects a batch with an unknown code, the function sends its messages one by one.
    webhook.reset();
    webhook.queue("messages").inject_fault(Fault::error(400, "NotKnownYet"), Frequency::Once);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(counts(&webhook, 3).await["QueueRetries"], 3);
    // Only the first of these is sent if the queue is unavailable.
    webhook.reset();
    let messages = webhook.queue("messages");
    messages.inject_fault(Fault::error(400, "NotKnownYet"), Frequency::when(|call| call.entries.len() > 1));
    messages.inject_fault(Fault::access_denied(), Frequency::when(|call| call.entries.len() == 1));
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(counts(&webhook, 4).await["QueueRetries"], 1);
}

#[tokio::test]
async fn repeated_upload_is_counted_once() {
    let webhook = Webhook::start();
    let large = Notification::new([("messages", message(0, &"x".repeat(1_100_000)))]);
    assert_eq!(webhook.deliver(&large.body).await.status, 200);
    assert_eq!(counts(&webhook, 1).await["ClaimChecked"], 1);
    webhook.queue("messages").inject_fault(Fault::internal_error(), Frequency::Once);
    assert_eq!(webhook.deliver(&large.body).await.status, 200);
    let metrics = counts(&webhook, 2).await;
    assert_eq!((metrics["ClaimChecked"], metrics["QueueRetries"], metrics["Stored"]), (1, 1, 1));
    webhook.queue("messages").inject_fault(Fault::reject_entry(0), Frequency::Once);
    assert_eq!(webhook.deliver(&large.body).await.status, 200);
    assert_eq!(counts(&webhook, 3).await["ClaimChecked"], 1);
    webhook.aws.s3().inject_fault(Fault::access_denied(), Frequency::Always);
    assert_eq!(webhook.deliver_within(&large.body, Duration::from_secs(3)).await.status, 503);
    let metrics = counts(&webhook, 4).await;
    assert_eq!((metrics.get("ClaimChecked"), metrics["NotStored"]), (None, 1));
}

#[tokio::test]
async fn rejected_signature_is_not_a_notification() {
    let webhook = Webhook::start();
    let rejected = |more: &[(&str, u64)]| expected(&[&[("Notifications", 0), ("RefusedSignatures", 1)], more].concat());
    webhook.send(event("POST", "", &[], b"{}")).await;
    assert_eq!(counts(&webhook, 1).await, rejected(&[]));
    webhook.send(event("POST", "", &[("x-hub-signature-256", "sha256=")], b"{}")).await;
    assert_eq!(counts(&webhook, 2).await, rejected(&[]));
    // After a mismatch the function reads the secret again.
    webhook.send(signed("forger", b"{}")).await;
    assert_eq!(counts(&webhook, 3).await, rejected(&[("SecretRefreshes", 1), ("SignatureMismatches", 1)]));
    webhook.send(signed("forger", b"{}")).await;
    assert_eq!(counts(&webhook, 4).await, rejected(&[("SignatureMismatches", 1)]));
}

#[tokio::test]
async fn secret_refreshes_and_failures_are_counted() {
    for (fault, name) in [(Fault::access_denied(), "SecretFailures"), (Fault::hang(), "SecretFailures")] {
        let webhook = Webhook::start();
        webhook.function.wait_for_init(Duration::from_secs(10)).await.unwrap();
        webhook.aws.secrets().inject_fault(fault, Frequency::Always);
        webhook.send_within(signed("forger", b"{}"), Duration::from_secs(4)).await;
        let rejected = [("Notifications", 0), ("RefusedSignatures", 1), ("SignatureMismatches", 1), (name, 1)];
        assert_eq!(counts(&webhook, 1).await, expected(&rejected));
    }
    let webhook = Webhook::start();
    webhook.function.wait_for_init(Duration::from_secs(10)).await.unwrap();
    webhook.aws.set_secret(SECRET_ID, secret(&json!("the-new-one")));
    webhook.send(signed("the-new-one", b"{}")).await;
    let metrics = counts(&webhook, 1).await;
    assert_eq!((metrics["SecretRefreshes"], metrics["Notifications"]), (1, 1));
    assert_eq!(metrics.get("SecretFailures"), None);
}

#[tokio::test]
async fn rejected_token_is_counted() {
    let webhook = Webhook::start();
    webhook.challenge("another-token").await;
    assert_eq!(
        counts(&webhook, 1).await,
        expected(&[("Notifications", 0), ("RefusedTokens", 1), ("SecretRefreshes", 1)])
    );
    webhook.challenge(VERIFY_TOKEN).await;
    webhook.challenge("").await;
    assert_eq!(counts(&webhook, 3).await, expected(&[("Notifications", 0)]));
}

#[tokio::test]
async fn rejected_certificate_is_counted() {
    let webhook = Webhook::with_variables(&[("CLIENT_CERTIFICATE_CN", "Meta")]);
    webhook.deliver("{}").await;
    assert_eq!(counts(&webhook, 1).await, expected(&[("Notifications", 0), ("RefusedCertificates", 1)]));
}

#[tokio::test]
async fn every_request_has_a_log_line() {
    let webhook = Webhook::start();
    webhook.challenge(VERIFY_TOKEN).await;
    webhook.send(event("GET", "", &[], b"")).await;
    webhook.send(event("PUT", "", &[], b"")).await;
    webhook.deliver("").await;
    let lines = lines(&webhook, 4).await;
    let logged: Vec<_> = lines
        .iter()
        .map(|line| (line["message"].as_str().unwrap(), line["level"].as_str().unwrap(), log_line::metrics(line).0))
        .collect();
    let none = BTreeMap::from([("Notifications", 0.0)]);
    let expected = [
        ("challenge answered", "INFO", none.clone()),
        ("rejected", "WARN", none.clone()),
        ("rejected", "WARN", none),
        ("empty notification", "WARN", BTreeMap::from([("Notifications", 1.0)])),
    ];
    assert_eq!(logged, expected);
}

#[tokio::test]
async fn event_age_uses_entry_time_or_first_timestamp() {
    let webhook = Webhook::start();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let notification = |entry: String, value: &str| {
        format!(r#"{{"entry":[{{"id":"1",{entry}"changes":[{{"field":"messages","value":{value}}}]}}]}}"#)
    };
    let entry_time = |time: u64| format!(r#""time":{time},"#);
    let status = |time: u64| format!(r#"{{"statuses":[{{"id":"a","timestamp":"{time}"}}]}}"#);
    for (nth, (body, age)) in [
        (notification(entry_time(now - 90), &status(now - 500)), Some(90)),
        (notification(String::new(), &status(now - 500)), Some(500)),
        (notification(String::new(), &format!(r#"{{"messages":[{{"timestamp":{}}}]}}"#, now - 70)), Some(70)),
        (notification(entry_time(now + 1_000), "{}"), Some(0)),
        (notification(r#""time":"noon","#.to_owned(), "{}"), None),
        (notification(String::new(), r#"{"messages":[{"timestamp":{}}]}"#), None),
        ("{}".to_owned(), None),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(webhook.deliver(&body).await.status, 200);
        let lines = lines(&webhook, nth + 1).await;
        let (metrics, _) = log_line::metrics(&lines[nth]);
        let logged = metrics.get("EventAge");
        match age {
            Some(age) => {
                assert!(
                    logged.is_some_and(|logged| (0.0..30.0).contains(&(logged - f64::from(age)))),
                    "{body}: {logged:?}"
                );
            }
            None => assert_eq!(logged, None, "{body}"),
        }
        assert!(metrics["StoreTime"] > 0.0 && metrics["StoreTime"] < 10_000.0);
    }
}

#[tokio::test]
async fn metrics_are_logged_at_every_level() {
    for level in ["TRACE", "WARN", "ERROR", "FATAL"] {
        let webhook = Webhook::with_variables(&[("AWS_LAMBDA_LOG_LEVEL", level)]);
        assert_eq!(webhook.deliver(Notification::new([("messages", status(0))]).body).await.status, 200);
        let lines = lines(&webhook, 1).await;
        // Lambda drops lines below the configured level.
        assert_eq!(lines[0]["level"], if level == "TRACE" { "INFO" } else { level });
    }
}

#[tokio::test]
async fn unsupported_event_has_its_own_log_line() {
    let webhook = Webhook::start();
    assert_eq!(webhook.invoke("{}", Duration::from_secs(3)).await.status_code(), Some(400));
    assert_eq!(counts(&webhook, 1).await, expected(&[("Notifications", 0)]));
    assert_eq!(webhook.deliver(Notification::of(&["messages"]).body).await.status, 200);
    let expected = expected(&[("Notifications", 1), ("Changes", 1), ("Changes.messages", 1), ("Stored", 1)]);
    assert_eq!(counts(&webhook, 2).await, expected);
}
