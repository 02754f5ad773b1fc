//! Prints the results of the commands about the archive.

use anstream::{eprintln, println};
use anstyle::Style;

use super::{
    erase::EraseReport,
    list::{Row, Verification},
    notification::{Archived, SignatureState},
    printable::printable,
    replay::ReplayReport,
    state::LeftOut,
};
use crate::report::{FAILURE, HEADING, SUCCESS};

/// Longer lists of keys are not printed to their end.
const MAX_KEYS: usize = 20;

/// The result of a command that has nothing to do.
pub const NOTHING_SELECTED: &str = "no notification is selected";

/// Prints the heading of the rows.
pub fn heading() {
    println!("{HEADING}{:24}  {:36}  {:>9}  {:22}  changes{HEADING:#}", "received", "request id", "bytes", "signature");
}

/// Returns the line of a notification.
#[must_use]
pub fn row(row: &Row) -> String {
    let Row { key, received, request_id, bytes, changes, signature, .. } = row;
    let style = style(*signature);
    let Some(((received, request_id), bytes)) = received.as_ref().zip(request_id.as_ref()).zip(*bytes) else {
        return format!("{style}{}{style:#}  {}", signature.text(), printable(key));
    };
    let changes: Vec<_> = changes.iter().map(|(name, count)| format!("{count} {name}")).collect();
    format!(
        "{received:24}  {request_id:36}  {bytes:>9}  {style}{:22}{style:#}  {}",
        signature.text(),
        changes.join(", ")
    )
}

/// Prints the end of a list.
pub fn list_end(count: usize) {
    println!("\n{count} notifications; `ingress archive show` prints the body of one");
}

/// Prints the facts about a notification to standard error, because its body goes to standard output.
pub fn facts(archived: &Archived) {
    let (signature, style) = (archived.signature(), style(archived.signature()));
    eprintln!("{}: {style}{}{style:#}", printable(&archived.key), signature.text());
    if let Some(rewritten) = archived.content.as_ref().and_then(|content| content.header.rewritten.as_deref()) {
        eprintln!("a person was erased from it at {}", rewritten.escape_debug());
    }
}

/// Prints the result of a verification.
pub fn verification(verification: &Verification, older_secrets: usize) {
    for (signature, count) in &verification.counts {
        let style = style(*signature);
        println!("{style}{count:>9}  {}{style:#}", signature.text());
    }
    if verification.counts.is_empty() {
        println!("{FAILURE}{NOTHING_SELECTED}{FAILURE:#}");
    }
    keys(verification.failed.iter().map(|(key, signature)| (key.as_str(), signature.text())));
    println!("\nchecked with the app secrets of the function and {older_secrets} older ones");
    if !verification.failed.is_empty() {
        println!(
            "A notification that only a removed app secret signed does not verify either: set APP_SECRET to this secret."
        );
    }
}

/// Returns the line about a replay that runs.
#[must_use]
pub fn replay_progress(report: &ReplayReport) -> String {
    format!("{} notifications, after {}", report.notifications, last_key(report))
}

fn last_key(report: &ReplayReport) -> String {
    report.last_key.as_deref().map_or_else(|| "the beginning".to_owned(), printable)
}

/// Prints the result of a replay. `target` names the destination, and `unit` what is sent to it.
pub fn replay(report: &ReplayReport, target: &str, unit: &str, applied: bool) {
    let ReplayReport { notifications, sent, claim_checks, not_replayed, resumed_after, .. } = report;
    let style = if report.is_success() { SUCCESS } else { FAILURE };
    if let Some(since) = &report.resumed_since {
        let after = resumed_after.as_deref().map_or_else(|| "the beginning".to_owned(), printable);
        println!("an earlier run was interrupted: continued after {after}; --restart begins anew");
        println!("the earlier run began at {0}: what was received after {0} is not replayed", since.to_seconds());
    }
    let text = if applied { "replayed" } else { "to replay" };
    let plural = if *sent == 1 { "" } else { "s" };
    println!(
        "{HEADING}{target}{HEADING:#}: {style}{notifications} notifications {text}, {sent} {unit}{plural} sent{style:#}"
    );
    if report.is_empty() {
        println!("  {FAILURE}{NOTHING_SELECTED}{FAILURE:#}");
    }
    if *claim_checks > 0 {
        println!("  {claim_checks} of the messages have their body in S3");
    }
    for (reason, LeftOut { count, first }) in not_replayed {
        println!("  {FAILURE}{count} not replayed{FAILURE:#}: {reason}");
        for name in first {
            println!("    {}", printable(name));
        }
        if *count > first.len() {
            println!("    … and {} more", count - first.len());
        }
    }
    if let (Some(reason), Some(file)) = (&report.stop_reason, &report.state_file) {
        println!("  {FAILURE}stopped{FAILURE:#}: {reason}");
        println!("  the same command goes on after {} ({})", last_key(report), file.display());
    }
    if !applied {
        println!("\nnothing was sent: replay with --apply");
    }
}

/// Prints the result of an erasure.
pub fn erasure(report: &EraseReport, applied: bool) {
    let EraseReport { deleted, rewritten, other_ids, not_erased, stop_reason } = report;
    let style = if report.is_success() { SUCCESS } else { FAILURE };
    let [delete, rewrite] = if applied { ["deleted", "rewritten"] } else { ["to delete", "to rewrite"] };
    println!("{style}{deleted} notifications {delete}, {rewritten} {rewrite}{style:#}");
    if !other_ids.is_empty() {
        println!(
            "{FAILURE}the archive also names this person{FAILURE:#} {}: repeat the command with `--contact` for each",
            other_ids.join(", ")
        );
    }
    if !not_erased.is_empty() {
        println!("{FAILURE}{} unchanged{FAILURE:#}: look at them, and delete them with `aws s3 rm`", not_erased.len());
        keys(not_erased.iter().map(|(key, reason)| (key.as_str(), *reason)));
    }
    if let Some(reason) = stop_reason {
        println!("{FAILURE}stopped{FAILURE:#}: {reason}; run the command again");
    }
    if !applied {
        println!("\nnothing was changed: erase with --apply");
    }
}

/// Prints the first keys, each with the reason why it is printed.
fn keys<'k>(mut keys: impl ExactSizeIterator<Item = (&'k str, &'k str)>) {
    for (key, reason) in keys.by_ref().take(MAX_KEYS) {
        println!("  {FAILURE}{reason}{FAILURE:#}  {}", printable(key));
    }
    if keys.len() > 0 {
        println!("  … and {} more; --json prints all", keys.len());
    }
}

const fn style(signature: SignatureState) -> Style {
    if signature.is_authentic() { SUCCESS } else { FAILURE }
}
