//! Queues that fail in every way there is: on a field's queue, on the catch-all, on both.
//!
//! A notification for two queues that work and one, or both, that do not: nothing is lost, the answer comes in time,
//! 503 is said only when the catch-all fails too, and the queues that work are called once, as if nothing were.

use std::time::Duration;

use fake_aws::{Fault, Service, Times};
use futures_util::future::join_all;

use crate::{
    notification::Notification,
    stored::Copy::{self, Bare, Diverted, Own, Unrouted},
    webhook::{Answer, LAMBDA_TIMEOUT, Webhook},
};

/// A third is left after the margin; half of that is what a field's queue gets to come back.
const DEADLINE: Duration = Duration::from_secs(4);

/// What SQS said, in the three ways that ask for three reactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// May be over in a moment.
    Passing,
    /// May be over in a moment, and each call stores all the same.
    PassingStored,
    /// The queue cannot be used.
    Broken,
    /// The messages are wrong.
    Refused,
}
use Kind::{Broken, Passing, PassingStored, Refused};

#[tokio::test]
async fn errors_that_pass_are_waited_for_then_routed_around() {
    run(vec![
        (Passing, Fault::refuse_all_entries()),
        (Passing, Fault::internal_error()),
        (Passing, Fault::unavailable()),
        (Passing, Fault::throttled()),
        (Passing, Fault::error(403, "ThrottlingException")),
        (Passing, Fault::error(403, "RequestThrottled")),
        (Passing, Fault::error(400, "KMS.ThrottlingException")),
        (Passing, Fault::error(429, "TooManyRequestsException")),
        (Passing, Fault::drop_connection()),
        (Passing, Fault::hang()),
    ])
    .await;
}

#[tokio::test]
async fn answers_that_are_lost_or_unreadable_cost_nothing_but_a_copy() {
    run(vec![
        (PassingStored, Fault::store_and_drop()),
        (PassingStored, Fault::store_and_hang()),
        (PassingStored, Fault::store_and_truncate()),
        (PassingStored, Fault::store_and_stall()),
        (PassingStored, Fault::store_and_garble()),
        (PassingStored, Fault::store_and_answer(200, "{}")),
        (PassingStored, Fault::store_and_answer(200, "")),
        (PassingStored, Fault::store_and_answer(200, r#"{"Successful":null,"Failed":null}"#)),
        (
            PassingStored,
            Fault::store_and_answer(200, r#"{"Successful":[{"Id":"7","MessageId":"m","MD5OfMessageBody":"d"}]}"#),
        ),
        (PassingStored, Fault::store_and_answer(502, "<html><h1>Bad Gateway</h1></html>")),
        (PassingStored, Fault::slow(DEADLINE)),
    ])
    .await;
}

#[tokio::test]
async fn queues_that_cannot_be_used_and_messages_that_are_wrong_are_routed_around_at_once() {
    run(vec![
        (Broken, Fault::access_denied()),
        (Broken, Fault::queue_does_not_exist()),
        (Broken, Fault::kms_disabled()),
        (Broken, Fault::error(400, "KMS.AccessDeniedException")),
        (Broken, Fault::error(403, "InvalidClientTokenId")),
        (Refused, Fault::refuse_all_entries().code("InvalidMessageContents").senders_fault()),
        (Refused, Fault::error(400, "InvalidMessageContents")),
        (Refused, Fault::error(400, "AWS.SimpleQueueService.BatchRequestTooLong")),
    ])
    .await;
}

async fn run(faults: Vec<(Kind, Fault)>) {
    join_all(faults.into_iter().map(async |(kind, fault)| {
        let case = Case { webhook: Webhook::start(), name: fault.name(), kind, fault };
        case.once_on_the_fields_queue().await;
        case.always_on_the_fields_queue().await;
        case.once_on_the_catch_all().await;
        case.always_on_the_catch_all().await;
        case.always_on_both().await;
    }))
    .await;
}

struct Case {
    webhook: Webhook,
    name: &'static str,
    kind: Kind,
    fault: Fault,
}

impl Case {
    async fn once_on_the_fields_queue(&self) {
        let answer = self.deliver(&["messages"], &|| Times::Once).await;
        assert_eq!(answer.0.status, 200, "{}", self.name);
        match self.kind {
            Passing => self.expect(&answer, &[Own], &[Unrouted]),
            PassingStored => self.expect(&answer, &[Own, Own], &[Unrouted]),
            // What blames the batch and not an entry is tried again one by one.
            Refused if self.name == "error" => self.expect(&answer, &[Own], &[Unrouted]),
            Broken | Refused => self.expect(&answer, &[Diverted], &[Unrouted]),
        }
    }

    async fn always_on_the_fields_queue(&self) {
        let answer = self.deliver(&["messages"], &|| Times::Always).await;
        assert_eq!(answer.0.status, 200, "{}", self.name);
        self.expect(&answer, &[Diverted], &[Unrouted]);
    }

    async fn once_on_the_catch_all(&self) {
        let answer = self.deliver(&["unrouted"], &|| Times::Once).await;
        match self.kind {
            Passing => self.expect(&answer, &[Own], &[Unrouted]),
            PassingStored => self.expect(&answer, &[Own], &[Unrouted, Unrouted]),
            Refused if self.name == "error" => self.expect(&answer, &[Own], &[Unrouted]),
            Refused => self.expect(&answer, &[Own], &[Bare]),
            Broken => self.expect(&answer, &[Own], &[]),
        }
        assert_eq!(answer.0.status, if self.kind == Broken { 503 } else { 200 }, "{}", self.name);
    }

    async fn always_on_the_catch_all(&self) {
        let answer = self.deliver(&["unrouted"], &|| Times::Always).await;
        assert_eq!(answer.0.status, 503, "{}", self.name);
        self.expect(&answer, &[Own], &[]);
    }

    async fn always_on_both(&self) {
        let answer = self.deliver(&["messages", "unrouted"], &|| Times::Always).await;
        assert_eq!(answer.0.status, 503, "{}", self.name);
        self.expect(&answer, &[], &[]);
    }

    /// Delivers three changes for the field's queue, one each for two that work, and two without a route.
    async fn deliver(&self, failing: &[&str], times: &dyn Fn() -> Times) -> (Answer, Notification) {
        self.webhook.reset();
        self.webhook.function.ready(DEADLINE).await.unwrap();
        let before = self.webhook.aws.calls().len();
        for name in failing {
            self.webhook.queue(name).fault(self.fault.clone(), times());
        }
        let sent =
            Notification::of(&["messages", "security", "calls", "messages", "messages.statuses", "flows", "messages"]);
        let answer = self.webhook.deliver_within(&sent.body, DEADLINE).await;
        let calls = self.webhook.aws.calls().split_off(before);
        for name in ["security", "statuses"] {
            let of_this = calls.iter().filter(|call| call.queue.as_deref() == Some(name)).count();
            assert_eq!(of_this, 1, "{name} while {failing:?}: {}", self.name);
        }
        // Bytes that even the catch-all refuses are tried in S3.
        assert!(self.kind == Refused || calls.iter().all(|call| call.service == Service::Sqs));
        (answer, sent)
    }

    /// Compares where the copies are: those of the field's queue, and those without a route. Where each call stores
    /// although it fails, there may be as many more as it was tried.
    fn expect(&self, (answer, sent): &(Answer, Notification), of_field: &[Copy], unrouted: &[Copy]) {
        let copies = self.webhook.copies(sent);
        for (at, copies) in copies.into_iter().enumerate() {
            let (expected, home) = match at {
                1 | 4 => (&[Own][..], Own),
                2 | 5 => (unrouted, Unrouted),
                _ => (of_field, Own),
            };
            let counts =
                |all: &[Copy]| [Own, Unrouted, Diverted, Bare].map(|copy| all.iter().filter(|of| **of == copy).count());
            let exact = counts(&copies) == counts(expected);
            let tried = self.kind == PassingStored && !matches!(at, 1 | 4);
            let but_home: Vec<_> = copies.iter().copied().filter(|copy| *copy != home && *copy != Diverted).collect();
            let explained = tried && but_home.is_empty() && copies.len() >= expected.len();
            assert!(exact || explained, "{}: change {at} is at {copies:?}, not {expected:?}; {answer:?}", self.name);
        }
    }
}

#[tokio::test]
async fn a_queue_that_cannot_be_used_is_found_out_once_not_by_each_batch() {
    let webhook = Webhook::start();
    webhook.aws.sqs().set_latency(Duration::from_millis(30));
    let injected = webhook.queue("messages").fault(Fault::access_denied(), Times::Always);
    let sent = Notification::of(&["messages"; 1000]);
    assert_eq!((webhook.deliver(&sent.body).await.status, webhook.copies(&sent)), (200, vec![vec![Diverted]; 1000]));
    // All that were under way when the first was answered.
    assert!(injected.fired() <= 32, "{}", injected.fired());
}

#[tokio::test]
async fn one_refused_entry_is_tried_again_alone_and_its_neighbours_are_not() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages"; 10]);
    let injected = webhook.queue("messages").fault(Fault::refuse_entry(4), Times::Once);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), vec![vec![Own]; 10]);
    let sends: Vec<_> = webhook.sends().iter().map(|call| call.entries).collect();
    assert_eq!((sends, injected.fired()), (vec![10, 1], 1));
}

#[tokio::test]
async fn a_poisoned_message_is_diverted_at_once_and_its_neighbours_are_stored() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages"; 10]);
    let poison = sent.changes[4].event_id.clone();
    let refuse = Fault::refuse_entries(move |entry| entry.attribute("event_id") == Some(&poison));
    webhook.queue("messages").fault(refuse.senders_fault(), Times::Always);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let mut expected = vec![vec![Own]; 10];
    expected[4] = vec![Diverted];
    assert_eq!(webhook.copies(&sent), expected);
    assert_eq!(webhook.sends().len(), 2);
}

#[tokio::test]
async fn what_even_the_catch_all_refuses_is_kept_there_in_its_barest_form() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "security", "calls"]);
    let contract = Fault::refuse_entries(|entry| entry.attributes.len() > 2).senders_fault();
    webhook.queue("messages").fault(contract.clone(), Times::Always);
    webhook.queue("unrouted").fault(contract, Times::Always);
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), [vec![Bare], vec![Own], vec![Bare]]);
}

#[tokio::test]
async fn a_batch_that_is_blamed_as_a_whole_is_sent_one_by_one() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages"; 10]);
    let poison = sent.changes[4].event_id.clone();
    let has_poison = move |call: &fake_aws::Incoming<'_>| {
        call.entries.iter().any(|entry| entry.attribute("event_id") == Some(&poison))
    };
    webhook.queue("messages").fault(Fault::error(400, "InvalidParameterValue"), Times::when(has_poison));
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    let mut expected = vec![vec![Own]; 10];
    expected[4] = vec![Diverted];
    assert_eq!(webhook.copies(&sent), expected);
}

/// Asked about each message alone, the queue would use up the whole time.
#[tokio::test]
async fn a_queue_that_blames_most_messages_is_given_up_at_half_of_the_time() {
    let webhook = Webhook::start();
    webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
    webhook.aws.sqs().set_latency(Duration::from_millis(150));
    let sent = Notification::of(&["messages"; 1000]);
    let all_but_one_batch = Times::when(|call| call.nth > 1);
    webhook.queue("messages").fault(Fault::error(400, "InvalidParameterValue"), all_but_one_batch);
    let answer = webhook.deliver(&sent.body).await;
    let diverted = webhook.copies(&sent).iter().filter(|copies| copies[..] == [Diverted]).count();
    assert_eq!((answer.status, diverted), (200, 990), "{answer:?}");
}

#[tokio::test]
async fn slow_answers_are_waited_for() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "calls"]);
    webhook.aws.sqs().fault(Fault::slow(Duration::from_millis(1_200)), Times::Always);
    let answer = webhook.deliver(&sent.body).await;
    assert_eq!((answer.status, webhook.copies(&sent)), (200, vec![vec![Own], vec![Unrouted]]));
    let [first, second, ..] = &webhook.sends()[..] else { panic!("two queues, two calls") };
    assert_ne!(first.queue, second.queue, "a queue waits for the other");
}

#[tokio::test]
async fn a_queue_that_is_really_gone_and_comes_back_is_used_again() {
    let mut webhook = Webhook::start();
    webhook.queue("messages").delete();
    let sent = Notification::of(&["messages", "security"]);
    let answer = webhook.deliver(&sent.body).await;
    assert_eq!((answer.status, webhook.copies(&sent)), (200, vec![vec![Diverted], vec![Own]]));
    let line = webhook.function.log_line("NonExistentQueue", LAMBDA_TIMEOUT).await.unwrap();
    assert!(line.contains("ERROR") && line.contains(r#""queue.name":"messages""#), "{line}");
    webhook.queues.insert("messages".to_owned(), webhook.aws.queue("messages"));
    webhook.reset();
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    assert_eq!(webhook.copies(&sent), [[Own], [Own]]);
}

#[tokio::test]
async fn a_large_notification_gets_through_a_service_that_fails_every_third_call() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages", "messages.statuses", "security", "calls"].repeat(150));
    for (nth, fault) in [Fault::refuse_entry(3), Fault::internal_error(), Fault::throttled(), Fault::drop_connection()]
        .into_iter()
        .enumerate()
    {
        webhook.aws.sqs().fault(fault, Times::when(move |call| call.nth % 12 == 3 * nth));
    }
    assert_eq!(webhook.deliver(&sent.body).await.status, 200);
    for (at, copies) in webhook.copies(&sent).iter().enumerate() {
        assert_eq!(copies[..], [if at % 4 == 3 { Unrouted } else { Own }]);
    }
}
