//! FIFO queues: order within a conversation, and one copy, whatever fails.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use fake_aws::{FakeAws, Fault, Times};
use futures_util::future::join_all;
use serde_json::json;

use crate::{notification::Notification, stored::Copy::Diverted, webhook::Webhook};

fn start() -> Webhook {
    let aws = FakeAws::start();
    let queues = ["messages.fifo", "unrouted"].map(|name| (name.to_owned(), aws.queue(name)));
    let urls = json!({"*": aws.queue("unrouted").url(), "messages": "messages.fifo"});
    Webhook::routed(aws, queues.into(), &urls, &[])
}

/// Messages of seven people, numbered.
fn conversations(count: usize) -> Notification {
    Notification::new((0..count).map(|at| {
        let value = format!(
            r#"{{"metadata":{{"phone_number_id":"106540352242922"}},"messages":[{{"from":"1650555{}","id":"{at}"}}]}}"#,
            at % 7
        );
        ("messages", value)
    }))
}

#[tokio::test]
async fn order_is_kept_within_a_conversation_and_each_message_is_there_once() {
    let faults = [
        Fault::refuse_entry(5),
        Fault::refuse_all_entries(),
        Fault::internal_error(),
        Fault::drop_connection(),
        Fault::store_and_drop(),
        Fault::store_and_truncate(),
        Fault::store_and_garble(),
        Fault::store_and_answer(200, "{}"),
    ];
    join_all(faults.map(async |fault| {
        let webhook = start();
        webhook.queue("messages.fifo").fault(fault.clone(), Times::when(|call| call.nth % 3 == 1));
        let sent = conversations(150);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        let messages = webhook.queue("messages.fifo").messages();
        let bodies: HashSet<_> = messages.iter().map(|message| message.body.as_str()).collect();
        assert_eq!(bodies, sent.changes.iter().map(|change| change.text.as_str()).collect());
        assert_eq!((messages.len(), webhook.queue("unrouted").messages().len()), (150, 0), "{}", fault.name());
        let mut groups = BTreeMap::<_, Vec<_>>::new();
        for message in &messages {
            let at = sent.changes.iter().position(|change| change.text == message.body).unwrap();
            groups.entry(message.group_id.clone().unwrap()).or_default().push(at);
            assert_eq!(message.deduplication_id.as_deref(), message.attribute("event_id"));
        }
        assert_eq!(groups.len(), 7);
        // Entries of one call that is answered are not undone by an earlier one that is refused: SQS says so.
        if fault.name() != "entries refused" {
            assert!(groups.values().all(|group| group.is_sorted()), "{}: {groups:?}", fault.name());
        }
    }))
    .await;
}

#[tokio::test]
async fn a_redelivered_notification_leaves_no_second_copy() {
    let webhook = start();
    let sent = conversations(30);
    for _ in 0..2 {
        assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    }
    assert_eq!(webhook.queue("messages.fifo").messages().len(), 30);
}

#[tokio::test]
async fn a_fifo_queue_that_fails_is_diverted_to_a_standard_catch_all() {
    let webhook = start();
    let sent = conversations(30);
    for fault in [Fault::queue_does_not_exist(), Fault::hang()] {
        webhook.reset();
        webhook.queue("messages.fifo").fault(fault, Times::Always);
        assert_eq!(webhook.deliver_within(&sent.body, Duration::from_secs(4)).await.status, 200);
        assert_eq!(webhook.copies(&sent), vec![[Diverted]; 30]);
    }
}
