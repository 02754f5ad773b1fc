//! Every fault as the SDK sees it, and the counting of faults.

use crate::{PATIENCE, code, config, entries, send, sqs};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::SdkError;
use fake_aws::{FakeAws, Fault, Times};
use std::time::{Duration, Instant};

/// What a client that tries once makes of a call with a fault, and how many of its two messages are stored.
async fn seen(fault: Fault, patience: Duration) -> (String, usize) {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), Client::new(&config(&aws, 1, patience).await));
    let injected = queue.fault(fault, Times::Always);
    let kind = match send(&client, &queue, entries(2)).await {
        Ok(output) => format!("{} failed", output.failed().len()),
        Err(SdkError::DispatchFailure(error)) if !error.is_timeout() => "connection broken".to_owned(),
        Err(SdkError::TimeoutError(_)) => "timeout".to_owned(),
        Err(SdkError::ResponseError(error)) => format!("response unreadable, status {}", error.raw().status()),
        Err(SdkError::ServiceError(error)) => {
            let error = error.err();
            format!("{}, status {}", error.meta().code().unwrap_or("no code"), status(&aws))
        }
        Err(error) => format!("{error:?}"),
    };
    assert_eq!(injected.fired(), 1, "{kind}");
    (kind, queue.messages().len())
}

fn status(aws: &FakeAws) -> u16 {
    aws.calls()[0].status.unwrap_or_default()
}

#[tokio::test]
async fn failing_calls_store_nothing_and_carry_the_code_of_aws() {
    let cases = [
        (Fault::internal_error(), "InternalFailure, status 500"),
        (Fault::unavailable(), "ServiceUnavailable, status 503"),
        (Fault::throttled(), "RequestThrottled, status 400"),
        (Fault::access_denied(), "AccessDenied, status 403"),
        (Fault::queue_does_not_exist(), "AWS.SimpleQueueService.NonExistentQueue, status 400"),
        (Fault::kms_disabled(), "KMS.DisabledException, status 400"),
        (Fault::error(400, "ThrottlingException"), "ThrottlingException, status 400"),
    ];
    for (fault, expected) in cases {
        assert_eq!(seen(fault, PATIENCE).await, (expected.to_owned(), 0));
    }
}

#[tokio::test]
async fn broken_connections_break_before_or_after_the_messages_are_stored() {
    let cases = [
        (Fault::drop_connection(), "connection broken", 0),
        (Fault::store_and_drop(), "connection broken", 2),
        (Fault::store_and_truncate(), "response unreadable, status 200", 2),
        // The SDK takes a success that it cannot read for an error of the service.
        (Fault::store_and_garble(), "no code, status 200", 2),
    ];
    for (fault, expected, stored) in cases {
        let name = fault.name();
        assert_eq!(seen(fault, PATIENCE).await, (expected.to_owned(), stored), "{name}");
    }
}

#[tokio::test]
async fn answers_that_do_not_come_in_time_are_timeouts_whether_the_messages_are_stored_or_not() {
    let patience = Duration::from_millis(400);
    let cases = [
        (Fault::hang(), 0),
        (Fault::store_and_hang(), 2),
        (Fault::store_and_stall(), 2),
        (Fault::slow(patience * 2), 2),
    ];
    for (fault, stored) in cases {
        let name = fault.name();
        assert_eq!(seen(fault, patience).await, ("timeout".to_owned(), stored), "{name}");
    }
}

#[tokio::test]
async fn refused_entries_fail_alone_in_a_call_that_succeeds() {
    let cases = [
        (Fault::refuse_entry(1), "1 failed", 1),
        (Fault::refuse_all_entries(), "2 failed", 0),
        (Fault::refuse_entries(|entry| entry.body == "body 0"), "1 failed", 1),
    ];
    for (fault, expected, stored) in cases {
        assert_eq!(seen(fault, PATIENCE).await, (expected.to_owned(), stored));
    }

    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    queue.fault(Fault::refuse_entry(0).code("Poison").senders_fault(), Times::Once);
    queue.fault(Fault::refuse_entry(0), Times::Once);
    let mut failed = Vec::new();
    for _ in 0..3 {
        let output = send(&client, &queue, entries(1)).await.expect("the call succeeds");
        failed.extend(output.failed().first().map(|entry| (entry.code().to_owned(), entry.sender_fault())));
    }
    assert_eq!(failed, [("Poison".to_owned(), true), ("InternalError".to_owned(), false)]);
}

#[tokio::test]
async fn a_retry_after_a_lost_answer_stores_twice_and_after_a_lost_call_once() {
    for (fault, stored) in [(Fault::store_and_drop(), 2), (Fault::drop_connection(), 1), (Fault::throttled(), 1)] {
        let aws = FakeAws::start();
        let queue = aws.queue("messages");
        let client = Client::new(&config(&aws, 3, PATIENCE).await);
        queue.fault(fault, Times::Once);
        send(&client, &queue, entries(1)).await.expect("the second attempt succeeds");
        assert_eq!((aws.calls().len(), queue.messages().len()), (2, stored), "{:?}", aws.calls()[0].fault);
    }
}

#[tokio::test]
async fn a_connection_can_break_before_the_call_is_read() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    aws.sqs().fault(Fault::drop_unread(), Times::Once);
    let big = vec![crate::entry("big", &"x".repeat(1_000_000))];
    let error = send(&client, &queue, big).await.expect_err("the connection breaks");
    assert!(matches!(&error, SdkError::DispatchFailure(error) if !error.is_timeout()), "{error:?}");
    let call = &aws.calls()[0];
    assert_eq!((call.bytes, call.status, call.fault), (0, None, Some("dropped unread")));
    assert!(queue.messages().is_empty());
}

#[tokio::test]
async fn faults_hit_their_queue_only_and_as_often_as_told() {
    let aws = FakeAws::start();
    let (broken, whole, client) = (aws.queue("broken"), aws.queue("whole"), sqs(&aws).await);
    let injected = broken.fault(Fault::internal_error(), Times::Next(2));
    for expected in [false, false, true, true] {
        assert_eq!(send(&client, &broken, entries(1)).await.is_ok(), expected);
        send(&client, &whole, entries(1)).await.expect("the other queue is whole");
    }
    assert_eq!((injected.fired(), broken.messages().len(), whole.messages().len()), (2, 2, 4));

    let injected = broken.fault(Fault::access_denied(), Times::Always);
    assert_eq!(code(send(&client, &broken, entries(1)).await), "AccessDenied");
    injected.clear();
    send(&client, &broken, entries(1)).await.expect("the fault is cleared");

    aws.sqs().fault(Fault::throttled(), Times::when(|call| call.nth == 2 && call.entries.len() == 1));
    assert!(send(&client, &broken, entries(1)).await.is_ok());
    assert_eq!(code(send(&client, &whole, entries(1)).await), "RequestThrottled");
    aws.clear_faults();
}

#[tokio::test]
async fn chance_is_repeatable_and_about_as_frequent_as_told() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let aws = FakeAws::start();
        let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
        let injected = queue.fault(Fault::internal_error(), Times::Chance { probability: 0.25, seed: 7 });
        let mut failed = Vec::new();
        for number in 0..200 {
            if send(&client, &queue, entries(1)).await.is_err() {
                failed.push(number);
            }
        }
        assert_eq!(failed.len(), injected.fired());
        assert!((30..=70).contains(&failed.len()), "{failed:?}");
        runs.push(failed);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn latency_is_that_of_the_service() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    send(&client, &queue, entries(1)).await.expect("the call succeeds");
    aws.sqs().set_latency(Duration::from_millis(50));
    let began = Instant::now();
    send(&client, &queue, entries(1)).await.expect("the call succeeds");
    assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
}
