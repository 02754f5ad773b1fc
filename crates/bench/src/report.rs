//! The tables of `docs/performance.md`, and the figures of its charts.

use std::{error::Error, fmt::Write as _, fs, path::Path};

use crate::{
    charts::charts,
    cost,
    instructions::{Counts, SHAPES, STEPS, to_float},
    page,
    plan::{self, WITH_TLS, WITHOUT_TLS},
    results::{Cell, Failure, Results, Setting},
    scenario::Scenario,
    subject::{Subject, project_root},
};

const PAGE: &str = "docs/performance.md";
const CHARTS: &str = "docs/performance/charts.json";
const SUBJECTS: [&str; 6] = ["ours", "null", "null_runtime", "bare", "python", "node"];
const ALTERNATIVES: [&str; 2] = ["python", "node"];

/// Writes the tables of a run into the page, and the figures of its charts.
pub(crate) fn write(run: &Path) -> Result<(), Box<dyn Error>> {
    let results: Results = serde_json::from_str(&fs::read_to_string(run)?)?;
    if let Some(missing) = find_missing(&results) {
        return Err(format!("{} is not a whole run, it has no {missing}: run `make bench` alone", run.display()).into());
    }
    // The counts are those of the baseline, not of this run.
    let counts = Counts::read_baseline()?;
    let sections = [
        ("about", about(&results)),
        ("targets", targets(&results)),
        ("with TLS", scenarios(&results, WITH_TLS)),
        ("without TLS", scenarios(&results, WITHOUT_TLS)),
        ("latencies", latencies(&results)),
        ("starts", starts(&results)),
        ("memory", by_memory(&results)),
        ("cost", cost::by_memory(&results)?),
        ("instructions", instructions(&counts)),
    ];
    page::update(PAGE, &sections)?;
    fs::write(project_root().join(CHARTS), serde_json::to_string_pretty(&charts(&results, &counts))? + "\n")?;
    Ok(())
}

/// Returns a figure of the page that the run neither measured nor failed to measure.
fn find_missing(results: &Results) -> Option<String> {
    let is_shown = |subject: &Subject| SUBJECTS.contains(&subject.name());
    for group in plan::groups() {
        for scenario in group.scenarios {
            for subject in Subject::ALL.into_iter().filter(is_shown).filter(|subject| subject.is_measured_in(scenario))
            {
                let (scenario, subject, setting) = (scenario.name(), subject.name(), group.setting);
                if results.find(scenario, subject, setting).is_none() && !results.has_failed(scenario, subject, setting)
                {
                    return Some(format!("{scenario} of {subject} ({setting})"));
                }
            }
        }
    }
    None
}

fn about(results: &Results) -> String {
    let mut text = String::new();
    for (label, value) in &results.about {
        let _ = writeln!(text, "- {label}: {value}");
    }
    let _ = writeln!(text, "- binary: {:.1} MB", bytes_to_mb(results.binary_bytes));
    text
}

fn scenarios(results: &Results, setting: Setting) -> String {
    let mut text = "| scenario | | n | median ms | 99 % ms | CPU ms | peak MB | calls | kB to SQS |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n".to_owned();
    let is_shown = |cell: &&Cell| cell.setting == setting && SUBJECTS.contains(&&*cell.subject);
    for cell in results.cells.iter().filter(is_shown) {
        let Cell { scenario, subject, samples, median_ms, p99_ms, cpu_ms, peak_mb, calls, bytes, .. } = cell;
        let _ = writeln!(
            text,
            "| {scenario} | {subject} | {samples} | {median_ms:.2} | {p99_ms:.2} | {cpu_ms:.2} | {peak_mb:.0} | {calls} | {:.1} |",
            bytes / 1e3
        );
    }
    let is_shown = |failure: &&Failure| failure.setting == setting && SUBJECTS.contains(&&*failure.subject);
    for Failure { step, subject, reason, .. } in results.failures.iter().filter(is_shown) {
        let _ = writeln!(text, "| {step} | {subject} | | failed: {} | | | | | |", reason.replace('|', "/"));
    }
    text
}

fn latencies(results: &Results) -> String {
    let mut text = "| scenario | SQS latency | ours | bare | python | node |\n|---|--:|--:|--:|--:|--:|\n".to_owned();
    for scenario in [Scenario::One, Scenario::Batch, Scenario::Thousand] {
        for latency_ms in [0, 10, 30] {
            let setting = Setting { latency_ms, ..WITHOUT_TLS };
            let medians = ["ours", "bare", "python", "node"].map(|name| median(results, scenario, name, setting));
            let _ = writeln!(text, "| {} | {latency_ms} ms | {} |", scenario.name(), medians.join(" | "));
        }
    }
    text
}

fn by_memory(results: &Results) -> String {
    let mut text =
        "| scenario | | 128 MB | 256 MB | 512 MB | 1769 MB | no limit |\n|---|---|--:|--:|--:|--:|--:|\n".to_owned();
    for scenario in Scenario::WARM {
        for subject in SUBJECTS {
            let times: Vec<_> =
                plan::by_memory().map(|setting| median_and_p99(results, scenario, subject, setting)).collect();
            if times.iter().any(|times| !times.is_empty()) {
                let _ = writeln!(text, "| {} | {subject} | {} |", scenario.name(), times.join(" | "));
            }
        }
    }
    text
}

/// Makes the table of the times from the start to the first request for an event, and to the first response.
fn starts(results: &Results) -> String {
    let settings = plan::by_memory().chain([WITHOUT_TLS]);
    let mut text =
        "| | 128 MB | 256 MB | 512 MB | 1769 MB | no limit | without TLS |\n|---|--:|--:|--:|--:|--:|--:|\n".to_owned();
    let mut row = |label: &str, subject, figure: fn(&Cell) -> Option<f64>| {
        let figure =
            |setting| text_of(results, Scenario::Cold, subject, setting, |cell| Some(format!("{:.1}", figure(cell)?)));
        let figures: Vec<_> = settings.clone().map(figure).collect();
        let _ = writeln!(text, "| {subject}, {label} | {} |", figures.join(" | "));
    };
    for subject in SUBJECTS {
        if results.find(Scenario::Cold.name(), subject, WITHOUT_TLS).is_some() {
            row("init", subject, |cell| cell.init_ms);
            row("to the first response", subject, |cell| Some(cell.median_ms));
        }
    }
    text
}

/// Formats the median and the 99th percentile.
fn median_and_p99(results: &Results, scenario: Scenario, subject: &str, setting: Setting) -> String {
    text_of(results, scenario, subject, setting, |cell| Some(format!("{:.1} / {:.1}", cell.median_ms, cell.p99_ms)))
}

fn median(results: &Results, scenario: Scenario, subject: &str, setting: Setting) -> String {
    text_of(results, scenario, subject, setting, |cell| Some(format!("{:.1}", cell.median_ms)))
}

/// Formats a cell. The text is empty if it was not measured.
fn text_of(
    results: &Results,
    scenario: Scenario,
    subject: &str,
    setting: Setting,
    text: impl FnOnce(&Cell) -> Option<String>,
) -> String {
    match results.find(scenario.name(), subject, setting) {
        Some(cell) => text(cell).unwrap_or_default(),
        None if results.has_failed(scenario.name(), subject, setting) => "failed".to_owned(),
        None => String::new(),
    }
}

fn targets(results: &Results) -> String {
    let mut text = "| | without TLS | with TLS | target | |\n|---|--:|--:|--:|---|\n".to_owned();
    for (without_tls, with_tls) in measured(results, WITHOUT_TLS).into_iter().zip(measured(results, WITH_TLS)) {
        let verdict = match (without_tls.measured <= without_tls.max, with_tls.measured <= with_tls.max) {
            (true, true) => "met",
            (true, false) => "met without TLS",
            (false, true) => "met with TLS",
            (false, false) => "**not met**",
        };
        let _ = writeln!(
            text,
            "| {} | {:.3} | {:.3} | {:.3} | {verdict} |",
            without_tls.label, without_tls.measured, with_tls.measured, without_tls.max
        );
    }
    text
}

/// A target: the maximum of a figure, and the measured figure.
struct Target {
    label: String,
    measured: f64,
    max: f64,
}

fn measured(results: &Results, setting: Setting) -> Vec<Target> {
    let target = |label: &str, measured, max| Target { label: label.to_owned(), measured, max };
    let cell = |scenario: Scenario, subject| results.find(scenario.name(), subject, setting);
    let figure_of = |scenario, subject, figure: fn(&Cell) -> f64| cell(scenario, subject).map_or(f64::NAN, figure);
    let time = |scenario, subject| figure_of(scenario, subject, |cell| cell.median_ms);
    let cpu_time = |scenario, subject| figure_of(scenario, subject, |cell| cell.cpu_ms);
    // A target must be met relative to every alternative, so the better one counts.
    let ratio = |scenario, figure: fn(&Cell) -> f64| {
        figure_of(scenario, "ours", figure)
            / ALTERNATIVES.map(|name| figure_of(scenario, name, figure)).into_iter().fold(f64::NAN, f64::min)
    };
    let excess = |scenario, subject| time(scenario, "ours") - time(scenario, subject);
    let cold_ratio = |name| time(Scenario::Cold, "ours") / time(Scenario::Cold, name);
    let mut targets = vec![
        target("one change minus a call of the SDK, ms", excess(Scenario::One, "bare"), 0.4),
        target("rejected forgery minus the null function, ms", excess(Scenario::Forgery, "null"), 0.3),
        target("1000 changes in 2.9 MB, ms", time(Scenario::Thousand, "ours"), 60.0),
        target("1000 changes in 2.9 MB, CPU ms", cpu_time(Scenario::Thousand, "ours"), 40.0),
        target("1000 changes, ratio to the better alternative", ratio(Scenario::Thousand, |cell| cell.median_ms), 0.5),
        target("cold start minus the null function, ms", excess(Scenario::Cold, "null"), 35.0),
        target("cold start, ratio to Python", cold_ratio("python"), 1.0 / 14.0),
        target("cold start, ratio to Node.js", cold_ratio("node"), 1.0 / 8.0),
    ];
    targets.extend(Scenario::WARM.map(|scenario| {
        target(
            &format!("CPU time, ratio to the better alternative: {}", scenario.name()),
            ratio(scenario, |cell| cell.cpu_ms),
            0.25,
        )
    }));
    let max = |figures: [f64; 6]| figures.into_iter().fold(f64::NAN, f64::max);
    let peak = max(Scenario::WARM.map(|scenario| figure_of(scenario, "ours", |cell| cell.peak_mb)));
    targets.push(target("peak memory, MB", peak, 40.0));
    let peak = max(Scenario::WARM.map(|scenario| ratio(scenario, |cell| cell.peak_mb)));
    targets.push(target("peak memory, highest ratio to the better alternative", peak, 1.0 / 3.0));
    targets.push(target("binary, MB", bytes_to_mb(results.binary_bytes), 12.0));
    targets
}

fn instructions(counts: &Counts) -> String {
    let mut text =
        "| step | one change of 600 B | 1000 changes, 2.9 MB | per byte | per change |\n|---|--:|--:|--:|--:|\n"
            .to_owned();
    for step in STEPS {
        let count = |shape| counts.of(step, shape).map_or(f64::NAN, to_float);
        let [one, thousand, large] = [SHAPES[0], (1_000, 2_900), (1, 2_900_000)].map(count);
        // Adding 0 turns -0 into 0.
        let (per_byte, per_change) = (large / 2.9e6, ((thousand - large) / 1e3).round() + 0.0);
        let _ = writeln!(text, "| {step} | {one:.0} | {thousand:.0} | {per_byte:.2} | {per_change:.0} |");
    }
    let _ = writeln!(text, "\nCompiled by {}.", counts.compiler);
    text
}

#[allow(clippy::cast_precision_loss, reason = "for a figure with one decimal")]
fn bytes_to_mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run with a cell for each scenario of each setting that `is_measured`.
    fn run(is_measured: impl Fn(Subject, Scenario, Setting) -> bool) -> Results {
        let mut results = Results::default();
        for group in plan::groups() {
            for scenario in group.scenarios {
                for subject in Subject::ALL {
                    if subject.is_measured_in(scenario) && is_measured(subject, scenario, group.setting) {
                        results.cells.push(cell(subject, scenario, group.setting));
                    }
                }
            }
        }
        results
    }

    fn cell(subject: Subject, scenario: Scenario, setting: Setting) -> Cell {
        Cell {
            scenario: scenario.name().to_owned(),
            subject: subject.name().to_owned(),
            setting,
            samples: 1,
            median_ms: 1.0,
            p99_ms: 1.0,
            mean_ms: 1.0,
            init_ms: None,
            cpu_ms: 1.0,
            peak_mb: 1.0,
            calls: 1.0,
            bytes: 1.0,
        }
    }

    #[test]
    fn run_without_every_figure_is_rejected() {
        let only_ours = run(|subject, _, _| matches!(subject, Subject::Ours | Subject::Baseline));
        assert!(find_missing(&only_ours).unwrap().contains(" of null "));
        let one_scenario = run(|_, scenario, _| scenario == Scenario::One);
        assert!(find_missing(&one_scenario).unwrap().starts_with("forgery of ours "));
        let no_memory_sizes = run(|_, _, setting| setting.memory_mb.is_none());
        assert!(find_missing(&no_memory_sizes).unwrap().contains("1769 MB"));
    }

    #[test]
    fn failed_start_does_not_make_a_run_partial() {
        let setting = Setting { memory_mb: Some(128), ..WITH_TLS };
        let is_python = |subject, other| subject == Subject::Python && other == setting;
        let mut results = run(|subject, _, other| !is_python(subject, other));
        assert!(find_missing(&results).unwrap().contains(" of python "));
        results.failures.push(Failure {
            step: Failure::START.to_owned(),
            subject: Subject::Python.name().to_owned(),
            setting,
            reason: "no memory".to_owned(),
        });
        assert_eq!(find_missing(&results), None);
    }
}
