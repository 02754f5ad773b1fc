//! Deliveries without faults: queues, batches and connections.

use std::{collections::HashSet, time::Duration};

use fake_aws::Service::{S3, Secrets, Sqs};
use serde_json::json;

use crate::{
    PROCESSOR,
    notification::{Notification, message, status},
    stored::Placement::{Own, Unrouted},
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, VERIFY_TOKEN, Webhook, event, signed},
};

#[tokio::test]
async fn change_is_stored_once_on_its_queue() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "messages.statuses", "security", "account_update", "calls", "messages"]);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), [Own, Own, Own, Own, Unrouted, Own].map(|copy| vec![copy]));
}

#[tokio::test]
async fn other_requests_get_a_response_and_store_nothing() {
    let webhook = Webhook::start();
    let challenge = webhook.challenge(VERIFY_TOKEN).await;
    assert_eq!((challenge.status, challenge.body.as_str()), (200, "1158201444"));
    assert_eq!(webhook.challenge("wrong").await.status, 403);
    let body = Notification::of(&["messages"]).body;
    let mut altered = signed(APP_SECRET, body.as_bytes());
    altered["body"] = json!(body.replacen("whatsapp", "whatsApp", 1));
    for (event, status) in [
        (event("GET", "", &[], b""), 403),
        (event("GET", &format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}"), &[], b""), 400),
        (event("POST", "", &[], body.as_bytes()), 401),
        (event("POST", "", &[("x-hub-signature-256", "sha256=")], body.as_bytes()), 401),
        (signed("another", body.as_bytes()), 401),
        (altered, 401),
        (event("PUT", "", &[], body.as_bytes()), 405),
    ] {
        let response = webhook.send(event).await;
        assert_eq!((response.status, response.body.as_str()), (status, ""));
    }
    assert_eq!(webhook.stored_messages().len(), 0);
}

#[tokio::test]
async fn largest_notification_is_sent_in_full_batches() {
    let _turn = PROCESSOR.lock().await;
    let webhook = Webhook::start();
    webhook.aws.sqs().set_latency(Duration::from_millis(40));
    let text = "x".repeat(3_400);
    let sent = Notification::new((0..1000).map(|index| match index % 5 {
        0 => ("messages", message(index, &text)),
        1 => ("messages", status(index)),
        2 => ("security", format!(r#"["{text}",{index}]"#)),
        3 => ("account_update", format!(r#"["{text}",{index}]"#)),
        _ => ("flows", format!(r#"["{text}",{index}]"#)),
    }));
    assert!(sent.body.len() > 2_700_000 && sent.body.len() < 3_000_000);
    // Without optimization and on a busy machine, a body of megabytes takes long.
    assert_eq!(webhook.deliver_within(&sent.body, 3 * LAMBDA_TIMEOUT).await.status, 200);
    let copies = webhook.copies(&sent);
    for (index, copies) in copies.iter().enumerate() {
        assert_eq!(copies[..], [if index % 5 == 4 { Unrouted } else { Own }], "{index}");
    }
    let sends = webhook.send_calls();
    assert_eq!(sends.len(), 100, "{:?}", sends.iter().map(|call| call.entries).collect::<Vec<_>>());
    assert!(sends.iter().all(|call| call.entries == 10));
    assert!(webhook.aws.peak_calls() <= 32, "{}", webhook.aws.peak_calls());
    // hyper completes a started connection even if another one becomes idle first. So there are a few more connections than calls.
    assert!(webhook.aws.peak_connections() < 40, "{}", webhook.aws.peak_connections());
}

#[tokio::test]
async fn batches_of_one_queue_are_sent_concurrently() {
    let webhook = Webhook::start();
    webhook.aws.sqs().set_latency(Duration::from_millis(300));
    let sent = Notification::of(&["messages"; 160]);
    let response = webhook.deliver(&sent.body).await;
    assert_eq!((response.status, webhook.copies(&sent)), (200, vec![vec![Own]; 160]));
    assert_eq!(webhook.aws.peak_calls(), 16);
}

#[tokio::test]
async fn batches_are_limited_by_size() {
    let webhook = Webhook::start();
    // A batch of one mebibyte holds four of these, not five.
    let large = "ä".repeat(115_000);
    let sent = Notification::new((0..8).map(|index| ("messages", message(index, &large))));
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), vec![vec![Own]; 8]);
    let sends: Vec<_> = webhook.send_calls().iter().map(|call| call.entries).collect();
    assert_eq!(sends, [4, 4]);
}

#[tokio::test]
async fn services_share_connections() {
    let webhook = Webhook::start();
    for _ in 0..3 {
        assert_eq!(webhook.deliver(Notification::of(&["messages"]).body).await.status, 200);
    }
    let large = Notification::new([("messages", message(0, &"x".repeat(1_100_000)))]);
    assert_eq!(webhook.deliver(&large.body).await.status, 200);
    assert_eq!(webhook.send(signed("forger", b"{}")).await.status, 401);
    let services: Vec<_> = webhook.aws.calls().iter().map(|call| call.service).collect();
    let start: HashSet<_> = services[..2].iter().collect();
    assert_eq!((start, &services[2..]), (HashSet::from([&Secrets, &Sqs]), &[Sqs, Sqs, Sqs, S3, Sqs, Secrets][..]));
    // The two calls at the start are concurrent.
    assert_eq!(webhook.aws.accepted_connections(), 2);
}
