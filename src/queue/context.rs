//! The values of a request that storing needs, and the time that is left.

use std::time::Duration;

use tokio::time::Instant;
use whatsapp_webhook::message::RequestContext;

use crate::metrics::Metrics;

/// A call starts only if at least this much time is left. If a call succeeded after the answer 503, it would leave a duplicate.
const MIN_CALL_TIME: Duration = Duration::from_millis(200);

/// The values of a request that storing needs.
#[derive(Debug, Clone, Copy)]
pub struct StoreContext<'r> {
    /// The values that all messages of the request share.
    pub request: RequestContext<'r>,
    /// When storing has to end.
    pub deadline: Instant,
    /// The metrics of the invocation.
    pub metrics: &'r Metrics,
}

impl StoreContext<'_> {
    /// Whether enough time is left for a call that starts at `start`.
    pub(super) fn has_time_at(&self, start: Instant) -> bool {
        start + MIN_CALL_TIME <= self.deadline
    }

    /// Returns at once if enough time is left for a call, and otherwise never. The caller stops waiting at the deadline.
    pub(super) async fn pend_if_no_time_left(&self) {
        if !self.has_time_at(Instant::now()) {
            std::future::pending::<()>().await;
        }
    }

    /// The time at which half of the time that is left now will be over.
    pub(super) fn one_half_deadline(&self) -> Instant {
        let now = Instant::now();
        now + self.deadline.saturating_duration_since(now) / 2
    }

    /// The time at which a third of the time that is left now will be over.
    pub(super) fn one_third_deadline(&self) -> Instant {
        self.interval_deadline(Duration::MAX)
    }

    /// The end of this interval, or of a third of the time that is left now if that is shorter.
    pub(super) fn interval_deadline(&self, interval: Duration) -> Instant {
        let now = Instant::now();
        now + interval.min(self.deadline.saturating_duration_since(now) / 3)
    }
}
