//! The limits of one pass over a queue. A pass receives each message once, and hides it until the end.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::error::QueueError;

/// The limits of the time of a pass. Messages that stay are hidden until its deadline, so that each is received once.
const MIN_TIMEOUT: Duration = Duration::from_mins(2);
const MAX_TIMEOUT: Duration = Duration::from_hours(6);
/// The limit of hidden messages. SQS allows
/// [120,000 messages in flight](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html)
/// on a queue, including those of its consumers.
const MAX_HIDDEN: usize = 50_000;
/// The queue counts as read to its end after this many consecutive receives without a new message.
pub(super) const MAX_EMPTY_RECEIVES: u32 = 3;
/// The pass ends after this many retries in a row. The interval between them doubles.
pub(crate) const MAX_RETRIES: u32 = 6;
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(500);

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
    fn timeout_is_within_its_limits() {
        assert_eq!(timeout(0, 0.1), MIN_TIMEOUT);
        assert_eq!(timeout(1000, 0.1), Duration::from_secs(200));
        for messages in [10_000_000, usize::MAX] {
            assert_eq!(timeout(messages, 1.0), MAX_TIMEOUT);
        }
    }
}
