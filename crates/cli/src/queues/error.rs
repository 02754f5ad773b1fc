//! The error of a call of SQS.

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use thiserror::Error;
use whatsapp_webhook::aws_error::{ErrorClass, classify};

use crate::error::root_cause;

/// A call of SQS that failed.
#[derive(Debug, Error)]
#[error("cannot {action} {queue}: {reason}")]
pub struct QueueError {
    action: &'static str,
    queue: String,
    pub(crate) reason: String,
    /// The code of SQS's error, if SQS responded.
    code: Option<String>,
    /// Whether the same call may succeed later.
    pub(crate) is_transient: bool,
}

impl QueueError {
    /// Creates a transient error for a successful call whose response reports a failed entry. `action` completes
    /// "cannot … the queue".
    pub(crate) fn new(action: &'static str, queue: &str, reason: String) -> Self {
        Self { action, queue: queue.to_owned(), reason, code: None, is_transient: true }
    }

    /// Marks the error as permanent: no later call can succeed.
    pub(crate) fn into_permanent(self) -> Self {
        Self { is_transient: false, ..self }
    }

    /// Whether the queue does not exist.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.has_code(&["QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"])
    }

    /// Whether the caller lacks the permission for the call.
    #[must_use]
    pub fn is_access_denied(&self) -> bool {
        self.has_code(&["AccessDenied", "AccessDeniedException"])
    }

    /// Whether SQS may have executed the call, although no readable response arrived.
    pub(super) fn is_lost_response(&self) -> bool {
        self.is_transient && self.code.is_none()
    }

    /// Whether a queue of this name was deleted [less than 60 seconds ago](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html).
    pub(crate) fn is_deleted_recently(&self) -> bool {
        self.has_code(&["QueueDeletedRecently", "AWS.SimpleQueueService.QueueDeletedRecently"])
    }

    /// Returns the code of a call that SQS rejects because of one of its messages.
    pub(crate) fn rejected_code(&self) -> Option<&str> {
        self.code.as_deref().filter(|code| classify(code, true) == ErrorClass::Rejected)
    }

    fn has_code(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    /// Describes a failed call. `action` completes "cannot … the queue".
    pub(crate) fn from_sdk<E: std::error::Error + ProvideErrorMetadata + 'static>(
        action: &'static str,
        queue: &str,
    ) -> impl Fn(SdkError<E>) -> Self {
        move |error| Self {
            action,
            queue: queue.to_owned(),
            code: error.code().map(str::to_owned),
            // An error without a code, such as a timeout, has no readable response.
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
