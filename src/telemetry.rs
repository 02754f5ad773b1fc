//! The log: one JSON line for each request, from which CloudWatch extracts the metrics, and lines for errors and warnings.
//!
//! No line contains text of a body, a header or a query.

use std::{
    error::Error,
    fmt::{self, Write as _},
    io::Write,
    sync::Mutex,
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
        FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter,
        format::{Format, Json, JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{lock::lock, metrics::DIMENSION};

/// The root of the targets of this crate's events.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// The target of the log lines of requests.
const REQUEST_TARGET: &str = concat!(env!("CARGO_CRATE_NAME"), "::request");

/// The beginnings of those warnings and errors of Lambda's runtime that an operator needs. The rest of such a message and its
/// other fields are not logged, because they can contain data.
const RUNTIME_MESSAGES: [&str; 10] = [
    "Concurrent worker exited",
    "Concurrent worker panicked",
    "Error polling /next, retrying",
    "Ignoring malformed Lambda runtime invocation ID header",
    "Lambda Runtime API rejected the response: invocation timed out or response was stale",
    "Lambda Runtime API request failed",
    "Lambda Runtime API returned non-200 response",
    "failed to build Lambda Runtime API request",
    "failed to send request to Lambda Runtime API",
    "user handler panicked",
];

/// Lambda's most severe level, which `tracing` does not have.
const FATAL: &str = "FATAL";

/// Starts logging to standard output, from the level `AWS_LAMBDA_LOG_LEVEL` or `INFO`. Returns the log of requests.
///
/// A line is JSON with an RFC 3339 `timestamp` and a `level`, because Lambda filters only lines of this form.
///
/// Dependencies write Lambda events, bodies and headers to their log lines, at any level. The log therefore has only their
/// warnings and errors, with the place in the source and a known text.
///
/// Format: <https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-advanced.html>
pub fn init() -> RequestLog {
    let min_level = std::env::var("AWS_LAMBDA_LOG_LEVEL").unwrap_or_default();
    // Set on Lambda, because Lambda's runtime requires it.
    let function = std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default();
    tracing_subscriber::registry().with(layer(&min_level, std::io::stdout)).init();
    std::panic::set_hook(Box::new(|panic| {
        // Without the text of the panic, because it can contain data of a request.
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(panic.location = location, "panicked");
    }));
    RequestLog::new(&min_level, &function, std::io::stdout())
}

/// The log lines of requests, one for each. CloudWatch extracts the metrics from them.
pub struct RequestLog {
    min_level: Level,
    /// Whether Lambda's filter accepts only the level `FATAL`.
    is_fatal: bool,
    /// The function's name as JSON.
    function: String,
    output: Mutex<Box<dyn Write + Send>>,
}

impl RequestLog {
    /// Creates a log that writes to `output`. `min_level` is the level of Lambda's filter, by Lambda's name for it.
    #[must_use]
    pub fn new(min_level: &str, function: &str, output: impl Write + Send + 'static) -> Self {
        Self {
            min_level: level(min_level),
            is_fatal: min_level == FATAL,
            function: Value::from(function).to_string(),
            output: Mutex::new(Box::new(output)),
        }
    }

    /// Writes the log line of a request regardless of the log level, because CloudWatch extracts the metrics from it.
    ///
    /// If the level of Lambda's filter is more severe than `level`, the line gets the level of the filter. Otherwise Lambda
    /// would drop the line and its metrics.
    ///
    /// # Panics
    ///
    /// If `line` does not serialize. It must be an object with at least one member.
    pub fn write(&self, level: Level, line: &impl Serialize) {
        let members = serde_json::to_string(line).expect("a log line serializes");
        // In `tracing` the more severe level is the smaller one.
        let level = if self.is_fatal { FATAL } else { level.min(self.min_level).as_str() };
        let (time, function) = (now().unwrap_or_default(), &self.function);
        // `members` is an object. Without its opening brace it is the end of the line.
        let text = format!(
            r#"{{"timestamp":"{time}","level":"{level}","target":"{REQUEST_TARGET}","{DIMENSION}":{function},{}{}"#,
            &members[1..],
            "\n"
        );
        // The request is answered even if the line cannot be written.
        let _ = lock(&self.output).write_all(text.as_bytes());
    }
}

impl fmt::Debug for RequestLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RequestLog").field("min_level", &self.min_level).finish_non_exhaustive()
    }
}

/// The level of `tracing` for Lambda's name of a level. `INFO` for any other text.
fn level(name: &str) -> Level {
    if name == FATAL { Level::ERROR } else { name.parse().unwrap_or(Level::INFO) }
}

fn layer<S, W>(min_level: &str, writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let ours = Format::default().json().flatten_event(true).with_current_span(false).with_span_list(false);
    let level = level(min_level);
    let is_logged = move |metadata: &Metadata<'_>| {
        *metadata.level() <= if is_ours(metadata) { level } else { level.min(Level::WARN) }
    };
    tracing_subscriber::fmt::layer()
        .fmt_fields(JsonFields::new())
        .event_format(LineFormat { ours })
        .with_writer(writer)
        .with_filter(filter_fn(is_logged))
}

fn is_ours(event: &Metadata<'_>) -> bool {
    event.target().split("::").next() == Some(OURS)
}

/// Formats an event as a line: an event of this crate with all its fields, an event of a dependency without its data.
struct LineFormat {
    ours: Format<Json>,
}

/// The message for a dependency's event: one of [`RUNTIME_MESSAGES`] if the event's own message begins with it.
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

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let source = event.metadata();
        if is_ours(source) {
            let mut line = String::new();
            self.ours.format_event(context, Writer::new(&mut line), event)?;
            let members = line.strip_suffix("}\n").unwrap_or(&line);
            return match fields_of_span(context) {
                // The fields of the span are an object, whose members are appended to those of the line.
                Some(fields) => writeln!(to, "{members},{}", &fields[1..]),
                None => to.write_str(&line),
            };
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

/// The fields of the current span as a JSON object: the id of the request.
fn fields_of_span<S, N>(context: &FmtContext<'_, S, N>) -> Option<String>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    let span = context.lookup_current()?;
    let fields = span.extensions().get::<FormattedFields<N>>()?.fields.clone();
    (fields.len() > 2).then_some(fields)
}

/// The texts of an error and of its sources, in one line.
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

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Parses a line, and fails if a member occurs twice: the parsed line has only one of them, so it is shorter.
    fn read(line: &str) -> Value {
        let read: Value = serde_json::from_str(line).unwrap();
        assert_eq!(read.to_string().len(), line.len(), "{line}");
        read
    }

    fn lines(output: &Output) -> Vec<Value> {
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        text.lines().map(read).collect()
    }

    fn logged(min_level: &str, log: impl FnOnce()) -> Vec<Value> {
        let output = Output::default();
        let writer = output.clone();
        let subscriber = tracing_subscriber::registry().with(layer(min_level, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, log);
        lines(&output)
    }

    fn logged_requests(min_level: &str, levels: &[Level], line: &impl Serialize) -> Vec<Value> {
        let output = Output::default();
        let log = RequestLog::new(min_level, "a \"function\"", output.clone());
        for level in levels {
            log.write(*level, line);
        }
        lines(&output)
    }

    #[test]
    fn line_has_the_form_of_lambdas_filter() {
        let lines = logged("INFO", || {
            tracing::info!(body.bytes = 5, "stored");
            tracing::debug!("below the level");
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
    fn dependency_event_logs_only_its_location() {
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
    fn line_within_a_span_has_the_request_id() {
        let lines = logged("INFO", || {
            let spans = ["a", "\"b\""].map(|id| tracing::error_span!("request", request.id = id));
            for span in &spans {
                span.in_scope(|| tracing::warn!(queue.name = "q", "failed"));
            }
            tracing::warn!("without");
        });
        let ids: Vec<_> = lines.iter().map(|line| line["request.id"].as_str()).collect();
        assert_eq!(ids, [Some("a"), Some("\"b\""), None]);
        assert!(lines[..2].iter().all(|line| line["queue.name"] == "q" && line.get("span").is_none()), "{lines:?}");
    }

    #[test]
    fn runtime_warnings_are_logged_without_their_data() {
        let lines = logged("INFO", || {
            tracing::warn!(target: "lambda_runtime", error = "a person's words", "Error polling /next, retrying");
            tracing::error!(target: "lambda_runtime", error = "a person's words", "Lambda Runtime API request failed");
        });
        let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(messages, ["Error polling /next, retrying", "Lambda Runtime API request failed"]);
        assert!(!lines.iter().any(|line| line.to_string().contains("person")), "{lines:?}");
    }

    #[test]
    fn request_line_is_written_at_every_level() {
        for (min_level, expected) in [
            ("TRACE", ["INFO", "WARN", "ERROR"]),
            ("INFO", ["INFO", "WARN", "ERROR"]),
            ("WARN", ["WARN", "WARN", "ERROR"]),
            ("ERROR", ["ERROR", "ERROR", "ERROR"]),
            ("FATAL", ["FATAL", "FATAL", "FATAL"]),
        ] {
            let lines = logged_requests(min_level, &[Level::INFO, Level::WARN, Level::ERROR], &Metrics::default());
            let levels: Vec<_> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
            assert_eq!(levels, expected, "{min_level}");
        }
    }

    #[test]
    fn request_line_has_members_of_lambda_and_cloudwatch() {
        let metrics = serde_json::to_value(Metrics::default()).unwrap();
        let members = metrics.as_object().unwrap();
        let lines = logged_requests("INFO", &[Level::INFO], &metrics);
        let [Value::Object(line)] = &lines[..] else { panic!("{lines:?}") };
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(line["FunctionName"], "a \"function\"");
        assert_eq!(line.len(), members.len() + 4);
        assert!(members.iter().all(|(name, value)| line[name] == *value));
    }

    #[test]
    fn every_level_of_lambda_has_a_tracing_level() {
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
