//! Bodies over SQS's limit: to S3 first, then the pointer to the queue.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use fake_aws::{FakeAws, Fault, Incoming, Service, Times};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    notification::{Notification, message},
    stored::Copy::{Bare, Diverted, Own, Unrouted},
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, Webhook, signed},
};

const MEBIBYTE: usize = 1_048_576;

/// A change over the limit between two that are not.
fn large(field: &str) -> Notification {
    Notification::new([
        (field, message(0, "before")),
        (field, message(1, &"x".repeat(MEBIBYTE))),
        (field, message(2, "after")),
    ])
}

#[tokio::test]
async fn a_body_over_the_limit_is_in_the_bucket_before_its_pointer_is_on_the_queue() {
    let webhook = Webhook::start();
    let sent = large("messages");
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), vec![[Own]; 3]);
    let objects = webhook.bucket.objects();
    let [(key, object)] = &objects.iter().collect::<Vec<_>>()[..] else { panic!("{:?}", objects.keys()) };
    check_key(key, "messages", &sent.changes[1].event_id);
    let pointer = webhook.queue("messages").messages().into_iter().find(|message| message.body.contains(*key));
    assert!(object.call < pointer.unwrap().call);
}

#[tokio::test]
async fn bucket_of_another_account_gets_no_body() {
    let aws = FakeAws::start();
    let queue = aws.queue("unrouted");
    let url = queue.url().replace(fake_aws::ACCOUNT, "999999999999");
    let webhook = Webhook::routed(aws, [("unrouted".to_owned(), queue)].into(), &json!({ "*": url }), &[]);
    assert_eq!(webhook.deliver(large("calls").body).await.status, 503);
    assert_eq!((webhook.stored().len(), webhook.bucket.objects().len()), (2, 0));
    assert!(webhook.function.log_line("S3: AccessDenied (403)", LAMBDA_TIMEOUT).await.is_some());
}

/// `<route>/<date>/<event_id>-<random>`
fn check_key(key: &str, route: &str, event_id: &str) {
    let [of, date, name] = key.split('/').collect::<Vec<_>>()[..] else { panic!("{key}") };
    let shape: String = date.chars().map(|of| if of.is_ascii_digit() { '9' } else { of }).collect();
    assert_eq!((of, shape.as_str()), (route, "9999-99-99"));
    let random = name.strip_prefix(event_id).and_then(|rest| rest.strip_prefix('-')).unwrap();
    assert!(random.len() >= 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
}

#[tokio::test]
async fn the_last_byte_decides_and_the_attributes_count() {
    let webhook = Webhook::start();
    let of = |filler: usize| Notification::new([("messages", format!(r#""{}""#, "x".repeat(filler)))]);
    assert_eq!(webhook.deliver(of(0).body).await.status, 200);
    let small = webhook.queue("messages").take_messages().remove(0);
    let attributes = small
        .attributes
        .iter()
        .map(|(name, value)| name.len() + value.data_type.len() + value.text.as_deref().unwrap_or_default().len());
    // Room for the reason is kept, so that a message also fits when it is diverted.
    let reason = "unrouted_reason".len() + "String".len() + "queue-unavailable".len();
    let room = MEBIBYTE - small.body.len() - attributes.sum::<usize>() - reason;
    for (filler, objects) in [(room, 0), (room + 1, 1)] {
        webhook.reset();
        assert_eq!(webhook.deliver(of(filler).body).await.status, 200);
        assert_eq!((webhook.copies(&of(filler)), webhook.bucket.objects().len()), (vec![vec![Own]], objects));
    }
    // Diverted, the one just under the limit is exactly at it.
    webhook.reset();
    webhook.queue("messages").delete();
    assert_eq!(webhook.deliver(of(room).body).await.status, 200);
    assert_eq!((webhook.copies(&of(room)), webhook.bucket.objects().len()), (vec![vec![Diverted]], 1));
}

/// As queues have that were made when SQS took no more.
#[tokio::test]
async fn a_body_that_neither_queue_is_large_enough_for_is_in_the_bucket() {
    for (limit, text, copy) in [(262_144, 300_000, Bare), (262_144, 200_000, Own), (2_048, 2_000, Bare)] {
        let webhook = Webhook::start();
        for name in ["messages", "unrouted"] {
            webhook.queue(name).set_maximum_message_size(limit);
        }
        let sent = Notification::new([("messages", message(0, &"x".repeat(text))), ("messages", message(1, "small"))]);
        let answer = webhook.deliver(&sent.body).await;
        assert_eq!((answer.status, webhook.copies(&sent)), (200, vec![vec![copy], vec![Own]]), "{limit} {text}");
        let keys: Vec<String> = webhook.bucket.objects().into_keys().collect();
        assert_eq!(keys.len(), usize::from(copy == Bare));
        for key in keys {
            check_key(&key, "unrouted", &sent.changes[0].event_id);
        }
    }
}

#[tokio::test]
async fn without_a_bucket_a_body_that_neither_queue_is_large_enough_for_is_a_loud_failure() {
    let webhook = Webhook::with(&[("PAYLOAD_BUCKET", "")]);
    for name in ["messages", "unrouted"] {
        webhook.queue(name).set_maximum_message_size(262_144);
    }
    let sent = Notification::new([("messages", message(0, &"x".repeat(300_000))), ("messages", message(1, "small"))]);
    assert_eq!((webhook.deliver(&sent.body).await.status, webhook.copies(&sent)), (503, vec![vec![], vec![Own]]));
    let line = webhook.function.log_line("messages stored nowhere", LAMBDA_TIMEOUT).await.unwrap();
    assert!(line.contains("InvalidParameterValue") && line.contains("ERROR"), "{line}");
}

#[tokio::test]
async fn every_copy_of_a_message_has_an_object_of_its_own() {
    let webhook = Webhook::start();
    let sent = large("messages");
    let pointers = AtomicUsize::new(0);
    let first_two = move |call: &Incoming<'_>| {
        let is_pointer = call.entries.iter().any(|entry| entry.attribute("ExtendedPayloadSize").is_some());
        is_pointer && pointers.fetch_add(1, Ordering::Relaxed) < 2
    };
    webhook.queue("messages").fault(Fault::store_and_drop(), Times::when(first_two));
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let copies = webhook.copies(&sent)[1].len();
    let pointers = webhook.stored().into_iter().filter(|(_, message)| message.body.starts_with("[\"software"));
    let keys: BTreeSet<String> = pointers.map(|(_, message)| s3_key(&message.body)).collect();
    assert_eq!((copies, keys.len()), (4, 4), "{keys:?}");
    for key in keys {
        check_key(&key, "messages", &sent.changes[1].event_id);
        assert_eq!(webhook.bucket.object(&key).unwrap().body, sent.changes[1].text.as_bytes());
    }
}

fn s3_key(pointer: &str) -> String {
    let pointer: Value = serde_json::from_str(pointer).unwrap();
    pointer[1]["s3Key"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_has_no_route_and_what_is_diverted_is_under_a_prefix_of_its_own() {
    let webhook = Webhook::start();
    let unrouted = large("calls");
    assert_eq!(webhook.deliver(&unrouted.body).await.status, 200);
    assert_eq!(webhook.copies(&unrouted), vec![[Unrouted]; 3]);
    webhook.reset();
    let diverted = large("security");
    webhook.queue("security").fault(Fault::access_denied(), Times::Always);
    assert_eq!(webhook.deliver(&diverted.body).await.status, 200);
    assert_eq!(webhook.copies(&diverted), vec![[Diverted]; 3]);
    let keys: Vec<String> = webhook.bucket.objects().into_keys().collect();
    let under = |prefix: &str| keys.iter().filter(|key| key.starts_with(prefix)).count();
    assert_eq!((under("unrouted/"), under("security/")), (2, 1), "{keys:?}");
}

#[tokio::test]
async fn bytes_that_are_no_text_are_in_the_bucket_as_base64() {
    let webhook = Webhook::start();
    let body = [b"\xff\xfe\x00".as_slice(), &vec![7; 900_000]].concat();
    assert_eq!(webhook.deliver(&body).await.status, 200);
    let [(queue, message)] = &webhook.stored()[..] else { panic!() };
    let object = webhook.bucket.object(&s3_key(&message.body)).unwrap();
    assert_eq!((queue.as_str(), BASE64.decode(&object.body).unwrap()), ("unrouted", body));
    assert_eq!(message.attribute("ExtendedPayloadSize").unwrap(), object.body.len().to_string());
    assert_eq!(
        (message.attribute("encoding"), message.attribute("unrouted_reason")),
        (Some("base64"), Some("not-json"))
    );
}

#[tokio::test]
async fn an_s3_that_fails_for_a_moment_is_tried_again() {
    let faults = [
        Fault::internal_error(),
        Fault::throttled(),
        // A slow upload, and another call on the same key.
        Fault::error(400, "RequestTimeout"),
        Fault::error(409, "OperationAborted"),
        Fault::error(307, "TemporaryRedirect"),
        Fault::drop_connection(),
        Fault::drop_unread(),
        Fault::hang(),
        Fault::store_and_drop(),
        Fault::store_and_hang(),
        Fault::store_and_truncate(),
    ];
    join_all(faults.map(async |fault| {
        let webhook = Webhook::start();
        let sent = large("messages");
        let injected = webhook.aws.s3().fault(fault.clone(), Times::Once);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        assert_eq!((webhook.copies(&sent), injected.fired()), (vec![vec![Own]; 3], 1), "{}", fault.name());
    }))
    .await;
}

#[tokio::test]
async fn without_an_s3_that_works_only_the_large_body_is_lost_and_meta_is_told() {
    let cases = [
        (Fault::internal_error(), "messages", Own),
        (Fault::access_denied(), "messages", Own),
        (Fault::kms_disabled(), "calls", Unrouted),
        (Fault::hang(), "messages", Own),
        (Fault::drop_connection(), "calls", Unrouted),
        (Fault::drop_unread(), "messages", Own),
    ];
    join_all(cases.map(async |(fault, field, home)| {
        let webhook = Webhook::start();
        webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
        webhook.aws.s3().fault(fault.clone(), Times::Always);
        let sent = large(field);
        let answer = webhook.deliver_within(&sent.body, Duration::from_secs(5)).await;
        assert_eq!(answer.status, 503, "{}", fault.name());
        assert_eq!(webhook.copies(&sent), [vec![home], vec![], vec![home]], "{}", fault.name());
        assert_eq!(webhook.bucket.objects().len(), 0);
    }))
    .await;
}

#[tokio::test]
async fn without_a_bucket_the_large_body_is_a_loud_failure_and_its_neighbours_are_stored() {
    let webhook = Webhook::with(&[("PAYLOAD_BUCKET", "")]);
    let sent = large("messages");
    let answer = webhook.deliver(&sent.body).await;
    assert_eq!((answer.status, webhook.copies(&sent)), (503, vec![vec![Own], vec![], vec![Own]]));
    assert!(webhook.aws.calls().iter().all(|call| call.service != Service::S3));
    let loud = webhook.function.log_line("PAYLOAD_BUCKET is not set", LAMBDA_TIMEOUT).await;
    assert!(loud.is_some_and(|line| line.contains("ERROR")));
}

#[tokio::test]
async fn a_bucket_of_another_region_is_a_loud_failure_at_once() {
    let webhook = Webhook::start();
    let moved = webhook.aws.s3().fault(Fault::error(301, "PermanentRedirect"), Times::Always);
    let sent = large("messages");
    let answer = webhook.deliver(&sent.body).await;
    assert_eq!((answer.status, webhook.copies(&sent)), (503, vec![vec![Own], vec![], vec![Own]]));
    assert_eq!(moved.fired(), 1);
    let loud = webhook.function.log_line("PermanentRedirect", LAMBDA_TIMEOUT).await;
    assert!(loud.is_some_and(|line| line.contains("ERROR")));
}

#[tokio::test]
async fn a_bucket_that_is_gone_costs_the_large_body_only() {
    let webhook = Webhook::start();
    webhook.bucket.delete();
    let sent = large("messages");
    let event = signed(APP_SECRET, sent.body.as_bytes());
    assert_eq!(webhook.send_within(event, Duration::from_secs(4)).await.status, 503);
    assert_eq!(webhook.copies(&sent), [vec![Own], vec![], vec![Own]]);
    let tried = webhook.aws.calls().iter().filter(|call| call.service == Service::S3).count();
    assert_eq!(tried, 1, "the bucket is not there for the catch-all either");
}

#[tokio::test]
async fn invalid_s3_endpoint_is_a_loud_failure() {
    let webhook = Webhook::with(&[("AWS_ENDPOINT_URL_S3", "s3.example.com")]);
    let sent = large("messages");
    let answer = webhook.deliver(&sent.body).await;
    assert_eq!((answer.status, webhook.copies(&sent)), (503, vec![vec![Own], vec![], vec![Own]]));
    assert!(webhook.function.log_line("invalid endpoint URL", LAMBDA_TIMEOUT).await.is_some());
}

#[tokio::test]
async fn empty_s3_endpoint_counts_as_unset() {
    let webhook = Webhook::with(&[("AWS_ENDPOINT_URL_S3", "")]);
    let sent = large("messages");
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.bucket.objects().len(), 1);
}
