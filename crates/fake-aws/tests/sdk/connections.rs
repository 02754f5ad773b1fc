//! Counts of connections and concurrent calls, and closed connections.

use crate::{entries, send, sqs};
use fake_aws::FakeAws;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

#[tokio::test]
async fn concurrent_calls_and_connections_are_counted() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    for _ in 0..5 {
        send(&client, &queue, entries(1)).await.expect("the call succeeds");
    }
    assert_eq!((aws.peak_calls(), aws.accepted_connections()), (1, 1));

    aws.sqs().set_latency(Duration::from_millis(100));
    let (first, second, third) = tokio::join!(
        send(&client, &queue, entries(1)),
        send(&client, &queue, entries(1)),
        send(&client, &queue, entries(1))
    );
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!((aws.peak_calls(), aws.peak_connections(), aws.open_connections()), (3, 3, 3));
    aws.reset_peaks();
    assert_eq!((aws.peak_calls(), aws.peak_connections()), (0, 3));
}

#[tokio::test]
async fn client_reconnects_after_idle_connections_close() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    send(&client, &queue, entries(1)).await.expect("the call succeeds");
    aws.close_idle_connections();
    sleep(Duration::from_millis(100)).await; // until the client has noticed
    assert_eq!(aws.open_connections(), 0);
    send(&client, &queue, entries(1)).await.expect("the client opens another");
    assert_eq!(aws.accepted_connections(), 2);
}

#[tokio::test]
async fn dropped_fake_stops_listening() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    send(&client, &queue, entries(1)).await.expect("the call succeeds");
    drop(aws);
    for _ in 0..200 {
        if send(&client, &queue, entries(1)).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("the fake still answers");
}

#[tokio::test]
async fn unsigned_call_is_rejected() {
    let aws = FakeAws::start();
    let address = aws.endpoint().replace("http://", "");
    let mut stream = TcpStream::connect(&address).await.expect("the fake listens");
    let call = "POST / HTTP/1.1\r\nhost: fake\r\nx-amz-target: AmazonSQS.SendMessageBatch\r\nconnection: close\r\n\r\n";
    stream.write_all(call.as_bytes()).await.expect("the fake reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the fake answers");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("x-amzn-query-error: AccessDenied;Sender"), "{answer}");
}
