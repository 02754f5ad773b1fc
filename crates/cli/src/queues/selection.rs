//! Selects messages by their field, and determines the queue of each.

use std::{collections::BTreeMap, str::FromStr};

use aws_sdk_sqs::types::Message;
use thiserror::Error;
use whatsapp_webhook::notification::Kind;

use super::resend::attribute;

/// The values of `unrouted_reason` of messages that may have a route now.
const REROUTABLE_REASONS: [&str; 2] = ["no-route", "queue-unavailable"];

/// A field, or one kind of a field such as `messages.statuses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    name: String,
    kind: Option<Kind>,
}

/// The text is empty.
#[derive(Debug, Error)]
#[error("the field is empty: name one, such as messages, or one kind of it, such as messages.statuses")]
pub struct FieldError;

/// Selects the messages of a queue to move, and the queue of each.
#[derive(Debug)]
pub(crate) enum Selection {
    /// The messages of a dead-letter queue whose attributes match. Without a kind, also messages without the attributes.
    DeadLetters { field: Field, to: String },
    /// The messages of the queue `from` whose route leads to another queue.
    ByRoute {
        field: Field,
        routes: BTreeMap<String, String>,
        from: String,
        /// Requires a reason of [`REROUTABLE_REASONS`].
        only_reroutable: bool,
    },
}

impl Selection {
    /// Returns the URL of the queue to move a message to, or `None` if the message is not selected.
    pub(crate) fn target(&self, message: &Message) -> Option<&str> {
        let (name, kind) = (attribute(message, "field"), attribute(message, "kind"));
        match self {
            // A message without the attribute, such as one that an operator sent, belongs to this queue.
            Self::DeadLetters { field: Field { kind: None, .. }, to } if name.is_none() => Some(to),
            Self::DeadLetters { field, to } => field.matches(name, kind).then_some(to),
            Self::ByRoute { field, routes, from, only_reroutable } => {
                let reason = attribute(message, "unrouted_reason");
                let is_reroutable = reason.is_some_and(|reason| REROUTABLE_REASONS.contains(&reason));
                let is_selected = field.matches(name, kind) && (is_reroutable || !only_reroutable);
                is_selected.then(|| find_queue(routes, name?, kind)).flatten().filter(|url| url != from)
            }
        }
    }

    /// Returns the URLs of all queues that messages may be moved to.
    pub(crate) fn targets(&self) -> Vec<&str> {
        match self {
            Self::DeadLetters { to, .. } => vec![to],
            Self::ByRoute { field, routes, from, .. } => {
                field.targets(routes).into_iter().filter(|url| url != from).collect()
            }
        }
    }
}

/// Finds the queue of a change as the function does: the route of its kind precedes that of its field.
fn find_queue<'r>(routes: &'r BTreeMap<String, String>, field: &str, kind: Option<&str>) -> Option<&'r str> {
    let of_kind = kind.and_then(|kind| routes.get(&format!("{field}.{kind}")));
    of_kind.or_else(|| routes.get(field)).map(String::as_str)
}

impl Field {
    fn matches(&self, name: Option<&str>, kind: Option<&str>) -> bool {
        name == Some(&self.name) && self.kind.is_none_or(|expected| kind == Some(expected.name()))
    }

    /// Returns the URLs of the queues of the field's routes, or of the route of its kind, without duplicates.
    pub(crate) fn targets<'r>(&self, routes: &'r BTreeMap<String, String>) -> Vec<&'r str> {
        let kinds = match self.kind {
            Some(kind) => vec![Some(kind.name())],
            None => [None].into_iter().chain(Kind::ALL.map(|kind| Some(kind.name()))).collect(),
        };
        let mut urls: Vec<_> = kinds.into_iter().filter_map(|kind| find_queue(routes, &self.name, kind)).collect();
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
