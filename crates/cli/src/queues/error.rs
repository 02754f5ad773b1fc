//! The error of a call of SQS.

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use thiserror::Error;
use whatsapp_webhook::sqs_error::{ErrorClass, classify};

use crate::error::root_cause;

/// A call of SQS that failed.
#[derive(Debug, Error)]
#[error("cannot {action} {queue}: {reason}")]
pub struct QueueError {
    action: &'static str,
    queue: String,
    reason: String,
    /// Whether the same call may succeed later.
    pub(crate) is_transient: bool,
}

impl QueueError {
    /// A transient error of a response that is not an error in itself. `action` completes "cannot … the queue".
    pub(crate) fn new(action: &'static str, queue: &str, reason: String) -> Self {
        Self { action, queue: queue.to_owned(), reason, is_transient: true }
    }

    /// The same, if no later call can succeed.
    pub(crate) fn permanent(self) -> Self {
        Self { is_transient: false, ..self }
    }

    /// Describes a failed call. `action` completes "cannot … the queue".
    pub(crate) fn of<E: std::error::Error + ProvideErrorMetadata + 'static>(
        action: &'static str,
        queue: &str,
    ) -> impl Fn(SdkError<E>) -> Self {
        move |error| Self {
            action,
            queue: queue.to_owned(),
            // An error without a code has no readable response of SQS, such as a timeout.
            is_transient: error.code().is_none_or(|code| {
                let is_client_error = error.raw_response().is_some_and(|response| response.status().is_client_error());
                classify(code, is_client_error) == ErrorClass::Transient
            }),
            reason: match (error.code(), error.message()) {
                (Some(code), Some(message)) => format!("{code}: {message}"),
                (Some(code), None) => code.to_owned(),
                (None, _) => root_cause(&error),
            },
        }
    }
}
