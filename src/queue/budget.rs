//! Limits the batches and bytes that all requests of an execution environment together have under way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as FairMutex, Notify};

/// A share may take a batch while `held < ratio * free`, in batches and in bytes.
///
/// A single share therefore gets three quarters of the budget. With a higher ratio, a share whose queue does not respond would
/// leave less for the other shares.
const MAX_HELD_TO_FREE_RATIO: usize = 3;

/// The limits of an execution environment.
///
/// Shares that need many batches get equal parts, and a part of the budget remains free for the next share, see
/// [`MAX_HELD_TO_FREE_RATIO`].
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
    pub(super) fn new(batches: usize, bytes: usize) -> Self {
        Self { max: Usage { batches, bytes }, used: Mutex::default(), released: Notify::new() }
    }

    /// Returns a share without a batch.
    pub(super) fn share(self: &Arc<Self>) -> Arc<Share> {
        Arc::new(Share { budget: Arc::clone(self), used: Mutex::default(), waiting: FairMutex::default() })
    }
}

impl Share {
    /// Waits until the budget allows a further batch.
    ///
    /// If the share has no batch under way, it does not wait and may exceed the budget. No queue and no request therefore
    /// depends on the calls of another one.
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
        let (mut all, mut own) = (lock(&self.budget.used), lock(&self.used));
        let max = self.budget.max;
        let is_first = own.batches == 0;
        let max_of_share = |max: usize, used: usize| max.saturating_sub(used).saturating_mul(MAX_HELD_TO_FREE_RATIO);
        let allows_batch = own.batches < max_of_share(max.batches, all.batches);
        let allows_bytes = own.bytes < max_of_share(max.bytes, all.bytes);
        (is_first || (allows_batch && allows_bytes)).then(|| {
            all.batches += 1;
            own.batches += 1;
            Permit { share: Arc::clone(self), bytes: 0 }
        })
    }
}

impl Permit {
    /// Adds the size of the batch in bytes. It is not known yet when the share acquires the permit.
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
    fn each_share_leaves_batches_for_the_next_one() {
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
