//! Short Lambda timeouts, near deadlines, and several services that hang.

use std::time::Duration;

use fake_aws::{FakeAws, Fault, Frequency};
use futures_util::future::join_all;
use serde_json::{Map, json};

use crate::{
    notification::{Notification, message},
    stored::Placement::{self, Diverted, Own, Unrouted},
    webhook::{LAMBDA_TIMEOUT, VERIFY_TOKEN, Webhook, event, signed},
};

const ALL_FIELDS: [&str; 5] = ["messages", "messages.statuses", "security", "account_update", "calls"];

#[tokio::test]
async fn responds_before_the_deadline_while_aws_hangs() {
    let milliseconds = [500, 1_050, 1_500, 2_000, 4_000];
    join_all(milliseconds.map(async |milliseconds| {
        let deadline = Duration::from_millis(milliseconds);
        let webhook = Webhook::start();
        webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
        let sent = Notification::of(&ALL_FIELDS);
        let large = Notification::new([("messages", message(0, &"x".repeat(1_100_000)))]);
        webhook.aws.sqs().inject_fault(Fault::hang(), Frequency::Always);
        webhook.aws.s3().inject_fault(Fault::hang(), Frequency::Always);
        // Without optimization, parsing a large body takes a large part of a short timeout.
        let large = (deadline >= Duration::from_secs(4)).then_some(&large);
        for sent in [&sent].into_iter().chain(large) {
            assert_eq!(webhook.deliver_within(&sent.body, deadline).await.status, 503);
            assert_eq!(webhook.stored_messages().len(), 0);
        }
        webhook.reset();
        if deadline >= Duration::from_secs(2) {
            assert_eq!(webhook.deliver_within(&sent.body, deadline).await.status, 200);
            assert!(webhook.copies(&sent).iter().all(|copies| !copies.is_empty()));
        }
    }))
    .await;
}

#[tokio::test]
async fn responds_in_time_while_secrets_manager_hangs() {
    let milliseconds = [700, 1_500, 3_000, 4_500];
    join_all(milliseconds.into_iter().flat_map(|milliseconds| [(milliseconds, true), (milliseconds, false)]).map(
        async |(milliseconds, post)| {
            let deadline = Duration::from_millis(milliseconds);
            let webhook = Webhook::start();
            webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
            webhook.aws.secrets().inject_fault(Fault::hang(), Frequency::Always);
            let query = "hub.mode=subscribe&hub.challenge=1&hub.verify_token=wrong";
            let (event, status) =
                if post { (signed("forger", b"{}"), 401) } else { (event("GET", query, &[], b""), 403) };
            let response = webhook.send_within(event.clone(), deadline).await;
            assert_eq!(response.status, status);
            // The next request does not read the secret again. With the shortest timeout, the first read may not have been sent.
            assert_eq!(webhook.send_within(event, deadline).await.status, status);
            let secret_reads = webhook.secret_reads();
            let min = if deadline <= Duration::from_secs(1) { 1 } else { 2 };
            assert!((min..=2).contains(&secret_reads), "{secret_reads}");
            // Later requests do not wait for the secret.
            let sent = Notification::of(&["messages"]);
            let response = webhook.deliver(&sent.body).await;
            assert_eq!((response.status, webhook.copies(&sent)), (200, vec![vec![Own]]));
            assert_eq!(webhook.challenge(VERIFY_TOKEN).await.status, 200);
            assert!(webhook.secret_reads() <= secret_reads.max(2), "{}", webhook.secret_reads());
        },
    ))
    .await;
}

/// A thousand changes for nine queues that all hang.
#[tokio::test]
async fn all_route_queues_hanging_diverts_every_change() {
    let aws = FakeAws::start();
    let names: Vec<String> = (0..9).map(|index| format!("field_{index}")).collect();
    let queues = names.iter().map(String::as_str).chain(["unrouted"]).map(|name| (name.to_owned(), aws.queue(name)));
    let mut urls: Map<_, _> = names.iter().map(|name| (name.clone(), json!(name))).collect();
    urls.insert("*".to_owned(), json!(aws.queue("unrouted").url()));
    let webhook = Webhook::with_routes(aws.clone(), queues.collect(), &json!(urls), &[]);
    webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
    for name in &names {
        webhook.queue(name).inject_fault(Fault::hang(), Frequency::Always);
    }
    let sent = Notification::new((0..1_000).map(|index| (&names[index % 9], index.to_string())));
    let response = webhook.deliver(&sent.body).await;
    let diverted = webhook.copies(&sent).iter().filter(|copies| all_are(copies, Diverted)).count();
    assert_eq!((response.status, diverted), (200, 1_000));
}

/// The timeout of a call is long enough for a slow service, so the function stores no second copy.
#[tokio::test]
async fn slow_catch_all_stores_for_a_hanging_queue() {
    let webhook = Webhook::start();
    webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
    webhook.queue("messages").inject_fault(Fault::hang(), Frequency::Always);
    webhook.queue("unrouted").inject_fault(Fault::delay_response(Duration::from_millis(1_100)), Frequency::Always);
    let sent = Notification::of(&["messages"]);
    let response = webhook.deliver_within(&sent.body, Duration::from_secs(10)).await;
    assert_eq!((response.status, webhook.copies(&sent)), (200, vec![vec![Diverted]]));
}

/// The worst case for an available queue: the others hang and occupy connections.
#[tokio::test]
async fn hanging_queues_leave_connections_to_the_others() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "messages.statuses", "security", "account_update", "calls"].repeat(100));
    for name in ["messages", "statuses", "security"] {
        webhook.queue(name).inject_fault(Fault::hang(), Frequency::Always);
    }
    let response = webhook.deliver(&sent.body).await;
    let expected = [Diverted, Diverted, Diverted, Own, Unrouted];
    for (index, copies) in webhook.copies(&sent).iter().enumerate() {
        assert!(all_are(copies, expected[index % 5]), "{index} is at {copies:?}, {response:?}");
    }
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn available_queue_does_not_wait_for_hanging_ones() {
    let webhook = Webhook::start();
    webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
    webhook.aws.sqs().set_latency(Duration::from_millis(10));
    for name in ["messages", "statuses"] {
        webhook.queue(name).inject_fault(Fault::hang(), Frequency::Always);
    }
    let sent = Notification::of(&["messages", "messages.statuses", "security"].repeat(330));
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let [own, diverted] = ["security", "unrouted"].map(|name| webhook.queue(name).messages());
    let last = own.iter().map(|message| message.stored_at).max().unwrap();
    let first_diverted = diverted.iter().map(|message| message.stored_at).min().unwrap();
    assert!(last < first_diverted, "the queue waited until the function gave up on the others");
    assert_eq!(own.len(), 330);
}

/// Returns whether a change is stored, and only as expected. On a busy machine a slow call can cause another copy.
fn all_are(copies: &[Placement], expected: Placement) -> bool {
    !copies.is_empty() && copies.iter().all(|copy| *copy == expected)
}
