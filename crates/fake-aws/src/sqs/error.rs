//! SQS's errors on the wire: of a whole call, and of one entry of a batch.

use super::selection::Refusal;
use crate::answer::Answer;
use crate::failure::Failure;
use crate::ids::new_id;
use serde_json::{Value, json};

pub(super) const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

/// The failing of a whole call. `shape` is the name in the body's `__type`; `code` is the older one in the header
/// `x-amzn-query-error`, which the SDKs prefer where it is there.
#[derive(Debug)]
pub(super) struct CallError {
    status: u16,
    shape: String,
    code: String,
    message: String,
}

impl CallError {
    fn of_sqs(shape: &str, code: &str, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            shape: format!("com.amazonaws.sqs#{shape}"),
            code: code.to_owned(),
            message: message.into(),
        }
    }

    fn of_framework(status: u16, shape: &str, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            shape: format!("com.amazon.coral.service#{shape}"),
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// An error of a batch: its shape's name is the end of its code.
    pub(super) fn batch(shape: &str, message: impl Into<String>) -> Self {
        Self::of_sqs(shape, &format!("AWS.SimpleQueueService.{shape}"), message)
    }

    pub(super) fn invalid_parameter(message: impl Into<String>) -> Self {
        Self::of_sqs("InvalidParameterValueException", "InvalidParameterValue", message)
    }

    pub(super) fn queue_does_not_exist() -> Self {
        let message = "The specified queue does not exist.";
        Self::of_sqs("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", message)
    }

    pub(super) fn unknown_operation(operation: &str) -> Self {
        let message = format!("The fake knows no operation {operation}.");
        Self::of_framework(400, "UnknownOperationException", "UnknownOperation", message)
    }

    pub(super) fn serialization(message: &str) -> Self {
        Self::of_framework(400, "SerializationException", "MalformedInput", message)
    }

    pub(super) fn answer(&self) -> Answer {
        let fault = if self.status < 500 { "Sender" } else { "Receiver" };
        let body = json!({ "__type": self.shape, "message": self.message }).to_string();
        Answer::new(self.status, CONTENT_TYPE, body)
            .header("x-amzn-requestid", new_id())
            .header("x-amzn-query-error", format!("{};{fault}", self.code))
    }
}

impl From<EntryError> for CallError {
    fn from(error: EntryError) -> Self {
        let shape = match error.code.as_str() {
            "InvalidParameterValue" => "InvalidParameterValueException",
            "MissingParameter" => "MissingRequiredParameterException",
            code => code,
        };
        let call = Self::of_sqs(shape, &error.code, error.message);
        Self { status: if error.sender_fault { 400 } else { 500 }, ..call }
    }
}

/// The refusal of one entry of a batch that goes through otherwise.
#[derive(Debug)]
pub(super) struct EntryError {
    code: String,
    message: String,
    sender_fault: bool,
}

impl EntryError {
    fn senders(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), sender_fault: true }
    }

    pub(super) fn invalid_parameter(message: impl Into<String>) -> Self {
        Self::senders("InvalidParameterValue", message)
    }

    pub(super) fn invalid_contents(message: impl Into<String>) -> Self {
        Self::senders("InvalidMessageContents", message)
    }

    pub(super) fn missing_body() -> Self {
        Self::senders("MissingParameter", "The request must contain the parameter MessageBody.")
    }

    /// A refusal that a test asked for.
    pub(super) fn injected(refusal: &Refusal) -> Self {
        Self {
            code: refusal.code.clone(),
            message: "The test asked for this refusal.".to_owned(),
            sender_fault: refusal.sender_fault,
        }
    }

    pub(super) fn result(&self, id: &str) -> Value {
        json!({ "Id": id, "Code": self.code, "Message": self.message, "SenderFault": self.sender_fault })
    }
}

/// A failure of the whole call in this service's words.
pub(crate) fn failure(failure: &Failure) -> Answer {
    let error = match failure {
        Failure::InternalError => CallError::of_framework(500, "InternalFailure", "InternalFailure", ""),
        Failure::Unavailable => {
            let message = "The request has failed due to a temporary failure of the server.";
            CallError::of_framework(503, "ServiceUnavailableException", "ServiceUnavailable", message)
        }
        Failure::Throttled => CallError::of_sqs("RequestThrottled", "RequestThrottled", "Request is throttled."),
        Failure::AccessDenied => {
            let message =
                "User is not authorized to perform: sqs:sendmessage because no identity-based policy allows it";
            CallError::of_framework(403, "AccessDeniedException", "AccessDenied", message)
        }
        Failure::QueueDoesNotExist => CallError::queue_does_not_exist(),
        Failure::KmsDisabled => {
            CallError::of_sqs("KmsDisabled", "KMS.DisabledException", "The key that encrypts the queue is disabled.")
        }
        Failure::Other { status, code } => CallError {
            status: *status,
            shape: format!("com.amazonaws.sqs#{code}"),
            code: code.clone(),
            message: "The test asked for this error.".to_owned(),
        },
    };
    error.answer()
}
