//! Simulates how Lambda scales, request by request, as [its documentation] describes.
//!
//! An execution environment serves one request at a time, and an idle one is used before a new one starts. Requests and
//! new environments have quotas. A request over a quota is rejected.
//!
//! [its documentation]: https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "estimates of a few digits"
)]

use std::{cmp::Reverse, collections::BinaryHeap, f64::consts::TAU};

use fastrand::Rng;

/// Standard deviations between the median and the 99th percentile of a normal distribution.
const P99_DEVIATIONS: f64 = 2.326;

/// The load and the quotas.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) requests_per_second: f64,
    pub(crate) seconds: f64,
    /// Environments that exist and are idle at the beginning.
    pub(crate) idle: usize,
    pub(crate) median_ms: f64,
    pub(crate) p99_over_median: f64,
    /// The time from a request until a new environment starts to process it.
    pub(crate) start_ms: f64,
    pub(crate) max_environments: f64,
    pub(crate) max_requests_per_second: f64,
    pub(crate) max_starts_per_second: f64,
    /// Environments that may start at once.
    pub(crate) start_burst: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) requests: usize,
    pub(crate) rejected: usize,
    /// Environments that were started.
    pub(crate) started: usize,
    /// Busy environments, averaged over time.
    pub(crate) mean_busy: f64,
    /// The maximum of busy environments.
    pub(crate) peak_busy: usize,
    /// The median latency of the served requests.
    pub(crate) median_ms: f64,
    /// The 99th percentile of their latency.
    pub(crate) p99_ms: f64,
}

/// Runs a load with independent arrivals and log-normal service times.
pub(crate) fn simulate(load: &Load) -> Outcome {
    let mut random = Rng::with_seed(1);
    let mut outcome = Outcome::default();
    let (mut now, end) = (0.0, load.seconds * 1e3);
    let (mut busy, mut idle) = (BinaryHeap::new(), load.idle);
    let mut starts = TokenBucket::new(load.max_starts_per_second, load.start_burst);
    let mut requests = TokenBucket::new(load.max_requests_per_second, load.max_requests_per_second);
    let (mut worked, mut latencies) = (0.0, Vec::new());
    loop {
        now += -random.f64().max(f64::MIN_POSITIVE).ln() / load.requests_per_second * 1e3;
        if now >= end {
            break;
        }
        outcome.requests += 1;
        while busy.peek().is_some_and(|Reverse(until)| *until <= to_micros(now)) {
            busy.pop();
            idle += 1;
        }
        let is_warm = idle > 0;
        let may_start = || ((load.idle + outcome.started) as f64) < load.max_environments;
        if !(is_warm || may_start() && starts.has_token(now)) || !requests.take(now) {
            outcome.rejected += 1;
            continue;
        }
        if is_warm {
            idle -= 1;
        } else {
            starts.take(now);
            outcome.started += 1;
        }
        let latency = if is_warm { 0.0 } else { load.start_ms } + service_time(&mut random, load);
        latencies.push(latency);
        worked += latency.min(end - now);
        busy.push(Reverse(to_micros(now + latency)));
        outcome.peak_busy = outcome.peak_busy.max(busy.len());
    }
    latencies.sort_by(f64::total_cmp);
    let quantile =
        |fraction: f64| latencies.get((latencies.len() as f64 * fraction) as usize).copied().unwrap_or_default();
    Outcome { mean_busy: worked / end, median_ms: quantile(0.5), p99_ms: quantile(0.99), ..outcome }
}

/// Returns the mean of a log-normal time.
pub(crate) fn mean_ms(median_ms: f64, p99_over_median: f64) -> f64 {
    let deviation = p99_over_median.ln() / P99_DEVIATIONS;
    median_ms * (deviation * deviation / 2.0).exp()
}

fn to_micros(milliseconds: f64) -> u64 {
    (milliseconds * 1e3) as u64
}

/// Draws a log-normal time in milliseconds, with the Box-Muller transform.
fn service_time(random: &mut Rng, load: &Load) -> f64 {
    let radius = (-2.0 * random.f64().max(f64::MIN_POSITIVE).ln()).sqrt();
    let normal = radius * (TAU * random.f64()).cos();
    load.median_ms * (normal * load.p99_over_median.ln() / P99_DEVIATIONS).exp()
}

/// A quota with a burst.
struct TokenBucket {
    tokens_per_ms: f64,
    max_tokens: f64,
    tokens: f64,
    updated_ms: f64,
}

impl TokenBucket {
    fn new(tokens_per_second: f64, max_tokens: f64) -> Self {
        Self { tokens_per_ms: tokens_per_second / 1e3, max_tokens, tokens: max_tokens, updated_ms: 0.0 }
    }

    fn has_token(&mut self, now: f64) -> bool {
        self.tokens = (self.tokens + (now - self.updated_ms) * self.tokens_per_ms).min(self.max_tokens);
        self.updated_ms = now;
        self.tokens >= 1.0
    }

    fn take(&mut self, now: f64) -> bool {
        let has_token = self.has_token(now);
        self.tokens -= if has_token { 1.0 } else { 0.0 };
        has_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without quotas and start time.
    const UNLIMITED: Load = Load {
        requests_per_second: 1_000.0,
        seconds: 300.0,
        idle: 0,
        median_ms: 20.0,
        p99_over_median: 4.0,
        start_ms: 0.0,
        max_environments: f64::INFINITY,
        max_requests_per_second: f64::INFINITY,
        max_starts_per_second: f64::INFINITY,
        start_burst: f64::INFINITY,
    };

    fn assert_near(value: f64, expected: f64, tolerance: f64) {
        assert!((value / expected - 1.0).abs() < tolerance, "{value} is not {expected}");
    }

    #[test]
    fn busy_environments_follow_littles_law() {
        // The mean of a log-normal time whose 99th percentile is four times its median: 20 ms times e^0.1776.
        for (rate, p99_over_median, mean) in [(1_000.0, 4.0, 23.886), (500.0, 1.0, 20.0), (2_000.0, 4.0, 23.886)] {
            let outcome = simulate(&Load { requests_per_second: rate, p99_over_median, ..UNLIMITED });
            assert_near(mean_ms(UNLIMITED.median_ms, p99_over_median), mean, 0.001);
            assert_near(outcome.mean_busy, rate * mean / 1e3, 0.02);
            assert_near(outcome.requests as f64, rate * UNLIMITED.seconds, 0.01);
            assert_near(outcome.p99_ms / outcome.median_ms, p99_over_median, 0.05);
            assert_eq!(outcome.rejected, 0);
        }
    }

    #[test]
    fn rejections_follow_erlangs_loss_formula() {
        // 1/B(n) = 1 + n/a * 1/B(n-1), by hand. With 8 busy on average, 10 environments lose 12.17 %, 12 lose 5.14 %.
        let load = Load { requests_per_second: 400.0, p99_over_median: 1.0, seconds: 1_000.0, ..UNLIMITED };
        for (max_environments, rejected) in [(10.0, 0.1217), (12.0, 0.0514)] {
            let outcome = simulate(&Load { max_environments, ..load });
            assert_near(outcome.rejected as f64 / outcome.requests as f64, rejected, 0.04);
            assert_eq!((outcome.peak_busy as f64, outcome.started as f64), (max_environments, max_environments));
        }
    }

    #[test]
    fn requests_and_starts_have_separate_quotas() {
        // The load is 4,000 a second for 3 s. The quota is 1,000 at once and 1,000 a second. So 4,000 of 12,000 are served.
        let load = Load { requests_per_second: 4_000.0, seconds: 3.0, ..UNLIMITED };
        let outcome = simulate(&Load { max_requests_per_second: 1_000.0, ..load });
        assert_near((outcome.requests - outcome.rejected) as f64, 4_000.0, 0.01);
        // Each takes ten seconds: every request needs a new environment. A burst of 50 and 10 a second make 150.
        let load = Load { median_ms: 1e4, p99_over_median: 1.0, seconds: 9.999, ..UNLIMITED };
        let outcome = simulate(&Load { max_starts_per_second: 10.0, start_burst: 50.0, ..load });
        assert!((149..=150).contains(&outcome.started), "{outcome:?}");
    }

    #[test]
    fn cold_load_starts_an_environment_per_request() {
        // All take 237 + 13 ms; no environment is idle for the requests of the first 250 ms: 3,300 times 0.25.
        let load = Load { requests_per_second: 3_300.0, seconds: 5.0, median_ms: 13.0, ..UNLIMITED };
        let outcome = simulate(&Load { p99_over_median: 1.0, start_ms: 237.0, ..load });
        assert_near(outcome.started as f64, 825.0, 0.08);
    }
}
