//! Figures as they are kept in a file between measuring and showing.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// One run of the bench.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// The computer and the programs, by what they are called in the report.
    pub(crate) about: BTreeMap<String, String>,
    /// Bytes of the function's binary.
    pub(crate) binary_bytes: u64,
    pub(crate) cells: Vec<Cell>,
}

/// The circumstances that a scene was measured under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// Whether AWS speaks TLS.
    pub(crate) tls: bool,
    /// How long AWS takes to answer.
    pub(crate) latency_ms: u64,
    /// The memory that Lambda would give this share of a processor for; none: all there is.
    pub(crate) memory_mb: Option<u32>,
}

/// What one function took for one scene.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) scene: String,
    pub(crate) contender: String,
    #[serde(flatten)]
    pub(crate) setting: Setting,
    pub(crate) samples: usize,
    pub(crate) median_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) mean_ms: f64,
    /// Of a cold start: until it asked for its first event, as a median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) init_ms: Option<f64>,
    /// Processor time an invocation.
    pub(crate) cpu_ms: f64,
    pub(crate) peak_mb: f64,
    /// Calls to SQS an invocation, and the bytes of their bodies.
    pub(crate) calls: f64,
    pub(crate) bytes: f64,
}

impl Results {
    /// The cell of a scene in a setting.
    pub(crate) fn find(&self, scene: &str, contender: &str, setting: Setting) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.scene == scene && cell.contender == contender && cell.setting == setting)
    }
}

/// The value below which so much of all lies, in milliseconds.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> f64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    #[allow(clippy::cast_precision_loss, reason = "there are not that many")]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    let at = rank.clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).map_or(f64::NAN, |value| value.as_secs_f64() * 1e3)
}
