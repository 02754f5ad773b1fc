//! Finds the messages of one run on the catch-all queue and deletes them.

use std::time::{Duration, Instant};

use whatsapp_webhook::routes::CATCH_ALL;

use super::{
    error::QueueError,
    queue::{LONG_POLL, MAX_BATCH, Queue, client},
    stack_queues::ReceivedMessage,
};
use crate::aws::stack_info::StackInfo;

/// Limits of a search: the queue can hold the messages of two weeks.
const SEARCH_TIMEOUT: Duration = Duration::from_mins(1);
const MAX_SEEN: usize = 5_000;
/// Longer than [`SEARCH_TIMEOUT`], so a search receives no message twice. If the process is killed, messages reappear after
/// this time.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(90);
/// The queue counts as empty after this many consecutive empty receive calls.
const MAX_EMPTY_RECEIVES: usize = 2;
/// Receives after all expected messages were found, to find messages that should not have been stored.
const EXTRA_RECEIVES: usize = 2;

/// The queue of everything without a route.
#[derive(Debug)]
pub struct CatchAll(Queue);

/// The result of a search.
#[derive(Debug, Default)]
pub struct Collected {
    /// The run's own messages.
    pub found: Vec<ReceivedMessage>,
    /// The number of received messages.
    pub seen: usize,
    /// The number of own messages that were not deleted.
    pub undeleted: usize,
}

impl CatchAll {
    /// The catch-all queue of a stack, if it has one.
    #[must_use]
    pub fn of(stack: &StackInfo) -> Option<Self> {
        Some(Self(Queue::new(&client(stack), stack.queue_urls.get(CATCH_ALL)?)))
    }

    /// Finds and deletes messages whose body contains `mark`, until it has `expected` of them and after that for a few
    /// more receives. Hides the other messages meanwhile, and then shows them again.
    pub async fn collect(&self, mark: &str, expected: usize) -> Result<Collected, QueueError> {
        let mut collected = Collected::default();
        let mut others = Vec::new();
        let searched = self.search(mark, expected, &mut collected, &mut others).await;
        // If the call fails, they are visible when their visibility timeout ends.
        let _ = self.0.hide(&others, Duration::ZERO).await;
        searched.map(|()| collected)
    }

    async fn search(
        &self,
        mark: &str,
        expected: usize,
        collected: &mut Collected,
        others: &mut Vec<String>,
    ) -> Result<(), QueueError> {
        let end = Instant::now() + SEARCH_TIMEOUT;
        let (mut empty, mut more) = (0, 0);
        while empty < MAX_EMPTY_RECEIVES && more < EXTRA_RECEIVES && collected.seen < MAX_SEEN && Instant::now() < end {
            more += usize::from(collected.found.len() >= expected);
            let messages = self.0.receive(MAX_BATCH, VISIBILITY_TIMEOUT, LONG_POLL).await?;
            empty = if messages.is_empty() { empty + 1 } else { 0 };
            for message in messages {
                collected.seen += 1;
                let receipt = message.receipt_handle.clone().unwrap_or_default();
                if message.body.as_deref().is_some_and(|body| body.contains(mark)) {
                    let undeleted = self.0.delete(&[&receipt]).await;
                    collected.undeleted += undeleted.map_or(1, |left| left.len());
                    collected.found.push(ReceivedMessage::new("unrouted", message));
                } else {
                    others.push(receipt);
                }
            }
        }
        Ok(())
    }
}
