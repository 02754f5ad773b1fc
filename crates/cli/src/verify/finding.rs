//! The finding of a check.

use std::fmt::Display;

use serde::Serialize;

use super::diagnosis::Diagnosis;

/// The finding of a check.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum Finding {
    /// The endpoint behaves as Meta requires.
    Passed {
        /// The observation.
        detail: String,
    },
    /// The endpoint does not behave as Meta requires.
    Failed {
        /// The observation.
        detail: String,
        /// The likely cause and a fix.
        #[serde(flatten)]
        diagnosis: Diagnosis,
    },
    /// The check was not made.
    Skipped {
        /// The reason.
        detail: String,
    },
}

pub(super) fn passed(detail: impl Display) -> Finding {
    Finding::Passed { detail: detail.to_string() }
}

pub(super) fn skipped(reason: &str) -> Finding {
    Finding::Skipped { detail: reason.to_owned() }
}
