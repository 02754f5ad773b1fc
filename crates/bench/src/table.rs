//! Figures on a terminal, each line as soon as it is measured.
#![allow(clippy::print_stdout, reason = "a table is what this is for")]

use crate::results::{Cell, Setting};

/// The heading of a group.
pub(crate) fn head(setting: Setting) {
    println!("\n{setting}");
    println!(
        "{:<22}{:<9}{:>6}{:>11}{:>11}{:>11}{:>11}{:>9}{:>8}{:>11}",
        "scene", "", "n", "median ms", "99 % ms", "init ms", "CPU ms", "peak MB", "calls", "kB to SQS"
    );
}

/// One cell.
pub(crate) fn line(cell: &Cell) {
    let init = cell.init_ms.map(|init| format!("{init:.1}")).unwrap_or_default();
    println!(
        "{:<22}{:<9}{:>6}{:>11.2}{:>11.2}{:>11}{:>11.3}{:>9.1}{:>8}{:>11.1}",
        cell.scene,
        cell.contender,
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

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tls = if self.tls { "with TLS" } else { "without TLS" };
        write!(f, "AWS answers in {} ms, {tls}, ", self.latency_ms)?;
        match self.memory_mb {
            Some(memory) => write!(f, "the processor of {memory} MB"),
            None => f.write_str("no limit of processor"),
        }
    }
}
