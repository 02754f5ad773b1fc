//! Queues and the messages in them.

use super::limits::MAXIMUM_MESSAGE_SIZE;
use super::send::Entry;
use crate::aws::State;
use crate::call::Service;
use crate::fault::Fault;
use crate::rules::{Injected, Scope, Times};
use crate::{ACCOUNT, lock, new_id};
use std::collections::HashMap;
use std::mem;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For how long SQS remembers a deduplication id.
const DEDUPLICATION_INTERVAL: Duration = Duration::from_mins(5);

/// A message that is stored, with what its sender sent.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Message {
    /// What was sent. A message dereferences to it.
    pub entry: Entry,
    /// The id that SQS gave to it.
    pub message_id: String,
    /// The call that brought it, as [`crate::Call::number`].
    pub call: usize,
    /// When it was stored.
    pub stored: Instant,
}

impl Deref for Message {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// All queues, by name.
pub(crate) type Queues = HashMap<String, Stored>;

/// One queue as it is stored.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(super) is_fifo: bool,
    pub(super) maximum_message_size: usize,
    messages: Vec<Message>,
    deduplicated: HashMap<String, (Instant, Receipt)>,
    sequence: u64,
}

/// What a sender is told of its message.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    pub(super) message_id: String,
    pub(super) sequence_number: Option<String>,
}

impl Stored {
    fn new(name: &str) -> Self {
        Self {
            is_fifo: name.rsplit_once('.').is_some_and(|(_, suffix)| suffix == "fifo"),
            maximum_message_size: MAXIMUM_MESSAGE_SIZE,
            messages: Vec::new(),
            deduplicated: HashMap::new(),
            sequence: 0,
        }
    }

    /// Stores a message, or, if a FIFO queue has seen its deduplication id lately, says again what it said then.
    pub(super) fn store(&mut self, entry: Entry, call: usize) -> Receipt {
        let now = Instant::now();
        let id = entry.deduplication_id.clone().filter(|_| self.is_fifo);
        if let Some((at, receipt)) = id.as_ref().and_then(|id| self.deduplicated.get(id))
            && now.duration_since(*at) < DEDUPLICATION_INTERVAL
        {
            return receipt.clone();
        }
        self.sequence += 1;
        let receipt = Receipt {
            message_id: new_id(),
            sequence_number: self.is_fifo.then(|| format!("188{:017}", self.sequence)),
        };
        if let Some(id) = id {
            self.deduplicated.insert(id, (now, receipt.clone()));
        }
        let message_id = receipt.message_id.clone();
        self.messages.push(Message { entry, message_id, call, stored: now });
        receipt
    }
}

/// One queue of a [`crate::FakeAws`], with the limits of SQS and without content-based deduplication.
#[derive(Debug)]
pub struct Queue {
    state: Arc<State>,
    name: String,
    url: String,
}

impl Queue {
    pub(crate) fn open(state: Arc<State>, endpoint: &str, name: &str) -> Self {
        lock(&state.queues).entry(name.to_owned()).or_insert_with(|| Stored::new(name));
        Self { state, name: name.to_owned(), url: format!("{endpoint}/{ACCOUNT}/{name}") }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All messages in it, in the order in which they were stored.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.with(|queue| queue.messages.clone())
    }

    /// Takes all messages out of it, so that a long run does not pile them up.
    #[must_use]
    pub fn take_messages(&self) -> Vec<Message> {
        self.with(|queue| mem::take(&mut queue.messages))
    }

    /// Lowers its `MaximumMessageSize`, which is counted in bytes, body and attributes together.
    pub fn set_maximum_message_size(&self, bytes: usize) {
        self.with(|queue| queue.maximum_message_size = bytes);
    }

    /// Deletes it with all that is in it; calls to it fail with `QueueDoesNotExist` from then on.
    pub fn delete(&self) {
        lock(&self.state.queues).remove(&self.name);
    }

    /// Injects a fault into the calls to this queue; see [`Times`] for how often. Earlier faults go first.
    #[allow(clippy::must_use_candidate, reason = "the count of a fault is only sometimes of interest")]
    pub fn fault(&self, fault: Fault, times: Times) -> Injected {
        self.state.rules.add(Scope { service: Service::Sqs, queue: Some(self.name.clone()) }, fault, times)
    }

    fn with<T: Default>(&self, look: impl FnOnce(&mut Stored) -> T) -> T {
        lock(&self.state.queues).get_mut(&self.name).map(look).unwrap_or_default()
    }
}
