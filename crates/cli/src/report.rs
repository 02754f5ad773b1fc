//! What a run prints: tables for people, in colour only where a terminal shows it.

use std::{
    fmt::Write,
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use anstream::{eprint, eprintln, println};
use anstyle::{AnsiColor, Style};

use crate::{
    meta::outcome::Outcome,
    queues::{
        backlog::{Backlogs, OtherQueue, QueueDepth},
        queue::Counts,
        selection::Field,
        stack_queues::StackQueues,
        transfer::{MoveCounts, TransferReport},
    },
    subscribe::{FieldAction, Plan},
    verify::{Check, Finding},
};

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const TITLE: Style = Style::new().bold();
const ASIDE: Style = Style::new().dimmed();

/// A table that grows by a line with every delivery.
pub(crate) struct Deliveries {
    name_width: usize,
}

impl Deliveries {
    pub(crate) fn start<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let table = Self { name_width: names.map(str::len).max().unwrap_or_default().max("sample".len()) };
        let width = table.name_width;
        println!("\n{TITLE}{:width$}  status     ms  queues{TITLE:#}", "sample");
        table
    }

    pub(crate) fn line(&self, outcome: &Outcome) {
        let width = self.name_width;
        let style = if outcome.is_as_expected() { GOOD } else { BAD };
        let queues = if outcome.queues.is_empty() { "-" } else { &outcome.queues };
        println!(
            "{:width$}  {style}{:>6}{style:#}  {:>5}  {queues}",
            outcome.sample,
            outcome.status,
            outcome.elapsed.as_millis()
        );
        for problem in &outcome.problems {
            println!("{:width$}  {BAD}{problem}{BAD:#}", "");
        }
    }
}

pub(crate) fn summary<'o>(outcomes: impl Iterator<Item = &'o Outcome>) {
    let (good, bad): (Vec<_>, Vec<_>) = outcomes.partition(|outcome| outcome.is_as_expected());
    if bad.is_empty() {
        println!("\n{GOOD}all {} as expected{GOOD:#}", good.len());
    } else {
        println!("\n{BAD}{} of {} not as expected{BAD:#}", bad.len(), good.len() + bad.len());
    }
}

/// Prints the image that the function runs in.
pub(crate) fn image(name: &str, stand_in_because: Option<&str>) {
    println!("{TITLE}image{TITLE:#}  {name}");
    if let Some(reason) = stand_in_because {
        println!("{BAD}a stand-in{BAD:#}, since AWS's own cannot be had: {reason}");
    }
}

/// Prints how many messages each queue holds.
pub(crate) fn depths(queues: &StackQueues, counts: &[Counts]) {
    let width = queues.all.iter().map(|queue| queue.label.len()).max().unwrap_or_default();
    println!("\n{TITLE}{:width$}  messages  routes{TITLE:#}", "queue");
    for (queue, counts) in queues.all.iter().zip(counts) {
        println!("{:width$}  {:>8}  {}", queue.label, counts.visible, queue.routes.join(", "));
    }
}

/// Prints by how much the number of messages of a queue changed.
pub(crate) fn change(queue: &str, before: usize, after: usize) {
    let (sign, count) = if after > before { ('+', after - before) } else { ('-', before - after) };
    println!("{queue}: {after} ({sign}{count})");
}

/// Prints how to call the endpoint and to read its queues with other tools.
pub(crate) fn usage(callback_url: &str, curl: &str, environment: &[(&str, &str)]) {
    println!("\n{TITLE}callback URL{TITLE:#}  {callback_url}");
    println!("\n{TITLE}try{TITLE:#}\n{curl}");
    let mut variables = String::new();
    for (name, value) in environment {
        let _ = write!(variables, " {name}={value}");
    }
    println!("\n{TITLE}queues{TITLE:#}  any AWS tool shows them with\nexport{variables}");
    println!("\nWhat comes to the queues is shown here. Ctrl-C ends it.");
}

pub(crate) fn log_tail(tail: &str) {
    eprintln!("\n{ASIDE}{tail}{ASIDE:#}");
}

/// Prints the result of a check, and for a failed one the likely cause and a fix.
pub fn check(check: &Check) {
    let (style, word, detail) = match &check.finding {
        Finding::Passed { detail } => (GOOD, "passed", detail),
        Finding::Failed { detail, .. } => (BAD, "failed", detail),
        Finding::Skipped { detail } => (ASIDE, "skipped", detail),
    };
    println!("{:43}  {style}{word:7}{style:#}  {detail}", check.check);
    if let Finding::Failed { diagnosis, .. } = &check.finding {
        println!("{:43}  {BAD}cause{BAD:#}    {}", "", diagnosis.cause);
        println!("{:43}  {BAD}fix{BAD:#}      {}", "", diagnosis.fix);
    }
}

/// Prints the numbers of passed, failed and skipped checks.
pub fn check_summary(checks: &[Check]) {
    let failed = checks.iter().filter(|check| check.is_failed()).count();
    let skipped = checks.iter().filter(|check| matches!(check.finding, Finding::Skipped { .. })).count();
    let passed = checks.len() - failed - skipped;
    let style = if failed == 0 { GOOD } else { BAD };
    println!("\n{style}{passed} of {} passed, {failed} failed{style:#}, {skipped} skipped", checks.len());
}

/// Prints the subscriptions of an app and the planned changes.
pub fn plan(plan: &Plan, applied: bool) {
    println!("{TITLE}app{TITLE:#}           {}", plan.app);
    match &plan.current_callback_url {
        Some(current) if *current == plan.callback_url => println!("{TITLE}callback URL{TITLE:#}  {current}"),
        Some(current) => {
            println!("{TITLE}callback URL{TITLE:#}  {BAD}{current}{BAD:#}, to be replaced by");
            println!("              {GOOD}{}{GOOD:#}", plan.callback_url);
        }
        None => println!("{TITLE}callback URL{TITLE:#}  none, to be set to {GOOD}{}{GOOD:#}", plan.callback_url),
    }
    if plan.current_callback_url.is_some() && !plan.is_active {
        println!("              {BAD}not active: Meta sends no events{BAD:#}");
    }
    let width = plan.fields.iter().map(|field| field.field.len()).max().unwrap_or_default();
    println!("\n{TITLE}{:width$}  subscribed              queues{TITLE:#}", "field");
    for field in &plan.fields {
        let (style, state) = match field.action {
            FieldAction::Keep => (Style::new(), "yes"),
            FieldAction::Subscribe => (GOOD, "no, to be added"),
            FieldAction::Unsubscribe => (BAD, "yes, to be removed"),
            FieldAction::Leave => (ASIDE, "no"),
        };
        let queues =
            if field.queues.is_empty() { "- (the catch-all queue)".to_owned() } else { field.queues.join(", ") };
        println!("{:width$}  {style}{state:22}{style:#}  {queues}", field.field);
    }
    if !plan.accounts.is_empty() {
        println!("\n{TITLE}{:16}  subscribed{TITLE:#}", "account");
    }
    for account in &plan.accounts {
        let (style, state) = if account.is_subscribed { (Style::new(), "yes") } else { (GOOD, "no, to be added") };
        println!("{:16}  {style}{state}{style:#}", account.account.to_string());
        if let Some(url) = &account.override_callback_uri {
            println!("{:16}  {BAD}but Meta sends events about messages to {url}{BAD:#}", "");
        }
    }
    println!();
    match (applied, plan.is_done()) {
        (true, true) => println!("{GOOD}done{GOOD:#}"),
        (true, false) => {
            println!("{BAD}Meta accepted the changes, but does not show all of them{BAD:#}: check again in a minute")
        }
        (false, true) => println!("{GOOD}nothing to do{GOOD:#}"),
        (false, false) => {
            println!("nothing was changed: apply the changes with --apply (`make subscribe APPLY=1 ...`)")
        }
    }
}

/// Prints what waits on each queue, and what was given up there.
pub fn backlogs(backlogs: &Backlogs) {
    let width = backlogs.queues.iter().map(|backlog| backlog.depth.queue.len()).max().unwrap_or_default();
    println!("{TITLE}{:width$}  waiting  in flight  delayed    oldest     dead    oldest  routes{TITLE:#}", "queue");
    for backlog in &backlogs.queues {
        let QueueDepth { queue, counts, .. } = &backlog.depth;
        let dead_letters = backlog.dead_letter_queue.as_ref().map(|depth| depth.counts.total());
        let style = if dead_letters.is_some_and(|count| count > 0) { BAD } else { Style::new() };
        println!(
            "{queue:width$}  {:>7}  {:>9}  {:>7}  {:>8}  {style}{:>7}{style:#}  {:>8}  {}",
            counts.visible,
            counts.in_flight,
            counts.delayed,
            age(backlog.depth.oldest_seconds),
            dead_letters.map_or("-".to_owned(), |count| count.to_string()),
            age(backlog.dead_letter_queue.as_ref().and_then(|depth| depth.oldest_seconds)),
            backlog.routes.join(", ")
        );
    }
    match &backlogs.ages_error {
        Some(reason) => println!("\nno age is known: {reason}"),
        None if backlogs.has_unknown_age() => println!(
            "\n-: CloudWatch has no age of it from the last quarter of an hour; it is some minutes late, later still \
             with a queue that\nnobody used for hours, and a local AWS has none. To receive a message for it would \
             count as an attempt to consume it."
        ),
        None => (),
    }
    other_queues(backlogs);
}

/// Prints the queues with the stack's prefix that no route leads to.
fn other_queues(backlogs: &Backlogs) {
    let Backlogs { stack, other_queues, other_queues_error, .. } = backlogs;
    if let Some(reason) = other_queues_error {
        println!("\nother queues named {stack}-… are unknown: {reason}");
    }
    if other_queues.is_empty() {
        return;
    }
    let width = other_queues.iter().map(|other| other.queue.len()).max().unwrap_or_default();
    println!("\n{TITLE}{:width$}  waiting  in flight  delayed{TITLE:#}", "other queues");
    for OtherQueue { queue, counts, .. } in other_queues {
        match counts {
            Some(Counts { visible, in_flight, delayed }) => {
                println!("{queue:width$}  {visible:>7}  {in_flight:>9}  {delayed:>7}");
            }
            None => println!("{queue:width$}  {:>7}  {:>9}  {:>7}", "-", "-", "-"),
        }
    }
    println!(
        "\nThe names of these queues begin with {stack}-, but no route of the stack leads to them. An update that was \
         rolled back\nor a replaced queue leaves such a queue behind. Another stack named {stack}-… may own one as \
         well: check before you delete it\n(docs/redrive.md)."
    );
}

fn age(seconds: Option<u64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds @ ..120) => format!("{seconds} s"),
        Some(seconds @ ..7_200) => format!("{} min", seconds / 60),
        Some(seconds @ ..172_800) => format!("{} h", seconds / 3_600),
        Some(seconds) => format!("{} d", seconds / 86_400),
    }
}

/// Prints what would be gone through, by the counts of the queues alone.
pub fn dry_run(moves: &[MoveCounts], field: &Field) {
    for MoveCounts { from, to } in moves {
        let Counts { visible, in_flight, delayed } = from.counts;
        println!("{TITLE}from{TITLE:#}  {}: {visible} waiting, {in_flight} in flight, {delayed} delayed", from.queue);
        for to in to {
            println!("{TITLE}to{TITLE:#}    {}: {} waiting", to.queue, to.counts.visible);
        }
    }
    println!("\nnothing was received or moved: --apply (`make ... APPLY=1`) moves what of it belongs to {field};");
    println!("how much that is, only receiving would tell, and it would count as an attempt to consume");
}

/// A line that says how far a move is: over and over on a terminal, now and then elsewhere.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    last: Option<Instant>,
}

impl Progress {
    /// Nothing is printed yet.
    #[must_use]
    pub fn start() -> Self {
        Self { terminal: stderr().is_terminal(), last: None }
    }

    /// Prints the line, if it is time to.
    pub fn show(&mut self, report: &TransferReport) {
        let interval = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if self.last.is_some_and(|last| last.elapsed() < interval) {
            return;
        }
        self.last = Some(Instant::now());
        let TransferReport { from, visible_at_start, moved, not_selected, .. } = report;
        let line = format!("{from}: {moved} moved, {not_selected} not selected, of about {visible_at_start}");
        if self.terminal {
            eprint!("\r\x1b[2K{ASIDE}{line}{ASIDE:#}");
        } else {
            eprintln!("{line}");
        }
    }

    /// Leaves the terminal's line.
    pub fn end(self) {
        if self.terminal && self.last.is_some() {
            eprint!("\r\x1b[2K");
        }
    }
}

/// Prints the result of a move.
pub fn transfer(report: &TransferReport) {
    let TransferReport {
        from,
        moved,
        claim_checks,
        not_selected,
        arrived_during_run,
        too_recent,
        rejected,
        not_deleted,
        stop_reason,
        in_flight,
        ..
    } = report;
    let style = if report.is_success() { GOOD } else { BAD };
    println!("{TITLE}{from}{TITLE:#}: {style}{moved} moved{style:#}");
    let line = |count: usize, text: &str| {
        if count > 0 {
            println!("  {count} {text}");
        }
    };
    line(*claim_checks, "of them have their body in S3; the object keeps the key of its first route");
    line(*not_selected, "not moved: they do not match the field or the reason");
    line(*arrived_during_run, "not moved: they arrived during the run; run the command again");
    line(*too_recent, "not moved: SQS may still drop them as duplicates; run the command again in 6 minutes");
    line(*not_deleted, "sent but not deleted: the next run sends them again, with the same event_id");
    for (code, count) in rejected {
        println!("  {BAD}{count} not moved: the queue rejected them{BAD:#} ({code})");
    }
    line(*in_flight, "in flight: a consumer, or a run that was killed less than a minute ago, received them");
    if let Some(reason) = stop_reason {
        println!("  {BAD}stopped{BAD:#}: {reason}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_at_least_two_of_its_unit() {
        let told = [None, Some(119), Some(120), Some(7_199), Some(7_200), Some(172_799), Some(172_800)].map(age);

        assert_eq!(told, ["-", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
    }
}
