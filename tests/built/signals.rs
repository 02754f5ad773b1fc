//! The metrics: one line an invocation, whatever comes of it, that says in numbers what came of it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use fake_aws::{Fault, Times};
use serde_json::{Value, json};

use crate::{
    line,
    notification::{Notification, message, status},
    webhook::{SECRET_ID, VERIFY_TOKEN, Webhook, event, secret, signed},
};

/// The lines that CloudWatch makes metrics of, once there are as many as there were invocations.
async fn lines(webhook: &Webhook, invocations: usize) -> Vec<Value> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let lines = webhook.function.logs();
        let lines: Vec<_> =
            lines.iter().filter(|line| line.contains(r#""_aws""#)).map(|line| line::read(line)).collect();
        if lines.len() >= invocations || Instant::now() >= end {
            assert_eq!(lines.len(), invocations, "one line an invocation: {lines:#?}");
            return lines;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The counts of the last of some invocations.
async fn counts(webhook: &Webhook, invocations: usize) -> BTreeMap<String, u64> {
    let lines = lines(webhook, invocations).await;
    let last = &lines[invocations - 1];
    let is_time = |name: &str| ["StoreTime", "EventAge"].contains(&name);
    let counts = line::metrics(last).0.into_keys().filter(|name| !is_time(name));
    counts.map(|name| (name.to_owned(), last[name].as_u64().unwrap())).collect()
}

fn expected(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn changes_are_counted_by_the_route_that_they_took_and_no_other_name_is_a_metric() {
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
async fn what_is_unrouted_is_counted_by_its_reason() {
    let webhook = Webhook::start();
    let change = |change: &str| format!(r#"{{"object":"o","entry":[{{"id":"1","changes":[{change}]}}]}}"#);
    for (at, (body, reason)) in [
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
        assert_eq!(counts(&webhook, at + 1).await, expected);
    }
}

#[tokio::test]
async fn what_is_diverted_is_counted_by_the_route_that_it_would_have_taken() {
    let webhook = Webhook::start();
    for name in ["messages", "statuses"] {
        webhook.queue(name).fault(Fault::access_denied(), Times::Always);
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
async fn what_is_stored_nowhere_is_not_counted_as_stored_or_diverted() {
    let webhook = Webhook::start();
    webhook.queue("messages").fault(Fault::access_denied(), Times::Always);
    let sent = Notification::of(&["messages", "messages", "messages", "security"]);
    let lost = sent.changes[1].event_id.clone();
    let refused = Fault::refuse_entries(move |entry| entry.attribute("event_id") == Some(&lost));
    webhook.queue("unrouted").fault(refused, Times::Always);
    assert_eq!(webhook.deliver_within(&sent.body, Duration::from_secs(3)).await.status, 503);
    assert_eq!(lines(&webhook, 1).await[0]["reason"], json!("1 of 4 stored nowhere, 2 diverted"));
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
async fn a_message_that_is_sent_again_is_a_retry() {
    let webhook = Webhook::start();
    webhook.queue("messages").fault(Fault::refuse_entry(1), Times::Next(2));
    let sent = Notification::of(&["messages", "messages", "messages"]);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    // It goes alone, so the second entry of a batch is refused once.
    assert_eq!(counts(&webhook, 1).await["QueueRetries"], 1);
    webhook.reset();
    webhook.queue("messages").fault(Fault::internal_error(), Times::Once);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(counts(&webhook, 2).await["QueueRetries"], 3);
    // What SQS blames a batch for in words that we do not know is sent one by one.
    webhook.reset();
    webhook.queue("messages").fault(Fault::error(400, "NotKnownYet"), Times::Once);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(counts(&webhook, 3).await["QueueRetries"], 3);
}

#[tokio::test]
async fn a_body_that_is_in_s3_is_counted_once_however_often_it_was_put_there() {
    let webhook = Webhook::start();
    let large = Notification::new([("messages", message(0, &"x".repeat(1_100_000)))]);
    assert_eq!(webhook.deliver(&large.body).await.status, 200);
    assert_eq!(counts(&webhook, 1).await["ClaimChecked"], 1);
    webhook.queue("messages").fault(Fault::internal_error(), Times::Once);
    assert_eq!(webhook.deliver(&large.body).await.status, 200);
    let counted = counts(&webhook, 2).await;
    assert_eq!((counted["ClaimChecked"], counted["QueueRetries"], counted["Stored"]), (1, 1, 1));
    webhook.queue("messages").fault(Fault::refuse_entry(0), Times::Once);
    assert_eq!(webhook.deliver(&large.body).await.status, 200);
    assert_eq!(counts(&webhook, 3).await["ClaimChecked"], 1);
    webhook.aws.s3().fault(Fault::access_denied(), Times::Always);
    assert_eq!(webhook.deliver_within(&large.body, Duration::from_secs(3)).await.status, 503);
    let counted = counts(&webhook, 4).await;
    assert_eq!((counted.get("ClaimChecked"), counted["NotStored"]), (None, 1));
}

#[tokio::test]
async fn a_refused_signature_is_no_notification() {
    let webhook = Webhook::start();
    let refused = |more: &[(&str, u64)]| expected(&[&[("Notifications", 0), ("RefusedSignatures", 1)], more].concat());
    webhook.send(event("POST", "", &[], b"{}")).await;
    assert_eq!(counts(&webhook, 1).await, refused(&[]));
    webhook.send(event("POST", "", &[("x-hub-signature-256", "sha256=")], b"{}")).await;
    assert_eq!(counts(&webhook, 2).await, refused(&[]));
    // A well-formed one that no secret explains has the secret read again.
    webhook.send(signed("forger", b"{}")).await;
    assert_eq!(counts(&webhook, 3).await, refused(&[("SecretRefreshes", 1), ("SignatureMismatches", 1)]));
    webhook.send(signed("forger", b"{}")).await;
    assert_eq!(counts(&webhook, 4).await, refused(&[("SignatureMismatches", 1)]));
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_again_is_a_failure_and_one_that_can_a_refresh() {
    for (fault, name) in [(Fault::access_denied(), "SecretFailures"), (Fault::hang(), "SecretFailures")] {
        let webhook = Webhook::start();
        webhook.function.ready(Duration::from_secs(10)).await.unwrap();
        webhook.aws.secrets().fault(fault, Times::Always);
        webhook.send_within(signed("forger", b"{}"), Duration::from_secs(4)).await;
        let refused = [("Notifications", 0), ("RefusedSignatures", 1), ("SignatureMismatches", 1), (name, 1)];
        assert_eq!(counts(&webhook, 1).await, expected(&refused));
    }
    let webhook = Webhook::start();
    webhook.function.ready(Duration::from_secs(10)).await.unwrap();
    webhook.aws.set_secret(SECRET_ID, secret(&json!("the-new-one")));
    webhook.send(signed("the-new-one", b"{}")).await;
    let counted = counts(&webhook, 1).await;
    assert_eq!((counted["SecretRefreshes"], counted["Notifications"]), (1, 1));
    assert_eq!(counted.get("SecretFailures"), None);
}

#[tokio::test]
async fn a_get_and_an_empty_body_have_a_line_too() {
    let webhook = Webhook::start();
    webhook.challenge(VERIFY_TOKEN).await;
    webhook.send(event("GET", "", &[], b"")).await;
    webhook.send(event("PUT", "", &[], b"")).await;
    webhook.deliver("").await;
    let lines = lines(&webhook, 4).await;
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["message"].as_str().unwrap(), line["level"].as_str().unwrap(), line::metrics(line).0))
        .collect();
    let none = BTreeMap::from([("Notifications", 0.0)]);
    let expected = [
        ("challenge answered", "INFO", none.clone()),
        ("refused", "WARN", none.clone()),
        ("refused", "WARN", none),
        ("signed, but empty", "WARN", BTreeMap::from([("Notifications", 1.0)])),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn the_age_of_an_event_is_that_of_its_entry_or_else_of_its_first_message_or_status() {
    let webhook = Webhook::start();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let of = |entry: String, value: &str| {
        format!(r#"{{"entry":[{{"id":"1",{entry}"changes":[{{"field":"messages","value":{value}}}]}}]}}"#)
    };
    let at = |time: u64| format!(r#""time":{time},"#);
    let status = |time: u64| format!(r#"{{"statuses":[{{"id":"a","timestamp":"{time}"}}]}}"#);
    for (nth, (body, age)) in [
        (of(at(now - 90), &status(now - 500)), Some(90)),
        (of(String::new(), &status(now - 500)), Some(500)),
        (of(String::new(), &format!(r#"{{"messages":[{{"timestamp":{}}}]}}"#, now - 70)), Some(70)),
        (of(at(now + 1_000), "{}"), Some(0)),
        (of(r#""time":"noon","#.to_owned(), "{}"), None),
        (of(String::new(), r#"{"messages":[{"timestamp":{}}]}"#), None),
        ("{}".to_owned(), None),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(webhook.deliver(&body).await.status, 200);
        let lines = lines(&webhook, nth + 1).await;
        let (metrics, _) = line::metrics(&lines[nth]);
        let told = metrics.get("EventAge");
        match age {
            Some(age) => {
                assert!(told.is_some_and(|told| (0.0..30.0).contains(&(told - f64::from(age)))), "{body}: {told:?}");
            }
            None => assert_eq!(told, None, "{body}"),
        }
        assert!(metrics["StoreTime"] > 0.0 && metrics["StoreTime"] < 10_000.0);
    }
}

#[tokio::test]
async fn no_log_level_silences_the_metrics() {
    for level in ["TRACE", "WARN", "ERROR", "FATAL"] {
        let webhook = Webhook::with(&[("AWS_LAMBDA_LOG_LEVEL", level)]);
        assert_eq!(webhook.deliver(Notification::new([("messages", status(0))]).body).await.status, 200);
        let lines = lines(&webhook, 1).await;
        // Lambda's own filter drops what is below.
        assert_eq!(lines[0]["level"], if level == "TRACE" { "INFO" } else { level });
    }
}

#[tokio::test]
async fn unsupported_event_has_a_log_line_of_its_own() {
    let webhook = Webhook::start();
    assert_eq!(webhook.invoke("{}", Duration::from_secs(3)).await.status_code(), Some(400));
    assert_eq!(counts(&webhook, 1).await, expected(&[("Notifications", 0)]));
    assert_eq!(webhook.deliver(Notification::of(&["messages"]).body).await.status, 200);
    let expected = expected(&[("Notifications", 1), ("Changes", 1), ("Changes.messages", 1), ("Stored", 1)]);
    assert_eq!(counts(&webhook, 2).await, expected);
}

#[tokio::test]
async fn refused_callers_are_counted_by_reason() {
    let webhook = Webhook::with(&[("CLIENT_CERTIFICATE_CN", "client.example")]);
    assert_eq!(webhook.challenge(VERIFY_TOKEN).await.status, 403);
    assert_eq!(counts(&webhook, 1).await, expected(&[("Notifications", 0), ("RefusedCertificates", 1)]));
    let webhook = Webhook::start();
    assert_eq!(webhook.challenge("wrong").await.status, 403);
    let counted = counts(&webhook, 1).await;
    assert_eq!(counted, expected(&[("Notifications", 0), ("RefusedTokens", 1), ("SecretRefreshes", 1)]));
}
