//! Which calls go wrong: the faults in force, and how often each fires.

use crate::call::Service;
use crate::fault::{Fault, Kind};
use crate::lock::lock;
use crate::sqs::{Entry, Refusal};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// In how many of the calls that it could hit a fault does.
#[non_exhaustive]
pub enum Times {
    /// In the next one.
    Once,
    /// In the next so many.
    Next(usize),
    /// In all, until it is cleared.
    Always,
    /// In each with this probability, by a generator that the seed makes repeatable.
    Chance {
        /// From 0 to 1.
        probability: f64,
        /// Two faults with one seed hit the same calls.
        seed: u64,
    },
    /// In those that the test chooses.
    When(Box<dyn Fn(&Incoming<'_>) -> bool + Send + Sync>),
}

impl Times {
    /// In those calls that the test chooses.
    pub fn when(choose: impl Fn(&Incoming<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self::When(Box::new(choose))
    }
}

impl fmt::Debug for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Once => f.write_str("Once"),
            Self::Next(left) => write!(f, "Next({left})"),
            Self::Always => f.write_str("Always"),
            Self::Chance { probability, seed } => write!(f, "Chance({probability}, seed {seed})"),
            Self::When(_) => f.write_str("When(…)"),
        }
    }
}

/// A call as a fault's [`Times::When`] sees it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Incoming<'a> {
    /// The service.
    pub service: Service,
    /// The operation, as `SendMessageBatch`.
    pub operation: &'a str,
    /// The connection that brought it, counted from 1, as [`crate::Call::connection`].
    pub connection: u64,
    /// The queue's name, where the call names one.
    pub queue: Option<&'a str>,
    /// What a call to SQS wants to send.
    pub entries: &'a [Entry],
    /// Which of the calls that this fault could hit it is, from 1.
    pub nth: usize,
}

/// A fault that is in force: how often it fired, and the end of it.
#[derive(Debug, Clone, Default)]
pub struct FaultHandle {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    fired: AtomicUsize,
    cleared: AtomicBool,
}

impl FaultHandle {
    /// How many calls it has hit.
    #[must_use]
    pub fn fired(&self) -> usize {
        self.counts.fired.load(Ordering::Relaxed)
    }

    /// Ends it.
    pub fn clear(&self) {
        self.counts.cleared.store(true, Ordering::Relaxed);
    }

    fn is_cleared(&self) -> bool {
        self.counts.cleared.load(Ordering::Relaxed)
    }
}

/// What a fault was set on: a service, or one queue of it.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) service: Service,
    pub(crate) queue: Option<String>,
}

/// The faults in force, in the order in which they were set.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    rules: Mutex<Vec<Rule>>,
}

#[derive(Debug)]
struct Rule {
    scope: Scope,
    fault: Fault,
    times: Times,
    chance: fastrand::Rng,
    seen: usize,
    handle: FaultHandle,
}

impl Rules {
    pub(crate) fn add(&self, scope: Scope, fault: Fault, times: Times) -> FaultHandle {
        let handle = FaultHandle::default();
        let seed = if let Times::Chance { seed, .. } = times { seed } else { 0 };
        let chance = fastrand::Rng::with_seed(seed);
        lock(&self.rules).push(Rule { scope, fault, times, chance, seen: 0, handle: handle.clone() });
        handle
    }

    pub(crate) fn clear(&self) {
        lock(&self.rules).clear();
    }

    /// The fault for a call of which only the headers are known.
    pub(crate) fn pick_unread(&self, service: Service, operation: &str, connection: u64) -> Option<Fault> {
        self.pick_of(&Incoming { service, operation, connection, queue: None, entries: &[], nth: 0 }, true)
    }

    /// The fault for a call that has been read.
    pub(crate) fn pick(&self, call: &Incoming<'_>) -> Option<Fault> {
        self.pick_of(call, false)
    }

    fn pick_of(&self, call: &Incoming<'_>, unread: bool) -> Option<Fault> {
        let mut rules = lock(&self.rules);
        rules.retain(|rule| !rule.handle.is_cleared() && !matches!(rule.times, Times::Next(0)));
        let rule = rules
            .iter_mut()
            .filter(|rule| unread == matches!(rule.fault.kind, Kind::DropUnread))
            .find_map(|rule| rule.fires(call).then_some(rule))?;
        rule.handle.counts.fired.fetch_add(1, Ordering::Relaxed);
        Some(rule.fault.clone())
    }
}

impl Rule {
    fn fires(&mut self, call: &Incoming<'_>) -> bool {
        if !self.could_hit(call) {
            return false;
        }
        self.seen += 1;
        match &mut self.times {
            Times::Once => {
                self.times = Times::Next(0);
                true
            }
            Times::Next(left) => {
                let fires = *left > 0;
                *left = left.saturating_sub(1);
                fires
            }
            Times::Always => true,
            Times::Chance { probability, .. } => self.chance.f64() < *probability,
            Times::When(choose) => choose(&Incoming { nth: self.seen, ..call.clone() }),
        }
    }

    fn could_hit(&self, call: &Incoming<'_>) -> bool {
        let in_scope = self.scope.service == call.service
            && self.scope.queue.as_deref().is_none_or(|queue| call.queue == Some(queue));
        in_scope
            && match &self.fault.kind {
                Kind::Refuse(Refusal { entries, .. }) | Kind::StoreLate(_, Some(entries)) => {
                    entries.includes_any(call.entries)
                }
                _ => true,
            }
    }
}
