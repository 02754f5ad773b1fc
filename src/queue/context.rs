//! The values of a request, and the time that is left for it.

use std::time::Duration;

use tokio::time::Instant;
use whatsapp_webhook::message::RequestContext;

use crate::metrics::Metrics;

/// No call starts with less time left. If it succeeded after the answer 503, it would leave a duplicate.
const MIN_CALL_TIME: Duration = Duration::from_millis(200);

/// The values of a request that storing needs.
#[derive(Debug, Clone, Copy)]
pub struct StoreContext<'r> {
    /// The values that all messages of the request share.
    pub request: RequestContext<'r>,
    /// When storing ends.
    pub deadline: Instant,
    /// The metrics of the invocation.
    pub metrics: &'r Metrics,
}

impl StoreContext<'_> {
    /// Whether a call may start at this time.
    pub(super) fn has_time_at(&self, start: Instant) -> bool {
        start + MIN_CALL_TIME <= self.deadline
    }

    /// Waits forever if no call may start. The caller stops waiting at the deadline.
    pub(super) async fn pend_if_no_time_left(&self) {
        if !self.has_time_at(Instant::now()) {
            std::future::pending::<()>().await;
        }
    }

    /// When half of the time that is left will be over.
    pub(super) fn half_time_deadline(&self) -> Instant {
        let now = Instant::now();
        now + self.deadline.saturating_duration_since(now) / 2
    }

    /// When a third of the time that is left will be over.
    pub(super) fn third_time_deadline(&self) -> Instant {
        self.interval_deadline(Duration::MAX)
    }

    /// When this interval will be over, or a third of the time that is left if that is shorter.
    pub(super) fn interval_deadline(&self, interval: Duration) -> Instant {
        let now = Instant::now();
        now + interval.min(self.deadline.saturating_duration_since(now) / 3)
    }
}
