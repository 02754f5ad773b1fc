//! The trace of an invocation: on every message where it is recorded, and the cost of none.

use crate::{
    notification::{Notification, message},
    stored::Copy::{Diverted, Own, Unrouted},
    webhook::Webhook,
};
use fake_aws::{Fault, Times};

const ROOT: &str = "Root=1-5759e988-bd862e3fe1be46a994272793";

fn traces(webhook: &Webhook) -> Vec<Option<String>> {
    webhook.stored().iter().map(|(_, message)| message.trace().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_recorded_trace_is_on_every_message_of_the_invocation() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "security", "calls"]);
    let large = Notification::new([("messages", message(0, &"x".repeat(1_100_000)))]);
    let header = format!("{ROOT};Parent=53995c3f42cd8ad8;Sampled=1");
    webhook.function.set_trace(&format!("{header};Lineage=1:a87bd80c:0"));
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), [[Own], [Own], [Unrouted]]);
    assert_eq!(traces(&webhook), vec![Some(header.clone()); 3]);
    webhook.reset();
    assert_eq!(webhook.deliver(&large.body).await.status, 200);
    assert_eq!((webhook.copies(&large), traces(&webhook)), (vec![vec![Own]], vec![Some(header)]));
}

#[tokio::test]
async fn a_trace_takes_no_room_in_a_batch_or_a_message() {
    let webhook = Webhook::start();
    webhook.function.set_trace(&format!("{ROOT};Sampled=1"));
    let fill = |bytes: usize| Notification::new([("security", format!(r#""{}""#, "x".repeat(bytes)))]);
    // The largest body that is not put into S3, with room for what a diverted message is told.
    let mut bytes = 1_048_576 - 1_000;
    let mut last = None;
    while bytes < 1_048_576 {
        webhook.reset();
        let sent = fill(bytes);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200);
        assert_eq!(webhook.copies(&sent), [[Own]]);
        let stored = webhook.stored();
        assert!(stored[0].1.trace().is_some());
        if stored[0].1.attribute("ExtendedPayloadSize").is_some() {
            break;
        }
        last = Some(stored[0].1.body.len());
        bytes += 40;
    }
    assert!(last.is_some_and(|last| last > 1_048_576 - 700), "{last:?}");
}

#[tokio::test]
async fn what_is_not_recorded_or_no_trace_header_is_left_out() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages"]);
    for header in [
        format!("{ROOT};Sampled=0"),
        format!("{ROOT};Parent=53995c3f42cd8ad8"),
        "Root=dummy;Parent=53995c3f42cd8ad8;Sampled=1".to_owned(),
        "1-5759e988-bd862e3fe1be46a994272793".to_owned(),
    ] {
        webhook.reset();
        webhook.function.set_trace(&header);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200);
        assert_eq!((webhook.copies(&sent), traces(&webhook)), (vec![vec![Own]], vec![None]), "{header}");
    }
}

#[tokio::test]
async fn a_trace_that_a_queue_refuses_costs_no_message() {
    let webhook = Webhook::start();
    webhook.function.set_trace(&format!("{ROOT};Sampled=1"));
    let refused = Fault::refuse_entries(|entry| entry.trace().is_some()).senders_fault();
    webhook.aws.sqs().fault(refused, Times::Always);
    let sent = Notification::of(&["messages", "security"]);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!((webhook.copies(&sent), traces(&webhook)), (vec![vec![Diverted]; 2], vec![None, None]));
}
