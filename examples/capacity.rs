//! What it takes to receive the webhooks of one busy number, of ten, of a hundred: sandboxes, quotas, dollars.
//!
//! `cargo run --release --example capacity` prints the tables of `docs/capacity.md` from the figures of
//! `docs/capacity.json`. Lambda is simulated request by request, as its documentation describes it: a sandbox serves one
//! request at a time, an idle one is used before a new one is started, new ones and all requests have quotas, and what
//! is over a quota is refused.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]
#![allow(clippy::print_stdout, reason = "printing is what it is for")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "estimates of a few digits"
)]

use std::{cmp::Reverse, collections::BinaryHeap, fmt::Write as _};

use fastrand::Rng;
use serde::Deserialize;

const FIGURES: &str = include_str!("../docs/capacity.json");

/// What Meta says that one number makes at most: 1,000 messages a second, three receipts for each that goes out.
const BUSY_NUMBER: f64 = 3_300.0;

#[derive(Debug, Deserialize)]
struct Figures {
    measured: Measured,
    assumed: Assumed,
    quotas: Quotas,
    prices: Prices,
}

#[derive(Debug, Deserialize)]
struct Measured {
    warm_ms: f64,
    init_ms: f64,
    memory_mb: f64,
    log_line_bytes: f64,
}

#[derive(Debug, Deserialize)]
struct Assumed {
    platform_start_ms: f64,
    p99_over_median: f64,
    connections_a_sandbox: f64,
    body_kb: f64,
    platform_log_bytes: f64,
    consumer_calls_a_message: f64,
}

#[derive(Debug, Deserialize)]
struct Quotas {
    api_requests_a_second: f64,
    lambda_concurrency: f64,
    lambda_requests_a_second_each: f64,
    lambda_new_sandboxes_in_10_s: f64,
    fifo_calls_a_second: f64,
    fifo_high_throughput_calls_a_second: f64,
    sqs_in_flight: f64,
    secret_reads_a_second: f64,
}

#[derive(Debug, Deserialize)]
struct Prices {
    api_a_million_of_512_kb: f64,
    lambda_a_million: f64,
    lambda_a_gb_second: f64,
    lambda_memory_gb: f64,
    sqs_a_million_of_64_kb: f64,
    logs_a_gb: f64,
    metric_a_month: f64,
}

/// What is simulated; times in milliseconds, rates a second.
#[derive(Debug, Clone, Copy)]
struct Load {
    rate: f64,
    seconds: f64,
    /// Sandboxes that are there and idle at the beginning.
    warm: usize,
    median: f64,
    p99_over_median: f64,
    /// From the request to the moment when a new sandbox begins to work on it.
    start: f64,
    concurrency: f64,
    /// Requests a second, all together.
    requests: f64,
    /// New sandboxes a second, and at once.
    new: f64,
    new_at_once: f64,
}

#[derive(Debug, Default)]
struct Outcome {
    requests: usize,
    refused: usize,
    started: usize,
    /// Sandboxes that were there in the end.
    sandboxes: usize,
    /// Sandboxes at work, on average over time and at most.
    busy: f64,
    peak: usize,
    /// Of the requests that were served, in milliseconds.
    median: f64,
    p99: f64,
}

/// Takes arrivals that know nothing of each other, and log-normal times to serve them.
fn simulate(load: &Load) -> Outcome {
    let mut random = Rng::with_seed(1);
    let mut outcome = Outcome { sandboxes: load.warm, ..Outcome::default() };
    let (mut now, end) = (0.0, load.seconds * 1e3);
    let mut busy = BinaryHeap::new();
    let mut idle = load.warm;
    let mut new = Bucket::new(load.new, load.new_at_once);
    let mut requests = Bucket::new(load.requests, load.requests);
    let (mut worked, mut latencies) = (0.0, Vec::new());
    loop {
        now += -random.f64().max(f64::MIN_POSITIVE).ln() / load.rate * 1e3;
        if now >= end {
            break;
        }
        outcome.requests += 1;
        while busy.peek().is_some_and(|Reverse(until)| *until <= micros(now)) {
            busy.pop();
            idle += 1;
        }
        let is_warm = idle > 0;
        let room = is_warm || ((outcome.sandboxes as f64) < load.concurrency && new.has(now));
        if !room || !requests.take(now) {
            outcome.refused += 1;
            continue;
        }
        if is_warm {
            idle -= 1;
        } else {
            new.take(now);
            outcome.started += 1;
            outcome.sandboxes += 1;
        }
        let took = if is_warm { 0.0 } else { load.start } + serve(&mut random, load);
        latencies.push(took);
        worked += took.min(end - now);
        busy.push(Reverse(micros(now + took)));
        outcome.peak = outcome.peak.max(busy.len());
    }
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default();
    Outcome { busy: worked / end, median: at(0.5), p99: at(0.99), ..outcome }
}

fn micros(milliseconds: f64) -> u64 {
    (milliseconds * 1e3) as u64
}

fn serve(random: &mut Rng, load: &Load) -> f64 {
    // Box and Muller's normal number; 2.326 deviations above the median is the 99th percentile.
    let radius = (-2.0 * random.f64().max(f64::MIN_POSITIVE).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * random.f64()).cos();
    load.median * (normal * load.p99_over_median.ln() / 2.326).exp()
}

/// A quota that fills again with time.
struct Bucket {
    a_millisecond: f64,
    most: f64,
    level: f64,
    seen: f64,
}

impl Bucket {
    fn new(a_second: f64, most: f64) -> Self {
        Self { a_millisecond: a_second / 1e3, most, level: most, seen: 0.0 }
    }

    fn has(&mut self, now: f64) -> bool {
        self.level = (self.level + (now - self.seen) * self.a_millisecond).min(self.most);
        self.seen = now;
        self.level >= 1.0
    }

    fn take(&mut self, now: f64) -> bool {
        let has = self.has(now);
        self.level -= if has { 1.0 } else { 0.0 };
        has
    }
}

impl Figures {
    fn read() -> Self {
        serde_json::from_str(FIGURES).expect("docs/capacity.json has every figure")
    }

    /// The mean of the log-normal time to serve.
    fn mean_ms(&self) -> f64 {
        let deviation = self.assumed.p99_over_median.ln() / 2.326;
        self.measured.warm_ms * (deviation * deviation / 2.0).exp()
    }

    /// The load of some busy numbers at the default quotas, or at as much as is needed.
    fn load(&self, numbers: f64, enough: bool) -> Load {
        let (rate, quotas) = (numbers * BUSY_NUMBER, &self.quotas);
        let concurrency = if enough { f64::INFINITY } else { quotas.lambda_concurrency };
        let new = quotas.lambda_new_sandboxes_in_10_s;
        Load {
            rate,
            seconds: (300_000.0 / rate).clamp(1.0, 30.0),
            warm: 0,
            median: self.measured.warm_ms,
            p99_over_median: self.assumed.p99_over_median,
            start: self.assumed.platform_start_ms + self.measured.init_ms,
            concurrency,
            requests: concurrency * quotas.lambda_requests_a_second_each,
            new: new / 10.0,
            new_at_once: new,
        }
    }

    /// Sandboxes that are enough for the load at any moment, if all are there.
    fn warm(&self, numbers: f64) -> usize {
        let mean = numbers * BUSY_NUMBER * self.mean_ms() / 1e3;
        (mean + 6.0 * mean.sqrt()).ceil() as usize
    }
}

fn number(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// The tables, as they are in the documentation.
fn tables(figures: &Figures) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |cells: &[String]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    let heads = |heads: &[&str]| heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>();
    let rule = |count: usize| vec!["---".to_owned(); count];
    let sizes = [1.0, 3.0, 10.0, 100.0];
    let (quotas, assumed, measured) = (&figures.quotas, &figures.assumed, &figures.measured);

    line(&heads(&[
        "busy numbers",
        "requests/s",
        "sandboxes at work: mean",
        "peak",
        "concurrency to ask for",
        "API requests/s to ask for",
        "connections",
        "memory in use, GB",
        "secret reads/s",
    ]));
    line(&rule(9));
    for numbers in sizes {
        let rate = numbers * BUSY_NUMBER;
        let steady = simulate(&Load { warm: figures.warm(numbers), ..figures.load(numbers, true) });
        // Lambda counts short requests by their number, and half as much again is room for a storm.
        let concurrency = (rate / quotas.lambda_requests_a_second_each).max(steady.peak as f64) * 1.5;
        let sandboxes = figures.warm(numbers) as f64;
        let ask =
            |need: f64, quota: f64| if need > quota { number(need) } else { format!("{} is enough", number(quota)) };
        line(&[
            number(numbers),
            number(rate),
            number(steady.busy),
            number(steady.peak as f64),
            ask(concurrency, quotas.lambda_concurrency),
            ask(rate * 1.5, quotas.api_requests_a_second),
            number(sandboxes * assumed.connections_a_sandbox),
            format!("{:.1}", sandboxes * measured.memory_mb / 1e3),
            format!("{:.1}", sandboxes / 300.0),
        ]);
    }

    text.push('\n');
    let mut line = |cells: &[String]| {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    line(&heads(&[
        "busy numbers, from nothing at once",
        "quotas",
        "new sandboxes",
        "refused",
        "median, ms",
        "p99, ms",
        "after it: p99, ms",
    ]));
    line(&rule(7));
    for (numbers, enough) in [(1.0, false), (3.0, false), (10.0, false), (10.0, true), (100.0, true)] {
        let cold = simulate(&Load { seconds: 5.0, ..figures.load(numbers, enough) });
        let warm = simulate(&Load { warm: figures.warm(numbers), ..figures.load(numbers, true) });
        line(&[
            number(numbers),
            if enough { "raised".to_owned() } else { "default".to_owned() },
            number(cold.started as f64),
            format!("{:.1} %", 100.0 * cold.refused as f64 / cold.requests as f64),
            format!("{:.0}", cold.median),
            format!("{:.0}", cold.p99),
            format!("{:.0}", warm.p99),
        ]);
    }

    text.push('\n');
    let costs = figures.costs(assumed.body_kb);
    let _ = writeln!(text, "| a million notifications of {} KB | US dollars |\n| --- | --- |", assumed.body_kb);
    for (what, dollars) in &costs {
        let _ = writeln!(text, "| {what} | {dollars:.2} |");
    }
    let _ = writeln!(text, "| **together** | **{:.2}** |", costs.iter().map(|(_, dollars)| dollars).sum::<f64>());
    text
}

impl Figures {
    /// Dollars for a million notifications of one change each.
    fn costs(&self, body_kb: f64) -> Vec<(&'static str, f64)> {
        let prices = &self.prices;
        let gb_seconds = self.mean_ms().ceil() / 1e3 * prices.lambda_memory_gb;
        let queue_calls = (body_kb / 64.0).ceil();
        let log_gb = (self.measured.log_line_bytes + self.assumed.platform_log_bytes) / 1e3;
        vec![
            ("API Gateway (each 512 KB counts)", prices.api_a_million_of_512_kb * (body_kb / 512.0).ceil()),
            ("Lambda, requests", prices.lambda_a_million),
            ("Lambda, time at 512 MB", gb_seconds * 1e6 * prices.lambda_a_gb_second),
            ("SQS, sending (each 64 KB counts)", prices.sqs_a_million_of_64_kb * queue_calls),
            (
                "SQS, the consumer's calls, ten messages each",
                prices.sqs_a_million_of_64_kb * self.assumed.consumer_calls_a_message,
            ),
            ("CloudWatch Logs", log_gb * prices.logs_a_gb),
        ]
    }
}

fn main() {
    let figures = Figures::read();
    println!("{}", tables(&figures));
    let quotas = &figures.quotas;
    println!(
        "A FIFO queue takes {} calls a second, {} in high throughput; {} messages are in flight at most; the secret is read \
         {} times a second at most; a metric costs {} dollars a month.",
        number(quotas.fifo_calls_a_second),
        number(quotas.fifo_high_throughput_calls_a_second),
        number(quotas.sqs_in_flight),
        number(quotas.secret_reads_a_second),
        figures.prices.metric_a_month,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without quotas, with sandboxes that need no start.
    const FREE: Load = Load {
        rate: 1_000.0,
        seconds: 300.0,
        warm: 0,
        median: 20.0,
        p99_over_median: 4.0,
        start: 0.0,
        concurrency: f64::INFINITY,
        requests: f64::INFINITY,
        new: f64::INFINITY,
        new_at_once: f64::INFINITY,
    };

    fn is_near(value: f64, expected: f64, share: f64) {
        assert!((value / expected - 1.0).abs() < share, "{value} is not {expected}");
    }

    #[test]
    fn sandboxes_at_work_are_rate_times_time_as_littles_law_has_it() {
        // The mean of a log-normal time whose 99th percentile is four times its median: 20 ms times e^0.1776.
        for (rate, p99_over_median, mean) in [(1_000.0, 4.0, 23.886), (500.0, 1.0, 20.0), (2_000.0, 4.0, 23.886)] {
            let outcome = simulate(&Load { rate, p99_over_median, ..FREE });
            is_near(outcome.busy, rate * mean / 1e3, 0.02);
            is_near(outcome.requests as f64, rate * FREE.seconds, 0.01);
            is_near(outcome.p99 / outcome.median, p99_over_median, 0.05);
            assert_eq!(outcome.refused, 0);
        }
    }

    #[test]
    fn what_finds_no_sandbox_is_refused_as_often_as_erlangs_formula_says() {
        // 1/B(n) = 1 + n/a * 1/B(n-1), by hand: 8 at work on average and room for 10 lose 12.17 %, room for 12 5.14 %.
        let load = Load { rate: 400.0, p99_over_median: 1.0, seconds: 1_000.0, ..FREE };
        for (concurrency, lost) in [(10.0, 0.1217), (12.0, 0.0514)] {
            let outcome = simulate(&Load { concurrency, ..load });
            is_near(outcome.refused as f64 / outcome.requests as f64, lost, 0.04);
            assert_eq!((outcome.peak as f64, outcome.sandboxes as f64), (concurrency, concurrency));
        }
    }

    #[test]
    fn requests_and_new_sandboxes_have_quotas_of_their_own() {
        // A second's worth at once and then 1,000 a second, of 4,000 a second: 4,000 of 12,000 are served.
        let outcome = simulate(&Load { rate: 4_000.0, seconds: 3.0, requests: 1_000.0, ..FREE });
        is_near((outcome.requests - outcome.refused) as f64, 4_000.0, 0.01);
        // Each takes ten seconds: every request needs a new sandbox. 50 at once and 10 a second make 150 in ten seconds.
        let slow = Load { median: 1e4, p99_over_median: 1.0, seconds: 9.999, ..FREE };
        let outcome = simulate(&Load { new: 10.0, new_at_once: 50.0, ..slow });
        assert!((149..=150).contains(&outcome.started), "{outcome:?}");
    }

    #[test]
    fn a_start_from_nothing_needs_a_sandbox_for_each_request_until_the_first_is_free() {
        // All take 237 + 13 ms; those of the first 250 ms find none free: 3,300 times 0.25.
        let load = Load { rate: 3_300.0, seconds: 5.0, median: 13.0, p99_over_median: 1.0, start: 237.0, ..FREE };
        let outcome = simulate(&load);
        is_near(outcome.started as f64, 825.0, 0.08);
    }

    #[test]
    fn costs_are_those_that_a_calculator_finds() {
        let figures: Figures = serde_json::from_str(
            r#"{"measured":{"warm_ms":10,"init_ms":0,"memory_mb":0,"log_line_bytes":600},
            "assumed":{"platform_start_ms":0,"p99_over_median":1,"connections_a_sandbox":1,"body_kb":0,
              "platform_log_bytes":400,"consumer_calls_a_message":0.5},
            "quotas":{"api_requests_a_second":1,"lambda_concurrency":1,"lambda_requests_a_second_each":1,
              "lambda_new_sandboxes_in_10_s":1,"fifo_calls_a_second":1,"fifo_high_throughput_calls_a_second":1,
              "sqs_in_flight":1,"secret_reads_a_second":1},
            "prices":{"api_a_million_of_512_kb":1,"lambda_a_million":0.2,"lambda_a_gb_second":0.00002,
              "lambda_memory_gb":0.5,"sqs_a_million_of_64_kb":0.4,"logs_a_gb":0.5,"metric_a_month":0}}"#,
        )
        .unwrap();
        let dollars = |kb: f64| figures.costs(kb).into_iter().map(|(_, dollars)| dollars).collect::<Vec<_>>();
        for (kb, expected) in [(2.0, [1.0, 0.2, 0.1, 0.4, 0.2, 0.5]), (600.0, [2.0, 0.2, 0.1, 4.0, 0.2, 0.5])] {
            for (one, expected) in dollars(kb).into_iter().zip(expected) {
                is_near(one, expected, 1e-9);
            }
        }
    }

    #[test]
    fn the_documentation_has_these_tables() {
        let documentation = include_str!("../docs/capacity.md");
        let tables = tables(&Figures::read());
        for line in tables.lines() {
            assert!(documentation.contains(line), "docs/capacity.md has no line {line:?}; run the example");
        }
    }
}
