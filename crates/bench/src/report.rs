//! The tables of `docs/performance.md`, and the figures of its charts.

use std::{error::Error, fmt::Write as _, fs, path::Path};

use crate::{
    charts::charts,
    contender::project,
    cost,
    instructions::{Counts, SHAPES, STEPS, to_float},
    page,
    plan::{self, PLAIN, REAL},
    results::{Cell, Results, Setting},
    scene::Scene,
};

const PAGE: &str = "docs/performance.md";
const CHARTS: &str = "docs/performance/charts.json";
const CONTENDERS: [&str; 6] = ["ours", "null", "null_runtime", "bare", "python", "node"];
const PEERS: [&str; 2] = ["python", "node"];

/// Writes the tables of a run into the page, and the figures of the charts beside it.
pub(crate) fn write(run: &Path) -> Result<(), Box<dyn Error>> {
    let results: Results = serde_json::from_str(&fs::read_to_string(run)?)?;
    // The counts belong to the compiler that they were kept with, not to this run.
    let counts = Counts::kept()?;
    let sections = [
        ("about", about(&results)),
        ("bars", bars(&results)),
        ("real", scenes(&results, REAL)),
        ("plain", scenes(&results, PLAIN)),
        ("latencies", latencies(&results)),
        ("starts", starts(&results)),
        ("memory", by_memory(&results)),
        ("cost", cost::by_memory(&results)?),
        ("instructions", instructions(&counts)),
    ];
    page::update(PAGE, &sections)?;
    fs::write(project().join(CHARTS), serde_json::to_string_pretty(&charts(&results, &counts))? + "\n")?;
    Ok(())
}

fn about(results: &Results) -> String {
    let mut text = String::new();
    for (what, value) in &results.about {
        let _ = writeln!(text, "- {what}: {value}");
    }
    let _ = writeln!(text, "- binary: {:.1} MB", bytes_to_mb(results.binary_bytes));
    text
}

fn scenes(results: &Results, setting: Setting) -> String {
    let mut text = "| scene | | n | median ms | 99 % ms | CPU ms | peak MB | calls | kB to SQS |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n".to_owned();
    let is_shown = |cell: &&Cell| cell.setting == setting && CONTENDERS.contains(&&*cell.contender);
    for cell in results.cells.iter().filter(is_shown) {
        let Cell { scene, contender, samples, median_ms, p99_ms, cpu_ms, peak_mb, calls, bytes, .. } = cell;
        let _ = writeln!(
            text,
            "| {scene} | {contender} | {samples} | {median_ms:.2} | {p99_ms:.2} | {cpu_ms:.2} | {peak_mb:.0} | {calls} | {:.1} |",
            bytes / 1e3
        );
    }
    text
}

fn latencies(results: &Results) -> String {
    let mut text = "| scene | SQS answers in | ours | bare | python | node |\n|---|--:|--:|--:|--:|--:|\n".to_owned();
    for scene in [Scene::One, Scene::Batch, Scene::Thousand] {
        for latency_ms in [0, 10, 30] {
            let setting = Setting { latency_ms, ..PLAIN };
            let medians = ["ours", "bare", "python", "node"].map(|name| median(results, scene, name, setting));
            let _ = writeln!(text, "| {} | {latency_ms} ms | {} |", scene.name(), medians.join(" | "));
        }
    }
    text
}

fn by_memory(results: &Results) -> String {
    let mut text =
        "| scene | | 128 MB | 256 MB | 512 MB | 1769 MB | no limit |\n|---|---|--:|--:|--:|--:|--:|\n".to_owned();
    for scene in Scene::WARM {
        for contender in CONTENDERS {
            let times: Vec<_> = plan::by_memory().map(|setting| spread(results, scene, contender, setting)).collect();
            if times.iter().any(|times| !times.is_empty()) {
                let _ = writeln!(text, "| {} | {contender} | {} |", scene.name(), times.join(" | "));
            }
        }
    }
    text
}

/// From the spawn to the first call of `/next`, and to the first answer.
fn starts(results: &Results) -> String {
    let settings = plan::by_memory().chain([PLAIN]);
    let mut text =
        "| | 128 MB | 256 MB | 512 MB | 1769 MB | no limit | without TLS |\n|---|--:|--:|--:|--:|--:|--:|\n".to_owned();
    let mut row = |what: &str, contender, figure: fn(&Cell) -> Option<f64>| {
        let cells = settings.clone().map(|setting| results.find(Scene::Cold.name(), contender, setting));
        let figures: Vec<_> =
            cells.map(|cell| cell.and_then(figure).map_or_else(String::new, |figure| format!("{figure:.1}"))).collect();
        let _ = writeln!(text, "| {contender}, {what} | {} |", figures.join(" | "));
    };
    for contender in CONTENDERS {
        if results.find(Scene::Cold.name(), contender, PLAIN).is_some() {
            row("init", contender, |cell| cell.init_ms);
            row("to the first answer", contender, |cell| Some(cell.median_ms));
        }
    }
    text
}

/// The median, and the 99th percentile behind it.
fn spread(results: &Results, scene: Scene, contender: &str, setting: Setting) -> String {
    let cell = results.find(scene.name(), contender, setting);
    cell.map(|cell| format!("{:.1} / {:.1}", cell.median_ms, cell.p99_ms)).unwrap_or_default()
}

fn median(results: &Results, scene: Scene, contender: &str, setting: Setting) -> String {
    results.find(scene.name(), contender, setting).map(|cell| format!("{:.1}", cell.median_ms)).unwrap_or_default()
}

fn bars(results: &Results) -> String {
    let mut text = "| | without TLS | with TLS | at most | |\n|---|--:|--:|--:|---|\n".to_owned();
    for (plain, real) in measured(results, PLAIN).into_iter().zip(measured(results, REAL)) {
        let verdict = match (plain.measured <= plain.at_most, real.measured <= real.at_most) {
            (true, true) => "holds",
            (true, false) => "holds without TLS",
            (false, true) => "holds with TLS",
            (false, false) => "**does not hold**",
        };
        let _ = writeln!(
            text,
            "| {} | {:.3} | {:.3} | {:.3} | {verdict} |",
            plain.what, plain.measured, real.measured, plain.at_most
        );
    }
    text
}

/// What was set out to be reached, and what is.
struct Bar {
    what: String,
    measured: f64,
    at_most: f64,
}

fn measured(results: &Results, setting: Setting) -> Vec<Bar> {
    let bar = |what: &str, measured, at_most| Bar { what: what.to_owned(), measured, at_most };
    let cell = |scene: Scene, contender| results.find(scene.name(), contender, setting);
    let of = |scene, contender, figure: fn(&Cell) -> f64| cell(scene, contender).map_or(f64::NAN, figure);
    let time = |scene, contender| of(scene, contender, |cell| cell.median_ms);
    // A bar is for every peer, so the better one is what counts.
    let share = |scene, figure: fn(&Cell) -> f64| {
        of(scene, "ours", figure) / PEERS.map(|peer| of(scene, peer, figure)).into_iter().fold(f64::NAN, f64::min)
    };
    let beyond = |scene, contender| time(scene, "ours") - time(scene, contender);
    let cold = |peer| time(Scene::Cold, "ours") / time(Scene::Cold, peer);
    let mut bars = vec![
        bar("one change, beyond a bare call of the SDK, ms", beyond(Scene::One, "bare"), 0.5),
        bar("forgery refused, beyond the null function, ms", beyond(Scene::Forgery, "null"), 0.3),
        bar("1000 changes in 2.9 MB, ms", time(Scene::Thousand, "ours"), 80.0),
        bar("1000 changes, of the better peer's time", share(Scene::Thousand, |cell| cell.median_ms), 0.5),
        bar("cold start to first answer, beyond the null function, ms", beyond(Scene::Cold, "null"), 35.0),
        bar("cold start, of Python's", cold("python"), 1.0 / 14.0),
        bar("cold start, of Node's", cold("node"), 1.0 / 8.0),
    ];
    bars.extend(Scene::WARM.map(|scene| {
        bar(&format!("CPU time of the better peer's: {}", scene.name()), share(scene, |cell| cell.cpu_ms), 0.25)
    }));
    let worst = |figures: [f64; 6]| figures.into_iter().fold(f64::NAN, f64::max);
    let most = worst(Scene::WARM.map(|scene| of(scene, "ours", |cell| cell.peak_mb)));
    bars.push(bar("peak memory, MB", most, 40.0));
    let most = worst(Scene::WARM.map(|scene| share(scene, |cell| cell.peak_mb)));
    bars.push(bar("peak memory of the better peer's, in the scene where it is most", most, 1.0 / 3.0));
    bars.push(bar("binary, MB", bytes_to_mb(results.binary_bytes), 12.0));
    bars
}

fn instructions(counts: &Counts) -> String {
    let mut text =
        "| step | one change of 600 B | 1000 changes, 2.9 MB | for a byte | for a change |\n|---|--:|--:|--:|--:|\n"
            .to_owned();
    for step in STEPS {
        let count = |shape| counts.of(step, shape).map_or(f64::NAN, to_float);
        let [one, thousand, large] = [SHAPES[0], (1_000, 2_900), (1, 2_900_000)].map(count);
        // Adding nothing makes of -0 a 0.
        let (per_byte, per_change) = (large / 2.9e6, ((thousand - large) / 1e3).round() + 0.0);
        let _ = writeln!(text, "| {step} | {one:.0} | {thousand:.0} | {per_byte:.2} | {per_change:.0} |");
    }
    let _ = writeln!(text, "\nCounted of code by {}.", counts.compiler);
    text
}

#[allow(clippy::cast_precision_loss, reason = "for a figure with one decimal")]
fn bytes_to_mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
