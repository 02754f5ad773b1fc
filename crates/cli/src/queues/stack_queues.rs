//! The queues that the function of a stack writes to.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use aws_sdk_sqs::types::Message;
use futures_util::future::try_join_all;

use super::{
    error::QueueError,
    pass::{self, Unseen},
    queue::{Counts, MAX_BATCH, Queue, queue_name, sqs_client},
};
use crate::aws::stack_info::StackInfo;

/// Longer than a run takes, so that each message is received once and never moves to the dead-letter queue.
const VISIBILITY_TIMEOUT: Duration = Duration::from_hours(1);

/// The queues of a stack, with the receipts of the messages to release.
#[derive(Debug)]
pub struct StackQueues {
    pub(crate) all: Vec<RoutedQueue>,
}

#[derive(Debug)]
pub(crate) struct RoutedQueue {
    pub(crate) queue: Queue,
    /// The queue's name without the prefix of the stack.
    pub(crate) label: String,
    pub(crate) routes: Vec<String>,
    /// The receipt handles of the messages that are not released yet.
    receipts: Vec<String>,
}

/// A message that was received.
#[derive(Debug, Clone)]
pub struct ReceivedMessage {
    /// The queue's name without the prefix of the stack.
    pub queue: String,
    /// The body.
    pub body: String,
    /// The attributes whose values are strings.
    pub attributes: BTreeMap<String, String>,
}

impl StackQueues {
    /// Lists the queues that a stack's function writes to, in the order of their names.
    #[must_use]
    pub fn of(stack: &StackInfo) -> Self {
        let (client, prefix) = (sqs_client(stack), format!("{}-", stack.stack));
        let mut all: Vec<RoutedQueue> = Vec::new();
        let urls = stack.queue_urls();
        for (route, url) in urls.iter().flat_map(|(route, urls)| urls.iter().map(move |url| (*route, *url))) {
            if let Some(queue) = all.iter_mut().find(|queue| queue.queue.url == *url) {
                queue.routes.push(route.to_owned());
                continue;
            }
            let label = queue_name(url).strip_prefix(&prefix).unwrap_or(queue_name(url)).to_owned();
            let routes = vec![route.to_owned()];
            all.push(RoutedQueue { queue: Queue::new(&client, url), label, routes, receipts: Vec::new() });
        }
        all.sort_by(|one, other| one.label.cmp(&other.label));
        Self { all }
    }

    /// Whether the stack has this route.
    #[must_use]
    pub fn has_route(&self, route: &str) -> bool {
        self.queues_of(route).next().is_some()
    }

    /// Returns the names of a route's queues, without the prefix of the stack.
    pub fn queues_of(&self, route: &str) -> impl Iterator<Item = &str> {
        let has_route = move |queue: &&RoutedQueue| queue.routes.iter().any(|name| name == route);
        self.all.iter().filter(has_route).map(|queue| queue.label.as_str())
    }

    /// Receives the visible messages of all queues, and hides them until [`Self::release`].
    ///
    /// On a FIFO queue this blocks the groups of the messages until then. By default the template creates standard queues.
    pub async fn receive_all(&mut self) -> Result<Vec<ReceivedMessage>, QueueError> {
        let received = try_join_all(self.all.iter().map(|queue| receive_all(&queue.queue))).await?;
        let mut messages = Vec::new();
        for (queue, received) in self.all.iter_mut().zip(received) {
            for message in received {
                queue.receipts.push(message.receipt_handle.clone().unwrap_or_default());
                messages.push(ReceivedMessage::new(&queue.label, message));
            }
        }
        Ok(messages)
    }

    /// Makes every received message visible to consumers again.
    pub async fn release(&mut self) -> Result<(), QueueError> {
        for queue in &mut self.all {
            queue.queue.release(&queue.receipts).await?;
            queue.receipts.clear();
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
        // Only a local AWS is read in this way. A lost response fails the comparison with the expected messages.
        let messages =
            pass::receive(queue, MAX_BATCH, VISIBILITY_TIMEOUT, Duration::ZERO, &mut Unseen::default()).await?;
        if messages.is_empty() {
            return Ok(all);
        }
        all.extend(messages);
    }
}
