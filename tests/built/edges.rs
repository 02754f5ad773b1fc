//! Slow calls, and calls without a response, while SQS responds to other calls: deadlines, order, copies and objects.

use std::{collections::BTreeMap, time::Duration};

use fake_aws::{FakeAws, Fault, Frequency};
use serde_json::json;

use crate::{
    log_line,
    notification::Notification,
    webhook::{LAMBDA_TIMEOUT, SECRET_ID, Webhook, secret, signed},
};

const MS: fn(u64) -> Duration = Duration::from_millis;

async fn start_initialized() -> Webhook {
    let webhook = Webhook::start();
    webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
    webhook
}

async fn start_with_fifo_queue() -> Webhook {
    let aws = FakeAws::start();
    let queues = ["messages.fifo", "unrouted"].map(|name| (name.to_owned(), aws.queue(name)));
    let urls = json!({"*": aws.queue("unrouted").url(), "messages": "messages.fifo"});
    let webhook = Webhook::with_routes(aws, queues.into(), &urls, &[]);
    webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
    webhook
}

/// Makes `count` numbered messages, alternating between this many conversations.
fn conversations(count: usize, conversations: usize) -> Notification {
    Notification::new((0..count).map(|index| {
        let value = format!(
            r#"{{"metadata":{{"phone_number_id":"106540352242922"}},"messages":[{{"from":"1650555{}","id":"{index}"}}]}}"#,
            index % conversations
        );
        ("messages", value)
    }))
}

/// Counts the copies of each change on all queues.
fn counts(webhook: &Webhook, sent: &Notification) -> Vec<usize> {
    let mut counts = BTreeMap::<_, usize>::new();
    for (_, message) in webhook.stored_messages() {
        *counts.entry(message.attribute("event_id").unwrap().to_owned()).or_default() += 1;
    }
    sent.changes.iter().map(|change| counts.get(&change.event_id).copied().unwrap_or_default()).collect()
}

#[tokio::test]
async fn slow_fifo_queue_stores_a_large_notification() {
    for (count, groups) in [(60, 1), (1000, 1000)] {
        let (webhook, sent) = (start_with_fifo_queue().await, conversations(count, groups));
        webhook.aws.sqs().inject_fault(Fault::delay_response(MS(1_800)), Frequency::Always);
        let status = webhook.deliver(&sent.body).await.status;
        assert_eq!(status, 200, "{count} changes of {groups} conversations");
    }
}

/// The first batch of a conversation is stored late. Later messages of the conversation must not overtake it.
#[tokio::test]
async fn delayed_fifo_batch_is_not_overtaken() {
    let (webhook, sent) = (start_with_fifo_queue().await, conversations(80, 2));
    let delayed = sent.changes[0].event_id.clone();
    let is_delayed = move |call: &fake_aws::IncomingCall<'_>| {
        call.entries.iter().any(|entry| entry.attribute("event_id") == Some(&delayed))
    };
    webhook.queue("messages.fifo").inject_fault(Fault::delay_commit(MS(6_500)), Frequency::when(is_delayed));
    webhook
        .queue("messages.fifo")
        .inject_fault(Fault::delay_response(MS(1_250)), Frequency::when(|call| !call.entries.is_empty()));
    let status = webhook.deliver(&sent.body).await.status;
    webhook.aws.wait_for_delayed_commits().await;
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for message in webhook.queue("messages.fifo").messages() {
        let index = sent.changes.iter().position(|change| change.text == message.body).unwrap();
        groups.entry(message.group_id.clone().unwrap()).or_default().push(index);
    }
    assert_eq!(status, 200);
    assert!(groups.values().all(|group| group.is_sorted()), "{groups:?}");
}

/// The batches of one conversation hang. The other conversation has many slow batches on the same queue.
#[tokio::test]
async fn hanging_batch_is_diverted_while_its_queue_works() {
    let (webhook, sent) = (start_with_fifo_queue().await, conversations(120, 2));
    webhook.queue("unrouted").inject_fault(Fault::delay_response(MS(1_800)), Frequency::Always);
    let hanging = sent.changes[0].event_id.clone();
    let hangs = move |call: &fake_aws::IncomingCall<'_>| {
        call.entries.iter().any(|entry| entry.attribute("event_id") == Some(&hanging))
    };
    webhook.queue("messages.fifo").inject_fault(Fault::hang(), Frequency::when(hangs));
    webhook
        .queue("messages.fifo")
        .inject_fault(Fault::delay_response(MS(1_250)), Frequency::when(|call| !call.entries.is_empty()));
    let status = webhook.deliver(&sent.body).await.status;
    let missing = counts(&webhook, &sent).iter().filter(|copies| **copies == 0).count();
    assert_eq!((status, missing), (200, 0));
}

#[tokio::test]
async fn late_probe_response_causes_no_third_copy() {
    let (webhook, sent) = (start_initialized().await, Notification::of(&["messages"; 3]));
    webhook
        .queue("messages")
        .inject_fault(Fault::delay_response(MS(8_500)), Frequency::when(|call| !call.entries.is_empty()));
    webhook.queue("messages").inject_fault(
        Fault::delay_response(MS(3_800)),
        Frequency::when(|call| call.entries.is_empty() && call.nth > 0),
    );
    webhook.queue("unrouted").inject_fault(Fault::delay_response(MS(2_500)), Frequency::Always);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    webhook.aws.wait_for_delayed_commits().await;
    let sends: Vec<_> = webhook.send_calls().into_iter().map(|call| (call.queue.unwrap(), call.entries)).collect();
    assert_eq!(counts(&webhook, &sent), [2, 2, 2], "{sends:?}");
}

/// The app secret was rotated, and the credentials of the function have expired.
#[tokio::test]
async fn expired_credentials_for_secrets_end_the_process() {
    let (webhook, sent) = (start_initialized().await, Notification::of(&["messages"]));
    webhook.aws.set_secret(SECRET_ID, secret(&json!("fedcba9876543210fedcba9876543210")));
    webhook.aws.secrets().inject_fault(Fault::error(400, "ExpiredTokenException"), Frequency::Always);
    let event = signed("fedcba9876543210fedcba9876543210", sent.body.as_bytes());
    let status = webhook.send(event).await.status;
    webhook.assert_exits(&format!("after status {status}")).await;
}

/// The log must not report a message as lost that its own queue stored.
#[tokio::test]
async fn stored_message_is_not_logged_as_not_stored() {
    let (webhook, sent) = (start_initialized().await, Notification::of(&["messages"; 2]));
    webhook
        .queue("messages")
        .inject_fault(Fault::delay_response(MS(6_000)), Frequency::when(|call| !call.entries.is_empty()));
    webhook.queue("messages").inject_fault(Fault::hang(), Frequency::when(|call| call.entries.is_empty()));
    webhook.queue("unrouted").inject_fault(Fault::access_denied(), Frequency::Always);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let losses = ["messages not stored", "not stored"].map(log_line::listed);
    let lines: Vec<_> = webhook.function.logs().iter().map(|line| log_line::parse(line)).collect();
    assert!(lines.iter().all(|line| !losses.iter().any(|loss| line["message"] == *loss)), "{lines:#?}");
}
