//! One queue's share of a request: batches on their way, and what is done about those that fail.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Item, Queues, Share, call};
use crate::{
    message::{MOST_BYTES, Message},
    payload::{PayloadError, Payloads},
    routes::Queue,
};

/// Entries that SQS takes in one call.
pub(super) const MOST_ENTRIES: usize = 10;

/// After so many messages that SQS blamed alone while it stored none, it is the queue that is at fault, or all of them.
const MOST_BLAMED: usize = 20;

/// A call waits for its answer for a part of the time that is left, within these bounds.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(1);
const LONGEST_ATTEMPT: Duration = Duration::from_secs(2);

/// With less time left than this, another try would only make a copy that nobody waits for.
const NO_TIME: Duration = Duration::from_millis(200);

/// The pause before trying again is random, at first up to this long, then up to twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// Why an item is not on the queue it was for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// SQS says that the message itself is wrong.
    Refused(String),
    /// SQS says that the batch is wrong, but not which of its entries.
    Blamed(String),
    /// SQS says that the queue cannot be used.
    Unavailable(String),
    /// What may be over in a moment: throttling, an error of SQS's own, no answer.
    Passing(String),
    /// The body is too large for SQS, and S3 did not take it; that may be over in a moment.
    Payload(String),
    /// The body is too large for SQS, and the bucket cannot be used, or there is none.
    NoPayload(String),
}

impl Failure {
    /// What the log says of it.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Refused(text)
            | Self::Blamed(text)
            | Self::Unavailable(text)
            | Self::Passing(text)
            | Self::Payload(text)
            | Self::NoPayload(text) => text,
        }
    }

    /// Whether no queue can help, because it is S3 that fails.
    pub(super) fn is_of_payload(&self) -> bool {
        matches!(self, Self::Payload(_) | Self::NoPayload(_))
    }
}

/// The sending of one request's items to one queue.
pub(super) struct Sending<'s, 'p> {
    queues: &'s Queues,
    queue: &'s Queue,
    share: Share<'s>,
    /// When to give up a queue that fails.
    half: Instant,
    /// What became of what is still to be sent, if the queue was given up.
    broken: OnceLock<Failure>,
    /// Whether SQS stored any of it.
    works: AtomicBool,
    /// Messages that SQS blamed alone.
    blamed: AtomicUsize,
    failed: Mutex<Vec<(Item<'p>, Failure)>>,
}

/// Items that are sent in their order, but for the concurrency of those who take from it.
type Lane<'p> = Mutex<VecDeque<Item<'p>>>;

impl<'s, 'p> Sending<'s, 'p> {
    pub(super) fn new(queues: &'s Queues, queue: &'s Queue, half: Instant, share: Share<'s>) -> Self {
        Self {
            queues,
            queue,
            share,
            half,
            broken: OnceLock::new(),
            works: AtomicBool::default(),
            blamed: AtomicUsize::default(),
            failed: Mutex::default(),
        }
    }

    /// Sends the items, and gives back those that did not arrive, with the reason.
    pub(super) async fn send(self, items: Vec<Item<'p>>) -> Vec<(Item<'p>, Failure)> {
        if self.queue.fifo {
            let lanes = self.lanes(items);
            join_all(lanes.iter().map(|lane| self.work(lane))).await;
        } else {
            let shared = Mutex::new(items.into());
            join_all((0..self.share.calls).map(|_| self.work(&shared))).await;
        }
        self.failed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shares the items of a FIFO queue out so that a group's are all in one lane, which one worker empties.
    fn lanes(&self, items: Vec<Item<'p>>) -> Vec<Lane<'p>> {
        let mut lanes: Vec<_> = (0..self.share.calls).map(|_| VecDeque::new()).collect();
        for mut item in items {
            let mut hasher = DefaultHasher::new();
            self.message(&mut item).group_id.hash(&mut hasher);
            let lane = hasher.finish() % lanes.len() as u64;
            lanes[usize::try_from(lane).unwrap_or_default()].push_back(item);
        }
        lanes.into_iter().filter(|lane| !lane.is_empty()).map(Mutex::new).collect()
    }

    /// Empties a lane, batch by batch; what failed of one batch is tried again before the next is taken.
    async fn work(&self, lane: &Lane<'p>) {
        let (mut again, mut pauses) = (Vec::new(), Pauses::default());
        loop {
            let batch = if again.is_empty() { self.next_batch(lane) } else { std::mem::take(&mut again) };
            if batch.is_empty() {
                return;
            }
            let mut alone = Vec::new();
            let failed = self.attempt(batch).await;
            let pause = pauses.next();
            let (resume, last) = (Instant::now() + pause, self.share.until - NO_TIME);
            for (item, failure) in failed {
                match failure {
                    Failure::Passing(_) if resume < self.half.min(last) => {
                        self.share.metrics.count("QueueRetries", 1);
                        again.push(item);
                    }
                    Failure::Payload(_) if resume < last => again.push(item),
                    Failure::Blamed(_) => {
                        self.share.metrics.count("QueueRetries", 1);
                        alone.push(Item { alone: true, ..item });
                    }
                    Failure::Passing(ref reason) | Failure::Unavailable(ref reason) => {
                        let _ = self.broken.set(Failure::Unavailable(reason.clone()));
                        lock(&self.failed).push((item, failure));
                    }
                    Failure::Refused(_) | Failure::Payload(_) | Failure::NoPayload(_) => {
                        lock(&self.failed).push((item, failure));
                    }
                }
            }
            alone.into_iter().rev().for_each(|item| lock(lane).push_front(item));
            if again.is_empty() {
                pauses = Pauses::default();
            } else {
                sleep(pause).await;
            }
        }
    }

    /// Takes the items of one call from the front of a lane: what SQS takes at once, by count and by bytes.
    fn next_batch(&self, lane: &Lane<'p>) -> Vec<Item<'p>> {
        let (mut lane, mut batch, mut room) = (lock(lane), Vec::new(), MOST_BYTES);
        while let Some(mut item) = lane.pop_front() {
            let size = self.message(&mut item).size();
            // A body that goes to S3 first keeps no other waiting.
            let alone = item.alone || item.is_claim_check(size);
            if !batch.is_empty() && (alone || size > room) {
                lane.push_front(item);
                break;
            }
            batch.push(item);
            room = room.saturating_sub(size);
            if alone || batch.len() == MOST_ENTRIES {
                break;
            }
        }
        batch
    }

    /// Makes one call with all of the items, and gives back those that SQS did not store.
    async fn attempt(&self, mut batch: Vec<Item<'p>>) -> Vec<(Item<'p>, Failure)> {
        // What one worker has learned spares the others the same wait.
        if let Some(failure) = self.broken.get() {
            return all(batch, failure).collect();
        }
        let mut messages = Vec::with_capacity(batch.len());
        for item in &mut batch {
            self.message(item);
            messages.extend(item.ready.take());
        }
        // A claim check is alone in its batch.
        let mut checked = 0;
        if let [message] = &mut messages[..]
            && batch[0].is_claim_check(message.size())
        {
            if let Err(failure) = self.check_in(&batch[0], message).await {
                return all(batch, &failure).collect();
            }
            checked = 1;
        }
        let call = call::send_batch(&self.queues.client, &self.queue.url, messages);
        match timeout_at(self.attempt_ends(), call).await {
            Ok(Ok(outcomes)) => {
                if outcomes.iter().any(Result::is_ok) {
                    self.works.store(true, Relaxed);
                }
                if outcomes.iter().all(Result::is_ok) {
                    self.share.metrics.count("ClaimChecked", checked);
                }
                batch.into_iter().zip(outcomes).filter_map(|(item, stored)| Some((item, stored.err()?))).collect()
            }
            Ok(Err(Failure::Blamed(reason))) if batch.len() == 1 => {
                let refused = Failure::Refused(reason);
                let blamed = self.blamed.fetch_add(1, Relaxed) + 1;
                if Instant::now() >= self.half || (blamed >= MOST_BLAMED && !self.works.load(Relaxed)) {
                    let _ = self.broken.set(refused.clone());
                }
                all(batch, &refused).collect()
            }
            Ok(Err(failure)) => all(batch, &failure).collect(),
            Err(_) => all(batch, &Failure::Passing("no answer in time".to_owned())).collect(),
        }
    }

    /// Stores the message's body in S3 and makes the message point there.
    ///
    /// Each time anew: after a call whose answer was lost, two messages may be on the queue, and each must
    /// have an object of its own.
    async fn check_in(&self, item: &Item<'p>, message: &mut Message) -> Result<(), Failure> {
        let payloads = &self.queues.payloads;
        let bucket = payloads.bucket().map_err(|error| Failure::NoPayload(error.to_string()))?;
        let route = item.route.filter(|_| item.unrouted.is_none());
        let key = Payloads::key(route, item.event_id());
        let body = message.point_to(bucket, &key);
        match timeout_at(self.attempt_ends(), payloads.put(&key, body)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error @ PayloadError::Passing(_))) => Err(Failure::Payload(error.to_string())),
            Ok(Err(error)) => Err(Failure::NoPayload(error.to_string())),
            Err(_) => Err(Failure::Payload("S3 did not answer in time".to_owned())),
        }
    }

    /// When to stop waiting for an answer: early enough that there is time for another try or the catch-all, but
    /// not before a service that is merely slow has answered.
    fn attempt_ends(&self) -> Instant {
        let now = Instant::now();
        let left = self.share.until.saturating_duration_since(now);
        // Behind the catch-all there is nothing; before it, two tries have to fit into half of the time.
        let share = if self.half < self.share.until { left / 3 } else { left / 2 };
        now + share.clamp(SHORTEST_ATTEMPT, LONGEST_ATTEMPT).min(left)
    }

    fn message<'i>(&self, item: &'i mut Item<'p>) -> &'i mut Message {
        let (origin, fifo) = (self.share.origin, self.queue.fifo);
        let built = item.ready.take().unwrap_or_else(|| item.build(origin, fifo));
        item.ready.insert(built)
    }
}

/// Growing, random pauses: many sandboxes that fail at once must not come back at once.
#[derive(Default)]
struct Pauses(u32);

impl Pauses {
    fn next(&mut self) -> Duration {
        let longest = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(self.0));
        self.0 += 1;
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

fn all<'p>(items: Vec<Item<'p>>, failure: &Failure) -> impl Iterator<Item = (Item<'p>, Failure)> {
    items.into_iter().map(move |item| (item, failure.clone()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
