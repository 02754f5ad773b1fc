//! What the function says: one JSON line an event, and nothing in it that came from a person.

use std::{
    error::Error,
    fmt::{self, Write as _},
};

use serde_json::json;
use tracing::{Event, Level, Metadata, Subscriber};
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

/// The root of the targets of our own events.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// Starts logging to standard output, at Lambda's `AWS_LAMBDA_LOG_LEVEL` or at `INFO`.
///
/// Lambda's own filter needs a line to be JSON with an RFC 3339 `timestamp` and a `level`. The crates that we
/// depend on write events, bodies and headers into theirs, at any level: of them no more is passed on than that
/// there was a warning or an error, and where.
pub fn init() {
    let level = std::env::var("AWS_LAMBDA_LOG_LEVEL").map_or(Level::INFO, |name| level(&name));
    tracing_subscriber::registry().with(layer(level, std::io::stdout)).init();
    std::panic::set_hook(Box::new(|panic| {
        // The text of a panic can hold what the function was working on.
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(panic.location = location, "panicked");
    }));
}

fn level(name: &str) -> Level {
    // Lambda has one above all of ours.
    if name == "FATAL" { Level::ERROR } else { name.parse().unwrap_or(Level::INFO) }
}

fn layer<S, W>(level: Level, writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let ours = Format::default().json().flatten_event(true).with_current_span(false).with_span_list(false);
    let wanted = move |of: &Metadata<'_>| *of.level() <= if is_ours(of) { level } else { level.min(Level::WARN) };
    tracing_subscriber::fmt::layer()
        .fmt_fields(JsonFields::new())
        .event_format(Lines(ours))
        .with_writer(writer)
        .with_filter(filter_fn(wanted))
}

fn is_ours(event: &Metadata<'_>) -> bool {
    event.target().split("::").next() == Some(OURS)
}

/// Writes our own events whole, and of others only where they come from.
struct Lines(Format<Json>);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let source = event.metadata();
        if is_ours(source) {
            return self.0.format_event(context, to, event);
        }
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let line = json!({
            "timestamp": timestamp,
            "level": source.level().as_str(),
            "message": "a dependency logged",
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

    fn logged(level: Level, log: impl FnOnce()) -> Vec<Value> {
        let output = Output::default();
        let writer = output.clone();
        let subscriber = tracing_subscriber::registry().with(layer(level, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_is_json_that_lambda_can_filter() {
        let lines = logged(Level::INFO, || {
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
        let lines = logged(Level::TRACE, || {
            tracing::trace!(target: "hyper::proto", body = "a person's words");
            tracing::info!(target: "lambda_runtime", "a person's words");
            tracing::error!(target: "lambda_runtime::layers", error = "a person's words", "a person's words");
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&line["level"], &line["target"]), (&"ERROR".into(), &"lambda_runtime::layers".into()));
        assert!(line["timestamp"].is_string() && !line.to_string().contains("person"), "{line}");
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
