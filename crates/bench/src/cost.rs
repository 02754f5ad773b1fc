//! What a million notifications cost, from how long one takes.

use std::fmt::Write as _;

use crate::{
    plan::{MEMORY, REAL},
    results::{Cell, Results, Setting},
    scene::Scene,
};

/// Lambda's prices in US dollars (x86, most regions, the first tier): a request, and a second of a gigabyte.
const REQUEST: f64 = 0.20 / 1e6;
const GIGABYTE_SECOND: f64 = 0.000_016_666_7;

/// Dollars for a million invocations that take so long on average; begun milliseconds are counted as whole ones.
fn million(memory_mb: u32, mean_ms: f64) -> f64 {
    let seconds = mean_ms.ceil() / 1e3;
    1e6 * (REQUEST + GIGABYTE_SECOND * f64::from(memory_mb) / 1024.0 * seconds)
}

/// By memory size, for one change and for a batch.
pub(crate) fn table(results: &Results) -> String {
    let mut text =
        "| a million notifications of | | 128 MB | 256 MB | 512 MB | 1769 MB |\n|---|---|--:|--:|--:|--:|\n".to_owned();
    for scene in [Scene::One, Scene::Batch, Scene::Thousand] {
        for contender in ["ours", "python", "node"] {
            let cells = MEMORY.map(|memory| {
                let setting = Setting { memory_mb: Some(memory), ..REAL };
                results.find(scene.name(), contender, setting).map(|cell| dollars(memory, cell)).unwrap_or_default()
            });
            let _ = writeln!(text, "| {} | {contender} | {} |", scene.name(), cells.join(" | "));
        }
    }
    text
}

/// The price, or that the memory is too small.
fn dollars(memory_mb: u32, cell: &Cell) -> String {
    if cell.peak_mb > f64::from(memory_mb) {
        return "-".to_owned();
    }
    format!("${:.2}", million(memory_mb, cell.mean_ms))
}

#[cfg(test)]
mod tests {
    use super::million;

    #[test]
    fn a_million_seconds_of_a_gigabyte_cost_their_price_and_that_of_the_requests() {
        assert!((million(1024, 1000.0) - 16.8667).abs() < 1e-6);
        assert!(million(1024, 10.1) > million(1024, 10.0));
        assert!((million(1024, 10.1) - million(1024, 11.0)).abs() < 1e-9);
    }
}
