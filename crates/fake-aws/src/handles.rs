//! What a test holds of an account: its services, queues and buckets.

use crate::call::Service;
use crate::fault::Fault;
use crate::ids::ACCOUNT;
use crate::lock::lock;
use crate::rules::{FaultHandle, Scope, Times};
use crate::s3::Object;
use crate::sqs::{Message, Stored};
use crate::state::State;
use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

/// One service of a [`crate::FakeAws`].
#[derive(Debug)]
pub struct ServiceHandle {
    pub(crate) service: Service,
    pub(crate) state: Arc<State>,
}

impl ServiceHandle {
    /// Injects a fault into the calls of this service; see [`Times`] for how often. Earlier faults go first.
    #[allow(clippy::must_use_candidate, reason = "the count of a fault is only sometimes of interest")]
    pub fn fault(&self, fault: Fault, times: Times) -> FaultHandle {
        self.state.rules.add(Scope { service: self.service, queue: None }, fault, times)
    }

    /// Delays every response by this time. The effect of the call is immediate.
    pub fn set_latency(&self, latency: Duration) {
        self.state.set_latency(self.service, latency);
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

    /// All stored messages, in the order of storing.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.with(|queue| queue.messages.clone())
    }

    /// Takes all messages out of it, so that a long run does not pile them up.
    #[must_use]
    pub fn take_messages(&self) -> Vec<Message> {
        self.with(|queue| mem::take(&mut queue.messages))
    }

    /// Sets the `MaximumMessageSize` of the queue in bytes. It limits body and attributes together.
    pub fn set_maximum_message_size(&self, bytes: usize) {
        self.with(|queue| queue.maximum_message_size = bytes);
    }

    /// Deletes the queue with its messages. Later calls fail with `QueueDoesNotExist`.
    pub fn delete(&self) {
        lock(&self.state.queues).remove(&self.name);
    }

    /// Injects a fault into the calls to this queue; see [`Times`] for how often. Earlier faults go first.
    #[allow(clippy::must_use_candidate, reason = "the count of a fault is only sometimes of interest")]
    pub fn fault(&self, fault: Fault, times: Times) -> FaultHandle {
        self.state.rules.add(Scope { service: Service::Sqs, queue: Some(self.name.clone()) }, fault, times)
    }

    fn with<T: Default>(&self, look: impl FnOnce(&mut Stored) -> T) -> T {
        lock(&self.state.queues).get_mut(&self.name).map(look).unwrap_or_default()
    }
}

/// One bucket of a [`crate::FakeAws`].
#[derive(Debug)]
pub struct Bucket {
    state: Arc<State>,
    name: String,
}

impl Bucket {
    pub(crate) fn open(state: Arc<State>, name: &str) -> Self {
        lock(&state.buckets).entry(name.to_owned()).or_default();
        Self { state, name: name.to_owned() }
    }

    /// All objects, by key.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, Object> {
        lock(&self.state.buckets).get(&self.name).cloned().unwrap_or_default()
    }

    /// The object at a key.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<Object> {
        lock(&self.state.buckets).get(&self.name)?.get(key).cloned()
    }

    /// Deletes the bucket with all that is in it; calls to it fail with `NoSuchBucket` from then on.
    pub fn delete(&self) {
        lock(&self.state.buckets).remove(&self.name);
    }
}
