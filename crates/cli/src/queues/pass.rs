//! The limits and the end of one pass over a queue. A pass receives each message once, and hides it until the end.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use aws_sdk_sqs::types::Message;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{error::QueueError, queue::Queue};

/// The limits of the time of a pass. Messages that stay are hidden until its deadline, so that each is received once.
const MIN_TIMEOUT: Duration = Duration::from_mins(2);
const MAX_TIMEOUT: Duration = Duration::from_hours(6);
/// The limit of hidden messages. SQS allows
/// [120,000 messages in flight](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html)
/// on a queue, including those of its consumers.
const MAX_HIDDEN: usize = 50_000;
/// After this many consecutive receives without a new message, no message is visible.
const MAX_EMPTY_RECEIVES: u32 = 3;
/// How long a pass waits for messages in flight after its last new message. SQS's count is some seconds late, and messages
/// that a killed move received are visible again after half a minute.
const IN_FLIGHT_TIMEOUT: Duration = Duration::from_secs(40);
const IN_FLIGHT_INTERVAL: Duration = Duration::from_secs(1);
/// The pass ends after this many retries in a row. The interval between them doubles.
pub(crate) const MAX_RETRIES: u32 = 6;
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Messages of a queue that a pass may not have seen.
#[derive(Debug, Default, Serialize)]
pub struct Unseen {
    /// Whether a route leads to the queue, so that its consumers hold messages. The catch-all queue and dead-letter queues
    /// have no consumers.
    pub has_consumers: bool,
    /// Messages in flight at the end, except those of the pass: another consumer or an earlier run holds them. `None` if the
    /// queue was not read to its end.
    pub in_flight: Option<usize>,
    /// Receives without a response. SQS may have hidden up to ten messages for each.
    pub lost_receives: usize,
}

impl Unseen {
    pub(super) fn new(has_consumers: bool) -> Self {
        Self { has_consumers, ..Self::default() }
    }

    /// Whether messages of the queue may be hidden that are not with a consumer of its route.
    #[must_use]
    pub fn has_hidden(&self) -> bool {
        match self.in_flight {
            Some(0) => false,
            Some(_) if !self.has_consumers => true,
            _ => self.lost_receives > 0,
        }
    }

    /// Counts a failed receive if its response was lost.
    pub(super) fn count_lost_receive(&mut self, error: &QueueError) {
        self.lost_receives += usize::from(error.is_lost_response());
    }
}

/// Detects the end of a queue.
pub(super) struct EndDetector {
    empty_receives: u32,
    /// Messages in flight before the last receive, except those of the pass.
    in_flight: usize,
    last_new: Instant,
}

impl EndDetector {
    pub(super) fn new() -> Self {
        Self { empty_receives: 0, in_flight: 0, last_new: Instant::now() }
    }

    /// Records the result of a receive. `hidden` is the number of messages that the pass has in flight.
    pub(super) async fn record(&mut self, has_new: bool, queue: &Queue, hidden: usize) -> Result<(), QueueError> {
        if has_new {
            *self = Self::new();
            return Ok(());
        }
        self.empty_receives += 1;
        // Before the last receive, which then returns a message that is visible again after the count.
        if self.empty_receives + 1 == MAX_EMPTY_RECEIVES {
            self.in_flight = queue.counts().await?.0.in_flight.saturating_sub(hidden);
        }
        Ok(())
    }

    /// Whether the last receives returned no new message.
    pub(super) fn has_no_visible(&self) -> bool {
        self.empty_receives >= MAX_EMPTY_RECEIVES
    }

    /// Whether the queue was read to its end: no message is visible, and none is in flight except those of the pass and those of
    /// consumers. Gives up on messages in flight after [`IN_FLIGHT_TIMEOUT`].
    pub(super) async fn is_at_end(&mut self, unseen: &mut Unseen) -> bool {
        unseen.in_flight = None;
        if !self.has_no_visible() {
            return false;
        }
        if self.in_flight == 0 || unseen.has_consumers || self.last_new.elapsed() >= IN_FLIGHT_TIMEOUT {
            unseen.in_flight = Some(self.in_flight);
            return true;
        }
        self.empty_receives = 0;
        sleep(IN_FLIGHT_INTERVAL).await;
        false
    }
}

/// Receives from a queue, and retries transient errors.
pub(super) async fn receive(
    queue: &Queue,
    max: i32,
    visibility_timeout: Duration,
    wait: Duration,
    unseen: &mut Unseen,
) -> Result<Vec<Message>, QueueError> {
    let mut retries = 0;
    loop {
        match queue.receive(max, visibility_timeout, wait).await {
            Ok(messages) => return Ok(messages),
            Err(error) => {
                unseen.count_lost_receive(&error);
                wait_to_retry(error, &mut retries).await?;
            }
        }
    }
}

/// Returns twice the time that a pass over this many messages should take, within the limits.
pub(super) fn timeout(messages: usize, seconds_per_message: f64) -> Duration {
    let messages = u32::try_from(messages).map_or(f64::MAX, f64::from);
    let timeout = Duration::try_from_secs_f64(2.0 * messages * seconds_per_message);
    timeout.unwrap_or(MAX_TIMEOUT).clamp(MIN_TIMEOUT, MAX_TIMEOUT)
}

/// Returns the reason why a pass must end.
pub(super) fn check_limits(stop: &AtomicBool, hidden: usize, deadline: Instant) -> Result<(), String> {
    if stop.load(Ordering::Relaxed) {
        Err("interrupted".to_owned())
    } else if hidden >= MAX_HIDDEN {
        Err(format!("stopped after {MAX_HIDDEN} messages that remain on the queue"))
    } else if Instant::now() >= deadline {
        Err("the time limit of one run is reached: run the command again".to_owned())
    } else {
        Ok(())
    }
}

/// Waits before the next attempt. Returns the error instead if it is permanent, or if there were too many retries in a row.
pub(crate) async fn wait_to_retry(error: QueueError, retries: &mut u32) -> Result<(), QueueError> {
    if !error.is_transient || *retries >= MAX_RETRIES {
        return Err(error);
    }
    sleep(RETRY_INTERVAL * 2_u32.pow(*retries)).await;
    *retries += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_in_flight_are_hidden_ones_without_consumers() {
        for (has_consumers, in_flight, lost_receives, expected) in [
            (false, Some(0), 1, false),
            (false, Some(1), 0, true),
            (true, Some(1), 0, false),
            (true, Some(1), 1, true),
            (false, None, 0, false),
            (false, None, 1, true),
        ] {
            let unseen = Unseen { has_consumers, in_flight, lost_receives };
            assert_eq!(unseen.has_hidden(), expected, "{unseen:?}");
        }
    }

    #[test]
    fn timeout_is_within_its_limits() {
        assert_eq!(timeout(0, 0.1), MIN_TIMEOUT);
        assert_eq!(timeout(1000, 0.1), Duration::from_secs(200));
        for messages in [10_000_000, usize::MAX] {
            assert_eq!(timeout(messages, 1.0), MAX_TIMEOUT);
        }
    }
}
