//! What is measured in which setting, and for how long, so that all of it takes a quarter of an hour at most.

use std::time::Duration;

use crate::{results::Setting, scene::Scene};

/// The memory sizes whose share of a processor is imitated; the last is one whole processor.
pub(crate) const MEMORY: [u32; 4] = [128, 256, 512, 1769];

/// The setting nearest to AWS: TLS, and SQS answering in 10 ms.
pub(crate) const REAL: Setting = Setting { tls: true, latency_ms: 10, memory_mb: None };

/// The same without TLS.
pub(crate) const PLAIN: Setting = Setting { tls: false, ..REAL };

/// The memory sizes and no limit, in the setting nearest to AWS.
pub(crate) fn by_memory() -> impl Iterator<Item = Setting> + Clone {
    MEMORY.into_iter().map(Some).chain([None]).map(|memory_mb| Setting { memory_mb, ..REAL })
}

/// One setting and what is done in it.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) setting: Setting,
    pub(crate) scenes: Vec<Scene>,
    /// Processes started of each contender.
    pub(crate) cold_starts: usize,
}

/// How often and how long a scene is repeated with each contender: the first limit that is reached ends it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) most: usize,
    pub(crate) time: Duration,
}

impl Effort {
    pub(crate) const USUAL: Self = Self { most: 300, time: Duration::from_millis(2500) };
    /// Enough to see that all works.
    pub(crate) const SMOKE: Self = Self { most: 5, time: Duration::from_secs(1) };

    /// So many times as long, to tell smaller differences.
    pub(crate) const fn times(self, factor: u32) -> Self {
        Self { most: self.most * factor as usize, time: self.time.saturating_mul(factor) }
    }
}

/// All groups, the unlimited ones first.
pub(crate) fn groups() -> Vec<Group> {
    let all = |setting, cold_starts| {
        let scenes = if cold_starts > 0 { vec![Scene::Cold] } else { vec![] };
        Group { setting, scenes: [scenes, Scene::WARM.to_vec()].concat(), cold_starts }
    };
    let storing = vec![Scene::One, Scene::Batch, Scene::Thousand];
    let slow = Setting { latency_ms: 30, ..PLAIN };
    let mut groups = vec![
        all(Setting { latency_ms: 0, ..PLAIN }, 0),
        all(PLAIN, 15),
        Group { setting: slow, scenes: storing, cold_starts: 0 },
        all(REAL, 15),
    ];
    for memory in MEMORY.into_iter().rev() {
        let cold_starts = match memory {
            ..256 => 4,
            256..512 => 5,
            _ => 9,
        };
        groups.push(all(Setting { memory_mb: Some(memory), ..REAL }, cold_starts));
    }
    groups
}
