//! Sends the items of one request to one queue, with batches, retries, and second calls for batches without a response.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock,
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
    lock::lock,
    metrics::Metric,
    payload::{PayloadError, Payloads},
};

/// The maximum number of entries of a batch in SQS.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>
pub(super) const MAX_ENTRIES: usize = 10;

/// The sender gives up on the queue after SQS rejected this many single-message batches and stored no message.
const MAX_SINGLE_MESSAGE_REJECTIONS: usize = 20;

/// A queue that is too slow for its items gets no further batch when the time that is left is shorter than this margin plus
/// twice the last latency.
const SLOW_QUEUE_MARGIN: Duration = Duration::from_millis(500);

/// If a call has no response for this long, the sender probes the queue. If the queue responds to the probe, the sender repeats
/// the call.
///
/// A third of the time that is left counts instead if that is shorter.
const SECOND_CALL_INTERVAL: Duration = Duration::from_secs(1);

/// If an upload to S3 has no response for this long, the sender uploads the same object a second time.
///
/// A third of the time that is left counts instead if that is shorter.
const SECOND_UPLOAD_INTERVAL: Duration = Duration::from_secs(2);

/// The maximum wait before the first retry. It doubles with each further retry, up to [`MAX_BACKOFF`]. The wait itself is random,
/// between half of this maximum and the maximum.
const FIRST_BACKOFF: Duration = Duration::from_millis(25);

/// The maximum wait before any retry.
const MAX_BACKOFF: Duration = Duration::from_millis(800);

/// Sends the items of one request to one queue.
pub(super) struct QueueSender<'s, 'p> {
    target: Target<'s>,
    /// Half of the storage time. A batch that still waits for a permit is then sent without one.
    permit_deadline: Instant,
    /// The same, or the end of the storage time if nothing can be diverted. After it, the sender gives up on the queue instead of
    /// retrying, and if SQS rejects a single-message batch, even if the queue stored earlier batches.
    give_up_deadline: Instant,
    /// Set when the sender gives up on the queue: the error of all further items.
    gave_up: OnceLock<SendError>,
    /// Whether the queue has stored at least one message.
    has_stored: AtomicBool,
    /// The number of attempts that ended with a response or an error.
    finished_attempts: AtomicUsize,
    /// How long the last finished attempt took, in milliseconds. Attempts with an upload do not count.
    last_latency: AtomicU64,
    /// The number of single-message batches that SQS rejected.
    single_message_rejections: AtomicUsize,
    unconfirmed_sender: UnboundedSender<Unconfirmed<'s, 'p>>,
}

/// A queue, and how to send to it.
#[derive(Clone, Copy)]
pub(super) struct Target<'s> {
    pub(super) client: &'s Client,
    pub(super) queue: &'s Queue,
    pub(super) payloads: &'s Payloads,
    pub(super) store_context: StoreContext<'s>,
    pub(super) limits: &'s QueueLimits,
    /// Whether the receiver of unconfirmed items diverts them. If not, each batch may use all of the time that is left.
    pub(super) can_divert: bool,
}

/// The limits of the calls for one queue.
#[derive(Clone)]
pub(super) struct QueueLimits {
    /// The number of batches that may be under way at a time.
    pub(super) concurrency: usize,
    /// A part of the budget of all requests, which limits the batches further. `None`: no further limit.
    pub(super) share: Option<Arc<Share>>,
    /// Whether a batch without a response may have a second call.
    pub(super) allows_second_call: bool,
}

/// Items whose storage the queue did not confirm.
pub(super) enum Unconfirmed<'s, 'p> {
    /// An item that is not stored.
    Failed(Item<'p>, SendError),
    /// A batch whose calls may still succeed.
    Unanswered(UnansweredBatch<'s, 'p>),
}

/// A batch that had no response at its divert deadline.
pub(super) struct UnansweredBatch<'s, 'p> {
    pub(super) items: Vec<Item<'p>>,
    /// All calls for the batch, which are still under way.
    pub(super) calls: BoxFuture<'s, BatchResult>,
    pub(super) progress: Arc<Progress>,
}

/// The progress of the calls for a batch.
#[derive(Default)]
pub(super) struct Progress {
    /// Whether the body of the batch's message is being uploaded to S3.
    pub(super) is_uploading: AtomicBool,
    pub(super) has_second_call: AtomicBool,
    /// Whether the batch is being diverted to the catch-all queue. Its own queue then gets no further call.
    pub(super) is_diverted: AtomicBool,
    /// The indices of the entries that one of the calls stored.
    stored: Mutex<Vec<usize>>,
    /// The error of the previous attempt to send these items. Replaces `no answer in time` in the log, because it names the cause.
    previous_error: Option<SendError>,
}

/// Items that are sent in order. The workers of a standard queue all take items from one shard. Each worker of a FIFO queue has a
/// shard of its own.
type Shard<'p> = Mutex<VecDeque<Item<'p>>>;

impl<'s, 'p> QueueSender<'s, 'p> {
    /// The sender reports each unconfirmed item at once to `unconfirmed_sender`, which is closed after all items.
    pub(super) fn new(target: Target<'s>, unconfirmed_sender: UnboundedSender<Unconfirmed<'s, 'p>>) -> Self {
        Self {
            target,
            permit_deadline: target.store_context.one_half_deadline(),
            give_up_deadline: target.next_divert_deadline(),
            gave_up: OnceLock::new(),
            has_stored: AtomicBool::default(),
            finished_attempts: AtomicUsize::default(),
            last_latency: AtomicU64::default(),
            single_message_rejections: AtomicUsize::default(),
            unconfirmed_sender,
        }
    }

    /// Sends the items until each of them is stored or was reported as unconfirmed.
    pub(super) async fn send(self, items: Vec<Item<'p>>) {
        if self.target.queue.fifo {
            let shards = self.shard_by_group(items);
            join_all(shards.iter().map(|shard| self.work(shard))).await;
        } else {
            let shared = Mutex::new(items.into());
            join_all((0..self.target.limits.concurrency).map(|_| self.work(&shared))).await;
        }
    }

    /// Distributes the items of a FIFO queue to shards of similar length. All items of a group are in the same shard.
    fn shard_by_group(&self, items: Vec<Item<'p>>) -> Vec<Shard<'p>> {
        let mut shards: Vec<VecDeque<_>> = (0..self.target.limits.concurrency).map(|_| VecDeque::new()).collect();
        let mut by_group = HashMap::new();
        for item in items {
            let shortest = || (0..shards.len()).min_by_key(|shard| shards[*shard].len()).unwrap_or_default();
            let shard = *by_group.entry(item.group_id(self.target.store_context.request)).or_insert_with(shortest);
            shards[shard].push_back(item);
        }
        shards.into_iter().filter(|shard| !shard.is_empty()).map(Mutex::new).collect()
    }

    /// Sends a shard batch by batch. Retries the failed entries of a batch before it takes the next one.
    async fn work(&self, shard: &Shard<'p>) {
        let (store_context, mut retries, mut backoff) = (self.target.store_context, Vec::new(), Backoff::default());
        let (mut batch_divert_deadline, mut last_error) = (self.give_up_deadline, None);
        loop {
            let permit = self.acquire_permit().await;
            let batch = if retries.is_empty() {
                if self.is_too_slow_for(shard) {
                    return self
                        .fail_rest(shard, &SendError::Transient("too slow for the time that is left".to_owned()));
                }
                // The retries of a batch have the same deadline as the batch. `attempt` has a minimum for each of them.
                (batch_divert_deadline, last_error) = (self.target.next_divert_deadline(), None);
                self.next_batch(shard)
            } else {
                std::mem::take(&mut retries)
            };
            if batch.is_empty() {
                return;
            }
            let mut isolated = Vec::new();
            let Some(failed) = self.attempt(batch, batch_divert_deadline, last_error.clone(), permit).await else {
                if self.target.queue.fifo {
                    // A later item of the shard must not be stored before this batch.
                    return self.fail_rest(shard, &SendError::no_answer());
                }
                continue;
            };
            let wait = backoff.next();
            let retry_at = Instant::now() + wait;
            for (item, error) in failed {
                match error {
                    SendError::Transient(_)
                        if retry_at < self.give_up_deadline && store_context.has_time_at(retry_at) =>
                    {
                        last_error = Some(error);
                        retries.push(item);
                    }
                    SendError::BatchRejected(_) => isolated.push(item.isolated()),
                    SendError::Transient(_) | SendError::QueueUnavailable(_) | SendError::ExpiredAwsCredentials(_) => {
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

    /// Waits until the budget allows a batch. Returns `None` without a budget, and from `permit_deadline` on if the budget is used
    /// up. The batch is then sent without a permit.
    async fn acquire_permit(&self) -> Option<Permit> {
        let share = self.target.limits.share.as_ref()?;
        timeout_at(self.permit_deadline, share.acquire()).await.ok()
    }

    /// Reports an item as not stored.
    fn fail(&self, item: Item<'p>, error: SendError) {
        // The receiver outlives the sender.
        let _ = self.unconfirmed_sender.send(Unconfirmed::Failed(item, error));
    }

    fn fail_rest(&self, shard: &Shard<'p>, error: &SendError) {
        while let Some(item) = lock(shard).pop_front() {
            self.fail(item, error.clone());
        }
    }

    /// Whether the rest of a shard has to be diverted now, because the queue is too slow to store it in time.
    ///
    /// That is the case if the remaining batches need more time than is left, and if after one more batch too little time
    /// would be left to divert the rest.
    fn is_too_slow_for(&self, shard: &Shard<'p>) -> bool {
        let latency = Duration::from_millis(self.last_latency.load(Relaxed));
        let QueueLimits { concurrency: workers, ref share, .. } = *self.target.limits;
        // With a budget, only the workers with a permit are active.
        let active = share.as_ref().map_or(workers, |share| share.batches().clamp(1, workers));
        let rounds = if self.target.queue.fifo {
            lock(shard).len().div_ceil(MAX_ENTRIES) * workers.div_ceil(active)
        } else {
            lock(shard).len().div_ceil(MAX_ENTRIES * active)
        };
        let time_left = self.target.store_context.deadline.saturating_duration_since(Instant::now());
        self.target.can_divert
            && latency.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX)) > time_left
            && latency * 2 + SLOW_QUEUE_MARGIN > time_left
    }

    /// Takes items from the front of a shard, as many as SQS accepts in one batch.
    fn next_batch(&self, shard: &Shard<'p>) -> Vec<Item<'p>> {
        let (request, fifo) = (self.target.store_context.request, self.target.queue.fifo);
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

    /// Sends one batch, and returns the items that SQS did not store.
    ///
    /// If there is no response at `divert_deadline`, and items can be diverted, the batch is reported as
    /// [`Unconfirmed::Unanswered`], and the result is `None`. If items cannot be diverted, they fail.
    ///
    /// The attempt gets at least [`SECOND_CALL_INTERVAL`], or a third of the time that is left if that is shorter, even if
    /// `divert_deadline` is earlier.
    async fn attempt(
        &self,
        mut items: Vec<Item<'p>>,
        divert_deadline: Instant,
        previous_error: Option<SendError>,
        permit: Option<Permit>,
    ) -> Option<Vec<(Item<'p>, SendError)>> {
        if let Some(error) = self.gave_up.get() {
            return Some(fail_all(items, error));
        }
        let (target, started) = (self.target, Instant::now());
        if !target.store_context.has_time_at(started) {
            return Some(fail_all(items, &SendError::no_time_left()));
        }
        if previous_error.is_some() || items.iter().all(|item| item.is_isolated) {
            target.store_context.metrics.count(Metric::QueueRetries, items.len());
        }
        let messages: Vec<_> =
            items.iter_mut().map(|item| item.take_message(target.store_context.request, target.queue.fifo)).collect();
        let progress = Arc::new(Progress { previous_error, ..Progress::default() });
        let bytes = messages.iter().map(Message::size).sum();
        // A claim check has a batch of its own.
        let is_claim_check = messages.len() == 1 && items[0].is_claim_check(messages[0].size());
        let mut calls = if is_claim_check {
            target.upload_and_send(&items[0], messages, &progress)
        } else {
            let batch = Batch::new(&target.queue.url, &messages);
            // Frees the memory of the messages during the call, which needs only the serialized batch.
            drop(messages);
            target.send_with_second_call(batch, &progress)
        };
        if let Some(mut permit) = permit {
            permit.add_bytes(bytes);
            // The permit is released when the calls end, not when the batch is diverted.
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
                Some(self.process_result(items, result))
            }
            () = sleep_until(divert_deadline.max(target.store_context.interval_deadline(SECOND_CALL_INTERVAL))) => {
                if !target.can_divert {
                    let result = progress.unanswered_result(items.len());
                    return Some(failed_entries(items, result));
                }
                // If no other attempt ended in the meantime, the queue does not respond at all.
                if self.finished_attempts.load(Relaxed) == finished_before {
                    let _ = self.gave_up.set(SendError::no_answer());
                }
                let _ = self.unconfirmed_sender.send(Unconfirmed::Unanswered(UnansweredBatch { items, calls, progress }));
                None
            }
        }
    }

    /// Returns the items that are not stored, and notes what the result shows about the queue.
    ///
    /// If SQS rejected a batch of a single item, the item is rejected.
    fn process_result(&self, items: Vec<Item<'p>>, result: BatchResult) -> Vec<(Item<'p>, SendError)> {
        if result.as_ref().is_ok_and(|results| results.iter().any(Result::is_ok)) {
            self.has_stored.store(true, Relaxed);
        }
        let Err(SendError::BatchRejected(reason)) = result else { return failed_entries(items, result) };
        if items.len() > 1 {
            return fail_all(items, &SendError::BatchRejected(reason));
        }
        let error = SendError::EntryRejected(reason);
        let rejections = self.single_message_rejections.fetch_add(1, Relaxed) + 1;
        let is_queue_at_fault = rejections >= MAX_SINGLE_MESSAGE_REJECTIONS && !self.has_stored.load(Relaxed);
        if is_queue_at_fault || Instant::now() >= self.give_up_deadline {
            let _ = self.gave_up.set(error.clone());
        }
        fail_all(items, &error)
    }
}

impl<'s> Target<'s> {
    /// The time at which a batch that starts now has to be diverted, when half of the time that is left will be over. If
    /// nothing can be diverted, this is the end of the storage time.
    fn next_divert_deadline(&self) -> Instant {
        if self.can_divert { self.store_context.one_half_deadline() } else { self.store_context.deadline }
    }

    /// Sends a batch, and a second time if the first call has no response although the queue responds to a probe.
    ///
    /// The probe is an empty batch on another connection, which stores nothing. If SQS is slow for every call, it is slow for
    /// the probe too, so the queue does not get a second copy of the batch.
    fn send_with_second_call(self, batch: Batch, progress: &Arc<Progress>) -> BoxFuture<'s, BatchResult> {
        let (store_context, progress, entries) = (self.store_context, Arc::clone(progress), batch.entries());
        async move {
            let send =
                || call::send_batch(self.client, batch.clone()).inspect(|result| progress.note_stored(result)).boxed();
            let first = send();
            if !self.limits.allows_second_call {
                return first.await;
            }
            let second = async {
                sleep_until(store_context.interval_deadline(SECOND_CALL_INTERVAL)).await;
                store_context.pend_if_no_time_left().await;
                call::probe(self.client, &self.queue.url).boxed().await?;
                store_context.pend_if_no_time_left().await;
                if progress.is_diverted.load(Relaxed) {
                    return std::future::pending().await;
                }
                progress.has_second_call.store(true, Relaxed);
                store_context.metrics.count(Metric::QueueRetries, 1);
                send().await
            };
            let result = first_success(first, second, &progress.has_second_call, is_stored).await;
            progress.with_stored_entries(result, entries)
        }
        .boxed()
    }

    /// Stores the body of a claim check in S3, then sends the message with the pointer to it.
    ///
    /// Each attempt stores a new object, because an earlier attempt without a response may have put a message on the queue, and
    /// two messages must not share an object.
    fn upload_and_send(
        self,
        item: &Item<'_>,
        mut messages: Vec<Message>,
        progress: &Arc<Progress>,
    ) -> BoxFuture<'s, BatchResult> {
        let key = Payloads::key(item.route, item.event_id());
        let (store_context, progress) = (self.store_context, Arc::clone(progress));
        async move {
            let bucket = self.payloads.bucket()?;
            let body = Bytes::from(messages[0].replace_body_with_pointer(bucket, &key));
            progress.is_uploading.store(true, Relaxed);
            let put = || self.payloads.put(&key, body.clone()).boxed();
            put_until_deadline(put, store_context).await?;
            progress.is_uploading.store(false, Relaxed);
            if !store_context.has_time_at(Instant::now()) {
                return Err(SendError::no_time_left());
            }
            let result = call::send_batch(self.client, Batch::new(&self.queue.url, &messages)).boxed().await;
            if let Ok([Ok(())]) = result.as_deref() {
                store_context.metrics.count(Metric::ClaimChecked, 1);
            }
            result
        }
        .boxed()
    }
}

/// Stores an object in S3. Retries transient errors, and puts the same object a second time if S3 does not respond.
pub(crate) async fn put_until_deadline<'o>(
    put: impl Fn() -> BoxFuture<'o, Result<(), PayloadError>>,
    context: StoreContext<'_>,
) -> Result<(), PayloadError> {
    let mut backoff = Backoff::default();
    loop {
        let is_second_under_way = AtomicBool::default();
        let first = put();
        let second = async {
            sleep_until(context.interval_deadline(SECOND_UPLOAD_INTERVAL)).await;
            context.pend_if_no_time_left().await;
            is_second_under_way.store(true, Relaxed);
            put().await
        };
        let result = first_success(first, second, &is_second_under_way, Result::is_ok).await;
        let wait = backoff.next();
        if !matches!(result, Err(PayloadError::Transient(_))) || !context.has_time_at(Instant::now() + wait) {
            return result;
        }
        sleep(wait).await;
    }
}

impl Progress {
    /// Waits for the calls of a batch, at most until the deadline.
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

    /// Changes a result so that each entry that any of the calls stored is `Ok`.
    fn with_stored_entries(&self, result: BatchResult, entries: usize) -> BatchResult {
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

    /// The result of a batch if its calls are still under way at the end of its time.
    pub(super) fn unanswered_result(&self, entries: usize) -> BatchResult {
        self.with_stored_entries(Err(self.unanswered_error()), entries)
    }

    /// The error of the entries that are not stored at the end of the batch's time.
    fn unanswered_error(&self) -> SendError {
        if self.is_uploading.load(Relaxed) {
            PayloadError::Transient("no answer in time".to_owned()).into()
        } else {
            self.previous_error.clone().unwrap_or_else(SendError::no_answer)
        }
    }
}

/// Returns the result of the call that succeeds first, or the result of the first call if neither succeeds.
///
/// If the first call fails before the second call has started, the second call does not start.
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

/// Growing, random waits. Without randomness, execution environments whose calls fail at the same time would retry at the same
/// time. Counts the waits so far.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn next(&mut self) -> Duration {
        let max_wait = MAX_BACKOFF.min(FIRST_BACKOFF * 2_u32.saturating_pow(self.0));
        self.0 += 1;
        max_wait.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// The items of a batch that are not stored according to its result.
pub(super) fn failed_entries(items: Vec<Item<'_>>, result: BatchResult) -> Vec<(Item<'_>, SendError)> {
    match result {
        Ok(results) => {
            items.into_iter().zip(results).filter_map(|(item, result)| Some((item, result.err()?))).collect()
        }
        Err(error) => fail_all(items, &error),
    }
}

fn fail_all<'p>(items: Vec<Item<'p>>, error: &SendError) -> Vec<(Item<'p>, SendError)> {
    items.into_iter().map(|item| (item, error.clone())).collect()
}
