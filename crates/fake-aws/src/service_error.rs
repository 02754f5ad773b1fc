//! The errors of a whole call that tests can inject.

/// Why a call fails. Each service maps it to its own status, code and message. A resource is a queue, a secret or a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServiceError {
    InternalError,
    Unavailable,
    Throttled,
    AccessDenied,
    ResourceDoesNotExist,
    KmsDisabled,
    Other { status: u16, code: String },
}
