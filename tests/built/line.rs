//! A line of the log: its form, and how little of others' words it may have.

use serde_json::Value;

/// Reads a line of the log and checks its form: JSON with an RFC 3339 timestamp and a level, for Lambda's own filter; of
/// a panic or of a dependency's event the place and nothing else.
pub(crate) fn read(line: &str) -> Value {
    let json: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    assert!(is_rfc3339(json["timestamp"].as_str().unwrap()), "{line}");
    assert!(["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&json["level"].as_str().unwrap()), "{line}");
    let mut members: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    if let Some(place) = json.get("panic.location") {
        // The text of a panic would have spaces.
        let place: Vec<_> = place.as_str().unwrap().rsplitn(3, ':').collect();
        assert!(place[..2].iter().all(|number| number.parse::<u32>().is_ok()), "{line}");
        assert!(place[2].strip_suffix(".rs").is_some() && !place[2].contains(' '), "{line}");
        assert_eq!(members, ["level", "message", "panic.location", "target", "timestamp"]);
    }
    if !json["target"].as_str().unwrap().starts_with("whatsapp_ingress") {
        assert_eq!(json["message"], "a dependency logged");
        assert!(["WARN", "ERROR"].contains(&json["level"].as_str().unwrap()), "{line}");
        assert_eq!(members, ["level", "message", "source.line", "target", "timestamp"]);
    }
    json
}

fn is_rfc3339(text: &str) -> bool {
    let digits = |text: &str| text.chars().map(|of| if of.is_ascii_digit() { '9' } else { of }).collect::<String>();
    let (seconds, rest) = text.split_at_checked(19).unwrap_or_default();
    let fraction = rest.strip_suffix('Z').map(|fraction| fraction.trim_start_matches('.'));
    digits(seconds) == "9999-99-99T99:99:99" && fraction.is_some_and(|of| of.bytes().all(|byte| byte.is_ascii_digit()))
}
