//! What the function says: one JSON line a request, of which CloudWatch makes metrics, and one for what else there is
//! to say; nothing in them came from a person.

use std::{
    error::Error,
    fmt::{self, Write as _},
};

use serde::Serialize;
use serde_json::{Value, json};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::filter_fn,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{Format, Json, JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::metrics::DIMENSION;

/// The root of the targets of our own events.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// The target of the lines of requests.
const REQUEST: &str = concat!(env!("CARGO_CRATE_NAME"), "::request");

/// The beginnings of the warnings and errors of Lambda's runtime that an operator needs. None of them contains data, which
/// follows them or is in other fields.
const RUNTIME_MESSAGES: [&str; 8] = [
    "AWS_LAMBDA_MAX_CONCURRENCY is set",
    "Ignoring malformed Lambda runtime invocation ID header",
    "Lambda Runtime API rejected the response: invocation timed out or response was stale",
    "Lambda Runtime API request failed",
    "Lambda Runtime API returned non-200 response",
    "failed to build Lambda Runtime API request",
    "failed to send request to Lambda Runtime API",
    "user handler panicked",
];

/// Lambda's level above all of ours.
const FATAL: &str = "FATAL";

/// Starts logging to standard output, at Lambda's `AWS_LAMBDA_LOG_LEVEL` or at `INFO`.
///
/// Lambda's own filter needs a line to be JSON with an RFC 3339 `timestamp` and a `level`. The crates that we
/// depend on write events, bodies and headers into theirs, at any level: of them no more is passed on than that
/// there was a warning or an error, and where.
pub fn init() {
    let least = std::env::var("AWS_LAMBDA_LOG_LEVEL").unwrap_or_default();
    // Without it the runtime does not start.
    let function = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
    tracing_subscriber::registry().with(layer(&least, &function, std::io::stdout)).init();
    std::panic::set_hook(Box::new(|panic| {
        // The text of a panic can hold what the function was working on.
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(panic.location = location, "panicked");
    }));
}

/// Logs the line of a request, an object with members, at any log level: what CloudWatch does not get, it makes no
/// metrics of.
///
/// Where Lambda's filter asks for a higher level than the line's own, the line has the one asked for, since that
/// filter is not known to make an exception for metrics.
///
/// # Panics
///
/// Where the line cannot be written as JSON; one of texts and numbers with names always can.
pub fn request(level: Level, line: &impl Serialize) {
    let members = serde_json::to_string(line).expect("texts and numbers with names can be written");
    tracing::error!(target: REQUEST, level = level.as_str(), members);
}

fn level(name: &str) -> Level {
    if name == FATAL { Level::ERROR } else { name.parse().unwrap_or(Level::INFO) }
}

fn layer<S, W>(least: &str, function: &str, writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let ours = Format::default().json().flatten_event(true).with_current_span(false).with_span_list(false);
    let (level, fatal) = (level(least), least == FATAL);
    let wanted = move |of: &Metadata<'_>| *of.level() <= if is_ours(of) { level } else { level.min(Level::WARN) };
    tracing_subscriber::fmt::layer()
        .fmt_fields(JsonFields::new())
        .event_format(Lines { ours, level, fatal, function: function.into() })
        .with_writer(writer)
        .with_filter(filter_fn(wanted))
}

fn is_ours(event: &Metadata<'_>) -> bool {
    event.target().split("::").next() == Some(OURS)
}

/// Writes our own events whole, and of others only where they come from.
struct Lines {
    ours: Format<Json>,
    level: Level,
    fatal: bool,
    /// As JSON.
    function: Value,
}

impl Lines {
    fn write_request(&self, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut request = Request::default();
        event.record(&mut request);
        let level = request.level.parse().unwrap_or(Level::INFO).min(self.level);
        let (time, level) = (now()?, if self.fatal { FATAL } else { level.as_str() });
        let head = format_args!(r#""timestamp":"{time}","level":"{level}","target":"{REQUEST}""#);
        // The members bring the brace that ends the line; the one that begins it is before ours.
        writeln!(to, r#"{{{head},"{DIMENSION}":{},{}"#, self.function, &request.members[1..])
    }
}

/// What [`request`] was called with.
#[derive(Default)]
struct Request {
    level: String,
    members: String,
}

impl Visit for Request {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "level" => value.clone_into(&mut self.level),
            _ => value.clone_into(&mut self.members),
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// Finds the message of a dependency's event among [`RUNTIME_MESSAGES`].
struct RuntimeMessage(&'static str);

impl Visit for RuntimeMessage {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let text = format!("{value:?}");
            self.0 = RUNTIME_MESSAGES.into_iter().find(|known| text.starts_with(known)).unwrap_or(self.0);
        }
    }
}

fn now() -> Result<String, fmt::Error> {
    let mut timestamp = String::new();
    SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
    Ok(timestamp)
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let source = event.metadata();
        if source.target() == REQUEST {
            return self.write_request(to, event);
        }
        if is_ours(source) {
            return self.ours.format_event(context, to, event);
        }
        let mut message = RuntimeMessage("a dependency logged");
        event.record(&mut message);
        let line = json!({
            "timestamp": now()?,
            "level": source.level().as_str(),
            "message": message.0,
            "target": source.target(),
            "source.line": source.line(),
        });
        writeln!(to, "{line}")
    }
}

/// The texts of an error and of what caused it, in one line.
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;
    use crate::metrics::Metrics;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A line, none of whose members is there twice: of such a one, the text would be shorter when written again.
    fn read(line: &str) -> Value {
        let read: Value = serde_json::from_str(line).unwrap();
        assert_eq!(read.to_string().len(), line.len(), "{line}");
        read
    }

    fn logged(least: &str, log: impl FnOnce()) -> Vec<Value> {
        let output = Output::default();
        let writer = output.clone();
        let subscriber = tracing_subscriber::registry().with(layer(least, "a \"function\"", move || writer.clone()));
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        text.lines().map(read).collect()
    }

    #[test]
    fn a_line_is_json_that_lambda_can_filter() {
        let lines = logged("INFO", || {
            tracing::info!(body.bytes = 5, "stored");
            tracing::debug!("too fine");
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(timestamp.len() >= 20 && timestamp.as_bytes()[10] == b'T' && timestamp.ends_with('Z'), "{timestamp}");
        assert_eq!(
            (&line["level"], &line["message"], &line["body.bytes"]),
            (&"INFO".into(), &"stored".into(), &5.into())
        );
    }

    #[test]
    fn of_a_dependency_only_the_place_is_told_and_only_of_what_is_bad() {
        let lines = logged("TRACE", || {
            tracing::trace!(target: "hyper::proto", body = "a person's words");
            tracing::info!(target: "lambda_runtime", "a person's words");
            tracing::error!(target: "lambda_runtime::layers", error = "a person's words", "a person's words");
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&line["level"], &line["target"]), (&"ERROR".into(), &"lambda_runtime::layers".into()));
        assert!(line["timestamp"].is_string() && !line.to_string().contains("person"), "{line}");
    }

    #[test]
    fn runtime_warnings_are_logged_without_their_data() {
        let lines = logged("INFO", || {
            tracing::warn!(target: "lambda_runtime", "AWS_LAMBDA_MAX_CONCURRENCY is set to '{}', but", "a person's words");
            tracing::error!(target: "lambda_runtime", error = "a person's words", "Lambda Runtime API request failed");
        });
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["AWS_LAMBDA_MAX_CONCURRENCY is set", "Lambda Runtime API request failed"]);
        assert!(!lines.iter().any(|line| line.to_string().contains("person")), "{lines:?}");
    }

    #[test]
    fn the_line_of_a_request_is_written_at_any_level_and_passes_the_filter_that_asks_for_it() {
        for (least, expected) in [
            ("TRACE", ["INFO", "WARN", "ERROR"]),
            ("INFO", ["INFO", "WARN", "ERROR"]),
            ("WARN", ["WARN", "WARN", "ERROR"]),
            ("ERROR", ["ERROR", "ERROR", "ERROR"]),
            ("FATAL", ["FATAL", "FATAL", "FATAL"]),
        ] {
            let lines = logged(least, || {
                for level in [Level::INFO, Level::WARN, Level::ERROR] {
                    request(level, &Metrics::default());
                }
            });
            let levels: Vec<_> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
            assert_eq!(levels, expected, "{least}");
        }
    }

    #[test]
    fn the_line_of_a_request_has_what_lambda_and_cloudwatch_look_for_in_its_root() {
        let metrics = serde_json::to_value(Metrics::default()).unwrap();
        let members = metrics.as_object().unwrap();
        let lines = logged("INFO", || request(Level::INFO, &metrics));
        let [Value::Object(line)] = &lines[..] else { panic!("{lines:?}") };
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(line["FunctionName"], "a \"function\"");
        assert_eq!(line.len(), members.len() + 4);
        assert!(members.iter().all(|(name, value)| line[name] == *value));
    }

    #[test]
    fn every_level_of_lambda_is_one_of_ours() {
        let levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL", "", "x"].map(level);
        let expected = [
            Level::TRACE,
            Level::DEBUG,
            Level::INFO,
            Level::WARN,
            Level::ERROR,
            Level::ERROR,
            Level::INFO,
            Level::INFO,
        ];
        assert_eq!(levels, expected);
    }
}
