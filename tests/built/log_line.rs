//! Checks the format of a log line, and that it contains only permitted members.

use std::{collections::BTreeMap, time::SystemTime};

use serde_json::{Value, json};
use whatsapp_ingress::metrics::{Metric, Unit};

/// Parses a log line and checks its format: JSON with an RFC 3339 timestamp and a level, because Lambda filters by the level.
/// For a panic or an event of a dependency, the line contains only the source location.
pub(crate) fn parse(line: &str) -> Value {
    let json: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
    // A duplicate member would make the serialized text shorter.
    assert_eq!(json.to_string().len(), line.len(), "{line}");
    assert!(is_rfc3339(json["timestamp"].as_str().unwrap()), "{line}");
    let levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    assert!(levels.contains(&json["level"].as_str().unwrap()), "{line}");
    let mut members: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    if let Some(location) = json.get("panic.location") {
        // The message of a panic would contain spaces.
        let location: Vec<_> = location.as_str().unwrap().rsplitn(3, ':').collect();
        assert!(location[..2].iter().all(|number| number.parse::<u32>().is_ok()), "{line}");
        assert!(location[2].strip_suffix(".rs").is_some() && !location[2].contains(' '), "{line}");
        members.retain(|name| *name != "request.id");
        assert_eq!(members, ["level", "message", "panic.location", "target", "timestamp"]);
    }
    if json.get("_aws").is_some() {
        let (_, mut others) = metrics(&json);
        others.sort_unstable();
        let expected = ["body.bytes", "level", "message", "request.id", "response.status", "target", "timestamp"];
        assert_eq!(others.into_iter().filter(|name| *name != "reason").collect::<Vec<_>>(), expected, "{line}");
    }
    listed(json["message"].as_str().unwrap());
    if !json["target"].as_str().unwrap().starts_with("whatsapp_ingress") {
        assert_eq!(json["message"], "a dependency logged");
        assert!(["WARN", "ERROR"].contains(&json["level"].as_str().unwrap()), "{line}");
        assert_eq!(members, ["level", "message", "source.line", "target", "timestamp"]);
    }
    json
}

/// Returns a message that the runbook lists. Panics on any other, so that no test waits for a text that the function no longer
/// writes, or checks that it is absent.
pub(crate) fn listed(message: &str) -> &str {
    let (_, runbook) = include_str!("../../docs/operations.md").split_once("\n## The log\n").unwrap();
    assert!(runbook.contains(&format!("\n| `{message}` | ")), "docs/operations.md does not list {message:?}");
    message
}

/// Extracts the metrics as CloudWatch does ([embedded metric format]). Also returns the names of the other members.
///
/// [embedded metric format]: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
pub(crate) fn metrics(line: &Value) -> (BTreeMap<&str, f64>, Vec<&str>) {
    let mut others: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let mut take = |name: &str| {
        let index = others.iter().position(|other| *other == name).unwrap_or_else(|| panic!("no {name} in {line}"));
        others.remove(index);
    };
    take("_aws");
    take("FunctionName");
    assert_eq!(line["FunctionName"], "function");
    let age =
        SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() - u128::from(line["_aws"]["Timestamp"].as_u64().unwrap());
    assert!(age < 120_000, "{line}");
    let [directive] = &line["_aws"]["CloudWatchMetrics"].as_array().unwrap()[..] else { panic!("{line}") };
    assert_eq!(directive["Namespace"], "WhatsAppIngress");
    assert_eq!(directive["Dimensions"], json!([["FunctionName"]]));
    let definitions = directive["Metrics"].as_array().unwrap();
    assert!((1..=100).contains(&definitions.len()), "{line}");
    let metric = |definition: &'_ Value| {
        let name = definition["Name"].as_str().unwrap().to_owned();
        take(&name);
        assert_eq!(definition["Unit"], format!("{:?}", unit(&name)), "{line}");
        name
    };
    let names: Vec<_> = definitions.iter().map(metric).collect();
    let value = |name: &String| {
        let (name, value) = line.as_object().unwrap().get_key_value(name).unwrap();
        (name.as_str(), value.as_f64().unwrap_or_else(|| panic!("{name} is not a number in {line}")))
    };
    (names.iter().map(value).collect(), others)
}

/// Returns the unit that the function declares for a metric, or for its count of one route or reason.
pub(crate) fn unit(name: &str) -> Unit {
    let (declared, value) = name.split_once('.').map_or((name, None), |(name, value)| (name, Some(value)));
    let metric = Metric::ALL.iter().find(|metric| metric.name() == declared);
    let metric = metric.unwrap_or_else(|| panic!("{name} is not declared"));
    assert!(value.is_none() || metric.breakdown().is_some(), "{name} is not broken down");
    metric.unit()
}

fn is_rfc3339(text: &str) -> bool {
    let digits = |text: &str| {
        text.chars().map(|character| if character.is_ascii_digit() { '9' } else { character }).collect::<String>()
    };
    let (seconds, rest) = text.split_at_checked(19).unwrap_or_default();
    let fraction = rest.strip_suffix('Z').map(|fraction| fraction.trim_start_matches('.'));
    digits(seconds) == "9999-99-99T99:99:99"
        && fraction.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}
