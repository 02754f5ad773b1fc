//! Counts the instructions of the pure path with callgrind, and compares the counts with the baseline.
//!
//! Unlike time, a count does not depend on other processes. It depends on the compiler, so the baseline records its version.
//! Callgrind does not emulate the SHA-256 instructions of the processor, so the counts are those of hashing without them.
#![allow(clippy::print_stdout, reason = "the output is a table")]

use std::{collections::BTreeMap, env, error::Error, fs, process::Command};

use serde::{Deserialize, Serialize};

use crate::{about::output_of, subject::project_root};

pub(crate) const STEPS: [&str; 3] = ["hash", "split", "build"];

/// The number of changes, and the bytes of each.
pub(crate) const SHAPES: [(usize, usize); 3] = [(1, 600), (25, 600), (1, 2_900_000)];

/// Growing numbers of changes, up to 3 MB.
pub(crate) const GROWING: [(usize, usize); 5] =
    [(200, 2_900), (400, 2_900), (600, 2_900), (800, 2_900), (1_000, 2_900)];

/// The relative difference that counts may have with the same compiler.
const TOLERANCE: f64 = 0.02;

/// The relative difference that counts may have with another compiler.
const OTHER_COMPILER_TOLERANCE: f64 = 0.15;

/// The counts by step and shape.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) compiler: String,
    pub(crate) instructions: BTreeMap<String, u64>,
}

impl Counts {
    pub(crate) fn of(&self, step: &str, (changes, bytes): (usize, usize)) -> Option<u64> {
        self.instructions.get(&name(step, changes, bytes)).copied()
    }

    /// Reads the baseline.
    pub(crate) fn read_baseline() -> Result<Self, Box<dyn Error>> {
        let text = fs::read_to_string(project_root().join(BASELINE_PATH))
            .map_err(|error| format!("{BASELINE_PATH}: {error}"))?;
        Ok(serde_json::from_str(&text)?)
    }
}

const BASELINE_PATH: &str = "crates/bench/instructions.json";

/// Counts the instructions, and compares them with the baseline or replaces it.
pub(crate) fn check(replace: bool) -> Result<(), Box<dyn Error>> {
    let counts = count()?;
    if replace {
        fs::write(project_root().join(BASELINE_PATH), serde_json::to_string_pretty(&counts)? + "\n")?;
        return Ok(());
    }
    let baseline = Counts::read_baseline()?;
    let tolerance = if baseline.compiler == counts.compiler {
        TOLERANCE
    } else {
        println!("{BASELINE_PATH} was counted with {}, this run with {}", baseline.compiler, counts.compiler);
        OTHER_COMPILER_TOLERANCE
    };
    let mut differing = 0;
    for (name, count) in &counts.instructions {
        let expected =
            baseline.instructions.get(name).copied().ok_or_else(|| format!("{BASELINE_PATH} has no {name}"))?;
        let change = to_float(*count) / to_float(expected) - 1.0;
        let verdict = if change.abs() <= tolerance { "" } else { "  differs" };
        differing += usize::from(!verdict.is_empty());
        println!("{name:<26}{expected:>14}{count:>14}{:>+8.2} %{verdict}", change * 100.0);
    }
    if differing > 0 {
        let advice = "if this is intended, run `make bench-baseline`";
        return Err(format!("{differing} counts differ by more than {:.0} %; {advice}", tolerance * 100.0).into());
    }
    Ok(())
}

fn count() -> Result<Counts, Box<dyn Error>> {
    let mut instructions = BTreeMap::new();
    for step in STEPS {
        for (changes, bytes) in SHAPES.into_iter().chain(GROWING) {
            // The difference excludes one-time work, such as detecting the features of the processor.
            let [once, thrice] = [1, 3].map(|repetitions| run(step, changes, bytes, repetitions));
            instructions.insert(name(step, changes, bytes), (thrice? - once?) / 2);
        }
    }
    Ok(Counts { compiler: output_of("rustc", &["--version"]), instructions })
}

/// Returns all instructions of a process that repeats a step.
fn run(step: &str, changes: usize, bytes: usize, repetitions: usize) -> Result<u64, Box<dyn Error>> {
    let pure = env::current_exe()?.with_file_name("pure");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(&pure)
        .args([step, &changes.to_string(), &bytes.to_string(), &repetitions.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error} (install the Debian package valgrind)"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    let count: Option<u64> = log.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.ok_or_else(|| format!("{}: {log}", pure.display()).into())
}

fn name(step: &str, changes: usize, bytes: usize) -> String {
    format!("{step} {changes} x {bytes} B")
}

#[allow(clippy::cast_precision_loss, reason = "for a ratio")]
pub(crate) fn to_float(count: u64) -> f64 {
    count as f64
}
