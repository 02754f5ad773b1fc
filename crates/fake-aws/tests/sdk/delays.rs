//! Calls that take effect only when their response is due.

use crate::{CLIENT_TIMEOUT, config, entries, entry, send};
use aws_config::SdkConfig;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use fake_aws::{FakeAws, Fault, Frequency, Queue};
use std::time::Duration;

/// The delay of the calls.
const DELAY: Duration = Duration::from_millis(1_500);

/// The settings of a client whose timeout is much shorter than the delay.
async fn short_timeout_config(aws: &FakeAws) -> SdkConfig {
    config(aws, 1, DELAY / 5).await
}

fn bodies(queue: &Queue) -> Vec<String> {
    queue.messages().iter().map(|message| message.body.clone()).collect()
}

fn in_group(id: &str, group: &str) -> SendMessageBatchRequestEntry {
    let entry = SendMessageBatchRequestEntry::builder().id(id).message_body(id).message_group_id(group);
    entry.message_deduplication_id(id).build().expect("id and body are there")
}

#[tokio::test]
async fn delayed_call_responds_after_it_takes_effect() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), Client::new(&config(&aws, 1, CLIENT_TIMEOUT).await));
    queue.inject_fault(Fault::delay_commit(Duration::from_millis(50)), Frequency::Once);
    let output = send(&client, &queue, entries(2)).await.expect("the call succeeds");
    assert_eq!((output.successful().len(), queue.messages().len()), (2, 2));
    let call = &aws.calls()[0];
    let (took, stored) = (call.duration.expect("the call has ended"), queue.messages()[0].stored_at);
    assert!(took >= Duration::from_millis(50) && stored - call.started >= Duration::from_millis(50), "{call:?}");
    assert_eq!((call.status, call.fault, call.access_key.as_deref()), (Some(200), Some("commit delayed"), Some("id")));
}

#[tokio::test]
async fn delayed_call_takes_effect_without_its_client() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), Client::new(&short_timeout_config(&aws).await));
    queue.inject_fault(Fault::delay_commit(DELAY), Frequency::Once);
    send(&client, &queue, entries(2)).await.expect_err("the client times out");
    assert_eq!(bodies(&queue), [""; 0]);
    // A second call overtakes the first.
    send(&client, &queue, vec![entry("second", "second")]).await.expect("only one call is delayed");
    aws.wait_for_delayed_commits().await;
    assert_eq!(bodies(&queue), ["second", "body 0", "body 1"]);
    let first = &aws.calls()[0];
    assert!(first.status.is_none() && first.duration.is_some_and(|took| took < DELAY), "{first:?}");
    assert_eq!(queue.messages()[1].call, first.number);
}

#[tokio::test]
async fn delayed_entries_are_stored_after_the_others() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), Client::new(&short_timeout_config(&aws).await));
    let handle = queue.inject_fault(Fault::delay_entries(DELAY, |entry| entry.body == "body 1"), Frequency::Always);
    send(&client, &queue, entries(1)).await.expect("a batch without such an entry is not affected");
    assert_eq!((handle.fired(), bodies(&queue)), (0, vec!["body 0".to_owned()]));
    send(&client, &queue, entries(3)).await.expect_err("the client times out");
    assert_eq!((handle.fired(), bodies(&queue).split_off(1)), (1, vec!["body 0".to_owned(), "body 2".to_owned()]));
    aws.wait_for_delayed_commits().await;
    assert_eq!(bodies(&queue).split_off(3), ["body 1"]);

    let client = Client::new(&config(&aws, 1, CLIENT_TIMEOUT).await);
    let output = send(&client, &queue, entries(3)).await.expect("the response follows when all are stored");
    let ids: Vec<_> = output.successful().iter().map(|result| result.id.clone()).collect();
    assert_eq!((ids.join(" "), output.failed().len()), ("e0 e1 e2".to_owned(), 0));
    assert_eq!(bodies(&queue).split_off(4), ["body 0", "body 2", "body 1"]);
}

#[tokio::test]
async fn delayed_entry_delays_its_message_group() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages.fifo"), Client::new(&short_timeout_config(&aws).await));
    queue.inject_fault(Fault::delay_entries(DELAY, |entry| entry.body == "a1"), Frequency::Once);
    let batch = || [("a0", "a"), ("a1", "a"), ("b0", "b"), ("a2", "a")].map(|(id, group)| in_group(id, group)).to_vec();
    send(&client, &queue, batch()).await.expect_err("the client times out");
    assert_eq!(bodies(&queue), ["a0", "b0"]);
    aws.wait_for_delayed_commits().await;
    assert_eq!(bodies(&queue), ["a0", "b0", "a1", "a2"]);
    // The deduplication ids of delayed messages are remembered.
    send(&client, &queue, batch()).await.expect("only one call is delayed");
    assert_eq!(bodies(&queue).len(), 4);
}

#[tokio::test]
async fn delayed_call_to_deleted_queue_fails() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), Client::new(&config(&aws, 1, CLIENT_TIMEOUT).await));
    queue.inject_fault(Fault::delay_commit(DELAY), Frequency::Once);
    let deletion = async {
        while aws.calls().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        queue.delete();
    };
    let (sent, ()) = tokio::join!(send(&client, &queue, entries(1)), deletion);
    assert!(sent.expect_err("the queue was deleted").into_service_error().is_queue_does_not_exist());
}

#[tokio::test]
async fn calls_to_s3_and_secrets_manager_can_be_delayed() {
    let aws = FakeAws::start();
    let (bucket, short_timeout) = (aws.bucket("payloads"), short_timeout_config(&aws).await);
    aws.s3().inject_fault(Fault::delay_commit(DELAY), Frequency::Once);
    let client = aws_sdk_s3::Client::from_conf(Builder::from(&short_timeout).force_path_style(true).build());
    let put = client.put_object().bucket("payloads").key("k").body(ByteStream::from_static(b"b"));
    put.send().await.expect_err("the client times out");
    assert_eq!(bucket.objects().len(), 0);
    aws.wait_for_delayed_commits().await;
    assert_eq!(bucket.object("k").expect("it is stored").body, b"b".as_slice());

    // A delayed call returns the value at the end of the delay.
    aws.set_secret("ingress", "old");
    aws.secrets().inject_fault(Fault::delay_commit(DELAY), Frequency::Once);
    let client = aws_sdk_secretsmanager::Client::new(&config(&aws, 1, CLIENT_TIMEOUT).await);
    let change = async {
        while aws.calls().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        aws.set_secret("ingress", "new");
    };
    let (value, ()) = tokio::join!(client.get_secret_value().secret_id("ingress").send(), change);
    assert_eq!(value.expect("the secret is there").secret_string(), Some("new"));
}

#[tokio::test]
async fn fault_can_exclude_empty_batches() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), Client::new(&short_timeout_config(&aws).await));
    let handle = queue.inject_fault(Fault::hang(), Frequency::when(|call| !call.entries.is_empty()));
    let empty = send(&client, &queue, vec![]).await.expect_err("SQS rejects an empty batch");
    assert!(empty.into_service_error().is_empty_batch_request());
    send(&client, &queue, entries(1)).await.expect_err("the client times out");
    assert_eq!((handle.fired(), aws.calls()[0].status), (1, Some(400)));
}
