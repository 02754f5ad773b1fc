//! The command line: parses the arguments, runs the command, and exits with its result.

mod archive_commands;
mod arguments;
mod commands;

use std::process::ExitCode;

use anstream::eprintln;
use clap::Parser;

use crate::{
    arguments::{Arguments, Command},
    commands::{
        CommandError, deliver, drop_messages, export, peek, queues, redrive, reroute, restore_queue, run, sam_local,
        sign, subscribe, verify, wait_for_signal,
    },
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Sign { files, check } => sign(&files, check),
        Command::Deliver { event, body, url } => deliver(event.as_deref(), body.as_deref(), url).await,
        Command::Run { once, events, python } => run(once, &events, &python).await,
        Command::Verify { url, stack, no_stack } => verify(url, &stack, no_stack).await,
        Command::Subscribe(arguments) => subscribe(arguments).await,
        Command::Queues { stack } => queues(&stack).await,
        Command::Redrive { arguments, from, to } => redrive(&arguments, from.as_deref(), to.as_deref()).await,
        Command::Reroute { arguments } => reroute(&arguments).await,
        Command::Peek { queue } => peek(&queue).await,
        Command::Drop { queue, filter, apply } => drop_messages(&queue, &filter.into(), apply).await,
        Command::Export { queue, filter, to, delete, apply } => {
            export(&queue, &filter.into(), &to, delete, apply).await
        }
        Command::RestoreQueue { route, apply, stack } => restore_queue(&route, apply, &stack).await,
        Command::Archive(command) => Box::pin(archive_commands::run(command)).await,
        Command::SamLocal { events, python } => tokio::select! {
            result = sam_local(&events, &python) => result,
            signal = wait_for_signal() => signal.and(Err(CommandError::Interrupted)),
        },
    };
    // `true`: the result is as expected.
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ingress: {error}");
            ExitCode::FAILURE
        }
    }
}
