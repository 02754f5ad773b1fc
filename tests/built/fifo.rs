//! FIFO queues: with every fault, messages of a conversation keep their order and are stored once.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use fake_aws::{FakeAws, Fault, Frequency};
use futures_util::future::join_all;
use serde_json::json;

use crate::{
    notification::Notification,
    stored::Placement::Diverted,
    webhook::{APP_SECRET, SECRET_ID, Webhook},
};

fn start_with_fifo_queue() -> Webhook {
    let aws = FakeAws::start();
    let queues = ["messages.fifo", "unrouted"].map(|name| (name.to_owned(), aws.queue(name)));
    let urls = json!({"*": aws.queue("unrouted").url(), "messages": "messages.fifo"});
    Webhook::with_routes(aws, queues.into(), &urls, &[])
}

/// Makes `count` numbered messages, alternating between seven conversations.
fn conversations(count: usize) -> Notification {
    Notification::new((0..count).map(|index| {
        let value = format!(
            r#"{{"metadata":{{"phone_number_id":"106540352242922"}},"messages":[{{"from":"1650555{}","id":"{index}"}}]}}"#,
            index % 7
        );
        ("messages", value)
    }))
}

#[tokio::test]
async fn conversation_keeps_order_without_duplicates() {
    let faults = [
        Fault::reject_entry(5),
        Fault::reject_all_entries(),
        Fault::internal_error(),
        Fault::drop_connection(),
        Fault::commit_then_drop(),
        Fault::commit_then_truncate(),
        Fault::commit_then_garble(),
        Fault::commit_then_respond(200, "{}"),
    ];
    join_all(faults.map(async |fault| {
        let webhook = start_with_fifo_queue();
        webhook.queue("messages.fifo").inject_fault(fault.clone(), Frequency::when(|call| call.nth % 3 == 1));
        let sent = conversations(150);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        let messages = webhook.queue("messages.fifo").messages();
        let bodies: HashSet<_> = messages.iter().map(|message| message.body.as_str()).collect();
        assert_eq!(bodies, sent.changes.iter().map(|change| change.text.as_str()).collect());
        assert_eq!((messages.len(), webhook.queue("unrouted").messages().len()), (150, 0), "{}", fault.name());
        let mut groups = BTreeMap::<_, Vec<_>>::new();
        for message in &messages {
            let index = sent.changes.iter().position(|change| change.text == message.body).unwrap();
            groups.entry(message.group_id.clone().unwrap()).or_default().push(index);
            assert_eq!(message.deduplication_id.as_deref(), message.attribute("event_id"));
        }
        assert_eq!(groups.len(), 7);
        // If SQS rejects an entry, it still stores the later entries of the same call.
        if fault.name() != "entries rejected" {
            assert!(groups.values().all(|group| group.is_sorted()), "{}: {groups:?}", fault.name());
        }
    }))
    .await;
}

#[tokio::test]
async fn rotation_of_secrets_keeps_groups() {
    let webhook = start_with_fifo_queue();
    let [before, after] = ["first", "second"].map(|id| {
        let value = format!(r#"{{"messages":[{{"from":"15550100101","id":"{id}"}}]}}"#);
        Notification::new([("messages", value)])
    });
    assert_eq!(webhook.deliver(&before.body).await.status, 200);
    let rotated = json!({"verify_token": "the-new-token", "app_secret": ["the-new-one", APP_SECRET]}).to_string();
    webhook.aws.set_secret(SECRET_ID, rotated);
    assert_eq!(webhook.challenge("the-new-token").await.status, 200, "the new secret is in use");
    assert_eq!(webhook.deliver(&after.body).await.status, 200);
    let groups: Vec<_> = webhook.queue("messages.fifo").messages().iter().map(|one| one.group_id.clone()).collect();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0], groups[1]);
}

#[tokio::test]
async fn redelivery_leaves_no_second_copy() {
    let webhook = start_with_fifo_queue();
    let sent = conversations(30);
    for _ in 0..2 {
        assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    }
    assert_eq!(webhook.queue("messages.fifo").messages().len(), 30);
}

#[tokio::test]
async fn fifo_queue_is_diverted_to_a_standard_catch_all() {
    let webhook = start_with_fifo_queue();
    let sent = conversations(30);
    for fault in [Fault::resource_does_not_exist(), Fault::hang()] {
        webhook.reset();
        webhook.queue("messages.fifo").inject_fault(fault, Frequency::Always);
        assert_eq!(webhook.deliver_within(&sent.body, Duration::from_secs(4)).await.status, 200);
        assert_eq!(webhook.copies(&sent), vec![[Diverted]; 30]);
    }
}
