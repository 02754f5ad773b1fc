//! Polls a queue of messages and receipts: work first, then the message is deleted; what fails comes back.

use std::{env, io::Write as _, time::Duration};

use aws_config::BehaviorVersion;
use aws_sdk_sqs::types::Message;

mod claim_check;
mod failure;
mod notification;

use failure::{Failure, describe};
use notification::{Content, Notification};

/// After a call that failed, which the SDK has tried three times.
const PAUSE: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let queue_url = env::var("QUEUE_URL").map_err(|_| "QUEUE_URL is not set")?;
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let sqs = aws_sdk_sqs::Client::new(&aws);
    let s3 = claim_check::client(&aws);
    let mut end = std::pin::pin!(end());
    loop {
        let receive = sqs.receive_message().queue_url(&queue_url).message_attribute_names("All");
        let receive = receive.max_number_of_messages(10).wait_time_seconds(20);
        // Nothing is taken off the queue after the signal; what was received before is still worked on.
        let received = tokio::select! {
            received = receive.send() => received,
            () = &mut end => return Ok(()),
        };
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                eprintln!("nothing received: {}", describe(error));
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        for message in received.messages.unwrap_or_default() {
            if let Err(error) = handle(&s3, &message).await {
                eprintln!("not handled: {error}");
                continue;
            }
            let receipt = message.receipt_handle.unwrap_or_default();
            let delete = sqs.delete_message().queue_url(&queue_url).receipt_handle(receipt);
            if let Err(error) = delete.send().await {
                eprintln!("not deleted, and so to come again: {}", describe(error));
            }
        }
    }
}

async fn handle(s3: &aws_sdk_s3::Client, message: &Message) -> Result<(), Failure> {
    let attribute = |name: &str| message.message_attributes.as_ref()?.get(name)?.string_value();
    let mut body = message.body().unwrap_or_default().to_owned();
    if attribute("ExtendedPayloadSize").is_some() {
        body = claim_check::body(s3, &body).await?;
    }
    let notification: Notification = serde_json::from_str(&body)?;
    work(&notification, attribute("event_id").ok_or("there is no event_id")?)
}

/// The place for your own code; the event's id tells a copy.
fn work(notification: &Notification, event_id: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let [entry] = &notification.entry;
    let [change] = &entry.changes;
    for message in &change.value.messages {
        let what = match &message.content {
            Content::Text { text } => format!("{} characters", text.body.chars().count()),
            Content::Image { image } => format!("a picture, {}", image.mime_type),
            Content::Other => "something else".to_owned(),
        };
        writeln!(out, "{event_id} message {}: {what}", message.id)?;
    }
    for receipt in &change.value.statuses {
        writeln!(out, "{event_id} receipt {}: {:?}", receipt.id, receipt.status)?;
    }
    for error in &change.value.errors {
        writeln!(out, "{event_id} error {}: {}", error.code, error.title)?;
    }
    Ok(())
}

/// Ends with Ctrl-C or SIGTERM.
async fn end() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => (),
        _ = terminate.recv() => (),
    }
}
