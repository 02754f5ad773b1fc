//! Chooses messages by their field, and the queue that each belongs on.

use std::{collections::BTreeMap, str::FromStr};

use aws_sdk_sqs::types::Message;
use thiserror::Error;
use whatsapp_webhook::notification::Kind;

use super::resend::attribute;

/// The reasons for which the catch-all has what a queue is meant for.
const MISPLACED: [&str; 2] = ["no-route", "queue-unavailable"];

/// What is to be moved: a field, or one kind of it, as in `messages.statuses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    name: String,
    kind: Option<Kind>,
}

/// No field is named.
#[derive(Debug, Error)]
#[error("a field is wanted, such as messages, or a kind of it, such as messages.statuses")]
pub struct FieldError;

/// The messages of a queue that are to be moved, and where to.
#[derive(Debug)]
pub(crate) enum Choice {
    /// Whatever is on a dead-letter queue, but what says that it is another field's.
    DeadLetters { field: Field, to: String },
    /// What the function would now put on another queue; with a reason, where that is asked for.
    Routed { field: Field, routes: BTreeMap<String, String>, from: String, misplaced: bool },
}

impl Choice {
    /// Where a message goes, unless it stays.
    pub(crate) fn target(&self, message: &Message) -> Option<&str> {
        let (name, kind) = (attribute(message, "field"), attribute(message, "kind"));
        match self {
            // Somebody's own, or one that lost its attributes, is this queue's all the same.
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

    /// The URLs of the queues that messages may go to.
    pub(crate) fn targets(&self) -> Vec<&str> {
        match self {
            Self::DeadLetters { to, .. } => vec![to],
            Self::Routed { field, routes, from, .. } => {
                field.targets(routes).into_iter().filter(|url| url != from).collect()
            }
        }
    }
}

/// The queue of a change, as the function looks it up.
fn queue<'r>(routes: &'r BTreeMap<String, String>, field: &str, kind: Option<&str>) -> Option<&'r str> {
    let of_kind = kind.and_then(|kind| routes.get(&format!("{field}.{kind}")));
    of_kind.or_else(|| routes.get(field)).map(String::as_str)
}

impl Field {
    fn is_of(&self, name: Option<&str>, kind: Option<&str>) -> bool {
        name == Some(&self.name) && self.kind.is_none_or(|wanted| kind == Some(wanted.name()))
    }

    /// The queues of the field's routes, or of the one route of its kind, each once.
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
