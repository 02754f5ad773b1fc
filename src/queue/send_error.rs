//! The errors of SQS and S3, with a variant for each reaction of the sender.

use crate::payload::PayloadError;

/// Why an item is not on the queue to which it was sent. The text is for the log and contains no part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SendError {
    /// SQS rejects this message.
    EntryRejected(String),
    /// SQS rejects the batch without naming an entry.
    BatchRejected(String),
    /// The queue can store no message.
    QueueUnavailable(String),
    /// AWS no longer accepts the credentials of this execution environment.
    ExpiredAwsCredentials(String),
    /// The same call may succeed later: throttling, an error of SQS itself, or no answer.
    Transient(String),
    /// S3 did not store the body of a claim check.
    PayloadNotStored(String),
}

impl SendError {
    /// The text for the log.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::EntryRejected(text)
            | Self::BatchRejected(text)
            | Self::QueueUnavailable(text)
            | Self::ExpiredAwsCredentials(text)
            | Self::Transient(text)
            | Self::PayloadNotStored(text) => text,
        }
    }

    /// Whether S3 is the cause, so that sending to another queue would fail too.
    pub(super) const fn is_payload_error(&self) -> bool {
        matches!(self, Self::PayloadNotStored(_))
    }

    pub(super) fn no_time_left() -> Self {
        Self::Transient("no time left".to_owned())
    }

    pub(super) fn no_answer() -> Self {
        Self::Transient("no answer in time".to_owned())
    }
}

impl From<PayloadError> for SendError {
    fn from(error: PayloadError) -> Self {
        let reason = error.to_string();
        match error {
            PayloadError::ExpiredAwsCredentials(_) => Self::ExpiredAwsCredentials(reason),
            _ => Self::PayloadNotStored(reason),
        }
    }
}
