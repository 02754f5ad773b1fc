//! One call of `SendMessageBatch`, and what its answer means.

use std::collections::HashMap;

use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::send_message_batch::{SendMessageBatchError, SendMessageBatchOutput},
    types::{
        BatchResultErrorEntry, MessageAttributeValue, MessageSystemAttributeNameForSends::AwsTraceHeader,
        MessageSystemAttributeValue, SendMessageBatchRequestEntry,
    },
};

use super::sending::Failure;
use crate::{
    message::{Attribute, Message},
    telemetry::causes,
};

/// Parts of the codes with which SQS says that the queue, its key or the caller cannot be used, whatever is sent.
const QUEUE_AT_FAULT: [&str; 14] = [
    "AccessDenied",
    "AuthFailure",
    "DisabledException",
    "ExpiredToken",
    "InvalidAddress",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "Kms",
    "KMS",
    "NonExistentQueue",
    "OptInRequired",
    "QueueDeletedRecently",
    "QueueDoesNotExist",
    "UnsupportedOperation",
];

/// Errors of a client that are over in a moment, besides throttling.
const PASSING: [&str; 3] = ["OverLimit", "RequestTimeout", "RequestTimeoutException"];

/// Sends messages as one batch; gives for each, in their order, whether SQS stored it.
///
/// SQS answers 200 even when it stored none of the entries: only what it lists as successful is stored.
pub(super) async fn send_batch(
    client: &Client,
    queue_url: &str,
    messages: Vec<Message>,
) -> Result<Vec<Result<(), Failure>>, Failure> {
    let count = messages.len();
    let entries = messages.into_iter().enumerate().map(|(index, message)| entry(index, message)).collect();
    let sent = client.send_message_batch().queue_url(queue_url).set_entries(Some(entries)).send().await;
    sent.map(|answer| outcomes(&answer, count)).map_err(|error| failure(&error))
}

/// Makes a call without entries, which SQS can only refuse; fails where it would refuse one with entries too.
///
/// It needs the queue and the permission that a message needs, and the connection that it leaves open is as good.
pub(super) async fn send_nothing(client: &Client, queue_url: &str) -> Result<(), Failure> {
    let sent = client.send_message_batch().queue_url(queue_url).set_entries(Some(Vec::new())).send().await;
    match sent {
        Err(error) if !error.as_service_error().is_some_and(SendMessageBatchError::is_empty_batch_request) => {
            Err(failure(&error))
        }
        _ => Ok(()),
    }
}

fn entry(index: usize, message: Message) -> SendMessageBatchRequestEntry {
    let attributes = message.attributes.into_iter().map(|(name, value)| {
        let builder = MessageAttributeValue::builder().data_type(value.data_type());
        let text = match value {
            Attribute::Text(text) => text,
            Attribute::Number(number) => number.to_string(),
        };
        (name.to_owned(), builder.string_value(text).build().expect("has a data type"))
    });
    let trace = message.trace.map(|header| {
        let builder = MessageSystemAttributeValue::builder().data_type("String").string_value(header);
        HashMap::from([(AwsTraceHeader, builder.build().expect("has a data type"))])
    });
    SendMessageBatchRequestEntry::builder()
        .id(index.to_string())
        .message_body(message.body)
        .set_message_attributes(Some(attributes.collect::<HashMap<_, _>>()))
        .set_message_system_attributes(trace)
        .message_group_id(message.group_id)
        .set_message_deduplication_id(message.deduplication_id)
        .build()
        .expect("has an id and a body")
}

fn outcomes(answer: &SendMessageBatchOutput, count: usize) -> Vec<Result<(), Failure>> {
    let mut outcomes = vec![Err(Failure::Passing("the answer does not mention the entry".to_owned())); count];
    for entry in answer.failed() {
        if let Some(outcome) = at(&mut outcomes, entry.id()) {
            *outcome = Err(refusal(entry));
        }
    }
    for entry in answer.successful() {
        if let Some(outcome) = at(&mut outcomes, entry.id()) {
            *outcome = Ok(());
        }
    }
    outcomes
}

fn at<'o, T>(outcomes: &'o mut [T], id: &str) -> Option<&'o mut T> {
    outcomes.get_mut(id.parse::<usize>().ok()?)
}

fn refusal(entry: &BatchResultErrorEntry) -> Failure {
    let code = entry.code().to_owned();
    if entry.sender_fault() { Failure::Refused(code) } else { Failure::Passing(code) }
}

/// What a call that failed as a whole means for its entries. Only codes are kept: a text can quote a message.
fn failure<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> Failure {
    let SdkError::ServiceError(answer) = error else { return Failure::Passing(causes(error)) };
    let status = answer.raw().status();
    let code = answer.err().code().unwrap_or("unreadable answer");
    let reason = format!("{code} ({})", status.as_u16());
    // An answer of 200 that cannot be read is an error too: the messages may be stored, or not.
    let passing = status.is_success() || status.is_server_error() || status.as_u16() == 429;
    let no_access = matches!(status.as_u16(), 401 | 403 | 404);
    if passing || code.contains("Throttl") || PASSING.iter().any(|known| code.ends_with(known)) {
        Failure::Passing(reason)
    } else if no_access || QUEUE_AT_FAULT.iter().any(|known| code.contains(known)) {
        Failure::Unavailable(reason)
    } else {
        // Of a refusal that we do not know, something in the batch may be the cause: its entries are tried one by one.
        Failure::Blamed(reason)
    }
}
