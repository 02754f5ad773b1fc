//! Sends messages to the queues of a replay: in batches, in order, and below a rate.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use aws_sdk_sqs::types::{MessageAttributeValue, SendMessageBatchRequestEntry, SendMessageBatchResultEntry};
use tokio::time::{Instant, sleep_until};
use whatsapp_webhook::{
    aws_error::{ErrorClass, classify, entry_results},
    message::{MAX_MESSAGE_BYTES, Message},
};

use super::{error::ArchiveError, state::NotReplayed};
use crate::queues::{
    error::QueueError,
    pass::wait_to_retry,
    queue::{MAX_BATCH, Queue},
    resend::trace_header,
};

/// Sends messages below a rate.
#[derive(Debug)]
pub(crate) struct Sender {
    rate: u32,
    next_call: Instant,
    /// The number of messages to send alone, because SQS rejected their batch without naming one.
    isolated: usize,
    /// The messages that a queue stored, or the requests that the callback URL accepted.
    pub(crate) sent: usize,
}

impl Sender {
    pub(crate) fn new(rate: u32) -> Self {
        Self { rate, next_call: Instant::now(), isolated: 0, sent: 0 }
    }

    /// Waits until the rate allows a call, and counts its messages.
    pub(crate) async fn wait(&mut self, messages: usize) {
        sleep_until(self.next_call).await;
        let messages = u32::try_from(messages).map_or(f64::MAX, f64::from);
        let interval = Duration::try_from_secs_f64(messages / f64::from(self.rate)).unwrap_or(Duration::MAX);
        self.next_call = Instant::now() + interval;
    }

    /// Returns the maximum number of messages of a call, which is at most that of a second.
    fn max_batch(&self) -> usize {
        if self.isolated > 0 {
            return 1;
        }
        usize::try_from(self.rate.min(MAX_BATCH.unsigned_abs())).unwrap_or(1)
    }

    /// Sends messages in order until the queue stored or rejected each of them. Adds those that it rejected to `not_replayed`.
    ///
    /// A batch for a FIFO queue has one message of each group, so that none overtakes one that is not stored.
    pub(crate) async fn send_all(
        &mut self,
        queue: &Queue,
        mut messages: Vec<Message>,
        not_replayed: &mut NotReplayed,
        stop: &AtomicBool,
    ) -> Result<(), ArchiveError> {
        let mut retries = 0;
        while !messages.is_empty() {
            if stop.load(Ordering::Relaxed) {
                return Err(ArchiveError::Interrupted);
            }
            let (batch, rest) = take_batch(messages, self.max_batch(), queue.is_fifo());
            self.wait(batch.len()).await;
            let (unsent, error) = self.send(queue, batch, not_replayed).await?;
            messages = unsent;
            messages.extend(rest);
            match error {
                Some(error) => wait_to_retry(error, &mut retries).await?,
                None => retries = 0,
            }
        }
        Ok(())
    }

    /// Sends a batch once. Returns the messages to send again, and the transient error.
    async fn send(
        &mut self,
        queue: &Queue,
        batch: Vec<Message>,
        not_replayed: &mut NotReplayed,
    ) -> Result<(Vec<Message>, Option<QueueError>), QueueError> {
        let entries = batch.iter().enumerate().map(|(id, message)| entry(id, message)).collect();
        let call = queue.client.send_message_batch().queue_url(&queue.url).set_entries(Some(entries));
        let response = match call.send().await.map_err(QueueError::from_sdk("send to", &queue.name)) {
            Err(error) if error.is_transient => return Ok((batch, Some(error))),
            Err(error) => {
                let Some(code) = error.rejected_code() else { return Err(error) };
                if batch.len() > 1 {
                    self.isolated = batch.len();
                    return Ok((batch, None));
                }
                // Unless SQS has stored another message, the error may be that of every call.
                if self.sent == 0 {
                    return Err(error);
                }
                self.isolated = self.isolated.saturating_sub(1);
                add_rejected(not_replayed, &batch[0], code);
                return Ok((Vec::new(), None));
            }
            Ok(response) => response,
        };
        self.isolated = self.isolated.saturating_sub(batch.len());
        let missing = (ErrorClass::Transient, "the response of SQS has no result for a message".to_owned());
        let failed = response
            .failed()
            .iter()
            .map(|entry| (entry.id(), (classify(entry.code(), entry.sender_fault()), entry.code().to_owned())));
        let successful = response.successful().iter().map(SendMessageBatchResultEntry::id);
        let results = entry_results(batch.len(), missing, failed, successful);
        let (mut unsent, mut transient) = (Vec::new(), None);
        for (message, result) in batch.into_iter().zip(results) {
            match result {
                Ok(()) => self.sent += 1,
                Err((ErrorClass::Rejected, code)) => add_rejected(not_replayed, &message, &code),
                Err((ErrorClass::QueueUnavailable, code)) => {
                    return Err(QueueError::new("send to", &queue.name, code).into_permanent());
                }
                Err((ErrorClass::Transient, code)) => {
                    transient = Some(QueueError::new("send to", &queue.name, code));
                    unsent.push(message);
                }
            }
        }
        Ok((unsent, transient))
    }
}

fn add_rejected(not_replayed: &mut NotReplayed, message: &Message, code: &str) {
    let event_id = message.attributes.iter().find(|(name, _)| *name == "event_id");
    let event_id = event_id.map(|(_, value)| value.text()).unwrap_or_default();
    not_replayed.entry(format!("rejected by the queue: {code}")).or_default().add(&event_id);
}

/// Splits off the messages of one batch, for a FIFO queue at most one of each group. Returns the batch and the rest.
fn take_batch(messages: Vec<Message>, max: usize, is_fifo: bool) -> (Vec<Message>, Vec<Message>) {
    let (mut batch, mut rest): (Vec<Message>, Vec<Message>) = (Vec::new(), Vec::new());
    let (mut bytes, mut groups) = (0, HashSet::new());
    for message in messages {
        let size = message.size();
        let is_first_of_group = !is_fifo || groups.insert(message.group_id.clone());
        let has_room = batch.len() < max && (batch.is_empty() || bytes + size <= MAX_MESSAGE_BYTES);
        if is_first_of_group && has_room {
            bytes += size;
            batch.push(message);
        } else {
            rest.push(message);
        }
    }
    (batch, rest)
}

fn entry(id: usize, message: &Message) -> SendMessageBatchRequestEntry {
    let attributes = message.attributes.iter().map(|(name, value)| {
        let attribute = MessageAttributeValue::builder().data_type(value.data_type()).string_value(value.text());
        ((*name).to_owned(), attribute.build().expect("has a data type"))
    });
    SendMessageBatchRequestEntry::builder()
        .id(id.to_string())
        .message_body(&message.body)
        .set_message_attributes(Some(attributes.collect()))
        .set_message_system_attributes(message.trace.as_deref().map(trace_header))
        .message_group_id(&message.group_id)
        .set_message_deduplication_id(message.deduplication_id.clone())
        .build()
        .expect("has an id and a body")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(group_id: &str, bytes: usize) -> Message {
        Message {
            body: "x".repeat(bytes),
            attributes: Vec::new(),
            group_id: group_id.to_owned(),
            deduplication_id: None,
            trace: None,
        }
    }

    fn batches(messages: Vec<Message>, is_fifo: bool) -> Vec<String> {
        batches_below(1_000, messages, is_fifo)
    }

    fn batches_below(rate: u32, mut messages: Vec<Message>, is_fifo: bool) -> Vec<String> {
        let mut batches = Vec::new();
        while !messages.is_empty() {
            let (batch, rest) = take_batch(messages, Sender::new(rate).max_batch(), is_fifo);
            batches.push(batch.iter().map(|message| message.group_id.as_str()).collect());
            messages = rest;
        }
        batches
    }

    #[test]
    fn batch_has_one_message_of_each_fifo_group() {
        let messages = || ["a", "b", "a", "c", "b", "a"].map(|group| message(group, 1)).to_vec();
        assert_eq!(batches(messages(), true), ["abc", "ab", "a"]);
        assert_eq!(batches(messages(), false), ["abacba"]);
    }

    #[test]
    fn batch_has_no_more_messages_than_a_second() {
        assert_eq!(batches_below(1, vec![message("a", 1); 2], false), ["a", "a"]);
        assert_eq!(batches_below(3, vec![message("a", 1); 4], false), ["aaa", "a"]);
    }

    #[test]
    fn batch_keeps_the_limits_of_sqs() {
        assert_eq!(batches(vec![message("a", 1); 21], false), ["a".repeat(10), "a".repeat(10), "a".to_owned()]);
        let half = MAX_MESSAGE_BYTES / 2;
        assert_eq!(batches(vec![message("a", half); 3], false), ["a", "a", "a"]);
        assert_eq!(batches(vec![message("a", half - 1000); 3], false), ["aa", "a"]);
    }
}
