//! What each command does, up to what it prints.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anstream::{eprintln, println};
use ingress_tools::{
    aws::{
        cli::AwsCli,
        stack_info::{StackInfo, StackInfoError},
    },
    endpoint_secrets::variable,
    local::{
        run::{LocalRun, RunError},
        sam_local::{SamError, SamLocal},
    },
    meta::{
        deliver::{DeliverError, Endpoint},
        expect::Expected,
        samples::{self, Sample, SampleError},
        sign,
    },
    queues::{
        backlog::Backlogs,
        catch_all::CatchAllQueue,
        error::QueueError,
        redrive::{self, RedriveError},
        transfer::{Transfer, TransferLimits, TransferReport},
    },
    report,
    subscribe::graph::{Graph, GraphError},
    subscribe::{self, Tokens},
    verify::{self, Check, Target},
};
use serde_json::{Map, Value, json};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use whatsapp_webhook::credentials::AppCredentials;

use crate::arguments::{NamedStack, Subscribe, Wanted};

#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Sample(#[from] SampleError),
    #[error("cannot write {}: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    #[error(transparent)]
    StackInfo(#[from] StackInfoError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    SamLocal(#[from] SamError),
    #[error("neither APP_SECRET and VERIFY_TOKEN are set, nor is a stack named")]
    MissingSecrets,
    #[error("META_ACCESS_TOKEN is not set, which accounts need: the access token of a system user")]
    NoAccessToken,
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Redrive(#[from] RedriveError),
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error("interrupted")]
    Interrupted,
}

pub(crate) fn sign(files: &[PathBuf], check: bool) -> Result<bool, CommandError> {
    let samples = load(files)?;
    let mut fresh = true;
    for sample in samples {
        let signed = sign::sign_event(&sample, samples::APP_SECRET);
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
    let (url, secrets) = if let Some(url) = url {
        (url, samples::secrets())
    } else {
        let info = StackInfo::running(Path::new("."))?;
        (info.callback_url.clone(), info.secrets()?)
    };
    let response = Endpoint::new(&url)?.deliver(&sample, &secrets.overridden_by_environment()).await?;
    let expected = Expected::of(&sample);
    println!("{}: {} in {} ms", sample.name, response.status, response.elapsed.as_millis());
    if !response.body.is_empty() {
        println!("{}", String::from_utf8_lossy(&response.body));
    }
    let is_as_expected = response.status == expected.status && response.body == expected.body.as_bytes();
    if !is_as_expected {
        eprintln!("expected: {} {}", expected.status, expected.body);
    }
    Ok(is_as_expected)
}

pub(crate) async fn run(once: bool, events: &Path, python: &Path) -> Result<bool, CommandError> {
    let local = tokio::select! {
        local = LocalRun::deploy_and_deliver(Path::new("."), events, python) => local?,
        stopped = stopped() => return stopped.and(Err(CommandError::Interrupted)),
    };
    let as_expected = local.is_as_expected();
    if once || !as_expected {
        return Ok(as_expected);
    }
    tokio::select! {
        failed = local.watch() => match failed? {},
        stopped = stopped() => stopped.map(|()| true),
    }
}

pub(crate) async fn verify(
    url: Option<String>,
    stack: &NamedStack,
    no_stack: bool,
    json: bool,
) -> Result<bool, CommandError> {
    let info = match (&url, &stack.stack) {
        _ if no_stack => None,
        (None, None) => Some(StackInfo::running(Path::new("."))?),
        _ => Some(stack.info().await?),
    };
    let secret = secret(info.as_ref())?;
    let url = url.or(info.as_ref().map(|info| info.callback_url.clone())).unwrap_or_default();
    let target =
        Target { endpoint: Endpoint::new(&url)?, secret, catch_all: info.as_ref().and_then(CatchAllQueue::of) };
    let stop = AtomicBool::new(false);
    let passed = |checks: &[Check]| !stop.load(Ordering::Relaxed) && !checks.iter().any(Check::is_failed);
    let checks = if json {
        let checks = finished(verify::verify(&target, &stop, |_| ()), &stop).await?;
        println!("{}", json!({ "url": url, "passed": passed(&checks), "checks": checks }));
        checks
    } else {
        println!("{url}\n");
        let checks = finished(verify::verify(&target, &stop, report::check), &stop).await?;
        report::check_summary(&checks);
        checks
    };
    Ok(passed(&checks))
}

/// Finishes what cleans up after itself: at the first signal it is told to stop, the second ends it at once.
async fn finished<T>(work: impl Future<Output = T>, stop: &AtomicBool) -> Result<T, CommandError> {
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return Ok(done),
        stopped = stopped() => stopped?,
    }
    stop.store(true, Ordering::Relaxed);
    eprintln!("ingress: interrupted; cleans up, which takes a minute at most (once more: ends at once)");
    tokio::select! {
        done = work => Ok(done),
        stopped = stopped() => stopped.and(Err(CommandError::Interrupted)),
    }
}

/// Returns the JSON text of the stack's secret, in which `APP_SECRET` and `VERIFY_TOKEN` of the environment replace the
/// members.
fn secret(info: Option<&StackInfo>) -> Result<String, CommandError> {
    let members = [("app_secret", "APP_SECRET"), ("verify_token", "VERIFY_TOKEN")];
    let set: Vec<_> = members.into_iter().filter_map(|(member, name)| Some((member, variable(name)?))).collect();
    let mut secret = match info {
        Some(info) if set.is_empty() => return Ok(info.secret.clone()),
        Some(info) => serde_json::from_str::<Map<String, Value>>(&info.secret).unwrap_or_default(),
        None if set.len() < members.len() => return Err(CommandError::MissingSecrets),
        None => Map::new(),
    };
    secret.extend(set.into_iter().map(|(member, value)| (member.to_owned(), value.into())));
    Ok(Value::from(secret).to_string())
}

pub(crate) async fn subscribe(arguments: Subscribe) -> Result<bool, CommandError> {
    let info = arguments.stack.info().await?;
    let credentials = AppCredentials::parse(&secret(Some(&info))?).map_err(StackInfoError::from)?;
    let access_token = variable("META_ACCESS_TOKEN");
    if !arguments.accounts.is_empty() && access_token.is_none() {
        return Err(CommandError::NoAccessToken);
    }
    let graph = Graph::new(&arguments.graph_url)?;
    let tokens = Tokens::find(&graph, &arguments.app, &credentials, access_token.as_deref()).await?;
    let goal = subscribe::Goal {
        app: arguments.app,
        accounts: arguments.accounts,
        callback_url: arguments.url.unwrap_or_else(|| info.callback_url.clone()),
        fields: arguments.fields,
        replace: arguments.replace,
        queues_by_field: subscribe::Goal::queues_by_field(&info),
    };
    let mut plan = goal.plan(&graph, &tokens).await?;
    let applied = arguments.apply && !plan.is_done();
    if applied {
        plan.apply(&graph, &tokens, &credentials.verify_token).await?;
        plan = goal.plan(&graph, &tokens).await?;
    }
    if arguments.json {
        println!("{}", json!({ "applied": applied, "done": plan.is_done(), "plan": plan }));
    } else {
        report::plan(&plan, applied);
    }
    // A dry run succeeds. A change that Meta does not show afterwards is a failure.
    Ok(!applied || plan.is_done())
}

pub(crate) async fn queues(stack: &NamedStack, json: bool) -> Result<bool, CommandError> {
    let info = stack.info_or_running().await?;
    let backlogs = Backlogs::of(&info, &AwsCli::default()).await?;
    if json {
        println!("{}", json!(backlogs));
    } else {
        report::backlogs(&backlogs);
    }
    Ok(true)
}

pub(crate) async fn redrive(wanted: &Wanted, from: Option<&str>) -> Result<bool, CommandError> {
    let info = wanted.stack.info_or_running().await?;
    let moves = match from {
        Some(queue) => vec![redrive::drain(&info, &wanted.field, queue)?],
        None => redrive::redrive(&info, &wanted.field).await?,
    };
    carry_out(&moves, wanted).await
}

pub(crate) async fn reroute(wanted: &Wanted) -> Result<bool, CommandError> {
    let info = wanted.stack.info_or_running().await?;
    carry_out(&[redrive::reroute(&info, &wanted.field)?], wanted).await
}

/// Moves messages, or only counts what waits.
async fn carry_out(all: &[Transfer], wanted: &Wanted) -> Result<bool, CommandError> {
    if !wanted.apply {
        let mut waits = Vec::new();
        for one in all {
            waits.push(one.counts().await?);
        }
        if wanted.json {
            println!("{}", json!({ "applied": false, "moves": waits }));
        } else {
            report::dry_run(&waits, &wanted.field);
        }
        return Ok(true);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let is_stopped = Arc::clone(&stop);
    tokio::spawn(async move {
        // Without signals to listen for, the run is ended as any program is, which loses nothing either.
        if stopped().await.is_ok() {
            is_stopped.store(true, Ordering::Relaxed);
        }
    });
    let limits = TransferLimits { rate: wanted.rate, max_messages: wanted.most.unwrap_or(usize::MAX) };
    let mut done = Vec::new();
    for one in all {
        let mut progress = report::Progress::start();
        let moved = one.run(limits, &stop, |moved| progress.show(moved)).await;
        progress.end();
        if !wanted.json {
            report::transfer(&moved);
        }
        done.push(moved);
    }
    let is_done = done.iter().all(TransferReport::is_success);
    if wanted.json {
        println!("{}", json!({ "applied": true, "done": is_done, "moves": done }));
    }
    Ok(is_done)
}

pub(crate) async fn sam_local(events: &[PathBuf], python: &Path) -> Result<bool, CommandError> {
    let samples = load(events)?;
    let invocations = SamLocal::start(Path::new("."), python).await?.invoke_all(&samples).await?;
    Ok(invocations.iter().all(|invocation| invocation.outcome.is_as_expected()))
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
