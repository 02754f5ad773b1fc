//! The errors of a whole call that tests can inject.

/// Why a call fails. Each service maps it to its own status, code and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServiceError {
    InternalError,
    Unavailable,
    Throttled,
    AccessDenied,
    QueueDoesNotExist,
    KmsDisabled,
    Other { status: u16, code: String },
}
