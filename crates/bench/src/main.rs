//! Benchmarks the built function and its alternatives, with one clock and one fake AWS.
//!
//! [`plan`] lists the [`scenario`]s for each setting. [`subject`] starts a function, [`gate`] defines its start time, and
//! [`limits`] limits its processor time as Lambda does. [`measure`] invokes the functions. [`table`] prints the [`results`], and
//! [`report`] writes them into `docs/performance.md` and its charts. [`concurrency`] measures environments that serve several
//! requests at a time.
//!
//! [`instructions`] counts the instructions of the pure path and compares them with the baseline. [`capacity`] writes the tables
//! of `docs/capacity.md` from [`inputs`] and a [`simulation`] of Lambda. [`cost`] computes the prices for both pages.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod about;
mod capacity;
mod charts;
mod concurrency;
mod cost;
mod gate;
mod inputs;
mod instructions;
mod limits;
mod measure;
mod memory;
mod page;
mod plan;
mod report;
mod results;
mod scenario;
mod simulation;
mod subject;
mod table;

use std::{error::Error, fs, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};

use crate::{
    limits::Limits,
    plan::{Effort, groups},
    results::Results,
    scenario::Scenario,
    subject::{Subject, baseline, ours},
};

#[derive(Parser)]
#[command(about = "Benchmarks whatsapp-ingress and its alternatives")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs the benchmarks, prints a table, and writes the figures into a file.
    Run(Run),
    /// Counts the instructions of the pure path, and compares them with the baseline.
    Instructions {
        /// Replaces the baseline by the new counts.
        #[arg(long)]
        replace: bool,
    },
    /// Measures several requests at a time, and writes the table into docs/performance.md.
    Concurrency {
        /// The functions.
        #[arg(long, value_delimiter = ',', default_value = "ours,node")]
        subjects: Vec<Subject>,
        /// The seconds of each measurement.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
    },
    /// Writes the tables of docs/capacity.md.
    Capacity,
    /// Writes the figures of a run into docs/performance.md.
    Report {
        /// The file of the run.
        #[arg(default_value = "target/bench.json")]
        run: PathBuf,
    },
}

#[derive(clap::Args)]
struct Run {
    /// Only these scenarios.
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// Only these functions.
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<Subject>,
    /// Only these memory sizes in MB, which limit the processor time. 0 is without a limit.
    #[arg(long, value_delimiter = ',')]
    memory: Vec<u32>,
    /// Multiplies the number of invocations, except cold starts, for smaller differences.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    scale: u32,
    /// Only a few invocations, to check that the benchmarks run.
    #[arg(long)]
    smoke: bool,
    /// The output file.
    #[arg(long, default_value = "target/bench.json")]
    output: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    match Arguments::parse().task {
        Task::Run(run) => run.run().await,
        Task::Instructions { replace } => instructions::check(replace),
        Task::Concurrency { subjects, seconds } => concurrency::write(&subjects, Duration::from_secs(seconds)).await,
        Task::Capacity => capacity::write(),
        Task::Report { run } => report::write(&run),
    }
}

impl Run {
    async fn run(&self) -> Result<(), Box<dyn Error>> {
        let subjects = self.subjects()?;
        let effort = if self.smoke { Effort::SMOKE } else { Effort::DEFAULT.scaled(self.scale) };
        Limits::new(None).map_err(|error| format!("control groups cannot be created (root can): {error}"))?;
        let mut results = Results {
            about: about::describe(&subjects),
            binary_bytes: fs::metadata(ours())?.len(),
            ..Results::default()
        };
        for mut group in groups() {
            let memory = group.setting.memory_mb.unwrap_or(0);
            group.scenarios.retain(|scenario| self.scenarios.is_empty() || self.scenarios.contains(scenario));
            if group.scenarios.is_empty() || !(self.memory.is_empty() || self.memory.contains(&memory)) {
                continue;
            }
            table::print_heading(group.setting);
            measure::measure(&group, &subjects, effort, |cell| match cell {
                Ok(cell) => {
                    table::print_cell(&cell);
                    results.cells.push(cell);
                }
                Err(failure) => {
                    table::print_failure(&failure);
                    results.failures.push(failure);
                }
            })
            .await?;
        }
        fs::write(&self.output, serde_json::to_string_pretty(&results)? + "\n")?;
        // An alternative may fail, for example at a small memory size. The function must not, and neither its other build.
        let builds = [Subject::Ours, Subject::Baseline].map(Subject::name);
        let failed = results.failures.iter().find(|failure| builds.contains(&&*failure.subject));
        failed.map_or(Ok(()), |failure| Err(format!("{}: {}", failure.step, failure.reason).into()))
    }

    fn subjects(&self) -> Result<Vec<Subject>, String> {
        let is_selected = |subject: &Subject| match subject {
            Subject::Baseline if baseline().is_some() => true,
            Subject::Baseline | Subject::Archive => self.subjects.contains(subject),
            _ => self.subjects.is_empty() || self.subjects.contains(subject),
        };
        let subjects: Vec<_> = Subject::ALL.into_iter().filter(is_selected).collect();
        match subjects.iter().find(|subject| !subject.is_installed()) {
            Some(Subject::Baseline) => {
                Err("BASELINE must name the program of another build, such as /tmp/before/whatsapp-ingress".to_owned())
            }
            Some(missing) => Err(format!("{} is not installed: run `make bench`", missing.name())),
            None => Ok(subjects),
        }
    }
}
