//! Prepares moves: dead letters back to their queue, and messages of other queues to the queue of their route.

use thiserror::Error;

use super::{
    error::QueueError,
    queue::{Queue, is_fifo, sibling_url, sqs_client},
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
    /// The queue has no dead-letter queue.
    #[error("the queue {0} has no dead-letter queue")]
    NoDeadLetterQueue(String),
    /// The attributes of the queue cannot be read.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The verify token, from which a FIFO queue's group ids are computed, cannot be read.
    #[error(transparent)]
    StackInfo(#[from] StackInfoError),
}

/// Prepares to move the dead letters of a field's queues back to these queues.
pub async fn redrive(stack: &StackInfo, field: &Field) -> Result<Vec<Transfer>, RedriveError> {
    let mut transfers = Vec::new();
    for url in field.targets(&stack.routes) {
        let queue = Queue::new(&sqs_client(stack), url);
        let (_, dead_letter_queue) = queue.counts().await?;
        let name = dead_letter_queue.ok_or(RedriveError::NoDeadLetterQueue(queue.name.clone()))?;
        let selection = Selection::DeadLetters { field: field.clone(), to: url.to_owned() };
        transfers.push(transfer(stack, queue.sibling(&name), selection)?);
    }
    if transfers.is_empty() { Err(RedriveError::NoRoute(field.clone())) } else { Ok(transfers) }
}

/// Prepares to move the messages of a field on the catch-all queue to the queues of their routes, and diverted ones to the queue
/// that did not store them.
pub fn reroute(stack: &StackInfo, field: &Field) -> Result<Transfer, RedriveError> {
    move_by_route(stack, field, catch_all_url(stack), true)
}

/// Prepares to move the messages of a field on any other queue of the account, such as a replaced one, to the field's queues.
pub fn drain(stack: &StackInfo, field: &Field, queue: &str) -> Result<Transfer, RedriveError> {
    move_by_route(stack, field, &sibling_url(catch_all_url(stack), queue), false)
}

fn catch_all_url(stack: &StackInfo) -> &str {
    &stack.routes.catch_all().url
}

fn move_by_route(
    stack: &StackInfo,
    field: &Field,
    from: &str,
    only_reroutable: bool,
) -> Result<Transfer, RedriveError> {
    let routes = stack.routes.clone();
    let selection = Selection::ByRoute { field: field.clone(), routes, from: from.to_owned(), only_reroutable };
    if selection.targets().is_empty() {
        return Err(RedriveError::NoRoute(field.clone()));
    }
    transfer(stack, Queue::new(&sqs_client(stack), from), selection)
}

/// Completes a move with the key of the group ids, if the move needs one.
fn transfer(stack: &StackInfo, source: Queue, selection: Selection) -> Result<Transfer, RedriveError> {
    let needs_key = !source.is_fifo() && selection.targets().into_iter().any(is_fifo);
    let group_key = if needs_key { stack.group_key()? } else { String::new() };
    Ok(Transfer { source, selection, group_key })
}
