//! Maps the field and kind of a change to a queue.

use std::collections::HashMap;

use serde::de::{Deserializer, MapAccess, Visitor};
use thiserror::Error;

use crate::notification::Kind;

/// The route of every fragment without a route of its own.
pub const CATCH_ALL: &str = "*";

/// A queue of at least one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The URL.
    pub url: String,
    /// The name: the last segment of the URL.
    pub name: String,
    /// Whether it is a FIFO queue.
    pub fifo: bool,
}

impl Queue {
    /// The id of the account that owns the queue, from its URL.
    #[must_use]
    pub fn account_id(&self) -> Option<&str> {
        let account = self.url.rsplit('/').nth(1)?;
        (account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit())).then_some(account)
    }
}

/// The name of a queue has this suffix exactly if it is a FIFO queue.
const FIFO_SUFFIX: &str = ".fifo";

/// The queue of a change, and the route that leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination<'r> {
    /// The index of the queue in [`Routes::queues`].
    pub queue_index: usize,
    /// The route. `None` for the catch-all queue.
    pub route: Option<&'r str>,
}

/// The routes to the queues, as the operator configures them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    queues: Vec<Queue>,
    catch_all: usize,
    by_route: HashMap<String, usize>,
}

/// An error in the configured routes. The text continues the name of the setting.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum RoutesError {
    /// The text is not a JSON object of strings.
    #[error("is not a JSON object of strings: {0}")]
    NotAnObject(String),
    /// There is no catch-all route.
    #[error("has no route `*`, the queue of everything without a route of its own")]
    NoCatchAll,
    /// A route occurs twice.
    #[error("has the route `{0}` twice")]
    Duplicate(String),
    /// A route that no change can match.
    #[error("has the invalid route `{0}`: a route is `*`, a field, or a field with .messages, .statuses or .errors")]
    InvalidRoute(String),
    /// The value of a route is neither the URL nor the name of a queue.
    #[error("has no queue's URL or name as the value of `{0}`")]
    InvalidQueue(String),
}

impl Routes {
    /// Parses a JSON object that maps `field.kind`, `field` or `*` to a queue: its URL, or its name if it is in the account and
    /// region of the `*` queue.
    ///
    /// Names keep many routes within Lambda's limit of 4 KB for the environment variables of a function.
    /// Source: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
    pub fn parse(json: &str) -> Result<Self, RoutesError> {
        let pairs = pairs(json)?;
        let mut targets = HashMap::with_capacity(pairs.len());
        for (route, target) in &pairs {
            if targets.insert(route.as_str(), target.as_str()).is_some() {
                return Err(RoutesError::Duplicate(route.clone()));
            }
        }
        let catch_all = targets.get(CATCH_ALL).ok_or(RoutesError::NoCatchAll)?;
        let (url_prefix, _) = split_url(catch_all).ok_or_else(|| RoutesError::InvalidQueue(CATCH_ALL.to_owned()))?;

        let mut routes = Self { queues: Vec::new(), catch_all: 0, by_route: HashMap::with_capacity(pairs.len()) };
        for (route, target) in &pairs {
            check_route(route)?;
            let url = if is_queue_name(target) { format!("{url_prefix}{target}") } else { target.clone() };
            let (_, name) = split_url(&url).ok_or_else(|| RoutesError::InvalidQueue(route.clone()))?;
            let (name, fifo) = (name.to_owned(), name.ends_with(FIFO_SUFFIX));
            let queue = routes.queues.iter().position(|queue| queue.url == url).unwrap_or_else(|| {
                routes.queues.push(Queue { url, name, fifo });
                routes.queues.len() - 1
            });
            if route == CATCH_ALL {
                routes.catch_all = queue;
            } else {
                routes.by_route.insert(route.clone(), queue);
            }
        }
        Ok(routes)
    }

    /// The queues of all routes, without duplicates.
    #[must_use]
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// The index of the catch-all queue in [`Self::queues`].
    #[must_use]
    pub fn catch_all_index(&self) -> usize {
        self.catch_all
    }

    /// Finds the route of a change: that of its field and kind, or else of its field, or else the catch-all.
    #[must_use]
    pub fn find(&self, field: Option<&str>, kind: Option<Kind>) -> Destination<'_> {
        let of_kind = field.zip(kind).and_then(|(field, kind)| self.get(&format!("{field}.{}", kind.name())));
        // A field in a notification is arbitrary text. One with a dot must not match a route with a kind; `*` is not in the map.
        let of_field = || field.filter(|field| !field.contains('.')).and_then(|field| self.get(field));
        of_kind.or_else(of_field).unwrap_or(Destination { queue_index: self.catch_all, route: None })
    }

    fn get(&self, key: &str) -> Option<Destination<'_>> {
        self.by_route.get_key_value(key).map(|(route, queue)| Destination { queue_index: *queue, route: Some(route) })
    }
}

fn check_route(route: &str) -> Result<(), RoutesError> {
    let (field, kind) = route.split_once('.').map_or((route, None), |(field, kind)| (field, Some(kind)));
    let known_kind = kind.is_none_or(|kind| Kind::ALL.iter().any(|known| known.name() == kind));
    if field.is_empty() || (field == CATCH_ALL && kind.is_some()) || !known_kind {
        return Err(RoutesError::InvalidRoute(route.to_owned()));
    }
    Ok(())
}

/// Splits the URL of a queue after its last slash: prefix and name.
fn split_url(url: &str) -> Option<(&str, &str)> {
    let after_scheme = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let (authority, path) = after_scheme.split_once('/')?;
    let is_authority = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let name = path.rsplit('/').next()?;
    let is_url = !authority.is_empty() && authority.bytes().all(is_authority) && path.bytes().all(is_path);
    (is_url && is_queue_name(name)).then(|| url.split_at(url.len() - name.len()))
}

/// Whether SQS accepts the text as the name of a queue.
fn is_queue_name(name: &str) -> bool {
    let stem = name.strip_suffix(FIFO_SUFFIX).unwrap_or(name);
    !stem.is_empty()
        && name.len() <= 80
        && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The members of a JSON object of strings, with duplicates, which a map would hide.
fn pairs(json: &str) -> Result<Vec<(String, String)>, RoutesError> {
    struct Pairs;

    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(String, String)>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object of strings")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = members.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }

    let mut json = serde_json::Deserializer::from_str(json);
    json.deserialize_map(Pairs)
        .and_then(|pairs| json.end().map(|()| pairs))
        .map_err(|error| RoutesError::NotAnObject(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CATCH_ALL_URL: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/in-unrouted";

    fn routes(others: &str) -> Result<Routes, RoutesError> {
        Routes::parse(&format!(r#"{{"*":"{CATCH_ALL_URL}"{others}}}"#))
    }

    fn found<'r>(routes: &'r Routes, field: &str, kind: Option<Kind>) -> (&'r str, Option<&'r str>) {
        let destination = routes.find(Some(field), kind);
        (&routes.queues()[destination.queue_index].name, destination.route)
    }

    #[test]
    fn the_most_exact_route_wins() {
        let routes = routes(r#","messages":"in-messages","messages.statuses":"in-receipts""#).unwrap();
        assert_eq!(found(&routes, "messages", Some(Kind::Messages)), ("in-messages", Some("messages")));
        assert_eq!(found(&routes, "messages", Some(Kind::Statuses)), ("in-receipts", Some("messages.statuses")));
        assert_eq!(found(&routes, "messages", Some(Kind::Errors)), ("in-messages", Some("messages")));
        assert_eq!(found(&routes, "messages", None), ("in-messages", Some("messages")));
        assert_eq!(found(&routes, "security", None), ("in-unrouted", None));
        assert_eq!(routes.find(None, Some(Kind::Statuses)).route, None);
    }

    #[test]
    fn no_field_name_in_a_payload_reaches_a_route_that_is_not_its_own() {
        let routes = routes(r#","messages":"in-messages","messages.statuses":"in-receipts""#).unwrap();
        for field in ["*", "messages.statuses", "messages.", "Messages", " messages", ""] {
            assert_eq!(found(&routes, field, None), ("in-unrouted", None), "{field}");
            assert_eq!(found(&routes, field, Some(Kind::Messages)), ("in-unrouted", None), "{field}");
        }
    }

    #[test]
    fn a_bare_name_is_a_sibling_of_the_catch_all() {
        let routes = routes(r#","a":"x","b":"y.fifo","c":"http://127.0.0.1:4566/000000000000/z""#).unwrap();
        let urls: Vec<_> = routes.queues().iter().map(|queue| queue.url.as_str()).collect();
        assert_eq!(
            urls,
            [
                CATCH_ALL_URL,
                "https://sqs.eu-west-1.amazonaws.com/123456789012/x",
                "https://sqs.eu-west-1.amazonaws.com/123456789012/y.fifo",
                "http://127.0.0.1:4566/000000000000/z"
            ]
        );
        assert!(routes.queues()[2].fifo && !routes.queues()[1].fifo);
    }

    #[test]
    fn routes_to_one_queue_share_it() {
        let routes = routes(&format!(r#","a":"x","b":"x","c":"{CATCH_ALL_URL}""#)).unwrap();
        assert_eq!(routes.queues().len(), 2);
        assert_eq!(found(&routes, "c", None), ("in-unrouted", Some("c")));
        assert_eq!(routes.find(Some("a"), None).queue_index, routes.find(Some("b"), None).queue_index);
    }

    #[test]
    fn the_catch_all_is_the_queue_of_the_star_wherever_it_stands() {
        let routes = Routes::parse(&format!(r#"{{"a":"x","*":"{CATCH_ALL_URL}","b":"y"}}"#)).unwrap();
        assert_eq!(routes.queues()[routes.catch_all_index()].url, CATCH_ALL_URL);
        assert_eq!(found(&routes, "security", None), ("in-unrouted", None));
    }

    #[test]
    fn a_map_that_cannot_work_is_refused_by_name() {
        let error = |others: &str| routes(others).unwrap_err();
        assert_eq!(error(r#","a":"x","a":"y""#), RoutesError::Duplicate("a".into()));
        for route in ["", "messages.status", "messages.statuses.x", ".statuses", "*.statuses"] {
            assert_eq!(error(&format!(r#","{route}":"x""#)), RoutesError::InvalidRoute(route.into()));
        }
        for target in [
            "",
            "a b",
            "x/y",
            "https://",
            "https://host",
            "https://host/",
            "ftp://host/1/x",
            ".fifo",
            "é",
            "https:///1/x",
            "https://a b/1/x",
            "https://host/1/x?y",
            "https://u@host/1/x",
        ] {
            assert_eq!(error(&format!(r#","a":"{target}""#)), RoutesError::InvalidQueue("a".into()), "{target}");
        }
        assert_eq!(Routes::parse("{}"), Err(RoutesError::NoCatchAll));
        assert_eq!(Routes::parse(r#"{"*":"bare-name"}"#), Err(RoutesError::InvalidQueue("*".into())));
        for json in ["", "[]", r#"{"*":5}"#, r#"{"*":"x"} x"#] {
            assert!(matches!(Routes::parse(json), Err(RoutesError::NotAnObject(_))), "{json}");
        }
        assert!(Routes::parse("[]").unwrap_err().to_string().contains("an object of strings"));
    }
}
