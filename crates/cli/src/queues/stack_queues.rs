//! The queues that the function of a stack writes to.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use aws_sdk_sqs::types::Message;
use futures_util::future::try_join_all;

use super::{
    error::QueueError,
    queue::{Counts, MAX_BATCH, Queue, client, name},
};
use crate::aws::stack_info::StackInfo;

/// Far longer than a run takes: each message is received once, and so never moves to the dead-letter queue.
const HIDDEN: Duration = Duration::from_hours(1);

/// The queues of a stack, and the received messages that have to be released.
#[derive(Debug)]
pub struct Queues {
    pub(crate) all: Vec<RoutedQueue>,
}

#[derive(Debug)]
pub(crate) struct RoutedQueue {
    pub(crate) queue: Queue,
    /// The queue's name without the stack's.
    pub(crate) label: String,
    pub(crate) routes: Vec<String>,
    received: Vec<String>,
}

/// A message that was received.
#[derive(Debug, Clone)]
pub struct ReceivedMessage {
    /// The queue's name without the stack's.
    pub queue: String,
    /// The body.
    pub body: String,
    /// The attributes that are strings.
    pub attributes: BTreeMap<String, String>,
}

impl Queues {
    /// The queues that a stack's function writes to, by name.
    #[must_use]
    pub fn of(stack: &StackInfo) -> Self {
        let (client, prefix) = (client(stack), format!("{}-", stack.stack));
        let mut all: Vec<RoutedQueue> = Vec::new();
        for (route, url) in &stack.queue_urls {
            if let Some(queue) = all.iter_mut().find(|queue| queue.queue.url == *url) {
                queue.routes.push(route.clone());
                continue;
            }
            let label = name(url).strip_prefix(&prefix).unwrap_or(name(url)).to_owned();
            let routes = vec![route.clone()];
            all.push(RoutedQueue { queue: Queue::new(&client, url), label, routes, received: Vec::new() });
        }
        all.sort_by(|one, other| one.label.cmp(&other.label));
        Self { all }
    }

    /// Whether the stack has this route.
    #[must_use]
    pub fn has_route(&self, route: &str) -> bool {
        self.queue_of(route).is_some()
    }

    /// The name of a route's queue, without the stack's name.
    #[must_use]
    pub fn queue_of(&self, route: &str) -> Option<&str> {
        let has_route = |queue: &&RoutedQueue| queue.routes.iter().any(|name| name == route);
        self.all.iter().find(has_route).map(|queue| queue.label.as_str())
    }

    /// Receives the visible messages of all queues, and hides them until [`Self::release`].
    ///
    /// On a FIFO queue this blocks the groups of the messages until then. By default the template creates standard queues.
    pub async fn receive_all(&mut self) -> Result<Vec<ReceivedMessage>, QueueError> {
        let received = try_join_all(self.all.iter().map(|queue| receive_all(&queue.queue))).await?;
        let mut messages = Vec::new();
        for (queue, received) in self.all.iter_mut().zip(received) {
            for message in received {
                queue.received.push(message.receipt_handle.clone().unwrap_or_default());
                messages.push(ReceivedMessage::new(&queue.label, message));
            }
        }
        Ok(messages)
    }

    /// Shows every received message to consumers again.
    pub async fn release(&mut self) -> Result<(), QueueError> {
        for queue in &mut self.all {
            queue.queue.hide(&queue.received, Duration::ZERO).await?;
            queue.received.clear();
        }
        Ok(())
    }

    /// Returns the message counts of each queue, in the order of their names.
    pub async fn counts(&self) -> Result<Vec<Counts>, QueueError> {
        let counts = try_join_all(self.all.iter().map(|queue| queue.queue.counts())).await?;
        Ok(counts.into_iter().map(|(counts, _)| counts).collect())
    }
}

impl ReceivedMessage {
    pub(crate) fn new(queue: &str, message: Message) -> Self {
        let attributes = message.message_attributes.unwrap_or_default().into_iter();
        Self {
            queue: queue.to_owned(),
            body: message.body.unwrap_or_default(),
            attributes: attributes.filter_map(|(name, value)| Some((name, value.string_value?))).collect(),
        }
    }
}

async fn receive_all(queue: &Queue) -> Result<Vec<Message>, QueueError> {
    let mut all = Vec::new();
    loop {
        let messages = queue.receive(MAX_BATCH, HIDDEN, Duration::ZERO).await?;
        if messages.is_empty() {
            return Ok(all);
        }
        all.extend(messages);
    }
}
