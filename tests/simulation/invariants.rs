//! What must hold after each answer, and at the end of an execution environment.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    ops::Range,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    aws::{CATCH_ALL, Call, Conditions, End, State},
    faults::{Profile, Refusal, Scope, Service},
    plan::Plan,
};

/// No call starts with less storage time left.
const MIN_CALL_TIME: Duration = Duration::from_millis(200);

/// The longest pause before a call is repeated.
const MAX_PAUSE: Duration = Duration::from_millis(800);

/// From this latency on an answer counts as late.
const LATE: Duration = Duration::from_secs(1);

/// Timers have a resolution of a millisecond.
const TIMER: Duration = Duration::from_millis(5);

/// The deadline is real time, and some of it passes before the function reads the clock.
const CLOCK: Duration = Duration::from_millis(150);

/// The function does not read a secret again because of a signature more often than this.
const MIN_READ_INTERVAL: Duration = Duration::from_secs(30);

/// A body from which on few fit into a batch.
const MEDIUM_BYTES: usize = 100_000;

/// One request and how it was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) delivery: usize,
    pub(crate) body: Vec<u8>,
    /// Indices of the fragments. A forged notification has none, because none may be stored.
    pub(crate) fragments: Range<usize>,
    pub(crate) is_forged: bool,
    pub(crate) secret_version: usize,
    /// Whether the function had the app secret when the request came.
    pub(crate) is_secret_known: bool,
    pub(crate) conditions: Conditions,
    pub(crate) started: Instant,
    pub(crate) storage_deadline: Instant,
    pub(crate) answered: Instant,
    /// `None` if there was no answer before the deadline.
    pub(crate) status: Option<u16>,
}

/// Checks one answer, and the calls that the function made for it.
pub(crate) fn check_answer(state: &mut State, plan: &Plan, answer: &Answer) {
    let found = match answer.status {
        None => vec![("every request is answered before its deadline", String::new())],
        Some(_) if answer.answered > answer.storage_deadline + TIMER => {
            vec![("the answer leaves a second before the deadline", String::new())]
        }
        Some(401) if answer.is_forged => Vec::new(),
        Some(401) => check_unauthorized(state, plan, answer),
        Some(200 | 503) if !answer.is_forged => check_calls(state, plan, answer),
        Some(status) => vec![("only expected answers", status.to_string())],
    };
    for (invariant, detail) in found {
        state.violate(invariant, format!("request {}: {detail}", answer.delivery));
    }
}

type Found = Vec<(&'static str, String)>;

/// A genuine request may be rejected only while the function cannot know the secret.
fn check_unauthorized(state: &State, plan: &Plan, answer: &Answer) -> Found {
    let is_recent = |call: &&Call| answer.started.saturating_duration_since(call.started) < MIN_READ_INTERVAL + TIMER;
    let mut reads = state.calls.iter().filter(|call| call.service == Service::SecretsManager);
    let has_recent_read = reads.any(|read| read.delivery < answer.delivery && is_recent(&read));
    if state.received_secret_version >= answer.secret_version
        || (plan.profile == Profile::Faultless && !has_recent_read)
    {
        return vec![("a current signature is accepted", String::new())];
    }
    Vec::new()
}

fn check_calls(state: &State, plan: &Plan, answer: &Answer) -> Found {
    let mut found = Vec::new();
    let calls: Vec<_> = state.calls.iter().filter(|call| call.delivery == answer.delivery).collect();
    let is_confirmed = |fragment| calls.iter().any(|call| call.is_of_sqs() && call.is_confirmed(fragment));
    let unconfirmed: HashSet<_> = answer.fragments.clone().filter(|fragment| !is_confirmed(*fragment)).collect();
    let stored: HashSet<_> =
        state.queues.iter().flat_map(|queue| &queue.messages).map(|message| message.fragment).collect();
    for call in calls.iter().filter(|call| call.service != Service::SecretsManager) {
        let left = answer.storage_deadline.saturating_duration_since(call.started);
        if left < MIN_CALL_TIME.saturating_sub(TIMER) {
            found.push(("no call starts with less than 200 ms left", format!("{:?}, {left:?} left", call.service)));
        }
    }
    for call in calls.iter().filter(|call| is_abandoned_early(call, answer)) {
        let is_superseded = |fragment: &usize| {
            let of_service = |other: &&&Call| other.service == call.service && other.is_confirmed(*fragment);
            !unconfirmed.contains(fragment) || (call.service == Service::S3 && calls.iter().any(|of| of_service(&of)))
        };
        if !call.fragments.iter().all(is_superseded) {
            found.push(("no call is abandoned while time is left", format!("{:?}", call.service)));
        }
    }
    for (fragment, time) in diverted_early(state, &calls, answer) {
        found.push(("only an unavailable queue is given up early", format!("fragment {fragment} after {time:?}")));
    }
    if answer.status == Some(200) {
        if let Some(lost) = answer.fragments.clone().find(|fragment| !stored.contains(fragment)) {
            found.push(("200 means that everything is stored", format!("fragment {lost} is not")));
        }
        return found;
    }
    if unconfirmed.is_empty() {
        found.push(("503 means that something is not stored", "all fragments were confirmed".to_owned()));
    }
    let is_excused = |fragment: &usize| has_final_refusal(state, plan, &calls, *fragment);
    if answer.answered + MIN_CALL_TIME + MAX_PAUSE + CLOCK < answer.storage_deadline
        && let Some(fragment) = unconfirmed.iter().find(|fragment| !is_excused(fragment))
    {
        let left = answer.storage_deadline - answer.answered;
        found.push(("503 only after all the time was used", format!("fragment {fragment}, {left:?} left")));
    }
    if is_feasible(state, plan, answer) {
        found.push(("503 only if AWS could not store it in time", String::new()));
    }
    found
}

fn is_abandoned_early(call: &Call, answer: &Answer) -> bool {
    let margin = match call.service {
        Service::Sqs(_) => CLOCK,
        // After the upload, the message has to be sent.
        Service::S3 => CLOCK + MIN_CALL_TIME,
        Service::SecretsManager => return false,
    };
    matches!(call.end, Some(End::Abandoned(when)) if when + margin < answer.storage_deadline)
}

/// Fragments that were sent to the catch-all queue in the first half of the time, although their queue did not say that it
/// cannot store them.
fn diverted_early(state: &State, calls: &[&Call], answer: &Answer) -> Vec<(usize, Duration)> {
    let turn = answer.started + (answer.storage_deadline - answer.started) / 2;
    let is_early = |call: &&&Call| call.started + MAX_PAUSE + CLOCK < turn;
    let to_catch_all = calls.iter().filter(|call| call.service == Service::Sqs(CATCH_ALL)).filter(is_early);
    let is_unexplained = |fragment: usize| {
        let destination = state.destination(fragment);
        let is_refused = |call: &&Call| call.service == Service::Sqs(destination) && is_refused_finally(call, fragment);
        // A queue that is too slow for all of its batches is diverted while there is time for it.
        let is_slow = |call: &&Call| call.service == Service::Sqs(destination) && call.fate.reply_after >= LATE;
        destination != CATCH_ALL && !calls.iter().any(|call| is_refused(call) || is_slow(call))
    };
    let early = to_catch_all.flat_map(|call| call.fragments.iter().map(|fragment| (*fragment, call.started)));
    early
        .filter(|(fragment, _)| is_unexplained(*fragment))
        .map(|(fragment, started)| (fragment, started - answer.started))
        .collect()
}

/// Whether the answer means that the queue is unavailable, or that SQS does not accept the fragment.
fn is_refused_finally(call: &Call, fragment: usize) -> bool {
    let scope = |refusal: Option<&Refusal>| refusal.map_or(Scope::Nothing, |refusal| refusal.scope);
    let index = call.fragments.iter().position(|of| *of == fragment);
    let is_rejected = index.is_some_and(|index| !call.fate.is_entry_stored(index));
    let is_any_rejected = (0..call.fragments.len()).any(|index| !call.fate.is_entry_stored(index));
    let is_entry_final = match scope(call.fate.not_stored.1) {
        Scope::Nothing => false,
        Scope::Message => is_rejected,
        Scope::Service => is_any_rejected,
    };
    // Of a whole call, SQS does not name the entry.
    matches!(call.end, Some(End::Answered(_))) && (is_entry_final || scope(call.fate.refusal) != Scope::Nothing)
}

/// Whether AWS said that the fragment cannot be stored, so that waiting is of no use.
fn has_final_refusal(state: &State, plan: &Plan, calls: &[&Call], fragment: usize) -> bool {
    let needs_bucket = state.fragments[fragment].is_large() && !plan.has_bucket;
    let is_refused = |call: &&Call| match call.service {
        Service::Sqs(CATCH_ALL) => is_refused_finally(call, fragment),
        Service::S3 => call.fragments.contains(&fragment) && is_refused_finally(call, fragment),
        _ => false,
    };
    needs_bucket || calls.iter().copied().any(|call| is_refused(&call))
}

/// Whether a sender that waits for each call, and turns to the catch-all queue at half of the time, stores everything.
fn is_feasible(state: &State, plan: &Plan, answer: &Answer) -> bool {
    let fragments = &state.fragments[answer.fragments.clone()];
    let large = fragments.iter().filter(|fragment| fragment.is_large()).count();
    let medium = fragments.iter().filter(|fragment| fragment.bytes.len() > MEDIUM_BYTES).count();
    if large > 0 && !plan.has_bucket {
        return false;
    }
    // As if there were one call at a time, and each large body split the batch that it is in.
    let calls = fragments.len().div_ceil(10) + 2 * medium;
    let time = |queue: usize| {
        let upload = if large > 0 { answer.conditions.s3.max_latency()? } else { Duration::ZERO };
        let send = answer.conditions.queues[queue].max_latency()?;
        Some(send * u32::try_from(calls).ok()? + upload * u32::try_from(large).ok()?)
    };
    let total = answer.storage_deadline - answer.started;
    // A new secret is read first, in half of the time at most.
    let total = if answer.is_secret_known { total } else { total / 2 };
    let fits = |queue, within: Duration| time(queue).is_some_and(|time| time + MIN_CALL_TIME + CLOCK < within);
    // A batch whose own queue was called twice leaves the catch-all queue a third of the time.
    answer.fragments.clone().all(|fragment| fits(state.destination(fragment), total) || fits(CATCH_ALL, total / 3))
}

/// Checks what the queues and the bucket hold after all calls have taken effect.
pub(crate) fn check_end(state: &mut State, plan: &Plan, answers: &[Answer]) {
    let found: Vec<_> =
        [check_copies(state, plan, answers), check_objects(state, plan, answers), check_order(state, answers)].concat();
    for (invariant, detail) in found {
        state.violate(invariant, detail);
    }
}

fn count<T: Eq + Hash>(items: impl Iterator<Item = T>) -> HashMap<T, usize> {
    items.fold(HashMap::new(), |mut counts, item| {
        *counts.entry(item).or_default() += 1;
        counts
    })
}

fn check_copies(state: &State, plan: &Plan, answers: &[Answer]) -> Found {
    let copies = count(state.queues.iter().flat_map(|queue| &queue.messages).map(|message| message.fragment));
    let deliveries = count(answers.iter().flat_map(|answer| answer.fragments.clone()));
    let doubtful = state.calls.iter().filter(|call| call.is_of_sqs() && is_doubtful(call, answers));
    let doubtful: Vec<_> = doubtful.collect();
    // A queue that answers neither of two calls for a message may cost a third copy: see docs/reliability.md.
    let by_queue =
        count(doubtful.iter().flat_map(|call| call.fragments.iter().map(|fragment| (call.service, *fragment))));
    let silent = count(by_queue.into_iter().filter(|(_, calls)| *calls > 1).map(|((_, fragment), _)| fragment));
    let doubtful = count(doubtful.iter().flat_map(|call| call.fragments.iter().copied()));
    let mut found = Vec::new();
    for (fragment, copies) in copies {
        let deliveries = deliveries.get(&fragment).copied().unwrap_or_default();
        let doubtful = doubtful.get(&fragment).copied().unwrap_or_default();
        let detail =
            format!("fragment {fragment} has {copies} copies, {deliveries} deliveries, {doubtful} doubtful calls");
        if copies > deliveries + doubtful {
            found.push(("no more copies than doubtful calls plus one", detail));
        } else if plan.profile != Profile::Chaotic
            && copies > 2 * deliveries + silent.get(&fragment).copied().unwrap_or_default()
        {
            found.push(("at most two copies while AWS is slow", detail));
        }
    }
    found
}

/// Whether the function may send the same again: the answer was lost, or came after a second, or after a third of the time
/// that was left.
fn is_doubtful(call: &Call, answers: &[Answer]) -> bool {
    let answer = answers.iter().find(|answer| answer.delivery == call.delivery);
    let left = answer.map(|answer| answer.storage_deadline.saturating_duration_since(call.started));
    let is_late = left.is_some_and(|left| call.fate.reply_after + TIMER >= LATE.min(left / 3));
    is_late || call.fate.is_answer_lost()
}

fn check_objects(state: &State, plan: &Plan, answers: &[Answer]) -> Found {
    let (mut referenced, mut found) = (HashSet::new(), Vec::new());
    for key in state.referenced_objects() {
        // A consumer deletes the object together with its message.
        if !referenced.insert(key) {
            found.push(("no two messages share an object", key.to_owned()));
        }
    }
    let orphans = state.objects.iter().filter(|(key, _)| !referenced.contains(key.as_str()));
    for (fragment, orphans) in count(orphans.map(|(_, object)| object.fragment)) {
        let of_fragment = |call: &&Call| call.fragments.contains(&fragment);
        let calls = state.calls.iter().filter(of_fragment);
        let deliveries = answers.iter().filter(|answer| answer.fragments.contains(&fragment));
        let failed = deliveries.clone().filter(|answer| answer.status != Some(200)).count();
        // An upload whose message was perhaps not stored, or was dropped as a copy.
        let is_excuse = |call: &&Call| is_doubtful(call, answers) || (call.is_of_sqs() && !is_stored_once(call));
        let excuses = calls.filter(is_excuse).count() + failed;
        let detail = format!("fragment {fragment} has {orphans} orphaned objects, and {excuses} calls explain one");
        if orphans > excuses {
            found.push(("no more orphaned objects than doubtful calls", detail));
        } else if plan.profile != Profile::Chaotic && orphans > deliveries.count() + failed {
            found.push(("at most one orphaned object while AWS is slow", detail));
        }
    }
    found
}

/// Whether a call with one entry stored it.
fn is_stored_once(call: &Call) -> bool {
    call.fate.is_entry_stored(0) && call.deduplicated == 0
}

/// A FIFO queue that never failed has the fragments of a conversation in their order, those left out that were diverted.
fn check_order(state: &State, answers: &[Answer]) -> Found {
    if answers.iter().any(|answer| !answer.is_forged && answer.status != Some(200)) {
        return Vec::new();
    }
    let sqs = |call: &&Call| call.is_of_sqs();
    let diverted = |call: &Call, fragment: &&usize| call.service != Service::Sqs(state.destination(**fragment));
    let diverted: HashSet<_> = state
        .calls
        .iter()
        .filter(sqs)
        .flat_map(|call| call.fragments.iter().filter(|fragment| diverted(call, fragment)))
        .collect();
    let mut found = Vec::new();
    for (index, queue) in state.queues.iter().enumerate().filter(|(_, queue)| queue.is_fifo()) {
        let mut calls = state.calls.iter().filter(|call| call.service == Service::Sqs(index));
        if calls.any(|call| call.fate.is_faulty()) {
            continue;
        }
        let mut last = HashMap::new();
        let mut seen = HashSet::new();
        for message in queue.messages.iter().filter(|message| !diverted.contains(&message.fragment)) {
            let Some(conversation) = state.fragments[message.fragment].conversation else { continue };
            if !seen.insert(message.fragment) {
                continue;
            }
            let before = last.insert(conversation, (message.fragment, message.group.as_deref()));
            if let Some((before, group)) = before
                && (before > message.fragment || group != message.group.as_deref())
            {
                found.push(("order holds within a group", format!("fragment {before}, then {}", message.fragment)));
            }
        }
    }
    found
}
