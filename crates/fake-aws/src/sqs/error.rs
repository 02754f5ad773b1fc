//! The errors of SQS in its responses: for a whole call and for one entry of a batch.

use super::selection::EntryFault;
use crate::ids::new_id;
use crate::response::ServiceResponse;
use crate::service_error::ServiceError;
use serde_json::{Value, json};

pub(super) const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

/// An error of the whole call. `shape` is the name in `__type` of the body. `code` is the older name in the header
/// `x-amzn-query-error`, which the SDKs prefer if it is present.
#[derive(Debug)]
pub(super) struct CallError {
    status: u16,
    shape: String,
    code: String,
    message: String,
}

impl CallError {
    fn sqs_error(shape: &str, code: &str, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            shape: format!("com.amazonaws.sqs#{shape}"),
            code: code.to_owned(),
            message: message.into(),
        }
    }

    fn framework_error(status: u16, shape: &str, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            shape: format!("com.amazon.coral.service#{shape}"),
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// An error of the batch. Its code ends in the name of its shape.
    pub(super) fn batch(shape: &str, message: impl Into<String>) -> Self {
        Self::sqs_error(shape, &format!("AWS.SimpleQueueService.{shape}"), message)
    }

    pub(super) fn invalid_parameter(message: impl Into<String>) -> Self {
        Self::sqs_error("InvalidParameterValueException", "InvalidParameterValue", message)
    }

    pub(super) fn missing_parameter(message: impl Into<String>) -> Self {
        EntryError::sender_fault("MissingParameter", message).into()
    }

    pub(super) fn queue_does_not_exist() -> Self {
        let message = "The specified queue does not exist.";
        Self::sqs_error("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", message)
    }

    pub(super) fn unknown_operation(operation: &str) -> Self {
        let message = format!("The fake does not support the operation {operation}.");
        Self::framework_error(400, "UnknownOperationException", "UnknownOperation", message)
    }

    pub(super) fn serialization(message: &str) -> Self {
        Self::framework_error(400, "SerializationException", "MalformedInput", message)
    }

    pub(super) fn to_response(&self) -> ServiceResponse {
        let fault = if self.status < 500 { "Sender" } else { "Receiver" };
        let body = json!({ "__type": self.shape, "message": self.message }).to_string();
        ServiceResponse::new(self.status, CONTENT_TYPE, body)
            .with_header("x-amzn-requestid", new_id())
            .with_header("x-amzn-query-error", format!("{};{fault}", self.code))
    }
}

impl From<EntryError> for CallError {
    fn from(error: EntryError) -> Self {
        let shape = match error.code.as_str() {
            "InvalidParameterValue" => "InvalidParameterValueException",
            "MissingParameter" => "MissingRequiredParameterException",
            code => code,
        };
        let call = Self::sqs_error(shape, &error.code, error.message);
        Self { status: if error.sender_fault { 400 } else { 500 }, ..call }
    }
}

/// The error of one entry, in a call that succeeds for other entries.
#[derive(Debug)]
pub(super) struct EntryError {
    code: String,
    message: String,
    sender_fault: bool,
}

impl EntryError {
    fn sender_fault(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), sender_fault: true }
    }

    pub(super) fn invalid_parameter(message: impl Into<String>) -> Self {
        Self::sender_fault("InvalidParameterValue", message)
    }

    pub(super) fn invalid_contents(message: impl Into<String>) -> Self {
        Self::sender_fault("InvalidMessageContents", message)
    }

    pub(super) fn missing_body() -> Self {
        Self::sender_fault("MissingParameter", "The request must contain the parameter MessageBody.")
    }

    /// The error that a test injected.
    pub(super) fn injected(fault: &EntryFault) -> Self {
        Self {
            code: fault.code.clone(),
            message: "The test injected this error.".to_owned(),
            sender_fault: fault.sender_fault,
        }
    }

    pub(super) fn to_result(&self, id: &str) -> Value {
        json!({ "Id": id, "Code": self.code, "Message": self.message, "SenderFault": self.sender_fault })
    }
}

/// Makes the response of SQS for an error.
pub(crate) fn error_response(error: &ServiceError) -> ServiceResponse {
    let error = match error {
        ServiceError::InternalError => CallError::framework_error(500, "InternalFailure", "InternalFailure", ""),
        ServiceError::Unavailable => {
            let message = "The request has failed due to a temporary failure of the server.";
            CallError::framework_error(503, "ServiceUnavailableException", "ServiceUnavailable", message)
        }
        ServiceError::Throttled => {
            CallError::sqs_error("RequestThrottled", "RequestThrottled", "Request is throttled.")
        }
        ServiceError::AccessDenied => {
            let message =
                "User is not authorized to perform: sqs:sendmessage because no identity-based policy allows it";
            CallError::framework_error(403, "AccessDeniedException", "AccessDenied", message)
        }
        ServiceError::ResourceDoesNotExist => CallError::queue_does_not_exist(),
        ServiceError::KmsDisabled => {
            CallError::sqs_error("KmsDisabled", "KMS.DisabledException", "The key that encrypts the queue is disabled.")
        }
        ServiceError::Other { status, code } => CallError {
            status: *status,
            shape: format!("com.amazonaws.sqs#{code}"),
            code: code.clone(),
            message: "The test injected this error.".to_owned(),
        },
    };
    error.to_response()
}
