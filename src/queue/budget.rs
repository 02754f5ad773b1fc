//! Limits the batches and bytes that all requests of an execution environment together have under way.

use std::sync::{Arc, Mutex};

use tokio::sync::{Mutex as FairMutex, Notify};

use crate::lock::lock;

/// A queue may take a batch while `held < ratio * free`, in batches and in bytes.
///
/// A queue therefore gets three quarters of the budget at most, however many requests send to it. With a higher ratio, a queue that
/// does not respond would leave less for the others.
const QUEUE_RATIO: usize = 3;

/// The same for a request among those that send to a queue. `free` is what the queue may still take.
///
/// A request that is alone gets 22 of 32 batches. With a higher ratio, it would leave too little for the next one.
const REQUEST_RATIO: usize = 2;

/// The limits of an execution environment.
///
/// Queues that need many batches get equal parts, and so do the requests that send to one queue. A part of the budget remains free
/// for the next queue, see [`QUEUE_RATIO`].
#[derive(Debug)]
pub(super) struct Budget {
    max: Usage,
    used: Mutex<Used>,
    released: Notify,
}

#[derive(Debug)]
struct Used {
    all: Usage,
    by_queue: Vec<Usage>,
}

/// The batches and bytes of the budget that one request holds for one queue.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    queue_index: usize,
    /// Locked after the budget.
    used: Mutex<Usage>,
    /// Locked by the worker that waits for a permit. The other workers get the lock in the order of their calls.
    waiting: FairMutex<()>,
}

/// Allows one batch to be under way. Dropping it releases the batch and its bytes.
#[derive(Debug)]
pub(super) struct Permit {
    share: Arc<Share>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    batches: usize,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(batches: usize, bytes: usize, queues: usize) -> Self {
        let used = Used { all: Usage::default(), by_queue: vec![Usage::default(); queues] };
        Self { max: Usage { batches, bytes }, used: Mutex::new(used), released: Notify::new() }
    }

    /// Returns a share without a batch, for a queue of this index.
    pub(super) fn share(self: &Arc<Self>, queue_index: usize) -> Arc<Share> {
        let (used, waiting) = (Mutex::default(), FairMutex::default());
        Arc::new(Share { budget: Arc::clone(self), queue_index, used, waiting })
    }
}

impl Share {
    /// Waits until the budget allows a further batch.
    ///
    /// If the share has no batch under way, it does not wait and may exceed the budget. The first batch of a request to a queue
    /// therefore never depends on other calls.
    pub(super) async fn acquire(self: &Arc<Self>) -> Permit {
        let _guard = self.waiting.lock().await;
        loop {
            // Created before the attempt, so that it receives a release during the attempt.
            let released = self.budget.released.notified();
            if let Some(permit) = self.try_acquire() {
                return permit;
            }
            released.await;
        }
    }

    /// The number of batches of the share that are under way.
    pub(super) fn batches(&self) -> usize {
        lock(&self.used).batches
    }

    fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let max = self.budget.max;
        self.with_usages(|[all, queue, own]| {
            let allows = |figure: fn(&Usage) -> usize| {
                let free = figure(&max).saturating_sub(figure(all));
                let free_of_queue = free.saturating_mul(QUEUE_RATIO).saturating_sub(figure(queue));
                figure(own) < free_of_queue.saturating_mul(REQUEST_RATIO)
            };
            let is_first = own.batches == 0;
            (is_first || (allows(|usage| usage.batches) && allows(|usage| usage.bytes))).then(|| {
                for usage in [all, queue, own] {
                    usage.batches += 1;
                }
                Permit { share: Arc::clone(self), bytes: 0 }
            })
        })
    }

    /// Locks the usages of the budget, of the queue and of this share.
    fn with_usages<T>(&self, action: impl FnOnce([&mut Usage; 3]) -> T) -> T {
        let (mut used, mut own) = (lock(&self.budget.used), lock(&self.used));
        let Used { all, by_queue } = &mut *used;
        action([all, &mut by_queue[self.queue_index], &mut own])
    }
}

impl Permit {
    /// Adds the size of the batch in bytes. It is not known yet when the share acquires the permit.
    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.share.with_usages(|usages| usages.into_iter().for_each(|usage| usage.bytes += bytes));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.share.with_usages(|usages| {
            for usage in usages {
                usage.batches -= 1;
                usage.bytes -= self.bytes;
            }
        });
        self.share.budget.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Acquires permits of this size until the share would have to wait.
    fn fill(share: &Arc<Share>, bytes: usize) -> Vec<Permit> {
        let permit = || share.acquire().now_or_never();
        std::iter::from_fn(permit)
            .map(|mut permit| {
                permit.add_bytes(bytes);
                permit
            })
            .collect()
    }

    #[test]
    fn each_queue_leaves_batches_for_the_next_one() {
        let budget = Arc::new(Budget::new(32, usize::MAX, 8));
        let shares: Vec<_> = (0..8).map(|queue| budget.share(queue)).collect();
        let held: Vec<_> = shares.iter().map(|share| fill(share, 0)).collect();
        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        // Beyond the limit, a share without a batch still gets one.
        assert_eq!(counts, [22, 7, 2, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn requests_to_one_queue_leave_batches_for_other_queues() {
        let budget = Arc::new(Budget::new(32, usize::MAX, 2));
        let shares: Vec<_> = [0, 0, 0, 1].map(|queue| budget.share(queue)).into();
        let held: Vec<_> = shares.iter().map(|share| fill(share, 0)).collect();
        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        assert_eq!(counts, [22, 2, 1, 5]);
    }

    // Outside tokio's runtime, in which `now_or_never` returns `None` after some immediate results.
    #[test]
    fn released_batches_are_shared_equally() {
        for (queues, expected) in [([0, 1, 2], 8..=11), ([0, 0, 0], 7..=9)] {
            let budget = Arc::new(Budget::new(32, usize::MAX, 3));
            let shares = queues.map(|queue| budget.share(queue));
            let mut held = shares.each_ref().map(|share| fill(share, 0));
            for _ in 0..100 {
                for (share, held) in shares.iter().zip(&mut held) {
                    held.pop();
                    held.extend(fill(share, 0));
                }
            }
            let counts = held.map(|held| held.len());
            assert!(counts.iter().all(|count| expected.contains(count)), "{queues:?}: {counts:?}");
        }
    }

    #[tokio::test]
    async fn waiting_batch_starts_after_a_release() {
        let budget = Arc::new(Budget::new(2, usize::MAX, 1));
        let share = budget.share(0);
        let held = fill(&share, 0);
        assert_eq!(held.len(), 2);
        let (permit, ()) = tokio::join!(share.acquire(), async { drop(held) });
        drop(permit);
        assert_eq!(lock(&budget.used).all.batches, 0);
    }

    #[test]
    fn bytes_of_all_shares_are_limited() {
        let budget = Arc::new(Budget::new(32, 12, 2));
        let shares = [budget.share(0), budget.share(1)];
        let held = shares.each_ref().map(|share| fill(share, 2));
        assert_eq!(held.each_ref().map(Vec::len), [4, 2]);
        drop(held);
        assert_eq!(lock(&budget.used).all.bytes, 0);
    }
}
