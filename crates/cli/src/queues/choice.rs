//! Chooses messages by their field, and the queue that each belongs on.

use std::{collections::BTreeMap, str::FromStr};

use aws_sdk_sqs::types::Message;
use thiserror::Error;
use whatsapp_webhook::notification::Kind;

use super::resend::attribute;

/// The values of `unrouted_reason` of messages that have a route, or can get one.
const MISPLACED: [&str; 2] = ["no-route", "queue-unavailable"];

/// The messages to move: a field, or one kind of it, such as `messages.statuses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    name: String,
    kind: Option<Kind>,
}

/// The text names no field.
#[derive(Debug, Error)]
#[error("a field is wanted, such as messages, or a kind of it, such as messages.statuses")]
pub struct FieldError;

/// Selects the messages of a queue to move, and the queue of each.
#[derive(Debug)]
pub(crate) enum Choice {
    /// The messages of a dead-letter queue whose attributes match. Without a kind, also messages without the attributes.
    DeadLetters { field: Field, to: String },
    /// Messages whose route leads to another queue. If `misplaced`, only messages with a reason of [`MISPLACED`].
    Routed { field: Field, routes: BTreeMap<String, String>, from: String, misplaced: bool },
}

impl Choice {
    /// The URL of the queue that a message belongs on, unless it stays.
    pub(crate) fn target(&self, message: &Message) -> Option<&str> {
        let (name, kind) = (attribute(message, "field"), attribute(message, "kind"));
        match self {
            // A message without the attribute, such as one that an operator sent, belongs to this queue.
            Self::DeadLetters { field: Field { kind: None, .. }, to } if name.is_none() => Some(to),
            Self::DeadLetters { field, to } => field.is_of(name, kind).then_some(to),
            Self::Routed { field, routes, from, misplaced } => {
                let reason = attribute(message, "unrouted_reason");
                let chosen = !misplaced || reason.is_some_and(|reason| MISPLACED.contains(&reason));
                let route = chosen && field.is_of(name, kind);
                route.then(|| queue(routes, name?, kind)).flatten().filter(|url| url != from)
            }
        }
    }

    /// The URLs of all queues that messages can belong on.
    pub(crate) fn targets(&self) -> Vec<&str> {
        match self {
            Self::DeadLetters { to, .. } => vec![to],
            Self::Routed { field, routes, from, .. } => {
                field.targets(routes).into_iter().filter(|url| url != from).collect()
            }
        }
    }
}

/// The queue of a change, by the function's rules.
fn queue<'r>(routes: &'r BTreeMap<String, String>, field: &str, kind: Option<&str>) -> Option<&'r str> {
    let of_kind = kind.and_then(|kind| routes.get(&format!("{field}.{kind}")));
    of_kind.or_else(|| routes.get(field)).map(String::as_str)
}

impl Field {
    fn is_of(&self, name: Option<&str>, kind: Option<&str>) -> bool {
        name == Some(&self.name) && self.kind.is_none_or(|wanted| kind == Some(wanted.name()))
    }

    /// The queues of the field's routes, or of the route of its kind, each once.
    pub(crate) fn targets<'r>(&self, routes: &'r BTreeMap<String, String>) -> Vec<&'r str> {
        let kinds = match self.kind {
            Some(kind) => vec![Some(kind.name())],
            None => [None].into_iter().chain(Kind::ALL.map(|kind| Some(kind.name()))).collect(),
        };
        let mut urls: Vec<_> = kinds.into_iter().filter_map(|kind| queue(routes, &self.name, kind)).collect();
        urls.sort_unstable();
        urls.dedup();
        urls
    }
}

impl FromStr for Field {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        if text.is_empty() {
            return Err(FieldError);
        }
        let split = text.rsplit_once('.').and_then(|(name, kind)| {
            let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
            Some(Self { name: name.to_owned(), kind: Some(kind) })
        });
        Ok(split.unwrap_or_else(|| Self { name: text.to_owned(), kind: None }))
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)?;
        self.kind.map_or(Ok(()), |kind| write!(formatter, ".{}", kind.name()))
    }
}
