//! Selects notifications by the time of receipt and by their changes.

use serde::Serialize;
use whatsapp_webhook::{
    archive::ArchiveHeader,
    message::event_id,
    notification::{Fragment, split},
    routes::{CATCH_ALL, Routes},
};

use super::{error::ArchiveError, person::Person, time::Time};

/// A key of this time serves to spell a request id as keys do.
const ANY_TIME: &str = "2000-01-01T00:00:00.000Z";

/// Which notifications of the archive a command uses.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// The earliest time of receipt.
    pub from: Option<Time>,
    /// The time of receipt that is too late.
    pub to: Option<Time>,
    /// API Gateway's id of the request.
    pub request_id: Option<String>,
    /// The route of a change, by the current routes.
    pub route: Option<String>,
    /// A person in a change.
    pub person: Option<Person>,
    /// The event id of a change.
    pub event_id: Option<String>,
    /// The maximum number of notifications.
    pub limit: Option<usize>,
}

/// The form of a selection that identifies it in the next run.
#[derive(Debug, Serialize)]
pub(crate) struct SelectionId<'s> {
    from: Option<&'s str>,
    to: Option<&'s str>,
    request_id: Option<&'s str>,
    route: Option<&'s str>,
    person: Vec<&'s str>,
    event_id: Option<&'s str>,
    limit: Option<usize>,
}

impl Selection {
    /// Returns the same selection if it has a route that exists, and a time that is not empty.
    pub fn validate(self, routes: &Routes) -> Result<Self, ArchiveError> {
        if let (Some(from), Some(to)) = (&self.from, &self.to)
            && from >= to
        {
            return Err(ArchiveError::EmptyTime { from: from.clone(), to: to.clone() });
        }
        let missing = self.route.iter().find(|route| routes.iter().all(|(name, _)| name != route.as_str()));
        match missing {
            Some(route) => Err(ArchiveError::UnknownRoute(route.clone())),
            None => Ok(self),
        }
    }

    pub(crate) fn id(&self) -> SelectionId<'_> {
        SelectionId {
            from: self.from.as_ref().map(Time::as_str),
            to: self.to.as_ref().map(Time::as_str),
            request_id: self.request_id.as_deref(),
            route: self.route.as_deref(),
            person: self.person.iter().flat_map(Person::ids).collect(),
            event_id: self.event_id.as_deref(),
            limit: self.limit,
        }
    }

    /// Returns a text that sorts immediately before all keys from `from` on.
    pub(crate) fn start_after(&self) -> Option<String> {
        // S3 lists only keys after this text. No key equals it, because a key also has `-` and a request id.
        self.from.as_ref().and_then(key_start)
    }

    /// Whether this key and all after it are too late.
    pub(crate) fn is_after_end(&self, key: &str) -> bool {
        self.to.as_ref().and_then(key_start).is_some_and(|end| key >= end.as_str())
    }

    /// Whether a key can be that of the selected request.
    pub(crate) fn matches_key(&self, key: &str) -> bool {
        self.request_id.as_ref().is_none_or(|id| {
            let other = key_of(ANY_TIME, id).unwrap_or_default();
            request_id_in(key).is_some_and(|found| Some(found) == request_id_in(&other))
        })
    }

    /// Whether a notification is selected by its changes alone.
    pub(crate) fn has_filter(&self) -> bool {
        self.route.is_some() || self.person.is_some() || self.event_id.is_some()
    }

    /// Returns the selected fragments of a body.
    pub(crate) fn fragments<'b>(&self, body: &'b [u8], routes: &Routes) -> Vec<Fragment<'b>> {
        split(body).into_iter().filter(|fragment| self.matches(fragment, routes)).collect()
    }

    fn matches(&self, fragment: &Fragment<'_>, routes: &Routes) -> bool {
        let has_route = |route: &String| routes.find(fragment).route.unwrap_or(CATCH_ALL) == route;
        self.route.as_ref().is_none_or(has_route)
            && self.event_id.as_ref().is_none_or(|id| event_id(fragment) == *id)
            && self.person.as_ref().is_none_or(|person| person.is_in(fragment))
    }
}

fn key_of(received: &str, request_id: &str) -> Option<String> {
    let header = ArchiveHeader {
        received: received.to_owned(),
        request_id: request_id.to_owned(),
        trace: None,
        signature: String::new(),
        rewritten: None,
    };
    header.key().ok()
}

/// Returns the key of this time, without a request id and the `-` before it.
fn key_start(time: &Time) -> Option<String> {
    Some(key_of(time.as_str(), "")?.trim_end_matches('-').to_owned())
}

/// Returns the request id as a key spells it.
fn request_id_in(key: &str) -> Option<&str> {
    let (_, name) = key.rsplit_once('/')?;
    name.split_once('-').map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "archive/2026/01/02/03/20260102T030405.678Z-JKJaXmPLvHcESHA=";

    fn between(from: &str, to: &str) -> Selection {
        Selection { from: from.parse().ok(), to: to.parse().ok(), ..Selection::default() }
    }

    fn is_in(selection: &Selection, key: &str) -> bool {
        selection.start_after().is_none_or(|start| *key > *start) && !selection.is_after_end(key)
    }

    #[test]
    fn end_is_excluded_and_start_included() {
        for (from, to, expected) in [
            ("", "", true),
            ("2026-01-02T03:04:05.678", "", true),
            ("2026-01-02T03:04:05.679", "", false),
            ("2026-01-02", "2026-01-03", true),
            ("2026-01-02T03", "2026-01-02T04", true),
            ("2026-01-02T04", "2026-01-02T05", false),
            ("", "2026-01-02T03:04:05.678", false),
            ("", "2026-01-02T03:04:05.679", true),
            ("2025-12-31", "2026-01-02", false),
        ] {
            assert_eq!(is_in(&between(from, to), KEY), expected, "{from} {to}");
        }
    }

    #[test]
    fn empty_time_is_an_error() {
        let routes = Routes::parse(r#"{"*":"https://sqs.x/1/in-unrouted"}"#).unwrap();
        for (from, to, expected) in [
            ("2026-01-02", "2026-01-02T00:00:00.001Z", true),
            ("2026-01-02", "2026-01-02", false),
            ("2026-02-01", "2026-01-01", false),
            ("2026-02-01", "", true),
            ("", "2026-01-01", true),
        ] {
            assert_eq!(between(from, to).validate(&routes).is_ok(), expected, "{from} {to}");
        }
    }

    #[test]
    fn request_id_is_the_end_of_the_key() {
        let of = |id: &str| Selection { request_id: Some(id.to_owned()), ..Selection::default() };
        assert!(of("JKJaXmPLvHcESHA=").matches_key(KEY));
        assert!(of("a/b-c").matches_key("archive/2026/01/02/03/20260102T030405.678Z-a_b-c"));
        assert!(!of("ESHA=").matches_key(KEY));
        assert!(!of("").matches_key(KEY));
    }

    #[test]
    fn all_filters_must_match_the_same_change() {
        let routes =
            Routes::parse(r#"{"*":"https://sqs.x/1/in-unrouted","messages":"a","messages.statuses":"b"}"#).unwrap();
        let body = br#"{"entry":[{"id":"1","changes":[
            {"field":"messages","value":{"messages":[{"from":"15550100123"}]}},
            {"field":"messages","value":{"statuses":[{"recipient_id":"15550100123"}]}},
            {"field":"messages","value":{"statuses":[{"recipient_id":"15550100124"}]}},
            {"field":"flows","value":{}}]}]}"#;
        let count = |selection: &Selection| selection.fragments(body, &routes).len();
        let route = |route: &str| Selection { route: Some(route.to_owned()), ..Selection::default() };
        assert_eq!(count(&Selection::default()), 4);
        assert_eq!([count(&route("messages")), count(&route("messages.statuses")), count(&route("*"))], [1, 2, 1]);
        let person = "+1 555 010 0123".parse().ok().into_iter().collect();
        let both = Selection { person: Some(person), ..route("messages.statuses") };
        let [found] = both.fragments(body, &routes).try_into().unwrap();
        let id = event_id(&found);
        assert_eq!(count(&Selection { event_id: Some(id.clone()), ..both.clone() }), 1);
        assert_eq!(count(&Selection { event_id: Some(id), ..route("messages") }), 0);
        assert!(route("flows").validate(&routes).is_err() && both.validate(&routes).is_ok());
    }
}
