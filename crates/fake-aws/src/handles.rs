//! Handles for the services, queues and buckets of an account.

use crate::call::Service;
use crate::fault::Fault;
use crate::ids::ACCOUNT;
use crate::lock::lock;
use crate::rules::{FaultHandle, Frequency, Scope};
use crate::s3::Object;
use crate::sqs::{Message, QueueState};
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
    /// Injects a fault into calls to this service, with this frequency. If several faults match a call, the first
    /// one injected applies, but [`Fault::drop_unread`] precedes all others.
    #[allow(clippy::must_use_candidate, reason = "most tests do not need the handle")]
    pub fn inject_fault(&self, fault: Fault, frequency: Frequency) -> FaultHandle {
        self.state.rules.add(Scope { service: self.service, queue: None }, fault, frequency)
    }

    /// Sets the latency of every response. Calls take effect immediately.
    pub fn set_latency(&self, latency: Duration) {
        self.state.set_latency(self.service, latency);
    }
}

/// One queue of a [`crate::FakeAws`], with the limits of SQS. Content-based deduplication is disabled.
#[derive(Debug)]
pub struct Queue {
    state: Arc<State>,
    name: String,
    url: String,
}

impl Queue {
    pub(crate) fn open(state: Arc<State>, endpoint: &str, name: &str) -> Self {
        lock(&state.queues).entry(name.to_owned()).or_insert_with(|| QueueState::new(name));
        Self { state, name: name.to_owned(), url: format!("{endpoint}/{ACCOUNT}/{name}") }
    }

    /// Returns the URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns all messages in the order in which they were stored.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.with_state(|queue| queue.messages.clone())
    }

    /// Removes and returns all messages. The records of calls and of deduplication ids remain.
    #[must_use]
    pub fn take_messages(&self) -> Vec<Message> {
        self.with_state(|queue| mem::take(&mut queue.messages))
    }

    /// Sets the `MaximumMessageSize` of the queue in bytes, which limits the sum of body and attributes.
    pub fn set_maximum_message_size(&self, bytes: usize) {
        self.with_state(|queue| queue.maximum_message_size = bytes);
    }

    /// Deletes the queue with its messages. Later calls fail with `QueueDoesNotExist`.
    pub fn delete(&self) {
        lock(&self.state.queues).remove(&self.name);
    }

    /// Injects a fault into calls to this queue, with this frequency. If several faults match a call, the first
    /// one injected applies, but [`Fault::drop_unread`] of the service precedes all others.
    #[allow(clippy::must_use_candidate, reason = "most tests do not need the handle")]
    pub fn inject_fault(&self, fault: Fault, frequency: Frequency) -> FaultHandle {
        self.state.rules.add(Scope { service: Service::Sqs, queue: Some(self.name.clone()) }, fault, frequency)
    }

    fn with_state<T: Default>(&self, use_state: impl FnOnce(&mut QueueState) -> T) -> T {
        lock(&self.state.queues).get_mut(&self.name).map(use_state).unwrap_or_default()
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

    /// Returns all objects by key.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, Object> {
        lock(&self.state.buckets).get(&self.name).cloned().unwrap_or_default()
    }

    /// Returns the object with this key.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<Object> {
        lock(&self.state.buckets).get(&self.name)?.get(key).cloned()
    }

    /// Deletes the bucket with its objects. Later calls fail with `NoSuchBucket`.
    pub fn delete(&self) {
        lock(&self.state.buckets).remove(&self.name);
    }
}
