//! The archive: each signed notification as received is an object, whatever happens to its messages.

use std::{collections::BTreeMap, io::Read as _, path::Path, time::Duration};

use fake_aws::{
    Bucket, FakeAws, Fault, Frequency,
    Service::{S3, Sqs},
    event::REQUEST_ID,
};
use flate2::read::GzDecoder;
use futures_util::future::join_all;
use ingress_tools::meta::samples::{self, Sample, Signer};
use serde_json::{Value, json};
use whatsapp_webhook::{archive::ArchiveHeader, signature};

use crate::{
    log_line,
    notification::{Notification, message},
    stored::Placement::Own,
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, SECRET_ID, VERIFY_TOKEN, Webhook, event, signed},
};

const BUCKET: &str = "archive";
const REQUIRED: (&str, &str) = ("ARCHIVE_REQUIRED", "true");

fn start(variables: &[(&str, &str)]) -> (Webhook, Bucket) {
    let aws = FakeAws::start();
    let bucket = aws.bucket(BUCKET);
    (Webhook::with_aws(aws, &[&[("ARCHIVE_BUCKET", BUCKET)], variables].concat()), bucket)
}

/// Decodes the objects, and checks their keys and that a signature with `app_secret` verifies.
fn archived(bucket: &Bucket, app_secret: &str) -> Vec<(ArchiveHeader, Vec<u8>)> {
    let decode = |(key, object): (String, fake_aws::Object)| {
        assert_eq!(object.content_type.as_deref(), Some("application/gzip"));
        let mut content = Vec::new();
        GzDecoder::new(&*object.body).read_to_end(&mut content).unwrap();
        let (header, body) = ArchiveHeader::decode(&content).unwrap();
        assert_eq!(header.key().unwrap(), key);
        assert_eq!(header.rewritten, None);
        signature::verify([app_secret], body, Some(header.signature.as_bytes())).unwrap();
        (header, body.to_vec())
    };
    bucket.objects().into_iter().map(decode).collect()
}

/// Stops the function. Returns the number of its lines about the archive, and the sums of its metrics.
fn lines_and_metrics(webhook: Webhook) -> (usize, BTreeMap<String, f64>) {
    let lines: Vec<Value> = webhook.function.stop().iter().map(|line| log_line::parse(line)).collect();
    let errors = lines.iter().filter(|line| line["message"] == "notification not archived");
    let mut sums = BTreeMap::new();
    for line in lines.iter().filter(|line| line.get("_aws").is_some()) {
        for (name, value) in log_line::metrics(line).0 {
            *sums.entry(name.to_owned()).or_default() += value;
        }
    }
    let count =
        errors.inspect(|line| assert_eq!((&line["level"], &line["request.id"]), (&json!("ERROR"), &json!(REQUEST_ID))));
    (count.count(), sums)
}

#[tokio::test]
async fn every_signed_sample_is_archived_as_received() {
    let (webhook, bucket) = start(&[]);
    webhook.aws.set_secret(
        SECRET_ID,
        json!({"app_secret": samples::APP_SECRET, "verify_token": samples::VERIFY_TOKEN}).to_string(),
    );
    let mut sent = Vec::new();
    for (index, sample) in Sample::load_all(Path::new("events")).unwrap().into_iter().enumerate() {
        let mut event: Value = serde_json::from_str(&sample.text).unwrap();
        event["requestContext"]["requestId"] = json!(format!("request-{index}"));
        webhook.send(event).await;
        if sample.method == "POST" && sample.signer() == Signer::Meta && !sample.body.is_empty() {
            sent.push((format!("request-{index}"), sample.body));
        }
    }
    assert!(sent.len() > 20, "{}", sent.len());
    let mut archived: Vec<_> =
        archived(&bucket, samples::APP_SECRET).into_iter().map(|(header, body)| (header.request_id, body)).collect();
    archived.sort_by_key(|(id, _)| sent.iter().position(|(sent, _)| sent == id));
    assert_eq!(archived, sent);
}

#[tokio::test]
async fn odd_bodies_are_archived_as_received() {
    let (webhook, bucket) = start(&[]);
    let bodies: [&[u8]; 5] = [b"hello\n", b" ", b"\xff\x00\xfe", b"[]", &vec![b'x'; 2_900_000]];
    for body in bodies {
        assert_eq!(webhook.deliver(body).await.status, 200);
    }
    // The time in the keys is the order, unless two were received in the same millisecond.
    let mut archived: Vec<_> = archived(&bucket, APP_SECRET).into_iter().map(|(_, body)| body).collect();
    archived.sort_by_key(|body| bodies.iter().position(|sent| sent == body));
    assert!(archived == bodies);
}

#[tokio::test]
async fn nothing_unsigned_is_archived() {
    for required in ["", "true"] {
        let (webhook, bucket) = start(&[("ARCHIVE_REQUIRED", required)]);
        let body = Notification::of(&["messages"]).body;
        let mut altered = signed(APP_SECRET, body.as_bytes());
        altered["body"] = json!(body.replacen("whatsapp", "whatsApp", 1));
        let mut undecodable = signed(APP_SECRET, body.as_bytes());
        (undecodable["isBase64Encoded"], undecodable["body"]) = (json!(true), json!("{"));
        for (event, status) in [
            (event("POST", "", &[], body.as_bytes()), 401),
            (signed("another", body.as_bytes()), 401),
            (altered, 401),
            (undecodable, 400),
            (event("PUT", "", &[], body.as_bytes()), 405),
            (signed(APP_SECRET, b""), 200),
        ] {
            assert_eq!(webhook.send(event).await.status, status);
        }
        assert_eq!(webhook.challenge(VERIFY_TOKEN).await.status, 200);
        assert_eq!(bucket.objects().len(), 0);
        assert!(webhook.aws.calls().iter().all(|call| call.service != S3));
    }
}

#[tokio::test]
async fn without_a_bucket_s3_is_not_called() {
    let webhook = Webhook::start();
    assert_eq!(webhook.deliver(Notification::of(&["messages", "calls"]).body).await.status, 200);
    assert!(webhook.aws.calls().iter().all(|call| call.service != S3));
    let (lines, metrics) = lines_and_metrics(webhook);
    assert!(lines == 0 && !metrics.contains_key("ArchiveTime") && !metrics.contains_key("NotArchived"), "{metrics:?}");
}

#[tokio::test]
async fn receipt_has_the_trace_and_no_other_header() {
    let (webhook, bucket) = start(&[]);
    let trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1";
    webhook.function.set_trace_header(trace);
    let body = Notification::of(&["messages"]).body;
    assert_eq!(webhook.deliver(&body).await.status, 200);
    let (header, _) = archived(&bucket, APP_SECRET).remove(0);
    assert_eq!((header.request_id.as_str(), header.trace.as_deref()), (REQUEST_ID, Some(trace)));
    let line = String::from_utf8(header.encode(b"")).unwrap();
    assert!(!line.contains("facebookexternalua") && !line.contains("192.0.2.44"), "{line}");
}

#[tokio::test]
async fn calls_to_sqs_begin_before_the_archive() {
    const CHANGES: usize = 900;
    let (webhook, bucket) = start(&[]);
    let text = "x".repeat(2_000);
    let sent = Notification::new((0..CHANGES).map(|index| ("messages", message(index, &text))));
    assert_eq!(webhook.deliver_within(&sent.body, 3 * LAMBDA_TIMEOUT).await.status, 200);
    assert_eq!((bucket.objects().len(), webhook.copies(&sent)), (1, vec![vec![Own]; CHANGES]));
    let calls = webhook.aws.calls();
    let upload = calls.iter().find(|call| call.service == S3).unwrap();
    let before = calls.iter().filter(|call| call.entries > 0 && call.number < upload.number).count();
    // 32 calls are under way at a time. Further ones begin only because the compression pauses for them.
    assert!(before > 32, "{before} calls to SQS before the upload");
}

/// Faults that stay: their names, and how often S3 is called at most.
fn faults() -> [(Fault, bool); 8] {
    [
        (Fault::access_denied(), true),
        (Fault::kms_disabled(), true),
        (Fault::resource_does_not_exist(), true),
        (Fault::error(301, "PermanentRedirect"), true),
        (Fault::internal_error(), false),
        (Fault::throttled(), false),
        (Fault::drop_unread(), false),
        (Fault::hang(), false),
    ]
}

#[tokio::test]
async fn failing_archive_changes_no_answer() {
    join_all(faults().map(async |(fault, is_final)| {
        let (webhook, bucket) = start(&[]);
        let handle = webhook.aws.s3().inject_fault(fault.clone(), Frequency::Always);
        let sent = Notification::of(&["messages", "security"]);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        assert_eq!((webhook.copies(&sent), bucket.objects().len()), (vec![vec![Own]; 2], 0), "{}", fault.name());
        assert!(handle.fired() >= 1 && (handle.fired() == 1 || !is_final), "{}", fault.name());
        let (lines, metrics) = lines_and_metrics(webhook);
        assert_eq!((lines, metrics["NotArchived"], metrics.get("NotStored")), (1, 1.0, None), "{}", fault.name());
        assert!(metrics["ArchiveTime"] > 0.0);
    }))
    .await;
}

#[tokio::test]
async fn missing_bucket_changes_no_answer() {
    let (webhook, bucket) = start(&[]);
    bucket.delete();
    let sent = Notification::of(&["messages"]);
    assert_eq!((webhook.deliver(&sent.body).await.status, webhook.copies(&sent)), (200, vec![vec![Own]]));
    let line = webhook.function.wait_for_log_line("NoSuchBucket (404)", LAMBDA_TIMEOUT).await.unwrap();
    assert!(!line.contains("hello"), "{line}");
}

#[tokio::test]
async fn bucket_of_another_account_gets_no_notification() {
    let aws = FakeAws::start();
    let (bucket, queue) = (aws.bucket(BUCKET), aws.queue("unrouted"));
    let url = queue.url().replace(fake_aws::ACCOUNT, "999999999999");
    let variables = [("ARCHIVE_BUCKET", BUCKET)];
    let webhook = Webhook::with_routes(aws, [("unrouted".to_owned(), queue)].into(), &json!({ "*": url }), &variables);
    assert_eq!(webhook.deliver(Notification::of(&["calls"]).body).await.status, 200);
    assert_eq!(bucket.objects().len(), 0);
    assert!(webhook.function.wait_for_log_line("S3: AccessDenied (403)", LAMBDA_TIMEOUT).await.is_some());
}

#[tokio::test]
async fn answer_does_not_wait_for_a_slow_archive() {
    let (webhook, bucket) = start(&[]);
    webhook.aws.s3().inject_fault(Fault::delay_commit(Duration::from_secs(8)), Frequency::Always);
    let sent = Notification::of(&["messages"]);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    // The object is stored when the fake's response is due, so the answer was earlier.
    assert_eq!((webhook.copies(&sent), bucket.objects().len()), (vec![vec![Own]], 0));
    webhook.aws.wait_for_delayed_commits().await;
    assert_eq!(archived(&bucket, APP_SECRET).len(), 1);
    let (lines, metrics) = lines_and_metrics(webhook);
    assert_eq!((lines, metrics["NotArchived"]), (1, 1.0));
}

#[tokio::test]
async fn transient_error_of_the_archive_is_retried() {
    let faults = [
        Fault::internal_error(),
        Fault::throttled(),
        Fault::drop_connection(),
        Fault::drop_unread(),
        Fault::commit_then_drop(),
    ];
    join_all(faults.map(async |fault| {
        let (webhook, bucket) = start(&[REQUIRED]);
        let handle = webhook.aws.s3().inject_fault(fault.clone(), Frequency::Once);
        let sent = Notification::of(&["messages"]);
        assert_eq!((webhook.deliver(&sent.body).await.status, webhook.copies(&sent)), (200, vec![vec![Own]]));
        assert_eq!((handle.fired(), archived(&bucket, APP_SECRET).len()), (1, 1), "{}", fault.name());
        assert_eq!(lines_and_metrics(webhook).0, 0);
    }))
    .await;
}

#[tokio::test]
async fn required_archive_that_fails_leads_to_503() {
    join_all(faults().map(async |(fault, _)| {
        let (webhook, bucket) = start(&[REQUIRED]);
        webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
        let handle = webhook.aws.s3().inject_fault(fault.clone(), Frequency::Always);
        let sent = Notification::of(&["messages"]);
        let response = webhook.deliver_within(&sent.body, Duration::from_secs(5)).await;
        assert_eq!((response.status, webhook.copies(&sent)), (503, vec![vec![Own]]), "{}", fault.name());
        let line = webhook.function.wait_for_log_line("stored, but not archived", LAMBDA_TIMEOUT).await.unwrap();
        assert!(line.contains(r#""message":"not archived""#), "{line}");
        handle.clear();
        // Meta sends it again.
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{}", fault.name());
        assert_eq!(archived(&bucket, APP_SECRET).len(), 1);
        let (lines, metrics) = lines_and_metrics(webhook);
        assert_eq!((lines, metrics["NotArchived"]), (1, 1.0), "{}", fault.name());
    }))
    .await;
}

/// A timeout of Lambda would be no answer. A large body, which cannot be compressed, and a short time make it likely.
#[tokio::test]
async fn silent_bucket_leaves_time_for_the_answer() {
    let large: Vec<u8> = (0..2_900_000).map(|_| fastrand::u8(..)).collect();
    let notification = Notification::of(&["messages"]);
    join_all([1_300, 2_000, 4_000].map(async |millis| {
        let (webhook, bucket) = start(&[REQUIRED]);
        webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
        webhook.aws.s3().inject_fault(Fault::hang(), Frequency::Always);
        for body in [&large[..], notification.body.as_bytes()] {
            let response = webhook.deliver_within(body, Duration::from_millis(millis)).await;
            assert_eq!((response.status, bucket.objects().len()), (503, 0), "{millis} ms, {} bytes", body.len());
        }
        assert_eq!(webhook.copies(&notification), [vec![Own]], "{millis} ms");
    }))
    .await;
}

#[tokio::test]
async fn required_archive_waits_for_a_slow_s3() {
    let (webhook, bucket) = start(&[REQUIRED]);
    webhook.aws.s3().inject_fault(Fault::delay_commit(Duration::from_millis(1_500)), Frequency::Always);
    assert_eq!(webhook.deliver(Notification::of(&["messages"]).body).await.status, 200);
    assert_eq!(archived(&bucket, APP_SECRET).len(), 1);
}

#[tokio::test]
async fn failing_sqs_leads_to_503_with_an_archive() {
    let (webhook, bucket) = start(&[]);
    webhook.aws.sqs().inject_fault(Fault::access_denied(), Frequency::Always);
    assert_eq!(webhook.deliver(Notification::of(&["messages"]).body).await.status, 503);
    assert_eq!(archived(&bucket, APP_SECRET).len(), 1);
}

#[tokio::test]
async fn expired_credentials_end_a_process_that_must_archive() {
    for (required, status) in [("", 200), ("true", 503)] {
        let (webhook, bucket) = start(&[("ARCHIVE_REQUIRED", required)]);
        webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
        webhook.aws.s3().inject_fault(Fault::error(400, "ExpiredToken"), Frequency::Always);
        let sent = Notification::of(&["messages"]);
        assert_eq!((webhook.deliver(&sent.body).await.status, webhook.copies(&sent)), (status, vec![vec![Own]]));
        assert_eq!(bucket.objects().len(), 0);
        assert_eq!(webhook.aws.calls().iter().filter(|call| call.service == S3).count(), 1);
        let limit = if status == 503 { LAMBDA_TIMEOUT } else { Duration::from_millis(300) };
        let line = webhook.function.wait_for_log_line("AWS credentials expired, the", limit).await;
        assert_eq!(line.is_some(), status == 503);
        let lines: Vec<Value> = webhook.function.stop().iter().map(|line| log_line::parse(line)).collect();
        let request = lines.iter().find(|line| line.get("_aws").is_some()).unwrap();
        assert_eq!(request["message"], if status == 503 { "not archived" } else { "stored" });
    }
}

#[tokio::test]
async fn concurrent_requests_have_an_object_each() {
    let (webhook, bucket) = start(&[("AWS_LAMBDA_MAX_CONCURRENCY", "8"), REQUIRED]);
    webhook.aws.s3().inject_fault(Fault::internal_error(), Frequency::Random { probability: 0.1, seed: 1 });
    let text = "x".repeat(200_000);
    let sent: Vec<_> = (0..24)
        .map(|index| Notification::new([("messages", message(index, &format!("{index}{text}")))]).body)
        .collect();
    let responses = join_all(sent.iter().enumerate().map(|(index, body)| {
        let mut event = signed(APP_SECRET, body.as_bytes());
        event["requestContext"]["requestId"] = json!(format!("request-{index:02}"));
        webhook.send_within(event, 3 * LAMBDA_TIMEOUT)
    }))
    .await;
    assert!(responses.iter().all(|response| response.status == 200));
    let mut archived: Vec<_> =
        archived(&bucket, APP_SECRET).into_iter().map(|(header, body)| (header.request_id, body)).collect();
    archived.sort();
    let expected: Vec<_> = sent
        .iter()
        .enumerate()
        .map(|(index, body)| (format!("request-{index:02}"), body.clone().into_bytes()))
        .collect();
    assert!(archived == expected);
    assert_eq!(webhook.aws.calls().iter().filter(|call| call.service == Sqs && call.entries > 0).count(), 24);
}

#[tokio::test]
async fn invalid_settings_of_the_archive_end_the_start() {
    for (variables, text) in [
        (&[("ARCHIVE_REQUIRED", "true")][..], "ARCHIVE_BUCKET is not set"),
        (&[("ARCHIVE_BUCKET", BUCKET), ("ARCHIVE_REQUIRED", "1")], "ARCHIVE_REQUIRED is neither true nor false"),
    ] {
        let webhook = Webhook::with_variables(variables);
        assert!(webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.is_err());
        assert!(webhook.function.wait_for_log_line(text, LAMBDA_TIMEOUT).await.is_some());
    }
}
