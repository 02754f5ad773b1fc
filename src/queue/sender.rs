//! Sends the items of one request to one queue: batches, retries, and second calls beside silent ones.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_sdk_sqs::Client;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use tokio::{
    select,
    sync::mpsc::UnboundedSender,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use whatsapp_webhook::{
    message::{MAX_MESSAGE_BYTES, Message},
    routes::Queue,
};

use super::{
    budget::{Permit, Share},
    call::{self, Batch, BatchResult},
    context::StoreContext,
    item::Item,
    send_error::SendError,
};
use crate::{
    metrics::Metric,
    payload::{PayloadError, Payloads},
};

/// SQS accepts at most this many entries in one call.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>
pub(super) const MAX_ENTRIES: usize = 10;

/// Gives up on the queue after this many isolated messages were rejected and none was stored.
const MAX_ISOLATED_REJECTIONS: usize = 20;

/// A queue that is too slow for its items gets no further batch once the time that is left is shorter than twice the last
/// latency and this margin.
const SLOW_QUEUE_MARGIN: Duration = Duration::from_millis(500);

/// After this silence, or a third of the time that is left if that is shorter, the queue is probed for a second call.
const SECOND_CALL_INTERVAL: Duration = Duration::from_secs(1);

/// After this silence of S3, or a third of the time that is left, the same object is uploaded a second time.
const SECOND_UPLOAD_INTERVAL: Duration = Duration::from_secs(2);

/// The wait before a retry is random, up to this long at first and up to twice as long each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(25);
const MAX_BACKOFF: Duration = Duration::from_millis(800);

/// Sends the items of one request to one queue.
pub(super) struct QueueSender<'s, 'p> {
    target: Target<'s>,
    /// When the sender gives up on a queue that keeps failing. The storage deadline if nothing can be diverted.
    divert_deadline: Instant,
    /// The error for all further items, once the sender gave up on the queue.
    gave_up: OnceLock<SendError>,
    has_stored: AtomicBool,
    /// Attempts that ended, with a response or an error.
    finished_attempts: AtomicUsize,
    /// How long the last attempt without an upload took, in milliseconds.
    last_latency: AtomicU64,
    isolated_rejections: AtomicUsize,
    unconfirmed: UnboundedSender<Unconfirmed<'s, 'p>>,
}

/// A queue, and how to send to it.
#[derive(Clone, Copy)]
pub(super) struct Target<'s> {
    pub(super) client: &'s Client,
    pub(super) queue: &'s Queue,
    pub(super) payloads: &'s Payloads,
    /// The account that the bucket must belong to.
    pub(super) bucket_owner: Option<&'s str>,
    pub(super) context: StoreContext<'s>,
    /// Batches that are under way at a time.
    pub(super) concurrency: usize,
    /// Limits them further, if other requests run at the same time.
    pub(super) share: Option<&'s Arc<Share>>,
    /// Whether a batch without an answer is given back when half of its time is over, to be diverted.
    pub(super) can_divert: bool,
    /// Whether a batch without an answer may have a second call.
    pub(super) allows_second_call: bool,
}

/// Items whose storage the queue did not confirm. The sender reports them at once.
pub(super) enum Unconfirmed<'s, 'p> {
    Failed(Item<'p>, SendError),
    Unanswered(Unanswered<'s, 'p>),
}

/// A batch whose calls may still succeed.
pub(super) struct Unanswered<'s, 'p> {
    pub(super) items: Vec<Item<'p>>,
    pub(super) calls: BoxFuture<'s, BatchResult>,
    pub(super) progress: Arc<Progress>,
}

/// How far the calls for a batch are.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) is_uploading: AtomicBool,
    pub(super) has_second_call: AtomicBool,
    /// The batch is on its way to the catch-all queue, so its own queue gets no further call.
    pub(super) is_diverted: AtomicBool,
    /// The entries that an answered call stored.
    stored: Mutex<Vec<usize>>,
    /// The error of the attempt before this one.
    previous_error: Option<SendError>,
}

/// Items that are sent in order. A standard queue has one shard for all workers, a FIFO queue one shard per worker.
type Shard<'p> = Mutex<VecDeque<Item<'p>>>;

impl<'s, 'p> QueueSender<'s, 'p> {
    /// Reports unconfirmed items to `unconfirmed`, which closes when the sender has ended.
    pub(super) fn new(target: Target<'s>, unconfirmed: UnboundedSender<Unconfirmed<'s, 'p>>) -> Self {
        Self {
            target,
            divert_deadline: target.divert_deadline(),
            gave_up: OnceLock::new(),
            has_stored: AtomicBool::default(),
            finished_attempts: AtomicUsize::default(),
            last_latency: AtomicU64::default(),
            isolated_rejections: AtomicUsize::default(),
            unconfirmed,
        }
    }

    /// Sends the items until all are stored, the time is over, or the queue turns out to be unavailable.
    pub(super) async fn send(self, items: Vec<Item<'p>>) {
        if self.target.queue.fifo {
            let shards = self.shard_by_group(items);
            join_all(shards.iter().map(|shard| self.work(shard))).await;
        } else {
            let shared = Mutex::new(items.into());
            join_all((0..self.target.concurrency).map(|_| self.work(&shared))).await;
        }
    }

    /// Distributes the items of a FIFO queue so that one worker sends all items of a group, and all have about as many.
    fn shard_by_group(&self, items: Vec<Item<'p>>) -> Vec<Shard<'p>> {
        let mut shards: Vec<VecDeque<_>> = (0..self.target.concurrency).map(|_| VecDeque::new()).collect();
        let mut by_group = HashMap::new();
        for item in items {
            let shortest = || (0..shards.len()).min_by_key(|shard| shards[*shard].len()).unwrap_or_default();
            let shard = *by_group.entry(item.group_id(self.target.context.request)).or_insert_with(shortest);
            shards[shard].push_back(item);
        }
        shards.into_iter().filter(|shard| !shard.is_empty()).map(Mutex::new).collect()
    }

    /// Sends a shard batch by batch. Retries the failed entries of a batch before it takes the next one.
    async fn work(&self, shard: &Shard<'p>) {
        let (context, mut retries, mut backoff) = (self.target.context, Vec::new(), Backoff::default());
        let (mut divert_at, mut last_error) = (self.divert_deadline, None);
        loop {
            let permit = self.acquire_permit().await;
            let batch = if retries.is_empty() {
                if self.is_too_slow_for(shard) {
                    return self
                        .fail_rest(shard, &SendError::Transient("too slow for the time that is left".to_owned()));
                }
                // A new batch and its retries together get half of the time that is left.
                (divert_at, last_error) = (self.target.divert_deadline(), None);
                self.next_batch(shard)
            } else {
                std::mem::take(&mut retries)
            };
            if batch.is_empty() {
                return;
            }
            let mut isolated = Vec::new();
            let Some(failed) = self.attempt(batch, divert_at, last_error.clone(), permit).await else {
                if self.target.queue.fifo {
                    // The next batch must not overtake this one.
                    return self.fail_rest(shard, &SendError::no_answer());
                }
                continue;
            };
            let wait = backoff.next();
            let retry_at = Instant::now() + wait;
            for (item, error) in failed {
                match error {
                    SendError::Transient(_) if retry_at < self.divert_deadline && context.has_time_at(retry_at) => {
                        context.metrics.count(Metric::QueueRetries, 1);
                        last_error = Some(error);
                        retries.push(item);
                    }
                    SendError::BatchRejected(_) => {
                        context.metrics.count(Metric::QueueRetries, 1);
                        isolated.push(item.isolated());
                    }
                    SendError::Transient(_) | SendError::QueueUnavailable(_) | SendError::ExpiredCredentials(_) => {
                        let _ = self.gave_up.set(error.clone());
                        self.fail(item, error);
                    }
                    SendError::EntryRejected(_) | SendError::PayloadNotStored(_) => self.fail(item, error),
                }
            }
            isolated.into_iter().rev().for_each(|item| lock(shard).push_front(item));
            if retries.is_empty() {
                backoff = Backoff::default();
            } else {
                sleep(wait).await;
            }
        }
    }

    /// Waits for the permission for a batch, at most until the rest has to be diverted.
    async fn acquire_permit(&self) -> Option<Permit> {
        timeout_at(self.divert_deadline, self.target.share?.acquire()).await.ok()
    }

    fn fail(&self, item: Item<'p>, error: SendError) {
        // The receiver outlives the sender.
        let _ = self.unconfirmed.send(Unconfirmed::Failed(item, error));
    }

    fn fail_rest(&self, shard: &Shard<'p>, error: &SendError) {
        while let Some(item) = lock(shard).pop_front() {
            self.fail(item, error.clone());
        }
    }

    /// Whether the rest of a shard has to be diverted now, because the queue is too slow to take it in time.
    ///
    /// That is so if the batches that are left take too long, and after another one there would be no time to divert the rest.
    fn is_too_slow_for(&self, shard: &Shard<'p>) -> bool {
        let latency = Duration::from_millis(self.last_latency.load(Relaxed));
        let workers = self.target.concurrency;
        // Workers without a permit wait for those with one.
        let active = self.target.share.map_or(workers, |share| share.batches().clamp(1, workers));
        let rounds = if self.target.queue.fifo {
            lock(shard).len().div_ceil(MAX_ENTRIES) * workers.div_ceil(active)
        } else {
            lock(shard).len().div_ceil(MAX_ENTRIES * active)
        };
        let time = self.target.context.deadline.saturating_duration_since(Instant::now());
        self.target.can_divert
            && latency.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX)) > time
            && latency * 2 + SLOW_QUEUE_MARGIN > time
    }

    /// Takes the items of one call from the front of a shard, within SQS's limits of count and bytes.
    fn next_batch(&self, shard: &Shard<'p>) -> Vec<Item<'p>> {
        let (request, fifo) = (self.target.context.request, self.target.queue.fifo);
        let (mut shard, mut batch, mut bytes_left) = (lock(shard), Vec::new(), MAX_MESSAGE_BYTES);
        while let Some(mut item) = shard.pop_front() {
            let size = item.message(request, fifo).size();
            // An upload to S3 must not delay other items.
            let needs_own_call = item.is_isolated || item.is_claim_check(size);
            if !batch.is_empty() && (needs_own_call || size > bytes_left) {
                shard.push_front(item);
                break;
            }
            batch.push(item);
            bytes_left = bytes_left.saturating_sub(size);
            if needs_own_call || batch.len() == MAX_ENTRIES {
                break;
            }
        }
        batch
    }

    /// Sends one batch and returns the items that SQS did not store.
    ///
    /// A batch without an answer at `divert_at` becomes [`Unanswered`], and the result is `None`. Even if `divert_at` is earlier,
    /// the attempt gets [`SECOND_CALL_INTERVAL`], or a third of the time that is left if that is shorter.
    async fn attempt(
        &self,
        mut items: Vec<Item<'p>>,
        divert_at: Instant,
        previous_error: Option<SendError>,
        permit: Option<Permit>,
    ) -> Option<Vec<(Item<'p>, SendError)>> {
        // The other workers need not find out again that the queue is unavailable.
        if let Some(error) = self.gave_up.get() {
            return Some(all_failed(items, error));
        }
        let (target, started) = (self.target, Instant::now());
        if !target.context.has_time_at(started) {
            return Some(all_failed(items, &SendError::no_time_left()));
        }
        let messages: Vec<_> =
            items.iter_mut().map(|item| item.take_message(target.context.request, target.queue.fifo)).collect();
        let progress = Arc::new(Progress { previous_error, ..Progress::default() });
        let bytes = messages.iter().map(Message::size).sum();
        // A claim check has a batch of its own.
        let is_claim_check = messages.len() == 1 && items[0].is_claim_check(messages[0].size());
        let mut calls = if is_claim_check {
            target.upload_and_send(&items[0], messages, &progress)
        } else {
            let batch = Batch::new(&target.queue.url, &messages);
            // Otherwise the messages and the serialized batch would both be in memory during the call.
            drop(messages);
            target.send_with_second_call(batch, &progress)
        };
        if let Some(mut permit) = permit {
            permit.add_bytes(bytes);
            // A call holds its part of the budget as long as it may still succeed.
            calls = calls.inspect(|_| drop(permit)).boxed();
        }
        let finished_before = self.finished_attempts.load(Relaxed);
        select! {
            biased;
            result = &mut calls => {
                self.finished_attempts.fetch_add(1, Relaxed);
                if !is_claim_check {
                    let latency = started.elapsed().as_millis();
                    self.last_latency.store(u64::try_from(latency).unwrap_or(u64::MAX), Relaxed);
                }
                Some(self.failed_items(items, result))
            }
            () = sleep_until(divert_at.max(target.context.interval_deadline(SECOND_CALL_INTERVAL))) => {
                if !target.can_divert {
                    let result = progress.unanswered_result(items.len());
                    return Some(unstored(items, result));
                }
                // If other attempts ended meanwhile, only this one is lost or late.
                if self.finished_attempts.load(Relaxed) == finished_before {
                    let _ = self.gave_up.set(SendError::no_answer());
                }
                let _ = self.unconfirmed.send(Unconfirmed::Unanswered(Unanswered { items, calls, progress }));
                None
            }
        }
    }

    fn failed_items(&self, items: Vec<Item<'p>>, result: BatchResult) -> Vec<(Item<'p>, SendError)> {
        if result.as_ref().is_ok_and(|results| results.iter().any(Result::is_ok)) {
            self.has_stored.store(true, Relaxed);
        }
        let Err(SendError::BatchRejected(reason)) = result else { return unstored(items, result) };
        if items.len() > 1 {
            return all_failed(items, &SendError::BatchRejected(reason));
        }
        let error = SendError::EntryRejected(reason);
        let rejections = self.isolated_rejections.fetch_add(1, Relaxed) + 1;
        let is_queue_at_fault = rejections >= MAX_ISOLATED_REJECTIONS && !self.has_stored.load(Relaxed);
        if is_queue_at_fault || Instant::now() >= self.divert_deadline {
            let _ = self.gave_up.set(error.clone());
        }
        all_failed(items, &error)
    }
}

impl<'s> Target<'s> {
    /// When half of the time that is left will be over, or all of it if nothing can be diverted.
    fn divert_deadline(&self) -> Instant {
        if self.can_divert { self.context.half_time_deadline() } else { self.context.deadline }
    }

    /// Sends a batch, and once more if the first call stays silent although the queue answers a probe.
    ///
    /// The probe is an empty batch on another connection, which stores nothing. It tells a lost call from a service that
    /// is slow for every call, so a slow SQS gets no second copy.
    fn send_with_second_call(self, batch: Batch, progress: &Arc<Progress>) -> BoxFuture<'s, BatchResult> {
        let (context, progress, entries) = (self.context, Arc::clone(progress), batch.entries());
        async move {
            let send =
                || call::send_batch(self.client, batch.clone()).inspect(|result| progress.note_stored(result)).boxed();
            let first = send();
            if !self.allows_second_call {
                return first.await;
            }
            let second = async {
                sleep_until(context.interval_deadline(SECOND_CALL_INTERVAL)).await;
                context.pend_if_no_time_left().await;
                call::probe(self.client, &self.queue.url).boxed().await?;
                context.pend_if_no_time_left().await;
                if progress.is_diverted.load(Relaxed) {
                    return std::future::pending().await;
                }
                progress.has_second_call.store(true, Relaxed);
                context.metrics.count(Metric::QueueRetries, 1);
                send().await
            };
            let result = first_success(first, second, &progress.has_second_call, is_stored).await;
            progress.complete(result, entries)
        }
        .boxed()
    }

    /// Stores the body of a claim check in S3, then sends the message that points there.
    ///
    /// Each attempt uses a new object: if the response to an earlier call was lost, two messages may be on the queue.
    fn upload_and_send(
        self,
        item: &Item<'_>,
        mut messages: Vec<Message>,
        progress: &Arc<Progress>,
    ) -> BoxFuture<'s, BatchResult> {
        let key = Payloads::key(item.route, item.event_id());
        let (context, progress) = (self.context, Arc::clone(progress));
        async move {
            let bucket = self.payloads.bucket()?;
            let body = Bytes::from(messages[0].replace_body_with_pointer(bucket, &key));
            progress.is_uploading.store(true, Relaxed);
            self.upload(&key, body).await?;
            progress.is_uploading.store(false, Relaxed);
            if !context.has_time_at(Instant::now()) {
                return Err(SendError::no_time_left());
            }
            let result = call::send_batch(self.client, Batch::new(&self.queue.url, &messages)).boxed().await;
            if let Ok([Ok(())]) = result.as_deref() {
                context.metrics.count(Metric::ClaimChecked, 1);
            }
            result
        }
        .boxed()
    }

    /// Stores a body in S3. Retries transient errors, and uploads the same object once more if S3 stays silent.
    async fn upload(&self, key: &str, body: Bytes) -> Result<(), PayloadError> {
        let (context, mut backoff) = (self.context, Backoff::default());
        loop {
            let is_second_under_way = AtomicBool::default();
            let first = self.payloads.put(key, body.clone(), self.bucket_owner).boxed();
            let second = async {
                sleep_until(context.interval_deadline(SECOND_UPLOAD_INTERVAL)).await;
                context.pend_if_no_time_left().await;
                is_second_under_way.store(true, Relaxed);
                self.payloads.put(key, body.clone(), self.bucket_owner).boxed().await
            };
            let result = first_success(first, second, &is_second_under_way, Result::is_ok).await;
            let wait = backoff.next();
            if !matches!(result, Err(PayloadError::Transient(_))) || !context.has_time_at(Instant::now() + wait) {
                return result;
            }
            sleep(wait).await;
        }
    }
}

impl Progress {
    /// Waits for the calls of a batch until the storage time is over.
    pub(super) async fn result_by_deadline(
        &self,
        calls: BoxFuture<'_, BatchResult>,
        entries: usize,
        deadline: Instant,
    ) -> BatchResult {
        timeout_at(deadline, calls).await.unwrap_or_else(|_| self.unanswered_result(entries))
    }

    fn note_stored(&self, result: &BatchResult) {
        if let Ok(results) = result {
            lock(&self.stored).extend((0..results.len()).filter(|entry| results[*entry].is_ok()));
        }
    }

    /// The result of a batch, with the entries that any of its calls stored.
    fn complete(&self, result: BatchResult, entries: usize) -> BatchResult {
        let stored = lock(&self.stored);
        if stored.is_empty() || is_stored(&result) {
            return result;
        }
        let result_of = |entry| match &result {
            _ if stored.contains(&entry) => Ok(()),
            Ok(results) => results[entry].clone(),
            Err(error) => Err(error.clone()),
        };
        Ok((0..entries).map(result_of).collect())
    }

    /// The result of a batch of which not all calls were answered in time.
    pub(super) fn unanswered_result(&self, entries: usize) -> BatchResult {
        self.complete(Err(self.unanswered_error()), entries)
    }

    /// The error of a batch whose time is over.
    fn unanswered_error(&self) -> SendError {
        if self.is_uploading.load(Relaxed) {
            PayloadError::Transient("no answer in time".to_owned()).into()
        } else {
            self.previous_error.clone().unwrap_or_else(SendError::no_answer)
        }
    }
}

/// Returns the first success of two calls, or the result of the first call if neither succeeds.
///
/// If the first call fails before the second one is under way, its result is final.
async fn first_success<T, E>(
    first: impl Future<Output = Result<T, E>>,
    second: impl Future<Output = Result<T, E>>,
    is_second_under_way: &AtomicBool,
    is_success: fn(&Result<T, E>) -> bool,
) -> Result<T, E> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    select! {
        biased;
        result = &mut first => {
            if is_success(&result) || !is_second_under_way.load(Relaxed) {
                return result;
            }
            let other = second.await;
            if is_success(&other) { other } else { result }
        }
        result = &mut second => if is_success(&result) { result } else { first.await },
    }
}

/// Whether all entries of a batch are stored.
fn is_stored(result: &BatchResult) -> bool {
    result.as_ref().is_ok_and(|results| results.iter().all(Result::is_ok))
}

/// Growing, random waits, so that execution environments that fail together do not retry together.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn next(&mut self) -> Duration {
        let longest = MAX_BACKOFF.min(FIRST_BACKOFF * 2_u32.saturating_pow(self.0));
        self.0 += 1;
        longest.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// The items of a batch that are not stored by its result.
pub(super) fn unstored(items: Vec<Item<'_>>, result: BatchResult) -> Vec<(Item<'_>, SendError)> {
    match result {
        Ok(results) => {
            items.into_iter().zip(results).filter_map(|(item, result)| Some((item, result.err()?))).collect()
        }
        Err(error) => all_failed(items, &error),
    }
}

fn all_failed<'p>(items: Vec<Item<'p>>, error: &SendError) -> Vec<(Item<'p>, SendError)> {
    items.into_iter().map(|item| (item, error.clone())).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
