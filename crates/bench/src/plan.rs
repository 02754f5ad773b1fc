//! The settings, their scenarios and the limits of a run. All settings together take at most 15 minutes.

use std::time::Duration;

use crate::{results::Setting, scenario::Scenario};

/// The memory sizes in MB whose share of a processor is measured. The last one has a whole processor.
pub(crate) const MEMORY: [u32; 4] = [128, 256, 512, 1769];

/// The setting that is closest to AWS: with TLS, and a latency of 10 ms.
pub(crate) const WITH_TLS: Setting = Setting { tls: true, latency_ms: 10, memory_mb: None };

/// The same without TLS.
pub(crate) const WITHOUT_TLS: Setting = Setting { tls: false, ..WITH_TLS };

/// The settings with TLS for each memory size, and without a limit.
pub(crate) fn by_memory() -> impl Iterator<Item = Setting> + Clone {
    MEMORY.into_iter().map(Some).chain([None]).map(|memory_mb| Setting { memory_mb, ..WITH_TLS })
}

/// One setting and its scenarios.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) setting: Setting,
    pub(crate) scenarios: Vec<Scenario>,
    /// The number of cold starts of each subject.
    pub(crate) cold_starts: usize,
}

/// The limits of the invocations of a subject in a scenario. Reaching one of them is enough.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) max_invocations: usize,
    pub(crate) time: Duration,
}

impl Effort {
    pub(crate) const DEFAULT: Self = Self { max_invocations: 300, time: Duration::from_millis(2500) };
    /// Enough to check that the benchmarks run.
    pub(crate) const SMOKE: Self = Self { max_invocations: 5, time: Duration::from_secs(1) };

    /// Multiplies both limits, for smaller differences.
    pub(crate) const fn scaled(self, factor: u32) -> Self {
        Self { max_invocations: self.max_invocations * factor as usize, time: self.time.saturating_mul(factor) }
    }
}

/// Returns all groups, first those without a limit.
pub(crate) fn groups() -> Vec<Group> {
    let all = |setting, cold_starts| {
        let scenarios = if cold_starts > 0 { vec![Scenario::Cold] } else { vec![] };
        Group { setting, scenarios: [scenarios, Scenario::WARM.to_vec()].concat(), cold_starts }
    };
    let batches = vec![Scenario::One, Scenario::Batch, Scenario::Thousand];
    let slow = Setting { latency_ms: 30, ..WITHOUT_TLS };
    let mut groups = vec![
        all(Setting { latency_ms: 0, ..WITHOUT_TLS }, 0),
        all(WITHOUT_TLS, 15),
        Group { setting: slow, scenarios: batches, cold_starts: 0 },
        all(WITH_TLS, 15),
    ];
    for memory in MEMORY.into_iter().rev() {
        let cold_starts = match memory {
            ..256 => 4,
            256..512 => 5,
            _ => 9,
        };
        groups.push(all(Setting { memory_mb: Some(memory), ..WITH_TLS }, cold_starts));
    }
    groups
}
