//! Finds the messages of one `verify` run on the catch-all queue and deletes them.

use std::time::{Duration, Instant};

use super::{
    error::QueueError,
    queue::{LONG_POLL, MAX_BATCH, Queue, sqs_client},
    stack_queues::ReceivedMessage,
};
use crate::aws::stack_info::StackInfo;

/// Limits of a search, because the queue can hold the messages of two weeks.
const SEARCH_TIMEOUT: Duration = Duration::from_mins(1);
const MAX_RECEIVED: usize = 5_000;
/// Longer than [`SEARCH_TIMEOUT`], so a search receives no message twice. If the process is killed, messages reappear after
/// this time.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(90);
/// The queue counts as empty after this many consecutive empty receive calls.
const MAX_EMPTY_RECEIVES: usize = 2;
/// Receives after all expected messages were found, to find messages that should not have been stored.
const EXTRA_RECEIVES: usize = 2;

/// The queue of all messages without a route.
#[derive(Debug)]
pub struct CatchAllQueue(Queue);

/// The result of a search.
#[derive(Debug, Default)]
pub struct SearchResult {
    /// The messages with the marker of the run.
    pub found: Vec<ReceivedMessage>,
    /// The number of received messages.
    pub received: usize,
    /// The number of messages in `found` that could not be deleted.
    pub not_deleted: usize,
}

impl CatchAllQueue {
    /// Returns the catch-all queue of a stack.
    #[must_use]
    pub fn of(stack: &StackInfo) -> Self {
        Self(Queue::new(&sqs_client(stack), &stack.routes.catch_all().url))
    }

    /// Finds and deletes the messages whose body contains `marker`.
    ///
    /// Stops a few receives after it found `expected` of them. Other messages are hidden until then.
    pub async fn find_and_delete(&self, marker: &str, expected: usize) -> Result<SearchResult, QueueError> {
        let mut result = SearchResult::default();
        let mut others = Vec::new();
        let searched = self.search(marker, expected, &mut result, &mut others).await;
        // If the call fails, they are visible when their visibility timeout ends.
        let _ = self.0.change_visibility(&others, Duration::ZERO).await;
        searched.map(|()| result)
    }

    async fn search(
        &self,
        marker: &str,
        expected: usize,
        result: &mut SearchResult,
        others: &mut Vec<String>,
    ) -> Result<(), QueueError> {
        let deadline = Instant::now() + SEARCH_TIMEOUT;
        let (mut empty_receives, mut extra_receives) = (0, 0);
        while empty_receives < MAX_EMPTY_RECEIVES
            && extra_receives < EXTRA_RECEIVES
            && result.received < MAX_RECEIVED
            && Instant::now() < deadline
        {
            extra_receives += usize::from(result.found.len() >= expected);
            let messages = self.0.receive(MAX_BATCH, VISIBILITY_TIMEOUT, LONG_POLL).await?;
            empty_receives = if messages.is_empty() { empty_receives + 1 } else { 0 };
            for message in messages {
                result.received += 1;
                let receipt = message.receipt_handle.clone().unwrap_or_default();
                if message.body.as_deref().is_some_and(|body| body.contains(marker)) {
                    let not_deleted = self.0.delete(&[&receipt]).await;
                    result.not_deleted += not_deleted.map_or(1, |indices| indices.len());
                    result.found.push(ReceivedMessage::new("unrouted", message));
                } else {
                    others.push(receipt);
                }
            }
        }
        Ok(())
    }
}
