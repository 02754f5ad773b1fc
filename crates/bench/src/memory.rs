//! The peak of the resident memory of a process.

use std::{fs, io};

/// Resets the peak to the current value.
pub(crate) fn reset_peak(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Returns the peak in megabytes (of 1,048,576 bytes).
pub(crate) fn peak_mb(pid: u32) -> io::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    kilobytes.map(|kilobytes: f64| kilobytes / 1024.0).ok_or_else(|| io::Error::other("the process has no VmHWM"))
}
