//! The result of every fault in the SDK, and how often faults apply.

use crate::{CLIENT_TIMEOUT, code, config, entries, send, sqs};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::SdkError;
use fake_aws::{FakeAws, Fault, Frequency};
use std::time::{Duration, Instant};

/// Sends two messages with a client without retries. Returns a description of the result and the number of stored messages.
async fn send_with_fault(fault: Fault, timeout: Duration) -> (String, usize) {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), Client::new(&config(&aws, 1, timeout).await));
    let handle = queue.inject_fault(fault, Frequency::Always);
    let result = match send(&client, &queue, entries(2)).await {
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
    assert_eq!(handle.fired(), 1, "{result}");
    (result, queue.messages().len())
}

fn status(aws: &FakeAws) -> u16 {
    aws.calls()[0].status.unwrap_or_default()
}

#[tokio::test]
async fn failed_call_has_code_of_aws_and_stores_nothing() {
    let cases = [
        (Fault::internal_error(), "InternalFailure, status 500"),
        (Fault::unavailable(), "ServiceUnavailable, status 503"),
        (Fault::throttled(), "RequestThrottled, status 400"),
        (Fault::access_denied(), "AccessDenied, status 403"),
        (Fault::resource_does_not_exist(), "AWS.SimpleQueueService.NonExistentQueue, status 400"),
        (Fault::kms_disabled(), "KMS.DisabledException, status 400"),
        (Fault::error(400, "ThrottlingException"), "ThrottlingException, status 400"),
    ];
    for (fault, expected) in cases {
        assert_eq!(send_with_fault(fault, CLIENT_TIMEOUT).await, (expected.to_owned(), 0));
    }
}

#[tokio::test]
async fn connection_drops_before_or_after_commit() {
    let cases = [
        (Fault::drop_connection(), "connection broken", 0),
        (Fault::commit_then_drop(), "connection broken", 2),
        (Fault::commit_then_truncate(), "response unreadable, status 200", 2),
        // The SDK reports a success that it cannot parse as a service error.
        (Fault::commit_then_garble(), "no code, status 200", 2),
    ];
    for (fault, expected, stored) in cases {
        let name = fault.name();
        assert_eq!(send_with_fault(fault, CLIENT_TIMEOUT).await, (expected.to_owned(), stored), "{name}");
    }
}

#[tokio::test]
async fn missing_response_is_a_timeout() {
    let timeout = Duration::from_millis(400);
    let cases = [
        (Fault::hang(), 0),
        (Fault::commit_then_hang(), 2),
        (Fault::commit_then_stall(), 2),
        (Fault::delay_response(timeout * 2), 2),
    ];
    for (fault, stored) in cases {
        let name = fault.name();
        assert_eq!(send_with_fault(fault, timeout).await, ("timeout".to_owned(), stored), "{name}");
    }
}

#[tokio::test]
async fn rejected_entry_does_not_fail_the_call() {
    let cases = [
        (Fault::reject_entry(1), "1 failed", 1),
        (Fault::reject_all_entries(), "2 failed", 0),
        (Fault::reject_entries(|entry| entry.body == "body 0"), "1 failed", 1),
    ];
    for (fault, expected, stored) in cases {
        assert_eq!(send_with_fault(fault, CLIENT_TIMEOUT).await, (expected.to_owned(), stored));
    }

    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    queue.inject_fault(Fault::reject_entry(0).code("Poison").sender_fault(), Frequency::Once);
    queue.inject_fault(Fault::reject_entry(0), Frequency::Once);
    let mut failed = Vec::new();
    for _ in 0..3 {
        let output = send(&client, &queue, entries(1)).await.expect("the call succeeds");
        failed.extend(output.failed().first().map(|entry| (entry.code().to_owned(), entry.sender_fault())));
    }
    assert_eq!(failed, [("Poison".to_owned(), true), ("InternalError".to_owned(), false)]);
}

#[tokio::test]
async fn retry_after_lost_response_stores_twice() {
    for (fault, stored) in [(Fault::commit_then_drop(), 2), (Fault::drop_connection(), 1), (Fault::throttled(), 1)] {
        let aws = FakeAws::start();
        let queue = aws.queue("messages");
        let client = Client::new(&config(&aws, 3, CLIENT_TIMEOUT).await);
        queue.inject_fault(fault, Frequency::Once);
        send(&client, &queue, entries(1)).await.expect("the second attempt succeeds");
        assert_eq!((aws.calls().len(), queue.messages().len()), (2, stored), "{:?}", aws.calls()[0].fault);
    }
}

#[tokio::test]
async fn connection_drops_before_the_body_is_read() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    aws.sqs().inject_fault(Fault::drop_unread(), Frequency::Once);
    let big = vec![crate::entry("big", &"x".repeat(1_000_000))];
    let error = send(&client, &queue, big).await.expect_err("the connection breaks");
    assert!(matches!(&error, SdkError::DispatchFailure(error) if !error.is_timeout()), "{error:?}");
    let call = &aws.calls()[0];
    assert_eq!((call.bytes, call.status, call.fault), (0, None, Some("dropped before the body")));
    assert!(queue.messages().is_empty());
}

#[tokio::test]
async fn fault_applies_to_its_queue_as_often_as_requested() {
    let aws = FakeAws::start();
    let (broken, whole, client) = (aws.queue("broken"), aws.queue("whole"), sqs(&aws).await);
    let handle = broken.inject_fault(Fault::internal_error(), Frequency::Next(2));
    for expected in [false, false, true, true] {
        assert_eq!(send(&client, &broken, entries(1)).await.is_ok(), expected);
        send(&client, &whole, entries(1)).await.expect("the other queue is whole");
    }
    assert_eq!((handle.fired(), broken.messages().len(), whole.messages().len()), (2, 2, 4));

    let handle = broken.inject_fault(Fault::access_denied(), Frequency::Always);
    assert_eq!(code(send(&client, &broken, entries(1)).await), "AccessDenied");
    handle.clear();
    send(&client, &broken, entries(1)).await.expect("the fault is cleared");

    aws.sqs().inject_fault(Fault::throttled(), Frequency::when(|call| call.nth == 2 && call.entries.len() == 1));
    assert!(send(&client, &broken, entries(1)).await.is_ok());
    assert_eq!(code(send(&client, &whole, entries(1)).await), "RequestThrottled");
    aws.clear_faults();
}

#[tokio::test]
async fn random_faults_are_reproducible() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let aws = FakeAws::start();
        let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
        let handle = queue.inject_fault(Fault::internal_error(), Frequency::Random { probability: 0.25, seed: 7 });
        let mut failed = Vec::new();
        for number in 0..200 {
            if send(&client, &queue, entries(1)).await.is_err() {
                failed.push(number);
            }
        }
        assert_eq!(failed.len(), handle.fired());
        assert!((30..=70).contains(&failed.len()), "{failed:?}");
        runs.push(failed);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn latency_delays_the_response() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    send(&client, &queue, entries(1)).await.expect("the call succeeds");
    aws.sqs().set_latency(Duration::from_millis(50));
    let began = Instant::now();
    send(&client, &queue, entries(1)).await.expect("the call succeeds");
    assert!(began.elapsed() >= Duration::from_millis(50), "{:?}", began.elapsed());
}
