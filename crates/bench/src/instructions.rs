//! Instructions that the pure path executes, counted by callgrind and compared with what they were.
//!
//! Unlike time, a count does not depend on what else the computer does. It depends on the compiler, which is kept with
//! it, and leaves out one thing: callgrind knows no instructions for SHA-256, so hashing is counted as it is without.
#![allow(clippy::print_stdout, reason = "a table is what this is for")]

use std::{collections::BTreeMap, env, error::Error, fs, process::Command};

use serde::{Deserialize, Serialize};

use crate::{about::said, contender::project};

pub(crate) const STEPS: [&str; 3] = ["hash", "split", "build"];

/// Changes, and bytes of each.
pub(crate) const SHAPES: [(usize, usize); 3] = [(1, 600), (25, 600), (1, 2_900_000)];

/// The same, growing in changes and bytes alike up to 3 MB.
pub(crate) const GROWING: [(usize, usize); 5] =
    [(200, 2_900), (400, 2_900), (600, 2_900), (800, 2_900), (1_000, 2_900)];

/// Counts that differ by less are the same; with another compiler they may differ by more.
const TOLERANCE: f64 = 0.02;
const TOLERANCE_OF_COMPILERS: f64 = 0.15;

/// The counts as they are kept.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) compiler: String,
    /// By step and shape.
    pub(crate) instructions: BTreeMap<String, u64>,
}

impl Counts {
    pub(crate) fn of(&self, step: &str, (changes, bytes): (usize, usize)) -> Option<u64> {
        self.instructions.get(&name(step, changes, bytes)).copied()
    }

    /// The counts that are kept in the project.
    pub(crate) fn kept() -> Result<Self, Box<dyn Error>> {
        let text = fs::read_to_string(project().join(KEPT)).map_err(|error| format!("{KEPT}: {error}"))?;
        Ok(serde_json::from_str(&text)?)
    }
}

const KEPT: &str = "crates/bench/instructions.json";

/// Counts anew, and keeps the counts or compares them with those that are kept.
pub(crate) fn check(keep: bool) -> Result<(), Box<dyn Error>> {
    let counted = count()?;
    if keep {
        fs::write(project().join(KEPT), serde_json::to_string_pretty(&counted)? + "\n")?;
        return Ok(());
    }
    let kept = Counts::kept()?;
    let tolerance = if kept.compiler == counted.compiler {
        TOLERANCE
    } else {
        println!("{KEPT} is of {}, this is {}", kept.compiler, counted.compiler);
        TOLERANCE_OF_COMPILERS
    };
    let mut differing = 0;
    for (name, now) in &counted.instructions {
        let was = kept.instructions.get(name).copied().ok_or_else(|| format!("{KEPT} has no {name}"))?;
        let change = to_float(*now) / to_float(was) - 1.0;
        let verdict = if change.abs() <= tolerance { "" } else { "  differs" };
        differing += usize::from(!verdict.is_empty());
        println!("{name:<26}{was:>14}{now:>14}{:>+8.2} %{verdict}", change * 100.0);
    }
    if differing > 0 {
        let advice = "where that is meant, `make bench-baseline` keeps the new counts";
        return Err(format!("{differing} counts differ by more than {:.0} %; {advice}", tolerance * 100.0).into());
    }
    Ok(())
}

fn count() -> Result<Counts, Box<dyn Error>> {
    let mut instructions = BTreeMap::new();
    for step in STEPS {
        for (changes, bytes) in SHAPES.into_iter().chain(GROWING) {
            // The first time does what is done once, such as looking what the processor can do.
            let [once, thrice] = [1, 3].map(|times| run(step, changes, bytes, times));
            instructions.insert(name(step, changes, bytes), (thrice? - once?) / 2);
        }
    }
    Ok(Counts { compiler: said("rustc", &["--version"]), instructions })
}

/// All instructions of a process that takes a step so many times.
fn run(step: &str, changes: usize, bytes: usize, times: usize) -> Result<u64, Box<dyn Error>> {
    let pure = env::current_exe()?.with_file_name("pure");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(&pure)
        .args([step, &changes.to_string(), &bytes.to_string(), &times.to_string()])
        .output()
        .map_err(|error| format!("valgrind (Debian has a package of that name): {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let counted = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    counted.ok_or_else(|| format!("{}: {said}", pure.display()).into())
}

fn name(step: &str, changes: usize, bytes: usize) -> String {
    format!("{step} {changes} x {bytes} B")
}

#[allow(clippy::cast_precision_loss, reason = "for a ratio")]
pub(crate) fn to_float(count: u64) -> f64 {
    count as f64
}
