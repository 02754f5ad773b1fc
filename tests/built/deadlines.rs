//! Little time: short Lambda timeouts, deadlines that have nearly passed, and everything hanging at once.

use std::time::Duration;

use fake_aws::{FakeAws, Fault, Times};
use futures_util::future::join_all;
use serde_json::{Map, json};

use crate::{
    notification::{Notification, message},
    stored::Copy::{self, Diverted, Own, Unrouted},
    webhook::{LAMBDA_TIMEOUT, VERIFY_TOKEN, Webhook, event, signed},
};

const ALL: [&str; 5] = ["messages", "messages.statuses", "security", "account_update", "calls"];

#[tokio::test]
async fn an_answer_comes_before_any_deadline_whatever_hangs() {
    let milliseconds = [500, 1_050, 1_500, 2_000, 4_000];
    join_all(milliseconds.map(async |milliseconds| {
        let deadline = Duration::from_millis(milliseconds);
        let webhook = Webhook::start();
        webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
        let sent = Notification::of(&ALL);
        let large = Notification::new([("messages", message(0, &"x".repeat(1_100_000)))]);
        webhook.aws.sqs().fault(Fault::hang(), Times::Always);
        webhook.aws.s3().fault(Fault::hang(), Times::Always);
        // Unoptimised, it takes long only to read a large body.
        let large = (deadline >= Duration::from_secs(4)).then_some(&large);
        for sent in [&sent].into_iter().chain(large) {
            assert_eq!(webhook.deliver_within(&sent.body, deadline).await.status, 503);
            assert_eq!(webhook.stored().len(), 0);
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
async fn an_answer_comes_before_any_deadline_while_the_secret_hangs() {
    let milliseconds = [700, 1_500, 3_000, 4_500];
    join_all(milliseconds.into_iter().flat_map(|milliseconds| [(milliseconds, true), (milliseconds, false)]).map(
        async |(milliseconds, post)| {
            let deadline = Duration::from_millis(milliseconds);
            let webhook = Webhook::start();
            webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
            webhook.aws.secrets().fault(Fault::hang(), Times::Always);
            let query = "hub.mode=subscribe&hub.challenge=1&hub.verify_token=wrong";
            let (event, status) =
                if post { (signed("forger", b"{}"), 401) } else { (event("GET", query, &[], b""), 403) };
            let answer = webhook.send_within(event.clone(), deadline).await;
            assert_eq!(answer.status, status);
            // Nobody reads it again for the next; where there is no time at all, the first may not have got out.
            assert_eq!(webhook.send_within(event, deadline).await.status, status);
            let readings = webhook.readings();
            let least = if deadline <= Duration::from_secs(1) { 1 } else { 2 };
            assert!((least..=2).contains(&readings), "{readings}");
            // And nobody after it has to wait.
            let sent = Notification::of(&["messages"]);
            let answer = webhook.deliver(&sent.body).await;
            assert_eq!((answer.status, webhook.copies(&sent)), (200, vec![vec![Own]]));
            assert_eq!(webhook.challenge(VERIFY_TOKEN).await.status, 200);
            assert!(webhook.readings() <= readings.max(2), "{}", webhook.readings());
        },
    ))
    .await;
}

/// Nine queues as in the template, a thousand changes for them, and none of the nine answers.
#[tokio::test]
async fn every_fields_queue_hanging_at_once_leaves_the_catch_all_its_time() {
    let aws = FakeAws::start();
    let names: Vec<String> = (0..9).map(|at| format!("field_{at}")).collect();
    let queues = names.iter().map(String::as_str).chain(["unrouted"]).map(|name| (name.to_owned(), aws.queue(name)));
    let mut urls: Map<_, _> = names.iter().map(|name| (name.clone(), json!(name))).collect();
    urls.insert("*".to_owned(), json!(aws.queue("unrouted").url()));
    let webhook = Webhook::routed(aws.clone(), queues.collect(), &json!(urls), &[]);
    webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
    for name in &names {
        webhook.queue(name).fault(Fault::hang(), Times::Always);
    }
    let sent = Notification::new((0..1_000).map(|at| (&names[at % 9], at.to_string())));
    let answer = webhook.deliver(&sent.body).await;
    let diverted = webhook.copies(&sent).iter().filter(|copies| all(copies, Diverted)).count();
    assert_eq!((answer.status, diverted), (200, 1_000));
}

/// A call has the time of a service that is merely slow, and no copy is made because of it.
#[tokio::test]
async fn a_catch_all_that_is_slow_still_takes_what_a_hanging_queue_does_not() {
    let webhook = Webhook::start();
    webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
    webhook.queue("messages").fault(Fault::hang(), Times::Always);
    webhook.queue("unrouted").fault(Fault::slow(Duration::from_millis(1_100)), Times::Always);
    let sent = Notification::of(&["messages"]);
    let answer = webhook.deliver_within(&sent.body, Duration::from_secs(10)).await;
    assert_eq!((answer.status, webhook.copies(&sent)), (200, vec![vec![Diverted]]));
}

/// The worst for a queue that works: all others hang, and it needs its share of the connections.
#[tokio::test]
async fn queues_that_hang_do_not_keep_one_that_works_from_its_messages() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "messages.statuses", "security", "account_update", "calls"].repeat(100));
    for name in ["messages", "statuses", "security"] {
        webhook.queue(name).fault(Fault::hang(), Times::Always);
    }
    let answer = webhook.deliver(&sent.body).await;
    let expected = [Diverted, Diverted, Diverted, Own, Unrouted];
    for (at, copies) in webhook.copies(&sent).iter().enumerate() {
        assert!(all(copies, expected[at % 5]), "{at} is at {copies:?}, {answer:?}");
    }
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_queue_that_works_does_not_wait_for_two_that_hang() {
    let webhook = Webhook::start();
    webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
    webhook.aws.sqs().set_latency(Duration::from_millis(10));
    for name in ["messages", "statuses"] {
        webhook.queue(name).fault(Fault::hang(), Times::Always);
    }
    let sent = Notification::of(&["messages", "messages.statuses", "security"].repeat(330));
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let [own, diverted] = ["security", "unrouted"].map(|name| webhook.queue(name).messages());
    let last = own.iter().map(|message| message.stored).max().unwrap();
    let first_diverted = diverted.iter().map(|message| message.stored).min().unwrap();
    assert!(last < first_diverted, "the queue waited until the others were given up");
    assert_eq!(own.len(), 330);
}

/// Whether a change is there and where it is to be; a copy more comes of a call that took too long on a busy machine.
fn all(copies: &[Copy], expected: Copy) -> bool {
    !copies.is_empty() && copies.iter().all(|copy| *copy == expected)
}
