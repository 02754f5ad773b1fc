//! The metrics of one invocation, as members of its log line in CloudWatch's embedded metric format.
//!
//! Format: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::lock::lock;

/// The namespace of the metrics.
pub const NAMESPACE: &str = "WhatsAppIngress";

/// The only dimension of the metrics. AWS charges for each combination of dimension values as for a metric of its own.
pub const DIMENSION: &str = "FunctionName";

/// The member of the log line with the definitions of the metrics.
const DEFINITIONS: &str = "_aws";

/// The maximum number of metrics in one directive of the embedded metric format.
const MAX_METRICS: usize = 100;

/// The maximum length of a route or reason that becomes a part of a metric's name. CloudWatch limits the whole name to 255
/// characters.
const MAX_VALUE_LENGTH: usize = 200;

/// The unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of occurrences.
    Count,
    /// Milliseconds with three decimals.
    Milliseconds,
    /// Whole seconds.
    Seconds,
}

/// Declares the metrics, so that the list of all metrics cannot miss one.
macro_rules! metrics {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        /// A metric of the function.
        ///
        /// To add one: declare it, count it, and document it in the table of `docs/operations.md`. If its unit is not
        /// [`Unit::Count`], or if it is broken down, add it to [`Self::unit`] or [`Self::breakdown`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Metric { $($(#[$attribute])* $name,)* }

        impl Metric {
            /// All metrics.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in CloudWatch.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

metrics! {
    /// Time from a verified signature until the notification was archived, or the archive was given up.
    ArchiveTime,
    /// Fragments of notifications; also by route.
    Changes,
    /// Messages that were stored with a pointer to a body in S3.
    ClaimChecked,
    /// Messages that are stored on the catch-all queue because their own queue did not confirm them in time; also by route.
    ///
    /// Like `NotStored` and `Stored`, it counts a message for each queue of a fragment's route.
    Diverted,
    /// Time between the first change's timestamp and the function's clock.
    EventAge,
    /// Notifications that were not archived, although the archive is on.
    NotArchived,
    /// Messages that were not stored.
    NotStored,
    /// Signed notifications. The log line of each request has this count, even if it is zero. The metric is therefore missing
    /// only while the function answers no request.
    Notifications,
    /// Further attempts to send an entry to the same queue in the same form after an error, and second calls for batches whose
    /// first call had no response.
    QueueRetries,
    /// Requests without the required client certificate.
    RefusedCertificates,
    /// POSTs without a valid signature.
    RefusedSignatures,
    /// Challenges with a wrong verify token.
    RefusedTokens,
    /// Reads of the secret that failed or timed out.
    SecretFailures,
    /// Successful reads of the secret after the start.
    SecretRefreshes,
    /// Well-formed signatures that match none of the app secrets.
    SignatureMismatches,
    /// Time from a verified signature until storing ended, including waits for the archive and for the secret.
    StoreTime,
    /// Messages that were stored, including diverted messages.
    Stored,
    /// Fragments without a route; also by reason.
    Unrouted,
}

impl Metric {
    /// The unit.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::ArchiveTime | Self::StoreTime => Unit::Milliseconds,
            Self::EventAge => Unit::Seconds,
            _ => Unit::Count,
        }
    }

    /// The property by which the metric is broken down, if any. Each value of the property has a count of its own, with the name
    /// `<metric>.<value>`, such as `Changes.messages`.
    #[must_use]
    pub const fn breakdown(self) -> Option<&'static str> {
        match self {
            Self::Changes | Self::Diverted => Some("route"),
            Self::Unrouted => Some("reason"),
            _ => None,
        }
    }
}

/// The metrics of one invocation.
#[derive(Debug)]
pub struct Metrics(Mutex<BTreeMap<Cow<'static, str>, Sample>>);

#[derive(Debug, Clone, Copy)]
enum Sample {
    Count(u64),
    Time(Unit, Duration),
}

impl Default for Metrics {
    /// Starts with the metric `Notifications` at zero. All other metrics are absent until they are counted.
    fn default() -> Self {
        Self(Mutex::new(BTreeMap::from([(Metric::Notifications.name().into(), Sample::Count(0))])))
    }
}

impl Metrics {
    /// Adds to a count. The log line has no count of zero, except [`Metric::Notifications`].
    pub fn count(&self, metric: Metric, more: usize) {
        self.add(metric.name().into(), more);
    }

    /// Adds to the count of one route or reason: a value of the property that [`Metric::breakdown`] returns.
    ///
    /// A value that is too long for a name, or has other characters than visible ASCII, is not counted.
    pub fn count_value(&self, metric: Metric, value: &str, more: usize) {
        if value.len() <= MAX_VALUE_LENGTH && value.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.add(format!("{}.{value}", metric.name()).into(), more);
        }
    }

    fn add(&self, name: Cow<'static, str>, more: usize) {
        if more == 0 {
            return;
        }
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        if let Sample::Count(count) = self.lock().entry(name).or_insert(Sample::Count(0)) {
            *count = count.saturating_add(more);
        }
    }

    /// Adds the counts of `other`, and removes them there.
    pub fn take_counts(&self, other: &Self) {
        for (name, sample) in std::mem::take(&mut *other.lock()) {
            if let Sample::Count(count) = sample {
                self.add(name, usize::try_from(count).unwrap_or(usize::MAX));
            }
        }
    }

    /// Sets a time. The log line has it in the unit of the metric.
    pub fn time(&self, metric: Metric, time: Duration) {
        self.lock().insert(metric.name().into(), Sample::Time(metric.unit(), time));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Cow<'static, str>, Sample>> {
        lock(&self.0)
    }
}

/// Serializes the metrics and their definitions as members of a log line. The dimension is not included.
impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let metrics = self.lock();
        let definitions: Vec<_> =
            metrics.iter().map(|(name, sample)| Definition { name, unit: sample.unit() }).collect();
        let directives = definitions.chunks(MAX_METRICS).map(|metrics| Directive {
            namespace: NAMESPACE,
            dimensions: [[DIMENSION]],
            metrics,
        });
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let directives =
            Directives { timestamp: u64::try_from(now).unwrap_or_default(), cloud_watch_metrics: directives.collect() };
        let mut members = to.serialize_map(Some(metrics.len() + 1))?;
        for (name, sample) in &*metrics {
            members.serialize_entry(name, sample)?;
        }
        members.serialize_entry(DEFINITIONS, &directives)?;
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

impl Sample {
    const fn unit(self) -> &'static str {
        match self {
            Self::Count(_) | Self::Time(Unit::Count, _) => "Count",
            Self::Time(Unit::Milliseconds, _) => "Milliseconds",
            Self::Time(Unit::Seconds, _) => "Seconds",
        }
    }
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => to.serialize_u64(*count),
            Self::Time(Unit::Milliseconds, time) => {
                to.serialize_f64(f64::from(u32::try_from(time.as_micros()).unwrap_or(u32::MAX)) / 1e3)
            }
            Self::Time(Unit::Count | Unit::Seconds, time) => to.serialize_u64(time.as_secs()),
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

    /// The metrics that CloudWatch extracts from a line. Checks the rules of the embedded metric format.
    fn extract(metrics: &Metrics) -> BTreeMap<String, (f64, String)> {
        let members = members(metrics);
        let directives = members["_aws"]["CloudWatchMetrics"].as_array().unwrap();
        assert!(members["_aws"]["Timestamp"].as_u64().unwrap() > 1_700_000_000_000);
        let mut extracted = BTreeMap::new();
        for directive in directives {
            assert_eq!((&directive["Namespace"], &directive["Dimensions"]), (&json!(NAMESPACE), &json!([[DIMENSION]])));
            let metrics = directive["Metrics"].as_array().unwrap();
            assert!((1..=100).contains(&metrics.len()), "{}", metrics.len());
            for metric in metrics {
                let name = metric["Name"].as_str().unwrap();
                assert!(name.is_ascii() && name.len() <= 255, "{name}");
                let previous =
                    extracted.insert(name.to_owned(), (members[name].as_f64().unwrap(), metric["Unit"].to_string()));
                assert_eq!(previous, None, "{name} is defined twice");
            }
        }
        assert_eq!(extracted.len() + 1, members.as_object().unwrap().len(), "every number is a metric: {members:?}");
        extracted
    }

    #[test]
    fn operations_page_lists_exactly_the_metrics() {
        let runbook = include_str!("../docs/operations.md");
        let (_, section) = runbook.split_once("\n## The metrics\n").unwrap();
        let (section, _) = section.split_once("\nThe template derives").unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let listed: BTreeMap<_, _> =
            rows.map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap().to_owned())).collect();
        let names = |metric: &Metric| {
            let broken_down = metric.breakdown().map(|property| format!("{}.<{property}>", metric.name()));
            [Some(metric.name().to_owned()), broken_down].map(|name| Some((name?, format!("{:?}", metric.unit()))))
        };
        assert_eq!(listed, Metric::ALL.iter().flat_map(names).flatten().collect());
    }

    #[test]
    fn zero_counts_are_omitted_except_notifications() {
        let metrics = Metrics::default();
        metrics.count(Metric::Stored, 0);
        metrics.count_value(Metric::Changes, "messages", 0);
        assert_eq!(extract(&metrics), [("Notifications".to_owned(), (0.0, r#""Count""#.to_owned()))].into());
    }

    #[test]
    fn counts_add_up_and_times_have_their_unit() {
        let metrics = Metrics::default();
        for _ in 0..3 {
            metrics.count(Metric::Notifications, 1);
            metrics.count_value(Metric::Changes, "messages.statuses", 2);
        }
        metrics.time(Metric::StoreTime, Duration::from_nanos(12_345_678));
        metrics.time(Metric::EventAge, Duration::from_millis(61_999));
        let extracted = extract(&metrics);
        for (name, value, unit) in [
            ("Notifications", 3.0, "Count"),
            ("Changes.messages.statuses", 6.0, "Count"),
            ("StoreTime", 12.345, "Milliseconds"),
            ("EventAge", 61.0, "Seconds"),
        ] {
            assert!(
                (extracted[name].0 - value).abs() < 1e-9 && extracted[name].1 == format!("{unit:?}"),
                "{name}: {extracted:?}"
            );
        }
        assert_eq!(extracted.len(), 4);
    }

    #[test]
    fn more_than_100_metrics_use_several_directives() {
        let metrics = Metrics::default();
        for at in 0..250 {
            metrics.count_value(Metric::Changes, &format!("field_{at}"), 1);
        }
        assert_eq!(extract(&metrics).len(), 251);
        assert_eq!(members(&metrics)["_aws"]["CloudWatchMetrics"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn route_that_cannot_be_in_a_name_is_not_counted() {
        let metrics = Metrics::default();
        for route in ["größe", "a b", "\u{1}", &"x".repeat(201)] {
            metrics.count_value(Metric::Changes, route, 1);
        }
        assert_eq!(extract(&metrics).len(), 1);
    }
}
