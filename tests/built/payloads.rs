//! Bodies over the limit of SQS: the function stores the body in S3, then the pointer on the queue.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use fake_aws::{FakeAws, Fault, Frequency, IncomingCall, Service};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    PROCESSOR,
    notification::{Notification, message},
    stored::Placement::{Base64, Diverted, Own, Unrouted},
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, Webhook, signed},
};

const MEBIBYTE: usize = 1_048_576;

/// Makes a change over the limit between two small ones.
fn large(field: &str) -> Notification {
    Notification::new([
        (field, message(0, "before")),
        (field, message(1, &"x".repeat(MEBIBYTE))),
        (field, message(2, "after")),
    ])
}

#[tokio::test]
async fn body_is_stored_in_s3_before_its_pointer() {
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
async fn bucket_of_another_account_gets_no_object() {
    let aws = FakeAws::start();
    let queue = aws.queue("unrouted");
    let url = queue.url().replace(fake_aws::ACCOUNT, "999999999999");
    let webhook = Webhook::with_routes(aws, [("unrouted".to_owned(), queue)].into(), &json!({ "*": url }), &[]);
    assert_eq!(webhook.deliver(large("calls").body).await.status, 503);
    assert_eq!((webhook.stored_messages().len(), webhook.bucket.objects().len()), (2, 0));
    assert!(webhook.function.wait_for_log_line("S3: AccessDenied (403)", LAMBDA_TIMEOUT).await.is_some());
}

/// `<route>/<date>/<event_id>-<random>`
fn check_key(key: &str, route: &str, event_id: &str) {
    let [prefix, date, name] = key.split('/').collect::<Vec<_>>()[..] else { panic!("{key}") };
    let shape: String =
        date.chars().map(|character| if character.is_ascii_digit() { '9' } else { character }).collect();
    assert_eq!((prefix, shape.as_str()), (route, "9999-99-99"));
    let random = name.strip_prefix(event_id).and_then(|rest| rest.strip_prefix('-')).unwrap();
    assert!(random.len() >= 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
}

#[tokio::test]
async fn claim_check_depends_on_body_and_attributes() {
    let webhook = Webhook::start();
    let with_filler = |filler: usize| Notification::new([("messages", format!(r#""{}""#, "x".repeat(filler)))]);
    assert_eq!(webhook.deliver(with_filler(0).body).await.status, 200);
    let small = webhook.queue("messages").take_messages().remove(0);
    let attributes = small
        .attributes
        .iter()
        .map(|(name, value)| name.len() + value.data_type.len() + value.text.as_deref().unwrap_or_default().len());
    // The function reserves space for the reason and the longest queue name, so that a diverted message fits, too.
    let reserve = "unrouted_reasonStringqueue-unavailable".len() + "diverted_fromString".len() + 80;
    let room = MEBIBYTE - small.body.len() - attributes.sum::<usize>() - reserve;
    for (filler, objects) in [(room, 0), (room + 1, 1)] {
        webhook.reset();
        assert_eq!(webhook.deliver(with_filler(filler).body).await.status, 200);
        assert_eq!((webhook.copies(&with_filler(filler)), webhook.bucket.objects().len()), (vec![vec![Own]], objects));
    }
    // The largest message without a claim check still fits when it is diverted.
    webhook.reset();
    webhook.queue("messages").delete();
    assert_eq!(webhook.deliver(with_filler(room).body).await.status, 200);
    assert_eq!((webhook.copies(&with_filler(room)), webhook.bucket.objects().len()), (vec![vec![Diverted]], 1));
}

/// Queues that were created when the limit of SQS was lower keep that limit.
#[tokio::test]
async fn body_too_large_for_both_queues_is_stored_in_s3() {
    for (limit, text, copy) in [(262_144, 300_000, Base64), (262_144, 200_000, Own), (2_048, 2_000, Base64)] {
        let webhook = Webhook::start();
        for name in ["messages", "unrouted"] {
            webhook.queue(name).set_maximum_message_size(limit);
        }
        let sent = Notification::new([("messages", message(0, &"x".repeat(text))), ("messages", message(1, "small"))]);
        let response = webhook.deliver(&sent.body).await;
        assert_eq!((response.status, webhook.copies(&sent)), (200, vec![vec![copy], vec![Own]]), "{limit} {text}");
        let keys: Vec<String> = webhook.bucket.objects().into_keys().collect();
        assert_eq!(keys.len(), usize::from(copy == Base64));
        for key in keys {
            check_key(&key, "messages", &sent.changes[0].event_id);
        }
    }
}

#[tokio::test]
async fn body_too_large_without_a_bucket_leads_to_503() {
    let webhook = Webhook::with_variables(&[("PAYLOAD_BUCKET", "")]);
    for name in ["messages", "unrouted"] {
        webhook.queue(name).set_maximum_message_size(262_144);
    }
    let sent = Notification::new([("messages", message(0, &"x".repeat(300_000))), ("messages", message(1, "small"))]);
    assert_eq!((webhook.deliver(&sent.body).await.status, webhook.copies(&sent)), (503, vec![vec![], vec![Own]]));
    let line = webhook.function.wait_for_log_line("messages not stored", LAMBDA_TIMEOUT).await.unwrap();
    assert!(line.contains("InvalidParameterValue") && line.contains("ERROR"), "{line}");
    assert!(line.contains(r#""queue.name":"messages""#), "the queue of the route: {line}");
    let line = webhook.function.wait_for_log_line(r#""message":"not stored""#, LAMBDA_TIMEOUT).await.unwrap();
    assert!(line.contains(r#""response.status":503"#) && line.contains("ERROR"), "{line}");
}

#[tokio::test]
async fn each_copy_of_a_message_has_its_own_object() {
    let _turn = PROCESSOR.lock().await;
    let webhook = Webhook::start();
    let sent = large("messages");
    let pointers = AtomicUsize::new(0);
    let first_two = move |call: &IncomingCall<'_>| {
        let is_pointer = call.entries.iter().any(|entry| entry.attribute("ExtendedPayloadSize").is_some());
        is_pointer && pointers.fetch_add(1, Ordering::Relaxed) < 2
    };
    webhook.queue("messages").inject_fault(Fault::commit_then_drop(), Frequency::when(first_two));
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let copies = webhook.copies(&sent)[1].len();
    let pointers = webhook.stored_messages().into_iter().filter(|(_, message)| message.body.starts_with("[\"software"));
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
async fn object_of_diverted_body_keeps_prefix_of_route() {
    let webhook = Webhook::start();
    let unrouted = large("calls");
    assert_eq!(webhook.deliver(&unrouted.body).await.status, 200);
    assert_eq!(webhook.copies(&unrouted), vec![[Unrouted]; 3]);
    webhook.reset();
    let diverted = large("security");
    webhook.queue("security").inject_fault(Fault::access_denied(), Frequency::Always);
    assert_eq!(webhook.deliver(&diverted.body).await.status, 200);
    assert_eq!(webhook.copies(&diverted), vec![[Diverted]; 3]);
    let keys: Vec<String> = webhook.bucket.objects().into_keys().collect();
    let count = |prefix: &str| keys.iter().filter(|key| key.starts_with(prefix)).count();
    assert_eq!((count("unrouted/"), count("security/")), (1, 2), "{keys:?}");
}

#[tokio::test]
async fn large_binary_body_is_stored_as_base64() {
    let webhook = Webhook::start();
    let body = [b"\xff\xfe\x00".as_slice(), &vec![7; 900_000]].concat();
    assert_eq!(webhook.deliver(&body).await.status, 200);
    let [(queue, message)] = &webhook.stored_messages()[..] else { panic!() };
    let object = webhook.bucket.object(&s3_key(&message.body)).unwrap();
    assert_eq!((queue.as_str(), BASE64.decode(&object.body).unwrap()), ("unrouted", body));
    assert_eq!(message.attribute("ExtendedPayloadSize").unwrap(), object.body.len().to_string());
    assert_eq!(
        (message.attribute("encoding"), message.attribute("unrouted_reason")),
        (Some("base64"), Some("not-json"))
    );
}

#[tokio::test]
async fn transient_error_of_s3_is_retried() {
    let _turn = PROCESSOR.lock().await;
    let faults = [
        Fault::internal_error(),
        Fault::throttled(),
        // The codes of a slow upload and of a concurrent call with the same key.
        Fault::error(400, "RequestTimeout"),
        Fault::error(409, "OperationAborted"),
        Fault::error(307, "TemporaryRedirect"),
        Fault::drop_connection(),
        Fault::drop_unread(),
        Fault::hang(),
        Fault::commit_then_drop(),
        Fault::commit_then_hang(),
        Fault::commit_then_truncate(),
    ];
    join_all(faults.map(async |fault| {
        let webhook = Webhook::start();
        let sent = large("messages");
        let handle = webhook.aws.s3().inject_fault(fault.clone(), Frequency::Once);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        assert_eq!((webhook.copies(&sent), handle.fired()), (vec![vec![Own]; 3], 1), "{}", fault.name());
    }))
    .await;
}

#[tokio::test]
async fn failing_s3_fails_only_the_large_body() {
    let cases = [
        (Fault::internal_error(), "messages", Own),
        (Fault::access_denied(), "messages", Own),
        (Fault::kms_disabled(), "calls", Unrouted),
        (Fault::hang(), "messages", Own),
        (Fault::drop_connection(), "calls", Unrouted),
        (Fault::drop_unread(), "messages", Own),
    ];
    join_all(cases.map(async |(fault, field, placement)| {
        let webhook = Webhook::start();
        webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
        webhook.aws.s3().inject_fault(fault.clone(), Frequency::Always);
        let sent = large(field);
        let response = webhook.deliver_within(&sent.body, Duration::from_secs(5)).await;
        assert_eq!(response.status, 503, "{}", fault.name());
        assert_eq!(webhook.copies(&sent), [vec![placement], vec![], vec![placement]], "{}", fault.name());
        assert_eq!(webhook.bucket.objects().len(), 0);
    }))
    .await;
}

#[tokio::test]
async fn missing_bucket_setting_fails_only_the_large_body() {
    let webhook = Webhook::with_variables(&[("PAYLOAD_BUCKET", "")]);
    let sent = large("messages");
    let response = webhook.deliver(&sent.body).await;
    assert_eq!((response.status, webhook.copies(&sent)), (503, vec![vec![Own], vec![], vec![Own]]));
    assert!(webhook.aws.calls().iter().all(|call| call.service != Service::S3));
    let error_line = webhook.function.wait_for_log_line("PAYLOAD_BUCKET is not set", LAMBDA_TIMEOUT).await;
    assert!(error_line.is_some_and(|line| line.contains("ERROR")));
}

#[tokio::test]
async fn bucket_of_another_region_is_not_retried() {
    let webhook = Webhook::start();
    let handle = webhook.aws.s3().inject_fault(Fault::error(301, "PermanentRedirect"), Frequency::Always);
    let sent = large("messages");
    let response = webhook.deliver(&sent.body).await;
    assert_eq!((response.status, webhook.copies(&sent)), (503, vec![vec![Own], vec![], vec![Own]]));
    assert_eq!(handle.fired(), 1);
    let error_line = webhook.function.wait_for_log_line("PermanentRedirect", LAMBDA_TIMEOUT).await;
    assert!(error_line.is_some_and(|line| line.contains("ERROR")));
}

#[tokio::test]
async fn deleted_bucket_fails_only_the_large_body() {
    let webhook = Webhook::start();
    webhook.bucket.delete();
    let sent = large("messages");
    let event = signed(APP_SECRET, sent.body.as_bytes());
    assert_eq!(webhook.send_within(event, Duration::from_secs(4)).await.status, 503);
    assert_eq!(webhook.copies(&sent), [vec![Own], vec![], vec![Own]]);
    let uploads = webhook.aws.calls().iter().filter(|call| call.service == Service::S3).count();
    assert_eq!(uploads, 1, "the function does not retry in a bucket that does not exist");
}

#[tokio::test]
async fn invalid_s3_endpoint_is_logged() {
    let webhook = Webhook::with_variables(&[("AWS_ENDPOINT_URL_S3", "s3.example.com")]);
    let sent = large("messages");
    let response = webhook.deliver(&sent.body).await;
    assert_eq!((response.status, webhook.copies(&sent)), (503, vec![vec![Own], vec![], vec![Own]]));
    assert!(webhook.function.wait_for_log_line("invalid endpoint URL", LAMBDA_TIMEOUT).await.is_some());
}

#[tokio::test]
async fn empty_s3_endpoint_counts_as_unset() {
    let webhook = Webhook::with_variables(&[("AWS_ENDPOINT_URL_S3", "")]);
    let sent = large("messages");
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.bucket.objects().len(), 1);
}
