//! Every message onto its queue: in batches, again where SQS failed, to the catch-all where a queue does.

use std::{collections::BTreeMap, sync::OnceLock};

use aws_sdk_sqs::Client;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::{
    message::{MOST_BYTES, Message, Origin, Unrouted, event_id},
    metrics::Metrics,
    notification::Piece,
    payload::Payloads,
    routes::{Queue, Routes},
};

mod call;
mod sending;
use sending::{Failure, MOST_ENTRIES, Sending};

/// Calls at a time, all queues together; each is a connection. The most that Meta sends are a hundred calls.
const MOST_CALLS: usize = 32;

/// The queues of the routes.
#[derive(Debug)]
pub struct Queues {
    client: Client,
    routes: Routes,
    payloads: Payloads,
}

/// What became of the pieces of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Pieces that were to be stored.
    pub pieces: usize,
    /// Of these, stored on the catch-all because no route is theirs.
    pub unrouted: usize,
    /// Stored on the catch-all because their own queue did not take them.
    pub diverted: usize,
    /// Stored nowhere.
    pub lost: usize,
}

/// What all calls for one queue's items have in common, those to the catch-all included.
#[derive(Clone, Copy)]
struct Share<'r> {
    origin: Origin<'r>,
    until: Instant,
    metrics: &'r Metrics,
    /// Calls at a time: none waits for those of another queue, which may hang.
    calls: usize,
}

/// A piece on its way to a queue.
struct Item<'p> {
    piece: &'p Piece<'p>,
    /// Made when it is needed first, while other items' calls are on their way.
    event_id: OnceLock<String>,
    /// The route that it took, also when that led to the catch-all in the end.
    route: Option<&'p str>,
    unrouted: Option<Unrouted>,
    /// Built before it was needed, to know its size.
    ready: Option<Message>,
    /// In no batch with others, because SQS refused a batch without saying which entry it was.
    alone: bool,
    form: Form,
}

/// What an item is sent as. Each form is for what SQS refused in the one before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As the contract has it.
    Usual,
    /// Its bytes alone, as base64.
    Bare,
    /// The same in S3, whatever its size: a queue can have a lower limit than SQS.
    BareInS3,
}

impl Queues {
    /// Takes the routes and the clients; SQS is not called.
    #[must_use]
    pub fn new(client: Client, routes: Routes, payloads: Payloads) -> Self {
        Self { client, routes, payloads }
    }

    /// Opens a connection to SQS before the first message needs one, and logs if SQS would not take one: the first TLS
    /// handshake takes a function with little processor longer than all else.
    pub async fn warm_up(&self) {
        let queue = &self.routes.queues()[self.routes.catch_all()];
        if let Err(failure) = call::send_nothing(&self.client, &queue.url).await {
            tracing::warn!(queue.name, error.reason = failure.reason(), "SQS may not take messages");
        }
    }

    /// Stores every piece on its queue, and gives up when `until` is reached, or nothing could change any more.
    ///
    /// A queue that fails for half of that time, or says that it cannot be used, has its items diverted to the
    /// catch-all; the other queues do not wait for it. A message may be stored twice (an answer that was lost),
    /// with the same `event_id`; its order is kept within a group of a FIFO queue.
    pub async fn store(&self, pieces: &[Piece<'_>], origin: Origin<'_>, until: Instant, metrics: &Metrics) -> Stored {
        let mut by_queue: Vec<Vec<Item<'_>>> = self.routes.queues().iter().map(|_| Vec::new()).collect();
        for piece in pieces {
            let (queue, item) = self.address(piece);
            by_queue[queue].push(item);
        }
        let unrouted = by_queue.iter().flatten().filter(|item| item.unrouted.is_some()).count();
        for (route, count) in tally(by_queue.iter().flatten().filter_map(|item| item.route)) {
            metrics.count_of("Changes", route, count);
        }
        for (reason, count) in tally(by_queue.iter().flatten().filter_map(|item| item.unrouted.map(Unrouted::name))) {
            metrics.count_of("Unrouted", reason, count);
        }
        let needs: Vec<_> =
            by_queue.iter().zip(self.routes.queues()).map(|(items, queue)| need(items, queue)).collect();
        let shares = shares(&needs).into_iter().map(|calls| Share { origin, until, metrics, calls });
        let filled = by_queue.into_iter().zip(shares).enumerate().filter(|(_, (items, _))| !items.is_empty());
        let sent = join_all(filled.map(|(queue, (items, share))| self.store_on(queue, items, share))).await;
        sent.into_iter().fold(Stored { pieces: pieces.len(), unrouted, ..Stored::default() }, |sum, one| Stored {
            diverted: sum.diverted + one.diverted,
            lost: sum.lost + one.lost,
            ..sum
        })
    }

    fn address<'p>(&'p self, piece: &'p Piece<'p>) -> (usize, Item<'p>) {
        let destination = match piece {
            Piece::Change(change) => self.routes.find(change.field.as_deref(), change.kind),
            Piece::Other(_) | Piece::NotJson(_) => self.routes.find(None, None),
        };
        let item = Item {
            piece,
            event_id: OnceLock::new(),
            route: destination.route,
            unrouted: destination.route.is_none().then(|| Unrouted::of(piece)),
            ready: None,
            alone: false,
            form: Form::Usual,
        };
        (destination.queue, item)
    }

    async fn store_on(&self, queue: usize, items: Vec<Item<'_>>, share: Share<'_>) -> Stored {
        let catch_all = self.routes.catch_all();
        if queue == catch_all {
            return Stored { lost: self.keep(items, share).await.len(), ..Stored::default() };
        }
        let now = Instant::now();
        let half = now + share.until.saturating_duration_since(now) / 2;
        let failed = self.send(queue, items, half, share).await;
        // Where it is S3 that fails, it fails for the catch-all too.
        let (lost, failed): (Vec<_>, Vec<_>) = failed.into_iter().partition(|(_, failure)| failure.is_of_payload());
        report("messages stored nowhere", &self.routes.queues()[queue], &lost);
        report("queue failed, its messages go to the catch-all", &self.routes.queues()[queue], &failed);
        let diverted = failed.into_iter().map(|(item, _)| item.diverted()).collect::<Vec<_>>();
        let count = diverted.len();
        let by_route = tally(diverted.iter().filter_map(|item| item.route));
        let not_kept = self.keep(diverted, share).await;
        let lost_by_route = tally(not_kept.iter().filter_map(|item| item.route));
        for (route, count) in by_route {
            share.metrics.count_of("Diverted", route, count - lost_by_route.get(route).copied().unwrap_or_default());
        }
        Stored { diverted: count - not_kept.len(), lost: lost.len() + not_kept.len(), ..Stored::default() }
    }

    /// Puts items on the catch-all, in a barer form if need be; gives back those that are stored nowhere.
    async fn keep<'p>(&self, items: Vec<Item<'p>>, share: Share<'_>) -> Vec<Item<'p>> {
        let catch_all = self.routes.catch_all();
        let queue = &self.routes.queues()[catch_all];
        let mut failed = self.send(catch_all, items, share.until, share).await;
        let mut lost = Vec::new();
        for (form, text) in [
            (Form::Bare, "messages refused, their bytes go to the catch-all as base64"),
            (Form::BareInS3, "messages refused as base64, their bytes go to S3"),
        ] {
            if form == Form::BareInS3 && self.payloads.bucket().is_err() {
                break;
            }
            let is_refused = |(_, failure): &(Item<'_>, Failure)| matches!(failure, Failure::Refused(_));
            let (refused, others): (Vec<_>, Vec<_>) = failed.into_iter().partition(is_refused);
            report(text, queue, &refused);
            lost.extend(others);
            let barer = refused.into_iter().map(|(item, _)| item.barer(form)).collect();
            failed = self.send(catch_all, barer, share.until, share).await;
        }
        lost.extend(failed);
        report("messages stored nowhere", queue, &lost);
        lost.into_iter().map(|(item, _)| item).collect()
    }

    /// Sends items to one queue and gives back those that did not arrive.
    async fn send<'p>(
        &self,
        queue: usize,
        items: Vec<Item<'p>>,
        half: Instant,
        share: Share<'_>,
    ) -> Vec<(Item<'p>, Failure)> {
        Sending::new(self, &self.routes.queues()[queue], half, share).send(items).await
    }
}

impl Item<'_> {
    fn event_id(&self) -> &str {
        self.event_id.get_or_init(|| event_id(self.piece))
    }

    fn diverted(self) -> Self {
        Self { unrouted: Some(Unrouted::QueueUnavailable), ready: None, alone: false, ..self }
    }

    fn barer(self, form: Form) -> Self {
        Self { form, ready: None, alone: false, ..self }
    }

    /// Whether the body goes to S3, and the message points there.
    fn is_claim_check(&self, size: usize) -> bool {
        self.form == Form::BareInS3 || size > MOST_BYTES
    }

    fn build(&self, origin: Origin<'_>, fifo: bool) -> Message {
        if self.form != Form::Usual {
            return Message::bare(self.piece, self.event_id(), fifo);
        }
        Message::new(self.piece, self.event_id(), origin, self.unrouted, fifo)
    }
}

/// The calls at a time that a queue's items can be spread over: what is large may need one alone, and each item of a
/// FIFO queue may be of another group.
fn need(items: &[Item<'_>], queue: &Queue) -> usize {
    let is_alone = |item: &&Item<'_>| queue.fifo || item.piece.len() > MOST_BYTES / MOST_ENTRIES;
    let alone = items.iter().filter(is_alone).count();
    alone + (items.len() - alone).div_ceil(MOST_ENTRIES)
}

/// Shares the calls at a time out among the queues: as many as a queue needs, or as many as any other has.
fn shares(needs: &[usize]) -> Vec<usize> {
    let level = |most: usize| needs.iter().map(move |need| *need.min(&most));
    let fits = |most: &usize| level(*most).sum::<usize>() <= MOST_CALLS;
    level((1..=MOST_CALLS).rev().find(fits).unwrap_or(1)).collect()
}

/// How often each name is there.
fn tally<'n>(names: impl Iterator<Item = &'n str>) -> BTreeMap<&'n str, usize> {
    names.fold(BTreeMap::new(), |mut counts, name| {
        *counts.entry(name).or_default() += 1;
        counts
    })
}

/// Logs what a queue did not take, by the reasons that it gave; never what was in it.
fn report(text: &'static str, queue: &Queue, failed: &[(Item<'_>, Failure)]) {
    if failed.is_empty() {
        return;
    }
    let mut reasons: Vec<&str> = failed.iter().map(|(_, failure)| failure.reason()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    tracing::error!(queue.name, messages.count = failed.len(), error.reasons = reasons.join(", "), "{text}");
}
