//! Receives each message of a queue once: to count, to copy or to delete it. Those that are kept are hidden until the end.

use std::{collections::HashMap, sync::atomic::AtomicBool, time::Duration};

use aws_sdk_sqs::types::Message;
use serde::Serialize;
use tokio::time::Instant;

use super::{
    error::QueueError,
    pass::{self, EndDetector, Unseen},
    queue::{LONG_POLL, MAX_BATCH, Queue},
    resend::attribute,
    selection::Field,
};

/// The assumed minimum of messages per second.
const MIN_RATE: f64 = 10.0;
/// Covers the last receive and the release of the messages.
const RELEASE_TIMEOUT: Duration = Duration::from_mins(1);

/// Selects messages by their attributes.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The field, with its kind if only this kind is selected.
    pub field: Option<Field>,
    /// The value of `unrouted_reason`.
    pub reason: Option<String>,
}

/// The action of a scan for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Keep,
    Delete,
}

/// The limits of a scan.
#[derive(Debug)]
pub struct ScanLimits<'l> {
    /// The number of messages to receive.
    pub max_messages: usize,
    /// Ends the scan when it is set.
    pub stop: &'l AtomicBool,
}

/// The result of a scan, in numbers of messages.
#[derive(Debug, Default, Serialize)]
pub struct ScanReport {
    /// The queue's name.
    pub queue: String,
    /// Visible messages at the start, by the approximate count of SQS.
    pub visible_at_start: usize,
    /// Messages that were received.
    pub received: usize,
    /// Messages that were deleted.
    pub deleted: usize,
    /// Messages that SQS failed to delete.
    pub not_deleted: usize,
    /// Messages of a FIFO queue that were not received, because they follow a kept message of their group. Approximate.
    pub blocked: usize,
    /// Messages that may be hidden from the command.
    #[serde(flatten)]
    pub unseen: Unseen,
    /// The reason why the queue was not read to its end.
    pub stop_reason: Option<String>,
    /// The reason why messages are still hidden, with their number. They become visible when their visibility timeout ends,
    /// after up to six hours.
    pub release_error: Option<String>,
}

impl ScanReport {
    /// Whether the command received every message, up to the limit of messages, without an error. Messages that consumers hold or
    /// that are delayed are not counted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_success() && self.blocked == 0
    }

    /// Whether there was no error, and no message is hidden from the command.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let has_error = self.stop_reason.is_some() || self.release_error.is_some();
        !has_error && self.not_deleted == 0 && !self.unseen.has_hidden()
    }
}

impl Filter {
    pub(crate) fn matches(&self, message: &Message) -> bool {
        let [field, kind, reason] = ["field", "kind", "unrouted_reason"].map(|name| attribute(message, name));
        let matches_field = self.field.as_ref().is_none_or(|expected| expected.matches(field, kind));
        matches_field && self.reason.as_ref().is_none_or(|expected| reason == Some(expected))
    }
}

/// Receives each message of a queue once, and passes new messages to `visit`: `chunk` or up to nine more at a time, fewer at the
/// end. `visit` returns the action for each of them, or the reason why the scan cannot go on.
///
/// Kept messages are visible again at the end. If the process is killed, they become visible when their visibility timeout ends, after
/// up to six hours.
pub(crate) async fn scan(
    queue: &Queue,
    has_consumers: bool,
    limits: &ScanLimits<'_>,
    chunk: usize,
    mut visit: impl AsyncFnMut(&[Message]) -> Result<Vec<Action>, String>,
) -> ScanReport {
    let mut scan = Scan {
        queue,
        deadline: Instant::now(),
        report: ScanReport { queue: queue.name.clone(), unseen: Unseen::new(has_consumers), ..ScanReport::default() },
        hidden: HashMap::new(),
    };
    scan.report.stop_reason = scan.run(limits, chunk, &mut visit).await.err();
    if scan.report.stop_reason.is_none() && scan.report.received < limits.max_messages {
        scan.report.blocked = queue.count_blocked(scan.hidden.len()).await;
    }
    let hidden: Vec<String> = scan.hidden.into_values().collect();
    scan.report.release_error = queue.release(&hidden).await.err().map(|error| error.to_string());
    scan.report
}

struct Scan<'q> {
    queue: &'q Queue,
    deadline: Instant,
    report: ScanReport,
    /// The last receipt handle of each message that is kept, by its id.
    hidden: HashMap<String, String>,
}

impl Scan<'_> {
    async fn run(
        &mut self,
        limits: &ScanLimits<'_>,
        chunk: usize,
        visit: &mut impl AsyncFnMut(&[Message]) -> Result<Vec<Action>, String>,
    ) -> Result<(), String> {
        let counts = self.queue.counts().await.map_err(|error| error.to_string())?.0;
        self.report.visible_at_start = counts.visible;
        self.deadline += pass::timeout(counts.visible, 1.0 / MIN_RATE);
        let mut end = EndDetector::new();
        while self.report.received < limits.max_messages && !end.is_at_end(&mut self.report.unseen).await {
            let mut messages = Vec::new();
            loop {
                let result = pass::check_limits(limits.stop, self.hidden.len(), self.deadline);
                let max = limits.max_messages.saturating_sub(self.report.received + messages.len());
                if result.is_err() && messages.is_empty() {
                    return result;
                }
                if result.is_err() || max == 0 {
                    break;
                }
                let new = self.receive(max).await.map_err(|error| error.to_string())?;
                let recorded = end.record(!new.is_empty(), self.queue, self.hidden.len()).await;
                recorded.map_err(|error| error.to_string())?;
                messages.extend(new);
                if messages.len() >= chunk || end.has_no_visible() {
                    break;
                }
            }
            if messages.is_empty() {
                continue;
            }
            self.report.received += messages.len();
            let actions = visit(&messages).await?;
            let deleted = messages.iter().zip(actions).filter(|(_, action)| *action == Action::Delete);
            self.delete(deleted.map(|(message, _)| message).collect()).await?;
        }
        Ok(())
    }

    /// Receives once. Returns the messages that are new.
    async fn receive(&mut self, max: usize) -> Result<Vec<Message>, QueueError> {
        let visibility_timeout = self.deadline.saturating_duration_since(Instant::now()) + RELEASE_TIMEOUT;
        let max = i32::try_from(max).unwrap_or(MAX_BATCH);
        let unseen = &mut self.report.unseen;
        let messages = pass::receive(self.queue, max, visibility_timeout, LONG_POLL, unseen).await?;
        let mut new = Vec::new();
        for message in messages {
            let (id, receipt) = (message.message_id.clone(), message.receipt_handle.clone());
            if self.hidden.insert(id.unwrap_or_default(), receipt.unwrap_or_default()).is_none() {
                new.push(message);
            }
        }
        Ok(new)
    }

    async fn delete(&mut self, messages: Vec<&Message>) -> Result<(), String> {
        for batch in messages.chunks(usize::try_from(MAX_BATCH).unwrap_or(1)) {
            let receipts: Vec<_> =
                batch.iter().map(|message| message.receipt_handle.as_deref().unwrap_or_default()).collect();
            let failed = match self.queue.delete(&receipts).await {
                // Once more, because most failures are transient.
                Ok(failed) if failed.is_empty() => failed,
                _ => self.queue.delete(&receipts).await.map_err(|error| {
                    self.report.not_deleted += batch.len();
                    error.to_string()
                })?,
            };
            for (index, message) in batch.iter().enumerate() {
                if failed.contains(&index) {
                    self.report.not_deleted += 1;
                } else {
                    self.report.deleted += 1;
                    self.hidden.remove(message.message_id.as_deref().unwrap_or_default());
                }
            }
        }
        Ok(())
    }
}
