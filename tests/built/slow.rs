//! A slow AWS that works: calls that answer late, store late, or store some entries late.
//!
//! The function waits for a call that may still succeed, starts at most a second one beside it, and sends nothing when
//! no time is left. Times appear only as deadlines; all else is the order and the count of calls and copies.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fake_aws::{Call, FakeAws, Fault, Service, Times};
use futures_util::future::join_all;
use serde_json::Value;

use crate::{
    notification::{Notification, message},
    stored::Copy::{self, Diverted, Own, Unrouted},
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, Webhook, signed},
};

/// Leaves three seconds to store in: the probe comes after one, the catch-all queue gets its copy after one and a half.
const SHORT_DEADLINE: Duration = Duration::from_secs(4);

/// API Gateway waits no longer for an answer.
const MAX_GATEWAY_TIME: Duration = Duration::from_secs(29);

/// Codes of throttling that SQS flags as the sender's fault.
const THROTTLING: [&str; 4] =
    ["ThrottlingException", "RequestThrottled", "KMS.ThrottlingException", "ServiceUnavailable"];

/// Codes of SQS for credentials that it no longer accepts.
const EXPIRED: [&str; 2] = ["ExpiredToken", "InvalidClientTokenId"];

async fn started() -> Webhook {
    let webhook = Webhook::start();
    webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
    webhook
}

/// Both kinds of slowness of a whole call, by so many milliseconds.
fn slow(milliseconds: u64) -> [Fault; 2] {
    let by = Duration::from_millis(milliseconds);
    [Fault::slow(by), Fault::store_late(by)]
}

/// A body over SQS's limit.
fn large() -> Notification {
    Notification::new([("messages", message(0, &"x".repeat(1_100_000)))])
}

/// Asserts that each change is stored once or twice, and nowhere but on the given queues.
async fn assert_at_most_two(webhook: &Webhook, sent: &Notification, queues: &[Copy], case: &str) {
    webhook.aws.late_effects().await;
    for (at, copies) in webhook.copies(sent).iter().enumerate() {
        let is_bounded = (1..=2).contains(&copies.len()) && copies.iter().all(|copy| queues.contains(copy));
        assert!(is_bounded, "{case}: change {at} is at {copies:?}");
    }
}

/// How many calls carried messages to each queue.
fn sends_by_queue(webhook: &Webhook) -> BTreeMap<String, usize> {
    webhook.sends().into_iter().fold(BTreeMap::new(), |mut counts, call| {
        *counts.entry(call.queue.unwrap()).or_default() += 1;
        counts
    })
}

/// The calls to a queue, without the one that opened a connection at the start.
fn calls_to(webhook: &Webhook, queue: &str) -> Vec<Call> {
    let calls = webhook.aws.calls().into_iter().skip_while(|call| call.entries == 0);
    calls.filter(|call| call.queue.as_deref() == Some(queue)).collect()
}

#[tokio::test]
async fn slow_sqs_costs_at_most_one_more_copy() {
    let one_entry =
        Fault::store_entries_late(Duration::from_millis(2_100), |entry| entry.attribute("kind") == Some("statuses"));
    let sent = Notification::of(&["messages", "messages.statuses", "security", "calls", "messages", "calls"]);
    join_all(slow(2_100).into_iter().chain([one_entry]).map(async |fault| {
        let webhook = started().await;
        webhook.aws.sqs().fault(fault.clone(), Times::Always);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        assert_at_most_two(&webhook, &sent, &[Own, Unrouted], fault.name()).await;
        let sends = sends_by_queue(&webhook);
        assert!(sends.values().all(|count| *count <= 2), "{}: {sends:?}", fault.name());
    }))
    .await;
}

#[tokio::test]
async fn slow_sqs_stores_a_large_notification() {
    let sent = Notification::of(&["messages"; 300]);
    join_all(slow(2_100).map(async |fault| {
        let webhook = started().await;
        webhook.aws.sqs().fault(fault.clone(), Times::Always);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        assert_at_most_two(&webhook, &sent, &[Own], fault.name()).await;
    }))
    .await;
}

#[tokio::test]
async fn slow_s3_leaves_at_most_one_orphaned_object() {
    let sent = large();
    let [answers_late, stores_late] = slow(2_200);
    let cases = [
        (answers_late.clone(), Times::Always, None),
        (stores_late.clone(), Times::Always, None),
        (answers_late, Times::Always, Some(1_500)),
        (stores_late, Times::Always, Some(1_500)),
        (Fault::store_and_hang(), Times::Once, None),
    ];
    join_all(cases.map(async |(fault, times, sqs)| {
        let case = format!("{}, SQS by {sqs:?}", fault.name());
        let webhook = started().await;
        webhook.aws.s3().fault(fault, times);
        if let Some(milliseconds) = sqs {
            webhook.aws.sqs().fault(Fault::slow(Duration::from_millis(milliseconds)), Times::Always);
        }
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{case}");
        assert_at_most_two(&webhook, &sent, &[Own], &case).await;
        let (pointed_to, objects) = (pointed_to(&webhook), webhook.bucket.objects());
        let orphans: Vec<_> = objects.keys().filter(|key| !pointed_to.contains(*key)).collect();
        assert!(orphans.len() <= 1, "{case}: {orphans:?}");
    }))
    .await;
}

fn pointed_to(webhook: &Webhook) -> BTreeSet<String> {
    let key = |pointer: &str| {
        let pointer: Value = serde_json::from_str(pointer).unwrap();
        pointer[1]["s3Key"].as_str().unwrap().to_owned()
    };
    webhook.stored().iter().map(|(_, message)| key(&message.body)).collect()
}

#[tokio::test]
async fn slow_catch_all_takes_over_from_a_hanging_queue() {
    let sent = Notification::of(&["messages", "messages", "security"]);
    join_all(slow(1_900).map(async |fault| {
        let webhook = started().await;
        webhook.queue("messages").fault(Fault::hang(), Times::Always);
        webhook.queue("unrouted").fault(fault.clone(), Times::Always);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        assert_at_most_two(&webhook, &sent, &[Diverted, Own], fault.name()).await;
        let copies = webhook.copies(&sent);
        assert!(!copies[0].contains(&Own) && copies[2] == [Own], "{}: {copies:?}", fault.name());
    }))
    .await;
}

/// The copy for the catch-all queue does not end the wait for the field's queue.
#[tokio::test]
async fn slow_queue_beside_a_hanging_catch_all_stores() {
    let sent = Notification::of(&["messages", "messages"]);
    join_all(slow(2_100).map(async |fault| {
        let webhook = started().await;
        webhook.queue("messages").fault(fault.clone(), Times::Always);
        webhook.queue("unrouted").fault(Fault::hang(), Times::Always);
        assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 200, "{}", fault.name());
        assert_at_most_two(&webhook, &sent, &[Own], fault.name()).await;
    }))
    .await;
}

#[tokio::test]
async fn silent_call_is_repeated_after_an_answered_probe() {
    let sent = Notification::of(&["messages"; 3]);
    for (fault, copies) in [(Fault::hang(), 1), (Fault::store_and_hang(), 2)] {
        let webhook = started().await;
        let first_with_entries = Times::when(|call| !call.entries.is_empty() && call.nth == 1);
        webhook.queue("messages").fault(fault.clone(), first_with_entries);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        assert_eq!(webhook.copies(&sent), vec![vec![Own; copies]; 3], "{}", fault.name());
        let calls = calls_to(&webhook, "messages");
        assert_eq!(calls.iter().map(|call| call.entries).collect::<Vec<_>>(), [3, 0, 3], "{}", fault.name());
        assert_ne!(calls[0].connection, calls[1].connection);
    }
}

#[tokio::test]
async fn silent_call_is_not_repeated_without_a_probe() {
    let (webhook, sent) = (started().await, Notification::of(&["messages"; 3]));
    webhook.queue("messages").fault(Fault::hang(), Times::Always);
    assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 200);
    assert_eq!(webhook.copies(&sent), vec![vec![Diverted]; 3]);
    let sends: Vec<_> = webhook.sends().into_iter().map(|call| (call.queue.unwrap(), call.entries)).collect();
    assert_eq!(sends, [("messages".to_owned(), 3), ("unrouted".to_owned(), 3)]);
}

#[tokio::test]
async fn slow_secrets_manager_delays_the_start() {
    let sent = Notification::of(&["messages"]);
    join_all(slow(2_500).map(async |fault| {
        let aws = FakeAws::start();
        let injected = aws.secrets().fault(fault, Times::Always);
        let webhook = Webhook::with_aws(aws, &[]);
        webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
        assert!((1..=2).contains(&injected.fired()), "{}", injected.fired());
        assert_eq!((webhook.deliver(&sent.body).await.status, webhook.copies(&sent)), (200, vec![vec![Own]]));
    }))
    .await;
}

/// A tenth of a second is left after the second for the answer.
#[tokio::test]
async fn nothing_is_sent_when_no_time_is_left() {
    let (webhook, sent) = (started().await, Notification::of(&["messages", "calls"]));
    let calls = webhook.aws.calls().len();
    assert_eq!(webhook.deliver_within(&sent.body, Duration::from_millis(1_100)).await.status, 503);
    assert_eq!(webhook.aws.calls().len(), calls);
    assert_eq!(
        (webhook.deliver(&sent.body).await.status, webhook.copies(&sent)),
        (200, vec![vec![Own], vec![Unrouted]])
    );
}

/// Waits for 28 s: only the gateway's limit ends the invocations.
#[tokio::test]
async fn deadline_is_capped_when_the_clock_is_behind() {
    let sent = Notification::of(&["messages"]);
    join_all([("messages", 200), ("unrouted", 503)].map(async |(last_hanging, status)| {
        let webhook = started().await;
        webhook.function.set_clock_lag(Duration::from_hours(1));
        webhook.queue("messages").fault(Fault::hang(), Times::Always);
        webhook.queue(last_hanging).fault(Fault::hang(), Times::Always);
        let event = signed(APP_SECRET, sent.body.as_bytes());
        let invocation = webhook.invoke(event, MAX_GATEWAY_TIME).await;
        assert_eq!(invocation.status_code(), Some(status), "{:?}", invocation.outcome);
        let copies = webhook.copies(&sent);
        assert_eq!(copies[0], if status == 200 { vec![Diverted] } else { vec![] });
    }))
    .await;
}

#[tokio::test]
async fn throttled_entry_is_retried() {
    join_all(THROTTLING.map(async |code| {
        for (queue, field, home) in [("messages", "messages", Own), ("unrouted", "calls", Unrouted)] {
            let (webhook, sent) = (started().await, Notification::of(&[field; 3]));
            let throttle = Fault::refuse_entry(1).code(code).senders_fault();
            webhook.queue(queue).fault(throttle, Times::Once);
            assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{code} on {queue}");
            assert_eq!(webhook.copies(&sent), vec![vec![home]; 3], "{code} on {queue}");
            let sends: Vec<_> = webhook.sends().into_iter().map(|call| (call.queue.unwrap(), call.entries)).collect();
            assert_eq!(sends, [(queue.to_owned(), 3), (queue.to_owned(), 1)], "{code}");
        }
    }))
    .await;
}

#[tokio::test]
async fn throttled_entry_is_diverted_after_retries() {
    join_all(THROTTLING.map(async |code| {
        let (webhook, sent) = (started().await, Notification::of(&["messages"; 3]));
        let throttled = throttle_change(&webhook, &sent, "messages", code);
        assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 200, "{code}");
        assert_eq!(webhook.copies(&sent), [vec![Own], vec![Diverted], vec![Own]], "{code}");
        assert!(throttled.fired() >= 2, "{code}: {}", throttled.fired());
        let last = webhook.sends().pop().unwrap();
        assert_eq!((last.queue.as_deref(), last.entries), (Some("unrouted"), 1), "{code}");
    }))
    .await;
}

#[tokio::test]
async fn throttled_catch_all_entry_is_retried_to_the_end() {
    join_all(THROTTLING.map(async |code| {
        let (webhook, sent) = (started().await, Notification::of(&["messages"; 3]));
        let counts = ["messages", "unrouted"].map(|queue| throttle_change(&webhook, &sent, queue, code));
        assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 503, "{code}");
        assert_eq!(webhook.copies(&sent), [vec![Own], vec![], vec![Own]], "{code}");
        let fired = counts.map(|throttled| throttled.fired());
        assert!(fired.iter().all(|fired| *fired >= 2), "{code}: {fired:?}");
        assert!(webhook.aws.calls().iter().all(|call| call.service != Service::S3), "{code}");
    }))
    .await;
}

/// Throttles the second change on a queue, always.
fn throttle_change(webhook: &Webhook, sent: &Notification, queue: &str, code: &str) -> fake_aws::FaultHandle {
    let event_id = sent.changes[1].event_id.clone();
    let throttle = Fault::refuse_entries(move |entry| entry.attribute("event_id") == Some(&event_id));
    webhook.queue(queue).fault(throttle.code(code).senders_fault(), Times::Always)
}

/// Lambda starts a new execution environment, which has new credentials.
#[tokio::test]
async fn process_exits_after_its_credentials_expired() {
    join_all(EXPIRED.map(async |code| {
        let (webhook, sent) = (started().await, Notification::of(&["messages", "calls"]));
        webhook.aws.sqs().fault(Fault::error(403, code), Times::Always);
        assert_eq!(webhook.deliver(&sent.body).await.status, 503, "{code}");
        let exited = async {
            while !webhook.function.has_exited() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(1), exited).await.is_ok(), "{code}: the process lives on");
    }))
    .await;
}

#[tokio::test]
async fn one_queue_rejecting_credentials_ends_no_process() {
    join_all(EXPIRED.map(async |code| {
        let (webhook, sent) = (started().await, Notification::of(&["messages", "security"]));
        webhook.queue("messages").fault(Fault::error(403, code), Times::Always);
        for delivery in 1..=2 {
            assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{code}");
            let copies = [vec![Diverted; delivery], vec![Own; delivery]];
            assert_eq!(webhook.copies(&sent), copies, "{code}");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!webhook.function.has_exited(), "{code}");
    }))
    .await;
}
