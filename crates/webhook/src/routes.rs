//! Selects the queues of a change: those of its most specific route.

use std::{borrow::Cow, collections::HashMap, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    message::MAX_QUEUE_NAME_BYTES,
    notification::{Change, Fragment, Kind},
};

/// The route of every fragment without a route of its own.
pub const CATCH_ALL: &str = "*";

/// A queue of at least one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The URL.
    pub url: String,
    /// The name, which is the last segment of the URL.
    pub name: String,
    /// Whether it is a FIFO queue.
    pub fifo: bool,
}

impl Queue {
    /// The id of the AWS account that owns the queue. `None` if its URL does not contain one.
    #[must_use]
    pub fn account_id(&self) -> Option<&str> {
        let account = self.url.rsplit('/').nth(1)?;
        (account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit())).then_some(account)
    }
}

/// The suffix of the names of all FIFO queues. The name of a standard queue cannot contain a dot.
const FIFO_SUFFIX: &str = ".fifo";

/// The queues of a fragment, and its route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination<'r> {
    /// The indices of the queues in [`Routes::queues`], at least one.
    pub queue_indices: &'r [usize],
    /// The route. `None` if no route matches. The fragment then goes to the catch-all queue.
    pub route: Option<&'r str>,
}

/// The routes to the queues, as the operator configures them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    queues: Vec<Queue>,
    /// The index of the catch-all queue, as an array because [`Destination`] borrows a slice.
    catch_all: [usize; 1],
    by_field: HashMap<String, FieldRoutes>,
}

/// The routes of one field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct FieldRoutes {
    /// The routes for all ids.
    any_id: KindRoutes,
    /// The routes that are narrowed to a phone number id or an entry id, by that id.
    by_id: HashMap<String, KindRoutes>,
}

/// The routes of one field that are narrowed to the same id, or to none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct KindRoutes {
    /// The route of all kinds without an element in `by_kind`.
    any_kind: Option<Route>,
    /// The routes of the kinds, in the order of [`Kind::ALL`].
    by_kind: [Option<Route>; Kind::ALL.len()],
}

impl KindRoutes {
    fn route_of_kind(&self, kind: Option<Kind>) -> Option<&Route> {
        self.by_kind[kind? as usize].as_ref()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    /// The route as the operator writes it, such as `messages.statuses`.
    name: String,
    queue_indices: Vec<usize>,
}

/// An error in the configured routes. Its text follows the name of the setting, as in `QUEUE_URLS has no route ...`.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum RoutesError {
    /// The text is not a JSON object.
    #[error("is not a JSON object of routes: {0}")]
    NotAnObject(String),
    /// There is no catch-all route.
    #[error("has no route `*` for the catch-all queue")]
    NoCatchAll,
    /// The catch-all route has several queues.
    #[error("has several queues for the route `*`, which must have one")]
    SeveralCatchAlls,
    /// A route has two queues of the same name.
    #[error("has the queue name `{queue}` twice for the route `{route}`")]
    DuplicateQueue {
        /// The route.
        route: String,
        /// The name of the queue.
        queue: String,
    },
    /// A route that no change can match.
    #[error(
        "has the invalid route `{0}`: a route is `*`, a field, or a field with .messages, .statuses or .errors, and a field may \
         be narrowed with @ and a phone number id or entry id of digits"
    )]
    InvalidRoute(String),
    /// The catch-all queue is a name.
    #[error("has a name for the route `*`, which must be a URL")]
    CatchAllIsName,
    /// The value of a route is neither a queue nor a list of queues.
    #[error("has a value for `{0}` that is neither the URL nor the name of a queue")]
    InvalidQueue(String),
    /// The value of a route is an empty list.
    #[error("has an empty list as the value of `{0}`")]
    NoQueue(String),
}

impl Routes {
    /// Parses a JSON object that maps routes to queues.
    ///
    /// A route is `*`, or a field, which may be followed by a dot and a kind, and then by `@` and a phone number id or entry
    /// id, as in `messages.statuses@106540352242922`. Its value is a queue or a list of queues. If a route occurs twice, it has
    /// the queues of both values.
    ///
    /// A queue is a URL. A queue in the account and region of the `*` queue may also be a name, because Lambda limits the
    /// environment variables of a function to 4 KB.
    /// Source: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
    ///
    /// # Errors
    ///
    /// See [`RoutesError`].
    pub fn parse(json: &str) -> Result<Self, RoutesError> {
        let RawRoutes(pairs) =
            serde_json::from_str(json).map_err(|error| RoutesError::NotAnObject(error.to_string()))?;
        // A target is the URL or the name of a queue.
        let mut targets = Vec::with_capacity(pairs.len());
        for (route, value) in pairs {
            targets.extend(parse_targets(&route, value)?.into_iter().map(|target| (route.clone(), target)));
        }
        let mut catch_alls = targets.iter().filter(|(route, _)| route == CATCH_ALL);
        let (_, catch_all) = catch_alls.next().ok_or(RoutesError::NoCatchAll)?;
        if catch_alls.next().is_some() {
            return Err(RoutesError::SeveralCatchAlls);
        }
        if is_queue_name(catch_all) {
            return Err(RoutesError::CatchAllIsName);
        }
        let (url_prefix, _) = split_url(catch_all).ok_or_else(|| RoutesError::InvalidQueue(CATCH_ALL.to_owned()))?;

        let mut routes = Self { queues: Vec::new(), catch_all: [0], by_field: HashMap::new() };
        for (route, target) in &targets {
            let url = if is_queue_name(target) { format!("{url_prefix}{target}") } else { target.clone() };
            let queue_index = routes.find_or_add_queue(url).ok_or_else(|| RoutesError::InvalidQueue(route.clone()))?;
            if route == CATCH_ALL {
                routes.catch_all = [queue_index];
            } else {
                routes.add_to_route(route, queue_index)?;
            }
        }
        Ok(routes)
    }

    /// Returns the index of the queue with this URL, and adds the queue if it is new. `None` if it is not the URL of a queue.
    fn find_or_add_queue(&mut self, url: String) -> Option<usize> {
        if let Some(index) = self.queues.iter().position(|queue| queue.url == url) {
            return Some(index);
        }
        let (_, name) = split_url(&url)?;
        let (name, fifo) = (name.to_owned(), name.ends_with(FIFO_SUFFIX));
        self.queues.push(Queue { url, name, fifo });
        Some(self.queues.len() - 1)
    }

    /// Adds a queue to a route.
    fn add_to_route(&mut self, name: &str, queue_index: usize) -> Result<(), RoutesError> {
        let Selector { field, kind, id } =
            Selector::parse(name).ok_or_else(|| RoutesError::InvalidRoute(name.to_owned()))?;
        let field_routes = self.by_field.entry(field.to_owned()).or_default();
        let id_routes = id.map_or(&mut field_routes.any_id, |id| field_routes.by_id.entry(id.to_owned()).or_default());
        let slot = kind.map_or(&mut id_routes.any_kind, |kind| &mut id_routes.by_kind[kind as usize]);
        let route = slot.get_or_insert_with(|| Route { name: name.to_owned(), queue_indices: Vec::new() });
        // The attribute `diverted_from` has only the name of a queue, so the names within a route must differ.
        let queue_name = &self.queues[queue_index].name;
        if route.queue_indices.iter().any(|index| self.queues[*index].name == *queue_name) {
            return Err(RoutesError::DuplicateQueue { route: name.to_owned(), queue: queue_name.clone() });
        }
        route.queue_indices.push(queue_index);
        Ok(())
    }

    /// The queues of all routes, without duplicates.
    #[must_use]
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// The index of the catch-all queue in [`Self::queues`].
    #[must_use]
    pub fn catch_all_index(&self) -> usize {
        self.catch_all[0]
    }

    /// The catch-all queue.
    #[must_use]
    pub fn catch_all(&self) -> &Queue {
        &self.queues[self.catch_all_index()]
    }

    /// All routes, each with its queues. The first one is the catch-all route, and the others have no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = &Queue>)> {
        let id_routes =
            self.by_field.values().flat_map(|field| [&field.any_id].into_iter().chain(field.by_id.values()));
        let routes = id_routes.flat_map(|routes| routes.any_kind.iter().chain(routes.by_kind.iter().flatten()));
        let routes = routes.map(|route| (route.name.as_str(), route.queue_indices.as_slice()));
        let all = [(CATCH_ALL, self.catch_all.as_slice())].into_iter().chain(routes);
        all.map(|(route, indices)| (route, self.queues_at(indices)))
    }

    /// The ids to which routes of a field are narrowed, in no particular order.
    pub fn ids_of(&self, field: &str) -> impl Iterator<Item = &str> {
        self.by_field.get(field).into_iter().flat_map(|routes| routes.by_id.keys().map(String::as_str))
    }

    /// The queues with these indices of [`Self::queues`].
    ///
    /// # Panics
    ///
    /// The iterator panics if there is no queue with an index.
    pub fn queues_at(&self, indices: &[usize]) -> impl Iterator<Item = &Queue> {
        indices.iter().map(|index| &self.queues[*index])
    }

    /// Finds the queues of a fragment. A fragment that is not a change, or a change without a usable field, belongs on the
    /// catch-all queue.
    #[must_use]
    pub fn find(&self, fragment: &Fragment<'_>) -> Destination<'_> {
        let Fragment::Change(change) = fragment else { return self.unrouted() };
        let Some(field) = change.field.as_deref() else { return self.unrouted() };
        self.find_by(field, change.kind, || ids(change))
    }

    /// Finds the queues of a change by its field, its kind, and its ids: the phone number id, then the entry id.
    ///
    /// The most specific route counts, in this order:
    ///
    /// 1. a route with a kind and an id
    /// 2. a route with an id
    /// 3. a route with a kind
    /// 4. the route of the field
    ///
    /// If both ids have a route of the same form, the route of the phone number id counts. `ids` is called only if the field has
    /// narrowed routes.
    pub fn find_by<'k>(
        &self,
        field: &str,
        kind: Option<Kind>,
        ids: impl FnOnce() -> [Option<Cow<'k, str>>; 2],
    ) -> Destination<'_> {
        let Some(field_routes) = self.by_field.get(field) else { return self.unrouted() };
        let narrowed_route = || {
            if field_routes.by_id.is_empty() {
                return None;
            }
            let id_routes = ids().map(|id| field_routes.by_id.get(id?.as_ref()));
            let mut with_kind = id_routes.iter().flatten().filter_map(|routes| routes.route_of_kind(kind));
            let mut with_any_kind = id_routes.iter().flatten().filter_map(|routes| routes.any_kind.as_ref());
            with_kind.next().or_else(|| with_any_kind.next())
        };
        let any_id = &field_routes.any_id;
        let route = narrowed_route().or_else(|| any_id.route_of_kind(kind)).or(any_id.any_kind.as_ref());
        route.map_or(self.unrouted(), |route| Destination {
            queue_indices: &route.queue_indices,
            route: Some(&route.name),
        })
    }

    const fn unrouted(&self) -> Destination<'_> {
        Destination { queue_indices: &self.catch_all, route: None }
    }
}

/// The phone number id and the entry id of a change.
fn ids<'c>(change: &'c Change<'_>) -> [Option<Cow<'c, str>>; 2] {
    [change.phone_number_id.as_deref().map(Cow::Borrowed), change.entry_id()]
}

/// The parts of a route.
struct Selector<'r> {
    field: &'r str,
    kind: Option<Kind>,
    id: Option<&'r str>,
}

impl<'r> Selector<'r> {
    /// Splits a route into its parts. `None` if no change can match it.
    fn parse(route: &'r str) -> Option<Self> {
        let (route, id) = route.split_once('@').map_or((route, None), |(route, id)| (route, Some(id)));
        let (field, kind) = match route.split_once('.') {
            Some((field, kind)) => (field, Some(Kind::ALL.into_iter().find(|known| known.name() == kind)?)),
            None => (route, None),
        };
        // Meta's ids are numbers. A display phone number or a kind after the id must not count as an id.
        let is_id = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        let is_valid = !field.is_empty() && field != CATCH_ALL && id.is_none_or(is_id);
        is_valid.then_some(Self { field, kind, id })
    }
}

/// Splits the URL of a queue after its last slash, into prefix and name. `None` if it is not the URL of a queue.
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
        && name.len() <= MAX_QUEUE_NAME_BYTES
        && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Parses the value of a route, a string or a list of strings, to URLs and names of queues.
fn parse_targets(route: &str, value: &RawValue) -> Result<Vec<String>, RoutesError> {
    let string = serde_json::from_str(value.get()).map(|target| vec![target]);
    match string.or_else(|_| serde_json::from_str::<Vec<String>>(value.get())) {
        Ok(targets) if targets.is_empty() => Err(RoutesError::NoQueue(route.to_owned())),
        Ok(targets) => Ok(targets),
        Err(_) => Err(RoutesError::InvalidQueue(route.to_owned())),
    }
}

/// The members of a JSON object, including duplicates. A map would have only one of the values of a duplicate.
struct RawRoutes<'j>(Vec<(String, &'j RawValue)>);

impl<'de: 'j, 'j> Deserialize<'de> for RawRoutes<'j> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = members.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }

        json.deserialize_map(Members).map(RawRoutes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CATCH_ALL_URL: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/in-unrouted";

    fn routes(others: &str) -> Result<Routes, RoutesError> {
        Routes::parse(&format!(r#"{{"*":"{CATCH_ALL_URL}"{others}}}"#))
    }

    fn names(routes: &Routes, destination: Destination<'_>) -> Vec<String> {
        destination.queue_indices.iter().map(|queue| routes.queues()[*queue].name.clone()).collect()
    }

    /// The names of the queues and the route of a change. The ids are the phone number id and the entry id.
    fn found<'r>(
        routes: &'r Routes,
        field: &str,
        kind: Option<Kind>,
        ids: [Option<&str>; 2],
    ) -> (Vec<String>, Option<&'r str>) {
        let destination = routes.find_by(field, kind, || ids.map(|id| id.map(Cow::Borrowed)));
        (names(routes, destination), destination.route)
    }

    fn route_of<'r>(routes: &'r Routes, field: &str, kind: Option<Kind>, ids: [Option<&str>; 2]) -> Option<&'r str> {
        found(routes, field, kind, ids).1
    }

    const NO_IDS: [Option<&str>; 2] = [None, None];

    #[test]
    fn most_specific_route_wins() {
        let routes = routes(
            r#","messages":"a","messages.statuses":"b","messages@10":"c","messages@20":"d","messages.statuses@10":"e",
            "messages.statuses@20":"f","calls@10":"g""#,
        )
        .unwrap();
        let (messages, statuses) = (Some(Kind::Messages), Some(Kind::Statuses));
        for (kind, phone_number_id, entry_id, expected) in [
            (statuses, Some("10"), Some("20"), "messages.statuses@10"),
            (statuses, Some("20"), Some("10"), "messages.statuses@20"),
            (statuses, Some("11"), Some("20"), "messages.statuses@20"),
            (statuses, None, Some("10"), "messages.statuses@10"),
            (statuses, Some("11"), Some("21"), "messages.statuses"),
            (messages, Some("10"), Some("20"), "messages@10"),
            (messages, Some("20"), Some("10"), "messages@20"),
            (messages, None, Some("20"), "messages@20"),
            (messages, Some("11"), None, "messages"),
            (Some(Kind::Errors), Some("10"), None, "messages@10"),
            (None, Some("10"), None, "messages@10"),
            (None, None, None, "messages"),
        ] {
            let ids = [phone_number_id, entry_id];
            assert_eq!(route_of(&routes, "messages", kind, ids), Some(expected), "{kind:?} {ids:?}");
        }
        assert_eq!(route_of(&routes, "calls", None, [Some("10"), None]), Some("calls@10"));
        assert_eq!(route_of(&routes, "calls", None, [Some("20"), None]), None);
        assert_eq!(route_of(&routes, "security", None, [Some("10"), None]), None);
    }

    #[test]
    fn kind_and_entry_id_win_over_a_phone_number_id() {
        let routes = routes(r#","messages@10":"a","messages.statuses@20":"b""#).unwrap();
        let ids = [Some("10"), Some("20")];
        assert_eq!(route_of(&routes, "messages", Some(Kind::Statuses), ids), Some("messages.statuses@20"));
        assert_eq!(route_of(&routes, "messages", Some(Kind::Messages), ids), Some("messages@10"));
    }

    #[test]
    fn ids_are_read_for_narrowed_routes_only() {
        let routes = routes(r#","messages":"a","calls@10":"b""#).unwrap();
        let destination = routes.find_by("messages", Some(Kind::Messages), || panic!("not needed"));
        assert_eq!(destination.route, Some("messages"));
        assert_eq!(routes.find_by("new", None, || panic!("not needed")).route, None);
    }

    #[test]
    fn queues_are_found_by_ids_of_the_change() {
        let routes = routes(r#","messages":"a","messages@10":"b","messages.statuses@20":"c""#).unwrap();
        let found = |entry_id: &str, value: &str| {
            let body =
                format!(r#"{{"entry":[{{"id":{entry_id},"changes":[{{"field":"messages","value":{value}}}]}}]}}"#);
            names(&routes, routes.find(&crate::notification::split(body.as_bytes())[0])).concat()
        };
        assert_eq!(found(r#""1""#, r#"{"metadata":{"phone_number_id":"10"},"messages":[{}]}"#), "b");
        assert_eq!(found(r#""1""#, r#"{"metadata":{"phone_number_id":10},"messages":[{}]}"#), "b");
        assert_eq!(found(r#""1""#, r#"{"metadata":{"phone_number_id":"11"},"messages":[{}]}"#), "a");
        assert_eq!(found(r#""10""#, "{}"), "b");
        assert_eq!(found(r#""\u0031\u0030""#, "{}"), "b");
        assert_eq!(found("20", r#"{"statuses":[{}]}"#), "c");
        assert_eq!(found(r#"" 10""#, "{}"), "a");
        assert_eq!(found("null", "null"), "a");
        for body in ["{}", "no JSON", r#"{"entry":[{"id":"10","changes":[{"value":{}}]}]}"#] {
            let fragments = crate::notification::split(body.as_bytes());
            assert_eq!(names(&routes, routes.find(&fragments[0])), ["in-unrouted"], "{body}");
        }
    }

    #[test]
    fn field_with_route_syntax_matches_no_route() {
        let routes =
            routes(r#","messages":"a","messages.statuses":"b","messages@10":"c","messages.statuses@10":"d""#).unwrap();
        let ids = [Some("10"), Some("10")];
        let fields = ["*", "messages.statuses", "messages.", "messages@10", "messages@", "Messages", " messages", ""];
        for field in fields {
            for kind in [None, Some(Kind::Statuses)] {
                assert_eq!(found(&routes, field, kind, ids), (vec!["in-unrouted".to_owned()], None), "{field}");
            }
        }
    }

    #[test]
    fn list_and_duplicate_route_have_all_queues() {
        let routes = routes(
            r#","a":["x","y.fifo"],"b":"x","b":"z","c":["x"],"c":["y.fifo","z"],"d":["x"],"\u0062":"in-unrouted",
            "a@1":["y.fifo","z"],"a@1":"x""#,
        )
        .unwrap();
        let queues = |field, id| found(&routes, field, None, [id, None]).0.join(" ");
        assert_eq!(queues("a", None), "x y.fifo");
        assert_eq!(queues("b", None), "x z in-unrouted");
        assert_eq!(queues("c", None), "x y.fifo z");
        assert_eq!(queues("d", None), "x");
        assert_eq!(queues("a", Some("1")), "y.fifo z x");
        assert_eq!(queues("new", None), "in-unrouted");
        assert_eq!(routes.queues().len(), 4);
    }

    #[test]
    fn all_routes_are_listed_with_their_queues() {
        let routes = routes(r#","a":["x","y"],"a.errors":"z","a@1":"x","a.errors@1":"y","b":"in-unrouted""#).unwrap();
        let mut listed: Vec<_> = routes
            .iter()
            .map(|(route, queues)| (route.to_owned(), queues.map(|queue| queue.name.as_str()).collect::<Vec<_>>()))
            .collect();
        listed.sort();
        let expected: [(&str, &[&str]); 6] = [
            ("*", &["in-unrouted"]),
            ("a", &["x", "y"]),
            ("a.errors", &["z"]),
            ("a.errors@1", &["y"]),
            ("a@1", &["x"]),
            ("b", &["in-unrouted"]),
        ];
        assert_eq!(listed, expected.map(|(route, queues)| (route.to_owned(), queues.to_vec())));
        assert_eq!(routes.ids_of("a").collect::<Vec<_>>(), ["1"]);
        assert_eq!(routes.ids_of("b").chain(routes.ids_of("c")).count(), 0);
    }

    #[test]
    fn queue_name_gets_url_prefix_of_catch_all() {
        let routes = routes(r#","a":"x","b":["y.fifo","http://127.0.0.1:4566/000000000000/z"]"#).unwrap();
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
    fn several_routes_can_have_the_same_queue() {
        let routes = routes(&format!(r#","a":"x","b":["x","y"],"c":["x","{CATCH_ALL_URL}"]"#)).unwrap();
        assert_eq!(routes.queues().len(), 3);
        let found = |field| found(&routes, field, None, NO_IDS);
        assert_eq!(found("c"), (vec!["x".to_owned(), "in-unrouted".to_owned()], Some("c")));
        assert_eq!(found("a").0, ["x"]);
        assert_eq!(found("b").0, ["x", "y"]);
    }

    #[test]
    fn catch_all_may_be_a_string_or_a_list() {
        for star in [format!(r#""{CATCH_ALL_URL}""#), format!(r#"["{CATCH_ALL_URL}"]"#)] {
            let routes = Routes::parse(&format!(r#"{{"a":"x","*":{star},"b":"y"}}"#)).unwrap();
            assert_eq!(routes.catch_all().url, CATCH_ALL_URL);
            assert_eq!(route_of(&routes, "security", None, NO_IDS), None);
        }
    }

    #[test]
    fn error_names_the_invalid_route() {
        let error = |others: &str| routes(others).unwrap_err();
        for route in [
            "",
            "messages.status",
            "messages.statuses.x",
            ".statuses",
            "*.statuses",
            "*@10",
            "*.statuses@10",
            "@10",
            ".statuses@10",
            "messages@",
            "messages.statuses@",
            "messages.@10",
            "messages.status@10",
            "messages@10.statuses",
            "messages@10@11",
            "messages@@10",
            "messages@x",
            "messages@+12025550134",
            "messages@ 10",
            "messages@10,11",
            "messages@\u{661}",
        ] {
            for target in [r#""x""#, r#"["x","y"]"#] {
                let found = error(&format!(r#","{route}":{target}"#));
                assert_eq!(found, RoutesError::InvalidRoute(route.into()));
                assert!(found.to_string().contains(&format!("`{route}`")));
            }
        }
    }

    #[test]
    fn error_names_the_route_of_an_invalid_queue() {
        let error = |others: &str| routes(others).unwrap_err();
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
            for targets in [format!(r#""{target}""#), format!(r#"["x","{target}"]"#)] {
                let expected = RoutesError::InvalidQueue("a@1".into());
                assert_eq!(error(&format!(r#","a@1":{targets}"#)), expected, "{targets}");
            }
        }
        for value in ["5", "null", "true", "{}", r#"["x",["y"]]"#, r#"[["x"]]"#, r#"["x",null]"#, r#"{"x":"y"}"#] {
            assert_eq!(error(&format!(r#","a":{value}"#)), RoutesError::InvalidQueue("a".into()), "{value}");
        }
        for others in [r#","a":[]"#, r#","a":"x","a":[]"#] {
            assert_eq!(error(others), RoutesError::NoQueue("a".into()));
        }
    }

    #[test]
    fn duplicate_queue_of_a_route_is_rejected() {
        for others in [
            r#","a":["x","x"]"#,
            r#","a":"x","a":"x""#,
            r#","a":["y","x"],"a":["z","x"]"#,
            r#","a":["x","https://sqs.eu-west-1.amazonaws.com/123456789012/x"]"#,
            // `diverted_from` could not tell them apart.
            r#","a":["x","https://sqs.us-east-1.amazonaws.com/123456789012/x"]"#,
            r#","a":["x","https://SQS.eu-west-1.amazonaws.com/123456789012/x"]"#,
        ] {
            let error = routes(others).unwrap_err();
            assert_eq!(error, RoutesError::DuplicateQueue { route: "a".into(), queue: "x".into() }, "{others}");
            assert!(error.to_string().contains("`a`"));
        }
        let others = format!(r#","a@1":["in-unrouted","{CATCH_ALL_URL}"]"#);
        let expected = RoutesError::DuplicateQueue { route: "a@1".into(), queue: "in-unrouted".into() };
        assert_eq!(routes(&others), Err(expected));
        assert!(routes(r#","a":["x","x.fifo","X"],"b":"x""#).is_ok());
    }

    #[test]
    fn catch_all_must_be_one_url() {
        assert_eq!(Routes::parse("{}"), Err(RoutesError::NoCatchAll));
        assert_eq!(Routes::parse(r#"{"*":"bare-name"}"#), Err(RoutesError::CatchAllIsName));
        assert_eq!(Routes::parse(r#"{"*":"no name"}"#), Err(RoutesError::InvalidQueue("*".into())));
        assert_eq!(Routes::parse(r#"{"*":5}"#), Err(RoutesError::InvalidQueue("*".into())));
        assert_eq!(Routes::parse(r#"{"*":[]}"#), Err(RoutesError::NoQueue("*".into())));
        assert_eq!(routes(r#","*":"x""#), Err(RoutesError::SeveralCatchAlls));
        assert_eq!(routes(&format!(r#","*":"{CATCH_ALL_URL}""#)), Err(RoutesError::SeveralCatchAlls));
        let json = format!(r#"{{"*":["{CATCH_ALL_URL}","x"]}}"#);
        assert_eq!(Routes::parse(&json), Err(RoutesError::SeveralCatchAlls));
        assert!(RoutesError::SeveralCatchAlls.to_string().contains("`*`"));
    }

    #[test]
    fn text_that_is_not_a_json_object_is_rejected() {
        for json in ["", "[]", "5", r#"{"*":"x"} x"#, r#"{"*":"x","*"}"#, r#"{"*":x}"#] {
            assert!(matches!(Routes::parse(json), Err(RoutesError::NotAnObject(_))), "{json}");
        }
        assert!(Routes::parse("[]").unwrap_err().to_string().contains("an object"));
    }
}
