//! Polls a queue of messages and receipts: works on each item once, then deletes the message. One that fails comes back.

use std::{env, io::Write as _, path::Path, time::Duration};

use aws_config::BehaviorVersion;
use aws_sdk_sqs::types::Message as Received;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, from_value};

mod claim_check;
mod failure;
mod handled;
mod notification;

use failure::{Failure, describe};
use handled::Handled;
use notification::{Content, Error, Message, Receipt, items};

/// After a call that failed, which the SDK has tried three times.
const PAUSE: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let queue_url = env::var("QUEUE_URL").map_err(|_| "QUEUE_URL is not set")?;
    let handled_file = env::var("HANDLED_FILE").map_err(|_| "HANDLED_FILE is not set")?;
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let sqs = aws_sdk_sqs::Client::new(&aws);
    let s3 = claim_check::client(&aws);
    let mut handled = Handled::open(Path::new(&handled_file)).map_err(|error| format!("{handled_file}: {error}"))?;
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
            if let Err(error) = handle(&s3, &message, &mut handled).await {
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

async fn handle(s3: &aws_sdk_s3::Client, message: &Received, handled: &mut Handled) -> Result<(), Failure> {
    let attribute = |name: &str| message.message_attributes.as_ref()?.get(name)?.string_value();
    let mut body = message.body().unwrap_or_default().to_owned().into_bytes();
    if attribute("ExtendedPayloadSize").is_some() {
        body = claim_check::body(s3, &body).await?;
    }
    if attribute("encoding") == Some("base64") {
        body = BASE64_STANDARD.decode(body)?;
    }
    // Copies of a change have the same event_id.
    let event_id = attribute("event_id").ok_or("there is no event_id")?;
    let mut result = Ok(());
    for (list, position, item) in items(&body)? {
        // An item that fails does not hold up the others. They are skipped when the message comes back.
        if let Err(error) = handled.once(format!("{event_id}/{list}/{position}"), |key| work(list, item, key)) {
            result = Err(error);
        }
    }
    result
}

/// The place for your own code; copies have the same key.
fn work(list: &str, item: Value, key: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if list == "messages" {
        let message: Message = from_value(item)?;
        let what = match message.content {
            Content::Text { text } => format!("{} characters", text.body.chars().count()),
            Content::Image { image } => format!("a picture, {}", image.mime_type),
            Content::Other => "something else".to_owned(),
        };
        writeln!(out, "{key} message {}: {what}", message.id)?;
    } else if list == "statuses" {
        let receipt: Receipt = from_value(item)?;
        writeln!(out, "{key} receipt {}: {:?}", receipt.id, receipt.status)?;
    } else {
        let error: Error = from_value(item)?;
        writeln!(out, "{key} error {}: {}", error.code, error.title)?;
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
