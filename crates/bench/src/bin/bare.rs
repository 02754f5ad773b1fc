//! A function that only calls SQS. It returns the time of one `SendMessageBatch` of the SDK in microseconds.

use std::{convert::Infallible, time::Instant};

use aws_config::{BehaviorVersion, retry::RetryConfig};
use aws_sdk_sqs::{Client, types::SendMessageBatchRequestEntry};
use lambda_http::{Body, Error, Request, Response, service_fn};

/// The size of the message, which is that of one change for the other functions.
const BODY_BYTES: usize = 600;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let config = aws_config::defaults(BehaviorVersion::latest()).retry_config(RetryConfig::disabled()).load().await;
    let (client, queue) = (Client::new(&config), std::env::var("BARE_QUEUE_URL")?);
    lambda_http::run(service_fn(|_: Request| async {
        let text = call(&client, &queue).await.unwrap_or_else(|error| error.to_string());
        Ok::<_, Infallible>(Response::new(Body::Text(text)))
    }))
    .await
}

async fn call(client: &Client, queue: &str) -> Result<String, Error> {
    let entry = SendMessageBatchRequestEntry::builder().id("0").message_body("x".repeat(BODY_BYTES)).build()?;
    let started = Instant::now();
    client.send_message_batch().queue_url(queue).entries(entry).send().await?;
    Ok(started.elapsed().as_micros().to_string())
}
