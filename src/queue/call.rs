//! One call of `SendMessageBatch`, and what its answer means.

use std::borrow::Cow;

use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::send_message_batch::{SendMessageBatchError, SendMessageBatchOutput},
    types::BatchResultErrorEntry,
};
use bytes::Bytes;
use serde::{Serialize, Serializer};

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
    let (body, count) = (body(queue_url, &messages), messages.len());
    drop(messages);
    call(client, body).await.map(|answer| outcomes(&answer, count)).map_err(|error| failure(&error))
}

/// Makes a call without entries, which SQS can only refuse; fails where it would refuse one with entries too.
///
/// It needs the queue and the permission that a message needs, and the connection that it leaves open is as good.
pub(super) async fn send_nothing(client: &Client, queue_url: &str) -> Result<(), Failure> {
    match call(client, body(queue_url, &[])).await {
        Err(error) if !error.as_service_error().is_some_and(SendMessageBatchError::is_empty_batch_request) => {
            Err(failure(&error))
        }
        _ => Ok(()),
    }
}

/// Makes a call with this body.
///
/// The SDK writes JSON byte by byte, with a copy of each text: for the most that Meta sends, that takes a tenth of all the
/// processor's time. So it is given nothing to write, and the body before it signs.
async fn call(client: &Client, body: Bytes) -> Result<SendMessageBatchOutput, SdkError<SendMessageBatchError>> {
    let call = client.send_message_batch().customize().mutate_request(move |request| {
        request.headers_mut().insert("content-length", body.len().to_string());
        *request.body_mut() = body.clone().into();
    });
    call.send().await
}

/// The body of `SendMessageBatch` in SQS's JSON protocol; the id of an entry is its index.
fn body(queue_url: &str, messages: &[Message]) -> Bytes {
    let entries: Vec<_> = messages.iter().enumerate().map(|(index, message)| Entry::new(index, message)).collect();
    // Escapes make a JSON text in a JSON text a quarter longer, and the rest of an entry takes a kilobyte.
    let room = messages.iter().map(|message| message.body.len() * 5 / 4 + 1024).sum();
    let mut body = Vec::with_capacity(room);
    serde_json::to_writer(&mut body, &Batch { queue_url, entries })
        .expect("a list can be written to, and keys are texts");
    body.into()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Batch<'m> {
    queue_url: &'m str,
    entries: Vec<Entry<'m>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'m> {
    id: String,
    message_body: &'m str,
    #[serde(serialize_with = "by_name")]
    message_attributes: &'m [(&'static str, Attribute)],
    #[serde(skip_serializing_if = "Option::is_none")]
    message_system_attributes: Option<SystemAttributes<'m>>,
    message_group_id: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_deduplication_id: Option<&'m str>,
}

#[derive(Serialize)]
struct SystemAttributes<'m> {
    #[serde(rename = "AWSTraceHeader")]
    trace: Value<'m>,
}

/// The value of an attribute.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Value<'m> {
    data_type: &'static str,
    string_value: Cow<'m, str>,
}

impl<'m> Entry<'m> {
    fn new(index: usize, message: &'m Message) -> Self {
        let trace = message.trace.as_deref();
        Self {
            id: index.to_string(),
            message_body: &message.body,
            message_attributes: &message.attributes,
            message_system_attributes: trace.map(|trace| SystemAttributes {
                trace: Value { data_type: "String", string_value: Cow::Borrowed(trace) },
            }),
            message_group_id: &message.group_id,
            message_deduplication_id: message.deduplication_id.as_deref(),
        }
    }
}

fn by_name<S: Serializer>(attributes: &&[(&str, Attribute)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(
        attributes.iter().map(|(name, attribute)| {
            (name, Value { data_type: attribute.data_type(), string_value: attribute.text() })
        }),
    )
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
