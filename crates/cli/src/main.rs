//! The command line: reads arguments and environment, and turns outcomes into exit codes.

mod arguments;
mod commands;

use std::process::ExitCode;

use anstream::eprintln;
use clap::Parser;

use crate::{
    arguments::{Arguments, Command},
    commands::{CommandError, deliver, queues, redrive, reroute, run, sam_local, sign, stopped, subscribe, verify},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Sign { files, check } => sign(&files, check),
        Command::Deliver { event, url } => deliver(&event, url).await,
        Command::Run { once, events, python } => run(once, &events, &python).await,
        Command::Verify { url, stack, no_stack, json } => verify(url, &stack, no_stack, json).await,
        Command::Subscribe(wanted) => subscribe(wanted).await,
        Command::Queues { stack, json } => queues(&stack, json).await,
        Command::Redrive { wanted, from } => redrive(&wanted, from.as_deref()).await,
        Command::Reroute { wanted } => reroute(&wanted).await,
        Command::SamLocal { events, python } => tokio::select! {
            done = sam_local(&events, &python) => done,
            stopped = stopped() => stopped.and(Err(CommandError::Interrupted)),
        },
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ingress: {error}");
            ExitCode::FAILURE
        }
    }
}
