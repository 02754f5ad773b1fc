//! Finds a run's own messages among those on the catch-all queue, and takes no others away.

use std::time::{Duration, Instant};

use aws_sdk_sqs::{
    Client,
    types::{ChangeMessageVisibilityBatchRequestEntry, Message},
};

use crate::{
    facts::Facts,
    queues::{Landed, MOST_AT_ONCE, QueueError, client, failed},
};

/// How long, and how far, to look: the queue may hold two weeks of what nobody has routed.
const LONGEST: Duration = Duration::from_mins(1);
const MOST: usize = 5_000;
/// Longer than the search, so that it sees no message twice; should it be interrupted, they are back after this.
const HIDDEN_SECONDS: i32 = 90;
/// A receive that waits asks all of SQS's servers, not some.
const WAIT_SECONDS: i32 = 1;
/// Receives in a row that get nothing before the queue counts as empty.
const EMPTY_IN_A_ROW: usize = 2;
/// Receives after everything expected was found: for what was stored and should not have been.
const MORE: usize = 2;

/// The queue where everything lands that has no route.
#[derive(Debug)]
pub struct CatchAll {
    client: Client,
    url: String,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Collected {
    /// The run's own messages.
    pub found: Vec<Landed>,
    /// How many messages were looked at.
    pub seen: usize,
    /// Own messages that are still there.
    pub undeleted: usize,
}

impl CatchAll {
    /// That of a stack, if it has one.
    #[must_use]
    pub fn of(stack: &Facts) -> Option<Self> {
        Some(Self { client: client(stack), url: stack.queue_urls.get("*")?.clone() })
    }

    /// Looks for messages whose bodies have `mark` in them until there are `expected` of them, and a little on;
    /// deletes them. The others, which are hidden meanwhile, are put back.
    pub async fn collect(&self, mark: &str, expected: usize) -> Result<Collected, QueueError> {
        let mut collected = Collected::default();
        let mut others = Vec::new();
        let searched = self.search(mark, expected, &mut collected, &mut others).await;
        self.give_back(others).await;
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
            let messages = self.receive().await?;
            empty = if messages.is_empty() { empty + 1 } else { 0 };
            for message in messages {
                collected.seen += 1;
                let receipt = message.receipt_handle.clone().unwrap_or_default();
                if message.body.as_deref().is_some_and(|body| body.contains(mark)) {
                    let deletion = self.client.delete_message().queue_url(&self.url).receipt_handle(receipt);
                    collected.undeleted += usize::from(deletion.send().await.is_err());
                    collected.found.push(Landed::new("unrouted", message));
                } else {
                    others.push(receipt);
                }
            }
        }
        Ok(())
    }

    async fn receive(&self) -> Result<Vec<Message>, QueueError> {
        let receive = self.client.receive_message().queue_url(&self.url).message_attribute_names("All");
        let receive = receive.max_number_of_messages(MOST_AT_ONCE).visibility_timeout(HIDDEN_SECONDS);
        let received = receive.wait_time_seconds(WAIT_SECONDS).send().await;
        Ok(received.map_err(failed("receive from", "the catch-all queue"))?.messages.unwrap_or_default())
    }

    /// What cannot be put back now is back soon in any case.
    async fn give_back(&self, receipts: Vec<String>) {
        for batch in receipts.chunks(10) {
            let entries = batch.iter().enumerate().filter_map(|(id, receipt)| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id.to_string());
                entry.receipt_handle(receipt).visibility_timeout(0).build().ok()
            });
            let change = self.client.change_message_visibility_batch().queue_url(&self.url);
            if change.set_entries(Some(entries.collect())).send().await.is_err() {
                return;
            }
        }
    }
}
