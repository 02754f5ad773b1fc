//! Every fault of SQS on the queue of a route, on the catch-all queue, and on both.
//!
//! Each notification also contains changes for two queues without faults. The tests check that no change is lost, that the
//! function responds in time and with 503 only if the catch-all queue fails too, and that it calls the other queues once.

use std::time::Duration;

use fake_aws::{Fault, Frequency, Service};
use futures_util::future::join_all;

use crate::{
    PROCESSOR,
    notification::Notification,
    stored::Placement::{self, Base64, Diverted, Own, Unrouted},
    webhook::{LAMBDA_TIMEOUT, Response, Webhook},
};

/// The Lambda timeout of these invocations, which leaves several attempts for each queue.
const DEADLINE: Duration = Duration::from_secs(4);

/// How the function must react to a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorClass {
    /// Retries can succeed.
    Transient,
    /// Retries can succeed, but every attempt stores the messages.
    TransientCommitted,
    /// The queue is unavailable.
    QueueUnavailable,
    /// SQS rejects the messages.
    EntryRejected,
}
use ErrorClass::{EntryRejected, QueueUnavailable, Transient, TransientCommitted};

#[tokio::test]
async fn transient_errors_are_retried_then_diverted() {
    run(vec![
        (Transient, Fault::reject_all_entries()),
        (Transient, Fault::internal_error()),
        (Transient, Fault::unavailable()),
        (Transient, Fault::throttled()),
        (Transient, Fault::error(403, "ThrottlingException")),
        (Transient, Fault::error(403, "RequestThrottled")),
        (Transient, Fault::error(400, "KMS.ThrottlingException")),
        (Transient, Fault::error(429, "TooManyRequestsException")),
        (Transient, Fault::drop_connection()),
        (Transient, Fault::hang()),
    ])
    .await;
}

#[tokio::test]
async fn lost_or_invalid_responses_cost_only_a_copy() {
    run(vec![
        (TransientCommitted, Fault::commit_then_drop()),
        (TransientCommitted, Fault::commit_then_hang()),
        (TransientCommitted, Fault::commit_then_truncate()),
        (TransientCommitted, Fault::commit_then_stall()),
        (TransientCommitted, Fault::commit_then_garble()),
        (TransientCommitted, Fault::commit_then_respond(200, "{}")),
        (TransientCommitted, Fault::commit_then_respond(200, "")),
        (TransientCommitted, Fault::commit_then_respond(200, r#"{"Successful":null,"Failed":null}"#)),
        (
            TransientCommitted,
            Fault::commit_then_respond(200, r#"{"Successful":[{"Id":"7","MessageId":"m","MD5OfMessageBody":"d"}]}"#),
        ),
        (TransientCommitted, Fault::commit_then_respond(502, "<html><h1>Bad Gateway</h1></html>")),
        (TransientCommitted, Fault::delay_response(DEADLINE)),
    ])
    .await;
}

#[tokio::test]
async fn permanent_errors_divert_immediately() {
    run(vec![
        (QueueUnavailable, Fault::access_denied()),
        (QueueUnavailable, Fault::resource_does_not_exist()),
        (QueueUnavailable, Fault::kms_disabled()),
        (QueueUnavailable, Fault::error(400, "KMS.AccessDeniedException")),
        (QueueUnavailable, Fault::error(403, "InvalidSecurity")),
        (EntryRejected, Fault::reject_all_entries().code("InvalidMessageContents").sender_fault()),
        (EntryRejected, Fault::error(400, "InvalidMessageContents")),
        (EntryRejected, Fault::error(400, "AWS.SimpleQueueService.BatchRequestTooLong")),
    ])
    .await;
}

async fn run(faults: Vec<(ErrorClass, Fault)>) {
    join_all(faults.into_iter().map(async |(class, fault)| {
        let case = Case { webhook: Webhook::start(), name: fault.name(), class, fault };
        case.once_on_route_queue().await;
        case.always_on_route_queue().await;
        case.once_on_catch_all().await;
        case.always_on_catch_all().await;
        case.always_on_both().await;
    }))
    .await;
}

struct Case {
    webhook: Webhook,
    name: &'static str,
    class: ErrorClass,
    fault: Fault,
}

impl Case {
    async fn once_on_route_queue(&self) {
        let response = self.deliver(&["messages"], &|| Frequency::Once).await;
        assert_eq!(response.0.status, 200, "{}", self.name);
        match self.class {
            Transient => self.expect(&response, &[Own], &[Unrouted]),
            TransientCommitted => self.expect(&response, &[Own, Own], &[Unrouted]),
            // If SQS rejects the batch without naming an entry, the function sends the messages one by one.
            EntryRejected if self.name == "error" => self.expect(&response, &[Own], &[Unrouted]),
            QueueUnavailable | EntryRejected => self.expect(&response, &[Diverted], &[Unrouted]),
        }
    }

    async fn always_on_route_queue(&self) {
        let response = self.deliver(&["messages"], &|| Frequency::Always).await;
        assert_eq!(response.0.status, 200, "{}", self.name);
        self.expect(&response, &[Diverted], &[Unrouted]);
    }

    async fn once_on_catch_all(&self) {
        let response = self.deliver(&["unrouted"], &|| Frequency::Once).await;
        match self.class {
            Transient => self.expect(&response, &[Own], &[Unrouted]),
            TransientCommitted => self.expect(&response, &[Own], &[Unrouted, Unrouted]),
            EntryRejected if self.name == "error" => self.expect(&response, &[Own], &[Unrouted]),
            EntryRejected => self.expect(&response, &[Own], &[Base64]),
            QueueUnavailable => self.expect(&response, &[Own], &[]),
        }
        assert_eq!(response.0.status, if self.class == QueueUnavailable { 503 } else { 200 }, "{}", self.name);
    }

    async fn always_on_catch_all(&self) {
        let response = self.deliver(&["unrouted"], &|| Frequency::Always).await;
        assert_eq!(response.0.status, 503, "{}", self.name);
        self.expect(&response, &[Own], &[]);
    }

    async fn always_on_both(&self) {
        let response = self.deliver(&["messages", "unrouted"], &|| Frequency::Always).await;
        assert_eq!(response.0.status, 503, "{}", self.name);
        self.expect(&response, &[], &[]);
    }

    /// Delivers three changes for the route's queue, one for each of two other queues, and two without a route.
    async fn deliver(&self, failing: &[&str], frequency: &dyn Fn() -> Frequency) -> (Response, Notification) {
        self.webhook.reset();
        self.webhook.function.wait_for_init(DEADLINE).await.unwrap();
        let before = self.webhook.aws.calls().len();
        for name in failing {
            self.webhook.queue(name).inject_fault(self.fault.clone(), frequency());
        }
        let sent =
            Notification::of(&["messages", "security", "calls", "messages", "messages.statuses", "flows", "messages"]);
        let response = self.webhook.deliver_within(&sent.body, DEADLINE).await;
        let calls = self.webhook.aws.calls().split_off(before);
        for name in ["security", "statuses"] {
            let count = calls.iter().filter(|call| call.queue.as_deref() == Some(name)).count();
            assert_eq!(count, 1, "{name} while {failing:?}: {}", self.name);
        }
        // The function stores messages in S3 that the catch-all queue rejects, too.
        assert!(self.class == EntryRejected || calls.iter().all(|call| call.service == Service::Sqs));
        (response, sent)
    }

    /// Compares the placements of the changes with a route and of those without. If every attempt stores the messages, each
    /// retry adds a copy.
    fn expect(&self, (response, sent): &(Response, Notification), routed: &[Placement], unrouted: &[Placement]) {
        let copies = self.webhook.copies(sent);
        for (index, copies) in copies.into_iter().enumerate() {
            let (expected, own_placement) = match index {
                1 | 4 => (&[Own][..], Own),
                2 | 5 => (unrouted, Unrouted),
                _ => (routed, Own),
            };
            let counts = |all: &[Placement]| {
                [Own, Unrouted, Diverted, Base64].map(|copy| all.iter().filter(|placement| **placement == copy).count())
            };
            let is_exact = counts(&copies) == counts(expected);
            let has_retries = self.class == TransientCommitted && !matches!(index, 1 | 4);
            let unexpected: Vec<_> =
                copies.iter().copied().filter(|copy| *copy != own_placement && *copy != Diverted).collect();
            let is_explained = has_retries && unexpected.is_empty() && copies.len() >= expected.len();
            assert!(
                is_exact || is_explained,
                "{}: change {index} is at {copies:?}, not {expected:?}; {response:?}",
                self.name
            );
        }
    }
}

#[tokio::test]
async fn unavailable_queue_is_not_tried_by_each_batch() {
    let webhook = Webhook::start();
    webhook.aws.sqs().set_latency(Duration::from_millis(30));
    let handle = webhook.queue("messages").inject_fault(Fault::access_denied(), Frequency::Always);
    let sent = Notification::of(&["messages"; 1000]);
    assert_eq!((webhook.deliver(&sent.body).await.status, webhook.copies(&sent)), (200, vec![vec![Diverted]; 1000]));
    // Only the calls that were in flight at the first error.
    assert!(handle.fired() <= 32, "{}", handle.fired());
}

#[tokio::test]
async fn only_the_rejected_entry_is_retried() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages"; 10]);
    let handle = webhook.queue("messages").inject_fault(Fault::reject_entry(4), Frequency::Once);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), vec![vec![Own]; 10]);
    let sends: Vec<_> = webhook.send_calls().iter().map(|call| call.entries).collect();
    assert_eq!((sends, handle.fired()), (vec![10, 1], 1));
}

#[tokio::test]
async fn only_a_permanently_rejected_entry_is_diverted() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages"; 10]);
    let poison = sent.changes[4].event_id.clone();
    let reject = Fault::reject_entries(move |entry| entry.attribute("event_id") == Some(&poison));
    webhook.queue("messages").inject_fault(reject.sender_fault(), Frequency::Always);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let mut expected = vec![vec![Own]; 10];
    expected[4] = vec![Diverted];
    assert_eq!(webhook.copies(&sent), expected);
    assert_eq!(webhook.send_calls().len(), 2);
}

#[tokio::test]
async fn entry_rejected_by_both_queues_is_sent_as_base64() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "security", "calls"]);
    let reject_attributes = Fault::reject_entries(|entry| entry.attributes.len() > 3).sender_fault();
    webhook.queue("messages").inject_fault(reject_attributes.clone(), Frequency::Always);
    webhook.queue("unrouted").inject_fault(reject_attributes, Frequency::Always);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), [vec![Base64], vec![Own], vec![Base64]]);
}

#[tokio::test]
async fn messages_of_a_rejected_batch_are_sent_one_by_one() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages"; 10]);
    let poison = sent.changes[4].event_id.clone();
    let has_poison = move |call: &fake_aws::IncomingCall<'_>| {
        call.entries.iter().any(|entry| entry.attribute("event_id") == Some(&poison))
    };
    webhook.queue("messages").inject_fault(Fault::error(400, "InvalidParameterValue"), Frequency::when(has_poison));
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let mut expected = vec![vec![Own]; 10];
    expected[4] = vec![Diverted];
    assert_eq!(webhook.copies(&sent), expected);
}

/// A separate call for every message would take longer than the deadline.
#[tokio::test]
async fn queue_that_rejects_most_batches_is_given_up() {
    let _turn = PROCESSOR.lock().await;
    let webhook = Webhook::start();
    webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
    webhook.aws.sqs().set_latency(Duration::from_millis(150));
    let sent = Notification::of(&["messages"; 1000]);
    let all_but_one_batch = Frequency::when(|call| call.nth > 1);
    webhook.queue("messages").inject_fault(Fault::error(400, "InvalidParameterValue"), all_but_one_batch);
    let response = webhook.deliver(&sent.body).await;
    let diverted = webhook.copies(&sent).iter().filter(|copies| copies[..] == [Diverted]).count();
    assert_eq!((response.status, diverted), (200, 990), "{response:?}");
}

#[tokio::test]
async fn slow_responses_are_awaited() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "calls"]);
    webhook.aws.sqs().inject_fault(Fault::delay_response(Duration::from_millis(1_200)), Frequency::Always);
    let response = webhook.deliver(&sent.body).await;
    assert_eq!((response.status, webhook.copies(&sent)), (200, vec![vec![Own], vec![Unrouted]]));
    let [first, second, ..] = &webhook.send_calls()[..] else { panic!("two queues, two calls") };
    assert_ne!(first.queue, second.queue, "one queue waited for the other");
}

#[tokio::test]
async fn recreated_queue_is_used_again() {
    let mut webhook = Webhook::start();
    webhook.queue("messages").delete();
    let sent = Notification::of(&["messages", "security"]);
    let response = webhook.deliver(&sent.body).await;
    assert_eq!((response.status, webhook.copies(&sent)), (200, vec![vec![Diverted], vec![Own]]));
    let line = webhook.function.wait_for_log_line("NonExistentQueue", LAMBDA_TIMEOUT).await.unwrap();
    assert!(line.contains("ERROR") && line.contains(r#""queue.name":"messages""#), "{line}");
    webhook.queues.insert("messages".to_owned(), webhook.aws.queue("messages"));
    webhook.reset();
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), [[Own], [Own]]);
}

#[tokio::test]
async fn large_notification_is_stored_despite_faults() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "messages.statuses", "security", "calls"].repeat(150));
    for (nth, fault) in [Fault::reject_entry(3), Fault::internal_error(), Fault::throttled(), Fault::drop_connection()]
        .into_iter()
        .enumerate()
    {
        webhook.aws.sqs().inject_fault(fault, Frequency::when(move |call| call.nth % 12 == 3 * nth));
    }
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    for (index, copies) in webhook.copies(&sent).iter().enumerate() {
        assert_eq!(copies[..], [if index % 4 == 3 { Unrouted } else { Own }]);
    }
}
