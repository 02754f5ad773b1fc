//! Messages of errors.

/// Returns the message of the last cause. It names the reason, while the others name only what failed.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
