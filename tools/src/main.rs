//! The command line: reads arguments and environment, and turns outcomes into exit codes.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anstream::{eprintln, println};
use clap::{Parser, Subcommand};
use ingress_tools::{
    catch_all::CatchAll,
    deliver::{DeliverError, Endpoint, of_environment},
    expect::Expected,
    facts::{Facts, FactsError},
    report,
    run::{Local, RunError},
    sam_local::{SamError, SamLocal},
    samples::{self, Sample, SampleError},
    verify::{self, Check, Target},
};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use whatsapp_ingress::secrets::Known;

const SECRETS_HELP: &str = "\
Environment:
  APP_SECRET    what to sign with
  VERIFY_TOKEN  what the challenge carries
Where they are unset or empty, those of the local stack or, with --url, those of the samples are taken.";

/// The name in samconfig.toml.
const STACK: &str = "whatsapp-ingress";

const VERIFY_HELP: &str = "\
Sends 21 notifications of the field ingress_verify, which nobody has a queue for, finds them on the catch-all
queue and deletes them there. Without URL and stack, the local stack that is up is looked at.

Environment:
  AWS_PROFILE, AWS_REGION ...  for the stack's outputs, its secret and its catch-all queue
  APP_SECRET, VERIFY_TOKEN     instead of those in the stack's secret";

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
    /// Acts as Meta, and as a forger, against an endpoint, and says of each thing that Meta relies on whether it holds.
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// The callback URL; without it, that of the stack.
        #[arg(long)]
        url: Option<String>,
        #[command(flatten)]
        stack: NamedStack,
        /// Ask AWS for nothing: both secrets are those of the environment, and no notification is sent.
        #[arg(long, requires = "url", conflicts_with = "stack")]
        no_stack: bool,
        /// Print the findings as JSON.
        #[arg(long)]
        json: bool,
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

/// A deployed stack, and the way to ask for it.
#[derive(Debug, clap::Args)]
struct NamedStack {
    /// Name of the stack, for its secret and its queues; with a URL alone, that of samconfig.toml.
    #[arg(long)]
    stack: Option<String>,
    /// The interpreter that has the AWS SDK.
    #[arg(long, default_value = ".venv/bin/python")]
    python: PathBuf,
}

impl NamedStack {
    /// Asks AWS with the credentials, profile and region of the environment.
    async fn facts(&self) -> Result<Facts, FactsError> {
        Facts::deployed(Path::new("."), &self.python, self.stack.as_deref().unwrap_or(STACK)).await
    }
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
    Facts(#[from] FactsError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    SamLocal(#[from] SamError),
    #[error("neither APP_SECRET and VERIFY_TOKEN are set, nor is a stack named")]
    NoKeys,
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
        Command::Verify { url, stack, no_stack, json } => verify(url, &stack, no_stack, json).await,
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
    let (url, keys) = if let Some(url) = url {
        (url, samples::keys())
    } else {
        let facts = Facts::running(Path::new("."))?;
        (facts.callback_url.clone(), facts.keys()?)
    };
    let reply = Endpoint::new(&url)?.deliver(&sample, &keys.or_of_environment()).await?;
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

async fn verify(url: Option<String>, stack: &NamedStack, no_stack: bool, json: bool) -> Result<bool, CommandError> {
    let facts = match (&url, &stack.stack) {
        _ if no_stack => None,
        (None, None) => Some(Facts::running(Path::new("."))?),
        _ => Some(stack.facts().await?),
    };
    let (app_secret, verify_token) = (of_environment("APP_SECRET"), of_environment("VERIFY_TOKEN"));
    let known = match (app_secret, verify_token, &facts) {
        (Some(app_secret), Some(verify_token), _) => Known { verify_token, app_secrets: vec![app_secret] },
        (app_secret, verify_token, Some(facts)) => {
            let known = facts.known()?;
            Known {
                verify_token: verify_token.unwrap_or(known.verify_token),
                app_secrets: app_secret.map_or(known.app_secrets, |secret| vec![secret]),
            }
        }
        _ => return Err(CommandError::NoKeys),
    };
    let url = url.or(facts.as_ref().map(|facts| facts.callback_url.clone())).unwrap_or_default();
    let target = Target { endpoint: Endpoint::new(&url)?, known, catch_all: facts.as_ref().and_then(CatchAll::of) };
    let checks = if json {
        let checks = verify::verify(&target, |_| ()).await;
        println!("{}", serde_json::json!({ "url": url, "holds": !checks.iter().any(Check::fails), "checks": checks }));
        checks
    } else {
        println!("{url}\n");
        let checks = verify::verify(&target, report::check).await;
        report::verdict(&checks);
        checks
    };
    Ok(!checks.iter().any(Check::fails))
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
