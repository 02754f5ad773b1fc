//! Moves messages from one queue to others. Each is received, sent, and only then deleted.
//!
//! So a run that is interrupted between any two calls has lost nothing: at worst a message is on both queues, with the
//! same `event_id`, and some are hidden for half a minute.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName, SendMessageBatchResultEntry};
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};
use whatsapp_webhook::{
    message::MAX_MESSAGE_BYTES,
    sqs_error::{ErrorClass, classify, entry_results},
};

use super::{
    backlog::Waiting,
    choice::Choice,
    error::QueueError,
    queue::{LONG_POLL, MAX_BATCH, Queue, is_fifo, name},
    resend::{self, Way, attribute, group_id, system_attribute},
};

/// The time to send and delete the messages of one receive. After a kill, they are visible again when it ends.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);
/// No message is sent later after its receipt. It could be visible again before it is deleted.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);
/// Skipped messages are hidden for as long as the whole queue takes, so that each is received once.
const MIN_PASS_TIMEOUT: Duration = Duration::from_mins(2);
const MAX_PASS_TIMEOUT: Duration = Duration::from_hours(6);
/// Messages a second that a run reads at least, also over a slow connection.
const MIN_RATE: f64 = 25.0;
/// Hidden messages of one run. SQS hides at most 120,000 messages of a queue, including those of its consumers.
const MAX_SKIPPED: usize = 50_000;
/// Receives in a row without a new message, after which the queue counts as read to its end.
const MAX_EMPTY_RECEIVES: u32 = 3;
/// Transient errors in a row, after which the run stops. The interval between the retries doubles.
const MAX_RETRIES: u32 = 6;
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// SQS remembers a deduplication id for 5 minutes and would drop a dead letter as its own copy. One minute is for clocks
/// that differ.
const DEDUPLICATION_INTERVAL: Duration = Duration::from_mins(6);

/// A move of selected messages from one queue to others.
#[derive(Debug)]
pub struct Transfer {
    pub(crate) source: Queue,
    pub(crate) choice: Choice,
    pub(crate) group_key: String,
}

/// The message counts of the queues of a move.
#[derive(Debug, Serialize)]
pub struct Waits {
    /// The queue that messages are moved from.
    pub from: Waiting,
    /// The queues that messages may go to.
    pub to: Vec<Waiting>,
}

/// How fast, and how many.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Messages in a second.
    pub rate: u32,
    /// Messages in all.
    pub most: usize,
}

/// What became of a queue's messages.
#[derive(Debug, Default, Serialize)]
pub struct TransferReport {
    /// The queue's name.
    pub from: String,
    /// Visible messages at the start, by the approximate count of SQS.
    pub waiting: usize,
    /// Messages that were moved.
    pub moved: usize,
    /// Of these, those whose body is in S3.
    pub pointers: usize,
    /// Messages that were not selected.
    pub others: usize,
    /// Messages that arrived during the run.
    pub later: usize,
    /// Dead letters whose deduplication id SQS still remembers.
    pub young: usize,
    /// Messages that SQS rejected, by its code.
    pub refused: BTreeMap<String, usize>,
    /// Messages that were sent but not deleted.
    pub undeleted: usize,
    /// The reason why the queue was not read to its end.
    pub stopped: Option<String>,
    /// Messages that another reader or a killed run hides.
    pub hidden: usize,
}

/// The reason why a message is not moved.
enum SkipReason {
    Other,
    Later,
    Young,
    Refused(String),
}

impl TransferReport {
    /// Whether the run had no error. Messages that stay by a rule, and the limit of messages, are not errors.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stopped.is_none() && self.refused.is_empty() && self.undeleted == 0
    }
}

impl Transfer {
    /// The URLs of the queues that messages may go to.
    #[must_use]
    pub fn targets(&self) -> Vec<&str> {
        self.choice.targets()
    }

    /// Returns the message counts, without receiving a message.
    pub async fn waiting(&self) -> Result<Waits, QueueError> {
        let mut to = Vec::new();
        for url in self.targets() {
            let queue = Queue::new(&self.source.client, url);
            to.push(Waiting::new(&queue, queue.counts().await?.0));
        }
        Ok(Waits { from: Waiting::new(&self.source, self.source.counts().await?.0), to })
    }

    /// Reads the queue once to its end, or until `stop` is set, and then shows the skipped messages again.
    pub async fn run(
        &self,
        pace: Pace,
        stop: &AtomicBool,
        mut progress: impl FnMut(&TransferReport),
    ) -> TransferReport {
        let mut pass = Pass::new(self, pace);
        let passed = pass.go(stop, &mut progress).await;
        let skipped: Vec<String> = pass.skipped.into_values().collect();
        // If the call fails, they are visible when the pass would have ended.
        let _ = self.source.hide(&skipped, Duration::ZERO).await;
        let mut moved = pass.moved;
        moved.stopped = passed.err();
        moved.hidden = self.source.counts().await.map_or(0, |(counts, _)| counts.in_flight);
        moved
    }
}

/// One pass over the queue.
struct Pass<'p> {
    transfer: &'p Transfer,
    pace: Pace,
    began: SystemTime,
    deadline: Instant,
    next_receive: Instant,
    moved: TransferReport,
    /// The last receipt handle of each skipped message, by its id.
    skipped: HashMap<String, String>,
}

impl<'p> Pass<'p> {
    fn new(transfer: &'p Transfer, pace: Pace) -> Self {
        let now = Instant::now();
        let moved = TransferReport { from: transfer.source.name.clone(), ..TransferReport::default() };
        Self {
            transfer,
            pace,
            began: SystemTime::now(),
            deadline: now,
            next_receive: now,
            moved,
            skipped: HashMap::new(),
        }
    }

    async fn go(&mut self, stop: &AtomicBool, progress: &mut impl FnMut(&TransferReport)) -> Result<(), String> {
        let counts = self.transfer.source.counts().await;
        self.moved.waiting = counts.map_err(|error| error.to_string())?.0.visible;
        self.deadline += pass_timeout(self.moved.waiting, self.pace.rate);
        let (mut nothing_new, mut retries) = (0, 0);
        while nothing_new < MAX_EMPTY_RECEIVES && self.moved.moved < self.pace.most {
            sleep_until(self.next_receive).await;
            if stop.load(Ordering::Relaxed) {
                return Err("interrupted".to_owned());
            }
            if self.skipped.len() >= MAX_SKIPPED {
                return Err(format!("stopped after {MAX_SKIPPED} messages that stay on the queue"));
            }
            if Instant::now() >= self.deadline {
                return Err("the time for one run is over: run the command again".to_owned());
            }
            match self.step().await {
                Ok(new) => (nothing_new, retries) = (if new { 0 } else { nothing_new + 1 }, 0),
                Err(error) if error.is_transient && retries < MAX_RETRIES => {
                    sleep(RETRY_INTERVAL * 2_u32.pow(retries)).await;
                    retries += 1;
                }
                Err(error) => return Err(error.to_string()),
            }
            progress(&self.moved);
        }
        Ok(())
    }

    /// Receives once and moves the selected messages. Returns whether a message was new.
    async fn step(&mut self) -> Result<bool, QueueError> {
        let most = i32::try_from(self.pace.most - self.moved.moved).unwrap_or(MAX_BATCH);
        let messages = self.transfer.source.receive(most, VISIBILITY_TIMEOUT, LONG_POLL).await?;
        let received = Instant::now();
        let new = messages.iter().any(|message| !self.skipped.contains_key(id(message)));
        let mut leaving = BTreeMap::<&str, Vec<Message>>::new();
        let mut skipped = Vec::new();
        for message in messages {
            match self.target(&message) {
                Ok(target) => leaving.entry(target).or_default().push(message),
                Err(reason) => skipped.push((message, reason)),
            }
        }
        self.skip(skipped).await;
        for (target, messages) in leaving {
            self.forward(target, messages, received).await?;
        }
        Ok(new)
    }

    fn target(&self, message: &Message) -> Result<&'p str, SkipReason> {
        let target = self.transfer.choice.target(message).ok_or(SkipReason::Other)?;
        let sent = system_attribute(message, &MessageSystemAttributeName::SentTimestamp);
        let sent = UNIX_EPOCH + Duration::from_millis(sent.and_then(|sent| sent.parse().ok()).unwrap_or_default());
        // A message that failed again after its move is a dead letter again, and would be moved in circles.
        if sent > self.began {
            return Err(SkipReason::Later);
        }
        let young = self.transfer.source.is_fifo() && is_fifo(target) && sent > self.began - DEDUPLICATION_INTERVAL;
        if young { Err(SkipReason::Young) } else { Ok(target) }
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
                SkipReason::Other => self.moved.others += 1,
                SkipReason::Later => self.moved.later += 1,
                SkipReason::Young => self.moved.young += 1,
                SkipReason::Refused(code) => *self.moved.refused.entry(code).or_default() += 1,
            }
        }
        let rest = self.deadline.saturating_duration_since(Instant::now()) + VISIBILITY_TIMEOUT;
        // If the call fails, the messages are received again and hidden then.
        let _ = self.transfer.source.hide(&receipts, rest).await;
    }

    /// Sends messages to a queue and deletes those that it stored.
    ///
    /// A batch for a FIFO queue has one message of each group, so that none overtakes one that is not stored.
    async fn forward(&mut self, target: &str, messages: Vec<Message>, received: Instant) -> Result<(), QueueError> {
        let source = &self.transfer.source;
        let way = Way { from_fifo: source.is_fifo(), to_fifo: is_fifo(target), group_key: &self.transfer.group_key };
        let mut waiting = messages;
        let mut unsent = Vec::new();
        let mut failure = Ok(());
        while !waiting.is_empty() && failure.is_ok() && received.elapsed() < SEND_TIMEOUT {
            let (batch, rest) = batch(waiting, way);
            waiting = rest;
            let outcomes = match self.send(target, &batch, way).await {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    unsent.extend(batch);
                    failure = Err(error);
                    break;
                }
            };
            let (mut sent, mut skipped, mut stuck) = (Vec::new(), Vec::new(), HashSet::new());
            for (message, outcome) in batch.into_iter().zip(outcomes) {
                if outcome.is_err() && way.to_fifo {
                    stuck.extend(group_id(&message, way));
                }
                match outcome {
                    Ok(()) => sent.push(message),
                    Err(EntryError { class: ErrorClass::Rejected, code }) => {
                        skipped.push((message, SkipReason::Refused(code)));
                    }
                    Err(EntryError { class, code }) => {
                        // An unavailable queue ends the run, also if other entries have transient errors.
                        if failure.as_ref().err().is_none_or(|error: &QueueError| error.is_transient) {
                            let error = QueueError::new("send to", name(target), code);
                            let is_transient = class == ErrorClass::Transient;
                            failure = Err(if is_transient { error } else { error.permanent() });
                        }
                        unsent.push(message);
                    }
                }
            }
            if let Err(error) = self.delete(&sent).await {
                failure = Err(error);
            }
            if !stuck.is_empty() {
                let is_stuck = |message: &Message| group_id(message, way).is_some_and(|group| stuck.contains(&group));
                let (behind, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_stuck);
                unsent.extend(behind);
                waiting = rest;
            }
            self.skip(skipped).await;
        }
        unsent.extend(waiting);
        let unsent: Vec<String> = unsent.iter().map(|message| receipt(message).to_owned()).collect();
        // If the call fails, they are visible after half a minute.
        let _ = self.transfer.source.hide(&unsent, Duration::ZERO).await;
        failure
    }

    async fn send(
        &self,
        target: &str,
        batch: &[Message],
        way: Way<'_>,
    ) -> Result<Vec<Result<(), EntryError>>, QueueError> {
        let entries = batch.iter().enumerate().map(|(id, message)| resend::entry(id, message, way)).collect();
        let call = self.transfer.source.client.send_message_batch().queue_url(target).set_entries(Some(entries));
        let response = call.send().await.map_err(QueueError::of("send to", name(target)))?;
        let code = "the response does not mention a message".to_owned();
        let missing = EntryError { class: ErrorClass::Transient, code };
        let failed = response.failed().iter().map(|entry| {
            let class = classify(entry.code(), entry.sender_fault());
            (entry.id(), EntryError { class, code: entry.code().to_owned() })
        });
        Ok(entry_results(
            batch.len(),
            missing,
            failed,
            response.successful().iter().map(SendMessageBatchResultEntry::id),
        ))
    }

    /// Deletes the sent messages. Ends the run if that fails several times, before it duplicates more messages.
    async fn delete(&mut self, sent: &[Message]) -> Result<(), QueueError> {
        self.next_receive = self.next_receive.max(Instant::now())
            + Duration::from_secs_f64(count(sent.len()) / f64::from(self.pace.rate));
        let mut left: Vec<&Message> = sent.iter().collect();
        let mut failure = None;
        for attempt in 0..4 {
            if left.is_empty() {
                break;
            }
            if attempt > 0 {
                sleep(RETRY_INTERVAL * attempt).await;
            }
            let receipts: Vec<&str> = left.iter().map(|message| receipt(message)).collect();
            match self.transfer.source.delete(&receipts).await {
                Ok(places) => {
                    left = places.into_iter().map(|place| left[place]).collect();
                    failure = None;
                }
                Err(error) => failure = Some(error),
            }
        }
        let is_left = |message: &Message| left.iter().any(|other| id(other) == id(message));
        let gone = sent.iter().filter(|message| !is_left(message));
        self.moved.pointers += gone.clone().filter(|one| attribute(one, "ExtendedPayloadSize").is_some()).count();
        self.moved.moved += gone.count();
        self.moved.undeleted += left.len();
        if left.is_empty() {
            return Ok(());
        }
        let error = failure.unwrap_or_else(|| {
            QueueError::new("delete from", &self.transfer.source.name, "it is still there".to_owned())
        });
        Err(error.permanent())
    }
}

/// The reason why SQS did not store an entry of a batch.
#[derive(Clone)]
struct EntryError {
    class: ErrorClass,
    code: String,
}

/// Selects the messages of one batch, for a FIFO queue at most one of each group. Returns the batch and the rest.
fn batch(messages: Vec<Message>, way: Way<'_>) -> (Vec<Message>, Vec<Message>) {
    let (mut batch, mut rest) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    let mut groups = HashSet::new();
    for message in messages {
        let size = resend::size(&message);
        let first_of_group = !way.to_fifo || groups.insert(group_id(&message, way));
        if first_of_group && (batch.is_empty() || bytes + size <= MAX_MESSAGE_BYTES) {
            bytes += size;
            batch.push(message);
        } else {
            rest.push(message);
        }
    }
    (batch, rest)
}

/// Returns twice the time that a pass over this many messages should take.
fn pass_timeout(waiting: usize, rate: u32) -> Duration {
    let seconds = 2.0 * (count(waiting) / MIN_RATE + count(waiting) / f64::from(rate));
    Duration::from_secs_f64(seconds).clamp(MIN_PASS_TIMEOUT, MAX_PASS_TIMEOUT)
}

fn count(messages: usize) -> f64 {
    u32::try_from(messages).map_or(f64::MAX, f64::from)
}

fn id(message: &Message) -> &str {
    message.message_id.as_deref().unwrap_or_default()
}

fn receipt(message: &Message) -> &str {
    message.receipt_handle.as_deref().unwrap_or_default()
}
