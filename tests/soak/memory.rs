//! The memory that the process holds, over time.

/// Resident kilobytes, one sample after the other.
#[derive(Default)]
pub(crate) struct Memory {
    samples: Vec<u64>,
}

/// What the later half may need more than the earlier: the largest notification comes when it comes.
const SLACK_KB: u64 = 16 * 1024;

impl Memory {
    pub(crate) fn sample(&mut self, pid: u32) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        self.samples.push(line.trim().trim_end_matches(" kB").parse().unwrap());
    }

    pub(crate) fn report(&self) {
        let quarters: Vec<_> = self.quarters().map(|(mean, most)| format!("{mean} (at most {most})")).collect();
        eprintln!("resident MB by quarter, mean: {}", quarters.join(", "));
    }

    /// The last quarter needs no more than the second: what is used once is used again.
    pub(crate) fn check(&self) {
        let quarters: Vec<_> = self.quarters().collect();
        if let [_, (earlier, _), _, (later, _)] = quarters[..] {
            assert!(later <= earlier + SLACK_KB / 1024, "memory grows: {quarters:?}");
        }
    }

    fn quarters(&self) -> impl Iterator<Item = (u64, u64)> {
        self.samples.chunks(self.samples.len().div_ceil(4).max(1)).map(|samples| {
            let mean = samples.iter().sum::<u64>() / samples.len() as u64;
            (mean / 1024, samples.iter().max().unwrap() / 1024)
        })
    }
}
