//! Explains copies, answers of 503 and orphaned objects by the fake's record of calls.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use fake_aws::{Call, Object, Service};

/// An answer that takes longer is late, with a fault or without: the function may start a second call.
const LATE_ANSWER: Duration = Duration::from_millis(500);

/// After one of these faults the function cannot store on this queue or in this bucket at all.
const FINAL_FAULTS: [&str; 3] = ["access denied", "queue does not exist", "kms disabled"];

/// One invocation for a delivery.
pub(crate) struct Attempt {
    /// The access key of the function, which signs its calls.
    pub(crate) access_key: String,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    pub(crate) status: u64,
}

/// Faults of a slow service that works.
const SLOW_FAULTS: [&str; 3] = ["slow", "stored late", "entries stored late"];

/// All calls of the run.
pub(crate) struct Causes {
    calls: Vec<Call>,
}

impl Causes {
    /// Takes the calls in the order of their numbers.
    pub(crate) fn new(calls: Vec<Call>) -> Self {
        Self { calls }
    }

    /// Why the function may not know that this call has stored; none if it got the answer in time.
    pub(crate) fn of_uncertainty(&self, call: usize) -> Option<&'static str> {
        let call = &self.calls[call];
        match call.fault {
            Some(fault) if fault.contains("stored") || SLOW_FAULTS.contains(&fault) => Some(fault),
            _ if call.status.is_none() => Some("no answer, without a fault"),
            _ if is_late(call) => Some("late, without a fault"),
            _ => None,
        }
    }

    /// Whether everything could have been stored in the time of this attempt, so that 503 is an error.
    ///
    /// The catch-all queue stores what any other queue does not, and S3 stores what no queue does. So a 503 needs a fault
    /// that is final on one of the two, or at least two faults there: one to fail the call, and one to fail its repetition
    /// or the probe before it.
    pub(crate) fn could_store(&self, attempt: &Attempt) -> bool {
        let last_resort = |call: &&Call| match call.service {
            // The queue of a call that was dropped unread is not known.
            Service::Sqs => call.queue.as_deref().is_none_or(|queue| queue == "unrouted"),
            Service::S3 => true,
            Service::Secrets => false,
        };
        let failed: Vec<_> = self.troubled(attempt).filter(last_resort).collect();
        let is_final = |call: &&Call| call.fault.is_some_and(|fault| FINAL_FAULTS.contains(&fault));
        failed.len() < 2 && !failed.iter().any(is_final)
    }

    /// Whether nothing but slowness happened to the calls of these attempts.
    pub(crate) fn is_only_slow(&self, attempts: &[Attempt]) -> bool {
        let mut troubled = attempts.iter().flat_map(|attempt| self.troubled(attempt));
        troubled.all(|call| call.fault.is_none_or(|fault| SLOW_FAULTS.contains(&fault)))
    }

    /// Calls of an attempt that had a fault, a late answer, or none.
    pub(crate) fn troubled<'c>(&'c self, attempt: &'c Attempt) -> impl Iterator<Item = &'c Call> {
        self.calls.iter().filter(|call| {
            let is_of_attempt = (attempt.started..=attempt.ended).contains(&call.started)
                && call.access_key.as_ref().is_none_or(|key| *key == attempt.access_key);
            is_of_attempt && (call.fault.is_some() || call.status.is_none() || is_late(call))
        })
    }

    /// The objects that no message points to, counted by the attempt that stored them.
    pub(crate) fn orphans<'a>(
        &self,
        objects: &BTreeMap<String, Object>,
        pointed_to: &HashSet<String>,
        attempts: &(impl Iterator<Item = &'a Attempt> + Clone),
    ) -> BTreeMap<Instant, usize> {
        let mut orphans = BTreeMap::new();
        for object in objects.iter().filter(|(key, _)| !pointed_to.contains(*key)).map(|(_, object)| object) {
            let put = &self.calls[object.call];
            let mut attempts = attempts.clone();
            let attempt = attempts.find(|attempt| {
                Some(&attempt.access_key) == put.access_key.as_ref()
                    && (attempt.started..=attempt.ended).contains(&put.started)
            });
            *orphans.entry(attempt.expect("every object was stored by an attempt").started).or_default() += 1;
        }
        orphans
    }
}

fn is_late(call: &Call) -> bool {
    call.took.is_none_or(|took| took > LATE_ANSWER)
}
