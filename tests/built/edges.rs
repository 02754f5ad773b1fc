//! Slow and silent calls beside calls that SQS answers: time, order, copies and objects.

use std::{collections::BTreeMap, time::Duration};

use fake_aws::{FakeAws, Fault, Times};
use serde_json::json;

use crate::{
    notification::Notification,
    webhook::{LAMBDA_TIMEOUT, SECRET_ID, Webhook, secret, signed},
};

const MS: fn(u64) -> Duration = Duration::from_millis;

async fn started() -> Webhook {
    let webhook = Webhook::start();
    webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
    webhook
}

async fn fifo() -> Webhook {
    let aws = FakeAws::start();
    let queues = ["messages.fifo", "unrouted"].map(|name| (name.to_owned(), aws.queue(name)));
    let urls = json!({"*": aws.queue("unrouted").url(), "messages": "messages.fifo"});
    let webhook = Webhook::routed(aws, queues.into(), &urls, &[]);
    webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
    webhook
}

/// Messages of so many people in turn, numbered.
fn people(count: usize, people: usize) -> Notification {
    Notification::new((0..count).map(|at| {
        let value = format!(
            r#"{{"metadata":{{"phone_number_id":"106540352242922"}},"messages":[{{"from":"1650555{}","id":"{at}"}}]}}"#,
            at % people
        );
        ("messages", value)
    }))
}

/// Copies of each change on all queues.
fn counts(webhook: &Webhook, sent: &Notification) -> Vec<usize> {
    let mut counts = BTreeMap::<_, usize>::new();
    for (_, message) in webhook.stored() {
        *counts.entry(message.attribute("event_id").unwrap().to_owned()).or_default() += 1;
    }
    sent.changes.iter().map(|change| counts.get(&change.event_id).copied().unwrap_or_default()).collect()
}

#[tokio::test]
async fn slow_fifo_queue_stores_a_large_notification() {
    for (count, groups) in [(60, 1), (1000, 1000)] {
        let (webhook, sent) = (fifo().await, people(count, groups));
        webhook.aws.sqs().fault(Fault::slow(MS(2_100)), Times::Always);
        let status = webhook.deliver(&sent.body).await.status;
        assert_eq!(status, 200, "{count} changes of {groups} people");
    }
}

/// The first batch of a conversation is stored late. What follows in the conversation must not overtake it.
#[tokio::test]
async fn late_fifo_batch_is_not_overtaken() {
    let (webhook, sent) = (fifo().await, people(80, 2));
    let late = sent.changes[0].event_id.clone();
    let is_late = move |call: &fake_aws::Incoming<'_>| {
        call.entries.iter().any(|entry| entry.attribute("event_id") == Some(&late))
    };
    webhook.queue("messages.fifo").fault(Fault::store_late(MS(6_500)), Times::when(is_late));
    webhook.queue("messages.fifo").fault(Fault::slow(MS(1_250)), Times::when(|call| !call.entries.is_empty()));
    let status = webhook.deliver(&sent.body).await.status;
    webhook.aws.late_effects().await;
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for message in webhook.queue("messages.fifo").messages() {
        let at = sent.changes.iter().position(|change| change.text == message.body).unwrap();
        groups.entry(message.group_id.clone().unwrap()).or_default().push(at);
    }
    assert_eq!(status, 200);
    assert!(groups.values().all(|group| group.is_sorted()), "{groups:?}");
}

/// One conversation hangs; the other, which goes to the same queue, is slow and has many batches.
#[tokio::test]
async fn silent_batch_is_diverted_while_its_queue_works() {
    let (webhook, sent) = (fifo().await, people(120, 2));
    webhook.queue("unrouted").fault(Fault::slow(MS(1_800)), Times::Always);
    let hanging = sent.changes[0].event_id.clone();
    let hangs = move |call: &fake_aws::Incoming<'_>| {
        call.entries.iter().any(|entry| entry.attribute("event_id") == Some(&hanging))
    };
    webhook.queue("messages.fifo").fault(Fault::hang(), Times::when(hangs));
    webhook.queue("messages.fifo").fault(Fault::slow(MS(1_250)), Times::when(|call| !call.entries.is_empty()));
    let status = webhook.deliver(&sent.body).await.status;
    let missing = counts(&webhook, &sent).iter().filter(|copies| **copies == 0).count();
    assert_eq!((status, missing), (200, 0));
}

#[tokio::test]
async fn probe_that_answers_late_causes_no_third_copy() {
    let (webhook, sent) = (started().await, Notification::of(&["messages"; 3]));
    webhook.queue("messages").fault(Fault::slow(MS(8_500)), Times::when(|call| !call.entries.is_empty()));
    webhook
        .queue("messages")
        .fault(Fault::slow(MS(3_800)), Times::when(|call| call.entries.is_empty() && call.nth > 0));
    webhook.queue("unrouted").fault(Fault::slow(MS(2_500)), Times::Always);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    webhook.aws.late_effects().await;
    let sends: Vec<_> = webhook.sends().into_iter().map(|call| (call.queue.unwrap(), call.entries)).collect();
    assert_eq!(counts(&webhook, &sent), [2, 2, 2], "{sends:?}");
}

/// A new app secret and credentials that no longer allow to read it.
#[tokio::test]
async fn expired_credentials_at_secrets_manager_end_it() {
    let (webhook, sent) = (started().await, Notification::of(&["messages"]));
    webhook.aws.set_secret(SECRET_ID, secret(&json!("fedcba9876543210fedcba9876543210")));
    webhook.aws.secrets().fault(Fault::error(400, "ExpiredTokenException"), Times::Always);
    let event = signed("fedcba9876543210fedcba9876543210", sent.body.as_bytes());
    let first = webhook.send(event).await.status;
    tokio::time::sleep(MS(500)).await;
    assert!(webhook.function.has_exited(), "lives on after {first}");
}

/// The log must not report a message as lost that its own queue stored.
#[tokio::test]
async fn stored_message_is_not_logged_as_lost() {
    let (webhook, sent) = (started().await, Notification::of(&["messages"; 2]));
    webhook.queue("messages").fault(Fault::slow(MS(6_000)), Times::when(|call| !call.entries.is_empty()));
    webhook.queue("messages").fault(Fault::hang(), Times::when(|call| call.entries.is_empty()));
    webhook.queue("unrouted").fault(Fault::access_denied(), Times::Always);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let logs = webhook.function.logs().join("\n");
    assert!(!logs.contains("stored nowhere"), "{logs}");
}
