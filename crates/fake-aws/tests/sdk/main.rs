//! Tests with the AWS SDK: its client accepts the limits, results and faults of the fake as those of AWS.

mod connections;
mod delays;
mod faults;
mod limits;
mod objects;
mod secrets;
mod sending;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::Credentials;
use aws_sdk_sqs::error::SdkError;
use aws_sdk_sqs::operation::send_message_batch::{SendMessageBatchError, SendMessageBatchOutput};
use aws_sdk_sqs::types::{MessageAttributeValue, SendMessageBatchRequestEntry};
use fake_aws::{FakeAws, Queue};
use std::time::Duration;

/// Long enough for every response on loopback, also on a busy machine.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

async fn config(aws: &FakeAws, attempts: u32, timeout: Duration) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .endpoint_url(aws.endpoint())
        .retry_config(
            RetryConfig::standard().with_max_attempts(attempts).with_initial_backoff(Duration::from_millis(1)),
        )
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(timeout).build())
        .load()
        .await
}

/// A client without retries.
async fn sqs(aws: &FakeAws) -> aws_sdk_sqs::Client {
    aws_sdk_sqs::Client::new(&config(aws, 1, CLIENT_TIMEOUT).await)
}

async fn send(
    client: &aws_sdk_sqs::Client,
    queue: &Queue,
    entries: Vec<SendMessageBatchRequestEntry>,
) -> Result<SendMessageBatchOutput, SdkError<SendMessageBatchError>> {
    client.send_message_batch().queue_url(queue.url()).set_entries(Some(entries)).send().await
}

fn entry(id: &str, body: &str) -> SendMessageBatchRequestEntry {
    SendMessageBatchRequestEntry::builder().id(id).message_body(body).build().expect("id and body are there")
}

fn entries(count: usize) -> Vec<SendMessageBatchRequestEntry> {
    (0..count).map(|number| entry(&format!("e{number}"), &format!("body {number}"))).collect()
}

fn attribute(data_type: &str, value: &str) -> MessageAttributeValue {
    MessageAttributeValue::builder().data_type(data_type).string_value(value).build().expect("a type is there")
}

/// Returns the error code of a failed call.
fn code<T: std::fmt::Debug, E>(result: Result<T, SdkError<E>>) -> String
where
    E: aws_sdk_sqs::error::ProvideErrorMetadata + std::fmt::Debug,
{
    let error = result.expect_err("the call fails");
    error.as_service_error().and_then(|error| error.code()).map_or_else(|| format!("{error:?}"), str::to_owned)
}
