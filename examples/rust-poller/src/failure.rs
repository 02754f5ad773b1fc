//! Errors of a message, and their description.

use std::error::Error;

use aws_sdk_s3::error::DisplayErrorContext;

/// Any error.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Describes an error of the SDK with its causes. Its own text is only "service error".
pub(crate) fn describe(error: impl Error) -> String {
    DisplayErrorContext(error).to_string()
}
