//! Moves messages from one queue to others: receives each, sends it, and deletes it only after SQS stored it.
//!
//! A run that is killed between any two calls therefore loses nothing. At most ten messages were sent but not deleted: they are on
//! both queues, with the same `event_id`. Skipped messages are hidden until the deadline of the pass, received ones for half a minute.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::atomic::AtomicBool,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, SendMessageBatchResultEntry};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};
use whatsapp_webhook::{
    aws_error::{ErrorClass, classify, entry_results},
    message::MAX_MESSAGE_BYTES,
};

use super::{
    backlog::QueueDepth,
    error::QueueError,
    pass::{self, EndDetector, RETRY_INTERVAL, Unseen},
    queue::{LONG_POLL, MAX_BATCH, OPERATION_TIMEOUT, Queue, is_fifo, queue_name},
    resend::{self, MoveContext, attribute, group_id, system_attribute},
    selection::Selection,
};

/// Covers sending and deleting the messages of one receive. If the process is killed, those that were not skipped are visible after
/// this time.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);
/// The limit from the start of a receive to the start of a send. SQS then stores the message before it is visible again, unless it
/// goes to several queues that are all slow. A message that is received twice may be sent twice, with the same `event_id`.
const SEND_TIMEOUT: Duration = VISIBILITY_TIMEOUT.saturating_sub(OPERATION_TIMEOUT);
/// The assumed minimum of messages per second that a run receives, even over a slow connection.
const MIN_RECEIVE_RATE: f64 = 25.0;
/// SQS remembers a deduplication id [for 5 minutes](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html)
/// and would drop a dead letter as a duplicate of itself. One more minute covers clocks that differ.
const DEDUPLICATION_INTERVAL: Duration = Duration::from_mins(6);

/// A move of selected messages from one queue to others.
#[derive(Debug)]
pub struct Transfer {
    pub(crate) source: Queue,
    /// Whether a route other than the catch-all route leads to the source.
    pub(crate) source_has_consumers: bool,
    pub(crate) selection: Selection,
    /// The function's key for the group ids of conversations; empty if the move needs none.
    pub(crate) group_key: String,
    /// The URLs of queues that do not exist. Messages for them remain where they are.
    pub(crate) gone: BTreeSet<String>,
}

/// The message counts of the queues of a move.
#[derive(Debug, Serialize)]
pub struct MoveCounts {
    /// The queue that messages are moved from.
    pub from: QueueDepth,
    /// The queues that messages may go to.
    pub to: Vec<QueueDepth>,
}

/// The limits of a move.
#[derive(Debug, Clone, Copy)]
pub struct TransferLimits {
    /// Messages per second.
    pub rate: u32,
    /// Messages in all of one move, that is from one queue.
    pub max_messages: usize,
}

/// The result of a move, in numbers of messages.
#[derive(Debug, Default, Serialize)]
pub struct TransferReport {
    /// The queue's name.
    pub from: String,
    /// Visible messages at the start, by the approximate count of SQS.
    pub visible_at_start: usize,
    /// Messages that were moved.
    pub moved: usize,
    /// Moved messages whose body is in S3.
    pub claim_checks: usize,
    /// Messages that were not selected.
    pub not_selected: usize,
    /// Messages that arrived during the run.
    pub arrived_during_run: usize,
    /// Dead letters of a FIFO queue whose deduplication id SQS still remembers.
    pub too_recent: usize,
    /// Messages with a body in S3 for several queues. Consumers delete the object with their message, so queues cannot share it.
    pub shared_object: usize,
    /// Messages for a queue that does not exist.
    pub queue_gone: usize,
    /// Messages that SQS rejected, by its code.
    pub rejected: BTreeMap<String, usize>,
    /// Messages that were sent but not deleted.
    pub not_deleted: usize,
    /// Messages of a FIFO queue that were not received, because they follow a skipped message of their group. Approximate.
    pub blocked: usize,
    /// The reason why the queue was not read to its end.
    pub stop_reason: Option<String>,
    /// The reason why skipped messages are still hidden, with their number. They become visible when their visibility timeout
    /// ends, after up to six hours.
    pub release_error: Option<String>,
    /// Messages that may be hidden from the command.
    #[serde(flatten)]
    pub unseen: Unseen,
}

/// The reason why a message is not moved.
enum SkipReason {
    NotSelected,
    ArrivedDuringRun,
    TooRecent,
    SharedObject,
    QueueGone,
    Rejected(String),
}

impl TransferReport {
    /// Whether the run had no error and left no selected message, except beyond the limit of messages. Messages that consumers hold
    /// or that are delayed are not counted.
    #[must_use]
    pub fn is_success(&self) -> bool {
        let has_error = self.stop_reason.is_some() || self.release_error.is_some() || !self.rejected.is_empty();
        let left = self.arrived_during_run + self.too_recent + self.shared_object + self.queue_gone;
        !has_error && left + self.not_deleted + self.blocked == 0 && !self.unseen.has_hidden()
    }
}

impl Transfer {
    /// Returns the URLs of the queues that messages may go to.
    #[must_use]
    pub fn targets(&self) -> Vec<&str> {
        self.selection.targets()
    }

    /// Returns the context of a move to these queues. If one of them is FIFO, the order within each group has to be kept.
    fn context(&self, targets: &[&str]) -> MoveContext<'_> {
        let to_fifo = targets.iter().any(|target| is_fifo(target));
        MoveContext { from_fifo: self.source.is_fifo(), to_fifo, group_key: &self.group_key }
    }

    /// Returns the message counts, without receiving a message.
    pub async fn counts(&self) -> MoveCounts {
        let targets = self.targets();
        let to = targets.into_iter().map(async |url| QueueDepth::read(&Queue::new(&self.source.client, url)).await);
        MoveCounts { to: join_all(to).await, from: QueueDepth::read(&self.source).await }
    }

    /// Reads the queue once to its end, or until `stop` is set. Then makes the skipped messages visible again.
    pub async fn run(
        &self,
        limits: TransferLimits,
        stop: &AtomicBool,
        mut progress: impl FnMut(&TransferReport),
    ) -> TransferReport {
        let mut pass = Pass::new(self, limits);
        let result = pass.run(stop, &mut progress).await;
        if result.is_ok() && pass.report.moved < limits.max_messages {
            pass.report.blocked = self.source.count_blocked(pass.skipped.len()).await;
        }
        let skipped: Vec<String> = pass.skipped.into_values().collect();
        let mut report = pass.report;
        report.release_error = self.source.release(&skipped).await.err().map(|error| error.to_string());
        report.stop_reason = result.err();
        report
    }
}

/// One pass over the queue.
struct Pass<'p> {
    transfer: &'p Transfer,
    limits: TransferLimits,
    started: SystemTime,
    deadline: Instant,
    next_receive: Instant,
    report: TransferReport,
    /// The last receipt handle of each skipped message, by its id.
    skipped: HashMap<String, String>,
    /// The ids of messages for several queues, with the URL of each queue that stored them.
    stored: HashSet<(String, &'p str)>,
}

impl<'p> Pass<'p> {
    fn new(transfer: &'p Transfer, limits: TransferLimits) -> Self {
        let now = Instant::now();
        let unseen = Unseen::new(transfer.source_has_consumers);
        let report = TransferReport { from: transfer.source.name.clone(), unseen, ..TransferReport::default() };
        Self {
            transfer,
            limits,
            started: SystemTime::now(),
            deadline: now,
            next_receive: now,
            report,
            skipped: HashMap::new(),
            stored: HashSet::new(),
        }
    }

    async fn run(&mut self, stop: &AtomicBool, progress: &mut impl FnMut(&TransferReport)) -> Result<(), String> {
        let counts = self.transfer.source.counts().await;
        self.report.visible_at_start = counts.map_err(|error| error.to_string())?.0.visible;
        let seconds_per_message = 1.0 / MIN_RECEIVE_RATE + 1.0 / f64::from(self.limits.rate);
        self.deadline += pass::timeout(self.report.visible_at_start, seconds_per_message);
        let (mut end, mut retries) = (EndDetector::new(), 0);
        while self.report.moved < self.limits.max_messages && !end.is_at_end(&mut self.report.unseen).await {
            sleep_until(self.next_receive).await;
            pass::check_limits(stop, self.skipped.len(), self.deadline)?;
            match self.receive_and_move().await {
                Ok(has_new) => {
                    let recorded = end.record(has_new, &self.transfer.source, self.skipped.len()).await;
                    recorded.map_err(|error| error.to_string())?;
                    retries = 0;
                }
                Err(error) => pass::wait_to_retry(error, &mut retries).await.map_err(|error| error.to_string())?,
            }
            progress(&self.report);
        }
        Ok(())
    }

    /// Receives once and moves the selected messages. Returns whether a message was new.
    async fn receive_and_move(&mut self) -> Result<bool, QueueError> {
        let max = i32::try_from(self.limits.max_messages - self.report.moved).unwrap_or(MAX_BATCH);
        let received_at = Instant::now();
        let messages = self.transfer.source.receive(max, VISIBILITY_TIMEOUT, LONG_POLL).await;
        let messages = messages.inspect_err(|error| self.report.unseen.count_lost_receive(error))?;
        let has_new = messages.iter().any(|message| !self.skipped.contains_key(id(message)));
        let mut selected = BTreeMap::<Vec<&str>, Vec<Message>>::new();
        let mut skipped = Vec::new();
        for message in messages {
            match self.targets(&message) {
                Ok(targets) => selected.entry(targets).or_default().push(message),
                Err(reason) => skipped.push((message, reason)),
            }
        }
        self.skip(skipped).await;
        let (mut result, mut unsent) = (Ok(()), Vec::new());
        for (targets, messages) in selected {
            if result.is_ok() {
                result = self.send_and_delete(&targets, messages, received_at).await;
            } else {
                unsent.extend(messages);
            }
        }
        self.release(&unsent).await;
        result.map(|()| has_new)
    }

    /// Returns the URLs of the queues to move a message to, at least one.
    fn targets(&self, message: &Message) -> Result<Vec<&'p str>, SkipReason> {
        let targets = self.transfer.selection.targets_of(message);
        if targets.is_empty() {
            return Err(SkipReason::NotSelected);
        }
        if targets.iter().any(|target| self.transfer.gone.contains(*target)) {
            return Err(SkipReason::QueueGone);
        }
        let sent = system_attribute(message, &MessageSystemAttributeName::SentTimestamp);
        let sent = UNIX_EPOCH + Duration::from_millis(sent.and_then(|sent| sent.parse().ok()).unwrap_or_default());
        // A message that fails again after its move is a dead letter again, and would be moved in circles.
        if sent > self.started {
            return Err(SkipReason::ArrivedDuringRun);
        }
        if targets.len() > 1 && attribute(message, "ExtendedPayloadSize").is_some() {
            return Err(SkipReason::SharedObject);
        }
        let is_fifo_to_fifo = self.transfer.source.is_fifo() && targets.iter().any(|target| is_fifo(target));
        let is_too_recent = is_fifo_to_fifo && sent > self.started - DEDUPLICATION_INTERVAL;
        if is_too_recent { Err(SkipReason::TooRecent) } else { Ok(targets) }
    }

    /// Hides messages until the end of the pass, and counts each once.
    async fn skip(&mut self, messages: Vec<(Message, SkipReason)>) {
        if messages.is_empty() {
            return;
        }
        let mut receipts = Vec::new();
        for (message, reason) in messages {
            receipts.push(receipt(&message).to_owned());
            if self.skipped.insert(id(&message).to_owned(), receipt(&message).to_owned()).is_some() {
                continue;
            }
            match reason {
                SkipReason::NotSelected => self.report.not_selected += 1,
                SkipReason::ArrivedDuringRun => self.report.arrived_during_run += 1,
                SkipReason::TooRecent => self.report.too_recent += 1,
                SkipReason::SharedObject => self.report.shared_object += 1,
                SkipReason::QueueGone => self.report.queue_gone += 1,
                SkipReason::Rejected(code) => *self.report.rejected.entry(code).or_default() += 1,
            }
        }
        let until_deadline = self.deadline.saturating_duration_since(Instant::now()) + VISIBILITY_TIMEOUT;
        // If the call fails, the messages are received again and hidden by the next call.
        let _ = self.transfer.source.change_visibility(&receipts, until_deadline).await;
    }

    /// Sends messages to all of these queues, and deletes those that every queue stored.
    ///
    /// A batch for a FIFO queue has one message of each group, so that none overtakes one that is not stored.
    async fn send_and_delete(
        &mut self,
        targets: &[&'p str],
        messages: Vec<Message>,
        received_at: Instant,
    ) -> Result<(), QueueError> {
        let context = self.transfer.context(targets);
        let mut remaining = messages;
        let mut unsent = Vec::new();
        let mut result = Ok(());
        while !remaining.is_empty() && result.is_ok() && received_at.elapsed() < SEND_TIMEOUT {
            let (batch, rest) = take_batch(remaining, context);
            remaining = rest;
            let entry_results = match self.send_to_all(targets, &batch).await {
                Ok(entry_results) => entry_results,
                Err(error) => {
                    unsent.extend(batch);
                    result = Err(error);
                    break;
                }
            };
            let (mut sent, mut skipped, mut blocked_groups) = (Vec::new(), Vec::new(), HashSet::new());
            for (message, entry_result) in batch.into_iter().zip(entry_results) {
                if entry_result.is_err() && context.to_fifo {
                    blocked_groups.extend(group_id(&message, context));
                }
                match entry_result {
                    Ok(()) => sent.push(message),
                    Err(EntryError { class: ErrorClass::Rejected, code, .. }) => {
                        skipped.push((message, SkipReason::Rejected(code)));
                    }
                    Err(EntryError { class, code, target }) => {
                        // An unavailable queue ends the run, even if other entries have transient errors.
                        if result.as_ref().err().is_none_or(|error: &QueueError| error.is_transient) {
                            let error = QueueError::new("send to", queue_name(target), code);
                            let is_transient = class == ErrorClass::Transient;
                            result = Err(if is_transient { error } else { error.into_permanent() });
                        }
                        unsent.push(message);
                    }
                }
            }
            self.delay_next_receive(sent.len());
            if let Err(error) = self.delete(&sent).await {
                result = Err(error);
            }
            if !blocked_groups.is_empty() {
                let is_blocked =
                    |message: &Message| group_id(message, context).is_some_and(|group| blocked_groups.contains(&group));
                let (blocked, rest): (Vec<_>, Vec<_>) = remaining.into_iter().partition(is_blocked);
                unsent.extend(blocked);
                remaining = rest;
            }
            self.skip(skipped).await;
        }
        unsent.extend(remaining);
        self.release(&unsent).await;
        result
    }

    /// Makes messages visible that were received but neither moved nor skipped.
    async fn release(&self, unsent: &[Message]) {
        let unsent: Vec<String> = unsent.iter().map(|message| receipt(message).to_owned()).collect();
        // If the call fails, they are visible after their visibility timeout. The run then waits for them.
        let _ = self.transfer.source.release(&unsent).await;
    }

    /// Sends a batch to one queue after the other. A message that one queue did not store is not sent to the next one.
    ///
    /// If another queue did not store a message, it is sent again in this run, but not to the queues that have it.
    async fn send_to_all(
        &mut self,
        targets: &[&'p str],
        batch: &[Message],
    ) -> Result<Vec<Result<(), EntryError<'p>>>, QueueError> {
        let mut results: Vec<Result<(), EntryError<'p>>> = vec![Ok(()); batch.len()];
        for target in targets {
            let is_missing = |index: &usize| {
                results[*index].is_ok() && !self.stored.contains(&(id(&batch[*index]).to_owned(), *target))
            };
            let missing: Vec<usize> = (0..batch.len()).filter(is_missing).collect();
            if missing.is_empty() {
                continue;
            }
            let messages: Vec<&Message> = missing.iter().map(|index| &batch[*index]).collect();
            for (index, result) in missing.into_iter().zip(self.send(target, &messages).await?) {
                if result.is_ok() && targets.len() > 1 {
                    self.stored.insert((id(&batch[index]).to_owned(), target));
                }
                results[index] = result;
            }
        }
        Ok(results)
    }

    async fn send(&self, target: &'p str, batch: &[&Message]) -> Result<Vec<Result<(), EntryError<'p>>>, QueueError> {
        let context = self.transfer.context(&[target]);
        let entries = batch.iter().enumerate().map(|(id, message)| resend::entry(id, message, context)).collect();
        let call = self.transfer.source.client.send_message_batch().queue_url(target).set_entries(Some(entries));
        let response = call.send().await.map_err(QueueError::from_sdk("send to", queue_name(target)))?;
        let code = "the response of SQS has no result for a message".to_owned();
        let missing = EntryError { class: ErrorClass::Transient, code, target };
        let failed = response.failed().iter().map(|entry| {
            let class = classify(entry.code(), entry.sender_fault());
            (entry.id(), EntryError { class, code: entry.code().to_owned(), target })
        });
        Ok(entry_results(
            batch.len(),
            missing,
            failed,
            response.successful().iter().map(SendMessageBatchResultEntry::id),
        ))
    }

    /// Lets the next receive wait until the messages so far comply with the rate.
    fn delay_next_receive(&mut self, sent: usize) {
        let interval = Duration::from_secs(1) / self.limits.rate;
        self.next_receive = self.next_receive.max(Instant::now()) + interval * u32::try_from(sent).unwrap_or(u32::MAX);
    }

    /// Deletes the sent messages. After four failed attempts, returns a permanent error, which ends the run before it
    /// duplicates more messages.
    async fn delete(&mut self, sent: &[Message]) -> Result<(), QueueError> {
        let mut remaining: Vec<&Message> = sent.iter().collect();
        let mut failure = None;
        for attempt in 0..4 {
            if remaining.is_empty() {
                break;
            }
            if attempt > 0 {
                sleep(RETRY_INTERVAL * attempt).await;
            }
            let receipts: Vec<&str> = remaining.iter().map(|message| receipt(message)).collect();
            match self.transfer.source.delete(&receipts).await {
                Ok(indices) => {
                    remaining = indices.into_iter().map(|index| remaining[index]).collect();
                    failure = None;
                }
                Err(error) => failure = Some(error),
            }
        }
        let is_remaining = |message: &Message| remaining.iter().any(|other| id(other) == id(message));
        let deleted = sent.iter().filter(|message| !is_remaining(message));
        self.report.claim_checks +=
            deleted.clone().filter(|message| attribute(message, "ExtendedPayloadSize").is_some()).count();
        self.report.moved += deleted.count();
        self.report.not_deleted += remaining.len();
        if remaining.is_empty() {
            return Ok(());
        }
        let error = failure.unwrap_or_else(|| {
            QueueError::new("delete from", &self.transfer.source.name, "a message is still on the queue".to_owned())
        });
        Err(error.into_permanent())
    }
}

/// The reason why a queue did not store an entry of a batch.
#[derive(Clone)]
struct EntryError<'p> {
    class: ErrorClass,
    code: String,
    target: &'p str,
}

/// Splits off the messages of one batch, for a FIFO queue at most one of each group. Returns the batch and the rest.
fn take_batch(messages: Vec<Message>, context: MoveContext<'_>) -> (Vec<Message>, Vec<Message>) {
    let (mut batch, mut rest) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    let mut groups = HashSet::new();
    for message in messages {
        let size = resend::size(&message);
        let first_of_group = !context.to_fifo || groups.insert(group_id(&message, context));
        if first_of_group && (batch.is_empty() || bytes + size <= MAX_MESSAGE_BYTES) {
            bytes += size;
            batch.push(message);
        } else {
            rest.push(message);
        }
    }
    (batch, rest)
}

fn id(message: &Message) -> &str {
    message.message_id.as_deref().unwrap_or_default()
}

fn receipt(message: &Message) -> &str {
    message.receipt_handle.as_deref().unwrap_or_default()
}
