//! Samples the memory of the process.

/// Samples of the resident memory in kilobytes.
#[derive(Default)]
pub(crate) struct Memory {
    samples: Vec<u64>,
}

/// The permitted growth between the second and the last quarter, in kilobytes. The largest notification can be in either.
const MAX_GROWTH_KB: u64 = 16 * 1024;

impl Memory {
    pub(crate) fn sample(&mut self, pid: u32) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        self.samples.push(line.trim().trim_end_matches(" kB").parse().unwrap());
    }

    pub(crate) fn report(&self) {
        let quarters: Vec<_> = self.quarters().map(|(mean, max)| format!("{mean} (maximum {max})")).collect();
        eprintln!("resident MB by quarter, mean: {}", quarters.join(", "));
    }

    /// Asserts that the memory does not grow after the second quarter, because the function reuses its memory.
    pub(crate) fn check(&self) {
        let quarters: Vec<_> = self.quarters().collect();
        if let [_, (earlier, _), _, (later, _)] = quarters[..] {
            assert!(later <= earlier + MAX_GROWTH_KB / 1024, "memory grows: {quarters:?}");
        }
    }

    fn quarters(&self) -> impl Iterator<Item = (u64, u64)> {
        self.samples.chunks(self.samples.len().div_ceil(4).max(1)).map(|samples| {
            let mean = samples.iter().sum::<u64>() / samples.len() as u64;
            (mean / 1024, samples.iter().max().unwrap() / 1024)
        })
    }
}
