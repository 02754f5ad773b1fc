//! Stores the fragments of a notification on the queues of their routes, or on the catch-all queue if a queue does not store
//! them.

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
    message::{MAX_MESSAGE_BYTES, UnroutedReason},
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
use budget::{Budget, Share};
pub use context::StoreContext;
use item::{Encoding, Item};
use send_error::SendError;
use sender::{MAX_ENTRIES, QueueSender, Target, Unanswered, Unconfirmed, unstored};

/// Batches of an execution environment that are under way at a time, apart from second calls and diversions. Each is a
/// connection.
///
/// Meta's largest notification, 1000 changes, needs 100 batches.
const MAX_BATCHES_UNDER_WAY: usize = 32;

/// Messages of this many bytes may be under way at a time. Memory limits the concurrency of large bodies.
const MAX_BYTES_UNDER_WAY: usize = 12 << 20;

/// How long the start of the function waits for a connection to SQS.
const WARM_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// The queues of the routes.
#[derive(Debug)]
pub struct Queues {
    client: Client,
    routes: Routes,
    payloads: Payloads,
    /// Shared by the requests of an execution environment. `None` if it serves one at a time.
    budget: Option<Arc<Budget>>,
}

/// The number of fragments of a request, of their messages, and of the messages that were diverted or not stored.
///
/// A fragment has a message for each queue of its route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreReport {
    /// Fragments of the request.
    pub fragments: usize,
    /// Fragments without a route, whether they are stored or not.
    pub unrouted: usize,
    /// Messages for all queues.
    pub messages: usize,
    /// Messages on the catch-all queue because their own queue was unavailable or rejected them.
    pub diverted: usize,
    /// Messages that are not stored.
    pub not_stored: usize,
    /// Whether AWS rejected the credentials of messages that are not stored.
    pub has_expired_credentials: bool,
}

/// The values of a request, and the number of batches that may be under way for one queue at a time.
#[derive(Clone)]
struct QueueContext<'r> {
    store_context: StoreContext<'r>,
    concurrency: usize,
    share: Option<Arc<Share>>,
}

impl Queues {
    /// Takes the routes and the clients. SQS is not called.
    #[must_use]
    pub fn new(client: Client, routes: Routes, payloads: Payloads) -> Self {
        Self { client, routes, payloads, budget: None }
    }

    /// Shares the limits of batches and bytes between this many concurrent requests.
    #[must_use]
    pub fn shared_by(self, requests: usize) -> Self {
        let budget = (requests > 1).then(|| Arc::new(Budget::new(MAX_BATCHES_UNDER_WAY, MAX_BYTES_UNDER_WAY)));
        Self { budget, ..self }
    }

    /// Opens a connection to SQS before the first message needs one. On a function with little processor time, the first TLS
    /// handshake takes longer than the rest of a request. If SQS does not respond, logs a warning and does not fail.
    pub async fn warm_up(&self) {
        let queue = self.catch_all();
        let probe = timeout(WARM_UP_TIMEOUT, call::probe(&self.client, &queue.url));
        let error = probe.await.unwrap_or_else(|_| Err(SendError::Transient("timeout after 2 s".to_owned()))).err();
        if let Some(error) = error {
            tracing::warn!(queue.name, error.reason = error.reason(), "SQS may be unavailable");
        }
    }

    fn catch_all(&self) -> &Queue {
        self.routes.catch_all()
    }

    /// Stores every fragment on all queues of its route until the deadline.
    ///
    /// Items are diverted to the catch-all queue if their queue cannot be used, rejects them, fails or stays silent for half of
    /// the time, or cannot take all of them in time. Other queues do not wait for it. A call is not abandoned while it may still
    /// succeed. A message may be stored twice, with the same `event_id`: if a response was lost, or came later than the message
    /// was diverted. Order is kept within a group of a FIFO queue, unless SQS rejects an entry and stores a later one of the same call.
    pub async fn store(&self, fragments: &[Fragment<'_>], context: StoreContext<'_>) -> StoreReport {
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
                *by_reason.entry(UnroutedReason::of_fragment(fragment).name()).or_default() += 1;
            }
            report.messages += destination.queue_indices.len();
            for queue in destination.queue_indices {
                by_queue[*queue].push(Item::new(fragment, event_id, destination.route));
            }
        }
        for (metric, counts) in [(Metric::Changes, by_route), (Metric::Unrouted, by_reason)] {
            for (value, count) in counts {
                context.metrics.count_value(metric, value, count);
            }
        }
        let needs: Vec<_> =
            by_queue.iter().zip(self.routes.queues()).map(|(items, queue)| needed_batches(items, queue)).collect();
        let concurrencies = divide_concurrency(&needs, max_batches_under_way(by_queue.iter().flatten()));
        let contexts = concurrencies.into_iter().map(|concurrency| {
            let share = self.budget.as_ref().map(Budget::share);
            QueueContext { store_context: context, concurrency, share }
        });
        let filled = by_queue.into_iter().zip(contexts).enumerate().filter(|(_, (items, _))| !items.is_empty());
        let sent = join_all(filled.map(|(queue, (items, context))| self.store_to_queue(queue, items, context))).await;
        sent.into_iter().fold(report, |sum, one| StoreReport {
            diverted: sum.diverted + one.diverted,
            not_stored: sum.not_stored + one.not_stored,
            has_expired_credentials: sum.has_expired_credentials || one.has_expired_credentials,
            ..sum
        })
    }

    async fn store_to_queue<'p>(
        &'p self,
        queue: usize,
        items: Vec<Item<'p>>,
        context: QueueContext<'_>,
    ) -> StoreReport {
        let is_catch_all = queue == self.routes.catch_all_index();
        let queue = &self.routes.queues()[queue];
        let diversion = if is_catch_all {
            let not_stored = self.send_to_catch_all(items, &context, true).await;
            Diversion { by_route: BTreeMap::new(), not_stored }
        } else {
            let (unconfirmed_sender, unconfirmed) = unbounded_channel();
            let target = Target { can_divert: true, ..self.target(queue, &context) };
            // Diversions are not part of the budget, so that they never wait for the calls that they replace.
            let unlimited = QueueContext { share: None, ..context.clone() };
            let sending = QueueSender::new(target, unconfirmed_sender).send(items);
            join(sending, self.divert_unconfirmed(queue, unconfirmed, &unlimited)).await.1
        };
        for (route, count) in &diversion.by_route {
            context.store_context.metrics.count_value(Metric::Diverted, route, *count);
        }
        log_errors("messages not stored", self.catch_all(), &diversion.not_stored);
        StoreReport::of(diversion.by_route.values().sum(), &diversion.not_stored)
    }

    /// Diverts the items that their own queue did not store: batches without an answer at once, and failed items when the
    /// sender has ended or half of the time is over.
    async fn divert_unconfirmed<'s, 'p>(
        &'s self,
        queue: &'p Queue,
        mut unconfirmed: UnboundedReceiver<Unconfirmed<'s, 'p>>,
        context: &QueueContext<'s>,
    ) -> Diversion<'p> {
        let (mut diversions, mut sum, mut is_open) = (FuturesUnordered::new(), Diversion::default(), true);
        let (mut received, mut failed) = (Vec::new(), Vec::new());
        // Failed items are collected, so that they are diverted in few calls.
        let collect_until = context.store_context.half_time_deadline();
        while is_open || !failed.is_empty() || !diversions.is_empty() {
            if !failed.is_empty() && (!is_open || Instant::now() >= collect_until) {
                let failed = std::mem::take(&mut failed);
                log_errors("queue failed, diverting its messages to the catch-all queue", queue, &failed);
                diversions.push(async move { self.divert(queue, &failed, context, true).await }.boxed());
            }
            select! {
                biased;
                count = unconfirmed.recv_many(&mut received, MAX_BATCHES_UNDER_WAY * MAX_ENTRIES), if is_open => {
                    is_open = count > 0;
                    for unconfirmed in received.drain(..) {
                        match unconfirmed {
                            // If S3 fails, it fails for the catch-all queue too.
                            Unconfirmed::Failed(item, error) if error.is_payload_error() => {
                                sum.not_stored.push((item, error));
                            }
                            Unconfirmed::Failed(item, error) => failed.push((item, error)),
                            Unconfirmed::Unanswered(batch) => {
                                diversions.push(self.divert_unanswered(queue, batch, context.store_context).boxed());
                            }
                        }
                    }
                }
                () = sleep_until(collect_until), if !failed.is_empty() => {}
                Some(diversion) = diversions.next(), if !diversions.is_empty() => sum.add(diversion),
            }
        }
        sum
    }

    /// Sends items to the catch-all queue instead of their own, `queue`.
    async fn divert<'p>(
        &self,
        queue: &'p Queue,
        failed: &[(Item<'p>, SendError)],
        context: &QueueContext<'_>,
        allows_second_call: bool,
    ) -> Diversion<'p> {
        let items: Vec<_> = failed.iter().map(|(item, _)| item.diverted(queue)).collect();
        let mut by_route = tally(items.iter().filter_map(|item| item.route));
        let not_stored = self.send_to_catch_all(items, context, allows_second_call).await;
        for route in not_stored.iter().filter_map(|(item, _)| item.route) {
            by_route.entry(route).and_modify(|count| *count -= 1);
        }
        Diversion { by_route, not_stored }
    }

    /// Diverts a batch without an answer, while the calls to its own queue may still succeed. The first success counts.
    ///
    /// A batch with one call is diverted at once, so a slow SQS stores at most two copies. A batch with two calls first waits
    /// for another third of the time that is left, because the diverted batch would be a third copy. If there is still no
    /// answer, it is diverted, because a queue may answer every probe and store no message. A batch whose body is being
    /// uploaded to S3 waits too, and is not diverted during the upload.
    async fn divert_unanswered<'p>(
        &self,
        queue: &'p Queue,
        batch: Unanswered<'_, 'p>,
        store_context: StoreContext<'_>,
    ) -> Diversion<'p> {
        let Unanswered { items, mut calls, progress } = batch;
        let context = &QueueContext { store_context, concurrency: 1, share: None };
        if progress.is_uploading.load(Relaxed) || progress.has_second_call.load(Relaxed) {
            select! {
                biased;
                result = &mut calls => {
                    let (not_stored, failed): (Vec<_>, Vec<_>) =
                        unstored(items, result).into_iter().partition(|(_, error)| error.is_payload_error());
                    log_errors("queue failed, diverting its messages to the catch-all queue", queue, &failed);
                    let mut diversion = self.divert(queue, &failed, context, false).await;
                    diversion.not_stored.extend(not_stored);
                    return diversion;
                }
                () = sleep_until(store_context.third_time_deadline()) => {}
            }
        }
        let entries = items.len();
        // Another queue does not help if S3 is slow.
        if progress.is_uploading.load(Relaxed) || !store_context.has_time_at(Instant::now()) {
            let not_stored = unstored(items, progress.result_by_deadline(calls, entries, store_context.deadline).await);
            return Diversion { by_route: BTreeMap::new(), not_stored };
        }
        progress.is_diverted.store(true, Relaxed);
        let silent =
            unstored(items.iter().map(|item| item.diverted(queue)).collect(), progress.unanswered_result(entries));
        log_errors("queue failed, diverting its messages to the catch-all queue", queue, &silent);
        let mut divert = pin!(self.divert(queue, &silent, context, false));
        let (mut diversion, missing) = select! {
            biased;
            result = &mut calls => {
                let missing = unstored(items, result);
                if missing.is_empty() {
                    return Diversion::default();
                }
                (divert.await, missing)
            }
            diversion = &mut divert => {
                if diversion.not_stored.is_empty() {
                    return diversion;
                }
                (diversion, unstored(items, progress.result_by_deadline(calls, entries, store_context.deadline).await))
            }
        };
        diversion
            .not_stored
            .retain(|(item, _)| missing.iter().any(|(other, _)| ptr::eq(item.fragment, other.fragment)));
        diversion
    }

    /// Sends items to the catch-all queue, falling back to base64 and then to S3. Returns the items that are not stored.
    async fn send_to_catch_all<'p>(
        &self,
        items: Vec<Item<'p>>,
        context: &QueueContext<'_>,
        allows_second_call: bool,
    ) -> Vec<(Item<'p>, SendError)> {
        let queue = self.catch_all();
        let target = Target { allows_second_call, ..self.target(queue, context) };
        let mut failed = send_all(target, items).await;
        let mut not_stored = Vec::new();
        for (encoding, text) in [
            (Encoding::RawBase64, "messages rejected, sending their bodies to the catch-all queue as base64"),
            (Encoding::RawBase64InS3, "messages rejected as base64, storing their bodies in S3"),
        ] {
            if failed.is_empty() || (encoding == Encoding::RawBase64InS3 && self.payloads.bucket().is_err()) {
                break;
            }
            let (rejected, others): (Vec<_>, Vec<_>) =
                failed.into_iter().partition(|(_, error)| matches!(error, SendError::EntryRejected(_)));
            log_errors(text, queue, &rejected);
            not_stored.extend(others);
            let items: Vec<_> = rejected.into_iter().map(|(item, _)| item.with_encoding(encoding)).collect();
            failed = send_all(target, items).await;
        }
        not_stored.extend(failed);
        not_stored
    }

    fn target<'s>(&'s self, queue: &'s Queue, context: &'s QueueContext<'_>) -> Target<'s> {
        Target {
            client: &self.client,
            queue,
            payloads: &self.payloads,
            bucket_owner: self.catch_all().account_id(),
            context: context.store_context,
            concurrency: context.concurrency,
            share: context.share.as_ref(),
            can_divert: false,
            allows_second_call: true,
        }
    }
}

/// What happened to items that their own queue did not store.
#[derive(Default)]
struct Diversion<'p> {
    /// Items that are stored on the catch-all queue, by their route.
    by_route: BTreeMap<&'p str, usize>,
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

/// Sends items to the catch-all queue, from which nothing can be diverted. Returns those that are not stored.
async fn send_all<'p>(target: Target<'_>, items: Vec<Item<'p>>) -> Vec<(Item<'p>, SendError)> {
    let (unconfirmed_sender, mut unconfirmed) = unbounded_channel();
    QueueSender::new(target, unconfirmed_sender).send(items).await;
    let mut failed = Vec::new();
    while let Ok(unconfirmed) = unconfirmed.try_recv() {
        match unconfirmed {
            Unconfirmed::Failed(item, error) => failed.push((item, error)),
            Unconfirmed::Unanswered(batch) => failed.extend(unstored(batch.items, Err(SendError::no_answer()))),
        }
    }
    failed
}

impl StoreReport {
    fn of(diverted: usize, not_stored: &[(Item<'_>, SendError)]) -> Self {
        let is_expired = |(_, error): &(Item<'_>, SendError)| matches!(error, SendError::ExpiredCredentials(_));
        Self {
            diverted,
            not_stored: not_stored.len(),
            has_expired_credentials: not_stored.iter().any(is_expired),
            ..Self::default()
        }
    }
}

/// The batches that the items of a queue can form at most: a large item may need one alone, and the items of a FIFO queue
/// may all belong to different groups.
fn needed_batches(items: &[Item<'_>], queue: &Queue) -> usize {
    let is_alone = |item: &&Item<'_>| queue.fifo || item.fragment.size() > MAX_MESSAGE_BYTES / MAX_ENTRIES;
    let alone = items.iter().filter(is_alone).count();
    alone + (items.len() - alone).div_ceil(MAX_ENTRIES)
}

/// The batches that may be under way at a time: fewer if the messages are large and many.
fn max_batches_under_way<'i>(items: impl Iterator<Item = &'i Item<'i>>) -> usize {
    let sizes = items.map(|item| item.fragment.size());
    let (total, largest) = sizes.fold((0, 1), |(total, largest), size| (total + size, size.max(largest)));
    if total <= MAX_BYTES_UNDER_WAY {
        MAX_BATCHES_UNDER_WAY
    } else {
        (MAX_BYTES_UNDER_WAY / largest).clamp(1, MAX_BATCHES_UNDER_WAY)
    }
}

/// Shares the concurrency fairly: each queue gets what it needs, capped at a level that is the same for all queues.
///
/// Each queue gets at least one, so the sum exceeds `max` if there are more queues than that.
fn divide_concurrency(needs: &[usize], max: usize) -> Vec<usize> {
    let capped = |level: usize| needs.iter().map(move |need| *need.min(&level));
    let fits = |level: &usize| capped(*level).sum::<usize>() <= max;
    capped((1..=max).rev().find(fits).unwrap_or(1)).collect()
}

/// Counts the occurrences of each name.
fn tally<'n>(names: impl Iterator<Item = &'n str>) -> BTreeMap<&'n str, usize> {
    names.fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name).or_default() += 1;
        counts
    })
}

/// Logs how many messages a queue did not store, with the distinct reasons and nothing of the messages.
fn log_errors(text: &'static str, queue: &Queue, failed: &[(Item<'_>, SendError)]) {
    if failed.is_empty() {
        return;
    }
    let mut reasons: Vec<&str> = failed.iter().map(|(_, error)| error.reason()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    tracing::error!(queue.name, messages.count = failed.len(), error.reasons = reasons.join(", "), "{text}");
}
