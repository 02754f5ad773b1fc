//! Limits the batches and bytes that all requests of an execution environment have under way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as FairMutex, Notify};

/// With this factor, a single share gets three quarters of the budget. With a higher one, a share whose queue hangs would
/// leave less for the others.
const MAX_SHARE_OF_FREE: usize = 3;

/// The limits of an execution environment.
///
/// A share may take a further batch only while it holds less than [`MAX_SHARE_OF_FREE`] times what is free. Shares that need
/// many batches therefore get equal parts, and a part of the budget remains free for the next share.
#[derive(Debug)]
pub(super) struct Budget {
    max: Usage,
    used: Mutex<Usage>,
    released: Notify,
}

/// The batches and bytes of the budget that one request holds for one queue.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    used: Mutex<Usage>,
    /// Serves the waiting workers of the share first come, first served.
    turn: FairMutex<()>,
}

/// The permission for one batch. Dropping it releases the batch and its bytes.
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
    pub(super) fn new(batches: usize, bytes: usize) -> Self {
        Self { max: Usage { batches, bytes }, used: Mutex::default(), released: Notify::new() }
    }

    /// Returns a share that holds nothing yet.
    pub(super) fn share(self: &Arc<Self>) -> Arc<Share> {
        Arc::new(Share { budget: Arc::clone(self), used: Mutex::default(), turn: FairMutex::default() })
    }
}

impl Share {
    /// Waits for the permission for a further batch. The first one of a share never waits, so no queue and no request
    /// depends on the calls of another.
    pub(super) async fn acquire(self: &Arc<Self>) -> Permit {
        let _turn = self.turn.lock().await;
        loop {
            // Receives all releases from here on.
            let released = self.budget.released.notified();
            if let Some(permit) = self.try_acquire() {
                return permit;
            }
            released.await;
        }
    }

    /// The batches of the share that are under way.
    pub(super) fn batches(&self) -> usize {
        lock(&self.used).batches
    }

    fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let (mut all, mut own) = (lock(&self.budget.used), lock(&self.used));
        let max = self.budget.max;
        let is_first = own.batches == 0;
        let may_hold = |max: usize, all: usize| max.saturating_sub(all).saturating_mul(MAX_SHARE_OF_FREE);
        let has_batch = own.batches < may_hold(max.batches, all.batches);
        let has_bytes = own.bytes < may_hold(max.bytes, all.bytes);
        (is_first || (has_batch && has_bytes)).then(|| {
            all.batches += 1;
            own.batches += 1;
            Permit { share: Arc::clone(self), bytes: 0 }
        })
    }
}

impl Permit {
    /// Adds the size of the batch, once it is known.
    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
        lock(&self.share.budget.used).bytes += bytes;
        lock(&self.share.used).bytes += bytes;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for used in [&self.share.budget.used, &self.share.used] {
            let mut used = lock(used);
            used.batches -= 1;
            used.bytes -= self.bytes;
        }
        self.share.budget.released.notify_waiters();
    }
}

fn lock(usage: &Mutex<Usage>) -> MutexGuard<'_, Usage> {
    usage.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Takes as many permits as there are, of this size each.
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
    fn each_share_leaves_batches_for_the_next() {
        let budget = Arc::new(Budget::new(32, usize::MAX));
        let shares: Vec<_> = (0..8).map(|_| budget.share()).collect();
        let held: Vec<_> = shares.iter().map(|share| fill(share, 0)).collect();
        let counts: Vec<_> = held.iter().map(Vec::len).collect();
        // Beyond the limit, a share without a batch still gets one.
        assert_eq!(counts, [24, 6, 2, 1, 1, 1, 1, 1]);
    }

    // Outside tokio's runtime, in which `now_or_never` returns `None` after some immediate results.
    #[test]
    fn released_batches_are_shared_equally() {
        let budget = Arc::new(Budget::new(32, usize::MAX));
        let shares = [budget.share(), budget.share(), budget.share()];
        let mut held = shares.each_ref().map(|share| fill(share, 0));
        for _ in 0..100 {
            for (share, held) in shares.iter().zip(&mut held) {
                held.pop();
                held.extend(fill(share, 0));
            }
        }
        let counts = held.map(|held| held.len());
        assert!(counts.iter().all(|count| (9..=11).contains(count)), "{counts:?}");
    }

    #[tokio::test]
    async fn waiting_batch_starts_after_a_release() {
        let budget = Arc::new(Budget::new(2, usize::MAX));
        let share = budget.share();
        let held = fill(&share, 0);
        assert_eq!(held.len(), 2);
        let (permit, ()) = tokio::join!(share.acquire(), async { drop(held) });
        drop(permit);
        assert_eq!(lock(&budget.used).batches, 0);
    }

    #[test]
    fn bytes_of_all_shares_are_limited() {
        let budget = Arc::new(Budget::new(32, 12));
        let shares = [budget.share(), budget.share()];
        let held = shares.each_ref().map(|share| fill(share, 2));
        assert_eq!(held.each_ref().map(Vec::len), [5, 1]);
        drop(held);
        assert_eq!(lock(&budget.used).bytes, 0);
    }
}
