//! Makes one call of `SendMessageBatch`, and interprets its response.

use std::borrow::Cow;

use aws_sdk_sqs::{
    Client,
    error::SdkError,
    operation::send_message_batch::{SendMessageBatchError, SendMessageBatchOutput},
    types::{BatchResultErrorEntry, SendMessageBatchResultEntry},
};
use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::send_error::SendError;
use crate::aws::{error_code, error_reason};
use whatsapp_webhook::{
    aws_error::{ErrorClass, classify, entry_results, is_expired_credentials},
    message::{Attribute, Message},
};

/// The result for each entry of a batch, in order, or the error of the whole call.
pub(super) type BatchResult = Result<Vec<Result<(), SendError>>, SendError>;

/// A serialized batch of messages, so that a second call needs no second serialization.
#[derive(Clone)]
pub(super) struct Batch {
    body: Bytes,
    entries: usize,
}

impl Batch {
    /// Serializes messages for one queue. The id of an entry is its index.
    pub(super) fn new(queue_url: &str, messages: &[Message]) -> Self {
        let entries: Vec<_> = messages.iter().enumerate().map(|(index, message)| Entry::new(index, message)).collect();
        // The escapes of JSON inside JSON make it about a quarter longer. The rest of an entry has about a kilobyte.
        let capacity = messages.iter().map(|message| message.body.len() * 5 / 4 + 1024).sum();
        let mut body = Vec::with_capacity(capacity);
        serde_json::to_writer(&mut body, &Request { queue_url, entries }).expect("strings and maps serialize");
        Self { body: body.into(), entries: messages.len() }
    }

    /// The number of entries.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }
}

/// Sends a batch, without retries.
pub(super) async fn send_batch(client: &Client, batch: Batch) -> BatchResult {
    let entries = batch.entries;
    match call(client, batch.body).await {
        Ok(response) => {
            let missing = SendError::Transient("the response does not mention the entry".to_owned());
            let failed = response.failed().iter().map(|entry| (entry.id(), entry_error(entry)));
            Ok(entry_results(
                entries,
                missing,
                failed,
                response.successful().iter().map(SendMessageBatchResultEntry::id),
            ))
        }
        Err(error) => Err(call_error(&error)),
    }
}

/// Sends an empty batch, which SQS rejects without storing anything.
///
/// `Ok` shows that the queue responds and that the caller may send to it. The probe does not use the queue's key.
pub(super) async fn probe(client: &Client, queue_url: &str) -> Result<(), SendError> {
    let Err(error) = call(client, Batch::new(queue_url, &[]).body).await else { return Ok(()) };
    // In SQS's older protocol, a namespace precedes the code.
    let is_rejected_as_empty = error_code(&error).is_some_and(|(_, code)| code.ends_with("EmptyBatchRequest"));
    if is_rejected_as_empty { Ok(()) } else { Err(call_error(&error)) }
}

/// Makes a call with this request body.
///
/// The function serializes the body itself, and replaces the body of the SDK's request before the SDK signs it. The SDK
/// serializes byte by byte and copies each text, which took a tenth of the processor time of a notification with 1000 changes.
async fn call(client: &Client, body: Bytes) -> Result<SendMessageBatchOutput, SdkError<SendMessageBatchError>> {
    let call = client.send_message_batch().customize().mutate_request(move |request| {
        request.headers_mut().insert("content-length", body.len().to_string());
        *request.body_mut() = body.clone().into();
    });
    call.send().await
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'m> {
    queue_url: &'m str,
    entries: Vec<Entry<'m>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'m> {
    id: String,
    message_body: &'m str,
    #[serde(serialize_with = "as_map")]
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

fn as_map<S: Serializer>(attributes: &&[(&str, Attribute)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        attributes.iter().map(|(name, attribute)| {
            (name, Value { data_type: attribute.data_type(), string_value: attribute.text() })
        }),
    )
}

fn entry_error(entry: &BatchResultErrorEntry) -> SendError {
    let code = entry.code().to_owned();
    match classify(&code, entry.sender_fault()) {
        ErrorClass::Transient => SendError::Transient(code),
        ErrorClass::QueueUnavailable => SendError::QueueUnavailable(code),
        ErrorClass::Rejected => SendError::EntryRejected(code),
    }
}

fn call_error(error: &SdkError<SendMessageBatchError>) -> SendError {
    let reason = error_reason(error);
    let Some((status, code)) = error_code(error) else { return SendError::Transient(reason) };
    if is_expired_credentials(code) {
        return SendError::ExpiredAwsCredentials(reason);
    }
    // A response of 200 that cannot be parsed is a transient error, although SQS may have stored the messages.
    let is_sender_fault = (400..500).contains(&status) && status != 429;
    match classify(code, is_sender_fault) {
        ErrorClass::Transient => SendError::Transient(reason),
        // An error with status 401, 403 or 404 concerns the queue or the caller, not the messages.
        ErrorClass::Rejected if !matches!(status, 401 | 403 | 404) => SendError::BatchRejected(reason),
        ErrorClass::QueueUnavailable | ErrorClass::Rejected => SendError::QueueUnavailable(reason),
    }
}
