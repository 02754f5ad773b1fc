//! Ends the execution environment without cutting off the answers of requests that are under way.
//!
//! This is necessary if AWS no longer accepts its credentials: Lambda then starts a new one, with new credentials.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};

/// The environment ends after this interval without a new request, because an idle worker may just be receiving one.
const QUIET_INTERVAL: Duration = Duration::from_millis(100);

/// Counts the requests under way, and the workers that take no further request.
#[derive(Debug)]
pub struct Drain {
    workers: usize,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: usize,
    stopped_workers: usize,
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub struct RequestGuard<'d>(&'d watch::Sender<State>);

impl Drain {
    /// Creates the count for an environment with this many workers, each of which takes one request at a time.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers, state: watch::Sender::default() }
    }

    /// Counts a request.
    #[must_use]
    pub fn begin(&self) -> RequestGuard<'_> {
        self.state.send_modify(|state| state.requests += 1);
        RequestGuard(&self.state)
    }

    /// Stops the worker that awaits this. [`Self::finished`] then waits for the requests of the others. Never returns.
    pub async fn stop_worker(&self) {
        self.state.send_modify(|state| state.stopped_workers += 1);
        std::future::pending::<()>().await;
    }

    /// Waits until a worker was stopped and nobody waits for an answer: all workers are stopped, or no request is under way
    /// and none arrived for `QUIET_INTERVAL`.
    pub async fn finished(&self) {
        let mut state = self.state.subscribe();
        loop {
            // The sender lives as long as `self`.
            let _ = state.wait_for(|state| state.stopped_workers > 0 && state.requests == 0).await;
            let has_no_worker_left = state.borrow().stopped_workers == self.workers;
            if has_no_worker_left || timeout(QUIET_INTERVAL, state.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|state| state.requests -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::{
        join, select,
        time::{Instant, sleep},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn last_stopped_worker_ends_at_once() {
        let (drain, started) = (Drain::new(1), Instant::now());
        assert_eq!(drain.finished().now_or_never(), None);
        drop(drain.begin());
        select! {
            () = drain.stop_worker() => unreachable!("it never returns"),
            () = drain.finished() => {}
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_under_way_are_answered_first() {
        let (drain, started) = (Drain::new(8), Instant::now());
        let request = |start: u64, duration: u64| {
            let drain = &drain;
            async move {
                sleep(Duration::from_millis(start)).await;
                let _guard = drain.begin();
                sleep(Duration::from_millis(duration)).await;
            }
        };
        // The last one begins while the environment waits for silence.
        let requests = async { join!(request(0, 10), request(5, 1_000), request(1_050, 500)) };
        let stop = async {
            request(0, 1).await;
            drain.stop_worker().await;
        };
        select! {
            biased;
            _ = async { join!(requests, stop) } => unreachable!("a stopped worker never returns"),
            () = drain.finished() => {}
        }
        assert_eq!(started.elapsed(), Duration::from_millis(1_550) + QUIET_INTERVAL);
    }
}
