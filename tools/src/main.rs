//! The command line: reads arguments and environment, and turns outcomes into exit codes.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anstream::{eprintln, println};
use clap::{Parser, Subcommand};
use ingress_tools::{
    deliver::{DeliverError, Endpoint, Keys},
    expect::Expected,
    run::{Local, RunError},
    sam_local::{SamError, SamLocal},
    samples::{self, Sample, SampleError},
    stack::{Running, StackError},
};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

const SECRETS_HELP: &str = "\
Environment:
  APP_SECRET    what to sign with
  VERIFY_TOKEN  what the challenge carries
Where they are unset or empty, those of the local stack or, with --url, those of the samples are taken.";

/// Signs and delivers samples of Meta's webhooks, and runs the function on this computer.
///
/// Exit code 0: as expected. 1: not as expected, or it could not be done. 2: wrong arguments.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Regenerates in samples what follows from their body: signatures and content-length.
    Sign {
        /// The samples; without any, all of events/.
        files: Vec<PathBuf>,
        /// Change nothing; exit with 1 if a sample is stale.
        #[arg(long)]
        check: bool,
    },
    /// Signs one sample anew and delivers it over HTTP, as Meta would.
    #[command(after_help = SECRETS_HELP)]
    Deliver {
        /// The sample, such as events/messages-text.json.
        event: PathBuf,
        /// The callback URL; without it, that of the local stack that is up.
        #[arg(long)]
        url: Option<String>,
    },
    /// Deploys what `sam build` built on this computer, delivers every sample, and shows where it landed.
    Run {
        /// End after the samples, instead of staying up until Ctrl-C.
        #[arg(long)]
        once: bool,
        /// The folder with the samples.
        #[arg(long, default_value = "events")]
        events: PathBuf,
        /// The interpreter that has the local AWS.
        #[arg(long, default_value = ".venv/bin/python")]
        python: PathBuf,
    },
    /// Runs the function in Docker, as `sam local invoke` does, on queues and a secret of a local AWS.
    SamLocal {
        /// The samples, such as events/messages-text.json; without any, all of events/.
        events: Vec<PathBuf>,
        /// The interpreter that has SAM CLI and the local AWS.
        #[arg(long, default_value = ".venv/bin/python")]
        python: PathBuf,
    },
}

#[derive(Debug, Error)]
enum CommandError {
    #[error(transparent)]
    Sample(#[from] SampleError),
    #[error("cannot write {}: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    SamLocal(#[from] SamError),
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error("interrupted")]
    Interrupted,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Sign { files, check } => sign(&files, check),
        Command::Deliver { event, url } => deliver(&event, url).await,
        Command::Run { once, events, python } => run(once, &events, &python).await,
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

fn sign(files: &[PathBuf], check: bool) -> Result<bool, CommandError> {
    let samples = load(files)?;
    let mut fresh = true;
    for sample in samples {
        let signed = sample.signed_with(samples::APP_SECRET);
        if signed == sample.text {
            continue;
        }
        let path = sample.path;
        if check {
            fresh = false;
            println!("{}: stale", path.display());
        } else {
            fs::write(&path, signed).map_err(|source| CommandError::Unwritable { path: path.clone(), source })?;
            println!("{}: signed", path.display());
        }
    }
    Ok(fresh)
}

/// Reads the samples that were named, or all of them.
fn load(files: &[PathBuf]) -> Result<Vec<Sample>, SampleError> {
    if files.is_empty() {
        Sample::load_all(Path::new("events"))
    } else {
        files.iter().map(|path| Sample::load(path)).collect()
    }
}

async fn deliver(event: &Path, url: Option<String>) -> Result<bool, CommandError> {
    let sample = Sample::load(event)?;
    let at = match url {
        Some(url) => Running {
            callback_url: url,
            app_secret: samples::APP_SECRET.to_owned(),
            verify_token: samples::VERIFY_TOKEN.to_owned(),
        },
        None => Running::read(Path::new("."))?,
    };
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let keys = Keys {
        app_secret: set("APP_SECRET").unwrap_or(at.app_secret),
        verify_token: set("VERIFY_TOKEN").unwrap_or(at.verify_token),
    };
    let reply = Endpoint::new(&at.callback_url)?.deliver(&sample, &keys).await?;
    let expected = Expected::of(&sample);
    println!("{}: {} in {} ms", sample.name, reply.status, reply.elapsed.as_millis());
    if !reply.body.is_empty() {
        println!("{}", String::from_utf8_lossy(&reply.body));
    }
    let right = reply.status == expected.status && reply.body == expected.answer.as_bytes();
    if !right {
        eprintln!("expected: {} {}", expected.status, expected.answer);
    }
    Ok(right)
}

async fn run(once: bool, events: &Path, python: &Path) -> Result<bool, CommandError> {
    let local = tokio::select! {
        local = Local::act_as_meta(Path::new("."), events, python) => local?,
        stopped = stopped() => return stopped.and(Err(CommandError::Interrupted)),
    };
    let as_expected = local.is_as_expected();
    if once || !as_expected {
        return Ok(as_expected);
    }
    tokio::select! {
        failed = local.keep_up() => match failed? {},
        stopped = stopped() => stopped.map(|()| true),
    }
}

async fn sam_local(events: &[PathBuf], python: &Path) -> Result<bool, CommandError> {
    let samples = load(events)?;
    let invoked = SamLocal::start(Path::new("."), python).await?.invoke_all(&samples).await?;
    Ok(invoked.iter().all(|invoked| invoked.outcome.is_as_expected()))
}

/// Waits for the signals that end a program, so that it ends what it started first.
async fn stopped() -> Result<(), CommandError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CommandError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(CommandError::Signals)?;
    tokio::select! {
        _ = interrupt.recv() => (),
        _ = terminate.recv() => (),
        _ = hangup.recv() => (),
    }
    Ok(())
}
