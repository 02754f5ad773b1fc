//! Routes with several queues: each gets every change and fails alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fake_aws::{FakeAws, Fault, Frequency};
use futures_util::future::join_all;
use serde_json::json;

use crate::{
    PROCESSOR,
    notification::{Notification, message},
    signals::{counts, expected},
    stored::Placement::{Base64, Diverted, Own},
    webhook::Webhook,
};

const LIST: [&str; 3] = ["messages", "archive.fifo", "crm"];

/// Leaves three seconds to store in.
const SHORT_DEADLINE: Duration = Duration::from_secs(4);

fn start() -> Webhook {
    let aws = FakeAws::start();
    let names = LIST.into_iter().chain(["security", "unrouted"]);
    let queues: BTreeMap<_, _> = names.map(|name| (name.to_owned(), aws.queue(name))).collect();
    let urls = json!({"*": queues["unrouted"].url(), "messages": LIST, "security": "security"});
    Webhook::with_routes(aws, queues, &urls, &[])
}

/// Messages of several people.
fn messages(count: usize) -> Notification {
    Notification::new((0..count).map(|at| {
        let value = message(at, "hello").replace("12025550134", &format!("120255501{:02}", at % 7));
        ("messages", value)
    }))
}

/// How many messages each queue has, and how many were diverted from each.
fn places(webhook: &Webhook) -> BTreeMap<String, usize> {
    webhook.stored_messages().into_iter().fold(BTreeMap::new(), |mut places, (queue, message)| {
        let place = message.attribute("diverted_from").map_or(queue, |from| format!("diverted from {from}"));
        *places.entry(place).or_default() += 1;
        places
    })
}

fn places_of<const COUNT: usize>(places: [(&str, usize); COUNT]) -> BTreeMap<String, usize> {
    places.map(|(place, count)| (place.to_owned(), count)).into()
}

#[tokio::test]
async fn every_queue_of_a_list_gets_every_message() {
    let (webhook, sent) = (start(), messages(25));
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), vec![[Own; 3]; 25]);
    assert_eq!(places(&webhook), places_of([("archive.fifo", 25), ("crm", 25), ("messages", 25)]));
    let stored = [("Stored", 75), ("Changes", 25), ("Changes.messages", 25), ("Notifications", 1)];
    assert_eq!(counts(&webhook, 1).await, expected(&stored));
}

#[tokio::test]
async fn only_the_failed_queue_of_a_list_is_diverted() {
    let _turn = PROCESSOR.lock().await;
    let faults = [
        Fault::resource_does_not_exist(),
        Fault::access_denied(),
        Fault::internal_error(),
        Fault::throttled(),
        Fault::hang(),
        Fault::drop_connection(),
        Fault::reject_all_entries().code("InvalidMessageContents").sender_fault(),
    ];
    let cases = faults.iter().flat_map(|fault| LIST.map(|failed| (fault.clone(), failed)));
    join_all(cases.map(async |(fault, failed)| {
        let (webhook, sent) = (start(), messages(12));
        webhook.queue(failed).inject_fault(fault.clone(), Frequency::Always);
        let case = format!("{} on {failed}", fault.name());
        assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 200, "{case}");
        assert_eq!(webhook.copies(&sent), vec![[Own, Own, Diverted]; 12], "{case}");
        let mut expected_places = places_of(LIST.map(|queue| (queue, 12)));
        expected_places.remove(failed);
        expected_places.insert(format!("diverted from {failed}"), 12);
        assert_eq!(places(&webhook), expected_places, "{case}");
        let mut counts = counts(&webhook, 1).await;
        counts.remove("QueueRetries");
        let expected = expected(&[
            ("Notifications", 1),
            ("Changes", 12),
            ("Changes.messages", 12),
            ("Stored", 36),
            ("Diverted", 12),
            ("Diverted.messages", 12),
        ]);
        assert_eq!(counts, expected, "{case}");
    }))
    .await;
}

#[tokio::test]
async fn two_failed_queues_have_a_diverted_copy_each() {
    let (webhook, sent) = (start(), messages(3));
    webhook.queue("messages").inject_fault(Fault::access_denied(), Frequency::Always);
    webhook.queue("archive.fifo").inject_fault(Fault::hang(), Frequency::Always);
    assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 200);
    assert_eq!(webhook.copies(&sent), vec![[Own, Diverted, Diverted]; 3]);
    let expected = places_of([("crm", 3), ("diverted from archive.fifo", 3), ("diverted from messages", 3)]);
    assert_eq!(places(&webhook), expected);
}

#[tokio::test]
async fn raw_copies_are_one_for_each_queue() {
    let (webhook, sent) = (start(), messages(1));
    webhook.aws.sqs().inject_fault(
        Fault::reject_entries(|entry| entry.attribute("request_id").is_some())
            .code("InvalidMessageContents")
            .sender_fault(),
        Frequency::Always,
    );
    assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 200);
    assert_eq!(webhook.copies(&sent), [[Base64; 3]]);
    assert_eq!(
        places(&webhook),
        places_of(LIST.map(|queue| (queue, 1)))
            .into_iter()
            .map(|(queue, count)| (format!("diverted from {queue}"), count))
            .collect()
    );
}

#[tokio::test]
async fn message_that_one_queue_lacks_makes_503() {
    let (webhook, sent) = (start(), messages(2));
    for queue in ["crm", "unrouted"] {
        webhook.queue(queue).inject_fault(Fault::access_denied(), Frequency::Always);
    }
    assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 503);
    assert_eq!(places(&webhook), places_of([("archive.fifo", 2), ("messages", 2)]));
    let mut counts = counts(&webhook, 1).await;
    counts.remove("QueueRetries");
    let expected =
        expected(&[("Notifications", 1), ("Changes", 2), ("Changes.messages", 2), ("Stored", 4), ("NotStored", 2)]);
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn slow_queue_of_a_list_is_awaited() {
    for slow in ["crm", "archive.fifo"] {
        let (webhook, sent) = (start(), messages(5));
        webhook.queue(slow).inject_fault(Fault::delay_response(Duration::from_millis(900)), Frequency::Always);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200);
        assert_eq!(webhook.copies(&sent), vec![[Own; 3]; 5], "{slow}");
    }
}

/// The slow queue has its messages in the end, and so has the catch-all queue, for this queue alone.
#[tokio::test]
async fn too_slow_queue_of_a_list_is_diverted_alone() {
    let (webhook, sent) = (start(), messages(5));
    webhook.queue("crm").inject_fault(Fault::hang(), Frequency::Always);
    assert_eq!(webhook.deliver_within(&sent.body, SHORT_DEADLINE).await.status, 200);
    assert_eq!(places(&webhook), places_of([("archive.fifo", 5), ("diverted from crm", 5), ("messages", 5)]));
    let calls = |queue: &str| webhook.send_calls().iter().filter(|call| call.queue.as_deref() == Some(queue)).count();
    assert_eq!((calls("messages"), calls("unrouted")), (1, 1));
}

#[tokio::test]
async fn order_is_kept_on_the_fifo_queue_of_a_list() {
    let faults = [Fault::reject_all_entries(), Fault::internal_error(), Fault::commit_then_drop()];
    join_all(faults.map(async |fault| {
        let (webhook, sent) = (start(), messages(150));
        webhook.aws.sqs().inject_fault(fault.clone(), Frequency::when(|call| call.nth % 3 == 1));
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        let stored = webhook.queue("archive.fifo").messages();
        let mut groups = BTreeMap::<_, Vec<_>>::new();
        for message in &stored {
            let at = sent.changes.iter().position(|change| change.text == message.body).unwrap();
            groups.entry(message.group_id.clone().unwrap()).or_default().push(at);
            assert_eq!(message.deduplication_id.as_deref(), message.attribute("event_id"));
        }
        assert_eq!((stored.len(), groups.len()), (150, 7), "{}", fault.name());
        assert!(groups.values().all(|group| group.is_sorted()), "{}: {groups:?}", fault.name());
        for queue in ["messages", "crm"] {
            let bodies: BTreeSet<_> = webhook.queue(queue).messages().into_iter().map(|one| one.entry.body).collect();
            assert_eq!(bodies.len(), 150, "{queue}");
        }
    }))
    .await;
}

#[tokio::test]
async fn large_body_has_an_object_for_each_queue() {
    let _turn = PROCESSOR.lock().await;
    let webhook = start();
    let sent = Notification::new([("messages", message(1, &"x".repeat(1_100_000)))]);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), [[Own; 3]]);
    assert_eq!(webhook.bucket.objects().len(), 3);
}

/// The largest notification has 100 batches for each queue.
#[tokio::test]
async fn queues_of_a_list_share_the_concurrent_calls() {
    let (webhook, sent) = (start(), messages(1000));
    webhook.function.wait_for_init(Duration::from_secs(10)).await.unwrap();
    webhook.aws.sqs().set_latency(Duration::from_millis(50));
    webhook.aws.reset_peaks();
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.stored_messages().len(), 3000);
    assert!((20..=32).contains(&webhook.aws.peak_calls()), "{}", webhook.aws.peak_calls());
}
