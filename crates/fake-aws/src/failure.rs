//! Failures of a whole call.

/// The reason why a call fails; each service answers it with a status, a code and a message of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    InternalError,
    Unavailable,
    Throttled,
    AccessDenied,
    QueueDoesNotExist,
    KmsDisabled,
    Other { status: u16, code: String },
}
