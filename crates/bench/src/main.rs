//! Measures the built function beside what people would use instead, with one clock, on one fake AWS.
//!
//! [`plan`] says which [`scene`]s are measured in which setting; [`contender`] starts a function from its [`gate`] and
//! [`limits`] give it the processor that Lambda would; [`measure`] feeds it and counts. [`results`] go to a file, from
//! which [`table`] prints, and [`report`] writes the tables of `docs/performance.md` and the figures of its charts.
//! [`instructions`] counts the instructions of the pure path and compares them with the baseline. [`capacity`] writes the tables of
//! `docs/capacity.md` from [`inputs`], with a [`simulation`] of Lambda; [`cost`] has the bills of both pages.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod about;
mod capacity;
mod charts;
mod contender;
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
mod scene;
mod simulation;
mod table;

use std::{error::Error, fs, path::PathBuf};

use clap::{Parser, Subcommand};

use crate::{
    contender::{Contender, other, ours},
    limits::Limits,
    plan::{Effort, groups},
    results::Results,
    scene::Scene,
};

#[derive(Parser)]
#[command(about = "Measures whatsapp-ingress and what could be in its place")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measures, prints a table, and keeps the figures.
    Run(Run),
    /// Counts the instructions of the pure path, and compares them with those that are kept.
    Instructions {
        /// Keeps the new counts instead.
        #[arg(long)]
        keep: bool,
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
    /// Only these scenes.
    #[arg(long, value_delimiter = ',')]
    scenes: Vec<Scene>,
    /// Only these functions.
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// Only these shares of a processor, by the memory that Lambda gives them for; 0 is all there is.
    #[arg(long, value_delimiter = ',')]
    memory: Vec<u32>,
    /// So many times as many invocations, to tell smaller differences; cold starts stay as many.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
    /// A few invocations of each, to see that all works.
    #[arg(long)]
    smoke: bool,
    /// Where the figures are kept.
    #[arg(long, default_value = "target/bench.json")]
    keep: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    match Arguments::parse().task {
        Task::Run(run) => run.run().await,
        Task::Instructions { keep } => instructions::check(keep),
        Task::Capacity => capacity::write(),
        Task::Report { run } => report::write(&run),
    }
}

impl Run {
    async fn run(&self) -> Result<(), Box<dyn Error>> {
        let contenders = self.contenders()?;
        let effort = if self.smoke { Effort::SMOKE } else { Effort::USUAL.times(self.times) };
        Limits::new(None).map_err(|error| format!("control groups cannot be made, which root can: {error}"))?;
        let mut results =
            Results { about: about::about(&contenders), binary_bytes: fs::metadata(ours())?.len(), cells: vec![] };
        for mut group in groups() {
            let memory = group.setting.memory_mb.unwrap_or(0);
            group.scenes.retain(|scene| self.scenes.is_empty() || self.scenes.contains(scene));
            if group.scenes.is_empty() || !(self.memory.is_empty() || self.memory.contains(&memory)) {
                continue;
            }
            table::head(group.setting);
            measure::measure(&group, &contenders, effort, |cell| {
                table::line(&cell);
                results.cells.push(cell);
            })
            .await?;
        }
        fs::write(&self.keep, serde_json::to_string_pretty(&results)? + "\n")?;
        Ok(())
    }

    fn contenders(&self) -> Result<Vec<Contender>, String> {
        let wanted = |of: &Contender| match of {
            Contender::Other if other().is_some() => true,
            Contender::Other => self.contenders.contains(of),
            _ => self.contenders.is_empty() || self.contenders.contains(of),
        };
        let contenders: Vec<_> = Contender::ALL.into_iter().filter(wanted).collect();
        match contenders.iter().find(|contender| !contender.is_installed()) {
            Some(Contender::Other) => Err("the other build is the one that AGAINST names".to_owned()),
            Some(missing) => Err(format!("{} is not there: `make bench` installs and builds it", missing.name())),
            None => Ok(contenders),
        }
    }
}
