//! Explains copies, responses with 503 and orphaned objects by the calls that the fake recorded.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use fake_aws::{Call, Object, Service};

/// After this time without a response the function may start a second call.
const LATE_RESPONSE: Duration = Duration::from_millis(500);

/// Faults that make a queue or bucket unavailable.
const PERMANENT_FAULTS: [&str; 3] = ["access denied", "resource does not exist", "kms disabled"];

/// One invocation with a notification.
///
/// An environment that serves several requests at a time signs their calls with the same key. So a fault of one counts as a
/// possible cause for the others too, and only environments with one request are checked strictly.
pub(crate) struct Attempt {
    /// The access key of the function, which signs its calls.
    pub(crate) access_key: String,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    pub(crate) status: u64,
}

/// Faults of a service that is only slow.
const SLOW_FAULTS: [&str; 3] = ["response delayed", "commit delayed", "entries delayed"];

/// All calls of the run.
pub(crate) struct Causes {
    calls: Vec<Call>,
}

impl Causes {
    /// Expects the calls in the order of their numbers.
    pub(crate) fn new(calls: Vec<Call>) -> Self {
        Self { calls }
    }

    /// Returns why the function may not know that this call was executed. `None` if it received the response in time.
    pub(crate) fn why_unconfirmed(&self, call: usize) -> Option<&'static str> {
        let call = &self.calls[call];
        match call.fault {
            Some(fault) if fault.starts_with("committed") || SLOW_FAULTS.contains(&fault) => Some(fault),
            _ if call.status.is_none() => Some("no response, without a fault"),
            _ if is_late(call) => Some("late, without a fault"),
            _ => None,
        }
    }

    /// Returns whether the function could have stored everything in this attempt, so that a 503 is an error.
    ///
    /// The catch-all queue is the fallback for every queue, and S3 for the catch-all queue. So a 503 needs a permanent fault
    /// of one of the two, or two faults there: one in the call, and one in its retry or in the probe before the retry.
    pub(crate) fn could_store(&self, attempt: &Attempt) -> bool {
        let is_of_fallback = |call: &&Call| match call.service {
            // The queue is unknown if the connection was dropped before the body.
            Service::Sqs => call.queue.as_deref().is_none_or(|queue| queue == "unrouted"),
            Service::S3 => true,
            Service::Secrets => false,
        };
        let failed: Vec<_> = self.affected_calls(attempt).filter(is_of_fallback).collect();
        let is_permanent = |call: &&Call| call.fault.is_some_and(|fault| PERMANENT_FAULTS.contains(&fault));
        failed.len() < 2 && !failed.iter().any(is_permanent)
    }

    /// Returns whether slowness was the only fault in these attempts.
    pub(crate) fn is_only_slow(&self, attempts: &[Attempt]) -> bool {
        let mut affected = attempts.iter().flat_map(|attempt| self.affected_calls(attempt));
        affected.all(|call| call.fault.is_none_or(|fault| SLOW_FAULTS.contains(&fault)))
    }

    /// Returns the calls of an attempt that had a fault, a late response or no response.
    pub(crate) fn affected_calls<'c>(&'c self, attempt: &'c Attempt) -> impl Iterator<Item = &'c Call> {
        self.calls.iter().filter(|call| {
            let is_of_attempt = (attempt.started..=attempt.ended).contains(&call.started)
                && call.access_key.as_ref().is_none_or(|key| *key == attempt.access_key);
            is_of_attempt && (call.fault.is_some() || call.status.is_none() || is_late(call))
        })
    }

    /// Counts the objects without a message by the start of the attempt that stored them.
    pub(crate) fn orphans<'a>(
        &self,
        objects: &BTreeMap<String, Object>,
        pointer_keys: &HashSet<String>,
        attempts: &(impl Iterator<Item = &'a Attempt> + Clone),
    ) -> BTreeMap<Instant, usize> {
        let mut orphans = BTreeMap::new();
        for object in objects.iter().filter(|(key, _)| !pointer_keys.contains(*key)).map(|(_, object)| object) {
            let put = &self.calls[object.call];
            let covers_call = |attempt: &&Attempt| {
                Some(&attempt.access_key) == put.access_key.as_ref()
                    && (attempt.started..=attempt.ended).contains(&put.started)
            };
            // Several, if the environment serves more than one request at a time.
            let attempts = attempts.clone().filter(covers_call);
            let attempt = attempts.max_by_key(|attempt| self.affected_calls(attempt).count());
            *orphans.entry(attempt.expect("every object was stored by an attempt").started).or_default() += 1;
        }
        orphans
    }
}

fn is_late(call: &Call) -> bool {
    call.duration.is_none_or(|duration| duration > LATE_RESPONSE)
}
