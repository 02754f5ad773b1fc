//! The figures of the charts of `docs/performance.md`, which `charts/draw_charts.py` draws.

use serde::Serialize;

use crate::{
    instructions::{Counts, GROWING, STEPS, to_float},
    plan::{WITH_TLS, by_memory},
    results::Results,
    scenario::Scenario,
};

/// Meta's limit for the median response time.
const LIMIT_MS: f64 = 250.0;

/// A chart. Each line has a value, or none, for each tick of the x axis.
#[derive(Debug, Serialize)]
pub(crate) struct Chart {
    /// The name of the file, without its extension.
    file: &'static str,
    title: String,
    x_label: &'static str,
    is_logarithmic: bool,
    ticks: Vec<String>,
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    values: Vec<Option<f64>>,
}

pub(crate) fn charts(results: &Results, counts: &Counts) -> [Chart; 4] {
    let beyond_sqs = format!("One change: median beyond the {} ms of SQS, ms", WITH_TLS.latency_ms);
    let mut thousand = medians("1000-changes", "1000 changes, 2.9 MB: median, ms", results, Scenario::Thousand);
    thousand.lines.push(Line { name: "Meta's limit", values: vec![Some(LIMIT_MS); thousand.ticks.len()] });
    [
        medians("cold-start", "Cold start to the first response: median, ms", results, Scenario::Cold),
        medians("one-change", &beyond_sqs, results, Scenario::One),
        thousand,
        instructions(counts),
    ]
}

/// Makes a chart of the medians by memory size.
fn medians(file: &'static str, title: &str, results: &Results, scenario: Scenario) -> Chart {
    // SQS takes most of the time of one change, so the lines differ visibly only without it.
    let (floor, common_ms) =
        if scenario == Scenario::One { ("bare", to_float(WITH_TLS.latency_ms)) } else { ("null", 0.0) };
    let median = |name, setting| results.find(scenario.name(), name, setting).map(|cell| cell.median_ms - common_ms);
    let line = |name| Line { name, values: by_memory().map(|setting| median(name, setting)).collect() };
    Chart {
        file,
        title: title.to_owned(),
        x_label: "memory size, MB",
        is_logarithmic: true,
        ticks: by_memory()
            .map(|setting| setting.memory_mb.map_or_else(|| "no limit".to_owned(), |memory| memory.to_string()))
            .collect(),
        lines: ["ours", floor, "python", "node"].map(line).into(),
    }
}

fn instructions(counts: &Counts) -> Chart {
    let millions = |step| GROWING.iter().map(|shape| Some(to_float(counts.of(step, *shape)?) / 1e6)).collect();
    Chart {
        file: "instructions",
        title: "Instructions of the pure path, millions".to_owned(),
        x_label: "changes of 2.9 kB",
        is_logarithmic: false,
        ticks: GROWING.iter().map(|(changes, _)| changes.to_string()).collect(),
        lines: STEPS.map(|name| Line { name, values: millions(name) }).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Scenario, medians};
    use crate::{
        plan::WITH_TLS,
        results::{Cell, Results, Setting},
    };

    #[test]
    fn chart_of_one_change_excludes_the_time_of_sqs() {
        let cell = |subject: &str, memory_mb, median_ms| Cell {
            scenario: Scenario::One.name().to_owned(),
            subject: subject.to_owned(),
            setting: Setting { memory_mb, ..WITH_TLS },
            samples: 1,
            median_ms,
            p99_ms: 0.0,
            mean_ms: 0.0,
            init_ms: None,
            cpu_ms: 0.0,
            peak_mb: 0.0,
            calls: 0.0,
            bytes: 0.0,
        };
        let cells = vec![cell("ours", Some(256), 12.5), cell("node", None, 14.0), cell("null", None, 0.5)];
        let chart = medians("", "", &Results { cells, ..Results::default() }, Scenario::One);
        let lines: Vec<_> = chart.lines.iter().map(|line| (line.name, &line.values[..])).collect();
        let expected = [
            ("ours", &[None, Some(2.5), None, None, None][..]),
            ("bare", &[None; 5]),
            ("python", &[None; 5]),
            ("node", &[None, None, None, None, Some(4.0)]),
        ];
        assert_eq!(lines, expected);
        assert_eq!(chart.ticks, ["128", "256", "512", "1769", "no limit"]);
    }
}
