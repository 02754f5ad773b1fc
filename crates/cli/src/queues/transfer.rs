//! Messages from one queue to others: each is received, sent, and only then deleted.
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
    queue::{MAX_BATCH, Queue, is_fifo, name},
    resend::{self, Way, attribute, group_id, system_attribute},
};

/// For the send and the deletion of what is received at once. Should the run be killed, it is back after this.
const HIDDEN: Duration = Duration::from_secs(30);
/// Nothing is sent later after its receipt, or it could be in sight again before it is deleted.
const SENDABLE: Duration = Duration::from_secs(15);
/// What is not to be moved is hidden for as long as the whole queue takes, so that it is received once.
const SHORTEST_PASS: Duration = Duration::from_mins(2);
const LONGEST_PASS: Duration = Duration::from_hours(6);
/// Messages in a second that are looked at even from afar.
const SLOWEST: f64 = 25.0;
/// What is not to be moved, and so hidden: SQS hides 120,000 messages of a queue at most, its consumers' among them.
const MOST_STAYING: usize = 50_000;
/// Long enough that SQS queries all of its servers.
const WAIT: Duration = Duration::from_secs(1);
/// Receives in a row that get nothing new before the queue counts as gone through.
const EMPTY_IN_A_ROW: u32 = 3;
/// Calls in a row that fail for the moment before the run is given up; the pauses between them double.
const MOST_TROUBLES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// SQS remembers a deduplication id for 5 minutes, and would take a dead letter for a copy of itself; clocks differ.
const REMEMBERED: Duration = Duration::from_mins(6);

/// A queue whose messages are to be moved.
#[derive(Debug)]
pub struct Transfer {
    pub(crate) source: Queue,
    pub(crate) choice: Choice,
    pub(crate) group_key: String,
}

/// What waits before a move, by the counts of the queues alone.
#[derive(Debug, Serialize)]
pub struct Waits {
    /// The queue that is gone through.
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
    /// Messages that waited there at the start, as far as SQS counts them.
    pub waiting: usize,
    /// Messages that are now where they belong.
    pub moved: usize,
    /// Of these, those whose body is in S3.
    pub pointers: usize,
    /// Messages that are not to be moved.
    pub others: usize,
    /// Messages that came while this ran.
    pub later: usize,
    /// Dead letters whose deduplication id SQS still remembers.
    pub young: usize,
    /// Messages that their queue refuses, by SQS's code.
    pub refused: BTreeMap<String, usize>,
    /// Messages that were sent, and are still here too.
    pub undeleted: usize,
    /// Why the queue was not gone through to its end.
    pub stopped: Option<String>,
    /// Messages that another reader hides, or a run that was killed.
    pub hidden: usize,
}

/// Why a message stays where it is.
enum SkipReason {
    Other,
    Later,
    Young,
    Refused(String),
}

impl TransferReport {
    /// Whether all that was to be moved was.
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

    /// Counts what waits, for which no message is received.
    pub async fn waiting(&self) -> Result<Waits, QueueError> {
        let mut to = Vec::new();
        for url in self.targets() {
            let queue = Queue::new(&self.source.client, url);
            to.push(Waiting::new(&queue, queue.counts().await?.0));
        }
        Ok(Waits { from: Waiting::new(&self.source, self.source.counts().await?.0), to })
    }

    /// Goes through the queue once, until `stop` is set, and shows again what stays.
    pub async fn run(
        &self,
        pace: Pace,
        stop: &AtomicBool,
        mut progress: impl FnMut(&TransferReport),
    ) -> TransferReport {
        let mut pass = Pass::new(self, pace);
        let passed = pass.go(stop, &mut progress).await;
        let staying: Vec<String> = pass.staying.into_values().collect();
        // What cannot be shown now is back when its time is over.
        let _ = self.source.hide(&staying, Duration::ZERO).await;
        let mut moved = pass.moved;
        moved.stopped = passed.err();
        moved.hidden = self.source.counts().await.map_or(0, |(counts, _)| counts.in_flight);
        moved
    }
}

/// One way through the queue.
struct Pass<'p> {
    what: &'p Transfer,
    pace: Pace,
    began: SystemTime,
    until: Instant,
    next: Instant,
    moved: TransferReport,
    /// The last receipt of each message that stays, by its id.
    staying: HashMap<String, String>,
}

impl<'p> Pass<'p> {
    fn new(what: &'p Transfer, pace: Pace) -> Self {
        let now = Instant::now();
        let moved = TransferReport { from: what.source.name.clone(), ..TransferReport::default() };
        Self { what, pace, began: SystemTime::now(), until: now, next: now, moved, staying: HashMap::new() }
    }

    async fn go(&mut self, stop: &AtomicBool, progress: &mut impl FnMut(&TransferReport)) -> Result<(), String> {
        let counts = self.what.source.counts().await;
        self.moved.waiting = counts.map_err(|error| error.to_string())?.0.visible;
        self.until += longest(self.moved.waiting, self.pace.rate);
        let (mut nothing_new, mut troubles) = (0, 0);
        while nothing_new < EMPTY_IN_A_ROW && self.moved.moved < self.pace.most {
            sleep_until(self.next).await;
            if stop.load(Ordering::Relaxed) {
                return Err("interrupted".to_owned());
            }
            if self.staying.len() >= MOST_STAYING || Instant::now() >= self.until {
                return Err("too much on the queue that stays there: not all was looked at".to_owned());
            }
            match self.step().await {
                Ok(new) => (nothing_new, troubles) = (if new { 0 } else { nothing_new + 1 }, 0),
                Err(error) if error.is_transient && troubles < MOST_TROUBLES => {
                    sleep(FIRST_PAUSE * 2_u32.pow(troubles)).await;
                    troubles += 1;
                }
                Err(error) => return Err(error.to_string()),
            }
            progress(&self.moved);
        }
        Ok(())
    }

    /// Receives once and sends what is to be sent; tells whether there was anything not seen before.
    async fn step(&mut self) -> Result<bool, QueueError> {
        let most = i32::try_from(self.pace.most - self.moved.moved).unwrap_or(MAX_BATCH);
        let messages = self.what.source.receive(most, HIDDEN, WAIT).await?;
        let received = Instant::now();
        let new = messages.iter().any(|message| !self.staying.contains_key(id(message)));
        let mut leaving = BTreeMap::<&str, Vec<Message>>::new();
        let mut staying = Vec::new();
        for message in messages {
            match self.target(&message) {
                Ok(target) => leaving.entry(target).or_default().push(message),
                Err(why) => staying.push((message, why)),
            }
        }
        self.keep(staying).await;
        for (target, messages) in leaving {
            self.forward(target, messages, received).await?;
        }
        Ok(new)
    }

    fn target(&self, message: &Message) -> Result<&'p str, SkipReason> {
        let target = self.what.choice.target(message).ok_or(SkipReason::Other)?;
        let sent = system_attribute(message, &MessageSystemAttributeName::SentTimestamp);
        let sent = UNIX_EPOCH + Duration::from_millis(sent.and_then(|sent| sent.parse().ok()).unwrap_or_default());
        // What failed again after it was moved is back already, and would go round for as long as it fails.
        if sent > self.began {
            return Err(SkipReason::Later);
        }
        let young = self.what.source.is_fifo() && is_fifo(target) && sent > self.began - REMEMBERED;
        if young { Err(SkipReason::Young) } else { Ok(target) }
    }

    /// Hides messages until the pass is over, and counts each once.
    async fn keep(&mut self, messages: Vec<(Message, SkipReason)>) {
        if messages.is_empty() {
            return;
        }
        let mut receipts = Vec::new();
        for (message, why) in messages {
            receipts.push(receipt(&message).to_owned());
            if self.staying.insert(id(&message).to_owned(), receipt(&message).to_owned()).is_some() {
                continue;
            }
            match why {
                SkipReason::Other => self.moved.others += 1,
                SkipReason::Later => self.moved.later += 1,
                SkipReason::Young => self.moved.young += 1,
                SkipReason::Refused(code) => *self.moved.refused.entry(code).or_default() += 1,
            }
        }
        let rest = self.until.saturating_duration_since(Instant::now()) + HIDDEN;
        // What cannot be hidden is received again, and hidden then.
        let _ = self.what.source.hide(&receipts, rest).await;
    }

    /// Sends messages to a queue and deletes those that it took.
    ///
    /// To a FIFO queue only one message of a group goes at a time, so that none overtakes one that is not taken.
    async fn forward(&mut self, target: &str, messages: Vec<Message>, received: Instant) -> Result<(), QueueError> {
        let source = &self.what.source;
        let way = Way { from_fifo: source.is_fifo(), to_fifo: is_fifo(target), group_key: &self.what.group_key };
        let mut waiting = messages;
        let mut again = Vec::new();
        let mut trouble = Ok(());
        while !waiting.is_empty() && trouble.is_ok() && received.elapsed() < SENDABLE {
            let (batch, rest) = batch(waiting, way);
            waiting = rest;
            let outcomes = match self.send(target, &batch, way).await {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    again.extend(batch);
                    trouble = Err(error);
                    break;
                }
            };
            let (mut sent, mut staying, mut stuck) = (Vec::new(), Vec::new(), HashSet::new());
            for (message, outcome) in batch.into_iter().zip(outcomes) {
                if outcome.is_err() && way.to_fifo {
                    stuck.extend(group_id(&message, way));
                }
                match outcome {
                    Ok(()) => sent.push(message),
                    Err(EntryError { class: ErrorClass::Rejected, code }) => {
                        staying.push((message, SkipReason::Refused(code)));
                    }
                    Err(EntryError { class, code }) => {
                        // An unavailable queue ends the run, whatever the other entries of the batch failed of.
                        if trouble.as_ref().err().is_none_or(|error: &QueueError| error.is_transient) {
                            let error = QueueError::new("send to", name(target), code);
                            let is_transient = class == ErrorClass::Transient;
                            trouble = Err(if is_transient { error } else { error.permanent() });
                        }
                        again.push(message);
                    }
                }
            }
            if let Err(error) = self.delete(&sent).await {
                trouble = Err(error);
            }
            if !stuck.is_empty() {
                let is_stuck = |message: &Message| group_id(message, way).is_some_and(|group| stuck.contains(&group));
                let (behind, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_stuck);
                again.extend(behind);
                waiting = rest;
            }
            self.keep(staying).await;
        }
        again.extend(waiting);
        let again: Vec<String> = again.iter().map(|message| receipt(message).to_owned()).collect();
        // What cannot be shown now is back in half a minute.
        let _ = self.what.source.hide(&again, Duration::ZERO).await;
        trouble
    }

    async fn send(
        &self,
        target: &str,
        batch: &[Message],
        way: Way<'_>,
    ) -> Result<Vec<Result<(), EntryError>>, QueueError> {
        let entries = batch.iter().enumerate().map(|(id, message)| resend::entry(id, message, way)).collect();
        let call = self.what.source.client.send_message_batch().queue_url(target).set_entries(Some(entries));
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

    /// Deletes what was sent. What is still there after some tries ends the run: more would only be doubled.
    async fn delete(&mut self, sent: &[Message]) -> Result<(), QueueError> {
        self.next =
            self.next.max(Instant::now()) + Duration::from_secs_f64(count(sent.len()) / f64::from(self.pace.rate));
        let mut left: Vec<&Message> = sent.iter().collect();
        let mut trouble = None;
        for attempt in 0..4 {
            if left.is_empty() {
                break;
            }
            if attempt > 0 {
                sleep(FIRST_PAUSE * attempt).await;
            }
            let receipts: Vec<&str> = left.iter().map(|message| receipt(message)).collect();
            match self.what.source.delete(&receipts).await {
                Ok(places) => {
                    left = places.into_iter().map(|place| left[place]).collect();
                    trouble = None;
                }
                Err(error) => trouble = Some(error),
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
        let error = trouble
            .unwrap_or_else(|| QueueError::new("delete from", &self.what.source.name, "it is still there".to_owned()));
        Err(error.permanent())
    }
}

/// The reason why SQS did not store an entry of a batch.
#[derive(Clone)]
struct EntryError {
    class: ErrorClass,
    code: String,
}

/// The first messages, in their order, as far as SQS takes them at once, and the others.
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

/// Ample time for so many messages.
fn longest(waiting: usize, rate: u32) -> Duration {
    let seconds = 2.0 * (count(waiting) / SLOWEST + count(waiting) / f64::from(rate));
    Duration::from_secs_f64(seconds).clamp(SHORTEST_PASS, LONGEST_PASS)
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
