//! The alarms over time, by CloudWatch's documented rules: what the metric filters count, and when alarms go off.

use super::*;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// Values of a metric, each with its second.
type Samples = Vec<(u64, f64)>;

/// Evaluates a pattern of a metric filter, in the part of its syntax that the template uses.
fn matches_pattern(pattern: &str, line: &Value) -> bool {
    let inner = pattern.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
    let spaced = inner.replace('(', " ( ").replace(')', " ) ");
    let mut tokens: Vec<&str> = spaced.split_whitespace().rev().collect();
    let result = evaluate_or(&mut tokens, line);
    assert!(tokens.is_empty(), "{pattern}: {tokens:?}");
    result
}

fn evaluate_or(tokens: &mut Vec<&str>, line: &Value) -> bool {
    let mut result = evaluate_and(tokens, line);
    while tokens.pop_if(|token| *token == "||").is_some() {
        result |= evaluate_and(tokens, line);
    }
    result
}

fn evaluate_and(tokens: &mut Vec<&str>, line: &Value) -> bool {
    let mut result = evaluate_term(tokens, line);
    while tokens.pop_if(|token| *token == "&&").is_some() {
        result &= evaluate_term(tokens, line);
    }
    result
}

fn evaluate_term(tokens: &mut Vec<&str>, line: &Value) -> bool {
    let first = tokens.pop().unwrap();
    if first == "(" {
        let result = evaluate_or(tokens, line);
        assert_eq!(tokens.pop(), Some(")"));
        return result;
    }
    let member = &line[first.strip_prefix("$.").unwrap()];
    assert_eq!(tokens.pop(), Some("="));
    match serde_json::from_str(tokens.pop().unwrap()).unwrap() {
        Value::String(any) if any == "*" => member.is_string(),
        Value::Number(number) => member.as_f64() == number.as_f64(),
        text => *member == text,
    }
}

/// What the metric filter for a metric makes of lines of its log.
fn apply_filter(metric: &str, lines: &[(u64, Value)]) -> Samples {
    let transformation = |filter: &Value| filter["MetricTransformations"][0].clone();
    let filters = all("AWS::Logs::MetricFilter").map(|(_, filter)| filter);
    let filter = filters.into_iter().find(|filter| transformation(filter)["MetricName"] == metric).unwrap();
    let value = transformation(filter)["MetricValue"].as_str().unwrap().to_owned();
    let matching = lines.iter().filter(|(_, line)| matches_pattern(filter["FilterPattern"].as_str().unwrap(), line));
    let values = matching.map(|(second, line)| match value.strip_prefix("$.") {
        Some(member) => (*second, line[member].as_f64().unwrap()),
        None => (*second, value.parse().unwrap()),
    });
    values.collect()
}

/// The minutes at which an alarm is in the state ALARM, evaluated each minute over a sliding window.
fn alarm_minutes(name: &str, samples: &[(u64, f64)], end: u64) -> Vec<u64> {
    let mut samples = samples.to_vec();
    samples.sort_by_key(|(second, _)| *second);
    let alarm = alarm(&TEMPLATE, name);
    let number = |property: &str| alarm[property].as_u64();
    let (period, periods) = (number("Period").unwrap(), number("EvaluationPeriods").unwrap());
    let (needed, threshold) = (number("DatapointsToAlarm").unwrap_or(periods), alarm["Threshold"].as_f64().unwrap());
    let is_breaching = |from: u64, to: u64| {
        let [first, last] = [from, to].map(|end| samples.partition_point(|(second, _)| *second < end));
        let values = samples[first..last].iter().map(|(_, value)| *value);
        let value = match alarm["Statistic"].as_str().unwrap() {
            "Sum" => values.reduce(|sum, value| sum + value),
            "Minimum" => values.reduce(f64::min),
            "Maximum" => values.reduce(f64::max),
            other => panic!("{other}"),
        };
        // Missing data is not breaching.
        value.is_some_and(|value| match alarm["ComparisonOperator"].as_str().unwrap() {
            "GreaterThanOrEqualToThreshold" => value >= threshold,
            "LessThanThreshold" => value < threshold,
            other => panic!("{other}"),
        })
    };
    let is_alarm = |now: u64| {
        let windows =
            (0..periods).filter_map(|back| Some((now.checked_sub((back + 1) * period)?, now - back * period)));
        windows.filter(|(from, to)| is_breaching(*from, *to)).count() as u64 >= needed
    };
    (0..=end / MINUTE).filter(|minute| is_alarm(minute * MINUTE)).collect()
}

fn function_line(metrics: &Value) -> Value {
    let mut line =
        json!({ "level": "INFO", "message": "any", "FunctionName": "stack-Ingress", "response.status": 200 });
    line.as_object_mut().unwrap().extend(metrics.as_object().unwrap().clone());
    line
}

/// Lines of requests that come at equal intervals.
fn request_lines(metrics: &Value, first: u64, interval: u64, end: u64) -> Vec<(u64, Value)> {
    let seconds = (first..end).step_by(usize::try_from(interval).unwrap());
    seconds.map(|second| (second, function_line(metrics))).collect()
}

fn notifications(first: u64, interval: u64, end: u64) -> Vec<(u64, Value)> {
    request_lines(&json!({ "Notifications": 1, "Changes": 1, "Stored": 1 }), first, interval, end)
}

fn mismatches(first: u64, interval: u64, end: u64) -> Vec<(u64, Value)> {
    request_lines(
        &json!({ "Notifications": 0, "RefusedSignatures": 1, "SignatureMismatches": 1 }),
        first,
        interval,
        end,
    )
}

fn secret_alarm(lines: &[(u64, Value)], end: u64) -> Vec<u64> {
    alarm_minutes("signature-mismatches", &apply_filter("SignatureMatches", lines), end)
}

#[test]
fn wrong_app_secret_raises_an_alarm_within_an_hour() {
    // Four requests an hour are enough.
    let lines = mismatches(0, 15 * MINUTE, 3 * HOUR);
    assert_eq!(secret_alarm(&lines, 3 * HOUR).first(), Some(&45));
}

#[test]
fn forgeries_among_notifications_raise_no_alarm() {
    let mut lines = notifications(0, 10 * MINUTE, 6 * HOUR);
    lines.extend(mismatches(0, 10, 6 * HOUR));
    assert_eq!(secret_alarm(&lines, 6 * HOUR), [0; 0]);
}

#[test]
fn ten_forgeries_in_a_quiet_night_raise_no_alarm() {
    for start in (0..20).map(|minute| 2 * HOUR + minute * MINUTE) {
        let lines = mismatches(start, 30, start + 5 * MINUTE);
        assert_eq!(lines.len(), 10);
        assert_eq!(secret_alarm(&lines, 6 * HOUR), [0; 0]);
        let refused: Samples = lines.iter().map(|(second, _)| (*second, 1.0)).collect();
        assert!(!alarm_minutes("refused-signatures", &refused, 6 * HOUR).is_empty());
    }
}

#[test]
fn forgeries_do_not_hide_a_wrong_app_secret() {
    let mut lines = notifications(0, MINUTE, 2 * HOUR);
    lines.extend(mismatches(0, 30, 2 * HOUR));
    lines.extend(mismatches(2 * HOUR, MINUTE, 4 * HOUR));
    let minutes = secret_alarm(&lines, 4 * HOUR);
    assert_eq!((minutes.first(), minutes.last()), (Some(&(120 + 45)), Some(&240)));
}

#[test]
fn one_notification_ends_the_alarm_of_the_app_secret() {
    let mut lines = mismatches(0, MINUTE, 2 * HOUR);
    lines.extend(notifications(2 * HOUR, MINUTE, 3 * HOUR));
    assert_eq!(secret_alarm(&lines, 3 * HOUR).last(), Some(&120));
}

#[test]
fn unsigned_requests_are_no_signature_mismatches() {
    let mut lines = request_lines(&json!({ "Notifications": 0, "RefusedSignatures": 1 }), 0, MINUTE, 3 * HOUR);
    lines.extend(request_lines(&json!({ "Notifications": 0, "RefusedTokens": 1 }), 0, MINUTE, 3 * HOUR));
    assert_eq!(secret_alarm(&lines, 3 * HOUR), [0; 0]);
}

/// A line of the access log as API Gateway writes it.
fn access_log_line(method: &str, status: &str) -> Value {
    let format = properties("ApiApiGatewayDefaultStage")["AccessLogSettings"]["Format"].as_str().unwrap();
    let mut line: Value = serde_json::from_str(format).unwrap();
    for value in line.as_object_mut().unwrap().values_mut() {
        *value = match value.as_str().unwrap() {
            "$context.apiId" => json!("a1b2c3"),
            "$context.httpMethod" => json!(method),
            "$context.status" => json!(status),
            _ => json!("-"),
        };
    }
    line
}

#[test]
fn filters_select_429_and_posts_answered_404() {
    let requests = [("POST", "200"), ("POST", "401"), ("POST", "429"), ("GET", "429"), ("POST", "404"), ("GET", "404")];
    let lines: Vec<_> = (0..).zip(requests.map(|(method, status)| access_log_line(method, status))).collect();
    assert_eq!(apply_filter("ThrottledRequests", &lines), [(2, 1.0), (3, 1.0)]);
    assert_eq!(apply_filter("NotFoundPosts", &lines), [(4, 1.0)]);
}

#[test]
fn filters_have_the_dimension_of_their_alarm() {
    for (id, filter) in all("AWS::Logs::MetricFilter") {
        let transformation = &filter["MetricTransformations"][0];
        let mut alarms = all("AWS::CloudWatch::Alarm").filter(|(_, a)| a["MetricName"] == transformation["MetricName"]);
        let (_, alarm) = alarms.next().unwrap_or_else(|| panic!("{id} has no alarm"));
        assert_eq!(alarm["Namespace"], transformation["MetricNamespace"]);
        let dimension = &transformation["Dimensions"][0];
        assert_eq!(alarm["Dimensions"][0]["Name"], dimension["Key"]);
        // The field of a dimension has to be in the pattern.
        let field = dimension["Value"].as_str().unwrap();
        assert!(filter["FilterPattern"].as_str().unwrap().contains(&format!("{field} = \"*\"")), "{id}");
    }
}

#[test]
fn single_errors_of_the_api_raise_no_alarm() {
    for name in ["api-failing", "api-not-found"] {
        // A burst of 5 minutes, then one request in each period.
        let burst: Samples = (0..50).map(|count| (2 * HOUR + count * 6, 1.0)).collect();
        assert_eq!(alarm_minutes(name, &burst, 6 * HOUR), [0; 0], "{name}");
        let lasting: Samples = (0..12).map(|count| (2 * HOUR + count * 5 * MINUTE, 1.0)).collect();
        assert_eq!(alarm_minutes(name, &lasting, 6 * HOUR).first(), Some(&(120 + 11)), "{name}");
    }
}

#[test]
fn messages_that_wait_for_days_raise_an_alarm() {
    // Each day a command receives all of them for some minutes.
    let visible = |hours: u64| -> Samples {
        let minutes = (0..hours * 60).map(|minute| (minute, if minute % 1440 < 10 { 0.0 } else { 2.0 }));
        minutes.map(|(minute, count)| (minute * MINUTE, count)).collect()
    };
    assert_eq!(alarm_minutes("catch-all-not-empty", &visible(60), 60 * HOUR), [0; 0]);
    assert!(!alarm_minutes("catch-all-not-empty", &visible(73), 73 * HOUR).is_empty());
}

#[test]
fn catch_all_that_is_read_raises_no_alarm() {
    // Messages come all the time, and a reader takes them every half hour.
    let visible = (0..96 * 60).map(|minute| (minute * MINUTE, f64::from(u32::try_from(minute % 30).unwrap())));
    assert_eq!(alarm_minutes("catch-all-not-empty", &visible.collect::<Samples>(), 96 * HOUR), [0; 0]);
}
