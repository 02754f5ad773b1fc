//! Limits and measures the processor time of a function with Linux control groups.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// The [memory size] in megabytes at which Lambda allocates one processor.
///
/// [memory size]: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
const ONE_PROCESSOR_MB: u32 = 1769;

/// Lambda's scheduling period, according to published measurements. A group that has used its quota waits for the next period.
const PERIOD_US: u32 = 20_000;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// The control groups of one process. Dropping this removes them.
#[derive(Debug)]
pub(crate) struct Limits {
    groups: Vec<PathBuf>,
    usage: Usage,
}

/// The file with the processor time of a group.
#[derive(Debug)]
enum Usage {
    /// Control groups version 1: nanoseconds.
    Nanoseconds(PathBuf),
    /// Control groups version 2: a line with microseconds.
    Statistics(PathBuf),
}

impl Limits {
    /// Creates groups with the share of a processor that Lambda allocates for this memory size, or without a limit.
    pub(crate) fn new(memory_mb: Option<u32>) -> io::Result<Self> {
        let name = unique_name();
        let quota = memory_mb.map(|memory| PERIOD_US * memory / ONE_PROCESSOR_MB);
        let root = Path::new("/sys/fs/cgroup");
        if root.join("cgroup.controllers").exists() {
            let group = root.join(name);
            fs::write(root.join("cgroup.subtree_control"), "+cpu")?;
            fs::create_dir(&group)?;
            let limits = Self { usage: Usage::Statistics(group.join("cpu.stat")), groups: vec![group.clone()] };
            if let Some(quota) = quota {
                fs::write(group.join("cpu.max"), format!("{quota} {PERIOD_US}"))?;
            }
            return Ok(limits);
        }
        let [cpu, accounting] = ["cpu", "cpuacct"].map(|controller| root.join(controller).join(&name));
        let usage = Usage::Nanoseconds(accounting.join("cpuacct.usage"));
        let limits = Self { groups: vec![cpu.clone(), accounting.clone()], usage };
        for group in [&cpu, &accounting] {
            if !group.exists() {
                fs::create_dir(group)?;
            }
        }
        if let Some(quota) = quota {
            fs::write(cpu.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
            fs::write(cpu.join("cpu.cfs_quota_us"), quota.to_string())?;
        }
        Ok(limits)
    }

    /// Returns the groups that the process must join.
    pub(crate) fn groups(&self) -> &[PathBuf] {
        &self.groups
    }

    /// Returns the processor time of all threads, including the kernel.
    pub(crate) fn used_time(&self) -> io::Result<Duration> {
        let malformed = || io::Error::other("the processor time of the control group is malformed");
        match &self.usage {
            Usage::Nanoseconds(path) => {
                let used = fs::read_to_string(path)?.trim().parse();
                used.map(Duration::from_nanos).map_err(|_| malformed())
            }
            Usage::Statistics(path) => {
                let text = fs::read_to_string(path)?;
                let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
                used.map(Duration::from_micros).ok_or_else(malformed)
            }
        }
    }
}

/// Makes a name that is unique on this computer.
pub(crate) fn unique_name() -> String {
    format!("ingress-bench-{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

impl Drop for Limits {
    fn drop(&mut self) {
        for group in &self.groups {
            let _ = fs::remove_dir(group);
        }
    }
}
