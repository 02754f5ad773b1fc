//! The queues and their messages.

use super::entry::Entry;
use crate::ids::new_id;
use std::collections::HashMap;
use std::ops::Deref;
use std::time::{Duration, Instant};

/// The default `MaximumMessageSize` of a queue and the limit of a batch, in bytes, attributes included.
pub(super) const MAX_MESSAGE_SIZE: usize = 1_048_576;

/// How long SQS ignores messages with the same deduplication id.
const DEDUPLICATION_INTERVAL: Duration = Duration::from_mins(5);

/// A stored message.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Message {
    /// The content. `Message` dereferences to it.
    pub entry: Entry,
    /// The id that the fake generated.
    pub message_id: String,
    /// The [number](crate::Call::number) of the call that sent it.
    pub call: usize,
    /// When it was stored.
    pub stored_at: Instant,
}

impl Deref for Message {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

/// All queues by name.
pub(crate) type Queues = HashMap<String, QueueState>;

/// The state of one queue.
#[derive(Debug)]
pub(crate) struct QueueState {
    pub(super) is_fifo: bool,
    pub(crate) maximum_message_size: usize,
    pub(crate) messages: Vec<Message>,
    /// Time and result of each stored message by its deduplication id, on a FIFO queue only.
    results: HashMap<String, (Instant, StoreResult)>,
    sequence: u64,
}

/// The result of storing a message. A duplicate gets the result of the stored message.
#[derive(Debug, Clone)]
pub(super) struct StoreResult {
    pub(super) message_id: String,
    pub(super) sequence_number: Option<String>,
}

impl QueueState {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            is_fifo: name.rsplit_once('.').is_some_and(|(_, suffix)| suffix == "fifo"),
            maximum_message_size: MAX_MESSAGE_SIZE,
            messages: Vec::new(),
            results: HashMap::new(),
            sequence: 0,
        }
    }

    /// Stores a message. For a duplicate on a FIFO queue, returns the result of the stored message instead.
    pub(super) fn store(&mut self, entry: Entry, call: usize) -> StoreResult {
        let now = Instant::now();
        let id = entry.deduplication_id.clone().filter(|_| self.is_fifo);
        if let Some((at, result)) = id.as_ref().and_then(|id| self.results.get(id))
            && now.duration_since(*at) < DEDUPLICATION_INTERVAL
        {
            return result.clone();
        }
        self.sequence += 1;
        let result = StoreResult {
            message_id: new_id(),
            sequence_number: self.is_fifo.then(|| format!("188{:017}", self.sequence)),
        };
        if let Some(id) = id {
            self.results.insert(id, (now, result.clone()));
        }
        let message_id = result.message_id.clone();
        self.messages.push(Message { entry, message_id, call, stored_at: now });
        result
    }
}
