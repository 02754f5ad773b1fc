//! The invariants after each response and at the end of an execution environment.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    ops::Range,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    aws::{CATCH_ALL, Call, Conditions, End, State},
    faults::{Profile, Scope, Service, ServiceError},
    plan::Plan,
};

/// The minimum of the remaining storage time at the start of a call.
const MIN_CALL_TIME: Duration = Duration::from_millis(200);

/// The longest backoff before a retry.
const MAX_BACKOFF: Duration = Duration::from_millis(800);

/// The latency from which a response counts as late.
const LATE_RESPONSE: Duration = Duration::from_secs(1);

/// A tolerance for timers, whose resolution is a millisecond.
const TIMER_RESOLUTION: Duration = Duration::from_millis(5);

/// A tolerance for the time until the function reads the clock, because the deadline is real time.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(150);

/// The minimum interval between reads of the secret because of mismatches.
const MIN_READ_INTERVAL: Duration = Duration::from_secs(30);

/// The size from which only few bodies fit into a batch.
const MEDIUM_BYTES: usize = 100_000;

/// One request and its response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) delivery: usize,
    pub(crate) body: Vec<u8>,
    /// The indices of its fragments. Empty for a forged notification, because nothing may be stored.
    pub(crate) fragments: Range<usize>,
    pub(crate) is_forged: bool,
    pub(crate) secret_version: usize,
    /// Whether the function had the app secret at the start of the request.
    pub(crate) is_secret_known: bool,
    pub(crate) conditions: Conditions,
    pub(crate) started: Instant,
    pub(crate) storage_deadline: Instant,
    pub(crate) responded: Instant,
    /// `None` without a response before the deadline.
    pub(crate) status: Option<u16>,
}

/// Checks one response and the calls of its request.
pub(crate) fn check_response(state: &mut State, plan: &Plan, response: &Response) {
    let found = match response.status {
        None => vec![("every request has a response before its deadline", String::new())],
        Some(_) if response.responded > response.storage_deadline + TIMER_RESOLUTION => {
            vec![("the response is sent a second before the deadline", String::new())]
        }
        Some(401) if response.is_forged => Vec::new(),
        Some(401) => check_unauthorized(state, plan, response),
        Some(200 | 503) if !response.is_forged => check_calls(state, plan, response),
        Some(status) => vec![("only expected statuses", status.to_string())],
    };
    for (invariant, detail) in found {
        state.violate(invariant, format!("request {}: {detail}", response.delivery));
    }
}

type Found = Vec<(&'static str, String)>;

/// Checks that a genuine request is rejected only while the function cannot have the secret.
fn check_unauthorized(state: &State, plan: &Plan, response: &Response) -> Found {
    let is_recent =
        |call: &&Call| response.started.saturating_duration_since(call.started) < MIN_READ_INTERVAL + TIMER_RESOLUTION;
    let mut reads = state.calls.iter().filter(|call| call.service == Service::SecretsManager);
    let has_recent_read = reads.any(|read| read.delivery < response.delivery && is_recent(&read));
    if state.received_secret_version >= response.secret_version
        || (plan.profile == Profile::Faultless && !has_recent_read)
    {
        return vec![("a current signature is accepted", String::new())];
    }
    Vec::new()
}

fn check_calls(state: &State, plan: &Plan, response: &Response) -> Found {
    let mut found = Vec::new();
    let calls: Vec<_> = state.calls.iter().filter(|call| call.delivery == response.delivery).collect();
    let is_confirmed = |fragment| calls.iter().any(|call| call.is_of_sqs() && call.is_confirmed(fragment));
    let unconfirmed: HashSet<_> = response.fragments.clone().filter(|fragment| !is_confirmed(*fragment)).collect();
    let stored: HashSet<_> =
        state.queues.iter().flat_map(|queue| &queue.messages).map(|message| message.fragment).collect();
    for call in calls.iter().filter(|call| call.service != Service::SecretsManager) {
        let left = response.storage_deadline.saturating_duration_since(call.started);
        if left < MIN_CALL_TIME.saturating_sub(TIMER_RESOLUTION) {
            found.push(("no call starts with less than 200 ms left", format!("{:?}, {left:?} left", call.service)));
        }
    }
    for call in calls.iter().filter(|call| is_abandoned_early(call, response)) {
        let is_superseded = |fragment: &usize| {
            let of_service = |other: &&&Call| other.service == call.service && other.is_confirmed(*fragment);
            !unconfirmed.contains(fragment) || (call.service == Service::S3 && calls.iter().any(|of| of_service(&of)))
        };
        if !call.fragments.iter().all(is_superseded) {
            found.push(("no call is abandoned while time is left", format!("{:?}", call.service)));
        }
    }
    for (fragment, time) in diverted_early(state, &calls, response) {
        found.push(("only an unavailable queue is given up early", format!("fragment {fragment} after {time:?}")));
    }
    if response.status == Some(200) {
        if let Some(lost) = response.fragments.clone().find(|fragment| !stored.contains(fragment)) {
            found.push(("200 means that everything is stored", format!("fragment {lost} is not")));
        }
        return found;
    }
    if unconfirmed.is_empty() {
        found.push(("503 means that something is not stored", "all fragments were confirmed".to_owned()));
    }
    let is_excused = |fragment: &usize| has_permanent_error(state, plan, &calls, *fragment);
    if response.responded + MIN_CALL_TIME + MAX_BACKOFF + CLOCK_TOLERANCE < response.storage_deadline
        && let Some(fragment) = unconfirmed.iter().find(|fragment| !is_excused(fragment))
    {
        let left = response.storage_deadline - response.responded;
        found.push(("503 only after all the time was used", format!("fragment {fragment}, {left:?} left")));
    }
    if is_feasible(state, plan, response) {
        found.push(("503 only if AWS could not store it in time", String::new()));
    }
    found
}

fn is_abandoned_early(call: &Call, response: &Response) -> bool {
    let margin = match call.service {
        Service::Sqs(_) => CLOCK_TOLERANCE,
        // The message is sent after the upload.
        Service::S3 => CLOCK_TOLERANCE + MIN_CALL_TIME,
        Service::SecretsManager => return false,
    };
    matches!(call.end, Some(End::Abandoned(when)) if when + margin < response.storage_deadline)
}

/// Returns the fragments that were sent to the catch-all queue in the first half of the time without an error of their queue.
fn diverted_early(state: &State, calls: &[&Call], response: &Response) -> Vec<(usize, Duration)> {
    let turn = response.started + (response.storage_deadline - response.started) / 2;
    let is_early = |call: &&&Call| call.started + MAX_BACKOFF + CLOCK_TOLERANCE < turn;
    let to_catch_all = calls.iter().filter(|call| call.service == Service::Sqs(CATCH_ALL)).filter(is_early);
    let is_unexplained = |fragment: usize| {
        let destination = state.destination(fragment);
        let is_rejected_by =
            |call: &&Call| call.service == Service::Sqs(destination) && is_rejected_permanently(call, fragment);
        // The function also diverts early if a queue is too slow for all of its batches.
        let is_slow =
            |call: &&Call| call.service == Service::Sqs(destination) && call.fate.reply_after >= LATE_RESPONSE;
        destination != CATCH_ALL && !calls.iter().any(|call| is_rejected_by(call) || is_slow(call))
    };
    let early = to_catch_all.flat_map(|call| call.fragments.iter().map(|fragment| (*fragment, call.started)));
    early
        .filter(|(fragment, _)| is_unexplained(*fragment))
        .map(|(fragment, started)| (fragment, started - response.started))
        .collect()
}

/// Returns whether the response means that the queue is unavailable or does not accept the fragment.
fn is_rejected_permanently(call: &Call, fragment: usize) -> bool {
    let scope = |error: Option<&ServiceError>| error.map_or(Scope::Nothing, |error| error.scope);
    let index = call.fragments.iter().position(|of| *of == fragment);
    let is_rejected = index.is_some_and(|index| !call.fate.is_entry_stored(index));
    let is_any_rejected = (0..call.fragments.len()).any(|index| !call.fate.is_entry_stored(index));
    let is_entry_final = match scope(call.fate.not_stored.1) {
        Scope::Nothing => false,
        Scope::Message => is_rejected,
        Scope::Service => is_any_rejected,
    };
    // An error of the whole call does not name the entry.
    matches!(call.end, Some(End::Responded(_))) && (is_entry_final || scope(call.fate.error) != Scope::Nothing)
}

/// Returns whether a permanent error prevents that the fragment is stored, so that retries are useless.
fn has_permanent_error(state: &State, plan: &Plan, calls: &[&Call], fragment: usize) -> bool {
    let needs_bucket = state.fragments[fragment].is_large() && !plan.has_bucket;
    let is_rejected_by = |call: &&Call| match call.service {
        Service::Sqs(CATCH_ALL) => is_rejected_permanently(call, fragment),
        Service::S3 => call.fragments.contains(&fragment) && is_rejected_permanently(call, fragment),
        _ => false,
    };
    needs_bucket || calls.iter().copied().any(|call| is_rejected_by(&call))
}

/// Returns whether a sequential sender that switches to the catch-all queue at half of the time would store everything.
fn is_feasible(state: &State, plan: &Plan, response: &Response) -> bool {
    let fragments = &state.fragments[response.fragments.clone()];
    let large = fragments.iter().filter(|fragment| fragment.is_large()).count();
    let medium = fragments.iter().filter(|fragment| fragment.bytes.len() > MEDIUM_BYTES).count();
    if large > 0 && !plan.has_bucket {
        return false;
    }
    // Assumes sequential calls, and that each medium body splits its batch.
    let calls = fragments.len().div_ceil(10) + 2 * medium;
    let time = |queue: usize| {
        let upload = if large > 0 { response.conditions.s3.max_latency()? } else { Duration::ZERO };
        let send = response.conditions.queues[queue].max_latency()?;
        Some(send * u32::try_from(calls).ok()? + upload * u32::try_from(large).ok()?)
    };
    let total = response.storage_deadline - response.started;
    // Reading a new secret takes at most half of the time.
    let total = if response.is_secret_known { total } else { total / 2 };
    let fits =
        |queue, within: Duration| time(queue).is_some_and(|time| time + MIN_CALL_TIME + CLOCK_TOLERANCE < within);
    // After two calls to its own queue, a third of the time is left for the catch-all queue.
    response.fragments.clone().all(|fragment| fits(state.destination(fragment), total) || fits(CATCH_ALL, total / 3))
}

/// Checks the queues and the bucket after all calls have taken effect.
pub(crate) fn check_end(state: &mut State, plan: &Plan, responses: &[Response]) {
    let found: Vec<_> =
        [check_copies(state, plan, responses), check_objects(state, plan, responses), check_order(state, responses)]
            .concat();
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

fn check_copies(state: &State, plan: &Plan, responses: &[Response]) -> Found {
    let copies = count(state.queues.iter().flat_map(|queue| &queue.messages).map(|message| message.fragment));
    let deliveries = count(responses.iter().flat_map(|response| response.fragments.clone()));
    let doubtful = state.calls.iter().filter(|call| call.is_of_sqs() && is_doubtful(call, responses));
    let doubtful: Vec<_> = doubtful.collect();
    // Two calls without a response on one queue can cause a third copy, see docs/reliability.md.
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

/// Returns whether the function may repeat the call: the response was lost, or came after a second or after a third of the
/// remaining time.
fn is_doubtful(call: &Call, responses: &[Response]) -> bool {
    let response = responses.iter().find(|response| response.delivery == call.delivery);
    let left = response.map(|response| response.storage_deadline.saturating_duration_since(call.started));
    let is_late = left.is_some_and(|left| call.fate.reply_after + TIMER_RESOLUTION >= LATE_RESPONSE.min(left / 3));
    is_late || call.fate.is_response_lost()
}

fn check_objects(state: &State, plan: &Plan, responses: &[Response]) -> Found {
    let (mut referenced, mut found) = (HashSet::new(), Vec::new());
    for key in state.referenced_objects() {
        // A consumer that deletes one message would delete the object of the other.
        if !referenced.insert(key) {
            found.push(("no two messages share an object", key.to_owned()));
        }
    }
    let orphans = state.objects.iter().filter(|(key, _)| !referenced.contains(key.as_str()));
    for (fragment, orphans) in count(orphans.map(|(_, object)| object.fragment)) {
        // An object can be for any queue of its fragment.
        let siblings = state.siblings(fragment);
        let of_fragment = |call: &&Call| call.fragments.iter().any(|of| siblings.contains(of));
        let calls = state.calls.iter().filter(of_fragment);
        let deliveries = responses.iter().filter(|response| response.fragments.contains(&fragment));
        let failed = deliveries.clone().filter(|response| response.status != Some(200)).count() * siblings.len();
        // The message of the upload may not be stored, or SQS dropped it as a duplicate.
        let is_excuse = |call: &&Call| is_doubtful(call, responses) || (call.is_of_sqs() && !is_stored_once(call));
        let excuses = calls.filter(is_excuse).count() + failed;
        let detail = format!("fragment {fragment} has {orphans} orphaned objects, and {excuses} calls explain one");
        if orphans > excuses {
            found.push(("no more orphaned objects than doubtful calls", detail));
        } else if plan.profile != Profile::Chaotic && orphans > deliveries.count() * siblings.len() + failed {
            found.push(("at most one orphaned object while AWS is slow", detail));
        }
    }
    found
}

/// Returns whether a call with one entry stored it.
fn is_stored_once(call: &Call) -> bool {
    call.fate.is_entry_stored(0) && call.deduplicated == 0
}

/// Checks that a FIFO queue without faults keeps the order of a conversation. Diverted fragments do not count.
fn check_order(state: &State, responses: &[Response]) -> Found {
    if responses.iter().any(|response| !response.is_forged && response.status != Some(200)) {
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
