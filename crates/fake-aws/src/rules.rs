//! The injected faults, and the selection of the fault for a call.

use crate::call::Service;
use crate::fault::{Fault, FaultKind};
use crate::lock::lock;
use crate::sqs::{Entry, EntryFault};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The calls to which a fault applies.
///
/// A call matches a fault if it goes to the service or queue of the fault. If the fault selects entries, the call must also
/// contain a selected entry. Later faults do not see a call to which a fault applies: it changes neither their
/// [`IncomingCall::nth`] nor what remains of their [`Frequency::Next`].
#[non_exhaustive]
pub enum Frequency {
    /// The next matching call.
    Once,
    /// The next matching calls, as many as this.
    Next(usize),
    /// All matching calls, until the fault is cleared.
    Always,
    /// Each matching call with this probability.
    Random {
        /// From 0 to 1.
        probability: f64,
        /// Two faults with the same seed apply to the same calls.
        seed: u64,
    },
    /// The matching calls for which the predicate returns true.
    When(Box<dyn Fn(&IncomingCall<'_>) -> bool + Send + Sync>),
}

impl Frequency {
    /// Selects the matching calls for which `is_hit` returns true.
    pub fn when(is_hit: impl Fn(&IncomingCall<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self::When(Box::new(is_hit))
    }
}

impl fmt::Debug for Frequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once => f.write_str("Once"),
            Self::Next(count) => write!(f, "Next({count})"),
            Self::Always => f.write_str("Always"),
            Self::Random { probability, seed } => write!(f, "Random({probability}, seed {seed})"),
            Self::When(_) => f.write_str("When(…)"),
        }
    }
}

/// The argument of the predicate of [`Frequency::When`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IncomingCall<'a> {
    /// The service.
    pub service: Service,
    /// The operation, for example `SendMessageBatch`.
    pub operation: &'a str,
    /// The number of its connection, see [`crate::Call::connection`].
    pub connection: u64,
    /// The name of the queue, for calls to SQS.
    pub queue: Option<&'a str>,
    /// The messages in a call to SQS.
    pub entries: &'a [Entry],
    /// The number of this call among the matching calls of the fault, from 1.
    pub nth: usize,
}

/// An injected fault. Dropping the handle does not clear the fault.
#[derive(Debug, Clone, Default)]
pub struct FaultHandle {
    state: Arc<FaultState>,
}

#[derive(Debug, Default)]
struct FaultState {
    fired: AtomicUsize,
    cleared: AtomicBool,
}

impl FaultHandle {
    /// Returns the number of calls to which the fault was applied.
    #[must_use]
    pub fn fired(&self) -> usize {
        self.state.fired.load(Ordering::Relaxed)
    }

    /// Removes the fault.
    pub fn clear(&self) {
        self.state.cleared.store(true, Ordering::Relaxed);
    }

    fn is_cleared(&self) -> bool {
        self.state.cleared.load(Ordering::Relaxed)
    }
}

/// Where a fault was injected: a service, or one queue.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) service: Service,
    pub(crate) queue: Option<String>,
}

/// The injected faults, in the order of injection.
#[derive(Debug, Default)]
pub(crate) struct FaultRules {
    rules: Mutex<Vec<Rule>>,
}

#[derive(Debug)]
struct Rule {
    scope: Scope,
    fault: Fault,
    frequency: Frequency,
    rng: fastrand::Rng,
    matching_calls: usize,
    handle: FaultHandle,
}

impl FaultRules {
    pub(crate) fn add(&self, scope: Scope, fault: Fault, frequency: Frequency) -> FaultHandle {
        let handle = FaultHandle::default();
        let seed = if let Frequency::Random { seed, .. } = frequency { seed } else { 0 };
        let rng = fastrand::Rng::with_seed(seed);
        lock(&self.rules).push(Rule { scope, fault, frequency, rng, matching_calls: 0, handle: handle.clone() });
        handle
    }

    pub(crate) fn clear(&self) {
        lock(&self.rules).clear();
    }

    /// Selects the fault that applies before the body of a call is read.
    pub(crate) fn select_before_body(&self, service: Service, operation: &str, connection: u64) -> Option<Fault> {
        self.select(&IncomingCall { service, operation, connection, queue: None, entries: &[], nth: 0 }, true)
    }

    /// Selects the fault that applies after a call was read.
    pub(crate) fn select_after_body(&self, call: &IncomingCall<'_>) -> Option<Fault> {
        self.select(call, false)
    }

    fn select(&self, call: &IncomingCall<'_>, before_body: bool) -> Option<Fault> {
        let mut rules = lock(&self.rules);
        rules.retain(|rule| !rule.handle.is_cleared() && !matches!(rule.frequency, Frequency::Next(0)));
        let rule = rules
            .iter_mut()
            .filter(|rule| before_body == matches!(rule.fault.kind, FaultKind::DropUnread))
            .find_map(|rule| rule.fires(call).then_some(rule))?;
        rule.handle.state.fired.fetch_add(1, Ordering::Relaxed);
        Some(rule.fault.clone())
    }
}

impl Rule {
    fn fires(&mut self, call: &IncomingCall<'_>) -> bool {
        if !self.matches(call) {
            return false;
        }
        self.matching_calls += 1;
        match &mut self.frequency {
            Frequency::Once => {
                self.frequency = Frequency::Next(0);
                true
            }
            Frequency::Next(remaining) => {
                let fires = *remaining > 0;
                *remaining = remaining.saturating_sub(1);
                fires
            }
            Frequency::Always => true,
            Frequency::Random { probability, .. } => self.rng.f64() < *probability,
            Frequency::When(is_hit) => is_hit(&IncomingCall { nth: self.matching_calls, ..call.clone() }),
        }
    }

    fn matches(&self, call: &IncomingCall<'_>) -> bool {
        let in_scope = self.scope.service == call.service
            && self.scope.queue.as_deref().is_none_or(|queue| call.queue == Some(queue));
        in_scope
            && match &self.fault.kind {
                FaultKind::RejectEntries(EntryFault { entries, .. }) | FaultKind::DelayCommit(_, Some(entries)) => {
                    entries.includes_any(call.entries)
                }
                _ => true,
            }
    }
}
