//! Makes the tables of `docs/capacity.md`: quotas, execution environments and costs of busy numbers.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "estimates of a few digits"
)]

use std::{error::Error, fmt::Write as _};

use crate::{
    cost,
    inputs::Inputs,
    page,
    simulation::{Load, mean_ms, simulate},
};

const PAGE: &str = "docs/capacity.md";

/// Webhooks a second of one number at Meta's limit: 1,000 messages a second, and three receipts for each sent message.
const BUSY_NUMBER: f64 = 3_300.0;

/// The time in seconds for which the function caches the secret.
const SECRET_MAX_AGE: f64 = 300.0;

/// The factor by which a quota must exceed the load, for Meta's retries.
const HEADROOM: f64 = 1.5;

/// Writes the tables into the page.
pub(crate) fn write() -> Result<(), Box<dyn Error>> {
    page::update(PAGE, &sections(&Inputs::read()?))
}

fn sections(inputs: &Inputs) -> [(&'static str, String); 3] {
    let mean_ms = mean_ms(inputs.measured.warm_ms, inputs.assumed.p99_over_median);
    [("steady", steady(inputs)), ("burst", burst(inputs)), ("cost", cost::by_service(inputs, mean_ms))]
}

fn steady(inputs: &Inputs) -> String {
    let Inputs { measured, assumed, quotas, .. } = inputs;
    let mut text =
        "| busy numbers | requests/s | busy environments: mean | peak | concurrency quota | API requests/s quota | \
        connections | memory in use, GB | secret reads/s |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
            .to_owned();
    let quota = |need: f64, default: f64| {
        if need > default { format_number(need) } else { format!("default ({})", format_number(default)) }
    };
    for numbers in [1.0, 3.0, 10.0, 100.0] {
        let (rate, environments) = (numbers * BUSY_NUMBER, environments(inputs, numbers));
        let outcome = simulate(&Load { idle: environments, ..load(inputs, numbers, true) });
        // The quota also limits the requests per second, which matters for short requests.
        let concurrency = (rate / quotas.lambda_requests_per_second_per_concurrency).max(outcome.peak_busy as f64);
        let environments = environments as f64;
        let cells = [
            format_number(numbers),
            format_number(rate),
            format_number(outcome.mean_busy),
            format_number(outcome.peak_busy as f64),
            quota(concurrency * HEADROOM, quotas.lambda_concurrency),
            quota(rate * HEADROOM, quotas.api_requests_per_second),
            format_number(environments * assumed.connections_per_environment),
            format!("{:.1}", environments * measured.memory_mb / 1e3),
            format!("{:.1}", environments / SECRET_MAX_AGE),
        ];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn burst(inputs: &Inputs) -> String {
    let mut text =
        "| busy numbers, from zero environments | quotas | started environments | rejected | median, ms | p99, ms | \
        p99 when warm, ms |\n|--:|---|--:|--:|--:|--:|--:|\n"
            .to_owned();
    for (numbers, is_raised) in [(1.0, false), (3.0, false), (10.0, false), (10.0, true), (100.0, true)] {
        let cold = simulate(&Load { seconds: 5.0, ..load(inputs, numbers, is_raised) });
        let warm = simulate(&Load { idle: environments(inputs, numbers), ..load(inputs, numbers, true) });
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.1} % | {:.0} | {:.0} | {:.0} |",
            format_number(numbers),
            if is_raised { "raised" } else { "default" },
            format_number(cold.started as f64),
            100.0 * cold.rejected as f64 / cold.requests as f64,
            cold.median_ms,
            cold.p99_ms,
            warm.p99_ms
        );
    }
    text
}

/// Returns the load of busy numbers, with the default quotas or without any.
fn load(Inputs { measured, assumed, quotas, .. }: &Inputs, numbers: f64, is_raised: bool) -> Load {
    let requests_per_second = numbers * BUSY_NUMBER;
    let max_environments = if is_raised { f64::INFINITY } else { quotas.lambda_concurrency };
    let start_burst = quotas.lambda_new_environments_per_10_s;
    Load {
        requests_per_second,
        seconds: (300_000.0 / requests_per_second).clamp(1.0, 30.0),
        idle: 0,
        median_ms: measured.warm_ms,
        p99_over_median: assumed.p99_over_median,
        start_ms: assumed.platform_start_ms + measured.start_ms,
        max_environments,
        max_requests_per_second: max_environments * quotas.lambda_requests_per_second_per_concurrency,
        max_starts_per_second: start_burst / 10.0,
        start_burst,
    }
}

/// Returns the number of environments that is enough at any time: six standard deviations above the mean.
fn environments(Inputs { measured, assumed, .. }: &Inputs, numbers: f64) -> usize {
    let mean = numbers * BUSY_NUMBER * mean_ms(measured.warm_ms, assumed.p99_over_median) / 1e3;
    (mean + 6.0 * mean.sqrt()).ceil() as usize
}

/// Formats a number without a fraction, with commas between thousands.
fn format_number(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_shows_the_current_tables() {
        let text = include_str!("../../../docs/capacity.md");
        for (name, content) in sections(&Inputs::read().unwrap()) {
            let updated = page::replace(text, name, &content).unwrap();
            assert!(updated == text, "{PAGE} is outdated, run `make bench-capacity`. Expected:\n{content}");
        }
    }
}
