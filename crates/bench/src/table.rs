//! Prints figures as a table, line by line.
#![allow(clippy::print_stdout, reason = "the output is a table")]

use crate::results::{Cell, Failure, Setting};

/// Prints the heading of a setting.
pub(crate) fn print_heading(setting: Setting) {
    println!("\n{setting}");
    println!(
        "{:<22}{:<9}{:>6}{:>11}{:>11}{:>11}{:>11}{:>9}{:>8}{:>11}",
        "scenario", "", "n", "median ms", "99 % ms", "init ms", "CPU ms", "peak MB", "calls", "kB to SQS"
    );
}

/// Prints one cell.
pub(crate) fn print_cell(cell: &Cell) {
    let init = cell.init_ms.map(|init| format!("{init:.1}")).unwrap_or_default();
    println!(
        "{:<22}{:<9}{:>6}{:>11.2}{:>11.2}{:>11}{:>11.3}{:>9.1}{:>8}{:>11.1}",
        cell.scenario,
        cell.subject,
        cell.samples,
        cell.median_ms,
        cell.p99_ms,
        init,
        cell.cpu_ms,
        cell.peak_mb,
        cell.calls,
        cell.bytes / 1e3
    );
}

/// Prints a subject that could not be measured.
pub(crate) fn print_failure(failure: &Failure) {
    println!("{:<22}{:<9}failed: {}", failure.step, failure.subject, failure.reason);
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tls = if self.tls { "with TLS" } else { "without TLS" };
        write!(f, "AWS latency {} ms, {tls}, ", self.latency_ms)?;
        match self.memory_mb {
            Some(memory) => write!(f, "processor share of {memory} MB"),
            None => f.write_str("no processor limit"),
        }
    }
}
