//! Finds a run's own messages among those on the catch-all queue, and takes no others away.

use std::time::{Duration, Instant};

use whatsapp_webhook::routes::CATCH_ALL;

use super::{
    error::QueueError,
    queue::{MAX_BATCH, Queue, client},
    stack_queues::ReceivedMessage,
};
use crate::aws::stack_info::StackInfo;

/// How long, and how far, to look: the queue may hold two weeks of what nobody has routed.
const LONGEST: Duration = Duration::from_mins(1);
const MOST: usize = 5_000;
/// Longer than the search, so that it sees no message twice; should it be interrupted, they are back after this.
const HIDDEN: Duration = Duration::from_secs(90);
/// Long enough that SQS queries all of its servers.
const WAIT: Duration = Duration::from_secs(1);
/// Receives in a row that get nothing before the queue counts as empty.
const EMPTY_IN_A_ROW: usize = 2;
/// Receives after everything expected was found: for what was stored and should not have been.
const MORE: usize = 2;

/// The queue where everything lands that has no route.
#[derive(Debug)]
pub struct CatchAll(Queue);

/// What was found.
#[derive(Debug, Default)]
pub struct Collected {
    /// The run's own messages.
    pub found: Vec<ReceivedMessage>,
    /// How many messages were looked at.
    pub seen: usize,
    /// Own messages that are still there.
    pub undeleted: usize,
}

impl CatchAll {
    /// That of a stack, if it has one.
    #[must_use]
    pub fn of(stack: &StackInfo) -> Option<Self> {
        Some(Self(Queue::new(&client(stack), stack.queue_urls.get(CATCH_ALL)?)))
    }

    /// Looks for messages whose bodies have `mark` in them until there are `expected` of them, and a little on;
    /// deletes them. The others, which are hidden meanwhile, are put back.
    pub async fn collect(&self, mark: &str, expected: usize) -> Result<Collected, QueueError> {
        let mut collected = Collected::default();
        let mut others = Vec::new();
        let searched = self.search(mark, expected, &mut collected, &mut others).await;
        // What cannot be put back now is back soon in any case.
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
        let end = Instant::now() + LONGEST;
        let (mut empty, mut more) = (0, 0);
        while empty < EMPTY_IN_A_ROW && more < MORE && collected.seen < MOST && Instant::now() < end {
            more += usize::from(collected.found.len() >= expected);
            let messages = self.0.receive(MAX_BATCH, HIDDEN, WAIT).await?;
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
