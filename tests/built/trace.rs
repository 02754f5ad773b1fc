//! The trace header: every message of a sampled trace has it, and it never costs a message.

use crate::{
    PROCESSOR,
    notification::{Notification, message},
    stored::Placement::{Diverted, Own, Unrouted},
    webhook::Webhook,
};
use fake_aws::{Fault, Frequency};

const ROOT: &str = "Root=1-5759e988-bd862e3fe1be46a994272793";

fn traces(webhook: &Webhook) -> Vec<Option<String>> {
    webhook.stored_messages().iter().map(|(_, message)| message.trace().map(str::to_owned)).collect()
}

#[tokio::test]
async fn sampled_trace_is_on_every_message() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "security", "calls"]);
    let large = Notification::new([("messages", message(0, &"x".repeat(1_100_000)))]);
    let header = format!("{ROOT};Parent=53995c3f42cd8ad8;Sampled=1");
    webhook.function.set_trace_header(&format!("{header};Lineage=1:a87bd80c:0"));
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), [[Own], [Own], [Unrouted]]);
    assert_eq!(traces(&webhook), vec![Some(header.clone()); 3]);
    webhook.reset();
    assert_eq!(webhook.deliver(&large.body).await.status, 200);
    assert_eq!((webhook.copies(&large), traces(&webhook)), (vec![vec![Own]], vec![Some(header)]));
}

#[tokio::test]
async fn trace_header_does_not_count_towards_limits() {
    let _turn = PROCESSOR.lock().await;
    let sampled = largest_body_in_message(true).await;
    assert_eq!(sampled, largest_body_in_message(false).await);
    assert!(sampled > 1_048_576 - 700, "{sampled}");
}

/// Searches for the largest body that is not stored in S3, to 32 bytes. A trace header has more. The function reserves space for the
/// attributes of a diverted message.
async fn largest_body_in_message(is_sampled: bool) -> usize {
    let webhook = Webhook::start();
    webhook.function.set_trace_header(&format!("{ROOT};Sampled={}", u8::from(is_sampled)));
    let with_filler = |bytes: usize| Notification::new([("security", format!(r#""{}""#, "x".repeat(bytes)))]);
    let (mut in_message, mut in_s3) = (1_048_576 - 1_000, 1_048_576);
    let mut largest = 0;
    while in_s3 - in_message > 32 {
        let bytes = usize::midpoint(in_message, in_s3);
        webhook.reset();
        let sent = with_filler(bytes);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200);
        assert_eq!(webhook.copies(&sent), [[Own]]);
        let (_, message) = &webhook.stored_messages()[0];
        assert_eq!(message.trace().is_some(), is_sampled);
        if message.attribute("ExtendedPayloadSize").is_some() {
            in_s3 = bytes;
        } else {
            (in_message, largest) = (bytes, message.body.len());
        }
    }
    largest
}

#[tokio::test]
async fn unsampled_or_invalid_trace_header_is_left_out() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages"]);
    for header in [
        format!("{ROOT};Sampled=0"),
        format!("{ROOT};Parent=53995c3f42cd8ad8"),
        "Root=dummy;Parent=53995c3f42cd8ad8;Sampled=1".to_owned(),
        "1-5759e988-bd862e3fe1be46a994272793".to_owned(),
    ] {
        webhook.reset();
        webhook.function.set_trace_header(&header);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200);
        assert_eq!((webhook.copies(&sent), traces(&webhook)), (vec![vec![Own]], vec![None]), "{header}");
    }
}

#[tokio::test]
async fn rejected_trace_header_costs_no_message() {
    let webhook = Webhook::start();
    webhook.function.set_trace_header(&format!("{ROOT};Sampled=1"));
    let reject = Fault::reject_entries(|entry| entry.trace().is_some()).sender_fault();
    webhook.aws.sqs().inject_fault(reject, Frequency::Always);
    let sent = Notification::of(&["messages", "security"]);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!((webhook.copies(&sent), traces(&webhook)), (vec![vec![Diverted]; 2], vec![None, None]));
}
