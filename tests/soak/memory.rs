//! Samples the memory of the process.

use std::sync::Mutex;

/// Samples of the resident memory of an execution environment in kilobytes.
pub(crate) struct Memory {
    samples: Mutex<Vec<u64>>,
    max_growth_mb: u64,
}

/// The permitted growth between the second and the last quarter for each request that runs at a time, in megabytes. The
/// largest notification can be in either.
const MAX_GROWTH_MB: u64 = 16;

impl Memory {
    /// Creates the record of an environment that serves this many requests at a time.
    pub(crate) fn of_environment(max_concurrency: usize) -> Self {
        Self { samples: Mutex::default(), max_growth_mb: MAX_GROWTH_MB * max_concurrency as u64 }
    }

    pub(crate) fn sample(&self, pid: u32) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        self.samples.lock().unwrap().push(line.trim().trim_end_matches(" kB").parse().unwrap());
    }

    pub(crate) fn report(&self) {
        let quarters = self.quarters().into_iter().map(|(mean, max)| format!("{mean} (maximum {max})"));
        let quarters: Vec<_> = quarters.collect();
        eprintln!("resident MB by quarter, mean: {}", quarters.join(", "));
    }

    /// Asserts that the memory does not grow after the second quarter, because the function reuses its memory.
    pub(crate) fn check(&self) {
        let quarters = self.quarters();
        if let [_, (earlier, _), _, (later, _)] = quarters[..] {
            assert!(later <= earlier + self.max_growth_mb, "memory grows: {quarters:?}");
        }
    }

    fn quarters(&self) -> Vec<(u64, u64)> {
        let samples = self.samples.lock().unwrap();
        let quarter = |samples: &[u64]| {
            let mean = samples.iter().sum::<u64>() / samples.len() as u64;
            (mean / 1024, samples.iter().max().unwrap() / 1024)
        };
        let bound = |quarters: usize| quarters * samples.len() / 4;
        let parts = (0..4).map(|number| &samples[bound(number)..bound(number + 1)]);
        parts.filter(|part| !part.is_empty()).map(quarter).collect()
    }
}
