//! Finds the messages of one `verify` run on their own queue and deletes them.
//!
//! The queue belongs to `verify` alone, so that no message of a consumer is received. Each receive counts for SQS: it
//! moves a message to the dead-letter queue, and on a standard queue the metric `ApproximateAgeOfOldestMessage` ignores a
//! message that was [received three times](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};

use super::{
    error::QueueError,
    pass::{self, Unseen},
    queue::{LONG_POLL, MAX_BATCH, Queue, sqs_client},
    resend::system_attribute,
    stack_queues::ReceivedMessage,
};
use crate::aws::stack_info::StackInfo;

/// The route of the queue, and the field of the notifications that `verify` sends.
pub const VERIFY_FIELD: &str = "ingress_verify";

const SEARCH_TIMEOUT: Duration = Duration::from_mins(1);
/// Longer than [`SEARCH_TIMEOUT`], so a search receives no message twice. If the process is killed, messages reappear after
/// this time.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(90);
/// A message older than this belongs to a killed run. The next run deletes it.
const MAX_RUN_TIME: Duration = Duration::from_mins(10);
/// The queue counts as empty after this many consecutive empty receive calls.
const MAX_EMPTY_RECEIVES: usize = 2;
/// Receives after all expected messages were found, to find messages that should not have been stored.
const EXTRA_RECEIVES: usize = 2;

/// The queue of the field [`VERIFY_FIELD`].
#[derive(Debug)]
pub struct VerifyQueue(Queue);

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

impl VerifyQueue {
    /// Returns the queue of the field in a stack, or the reason why notifications must not be sent.
    pub fn of(stack: &StackInfo) -> Result<Self, &'static str> {
        match stack.queue_urls().get(VERIFY_FIELD).map(Vec::as_slice) {
            Some([url]) => Ok(Self(Queue::new(&sqs_client(stack), url))),
            Some(_) => Err("the route ingress_verify has several queues, and each would store the notifications"),
            None => Err("the stack has no queue for the field ingress_verify"),
        }
    }

    /// Checks that the queue exists. The function would store the notifications on the catch-all queue otherwise.
    pub async fn check(&self) -> Result<(), QueueError> {
        self.0.describe().await.map(|_| ())
    }

    /// Finds and deletes the messages whose body contains `marker`, and those of runs that were killed.
    ///
    /// Stops a few receives after it found `expected` of them. Messages of other runs are hidden until then.
    pub async fn find_and_delete(&self, marker: &str, expected: usize) -> Result<SearchResult, QueueError> {
        let mut result = SearchResult::default();
        let mut others = Vec::new();
        let searched = self.search(marker, expected, &mut result, &mut others).await;
        // If the call fails, they are visible when their visibility timeout ends.
        let _ = self.0.release(&others).await;
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
        // Messages of a lost response are reported as not found.
        let mut unseen = Unseen::default();
        while empty_receives < MAX_EMPTY_RECEIVES && extra_receives < EXTRA_RECEIVES && Instant::now() < deadline {
            extra_receives += usize::from(result.found.len() >= expected);
            let messages = pass::receive(&self.0, MAX_BATCH, VISIBILITY_TIMEOUT, LONG_POLL, &mut unseen).await?;
            empty_receives = if messages.is_empty() { empty_receives + 1 } else { 0 };
            for message in messages {
                result.received += 1;
                let receipt = message.receipt_handle.clone().unwrap_or_default();
                if message.body.as_deref().is_some_and(|body| body.contains(marker)) {
                    let not_deleted = self.0.delete(&[&receipt]).await;
                    result.not_deleted += not_deleted.map_or(1, |indices| indices.len());
                    result.found.push(ReceivedMessage::new(&self.0.name, message));
                } else if is_of_killed_run(&message) {
                    // If the call fails, a later run deletes it.
                    let _ = self.0.delete(&[&receipt]).await;
                } else {
                    others.push(receipt);
                }
            }
        }
        Ok(())
    }
}

fn is_of_killed_run(message: &Message) -> bool {
    let sent = system_attribute(message, &MessageSystemAttributeName::SentTimestamp).and_then(|sent| sent.parse().ok());
    let sent = sent.map(|milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds));
    sent.is_some_and(|sent| SystemTime::now().duration_since(sent).is_ok_and(|age| age > MAX_RUN_TIME))
}
