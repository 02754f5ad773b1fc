//! The figures of `capacity.json`: measurements, assumptions, quotas and prices.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub(crate) struct Inputs {
    pub(crate) measured: Measured,
    pub(crate) assumed: Assumed,
    pub(crate) quotas: Quotas,
    pub(crate) prices: Prices,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Measured {
    pub(crate) warm_ms: f64,
    /// From the start of the process to its first response.
    pub(crate) start_ms: f64,
    pub(crate) memory_mb: f64,
    pub(crate) log_line_bytes: f64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Assumed {
    /// The time that Lambda needs before the process starts.
    pub(crate) platform_start_ms: f64,
    pub(crate) p99_over_median: f64,
    pub(crate) connections_per_environment: f64,
    pub(crate) body_kb: f64,
    pub(crate) platform_log_bytes: f64,
    /// A line of the access log of API Gateway.
    pub(crate) access_log_bytes: f64,
    /// The share of invocations that X-Ray records at many requests a second.
    pub(crate) traced_share: f64,
    pub(crate) consumer_calls_per_message: f64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Quotas {
    pub(crate) api_requests_per_second: f64,
    pub(crate) lambda_concurrency: f64,
    pub(crate) lambda_requests_per_second_per_concurrency: f64,
    pub(crate) lambda_new_environments_per_10_s: f64,
}

/// US dollars.
#[derive(Debug, Deserialize)]
pub(crate) struct Prices {
    pub(crate) api_million_of_512_kb: f64,
    pub(crate) lambda_million: f64,
    pub(crate) lambda_gb_second: f64,
    pub(crate) lambda_memory_gb: f64,
    pub(crate) sqs_million_of_64_kb: f64,
    /// The surcharge for requests with a message group id on a standard queue.
    pub(crate) sqs_fair_queue_million: f64,
    pub(crate) logs_gb: f64,
    pub(crate) xray_million: f64,
}

impl Inputs {
    /// Reads the figures of the project.
    pub(crate) fn read() -> Result<Self, serde_json::Error> {
        serde_json::from_str(include_str!("../capacity.json"))
    }
}
