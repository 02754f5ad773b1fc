//! The commands. Each returns whether the result is as expected.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
};

use anstream::{eprintln, println};
use ingress_tools::{
    archive::error::ArchiveError,
    aws::{
        resources::ResourcesError,
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
        backlog::{Backlogs, QueueDepth},
        declared::{self, DeclaredResources},
        error::QueueError,
        inspect::{ExportDestination, InspectedQueue},
        queue::QueueState,
        redrive::{self, Moves, RedriveError},
        scan::{Filter, ScanLimits},
        transfer::{TransferLimits, TransferReport},
        verify_queue::VerifyQueue,
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

use crate::arguments::{MoveArguments, QueueArguments, StackArguments, SubscribeArguments};

#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Sample(#[from] SampleError),
    #[error("cannot write {}: {source}", path.display())]
    WriteSample { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    #[error(transparent)]
    StackInfo(#[from] StackInfoError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    SamLocal(#[from] SamError),
    #[error("name a stack, or set APP_SECRET and VERIFY_TOKEN")]
    MissingSecrets,
    #[error("META_ACCESS_TOKEN is not set: accounts require the access token of a system user")]
    MissingAccessToken,
    #[error(transparent)]
    Graph(#[from] GraphError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Redrive(#[from] RedriveError),
    #[error(transparent)]
    Resources(#[from] ResourcesError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the stack has no route {0}")]
    UnknownRoute(String),
    #[error("the route {route} has several queues: name one of {names}")]
    SeveralQueues { route: String, names: String },
    #[error("{url}, the queue of {route}, belongs to another stack or account, which must restore it")]
    OtherStack { route: String, url: String },
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error("interrupted")]
    Interrupted,
}

pub(crate) fn sign(files: &[PathBuf], check: bool) -> Result<bool, CommandError> {
    let samples = load_samples(files)?;
    let mut is_up_to_date = true;
    for sample in samples {
        let signed = sign::sign_event(&sample, samples::APP_SECRET);
        if signed == sample.text {
            continue;
        }
        let path = sample.path;
        if check {
            is_up_to_date = false;
            println!("{}: outdated", path.display());
        } else {
            fs::write(&path, signed).map_err(|source| CommandError::WriteSample { path: path.clone(), source })?;
            println!("{}: signed", path.display());
        }
    }
    Ok(is_up_to_date)
}

/// Reads these samples, or all of `events/` if there are none.
fn load_samples(files: &[PathBuf]) -> Result<Vec<Sample>, SampleError> {
    if files.is_empty() {
        Sample::load_all(Path::new("events"))
    } else {
        files.iter().map(|path| Sample::load(path)).collect()
    }
}

pub(crate) async fn deliver(
    event: Option<&Path>,
    body: Option<&Path>,
    url: Option<String>,
) -> Result<bool, CommandError> {
    let sample = match (event, body) {
        (Some(event), _) => Sample::load(event)?,
        (None, body) => Sample::load_body(body.unwrap_or(Path::new("")))?,
    };
    let (url, secrets) = if let Some(url) = url {
        (url, samples::secrets())
    } else {
        let info = StackInfo::running(Path::new("."))?;
        report::stack(&info, false);
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
        signal = wait_for_signal() => return signal.and(Err(CommandError::Interrupted)),
    };
    let as_expected = local.is_as_expected();
    if once || !as_expected {
        return Ok(as_expected);
    }
    tokio::select! {
        result = local.watch() => match result? {},
        signal = wait_for_signal() => signal.map(|()| true),
    }
}

/// Describes the stack of a command with its secret, and prints its account, region and name.
pub(crate) async fn chosen_stack(stack: &StackArguments) -> Result<StackInfo, CommandError> {
    Ok(chosen_stack_without_secret(stack).await?.with_secret().await?)
}

/// Describes the stack of a command, and prints its account, region and name.
async fn chosen_stack_without_secret(stack: &StackArguments) -> Result<StackInfo, CommandError> {
    let info = stack.info_without_secret().await?;
    report::stack(&info, stack.json);
    Ok(info)
}

pub(crate) async fn verify(url: Option<String>, stack: &StackArguments, no_stack: bool) -> Result<bool, CommandError> {
    let info = match &url {
        _ if no_stack => None,
        None => Some(stack.info_without_secret().await?),
        Some(url) => Some(stack.info_of_url(url).await?),
    };
    if let Some(info) = &info {
        report::stack(info, stack.json);
    }
    let secret = secret(info.as_ref()).await?;
    let url = url.or(info.as_ref().map(|info| info.callback_url.clone())).unwrap_or_default();
    let verify_queue = info.as_ref().ok_or(verify::NO_STACK).and_then(VerifyQueue::of);
    let target = Target { endpoint: Endpoint::new(&url)?, secret, verify_queue, stack: info };
    let stop = AtomicBool::new(false);
    let passed = |checks: &[Check]| !stop.load(Ordering::Relaxed) && !checks.iter().any(Check::is_failed);
    let checks = if stack.json {
        let checks = run_with_cleanup(verify::verify(&target, &stop, |_| ()), &stop).await?;
        println!("{}", json!({ "url": url, "passed": passed(&checks), "checks": checks }));
        checks
    } else {
        println!("{url}\n");
        let checks = run_with_cleanup(verify::verify(&target, &stop, report::check), &stop).await?;
        report::check_summary(&checks, stop.load(Ordering::Relaxed));
        checks
    };
    Ok(passed(&checks))
}

/// Runs a future that cleans up when `stop` is set. The first signal sets it, the second ends the future at once.
pub(crate) async fn run_with_cleanup<T>(work: impl Future<Output = T>, stop: &AtomicBool) -> Result<T, CommandError> {
    let mut work = pin!(work);
    tokio::select! {
        result = &mut work => return Ok(result),
        signal = wait_for_signal() => signal?,
    }
    stop.store(true, Ordering::Relaxed);
    eprintln!("ingress: interrupted: cleaning up; interrupt again to exit at once");
    tokio::select! {
        result = work => Ok(result),
        signal = wait_for_signal() => signal.and(Err(CommandError::Interrupted)),
    }
}

/// Returns the JSON text of the stack's secret. The variables `APP_SECRET` and `VERIFY_TOKEN` replace its members `app_secret` and
/// `verify_token`. If both are set, the stack's secret is not read.
async fn secret(info: Option<&StackInfo>) -> Result<String, CommandError> {
    let members = [("app_secret", "APP_SECRET"), ("verify_token", "VERIFY_TOKEN")];
    let overrides: Vec<_> = members.into_iter().filter_map(|(member, name)| Some((member, variable(name)?))).collect();
    let mut secret = match info {
        _ if overrides.len() == members.len() => Map::new(),
        Some(info) if overrides.is_empty() => return Ok(info.read_secret().await?),
        Some(info) => serde_json::from_str::<Map<String, Value>>(&info.read_secret().await?).unwrap_or_default(),
        None => return Err(CommandError::MissingSecrets),
    };
    secret.extend(overrides.into_iter().map(|(member, value)| (member.to_owned(), value.into())));
    Ok(Value::from(secret).to_string())
}

pub(crate) async fn subscribe(arguments: SubscribeArguments) -> Result<bool, CommandError> {
    let info = arguments.stack.info_unless_local().await?;
    report::stack(&info, arguments.stack.json);
    let credentials = AppCredentials::parse(&secret(Some(&info)).await?).map_err(StackInfoError::from)?;
    let access_token = variable("META_ACCESS_TOKEN");
    if !arguments.accounts.is_empty() && access_token.is_none() {
        return Err(CommandError::MissingAccessToken);
    }
    let graph = Graph::new(&arguments.graph_url)?;
    let tokens = Tokens::find(&graph, &arguments.app, &credentials, access_token.as_deref()).await?;
    let goal = subscribe::Goal {
        app: arguments.app,
        accounts: arguments.accounts,
        callback_url: arguments.url.unwrap_or_else(|| info.callback_url.clone()),
        fields: arguments.fields,
        replace: arguments.replace,
        overrides: arguments.overrides,
        queues_by_field: subscribe::Goal::queues_by_field(&info),
    };
    let mut plan = goal.plan(&graph, &tokens).await?;
    let applied = arguments.apply && !plan.is_done();
    if applied {
        plan.apply(&graph, &tokens, &credentials.verify_token).await?;
        plan = goal.plan(&graph, &tokens).await?;
    }
    if arguments.stack.json {
        println!(
            "{}",
            json!({
                "applied": applied, "done": plan.is_done(), "plan": plan,
                "fields_without_queue": plan.fields_without_queue(), "lacks_standby": plan.lacks_standby(),
            })
        );
    } else {
        report::plan(&plan, applied);
    }
    // A dry run succeeds. A change that Meta does not show afterwards is a failure.
    Ok(!applied || plan.is_done())
}

pub(crate) async fn queues(stack: &StackArguments) -> Result<bool, CommandError> {
    let info = chosen_stack_without_secret(stack).await?;
    let backlogs = Backlogs::of(&info, &info.aws_cli()).await;
    if stack.json {
        println!("{}", json!(backlogs));
    } else {
        report::backlogs(&backlogs);
    }
    Ok(backlogs.all_usable())
}

pub(crate) async fn redrive(
    arguments: &MoveArguments,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<bool, CommandError> {
    let info = chosen_stack_without_secret(&arguments.stack).await?;
    let moves = match from {
        Some(queue) => redrive::drain(&info, &arguments.field, queue, to).await?,
        None => redrive::redrive(&info, &arguments.field).await?,
    };
    run_moves(&moves, arguments).await
}

pub(crate) async fn reroute(arguments: &MoveArguments) -> Result<bool, CommandError> {
    let info = chosen_stack_without_secret(&arguments.stack).await?;
    run_moves(&redrive::reroute(&info, &arguments.field).await?, arguments).await
}

/// Moves the messages. Without `apply`, only prints the message counts.
async fn run_moves(moves: &Moves, arguments: &MoveArguments) -> Result<bool, CommandError> {
    let Moves { transfers, skipped } = moves;
    if !arguments.stack.json {
        report::skipped_queues(skipped);
    }
    if !arguments.apply {
        let mut counts = Vec::new();
        for transfer in transfers {
            counts.push(transfer.counts().await);
        }
        if arguments.stack.json {
            println!("{}", json!({ "applied": false, "moves": counts, "skipped": skipped }));
        } else {
            report::dry_run(&counts, &arguments.field);
        }
        return Ok(skipped.is_empty() && counts.iter().all(|counts| counts.from.counts.is_some()));
    }
    let stop = AtomicBool::new(false);
    let limits = TransferLimits { rate: arguments.rate, max_messages: arguments.max_messages.unwrap_or(usize::MAX) };
    let mut reports = Vec::new();
    for transfer in transfers {
        let mut progress = report::Progress::start();
        let run = transfer.run(limits, &stop, |report| progress.update(report));
        let report = run_with_cleanup(run, &stop).await?;
        progress.clear();
        if !arguments.stack.json {
            report::transfer(&report);
        }
        reports.push(report);
    }
    let is_success = skipped.is_empty() && reports.iter().all(TransferReport::is_success);
    if arguments.stack.json {
        println!("{}", json!({ "applied": true, "done": is_success, "moves": reports, "skipped": skipped }));
    }
    Ok(is_success)
}

/// Describes and prints the stack of a command about one queue, and finds the queue.
async fn find_inspected_queue(arguments: &QueueArguments) -> Result<(StackInfo, InspectedQueue), CommandError> {
    let info = chosen_stack_without_secret(&arguments.stack).await?;
    let queue = InspectedQueue::find(&info, &arguments.queue);
    let several =
        |names: Vec<_>| CommandError::SeveralQueues { route: arguments.queue.clone(), names: names.join(", ") };
    let queue = queue.map_err(several)?;
    Ok((info, queue))
}

fn max_messages(arguments: &QueueArguments) -> usize {
    arguments.max_messages.unwrap_or(usize::MAX)
}

pub(crate) async fn peek(arguments: &QueueArguments) -> Result<bool, CommandError> {
    let (_, queue) = find_inspected_queue(arguments).await?;
    let effect = queue.receive_effect().await?;
    report::receive_effect(&effect);
    let stop = AtomicBool::new(false);
    let limits = ScanLimits { max_messages: max_messages(arguments), stop: &stop };
    let (counts, scan) = run_with_cleanup(queue.peek(&limits), &stop).await?;
    if arguments.stack.json {
        println!("{}", json!({ "categories": counts, "scan": scan, "effect": effect }));
    } else {
        report::category_counts(&counts);
        let state = if scan.release_error.is_none() { " and visible again" } else { "" };
        report::scan(&scan, &format!("{} received{state}", scan.received));
    }
    Ok(scan.is_success())
}

pub(crate) async fn drop_messages(
    arguments: &QueueArguments,
    filter: &Filter,
    apply: bool,
) -> Result<bool, CommandError> {
    let (_, queue) = find_inspected_queue(arguments).await?;
    if !apply {
        return Ok(print_dry_run(&queue.depth().await, arguments.stack.json));
    }
    let stop = AtomicBool::new(false);
    let limits = ScanLimits { max_messages: max_messages(arguments), stop: &stop };
    let scan = run_with_cleanup(queue.drop_messages(filter, &limits), &stop).await?;
    if arguments.stack.json {
        println!("{}", json!({ "applied": true, "done": scan.is_complete(), "scan": scan }));
    } else {
        let kept = scan.received - scan.deleted - scan.not_deleted;
        report::scan(&scan, &format!("{} deleted, {kept} kept", scan.deleted));
    }
    Ok(scan.is_complete())
}

pub(crate) async fn export(
    arguments: &QueueArguments,
    filter: &Filter,
    to: &ExportDestination,
    delete: bool,
    apply: bool,
) -> Result<bool, CommandError> {
    let (info, queue) = find_inspected_queue(arguments).await?;
    if !apply {
        return Ok(print_dry_run(&queue.depth().await, arguments.stack.json));
    }
    let stop = AtomicBool::new(false);
    let limits = ScanLimits { max_messages: max_messages(arguments), stop: &stop };
    let aws = info.aws_cli();
    let exported = run_with_cleanup(queue.export(filter, to, delete, &limits, &aws), &stop).await?;
    let is_success = exported.scan.is_complete();
    if arguments.stack.json {
        println!("{}", json!({ "applied": true, "done": is_success, "export": exported }));
    } else {
        report::export(&exported);
    }
    Ok(is_success)
}

/// Prints the counts of a queue. Returns whether it can be used.
fn print_dry_run(depth: &QueueDepth, is_json: bool) -> bool {
    if is_json {
        println!("{}", json!({ "applied": false, "queue": depth }));
    } else {
        report::queue_dry_run(depth);
    }
    depth.counts.is_some()
}

pub(crate) async fn restore_queue(route: &str, apply: bool, stack: &StackArguments) -> Result<bool, CommandError> {
    let info = chosen_stack_without_secret(stack).await?;
    let urls = info.queue_urls().remove(route).ok_or_else(|| CommandError::UnknownRoute(route.to_owned()))?;
    let declared = DeclaredResources::of(&info, &info.aws_cli()).await?;
    if !urls.iter().any(|url| declared.queue_at(url).is_some()) {
        return Err(CommandError::OtherStack { route: route.to_owned(), url: urls.join(", ") });
    }
    let plan = declared::plan_restoration(&info, &declared, &urls).await?;
    let others = declared::other_queues(&info, &declared, &urls).await;
    let are_others_usable = others.iter().all(|depth| depth.state == QueueState::Usable);
    if !stack.json {
        report::queues_of_others(&others);
        report::restorations(&plan, apply);
    }
    let mut left = plan.len();
    if apply && !plan.is_empty() {
        declared::restore(&info, &declared, &plan, report::name_is_blocked).await?;
        let remaining = declared::plan_restoration(&info, &declared, &urls).await?;
        left = remaining.len();
        if !stack.json {
            report::remaining(&remaining);
        }
    }
    if stack.json {
        let done = left == 0 && are_others_usable;
        println!("{}", json!({ "applied": apply, "done": done, "plan": plan, "queues_of_others": others }));
    }
    // A dry run succeeds. A change that SQS does not show afterwards is a failure.
    Ok((!apply || left == 0) && are_others_usable)
}

pub(crate) async fn sam_local(events: &[PathBuf], python: &Path) -> Result<bool, CommandError> {
    let samples = load_samples(events)?;
    let invocations = SamLocal::start(Path::new("."), python).await?.invoke_all(&samples).await?;
    Ok(invocations.iter().all(|invocation| invocation.outcome.is_as_expected()))
}

/// Waits for SIGINT, SIGTERM or SIGHUP, so that the caller can stop its child processes before it exits.
pub(crate) async fn wait_for_signal() -> Result<(), CommandError> {
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
