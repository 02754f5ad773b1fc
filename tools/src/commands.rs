//! What each command does, up to what it prints.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anstream::{eprintln, println};
use ingress_tools::{
    catch_all::CatchAll,
    deliver::{DeliverError, Endpoint, of_environment},
    expect::Expected,
    facts::{Facts, FactsError},
    graph::{Graph, GraphError},
    report,
    run::{Local, RunError},
    sam_local::{SamError, SamLocal},
    samples::{self, Sample, SampleError},
    subscribe::{Tokens, Wanted},
    verify::{self, Check, Target},
};
use serde_json::json;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use whatsapp_ingress::secrets::Known;

use crate::arguments::{NamedStack, Subscribe};

#[derive(Debug, Error)]
pub(crate) enum CommandError {
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
    #[error("META_ACCESS_TOKEN is not set, which accounts need: the access token of a system user")]
    NoAccessToken,
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error("interrupted")]
    Interrupted,
}

pub(crate) fn sign(files: &[PathBuf], check: bool) -> Result<bool, CommandError> {
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

pub(crate) async fn deliver(event: &Path, url: Option<String>) -> Result<bool, CommandError> {
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

pub(crate) async fn run(once: bool, events: &Path, python: &Path) -> Result<bool, CommandError> {
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

pub(crate) async fn verify(
    url: Option<String>,
    stack: &NamedStack,
    no_stack: bool,
    json: bool,
) -> Result<bool, CommandError> {
    let facts = match (&url, &stack.stack) {
        _ if no_stack => None,
        (None, None) => Some(Facts::running(Path::new("."))?),
        _ => Some(stack.facts().await?),
    };
    let known = known(facts.as_ref())?;
    let url = url.or(facts.as_ref().map(|facts| facts.callback_url.clone())).unwrap_or_default();
    let target = Target { endpoint: Endpoint::new(&url)?, known, catch_all: facts.as_ref().and_then(CatchAll::of) };
    let checks = if json {
        let checks = verify::verify(&target, |_| ()).await;
        println!("{}", json!({ "url": url, "holds": !checks.iter().any(Check::fails), "checks": checks }));
        checks
    } else {
        println!("{url}\n");
        let checks = verify::verify(&target, report::check).await;
        report::verdict(&checks);
        checks
    };
    Ok(!checks.iter().any(Check::fails))
}

/// The secrets of the environment, and where it has none, the stack's.
fn known(facts: Option<&Facts>) -> Result<Known, CommandError> {
    let (app_secret, verify_token) = (of_environment("APP_SECRET"), of_environment("VERIFY_TOKEN"));
    match (app_secret, verify_token, facts) {
        (Some(app_secret), Some(verify_token), _) => Ok(Known { verify_token, app_secrets: vec![app_secret] }),
        (app_secret, verify_token, Some(facts)) => {
            let known = facts.known()?;
            Ok(Known {
                verify_token: verify_token.unwrap_or(known.verify_token),
                app_secrets: app_secret.map_or(known.app_secrets, |secret| vec![secret]),
            })
        }
        _ => Err(CommandError::NoKeys),
    }
}

pub(crate) async fn subscribe(arguments: Subscribe) -> Result<bool, CommandError> {
    let facts = arguments.stack.facts().await?;
    let known = known(Some(&facts))?;
    let access_token = of_environment("META_ACCESS_TOKEN");
    if !arguments.accounts.is_empty() && access_token.is_none() {
        return Err(CommandError::NoAccessToken);
    }
    let graph = Graph::new(&arguments.graph_url)?;
    let tokens = Tokens::of(&graph, &arguments.app, &known, access_token.as_deref()).await?;
    let wanted = Wanted {
        app: arguments.app,
        accounts: arguments.accounts,
        callback_url: arguments.url.unwrap_or_else(|| facts.callback_url.clone()),
        fields: arguments.fields,
        replace: arguments.replace,
        routed: Wanted::routed(&facts),
    };
    let mut plan = wanted.plan(&graph, &tokens).await?;
    let applied = arguments.apply && !plan.is_done();
    if applied {
        plan.apply(&graph, &tokens, &known.verify_token).await?;
        plan = wanted.plan(&graph, &tokens).await?;
    }
    if arguments.json {
        println!("{}", json!({ "applied": applied, "done": plan.is_done(), "plan": plan }));
    } else {
        report::plan(&plan, applied);
    }
    // A dry run that finds something to do is as it should be; a change that Meta does not show afterwards is not.
    Ok(!applied || plan.is_done())
}

pub(crate) async fn sam_local(events: &[PathBuf], python: &Path) -> Result<bool, CommandError> {
    let samples = load(events)?;
    let invoked = SamLocal::start(Path::new("."), python).await?.invoke_all(&samples).await?;
    Ok(invoked.iter().all(|invoked| invoked.outcome.is_as_expected()))
}

/// Waits for the signals that end a program, so that it ends what it started first.
pub(crate) async fn stopped() -> Result<(), CommandError> {
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
