//! Selects messages by their field, and determines the queues of each.

use std::{borrow::Cow, str::FromStr};

use aws_sdk_sqs::types::Message;
use thiserror::Error;
use whatsapp_webhook::{
    notification::Kind,
    routes::{Destination, Queue as RouteQueue, Routes},
};

use super::{queue::queue_name, resend::attribute};

/// The values of `unrouted_reason` of messages that may have a route now.
const REROUTABLE_REASONS: [&str; 2] = ["no-route", "queue-unavailable"];

/// A field, or one kind of a field such as `messages.statuses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    name: String,
    kind: Option<Kind>,
}

/// A text that is neither a field nor a kind of a field.
#[derive(Debug, Error)]
pub enum FieldError {
    /// The text has no field.
    #[error("the field is empty: name one, such as messages, or one kind of it, such as messages.statuses")]
    Empty,
    /// The part after the dot is not a kind. No field of Meta contains a dot.
    #[error("{0} is not a kind: the kinds of a field are {kinds}", kinds = Kind::ALL.map(Kind::name).join(", "))]
    UnknownKind(String),
}

/// Selects the messages of a queue to move, and the queues of each.
#[derive(Debug)]
pub(crate) enum Selection {
    /// The messages of a dead-letter queue whose attributes match. Without a kind, also messages without the attributes.
    DeadLetters { field: Field, to: String },
    /// The messages of the queue `from` that belong on other queues by their route.
    ByRoute {
        field: Field,
        routes: Routes,
        from: String,
        /// The name of the only queue to move to. `None` means all queues of a message's route.
        to: Option<String>,
        /// Requires a reason of [`REROUTABLE_REASONS`].
        requires_reroutable_reason: bool,
    },
}

impl Selection {
    /// Returns the URLs of the queues to move a message to: none if the message is not selected.
    pub(crate) fn targets_of(&self, message: &Message) -> Vec<&str> {
        let (name, kind) = (attribute(message, "field"), attribute(message, "kind"));
        match self {
            // A message without the attribute, such as one that an operator sent, belongs to this queue.
            Self::DeadLetters { field: Field { kind: None, .. }, to } if name.is_none() => vec![to],
            Self::DeadLetters { field, to } if field.matches(name, kind) => vec![to],
            Self::ByRoute { field, routes, requires_reroutable_reason, .. } if field.matches(name, kind) => {
                let reason = attribute(message, "unrouted_reason");
                if *requires_reroutable_reason && !reason.is_some_and(|reason| REROUTABLE_REASONS.contains(&reason)) {
                    return Vec::new();
                }
                let ids = ["phone_number_id", "entry_id"].map(|name| attribute(message, name));
                let queues = find_queues(routes, &field.name, kind.and_then(find_kind), ids);
                // If the route no longer has the queue of `diverted_from`, the queue was replaced. The message then
                // belongs on all queues of the route.
                let diverted_from = attribute(message, "diverted_from");
                let own = queues.iter().find(|queue| Some(queue.name.as_str()) == diverted_from);
                let queues = own.map_or(queues.as_slice(), std::slice::from_ref).iter();
                queues.map(|queue| queue.url.as_str()).filter(|url| self.is_target(url)).collect()
            }
            Self::DeadLetters { .. } | Self::ByRoute { .. } => Vec::new(),
        }
    }

    /// Returns the URLs of all queues that messages may be moved to.
    pub(crate) fn targets(&self) -> Vec<&str> {
        match self {
            Self::DeadLetters { to, .. } => vec![to],
            Self::ByRoute { field, routes, .. } => {
                field.targets(routes).into_iter().filter(|url| self.is_target(url)).collect()
            }
        }
    }

    fn is_target(&self, url: &str) -> bool {
        match self {
            Self::DeadLetters { to, .. } => to == url,
            Self::ByRoute { from, to, .. } => from != url && to.as_ref().is_none_or(|to| to == queue_name(url)),
        }
    }
}

/// Finds the queues of a change as the function does, but returns none instead of the catch-all queue if no route matches.
fn find_queues<'r>(routes: &'r Routes, field: &str, kind: Option<Kind>, ids: [Option<&str>; 2]) -> Vec<&'r RouteQueue> {
    let Destination { queue_indices, route } = routes.find_by(field, kind, || ids.map(|id| id.map(Cow::Borrowed)));
    route.map_or_else(Vec::new, |_| routes.queues_at(queue_indices).collect())
}

fn find_kind(name: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.name() == name)
}

impl Field {
    pub(crate) fn matches(&self, name: Option<&str>, kind: Option<&str>) -> bool {
        name == Some(&self.name) && self.kind.is_none_or(|expected| kind == Some(expected.name()))
    }

    /// Returns the URLs of the queues of all changes of the field, or of its kind, without duplicates.
    pub(crate) fn targets<'r>(&self, routes: &'r Routes) -> Vec<&'r str> {
        let kinds = match self.kind {
            Some(kind) => vec![Some(kind)],
            None => [None].into_iter().chain(Kind::ALL.map(Some)).collect(),
        };
        let ids: Vec<_> = [None].into_iter().chain(routes.ids_of(&self.name).map(Some)).collect();
        let changes = kinds.into_iter().flat_map(|kind| ids.iter().map(move |id| (kind, *id)));
        let queues = changes.flat_map(|(kind, id)| find_queues(routes, &self.name, kind, [id, None]));
        let mut urls: Vec<_> = queues.map(|queue| queue.url.as_str()).collect();
        urls.sort_unstable();
        urls.dedup();
        urls
    }
}

impl FromStr for Field {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let (name, kind) = match text.split_once('.') {
            Some((name, kind)) => {
                (name, Some(find_kind(kind).ok_or_else(|| FieldError::UnknownKind(kind.to_owned()))?))
            }
            None => (text, None),
        };
        if name.is_empty() { Err(FieldError::Empty) } else { Ok(Self { name: name.to_owned(), kind }) }
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)?;
        self.kind.map_or(Ok(()), |kind| write!(formatter, ".{}", kind.name()))
    }
}
