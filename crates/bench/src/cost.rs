//! The costs of a million notifications in US dollars.

use std::{error::Error, fmt::Write as _};

use crate::{
    inputs::{Inputs, Prices},
    plan::{MEMORY, WITH_TLS},
    results::{Cell, Results, Setting},
    scenario::Scenario,
};

/// Makes the table of Lambda's price by memory size, for one change and for batches.
pub(crate) fn by_memory(results: &Results) -> Result<String, Box<dyn Error>> {
    let prices = Inputs::read()?.prices;
    let mut text =
        "| a million notifications of | | 128 MB | 256 MB | 512 MB | 1769 MB |\n|---|---|--:|--:|--:|--:|\n".to_owned();
    for scenario in [Scenario::One, Scenario::Batch, Scenario::Thousand] {
        for subject in ["ours", "python", "node"] {
            let cells = MEMORY.map(|memory| {
                let setting = Setting { memory_mb: Some(memory), ..WITH_TLS };
                let cell = results.find(scenario.name(), subject, setting);
                cell.map(|cell| dollars(&prices, memory, cell)).unwrap_or_default()
            });
            let _ = writeln!(text, "| {} | {subject} | {} |", scenario.name(), cells.join(" | "));
        }
    }
    Ok(text)
}

/// Formats the price, or `-` if the memory is too small.
fn dollars(prices: &Prices, memory_mb: u32, cell: &Cell) -> String {
    if cell.peak_mb > f64::from(memory_mb) {
        return "-".to_owned();
    }
    let time = lambda_time(prices, f64::from(memory_mb) / 1024.0, cell.mean_ms);
    format!("${:.2}", prices.lambda_million + time)
}

/// Returns the price of the duration of a million invocations. Lambda [bills each started millisecond].
///
/// [bills each started millisecond]: https://aws.amazon.com/lambda/pricing/
fn lambda_time(prices: &Prices, memory_gb: f64, mean_ms: f64) -> f64 {
    1e6 * prices.lambda_gb_second * memory_gb * mean_ms.ceil() / 1e3
}

/// Makes the table of the price by service, for notifications with one change.
pub(crate) fn by_service(inputs: &Inputs, mean_ms: f64) -> String {
    let body_kb = inputs.assumed.body_kb;
    let mut text = format!("| a million notifications of {body_kb} KB | US dollars |\n|---|--:|\n");
    let items = items(inputs, mean_ms);
    for (item, dollars) in &items {
        let _ = writeln!(text, "| {item} | {dollars:.2} |");
    }
    let _ = writeln!(text, "| **sum** | **{:.2}** |", items.iter().map(|(_, dollars)| dollars).sum::<f64>());
    text
}

fn items(Inputs { measured, assumed, prices, .. }: &Inputs, mean_ms: f64) -> [(&'static str, f64); 9] {
    let log_gb = (measured.log_line_bytes + assumed.platform_log_bytes) / 1e3;
    let sqs_requests = (assumed.body_kb / 64.0).ceil();
    [
        ("API Gateway (each 512 KB counts)", prices.api_million_of_512_kb * (assumed.body_kb / 512.0).ceil()),
        ("Lambda, requests", prices.lambda_million),
        ("Lambda, time at 512 MB", lambda_time(prices, prices.lambda_memory_gb, mean_ms)),
        ("SQS, sending (each 64 KB counts)", prices.sqs_million_of_64_kb * sqs_requests),
        ("SQS, surcharge of fair queues for sending", prices.sqs_fair_queue_million * sqs_requests),
        (
            "SQS, calls of the consumer for ten messages each",
            prices.sqs_million_of_64_kb * assumed.consumer_calls_per_message,
        ),
        ("CloudWatch Logs, function", log_gb * prices.logs_gb),
        ("CloudWatch Logs, access log of the API", assumed.access_log_bytes / 1e3 * prices.logs_gb),
        ("X-Ray, at many requests a second", assumed.traced_share * prices.xray_million),
    ]
}

#[cfg(test)]
mod tests {
    use super::{items, lambda_time};
    use crate::inputs::Inputs;

    fn assert_near(value: f64, expected: f64) {
        assert!((value / expected - 1.0).abs() < 1e-9, "{value} is not {expected}");
    }

    #[test]
    fn started_millisecond_is_billed_whole() {
        let prices = Inputs::read().unwrap().prices;
        assert_near(lambda_time(&prices, 1.0, 1000.0), 16.6667);
        assert_near(lambda_time(&prices, 0.5, 10.1), lambda_time(&prices, 0.5, 11.0));
        assert!(lambda_time(&prices, 0.5, 10.1) > lambda_time(&prices, 0.5, 10.0));
    }

    #[test]
    fn bill_equals_the_calculation_by_hand() {
        let mut inputs: Inputs = serde_json::from_str(
            r#"{"measured":{"warm_ms":10,"start_ms":0,"memory_mb":0,"log_line_bytes":600},
            "assumed":{"platform_start_ms":0,"p99_over_median":1,"connections_per_environment":1,"body_kb":0,
              "platform_log_bytes":400,"access_log_bytes":200,"traced_share":0.1,"consumer_calls_per_message":0.5},
            "quotas":{"api_requests_per_second":1,"lambda_concurrency":1,
              "lambda_requests_per_second_per_concurrency":1,"lambda_new_environments_per_10_s":1},
            "prices":{"api_million_of_512_kb":1,"lambda_million":0.2,"lambda_gb_second":0.00002,
              "lambda_memory_gb":0.5,"sqs_million_of_64_kb":0.4,"sqs_fair_queue_million":0.3,"logs_gb":0.5,"xray_million":6}}"#,
        )
        .unwrap();
        for (kb, expected) in [
            (2.0, [1.0, 0.2, 0.1, 0.4, 0.3, 0.2, 0.5, 0.1, 0.6]),
            (600.0, [2.0, 0.2, 0.1, 4.0, 3.0, 0.2, 0.5, 0.1, 0.6]),
        ] {
            inputs.assumed.body_kb = kb;
            for ((_, dollars), expected) in items(&inputs, 10.0).into_iter().zip(expected) {
                assert_near(dollars, expected);
            }
        }
    }
}
