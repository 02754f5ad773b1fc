//! Waits until the process can end without losing the answer of a request.
//!
//! The process ends if AWS no longer accepts the credentials of the execution environment. Lambda then starts a new environment,
//! with new credentials.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};

/// The process ends only after this interval without a request, because an idle worker may be receiving one.
const QUIET_INTERVAL: Duration = Duration::from_millis(100);

/// Counts the requests that are under way, and the workers that take no further request.
///
/// A worker is a task of Lambda's runtime that takes one request at a time.
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

/// Counts a request as under way until it is dropped.
#[derive(Debug)]
pub struct RequestGuard<'d>(&'d watch::Sender<State>);

impl Drain {
    /// Starts without a request, for a process with this many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers, state: watch::Sender::default() }
    }

    /// Counts a request as under way, until the result is dropped.
    #[must_use]
    pub fn begin(&self) -> RequestGuard<'_> {
        self.state.send_modify(|state| state.requests += 1);
        RequestGuard(&self.state)
    }

    /// Never returns, which stops the worker that awaits it. [`Self::finished`] then waits for the other workers.
    pub async fn stop_worker(&self) {
        self.state.send_modify(|state| state.stopped_workers += 1);
        std::future::pending::<()>().await;
    }

    /// Waits until the process may end.
    ///
    /// That is the case if all workers are stopped, or if one worker is stopped and no request was under way for
    /// `QUIET_INTERVAL`.
    pub async fn finished(&self) {
        let mut state = self.state.subscribe();
        loop {
            // The wait cannot fail, because the sender lives as long as `self`.
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
    async fn process_ends_when_all_workers_are_stopped() {
        let (drain, started) = (Drain::new(1), Instant::now());
        assert_eq!(drain.finished().now_or_never(), None);
        drop(drain.begin());
        select! {
            () = drain.stop_worker() => unreachable!("a stopped worker never returns"),
            () = drain.finished() => {}
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_under_way_delay_the_end() {
        let (drain, started) = (Drain::new(8), Instant::now());
        let request = |start: u64, duration: u64| {
            let drain = &drain;
            async move {
                sleep(Duration::from_millis(start)).await;
                let _guard = drain.begin();
                sleep(Duration::from_millis(duration)).await;
            }
        };
        // The last request begins during the quiet interval.
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
