//! The age of the oldest message of a queue.
//!
//! SQS reports it to CloudWatch only, once a minute and some minutes late, and not for a queue without any activity
//! for six hours.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::cli::{AwsCli, AwsCliError};

/// An older value does not describe the present.
const MAX_AGE: Duration = Duration::from_mins(15);
/// CloudWatch accepts 500, but one argument of a program has at most 128 KiB.
const MAX_QUERIES: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetricData {
    metric_data_results: Vec<MetricDataResult>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetricDataResult {
    id: String,
    /// Numbers or texts, as the CLI is configured. All are in UTC and of one form, so that texts sort by time.
    timestamps: Vec<Value>,
    values: Vec<f64>,
}

/// Returns the age in seconds of the oldest message, by the queue's name. A queue without a recent value is left out.
pub(crate) async fn oldest_message_seconds(
    aws: &AwsCli,
    region: &str,
    queues: &[String],
) -> Result<BTreeMap<String, u64>, AwsCliError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (start, end) = (now.saturating_sub(MAX_AGE).as_secs().to_string(), now.as_secs().to_string());
    let mut newest = BTreeMap::new();
    for queues in queues.chunks(MAX_QUERIES) {
        let queries: Vec<_> = queues.iter().enumerate().map(|(index, queue)| query(index, queue)).collect();
        let queries = json!(queries).to_string();
        let period = ["--start-time", &start, "--end-time", &end];
        let call = ["cloudwatch", "get-metric-data", "--metric-data-queries", &queries];
        let data: MetricData = aws.call(region, &[call, period].concat()).await?;
        for MetricDataResult { id, timestamps, values } in data.metric_data_results {
            let Some(queue) = id.strip_prefix('q').and_then(|index| queues.get(index.parse::<usize>().ok()?)) else {
                continue;
            };
            // The values of a queue can continue in a later result.
            let known: &mut (String, u64) = newest.entry(queue.clone()).or_default();
            for (time, seconds) in timestamps.iter().map(Value::to_string).zip(values) {
                if let Some(age) = Duration::try_from_secs_f64(seconds).ok().filter(|_| time > known.0) {
                    *known = (time, age.as_secs());
                }
            }
        }
    }
    Ok(newest.into_iter().filter(|(_, (time, _))| !time.is_empty()).map(|(queue, (_, age))| (queue, age)).collect())
}

fn query(index: usize, queue: &str) -> Value {
    json!({
        "Id": format!("q{index}"),
        "MetricStat": {
            "Metric": {
                "Namespace": "AWS/SQS",
                "MetricName": "ApproximateAgeOfOldestMessage",
                "Dimensions": [{ "Name": "QueueName", "Value": queue }],
            },
            "Period": 60,
            "Stat": "Maximum",
        },
    })
}
