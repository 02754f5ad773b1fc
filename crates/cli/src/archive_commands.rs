//! The commands about the archive. Each returns whether the result is as expected.

use std::{
    io::{self, Write as _},
    sync::atomic::AtomicBool,
};

use anstream::{eprintln, println};
use ingress_tools::{
    archive::{
        app_secrets::AppSecrets,
        bucket::Buckets,
        erase,
        error::ArchiveError,
        list,
        person::Person,
        print,
        replay::{Destination, Replay},
        scan::Archive,
        selection::Selection,
        state,
    },
    aws::stack_info::StackInfo,
    report::{self, Progress},
};
use serde_json::json;

use crate::{
    arguments::{ArchiveArguments, ArchiveCommand, StackArguments},
    commands::{CommandError, chosen_stack, run_with_cleanup},
};

pub(crate) async fn run(command: ArchiveCommand) -> Result<bool, CommandError> {
    match command {
        ArchiveCommand::List { selection, archive } => list_all(selection.into(), archive).await,
        ArchiveCommand::Show { selection, archive } => show(selection.into(), archive).await,
        ArchiveCommand::Verify { selection, archive } => verify(selection.into(), archive).await,
        ArchiveCommand::Replay { destination, selection, apply, rate, restart, archive } => {
            replay(&destination.into(), selection.into(), ReplayOptions { apply, rate, restart }, archive).await
        }
        ArchiveCommand::Erase { contacts, from, to, apply, archive } => {
            let selection = Selection { from, to, ..Selection::default() };
            erase_person(&contacts.into_iter().collect(), selection, apply, archive).await
        }
    }
}

/// How a replay sends.
struct ReplayOptions {
    apply: bool,
    rate: u32,
    restart: bool,
}

/// Describes the archive of a stack.
async fn archive_of(info: &StackInfo, bucket: Option<String>) -> Result<Archive, CommandError> {
    let aws = info.aws_cli();
    let buckets = Buckets::of(info, &aws, bucket).await?;
    Ok(Archive { buckets, secrets: AppSecrets::of(info, &aws).await?, routes: info.routes.clone() })
}

/// Describes the archive of the chosen stack, and validates the selection.
async fn chosen_archive(
    stack: &StackArguments,
    bucket: Option<String>,
    selection: Selection,
) -> Result<(Archive, Selection), CommandError> {
    let archive = archive_of(&chosen_stack(stack).await?, bucket).await?;
    let selection = selection.validate(&archive.routes)?;
    Ok((archive, selection))
}

async fn list_all(
    selection: Selection,
    ArchiveArguments { bucket, stack }: ArchiveArguments,
) -> Result<bool, CommandError> {
    let (archive, selection) = chosen_archive(&stack, bucket, selection).await?;
    let mut count = 0;
    let mut output = anstream::stdout();
    if !stack.json {
        print::heading();
    }
    // One JSON text a line, because an archive can have millions of notifications.
    let print_row = |row: list::Row| {
        count += 1;
        if stack.json { writeln!(output, "{}", json!(row)) } else { writeln!(output, "{}", print::row(&row)) }
    };
    let stop = AtomicBool::new(false);
    match run_with_cleanup(list::list(&archive, &selection, &stop, print_row), &stop).await? {
        // The reader, such as `head`, needs no more rows.
        Err(ArchiveError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(true),
        result => result?,
    }
    if !stack.json {
        print::list_end(count);
    }
    Ok(true)
}

async fn show(
    selection: Selection,
    ArchiveArguments { bucket, stack }: ArchiveArguments,
) -> Result<bool, CommandError> {
    let info = stack.info().await?;
    report::stack(&info, true);
    let archive = archive_of(&info, bucket).await?;
    let selection = selection.validate(&archive.routes)?;
    let stop = AtomicBool::new(false);
    let Some(archived) = run_with_cleanup(list::find(&archive, &selection, &stop), &stop).await?? else {
        eprintln!("{}", print::NOTHING_SELECTED);
        return Ok(false);
    };
    print::facts(&archived);
    let Some(content) = &archived.content else { return Ok(false) };
    if stack.json {
        let body = std::str::from_utf8(&content.body).ok();
        println!("{}", json!({ "key": archived.key, "receipt": content.header, "body": body }));
    } else {
        // The bytes as they are, so that their signature can be checked with other tools.
        let mut output = io::stdout().lock();
        output.write_all(&content.body).and_then(|()| output.flush()).map_err(CommandError::Output)?;
    }
    Ok(content.signature.is_authentic())
}

async fn verify(
    selection: Selection,
    ArchiveArguments { bucket, stack }: ArchiveArguments,
) -> Result<bool, CommandError> {
    let (archive, selection) = chosen_archive(&stack, bucket, selection).await?;
    let mut progress = Progress::start();
    let show = |verification: &list::Verification| {
        let count = || verification.counts.values().sum::<usize>();
        progress.print(|| format!("{} checked, {} not authentic", count(), verification.failed.len()));
    };
    let stop = AtomicBool::new(false);
    let result = run_with_cleanup(list::verify(&archive, &selection, &stop, show), &stop).await;
    progress.clear();
    let verification = result??;
    if stack.json {
        println!("{}", json!({ "passed": verification.is_success(), "verification": verification }));
    } else {
        print::verification(&verification, archive.secrets.older_count());
    }
    Ok(verification.is_success())
}

async fn replay(
    destination: &Destination,
    selection: Selection,
    options: ReplayOptions,
    ArchiveArguments { bucket, stack }: ArchiveArguments,
) -> Result<bool, CommandError> {
    let info = chosen_stack(&stack).await?;
    let archive = archive_of(&info, bucket).await?;
    let prepared = Replay::prepare(&archive, &info, selection, destination, &state::folder()?)?;
    let (target, unit) = match destination {
        Destination::Endpoint => (info.callback_url.clone(), "request"),
        _ => (prepared.queue_names().collect::<Vec<_>>().join(", "), "message"),
    };
    let stop = AtomicBool::new(false);
    let report = if options.apply {
        let mut progress = Progress::start();
        let show = |report: &ingress_tools::archive::replay::ReplayReport| {
            progress.print(|| print::replay_progress(report));
        };
        let run = Box::pin(prepared.run(options.rate, options.restart, &stop, show));
        let result = run_with_cleanup(run, &stop).await;
        progress.clear();
        result??
    } else {
        run_with_cleanup(prepared.count(options.restart, &stop), &stop).await??
    };
    if stack.json {
        println!(
            "{}",
            json!({ "applied": options.apply, "done": report.is_success(), "target": target, "replay": report })
        );
    } else {
        print::replay(&report, &target, unit, options.apply);
    }
    Ok(report.is_success())
}

async fn erase_person(
    person: &Person,
    selection: Selection,
    apply: bool,
    ArchiveArguments { bucket, stack }: ArchiveArguments,
) -> Result<bool, CommandError> {
    let (archive, selection) = chosen_archive(&stack, bucket, selection).await?;
    let mut progress = Progress::start();
    let show = |report: &erase::EraseReport| {
        progress.print(|| format!("{} to delete, {} to rewrite", report.deleted, report.rewritten));
    };
    let stop = AtomicBool::new(false);
    let erasure = erase::erase(&archive, &selection, person, apply, &stop, show);
    let result = run_with_cleanup(erasure, &stop).await;
    progress.clear();
    let report = result?;
    if stack.json {
        println!("{}", json!({ "applied": apply, "done": report.is_success(), "erasure": report }));
    } else {
        print::erasure(&report, apply);
    }
    Ok(report.is_success())
}
