//! Stores the fragments of a notification on the queues of their routes. If a queue does not store a fragment, stores it on the
//! catch-all queue.

use std::{
    collections::BTreeMap,
    pin::pin,
    ptr,
    sync::{Arc, OnceLock, atomic::Ordering::Relaxed},
    time::Duration,
};

use aws_sdk_sqs::Client;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{join, join_all},
    stream::FuturesUnordered,
};
use tokio::{
    select,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::{Instant, sleep_until, timeout},
};
use whatsapp_webhook::{
    message::{CatchAllReason, MAX_MESSAGE_BYTES},
    notification::Fragment,
    routes::{Queue, Routes},
};

use crate::{metrics::Metric, payload::Payloads};

mod budget;
mod call;
mod context;
mod item;
mod send_error;
mod sender;
use budget::Budget;
pub use context::StoreContext;
use item::{Item, MessageForm};
use send_error::SendError;
pub(crate) use sender::put_until_deadline;
use sender::{MAX_ENTRIES, QueueLimits, QueueSender, Target, UnansweredBatch, Unconfirmed, failed_entries};

/// How many batches an execution environment has under way at a time. Each batch needs a connection.
///
/// This is a target, not a strict limit. Each queue of a request always gets at least one, even if this exceeds
/// the target. Second calls and diversions do not count. A batch that waited too long for the budget is sent without it.
///
/// Meta's largest notification, with 1000 changes, needs at least 100 batches.
const MAX_BATCHES_UNDER_WAY: usize = 32;

/// How many bytes of messages an execution environment has under way at a time, to limit its memory.
///
/// This is a target, not a strict limit. A request with more bytes has fewer batches under way if they are large, see
/// [`max_batches_under_way`]. The requests of an environment that serves several at a time also share the target as a [`Budget`].
const MAX_BYTES_UNDER_WAY: usize = 12 << 20;

/// How long the start of the function waits for the response to a probe.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// Stores fragments on the queues of their routes.
#[derive(Debug)]
pub struct Queues {
    client: Client,
    routes: Routes,
    payloads: Payloads,
    /// The limits of all requests together. `None` if the execution environment serves one request at a time.
    budget: Option<Arc<Budget>>,
}

/// The result of storing the fragments of a request. A fragment has a message for each queue of its route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreReport {
    /// The number of fragments.
    pub fragments: usize,
    /// The number of fragments without a route, including those that are not stored.
    pub unrouted: usize,
    /// The number of messages, including those that are not stored.
    pub messages: usize,
    /// The number of messages that are stored on the catch-all queue because their own queue did not confirm them in time.
    pub diverted: usize,
    /// The number of messages that are not stored.
    pub not_stored: usize,
    /// Whether at least one message is not stored because AWS no longer accepts the credentials.
    pub has_expired_aws_credentials: bool,
}

impl Queues {
    /// Takes the client, the routes and the bucket for large bodies. AWS is not called.
    #[must_use]
    pub fn new(client: Client, routes: Routes, payloads: Payloads) -> Self {
        Self { client, routes, payloads, budget: None }
    }

    /// Sets the number of requests that the environment serves at a time. If it is more than one, they share the limits of
    /// batches and bytes.
    #[must_use]
    pub fn shared_by(self, requests: usize) -> Self {
        let queues = self.routes.queues().len();
        let budget = (requests > 1).then(|| Arc::new(Budget::new(MAX_BATCHES_UNDER_WAY, MAX_BYTES_UNDER_WAY, queues)));
        Self { budget, ..self }
    }

    /// Opens a connection to SQS before the first message needs one, by a probe of the catch-all queue.
    ///
    /// On a function with little processor time, the first TLS handshake takes longer than the rest of a request. If the probe
    /// fails, this logs a warning, and the function starts nevertheless.
    pub async fn warm_up(&self) {
        let queue = self.catch_all();
        let probe = timeout(WARM_UP_TIMEOUT, call::probe(&self.client, &queue.url));
        let error = probe.await.unwrap_or_else(|_| Err(SendError::Transient("timeout after 2 s".to_owned()))).err();
        if let Some(error) = error {
            tracing::warn!(queue.name, error.reason = error.reason(), "probe of the catch-all queue failed");
        }
    }

    fn catch_all(&self) -> &Queue {
        self.routes.catch_all()
    }

    /// Stores every fragment on all queues of its route until the deadline.
    ///
    /// Diverts an item to the catch-all queue if its own queue is unavailable, rejects it, or is unlikely to store it in time, see
    /// `QueueSender`. The other queues do not wait for such a queue. A call is abandoned before the deadline only if another call
    /// stored the same messages.
    ///
    /// A message may be stored more than once, with the same `event_id`: if the response to a call was lost, or came after a
    /// second call or the diversion had started.
    ///
    /// A FIFO queue keeps the order within a group, unless SQS stores a later entry of a call but not an earlier one. Messages
    /// that are diverted or in raw form lose their position.
    pub async fn store(&self, fragments: &[Fragment<'_>], store_context: StoreContext<'_>) -> StoreReport {
        let event_ids: Vec<_> = fragments.iter().map(|_| OnceLock::new()).collect();
        let mut by_queue: Vec<Vec<Item<'_>>> = self.routes.queues().iter().map(|_| Vec::new()).collect();
        let mut report = StoreReport { fragments: fragments.len(), ..StoreReport::default() };
        let (mut by_route, mut by_reason) = (BTreeMap::new(), BTreeMap::new());
        for (fragment, event_id) in fragments.iter().zip(&event_ids) {
            let destination = self.routes.find(fragment);
            if let Some(route) = destination.route {
                *by_route.entry(route).or_default() += 1;
            } else {
                report.unrouted += 1;
                *by_reason.entry(CatchAllReason::of_fragment(fragment).name()).or_default() += 1;
            }
            report.messages += destination.queue_indices.len();
            for index in destination.queue_indices {
                by_queue[*index].push(Item::new(fragment, event_id, destination.route));
            }
        }
        for (metric, counts) in [(Metric::Changes, by_route), (Metric::Unrouted, by_reason)] {
            for (value, count) in counts {
                store_context.metrics.count_value(metric, value, count);
            }
        }
        let needs: Vec<_> =
            by_queue.iter().zip(self.routes.queues()).map(|(items, queue)| needed_batches(items, queue)).collect();
        let sizes = by_queue.iter().flatten().map(|item| item.fragment.size());
        let concurrencies = divide_concurrency(&needs, max_batches_under_way(sizes));
        let limits = concurrencies.into_iter().enumerate().map(|(index, concurrency)| {
            let share = self.budget.as_ref().map(|budget| budget.share(index));
            QueueLimits { concurrency, share, allows_second_call: true }
        });
        let nonempty = by_queue.into_iter().zip(limits).enumerate().filter(|(_, (items, _))| !items.is_empty());
        let reports =
            join_all(nonempty.map(|(index, (items, limits))| self.store_to_queue(index, items, store_context, limits)))
                .await;
        reports.into_iter().fold(report, |sum, report| StoreReport {
            diverted: sum.diverted + report.diverted,
            not_stored: sum.not_stored + report.not_stored,
            has_expired_aws_credentials: sum.has_expired_aws_credentials || report.has_expired_aws_credentials,
            ..sum
        })
    }

    async fn store_to_queue<'p>(
        &'p self,
        index: usize,
        items: Vec<Item<'p>>,
        store_context: StoreContext<'_>,
        limits: QueueLimits,
    ) -> StoreReport {
        let queue = &self.routes.queues()[index];
        let diversion = if index == self.routes.catch_all_index() {
            let not_stored = self.send_to_catch_all(items, store_context, &limits).await;
            Diversion { by_route: BTreeMap::new(), not_stored }
        } else {
            let (unconfirmed_sender, unconfirmed) = unbounded_channel();
            let target = Target { can_divert: true, ..self.target(queue, store_context, &limits) };
            // Diversions are not part of the budget, so that they never wait for the calls that they replace.
            let divert_limits = QueueLimits { share: None, ..limits.clone() };
            let sending = QueueSender::new(target, unconfirmed_sender).send(items);
            join(sending, self.divert_unconfirmed(queue, unconfirmed, store_context, &divert_limits)).await.1
        };
        for (route, count) in &diversion.by_route {
            store_context.metrics.count_value(Metric::Diverted, route, *count);
        }
        log_errors("messages not stored", queue, &diversion.not_stored);
        StoreReport::of(diversion.by_route.values().sum(), &diversion.not_stored)
    }

    /// Diverts the items that their own queue did not confirm.
    ///
    /// [`Self::divert_unanswered`] diverts batches without a response. Failed items are collected, so that they are diverted in
    /// few calls, until the sender has ended or half of the time is over.
    async fn divert_unconfirmed<'s, 'p>(
        &'s self,
        queue: &'p Queue,
        mut unconfirmed: UnboundedReceiver<Unconfirmed<'s, 'p>>,
        store_context: StoreContext<'s>,
        limits: &'s QueueLimits,
    ) -> Diversion<'p> {
        let (mut diversions, mut sum, mut is_open) = (FuturesUnordered::new(), Diversion::default(), true);
        let (mut received, mut failed) = (Vec::new(), Vec::new());
        let collect_deadline = store_context.one_half_deadline();
        while is_open || !failed.is_empty() || !diversions.is_empty() {
            if !failed.is_empty() && (!is_open || Instant::now() >= collect_deadline) {
                log_diversion(queue, &failed);
                let copies = copies_for_catch_all(queue, &std::mem::take(&mut failed));
                diversions.push(self.divert(copies, store_context, limits).boxed());
            }
            select! {
                biased;
                count = unconfirmed.recv_many(&mut received, MAX_BATCHES_UNDER_WAY * MAX_ENTRIES), if is_open => {
                    is_open = count > 0;
                    for unconfirmed in received.drain(..) {
                        match unconfirmed {
                            // S3 would fail for the catch-all queue too.
                            Unconfirmed::Failed(item, error) if error.is_payload_error() => {
                                sum.not_stored.push((item, error));
                            }
                            Unconfirmed::Failed(item, error) => failed.push((item, error)),
                            Unconfirmed::Unanswered(batch) => {
                                diversions.push(self.divert_unanswered(queue, batch, store_context).boxed());
                            }
                        }
                    }
                }
                () = sleep_until(collect_deadline), if !failed.is_empty() => {}
                Some(diversion) = diversions.next(), if !diversions.is_empty() => sum.add(diversion),
            }
        }
        sum
    }

    /// Sends copies of items that their own queue did not store to the catch-all queue.
    async fn divert<'p>(
        &self,
        copies: Vec<Item<'p>>,
        store_context: StoreContext<'_>,
        limits: &QueueLimits,
    ) -> Diversion<'p> {
        let mut by_route = count_by_name(copies.iter().filter_map(|item| item.route));
        let not_stored = self.send_to_catch_all(copies, store_context, limits).await;
        for route in not_stored.iter().filter_map(|(item, _)| item.route) {
            by_route.entry(route).and_modify(|count| *count -= 1);
        }
        Diversion { by_route, not_stored }
    }

    /// Diverts a batch without a response, while the calls to its own queue may still succeed. The first success counts.
    ///
    /// A batch with one call is diverted at once. If SQS is only slow, the batch is then stored at most twice.
    ///
    /// A batch with two calls first waits for another third of the time that is left, because its diversion may be a third
    /// copy. After that it is diverted, because a queue may respond to each probe and store no message.
    ///
    /// A batch whose body is being uploaded to S3 also waits, and is not diverted during the upload.
    async fn divert_unanswered<'p>(
        &self,
        queue: &'p Queue,
        batch: UnansweredBatch<'_, 'p>,
        store_context: StoreContext<'_>,
    ) -> Diversion<'p> {
        let UnansweredBatch { items, mut calls, progress } = batch;
        let limits = &QueueLimits { concurrency: 1, share: None, allows_second_call: false };
        if progress.is_uploading.load(Relaxed) || progress.has_second_call.load(Relaxed) {
            select! {
                biased;
                result = &mut calls => {
                    let (not_stored, failed): (Vec<_>, Vec<_>) =
                        failed_entries(items, result).into_iter().partition(|(_, error)| error.is_payload_error());
                    log_diversion(queue, &failed);
                    let copies = copies_for_catch_all(queue, &failed);
                    let mut diversion = self.divert(copies, store_context, limits).await;
                    diversion.not_stored.extend(not_stored);
                    return diversion;
                }
                () = sleep_until(store_context.one_third_deadline()) => {}
            }
        }
        let entries = items.len();
        // If S3 is slow, it is slow for the catch-all queue too.
        if progress.is_uploading.load(Relaxed) || !store_context.has_time_at(Instant::now()) {
            let result = progress.result_by_deadline(calls, entries, store_context.deadline).await;
            return Diversion { by_route: BTreeMap::new(), not_stored: failed_entries(items, result) };
        }
        progress.is_diverted.store(true, Relaxed);
        // The items themselves are needed below, because their own queue may still store them.
        let copies = items.iter().map(|item| item.copy_for_catch_all(queue)).collect();
        let unanswered = failed_entries(copies, progress.unanswered_result(entries));
        log_diversion(queue, &unanswered);
        let copies = unanswered.into_iter().map(|(copy, _)| copy).collect();
        let mut divert = pin!(self.divert(copies, store_context, limits));
        let (mut diversion, failed_on_own_queue) = select! {
            biased;
            result = &mut calls => {
                let failed = failed_entries(items, result);
                if failed.is_empty() {
                    return Diversion::default();
                }
                (divert.await, failed)
            }
            diversion = &mut divert => {
                if diversion.not_stored.is_empty() {
                    return diversion;
                }
                let result = progress.result_by_deadline(calls, entries, store_context.deadline).await;
                (diversion, failed_entries(items, result))
            }
        };
        let has_failed_on_own_queue =
            |copy: &Item<'_>| failed_on_own_queue.iter().any(|(item, _)| ptr::eq(item.fragment, copy.fragment));
        diversion.not_stored.retain(|(copy, _)| has_failed_on_own_queue(copy));
        diversion
    }

    /// Sends items to the catch-all queue, falling back to base64 and then to S3. Returns the items that are not stored.
    async fn send_to_catch_all<'p>(
        &self,
        items: Vec<Item<'p>>,
        store_context: StoreContext<'_>,
        limits: &QueueLimits,
    ) -> Vec<(Item<'p>, SendError)> {
        let queue = self.catch_all();
        let target = self.target(queue, store_context, limits);
        let mut failed = send_all(target, items).await;
        let mut not_stored = Vec::new();
        for (form, log_message) in [
            (MessageForm::Raw, "messages rejected, sending their bodies to the catch-all queue as base64"),
            (MessageForm::RawInS3, "messages rejected as base64, storing their bodies in S3"),
        ] {
            if failed.is_empty() || (form == MessageForm::RawInS3 && self.payloads.bucket().is_err()) {
                break;
            }
            let (rejected, others): (Vec<_>, Vec<_>) =
                failed.into_iter().partition(|(_, error)| matches!(error, SendError::EntryRejected(_)));
            log_errors(log_message, queue, &rejected);
            not_stored.extend(others);
            let items: Vec<_> = rejected.into_iter().map(|(item, _)| item.with_form(form)).collect();
            failed = send_all(target, items).await;
        }
        not_stored.extend(failed);
        not_stored
    }

    fn target<'s>(&'s self, queue: &'s Queue, store_context: StoreContext<'s>, limits: &'s QueueLimits) -> Target<'s> {
        Target { client: &self.client, queue, payloads: &self.payloads, store_context, limits, can_divert: false }
    }
}

/// The result of diverting items that their own queue did not store.
#[derive(Default)]
struct Diversion<'p> {
    /// The number of items that are stored on the catch-all queue, by their route.
    by_route: BTreeMap<&'p str, usize>,
    /// The items that are stored on neither queue.
    not_stored: Vec<(Item<'p>, SendError)>,
}

impl Diversion<'_> {
    fn add(&mut self, other: Self) {
        self.not_stored.extend(other.not_stored);
        for (route, count) in other.by_route {
            *self.by_route.entry(route).or_default() += count;
        }
    }
}

/// Sends items to the catch-all queue. Returns the items that are not stored.
async fn send_all<'p>(target: Target<'_>, items: Vec<Item<'p>>) -> Vec<(Item<'p>, SendError)> {
    let (unconfirmed_sender, mut unconfirmed) = unbounded_channel();
    QueueSender::new(target, unconfirmed_sender).send(items).await;
    let mut failed = Vec::new();
    while let Ok(unconfirmed) = unconfirmed.try_recv() {
        match unconfirmed {
            Unconfirmed::Failed(item, error) => failed.push((item, error)),
            Unconfirmed::Unanswered(batch) => failed.extend(failed_entries(batch.items, Err(SendError::no_answer()))),
        }
    }
    failed
}

impl StoreReport {
    fn of(diverted: usize, not_stored: &[(Item<'_>, SendError)]) -> Self {
        let is_expired = |(_, error): &(Item<'_>, SendError)| matches!(error, SendError::ExpiredAwsCredentials(_));
        Self {
            diverted,
            not_stored: not_stored.len(),
            has_expired_aws_credentials: not_stored.iter().any(is_expired),
            ..Self::default()
        }
    }
}

/// Estimates the number of batches that the items of a queue need. A large item may need a batch alone. Each item of a FIFO
/// queue may belong to another group.
fn needed_batches(items: &[Item<'_>], queue: &Queue) -> usize {
    let may_be_alone = |item: &&Item<'_>| queue.fifo || item.fragment.size() > MAX_MESSAGE_BYTES / MAX_ENTRIES;
    let alone = items.iter().filter(may_be_alone).count();
    alone + (items.len() - alone).div_ceil(MAX_ENTRIES)
}

/// The number of batches of a request that may be under way at a time, for the sizes of its items in bytes.
fn max_batches_under_way(sizes: impl Iterator<Item = usize>) -> usize {
    let (total, largest) = sizes.fold((0, 1), |(total, largest), size| (total + size, size.max(largest)));
    if total <= MAX_BYTES_UNDER_WAY {
        return MAX_BATCHES_UNDER_WAY;
    }
    // An item over the limit of a message is stored in S3, and has a batch of its own.
    let largest_batch = (largest * MAX_ENTRIES).min(MAX_MESSAGE_BYTES).max(largest);
    (MAX_BYTES_UNDER_WAY / largest_batch).clamp(1, MAX_BATCHES_UNDER_WAY)
}

/// Divides `max` batches between the queues. Each queue gets the batches that it needs, up to the highest cap for which
/// the sum is at most `max`. The cap is the same for all queues.
///
/// Each queue with items gets at least one batch. With more than `max` of these, the sum is therefore greater than `max`.
fn divide_concurrency(needs: &[usize], max: usize) -> Vec<usize> {
    let capped = |cap: usize| needs.iter().map(move |need| *need.min(&cap));
    let fits = |cap: &usize| capped(*cap).sum::<usize>() <= max;
    capped((1..=max).rev().find(fits).unwrap_or(1)).collect()
}

/// Counts the occurrences of each name.
fn count_by_name<'n>(names: impl Iterator<Item = &'n str>) -> BTreeMap<&'n str, usize> {
    names.fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name).or_default() += 1;
        counts
    })
}

/// Copies of items that `queue` did not store, for the catch-all queue.
fn copies_for_catch_all<'p>(queue: &'p Queue, failed: &[(Item<'p>, SendError)]) -> Vec<Item<'p>> {
    failed.iter().map(|(item, _)| item.copy_for_catch_all(queue)).collect()
}

fn log_diversion(queue: &Queue, failed: &[(Item<'_>, SendError)]) {
    log_errors("queue did not store messages, diverting them to the catch-all queue", queue, failed);
}

/// Logs how many messages a queue did not store, and the distinct reasons. The line contains no part of a message.
fn log_errors(log_message: &'static str, queue: &Queue, failed: &[(Item<'_>, SendError)]) {
    if failed.is_empty() {
        return;
    }
    let mut reasons: Vec<&str> = failed.iter().map(|(_, error)| error.reason()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    tracing::error!(queue.name, messages.count = failed.len(), error.reasons = reasons.join(", "), "{log_message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_limit_the_batches_under_way() {
        for (items, size, expected) in [
            // Meta's largest notification, on one queue and on five.
            (1_000, 2_900, 32),
            (5_000, 2_900, 32),
            // Ten items fill a batch.
            (150, 100_000, 12),
            (20, 700_000, 12),
            (5, 3 << 20, 4),
            (2, 20 << 20, 1),
        ] {
            assert_eq!(max_batches_under_way(std::iter::repeat_n(size, items)), expected, "{items} of {size}");
        }
    }
}
