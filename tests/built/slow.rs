//! Slow services: responses that are delayed, and calls or entries that take effect late.
//!
//! The function waits for a call that can still succeed, starts at most one concurrent duplicate, and sends nothing if no time
//! is left. The tests check the order and number of calls and copies, not their times.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fake_aws::{Call, FakeAws, Fault, Frequency, Service};
use futures_util::future::join_all;
use serde_json::Value;

use crate::{
    PROCESSOR,
    notification::{Notification, message},
    stored::Placement::{self, Diverted, Own, Unrouted},
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, Webhook, signed},
};

/// Leaves three seconds for storing. The function probes the queue after one, and diverts the messages after one and a half.
const SHORT_DEADLINE: Duration = Duration::from_secs(4);

/// How long API Gateway waits for a response.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(29);

/// Codes of throttling for which SQS sets `SenderFault`.
const THROTTLING_CODES: [&str; 4] =
    ["ThrottlingException", "RequestThrottled", "KMS.ThrottlingException", "ServiceUnavailable"];

/// Codes of SQS for expired credentials.
const EXPIRED_CODES: [&str; 2] = ["ExpiredToken", "InvalidClientTokenId"];

async fn start_initialized() -> Webhook {
    let webhook = Webhook::start();
    webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
    webhook
}

/// The two faults that delay a whole call.
fn delays(milliseconds: u64) -> [Fault; 2] {
    let by = Duration::from_millis(milliseconds);
    [Fault::delay_response(by), Fault::delay_commit(by)]
}

/// Makes a body over the limit of SQS.
fn large() -> Notification {
    Notification::new([("messages", message(0, &"x".repeat(1_100_000)))])
}

/// Asserts that each change is stored once or twice, and only with the given placements.
async fn assert_at_most_two(webhook: &Webhook, sent: &Notification, placements: &[Placement], case: &str) {
    webhook.aws.wait_for_delayed_commits().await;
    for (index, copies) in webhook.copies(sent).iter().enumerate() {
        let is_bounded = (1..=2).contains(&copies.len()) && copies.iter().all(|copy| placements.contains(copy));
        assert!(is_bounded, "{case}: change {index} is at {copies:?}");
    }
}

/// Counts the calls with messages for each queue.
fn sends_by_queue(webhook: &Webhook) -> BTreeMap<String, usize> {
    webhook.send_calls().into_iter().fold(BTreeMap::new(), |mut counts, call| {
        *counts.entry(call.queue.unwrap()).or_default() += 1;
        counts
    })
}

/// Returns the calls to a queue, without the one that opens a connection at the start.
fn calls_to(webhook: &Webhook, queue: &str) -> Vec<Call> {
    let calls = webhook.aws.calls().into_iter().skip_while(|call| call.entries == 0);
    calls.filter(|call| call.queue.as_deref() == Some(queue)).collect()
}

#[tokio::test]
async fn slow_sqs_costs_at_most_one_more_copy() {
    let one_entry =
        Fault::delay_entries(Duration::from_millis(2_100), |entry| entry.attribute("kind") == Some("statuses"));
    let sent = Notification::of(&["messages", "messages.statuses", "security", "calls", "messages", "calls"]);
    join_all(delays(2_100).into_iter().chain([one_entry]).map(async |fault| {
        let webhook = start_initialized().await;
        webhook.aws.sqs().inject_fault(fault.clone(), Frequency::Always);
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
    join_all(delays(2_100).map(async |fault| {
        let webhook = start_initialized().await;
        webhook.aws.sqs().inject_fault(fault.clone(), Frequency::Always);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        assert_at_most_two(&webhook, &sent, &[Own], fault.name()).await;
    }))
    .await;
}

#[tokio::test]
async fn slow_s3_leaves_at_most_one_orphaned_object() {
    let _turn = PROCESSOR.lock().await;
    let sent = large();
    let [delayed_response, delayed_commit] = delays(2_200);
    let cases = [
        (delayed_response.clone(), Frequency::Always, None),
        (delayed_commit.clone(), Frequency::Always, None),
        (delayed_response, Frequency::Always, Some(1_500)),
        (delayed_commit, Frequency::Always, Some(1_500)),
        (Fault::commit_then_hang(), Frequency::Once, None),
    ];
    join_all(cases.map(async |(fault, frequency, sqs)| {
        let case = format!("{}, SQS by {sqs:?}", fault.name());
        let webhook = start_initialized().await;
        webhook.aws.s3().inject_fault(fault, frequency);
        if let Some(milliseconds) = sqs {
            webhook
                .aws
                .sqs()
                .inject_fault(Fault::delay_response(Duration::from_millis(milliseconds)), Frequency::Always);
        }
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{case}");
        assert_at_most_two(&webhook, &sent, &[Own], &case).await;
        let (pointer_keys, objects) = (pointer_keys(&webhook), webhook.bucket.objects());
        let orphans: Vec<_> = objects.keys().filter(|key| !pointer_keys.contains(*key)).collect();
        assert!(orphans.len() <= 1, "{case}: {orphans:?}");
    }))
    .await;
}

fn pointer_keys(webhook: &Webhook) -> BTreeSet<String> {
    let key = |pointer: &str| {
        let pointer: Value = serde_json::from_str(pointer).unwrap();
        pointer[1]["s3Key"].as_str().unwrap().to_owned()
    };
    webhook.stored_messages().iter().map(|(_, message)| key(&message.body)).collect()
}

#[tokio::test]
async fn slow_catch_all_takes_over_from_a_hanging_queue() {
    let sent = Notification::of(&["messages", "messages", "security"]);
    join_all(delays(1_900).map(async |fault| {
        let webhook = start_initialized().await;
        webhook.queue("messages").inject_fault(Fault::hang(), Frequency::Always);
        webhook.queue("unrouted").inject_fault(fault.clone(), Frequency::Always);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        assert_at_most_two(&webhook, &sent, &[Diverted, Own], fault.name()).await;
        let copies = webhook.copies(&sent);
        assert!(!copies[0].contains(&Own) && copies[2] == [Own], "{}: {copies:?}", fault.name());
    }))
    .await;
}

/// The function continues to wait for the queue of the route after it has sent a copy to the catch-all queue.
#[tokio::test]
async fn slow_queue_beside_a_hanging_catch_all_stores() {
    let sent = Notification::of(&["messages", "messages"]);
    join_all(delays(2_100).map(async |fault| {
        let webhook = start_initialized().await;
        webhook.queue("messages").inject_fault(fault.clone(), Frequency::Always);
        webhook.queue("unrouted").inject_fault(Fault::hang(), Frequency::Always);
        assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 200, "{}", fault.name());
        assert_at_most_two(&webhook, &sent, &[Own], fault.name()).await;
    }))
    .await;
}

#[tokio::test]
async fn hanging_call_is_repeated_after_a_probe_response() {
    let sent = Notification::of(&["messages"; 3]);
    for (fault, copies) in [(Fault::hang(), 1), (Fault::commit_then_hang(), 2)] {
        let webhook = start_initialized().await;
        let first_with_entries = Frequency::when(|call| !call.entries.is_empty() && call.nth == 1);
        webhook.queue("messages").inject_fault(fault.clone(), first_with_entries);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        assert_eq!(webhook.copies(&sent), vec![vec![Own; copies]; 3], "{}", fault.name());
        let calls = calls_to(&webhook, "messages");
        assert_eq!(calls.iter().map(|call| call.entries).collect::<Vec<_>>(), [3, 0, 3], "{}", fault.name());
        assert_ne!(calls[0].connection, calls[1].connection);
    }
}

#[tokio::test]
async fn hanging_call_is_not_repeated_without_a_probe() {
    let (webhook, sent) = (start_initialized().await, Notification::of(&["messages"; 3]));
    webhook.queue("messages").inject_fault(Fault::hang(), Frequency::Always);
    assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 200);
    assert_eq!(webhook.copies(&sent), vec![vec![Diverted]; 3]);
    let sends: Vec<_> = webhook.send_calls().into_iter().map(|call| (call.queue.unwrap(), call.entries)).collect();
    assert_eq!(sends, [("messages".to_owned(), 3), ("unrouted".to_owned(), 3)]);
}

#[tokio::test]
async fn slow_secrets_manager_delays_the_start() {
    let sent = Notification::of(&["messages"]);
    join_all(delays(2_500).map(async |fault| {
        let aws = FakeAws::start();
        let handle = aws.secrets().inject_fault(fault, Frequency::Always);
        let webhook = Webhook::with_aws(aws, &[]);
        webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
        assert!((1..=2).contains(&handle.fired()), "{}", handle.fired());
        assert_eq!((webhook.deliver(&sent.body).await.status, webhook.copies(&sent)), (200, vec![vec![Own]]));
    }))
    .await;
}

/// The function reserves one second for the response, so only 0.1 s would be left for storing.
#[tokio::test]
async fn nothing_is_sent_when_no_time_is_left() {
    let (webhook, sent) = (start_initialized().await, Notification::of(&["messages", "calls"]));
    let calls = webhook.aws.calls().len();
    assert_eq!(webhook.deliver_within(&sent.body, Duration::from_millis(1_100)).await.status, 503);
    assert_eq!(webhook.aws.calls().len(), calls);
    assert_eq!(
        (webhook.deliver(&sent.body).await.status, webhook.copies(&sent)),
        (200, vec![vec![Own], vec![Unrouted]])
    );
}

/// Takes 28 s, because only the timeout of API Gateway limits the invocations.
#[tokio::test]
async fn deadline_is_capped_when_the_clock_is_behind() {
    let sent = Notification::of(&["messages"]);
    join_all([("messages", 200), ("unrouted", 503)].map(async |(last_hanging, status)| {
        let webhook = start_initialized().await;
        webhook.function.set_clock_lag(Duration::from_hours(1));
        webhook.queue("messages").inject_fault(Fault::hang(), Frequency::Always);
        webhook.queue(last_hanging).inject_fault(Fault::hang(), Frequency::Always);
        let event = signed(APP_SECRET, sent.body.as_bytes());
        let invocation = webhook.invoke(event, GATEWAY_TIMEOUT).await;
        assert_eq!(invocation.status_code(), Some(status), "{:?}", invocation.outcome);
        let copies = webhook.copies(&sent);
        assert_eq!(copies[0], if status == 200 { vec![Diverted] } else { vec![] });
    }))
    .await;
}

#[tokio::test]
async fn throttled_entry_is_retried() {
    join_all(THROTTLING_CODES.map(async |code| {
        for (queue, field, placement) in [("messages", "messages", Own), ("unrouted", "calls", Unrouted)] {
            let (webhook, sent) = (start_initialized().await, Notification::of(&[field; 3]));
            let throttle = Fault::reject_entry(1).code(code).sender_fault();
            webhook.queue(queue).inject_fault(throttle, Frequency::Once);
            assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{code} on {queue}");
            assert_eq!(webhook.copies(&sent), vec![vec![placement]; 3], "{code} on {queue}");
            let sends: Vec<_> =
                webhook.send_calls().into_iter().map(|call| (call.queue.unwrap(), call.entries)).collect();
            assert_eq!(sends, [(queue.to_owned(), 3), (queue.to_owned(), 1)], "{code}");
        }
    }))
    .await;
}

#[tokio::test]
async fn throttled_entry_is_diverted_after_retries() {
    join_all(THROTTLING_CODES.map(async |code| {
        let (webhook, sent) = (start_initialized().await, Notification::of(&["messages"; 3]));
        let throttled = throttle_change(&webhook, &sent, "messages", code);
        assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 200, "{code}");
        assert_eq!(webhook.copies(&sent), [vec![Own], vec![Diverted], vec![Own]], "{code}");
        assert!(throttled.fired() >= 2, "{code}: {}", throttled.fired());
        let last = webhook.send_calls().pop().unwrap();
        assert_eq!((last.queue.as_deref(), last.entries), (Some("unrouted"), 1), "{code}");
    }))
    .await;
}

#[tokio::test]
async fn throttled_catch_all_entry_is_retried_to_the_end() {
    join_all(THROTTLING_CODES.map(async |code| {
        let (webhook, sent) = (start_initialized().await, Notification::of(&["messages"; 3]));
        let counts = ["messages", "unrouted"].map(|queue| throttle_change(&webhook, &sent, queue, code));
        assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 503, "{code}");
        assert_eq!(webhook.copies(&sent), [vec![Own], vec![], vec![Own]], "{code}");
        let fired = counts.map(|throttled| throttled.fired());
        assert!(fired.iter().all(|fired| *fired >= 2), "{code}: {fired:?}");
        assert!(webhook.aws.calls().iter().all(|call| call.service != Service::S3), "{code}");
    }))
    .await;
}

/// Throttles the second change on a queue in every call.
fn throttle_change(webhook: &Webhook, sent: &Notification, queue: &str, code: &str) -> fake_aws::FaultHandle {
    let event_id = sent.changes[1].event_id.clone();
    let throttle = Fault::reject_entries(move |entry| entry.attribute("event_id") == Some(&event_id));
    webhook.queue(queue).inject_fault(throttle.code(code).sender_fault(), Frequency::Always)
}

/// Lambda then starts a new execution environment with new credentials.
#[tokio::test]
async fn process_exits_after_its_credentials_expired() {
    join_all(EXPIRED_CODES.map(async |code| {
        let (webhook, sent) = (start_initialized().await, Notification::of(&["messages", "calls"]));
        webhook.aws.sqs().inject_fault(Fault::error(403, code), Frequency::Always);
        assert_eq!(webhook.deliver(&sent.body).await.status, 503, "{code}");
        webhook.assert_exits(code).await;
    }))
    .await;
}

#[tokio::test]
async fn one_queue_rejecting_credentials_ends_no_process() {
    join_all(EXPIRED_CODES.map(async |code| {
        let (webhook, sent) = (start_initialized().await, Notification::of(&["messages", "security"]));
        webhook.queue("messages").inject_fault(Fault::error(403, code), Frequency::Always);
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

/// The credentials expire between the calls for two queues.
#[tokio::test]
async fn credentials_that_expire_between_calls_end_process() {
    join_all(EXPIRED_CODES.map(async |code| {
        let (webhook, sent) = (start_initialized().await, Notification::of(&["messages", "security"]));
        for queue in ["messages", "unrouted"] {
            webhook.queue(queue).inject_fault(Fault::error(403, code), Frequency::Always);
        }
        assert_eq!(webhook.deliver(&sent.body).await.status, 503, "{code}");
        assert_eq!(webhook.copies(&sent), [vec![], vec![Own]], "{code}");
        webhook.assert_exits(code).await;
        let lines = webhook.function.logs().join("\n");
        assert!(lines.contains(r#""reason":"1 of 2 not stored, 0 diverted""#), "{lines}");
    }))
    .await;
}
