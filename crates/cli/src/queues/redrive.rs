//! Prepares moves: dead letters back to their queue, and messages of other queues to the queue of their route.

use std::{collections::BTreeSet, fmt::Display};

use serde::Serialize;
use thiserror::Error;

use super::{
    queue::{Queue, is_fifo, queue_name, sibling_url, sqs_client},
    selection::{Field, Selection},
    transfer::Transfer,
};
use crate::aws::stack_info::{StackInfo, StackInfoError};

/// A move that cannot be prepared.
#[derive(Debug, Error)]
pub enum RedriveError {
    /// No route has the field.
    #[error("{0} has no queue: its messages are on the catch-all queue")]
    NoRoute(Field),
    /// The source is the only queue of the field.
    #[error("{queue} is the only queue of {field}: there is no queue to move its messages to")]
    OnlyQueue {
        /// The name of the queue.
        queue: String,
        /// The field.
        field: Field,
    },
    /// The field has no queue of this name.
    #[error("{queue} is not a queue of {field}: its queues are {queues}")]
    OtherQueue {
        /// The name.
        queue: String,
        /// The field.
        field: Field,
        /// The names of the field's queues.
        queues: String,
    },
    /// The key of a FIFO queue's group ids cannot be read from the secret.
    #[error(transparent)]
    StackInfo(#[from] StackInfoError),
}

/// The moves of one command.
#[derive(Debug, Default)]
pub struct Moves {
    /// The moves that can be made.
    pub transfers: Vec<Transfer>,
    /// The queues without a move, and the reasons.
    pub skipped: Vec<SkippedQueue>,
}

/// A queue that messages cannot be moved to.
#[derive(Debug, Serialize)]
pub struct SkippedQueue {
    /// The queue's name.
    pub queue: String,
    /// The reason.
    pub reason: String,
}

impl SkippedQueue {
    fn new(queue: &Queue, reason: impl Display) -> Self {
        Self { queue: queue.name.clone(), reason: reason.to_string() }
    }
}

/// Prepares to move the dead letters of a field's queues back to these queues.
pub async fn redrive(stack: &StackInfo, field: &Field) -> Result<Moves, RedriveError> {
    let mut moves = Moves::default();
    for url in field.targets(&stack.routes) {
        let queue = Queue::new(&sqs_client(stack), url);
        let dead_letter_queue = match queue.describe().await {
            Ok(description) => description.dead_letter_queue,
            Err(error) => {
                moves.skipped.push(SkippedQueue::new(&queue, error));
                continue;
            }
        };
        let Some(name) = dead_letter_queue else {
            moves.skipped.push(SkippedQueue::new(&queue, "it has no dead-letter queue"));
            continue;
        };
        let selection = Selection::DeadLetters { field: field.clone(), to: url.to_owned() };
        moves.transfers.push(transfer(stack, queue.sibling(&name), selection, BTreeSet::new()).await?);
    }
    let has_route = !moves.transfers.is_empty() || !moves.skipped.is_empty();
    if has_route { Ok(moves) } else { Err(RedriveError::NoRoute(field.clone())) }
}

/// Prepares to move the messages of a field on the catch-all queue to the queues of their routes, and diverted ones to the queue
/// that did not store them.
pub async fn reroute(stack: &StackInfo, field: &Field) -> Result<Moves, RedriveError> {
    move_by_route(stack, field, catch_all_url(stack), None, true).await
}

/// Prepares to move the messages of a field on any other queue of the account, such as a replaced one, to the queue `to` of the
/// field, or to all queues of their routes.
pub async fn drain(stack: &StackInfo, field: &Field, queue: &str, to: Option<&str>) -> Result<Moves, RedriveError> {
    let targets = field.targets(&stack.routes);
    let names: Vec<_> = targets.into_iter().map(queue_name).collect();
    if let Some(to) = to.filter(|to| !names.contains(to)) {
        let (queue, field) = (to.to_owned(), field.clone());
        return Err(RedriveError::OtherQueue { queue, field, queues: names.join(", ") });
    }
    move_by_route(stack, field, &sibling_url(catch_all_url(stack), queue), to, false).await
}

fn catch_all_url(stack: &StackInfo) -> &str {
    &stack.routes.catch_all().url
}

async fn move_by_route(
    stack: &StackInfo,
    field: &Field,
    from: &str,
    to: Option<&str>,
    requires_reroutable_reason: bool,
) -> Result<Moves, RedriveError> {
    let selection = Selection::ByRoute {
        field: field.clone(),
        routes: stack.routes.clone(),
        from: from.to_owned(),
        to: to.map(str::to_owned),
        requires_reroutable_reason,
    };
    let targets = selection.targets();
    if targets.is_empty() {
        let field = field.clone();
        let has_route = !field.targets(&stack.routes).is_empty();
        let queue = queue_name(from).to_owned();
        return Err(if has_route { RedriveError::OnlyQueue { queue, field } } else { RedriveError::NoRoute(field) });
    }
    let client = sqs_client(stack);
    let (mut gone, mut skipped) = (BTreeSet::new(), Vec::new());
    for url in &targets {
        let queue = Queue::new(&client, url);
        if let Err(error) = queue.describe().await
            && error.is_gone()
        {
            gone.insert((*url).to_owned());
            skipped.push(SkippedQueue::new(&queue, error));
        }
    }
    let transfers = if gone.len() == targets.len() {
        Vec::new()
    } else {
        vec![transfer(stack, Queue::new(&client, from), selection, gone).await?]
    };
    Ok(Moves { transfers, skipped })
}

/// Completes a move with the key of the group ids. Reads the secret only if the move needs the key.
async fn transfer(
    stack: &StackInfo,
    source: Queue,
    selection: Selection,
    gone: BTreeSet<String>,
) -> Result<Transfer, RedriveError> {
    let needs_key = !source.is_fifo() && selection.targets().into_iter().any(is_fifo);
    let group_key = if needs_key { stack.clone().with_secret().await?.group_key()? } else { String::new() };
    let source_has_consumers = stack.has_consumers(&source.url);
    Ok(Transfer { source, source_has_consumers, selection, group_key, gone })
}
