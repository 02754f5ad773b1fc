//! The figures of a run, in the format of its file.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// One run of the bench.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// The computer and the programs. The keys are the labels in the report.
    pub(crate) about: BTreeMap<String, String>,
    /// The size of the binary in bytes.
    pub(crate) binary_bytes: u64,
    pub(crate) cells: Vec<Cell>,
    #[serde(default)]
    pub(crate) failures: Vec<Failure>,
}

/// The conditions of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// Whether the fake AWS uses TLS.
    pub(crate) tls: bool,
    /// The latency of the fake AWS.
    pub(crate) latency_ms: u64,
    /// The memory size that determines the share of a processor. `None` is without a limit.
    pub(crate) memory_mb: Option<u32>,
}

/// The figures of one subject in one scenario.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) scenario: String,
    pub(crate) subject: String,
    #[serde(flatten)]
    pub(crate) setting: Setting,
    pub(crate) samples: usize,
    pub(crate) median_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) mean_ms: f64,
    /// For a cold start: the median time until the function requested its first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) init_ms: Option<f64>,
    /// The processor time of an invocation.
    pub(crate) cpu_ms: f64,
    pub(crate) peak_mb: f64,
    /// The calls to SQS of an invocation.
    pub(crate) calls: f64,
    /// The size of their bodies.
    pub(crate) bytes: f64,
}

/// A subject that could not be measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The scenario, or [`Self::START`].
    pub(crate) step: String,
    pub(crate) subject: String,
    #[serde(flatten)]
    pub(crate) setting: Setting,
    pub(crate) reason: String,
}

impl Failure {
    /// The step before all scenarios except the cold start.
    pub(crate) const START: &str = "start";
}

impl Results {
    /// Whether a subject failed in a scenario, or in a step before it in the same setting.
    pub(crate) fn has_failed(&self, scenario: &str, subject: &str, setting: Setting) -> bool {
        let is_missing = self.find(scenario, subject, setting).is_none();
        let failed = |failure: &Failure| failure.subject == subject && failure.setting == setting;
        is_missing && self.failures.iter().any(failed)
    }

    /// Finds a cell.
    pub(crate) fn find(&self, scenario: &str, subject: &str, setting: Setting) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.scenario == scenario && cell.subject == subject && cell.setting == setting)
    }
}

/// Returns a quantile of sorted durations in milliseconds, for a fraction from 0 to 1.
pub(crate) fn quantile(sorted: &[Duration], fraction: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    #[allow(clippy::cast_precision_loss, reason = "the numbers are small")]
    let rank = (sorted.len() as f64 * fraction).ceil() as usize;
    let index = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).map_or(f64::NAN, |value| value.as_secs_f64() * 1e3)
}
