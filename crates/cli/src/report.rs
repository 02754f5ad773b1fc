//! Prints results as text and tables, in colour if the output is a terminal.

use std::{
    fmt::Write,
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use anstream::{eprint, eprintln, println};
use anstyle::{AnsiColor, Style};

use crate::{
    aws::stack_info::StackInfo,
    meta::outcome::Outcome,
    queues::{
        backlog::{Backlogs, OtherQueue, QueueDepth},
        declared::Restoration,
        inspect::{CategoryCount, ExportReport, ReceiveEffect},
        pass::Unseen,
        queue::{Counts, QueueState},
        redrive::SkippedQueue,
        scan::ScanReport,
        selection::Field,
        stack_queues::StackQueues,
        transfer::{MoveCounts, TransferReport},
    },
    subscribe::{AccountPlan, FieldAction, OverrideAction, Plan, STANDBY},
    verify::{Check, Finding},
};

pub(crate) const SUCCESS: Style = AnsiColor::Green.on_default();
pub(crate) const FAILURE: Style = AnsiColor::Red.on_default().bold();
pub(crate) const HEADING: Style = Style::new().bold();
const DIMMED: Style = Style::new().dimmed();

/// A table with a row for each delivery.
pub(crate) struct DeliveryTable {
    name_width: usize,
}

impl DeliveryTable {
    /// Prints the heading. `names` are the names of all samples.
    pub(crate) fn start<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let table = Self { name_width: names.map(str::len).max().unwrap_or_default().max("sample".len()) };
        let width = table.name_width;
        println!("\n{HEADING}{:width$}  status     ms  queues{HEADING:#}", "sample");
        table
    }

    pub(crate) fn print_row(&self, outcome: &Outcome) {
        let width = self.name_width;
        let style = if outcome.is_as_expected() { SUCCESS } else { FAILURE };
        let queues = if outcome.queues.is_empty() { "-" } else { &outcome.queues };
        println!(
            "{:width$}  {style}{:>6}{style:#}  {:>5}  {queues}",
            outcome.sample,
            outcome.status,
            outcome.elapsed.as_millis()
        );
        for problem in &outcome.problems {
            println!("{:width$}  {FAILURE}{problem}{FAILURE:#}", "");
        }
    }
}

/// Prints the number of samples whose outcome is as expected.
pub(crate) fn summary<'o>(outcomes: impl Iterator<Item = &'o Outcome>) {
    let (expected, unexpected): (Vec<_>, Vec<_>) = outcomes.partition(|outcome| outcome.is_as_expected());
    if unexpected.is_empty() {
        println!("\n{SUCCESS}all {} as expected{SUCCESS:#}", expected.len());
    } else {
        println!("\n{FAILURE}{} of {} not as expected{FAILURE:#}", unexpected.len(), expected.len() + unexpected.len());
    }
}

/// Prints the image that the function runs in.
pub(crate) fn image(name: &str, stand_in_reason: Option<&str>) {
    println!("{HEADING}image{HEADING:#}  {name}");
    if let Some(reason) = stand_in_reason {
        println!("{FAILURE}a stand-in{FAILURE:#}, because AWS's image is not available: {reason}");
    }
}

/// Prints the number of visible messages of each queue.
pub(crate) fn depths(queues: &StackQueues, counts: &[Counts]) {
    let width = queues.all.iter().map(|queue| queue.label.len()).max().unwrap_or_default();
    println!("\n{HEADING}{:width$}  messages  routes{HEADING:#}", "queue");
    for (queue, counts) in queues.all.iter().zip(counts) {
        println!("{:width$}  {:>8}  {}", queue.label, counts.visible, queue.routes.join(", "));
    }
}

/// Prints a change of the number of messages of a queue.
pub(crate) fn count_change(queue: &str, before: usize, after: usize) {
    let (sign, count) = if after > before { ('+', after - before) } else { ('-', before - after) };
    println!("{queue}: {after} ({sign}{count})");
}

/// Prints how to call the endpoint and how to read its queues with other tools.
pub(crate) fn usage(callback_url: &str, curl: &str, environment: &[(&str, &str)]) {
    println!("\n{HEADING}callback URL{HEADING:#}  {callback_url}");
    println!("\n{HEADING}try{HEADING:#}\n{curl}");
    println!(
        "\n{HEADING}your own body{HEADING:#}  in another terminal, run `make deliver BODY=FILE` (`ingress deliver --body FILE`)"
    );
    let mut variables = String::new();
    for (name, value) in environment {
        let _ = write!(variables, " {name}={value}");
    }
    println!("\n{HEADING}queues{HEADING:#}  for AWS tools, run\nexport{variables}");
    println!("\nChanges of the message counts follow. Ctrl-C stops the stack.");
}

/// Prints the end of a log to standard error.
pub(crate) fn log_tail(tail: &str) {
    eprintln!("\n{DIMMED}{tail}{DIMMED:#}");
}

/// Prints the result of a check, and for a failed one the likely cause and a fix.
pub fn check(check: &Check) {
    let (style, word, detail) = match &check.finding {
        Finding::Passed { detail } => (SUCCESS, "passed", detail),
        Finding::Failed { detail, .. } => (FAILURE, "failed", detail),
        Finding::Skipped { detail } => (DIMMED, "skipped", detail),
    };
    println!("{:48}  {style}{word:7}{style:#}  {detail}", check.name);
    if let Finding::Failed { diagnosis, .. } = &check.finding {
        println!("{:48}  {FAILURE}cause{FAILURE:#}    {}", "", diagnosis.cause);
        println!("{:48}  {FAILURE}fix{FAILURE:#}      {}", "", diagnosis.fix);
    }
}

/// Prints the numbers of passed, failed and skipped checks.
pub fn check_summary(checks: &[Check], is_interrupted: bool) {
    let failed = checks.iter().filter(|check| check.is_failed()).count();
    let skipped = checks.iter().filter(|check| matches!(check.finding, Finding::Skipped { .. })).count();
    let passed = checks.len() - failed - skipped;
    let style = if failed == 0 && !is_interrupted { SUCCESS } else { FAILURE };
    let interrupted = if is_interrupted { ", interrupted" } else { "" };
    println!("\n{style}{passed} of {} passed, {failed} failed{interrupted}{style:#}, {skipped} skipped", checks.len());
}

/// Prints the subscriptions of an app and the planned changes.
pub fn plan(plan: &Plan, applied: bool) {
    println!("{HEADING}app{HEADING:#}           {}", plan.app);
    match &plan.current_callback_url {
        Some(current) if *current == plan.callback_url => println!("{HEADING}callback URL{HEADING:#}  {current}"),
        Some(current) => {
            println!("{HEADING}callback URL{HEADING:#}  {FAILURE}{current}{FAILURE:#}, to be replaced by");
            println!("              {SUCCESS}{}{SUCCESS:#}", plan.callback_url);
        }
        None => {
            println!("{HEADING}callback URL{HEADING:#}  none, to be set to {SUCCESS}{}{SUCCESS:#}", plan.callback_url);
        }
    }
    if plan.current_callback_url.is_some() && !plan.is_active {
        println!("              {FAILURE}not active: Meta sends no events{FAILURE:#}");
    }
    let width = plan.fields.iter().map(|field| field.field.len()).max().unwrap_or_default();
    println!("\n{HEADING}{:width$}  subscribed              queues{HEADING:#}", "field");
    for field in &plan.fields {
        let (style, state) = match field.action {
            FieldAction::Keep => (Style::new(), "yes"),
            FieldAction::Subscribe => (SUCCESS, "no, to be added"),
            FieldAction::Unsubscribe => (FAILURE, "yes, to be removed"),
            FieldAction::Leave => (DIMMED, "no"),
        };
        let queues =
            if field.queues.is_empty() { "- (the catch-all queue)".to_owned() } else { field.queues.join(", ") };
        println!("{:width$}  {style}{state:22}{style:#}  {queues}", field.field);
    }
    let without_queue = plan.fields_without_queue();
    if !without_queue.is_empty() {
        println!("\nwithout a queue of their own, so stored on the catch-all queue: {}", without_queue.join(", "));
    }
    if plan.lacks_standby() {
        println!(
            "\n{STANDBY}: while Meta Business Agent answers a chat, the customer's messages arrive under this field instead \
             of messages.\nIf it may be on, add the queue of {STANDBY} to the stack, and subscribe to the field."
        );
    }
    for account in &plan.accounts {
        print_account(plan, account);
    }
    println!();
    match (applied, plan.is_done()) {
        (true, true) => println!("{SUCCESS}done{SUCCESS:#}"),
        (true, false) => {
            println!(
                "{FAILURE}Meta accepted the changes, but does not show all of them{FAILURE:#}: check again in a minute"
            );
        }
        (false, true) => println!("{SUCCESS}nothing to do{SUCCESS:#}"),
        (false, false) => {
            println!("nothing was changed: apply the changes with --apply (`make subscribe APPLY=1 ...`)");
        }
    }
}

/// Prints the subscription and the overrides of an account and its phone numbers.
fn print_account(plan: &Plan, account: &AccountPlan) {
    let (style, state) = if account.is_subscribed { (Style::new(), "yes") } else { (SUCCESS, "no, to be added") };
    println!("\n{HEADING}account{HEADING:#}       {}", account.account);
    println!("subscribed    {style}{state}{style:#}");
    print_override(plan, "override", account.override_callback_uri.as_deref(), account.override_action);
    for number in &account.numbers {
        let url = number.effective_callback_url.as_deref().unwrap_or("none");
        let is_own = url == plan.callback_url;
        let style = if is_own { Style::new() } else { FAILURE };
        let note = if is_own { "" } else { ": the stack receives no events about messages of this number" };
        println!("{HEADING}phone number{HEADING:#}  {}  events go to {style}{url}{style:#}{note}", number.number);
        print_override(plan, "  override", number.override_callback_uri.as_deref(), number.override_action);
    }
}

fn print_override(plan: &Plan, label: &str, current: Option<&str>, action: OverrideAction) {
    let to_do = match action {
        OverrideAction::Keep => String::new(),
        OverrideAction::Clear => format!(", {SUCCESS}to be cleared{SUCCESS:#}"),
        OverrideAction::Set => format!(", {SUCCESS}to be set to {}{SUCCESS:#}", plan.callback_url),
    };
    match current {
        None if to_do.is_empty() => (),
        Some(url) if url != plan.callback_url => {
            println!("{label:12}  {FAILURE}{url}, which leads elsewhere{FAILURE:#}{to_do}");
        }
        current => println!("{label:12}  {}{to_do}", current.unwrap_or("none")),
    }
}

/// Prints the account, the region and the stack of a command, for JSON output to standard error.
pub fn stack(info: &StackInfo, is_json: bool) {
    let StackInfo { stack, region, aws_endpoint, .. } = info;
    let endpoint =
        if info.is_plain_http() { format!("  {HEADING}endpoint{HEADING:#} {aws_endpoint}") } else { String::new() };
    let line = format!(
        "{HEADING}account{HEADING:#} {}  {HEADING}region{HEADING:#} {region}  {HEADING}stack{HEADING:#} {stack}{endpoint}\n",
        info.account_id()
    );
    if is_json { eprintln!("{line}") } else { println!("{line}") }
}

/// Prints the message counts of each queue and its dead-letter queue.
pub fn backlogs(backlogs: &Backlogs) {
    let width = backlogs.queues.iter().map(|backlog| backlog.depth.queue.len()).max().unwrap_or_default();
    println!(
        "{HEADING}{:width$}  {:13}  visible  in flight  delayed    oldest  dead letters    oldest  routes{HEADING:#}",
        "queue", "state"
    );
    for backlog in &backlogs.queues {
        let depth = &backlog.depth;
        let count =
            |count: fn(&Counts) -> usize| depth.counts.as_ref().map_or("-".to_owned(), |c| count(c).to_string());
        let dead_letters = match &backlog.dead_letter_queue {
            None => "-".to_owned(),
            Some(QueueDepth { state: QueueState::Usable, counts: Some(counts), .. }) => counts.total().to_string(),
            Some(depth) => depth.state.to_string(),
        };
        let style = if matches!(dead_letters.as_str(), "-" | "0") { Style::new() } else { FAILURE };
        let state_style = if depth.state == QueueState::Usable { Style::new() } else { FAILURE };
        println!(
            "{:width$}  {state_style}{:13}{state_style:#}  {:>7}  {:>9}  {:>7}  {:>8}  {style}{dead_letters:>12}{style:#}  {:>8}  {}",
            depth.queue,
            depth.state,
            count(|counts| counts.visible),
            count(|counts| counts.in_flight),
            count(|counts| counts.delayed),
            format_age(depth.oldest_seconds),
            format_age(backlog.dead_letter_queue.as_ref().and_then(|depth| depth.oldest_seconds)),
            backlog.routes.join(", ")
        );
    }
    unusable_queues(backlogs);
    match &backlogs.ages_error {
        Some(reason) => println!("\nno ages: {reason}"),
        None if backlogs.has_unknown_age() => println!(
            "\nAn age of - means that CloudWatch has no value from the last 15 minutes. Values arrive some minutes late, and \
             later still after hours\nwithout activity. A local AWS has none. The command receives no message to determine the \
             age, because SQS counts each receive."
        ),
        None => (),
    }
    other_queues(backlogs);
}

/// Prints the reason and a fix for each queue that cannot be used.
fn unusable_queues(backlogs: &Backlogs) {
    let depths = backlogs.queues.iter().flat_map(|backlog| {
        [Some(&backlog.depth), backlog.dead_letter_queue.as_ref()].map(move |depth| (depth, &backlog.routes))
    });
    for (depth, routes) in depths.filter_map(|(depth, routes)| Some((depth?, routes))) {
        let route = routes.first().map_or("", String::as_str);
        let fix = match &depth.state {
            QueueState::Usable => continue,
            QueueState::Gone => format!("`ingress restore-queue '{route}'` creates it again"),
            QueueState::AccessDenied => "these credentials lack sqs:GetQueueAttributes for it".to_owned(),
            QueueState::KeyDisabled(key) => format!("enable the key, or cancel its deletion: {key}"),
            QueueState::Unknown(reason) => reason.clone(),
        };
        println!("\n{FAILURE}{}: {}{FAILURE:#}: {fix}", depth.queue, depth.state);
    }
    if let Some(reason) = &backlogs.keys_error {
        println!("\nthe state of a key is unknown: {reason}");
    }
}

/// Prints the queues with the stack's prefix that no route leads to.
fn other_queues(backlogs: &Backlogs) {
    let Backlogs { stack, other_queues, other_queues_error, .. } = backlogs;
    if let Some(reason) = other_queues_error {
        println!("\nother queues named {stack}-… could not be listed: {reason}");
    }
    if other_queues.is_empty() {
        return;
    }
    let width = other_queues.iter().map(|other| other.queue.len()).max().unwrap_or_default();
    println!("\n{HEADING}{:width$}  visible  in flight  delayed{HEADING:#}", "other queues");
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

/// Formats an age in the largest unit that gives a number of at least two.
fn format_age(seconds: Option<u64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds @ ..120) => format!("{seconds} s"),
        Some(seconds @ ..7_200) => format!("{} min", seconds / 60),
        Some(seconds @ ..172_800) => format!("{} h", seconds / 3_600),
        Some(seconds) => format!("{} d", seconds / 86_400),
    }
}

/// Prints the message counts of the queues of a move that is not applied.
pub fn dry_run(moves: &[MoveCounts], field: &Field) {
    let describe = |depth: &QueueDepth| match depth.counts {
        Some(Counts { visible, in_flight, delayed }) => {
            format!("{}: {visible} visible, {in_flight} in flight, {delayed} delayed", depth.queue)
        }
        None => format!("{}: {FAILURE}{}{FAILURE:#}", depth.queue, depth.state),
    };
    for MoveCounts { from, to } in moves {
        println!("{HEADING}from{HEADING:#}  {}", describe(from));
        for to in to {
            println!("{HEADING}to{HEADING:#}    {}", describe(to));
        }
    }
    println!("\nno message was received or moved: to move the messages of {field}, add --apply (`make ... APPLY=1`)");
    println!("the command cannot count them in advance, because SQS counts each receive as an attempt to consume");
}

/// Prints the queues that messages cannot be moved to.
pub fn skipped_queues(skipped: &[SkippedQueue]) {
    for SkippedQueue { queue, reason } in skipped {
        println!("{FAILURE}{queue}: skipped{FAILURE:#}: {reason}");
    }
}

/// The progress of a command: a line that is updated on a terminal, or a new line every 10 seconds elsewhere.
#[derive(Debug)]
pub struct Progress {
    is_terminal: bool,
    last_update: Option<Instant>,
}

impl Progress {
    /// Starts a progress without printing.
    #[must_use]
    pub fn start() -> Self {
        Self { is_terminal: stderr().is_terminal(), last_update: None }
    }

    /// Prints the progress of a move, unless the last update was too recent.
    pub fn update(&mut self, report: &TransferReport) {
        let TransferReport { from, visible_at_start, moved, not_selected, .. } = report;
        self.print(|| format!("{from}: {moved} moved, {not_selected} not selected, of about {visible_at_start}"));
    }

    /// Prints a line, unless the last one was too recent.
    pub fn print(&mut self, line: impl FnOnce() -> String) {
        let interval = if self.is_terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if self.last_update.is_some_and(|last| last.elapsed() < interval) {
            return;
        }
        self.last_update = Some(Instant::now());
        let line = line();
        if self.is_terminal {
            eprint!("\r\x1b[2K{DIMMED}{line}{DIMMED:#}");
        } else {
            eprintln!("{line}");
        }
    }

    /// Clears the line on the terminal.
    pub fn clear(self) {
        if self.is_terminal && self.last_update.is_some() {
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
        shared_object,
        queue_gone,
        rejected,
        not_deleted,
        blocked,
        stop_reason,
        release_error,
        unseen,
        ..
    } = report;
    let style = if report.is_success() { SUCCESS } else { FAILURE };
    println!("{HEADING}{from}{HEADING:#}: {style}{moved} moved{style:#}");
    let print_count = |count: usize, text: &str| {
        if count > 0 {
            println!("  {count} {text}");
        }
    };
    print_count(
        *claim_checks,
        "of them have their body in S3; the object is not renamed: its key still names the original route",
    );
    print_count(
        *not_selected,
        "not moved: another field, or (reroute only) an unrouted_reason other than no-route and queue-unavailable",
    );
    print_count(*arrived_during_run, "not moved: they arrived during the run; run the command again");
    print_count(*too_recent, "not moved: SQS may still drop them as duplicates; run the command again in 6 minutes");
    print_count(
        *shared_object,
        "not moved: several queues would share their body in S3, which the first consumer deletes",
    );
    print_count(*queue_gone, "not moved: their queue is gone");
    print_count(*not_deleted, "sent but not deleted: the next run sends them again, with the same event_id");
    for (code, count) in rejected {
        println!("  {FAILURE}{count} not moved: the queue rejected them{FAILURE:#} ({code})");
    }
    print_errors(*blocked, unseen, stop_reason.as_deref(), release_error.as_deref());
}

fn print_errors(blocked: usize, unseen: &Unseen, stop_reason: Option<&str>, release_error: Option<&str>) {
    let style = if unseen.has_hidden() { FAILURE } else { Style::new() };
    match unseen.in_flight {
        Some(count @ 1..) if unseen.has_consumers => {
            println!("  {count} in flight: the consumers of the queue, or an earlier run, received them");
        }
        Some(count @ 1..) => println!(
            "  {style}{count} in flight{style:#}, not seen by this run: a run that was killed, or another consumer, received them\n  \
             run the command again when they are visible, after half a minute to six hours; without --apply, it prints how many are in flight"
        ),
        _ => (),
    }
    if unseen.lost_receives > 0 && unseen.in_flight != Some(0) {
        println!(
            "  {style}{} responses to receives were lost{style:#}: SQS may have hidden up to ten messages for each\n  run the command \
             again afterwards, after half a minute to six hours",
            unseen.lost_receives
        );
    }
    if blocked > 0 {
        println!("  {FAILURE}about {blocked} not received{FAILURE:#}: they follow messages of their group that remain");
    }
    if let Some(reason) = stop_reason {
        println!("  {FAILURE}stopped{FAILURE:#}: {reason}");
    }
    if let Some(error) = release_error {
        println!("  {FAILURE}hidden{FAILURE:#} until the visibility timeout ends, up to six hours: {error}");
    }
}

/// Prints the effect of a receive to standard error, before messages are received.
pub fn receive_effect(effect: &ReceiveEffect) {
    eprintln!("SQS counts this look as a receive of each message:");
    if let Some(max) = effect.max_receives {
        eprintln!("- after {max} receives, SQS moves a message to the dead-letter queue");
    }
    if effect.is_fifo {
        eprintln!("- the command blocks the groups of the messages until its end\n");
    } else {
        eprintln!("- after three, ApproximateAgeOfOldestMessage and the alarm consumer-lag ignore a message\n");
    }
}

/// Prints the number of messages of each field, kind, reason and day.
pub fn category_counts(counts: &[CategoryCount]) {
    let width = |text: fn(&CategoryCount) -> Option<&String>, heading: &str| {
        counts.iter().filter_map(text).map(String::len).chain([heading.len()]).max().unwrap_or_default()
    };
    let field_width = width(|count| count.category.field.as_ref(), "field");
    let kind_width = width(|count| count.category.kind.as_ref(), "kind");
    let reason_width = width(|count| count.category.reason.as_ref(), "reason");
    println!(
        "{HEADING}{:field_width$}  {:kind_width$}  {:reason_width$}  sent        messages  received{HEADING:#}",
        "field", "kind", "reason"
    );
    for CategoryCount { category, count, max_receive_count } in counts {
        let [field, kind, reason] =
            [&category.field, &category.kind, &category.reason].map(|text| text.as_deref().unwrap_or("-"));
        println!(
            "{field:field_width$}  {kind:kind_width$}  {reason:reason_width$}  {:10}  {count:>8}  up to {max_receive_count}",
            category.sent
        );
    }
    println!();
}

/// Prints the result of a scan. `summary` describes the messages.
pub fn scan(report: &ScanReport, summary: &str) {
    let style = if report.is_success() { SUCCESS } else { FAILURE };
    println!("{HEADING}{}{HEADING:#}: {style}{summary}{style:#}", report.queue);
    if report.not_deleted > 0 {
        println!("  {FAILURE}{} not deleted{FAILURE:#}: run the command again", report.not_deleted);
    }
    print_errors(report.blocked, &report.unseen, report.stop_reason.as_deref(), report.release_error.as_deref());
}

/// Prints the result of a copy.
pub fn export(report: &ExportReport) {
    let ExportReport { scan: result, copied, copied_before, not_selected } = report;
    let mut summary = format!("{copied} copied");
    for (count, text) in
        [(*copied_before, "copied before"), (*not_selected, "not selected"), (result.deleted, "deleted")]
    {
        if count > 0 {
            let _ = write!(summary, ", {count} {text}");
        }
    }
    scan(result, &summary);
}

/// Prints the counts of the queue of a command that is not applied.
pub fn queue_dry_run(depth: &QueueDepth) {
    match depth.counts {
        Some(Counts { visible, in_flight, delayed }) => {
            println!("{}: {visible} visible, {in_flight} in flight, {delayed} delayed", depth.queue);
        }
        None => println!("{}: {FAILURE}{}{FAILURE:#}", depth.queue, depth.state),
    }
    println!("\nno message was received: `ingress peek` counts the messages by field and reason; apply with --apply");
}

/// Prints the state of the queues of a route that another stack or account owns.
pub fn queues_of_others(others: &[QueueDepth]) {
    for QueueDepth { queue, state, .. } in others {
        let (style, note) =
            if *state == QueueState::Usable { (SUCCESS, "") } else { (FAILURE, ", and must restore it") };
        println!("{HEADING}{queue}{HEADING:#}: {style}{state}{style:#}: another stack or account owns it{note}");
    }
}

/// Prints the changes that make queues as in the template.
pub fn restorations(plan: &[Restoration], applied: bool) {
    for Restoration { queue, create, differences } in plan {
        let action = if *create { "to be created" } else { "to be changed" };
        println!("{HEADING}{queue}{HEADING:#}: {SUCCESS}{action}{SUCCESS:#}");
        for difference in differences {
            println!("  {difference}");
        }
    }
    match (plan.is_empty(), applied) {
        (true, _) => println!("{SUCCESS}nothing to do{SUCCESS:#}: the queues of the stack are as in the template"),
        (false, false) => println!("\nnothing was changed: apply the changes with --apply"),
        (false, true) => (),
    }
}

/// Prints that SQS does not accept the name of a queue yet.
pub fn name_is_blocked(queue: &str) {
    eprintln!("{queue}: SQS accepts the name of a deleted queue again after 60 s: waiting");
}

/// Prints the differences that remain after a restoration.
pub fn remaining(remaining: &[Restoration]) {
    if remaining.is_empty() {
        println!("\n{SUCCESS}done{SUCCESS:#}: `ingress verify` checks all queues");
    } else {
        println!("\n{FAILURE}SQS does not show all changes{FAILURE:#}: check again in a minute");
        restorations(remaining, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_has_at_least_two_of_its_unit() {
        let ages = [None, Some(119), Some(120), Some(7_199), Some(7_200), Some(172_799), Some(172_800)].map(format_age);

        assert_eq!(ages, ["-", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
    }
}
