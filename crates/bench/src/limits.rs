//! The share of a processor that a function gets, and what it uses of it: Linux's control groups.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Megabytes of memory for which Lambda gives one whole processor.
const ONE_PROCESSOR: u32 = 1769;

/// Lambda's scheduling period, as measurements of it have found; a group is not run again in a period whose share it
/// has used up.
const PERIOD_US: u32 = 20_000;

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Control groups of one process, which are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Limits {
    groups: Vec<PathBuf>,
    usage: Usage,
}

/// Where the kernel keeps the time that a group has used.
#[derive(Debug)]
enum Usage {
    /// Version 1: nanoseconds.
    Nanoseconds(PathBuf),
    /// Version 2: a line with microseconds.
    Statistics(PathBuf),
}

impl Limits {
    /// Makes groups with the share of a processor that Lambda gives for so much memory, or with all there is.
    pub(crate) fn new(memory_mb: Option<u32>) -> io::Result<Self> {
        let name = unique_name();
        let quota = memory_mb.map(|memory| PERIOD_US * memory / ONE_PROCESSOR);
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

    /// The groups that a process has to move into.
    pub(crate) fn groups(&self) -> &[PathBuf] {
        &self.groups
    }

    /// The processor time used so far, by all threads and in the kernel.
    pub(crate) fn used(&self) -> io::Result<Duration> {
        let malformed = || io::Error::other("the kernel's accounting cannot be read");
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

/// A name that nothing else on this computer has.
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
