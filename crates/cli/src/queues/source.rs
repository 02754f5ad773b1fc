//! One queue as its readers call it: receive, hide or show again, delete.

use std::time::Duration;

use aws_sdk_sqs::{
    Client,
    types::{
        ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName,
    },
};

use crate::{
    aws::stack_info::StackInfo,
    queues::stack_queues::{MOST_AT_ONCE, QueueError, client, failed},
};

/// A receive that waits asks all of SQS's servers, not some.
const WAIT_SECONDS: i32 = 1;

/// A queue that is read.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Source {
    pub(crate) fn new(stack: &StackInfo, url: &str) -> Self {
        Self { client: client(stack), url: url.to_owned(), name: name(url).to_owned() }
    }

    pub(crate) fn is_fifo(&self) -> bool {
        is_fifo(&self.url)
    }

    /// Receives at most this many messages with all that SQS tells of them, and hides them for so long.
    pub(crate) async fn receive(&self, most: i32, hidden: Duration) -> Result<Vec<Message>, QueueError> {
        let receive = self.client.receive_message().queue_url(&self.url).message_attribute_names("All");
        let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
        let receive = receive.max_number_of_messages(most.min(MOST_AT_ONCE)).visibility_timeout(seconds(hidden));
        let received = receive.wait_time_seconds(WAIT_SECONDS).send().await;
        Ok(received.map_err(failed("receive from", &self.name))?.messages.unwrap_or_default())
    }

    /// Hides messages for so long from now on; for no time, which shows them again.
    ///
    /// Of a message that is deleted or shown already, SQS says so, and nothing is wrong with that.
    pub(crate) async fn hide(&self, receipts: &[String], hidden: Duration) -> Result<(), QueueError> {
        for batch in receipts.chunks(usize::try_from(MOST_AT_ONCE).unwrap_or(1)) {
            let entries = batch.iter().enumerate().filter_map(|(id, receipt)| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id.to_string());
                entry.receipt_handle(receipt).visibility_timeout(seconds(hidden)).build().ok()
            });
            let change = self.client.change_message_visibility_batch().queue_url(&self.url);
            let changed = change.set_entries(Some(entries.collect())).send().await;
            changed.map_err(failed("hide or show messages of", &self.name))?;
        }
        Ok(())
    }

    /// Deletes at most ten messages; gives the places of those that are still there.
    pub(crate) async fn delete(&self, receipts: &[&str]) -> Result<Vec<usize>, QueueError> {
        let entries = receipts.iter().enumerate().filter_map(|(id, receipt)| {
            DeleteMessageBatchRequestEntry::builder().id(id.to_string()).receipt_handle(*receipt).build().ok()
        });
        let deletion = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries.collect()));
        let done = deletion.send().await.map_err(failed("delete from", &self.name))?;
        let deleted: Vec<usize> = done.successful().iter().filter_map(|entry| entry.id().parse().ok()).collect();
        Ok((0..receipts.len()).filter(|place| !deleted.contains(place)).collect())
    }
}

/// The last segment of a queue's URL.
pub(crate) fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// The URL of the queue of this name beside another.
pub(crate) fn beside(url: &str, name: &str) -> String {
    url.rsplit_once('/').map_or_else(|| name.to_owned(), |(account, _)| format!("{account}/{name}"))
}

pub(crate) fn is_fifo(url: &str) -> bool {
    url.rsplit_once('.').is_some_and(|(_, suffix)| suffix == "fifo")
}

fn seconds(time: Duration) -> i32 {
    i32::try_from(time.as_secs()).unwrap_or(i32::MAX)
}
