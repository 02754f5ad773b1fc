//! What is counted and timed of one invocation, in the form of which CloudWatch makes metrics.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer, ser::SerializeMap as _};

/// The namespace of the metrics.
pub const NAMESPACE: &str = "WhatsAppIngress";

/// The one dimension of the metrics. More of them, or ids in them, would each be a metric to pay for.
pub const DIMENSION: &str = "FunctionName";

/// The member that says what metrics to make of the others.
const DIRECTIVES: &str = "_aws";

/// The most metrics that CloudWatch takes in one directive.
const MOST_METRICS: usize = 100;

/// The longest part of a name that an operator may choose; CloudWatch takes 255 characters in all.
const LONGEST_PART: usize = 200;

/// The counts and times of one invocation.
#[derive(Debug)]
pub struct Metrics(Mutex<BTreeMap<Cow<'static, str>, Metric>>);

#[derive(Debug, Clone, Copy)]
enum Metric {
    Count(u64),
    Time(Unit, Duration),
}

/// What a time is told in.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    /// Thousandths of a second, and parts of them.
    Milliseconds,
    /// Whole seconds.
    Seconds,
}

impl Default for Metrics {
    /// No notification yet: a zero that is told, so that silence can be told from a function that does not run.
    fn default() -> Self {
        Self(Mutex::new(BTreeMap::from([(Cow::Borrowed("Notifications"), Metric::Count(0))])))
    }
}

impl Metrics {
    /// Adds to a count. Nothing is told of what stays at zero.
    pub fn count(&self, name: &'static str, more: usize) {
        self.add(Cow::Borrowed(name), more);
    }

    /// Adds to the part of a count that a route or a reason has; a part that CloudWatch could not name is left out.
    pub fn count_of(&self, name: &'static str, part: &str, more: usize) {
        if part.len() <= LONGEST_PART && part.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.add(Cow::Owned(format!("{name}.{part}")), more);
        }
    }

    fn add(&self, name: Cow<'static, str>, more: usize) {
        if more == 0 {
            return;
        }
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        let mut metrics = self.lock();
        if let Metric::Count(count) = metrics.entry(name).or_insert(Metric::Count(0)) {
            *count = count.saturating_add(more);
        }
    }

    /// Sets a time.
    pub fn time(&self, name: &'static str, unit: Unit, time: Duration) {
        self.lock().insert(Cow::Borrowed(name), Metric::Time(unit, time));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Cow<'static, str>, Metric>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As members of a log line that follows CloudWatch's embedded metric format, but for that of the dimension.
impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let metrics = self.lock();
        let definitions: Vec<_> =
            metrics.iter().map(|(name, metric)| Definition { name, unit: metric.unit() }).collect();
        let directives = definitions.chunks(MOST_METRICS).map(|metrics| Directive {
            namespace: NAMESPACE,
            dimensions: [[DIMENSION]],
            metrics,
        });
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let directives =
            Directives { timestamp: u64::try_from(now).unwrap_or_default(), cloud_watch_metrics: directives.collect() };
        let mut members = to.serialize_map(Some(metrics.len() + 1))?;
        for (name, metric) in &*metrics {
            members.serialize_entry(name, metric)?;
        }
        members.serialize_entry(DIRECTIVES, &directives)?;
        members.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directives<'m> {
    timestamp: u64,
    cloud_watch_metrics: Vec<Directive<'m>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive<'m> {
    namespace: &'static str,
    dimensions: [[&'static str; 1]; 1],
    metrics: &'m [Definition<'m>],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Definition<'m> {
    name: &'m str,
    unit: &'static str,
}

impl Metric {
    const fn unit(self) -> &'static str {
        match self {
            Self::Count(_) => "Count",
            Self::Time(Unit::Milliseconds, _) => "Milliseconds",
            Self::Time(Unit::Seconds, _) => "Seconds",
        }
    }
}

impl Serialize for Metric {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => to.serialize_u64(*count),
            Self::Time(Unit::Milliseconds, time) => {
                to.serialize_f64(f64::from(u32::try_from(time.as_micros()).unwrap_or(u32::MAX)) / 1e3)
            }
            Self::Time(Unit::Seconds, time) => to.serialize_u64(time.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn members(metrics: &Metrics) -> Value {
        serde_json::to_value(metrics).unwrap()
    }

    /// The metrics that CloudWatch makes of a line, checked against the rules of the embedded metric format.
    fn made_of(metrics: &Metrics) -> BTreeMap<String, (f64, String)> {
        let members = members(metrics);
        let directives = members["_aws"]["CloudWatchMetrics"].as_array().unwrap();
        assert!(members["_aws"]["Timestamp"].as_u64().unwrap() > 1_700_000_000_000);
        let mut made = BTreeMap::new();
        for directive in directives {
            assert_eq!((&directive["Namespace"], &directive["Dimensions"]), (&json!(NAMESPACE), &json!([[DIMENSION]])));
            let metrics = directive["Metrics"].as_array().unwrap();
            assert!((1..=100).contains(&metrics.len()), "{}", metrics.len());
            for metric in metrics {
                let name = metric["Name"].as_str().unwrap();
                assert!(name.is_ascii() && name.len() <= 255, "{name}");
                let made_before =
                    made.insert(name.to_owned(), (members[name].as_f64().unwrap(), metric["Unit"].to_string()));
                assert_eq!(made_before, None, "{name} is there twice");
            }
        }
        assert_eq!(made.len() + 1, members.as_object().unwrap().len(), "every number is a metric: {members:?}");
        made
    }

    #[test]
    fn nothing_is_told_of_zeros_but_that_there_was_no_notification() {
        let metrics = Metrics::default();
        metrics.count("Stored", 0);
        metrics.count_of("Changes", "messages", 0);
        assert_eq!(made_of(&metrics), [("Notifications".to_owned(), (0.0, r#""Count""#.to_owned()))].into());
    }

    #[test]
    fn counts_add_up_and_times_have_their_unit() {
        let metrics = Metrics::default();
        for _ in 0..3 {
            metrics.count("Notifications", 1);
            metrics.count_of("Changes", "messages.statuses", 2);
        }
        metrics.time("StoreTime", Unit::Milliseconds, Duration::from_nanos(12_345_678));
        metrics.time("EventAge", Unit::Seconds, Duration::from_millis(61_999));
        let made = made_of(&metrics);
        for (name, value, unit) in [
            ("Notifications", 3.0, "Count"),
            ("Changes.messages.statuses", 6.0, "Count"),
            ("StoreTime", 12.345, "Milliseconds"),
            ("EventAge", 61.0, "Seconds"),
        ] {
            assert!((made[name].0 - value).abs() < 1e-9 && made[name].1 == format!("{unit:?}"), "{name}: {made:?}");
        }
        assert_eq!(made.len(), 4);
    }

    #[test]
    fn more_than_a_hundred_metrics_are_in_more_than_one_directive() {
        let metrics = Metrics::default();
        for at in 0..250 {
            metrics.count_of("Changes", &format!("field_{at}"), 1);
        }
        assert_eq!(made_of(&metrics).len(), 251);
        assert_eq!(members(&metrics)["_aws"]["CloudWatchMetrics"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn a_route_that_cannot_be_in_a_name_spoils_no_line() {
        let metrics = Metrics::default();
        for route in ["größe", "a b", "\u{1}", &"x".repeat(201)] {
            metrics.count_of("Changes", route, 1);
        }
        assert_eq!(made_of(&metrics).len(), 1);
    }
}
