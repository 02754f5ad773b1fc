//! The age of the oldest message of a queue.
//!
//! Only CloudWatch has it, some minutes late. SQS sends no metrics for a queue that was
//! [inactive for six hours](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/monitoring-using-cloudwatch.html).

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::cli::{AwsCli, AwsCliError};

/// Older values are ignored, because they do not describe the present.
const MAX_DATAPOINT_AGE: Duration = Duration::from_mins(15);
/// CloudWatch accepts 500 queries in a call, but an argument of a program has at most 128 KiB.
const MAX_QUERIES: usize = 100;

/// The queue's name, the timestamps, and the values of the metric at these.
type MetricDataResult = (String, Vec<Value>, Vec<f64>);

/// Returns the age in seconds of the oldest message, by the queue's name. A queue without a recent value is left out.
pub(crate) async fn oldest_message_seconds(
    aws: &AwsCli,
    region: &str,
    queues: &[String],
) -> Result<BTreeMap<String, u64>, AwsCliError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (start, end) = (now.saturating_sub(MAX_DATAPOINT_AGE).as_secs().to_string(), now.as_secs().to_string());
    let mut ages = BTreeMap::new();
    for queues in queues.chunks(MAX_QUERIES) {
        let queries: Vec<_> = queues.iter().enumerate().map(|(index, queue)| metric_query(index, queue)).collect();
        let queries = json!(queries).to_string();
        let period = ["--start-time", &start, "--end-time", &end];
        let call = ["cloudwatch", "get-metric-data", "--metric-data-queries", &queries];
        let results: Vec<MetricDataResult> =
            aws.call(region, &[call, period].concat(), "MetricDataResults[].[Label, Timestamps, Values]").await?;
        for (queue, times, values) in results {
            // The CLI prints timestamps as numbers or in ISO 8601, depending on its configuration. Both sort as text.
            let newest = times.iter().map(Value::to_string).zip(values).max_by(|one, other| one.0.cmp(&other.0));
            if let Some(age) = newest.and_then(|(_, seconds)| Duration::try_from_secs_f64(seconds).ok()) {
                // Results on later pages are older.
                ages.entry(queue).or_insert(age.as_secs());
            }
        }
    }
    Ok(ages)
}

fn metric_query(index: usize, queue: &str) -> Value {
    json!({
        "Id": format!("q{index}"),
        "Label": queue,
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
