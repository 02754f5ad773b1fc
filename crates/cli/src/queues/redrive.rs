//! Prepares moves: dead letters back to their queue, and messages of other queues to the queue of their route.

use thiserror::Error;
use whatsapp_webhook::routes::CATCH_ALL;

use super::{
    choice::{Choice, Field},
    error::QueueError,
    queue::{Queue, client, is_fifo, sibling_url},
    transfer::Transfer,
};
use crate::aws::stack_info::{StackInfo, StackInfoError};

/// A move that cannot be prepared.
#[derive(Debug, Error)]
pub enum RedriveError {
    /// No route has the field.
    #[error("{0} has no queue: its messages are on the catch-all queue")]
    NoQueue(Field),
    /// The queue has no dead-letter queue.
    #[error("the queue {0} has no dead-letter queue")]
    NoDeadLetters(String),
    /// The attributes of the queue cannot be read.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The verify token, which is the key of a FIFO queue's group ids, cannot be read.
    #[error(transparent)]
    StackInfo(#[from] StackInfoError),
}

/// Prepares to move the dead letters of a field's queues back to these queues.
pub async fn redrive(stack: &StackInfo, field: &Field) -> Result<Vec<Transfer>, RedriveError> {
    let mut transfers = Vec::new();
    for url in field.targets(&stack.queue_urls) {
        let queue = Queue::new(&client(stack), url);
        let (_, dead) = queue.counts().await?;
        let dead = queue.sibling(&dead.ok_or(RedriveError::NoDeadLetters(queue.name.clone()))?);
        let choice = Choice::DeadLetters { field: field.clone(), to: url.to_owned() };
        transfers.push(transfer(stack, dead, choice)?);
    }
    if transfers.is_empty() { Err(RedriveError::NoQueue(field.clone())) } else { Ok(transfers) }
}

/// Prepares to move the messages of a field on the catch-all queue to the field's queues.
pub fn reroute(stack: &StackInfo, field: &Field) -> Result<Transfer, RedriveError> {
    routed(stack, field, catch_all(stack), true)
}

/// Prepares to move the messages of a field on any other queue of the account, such as a replaced one, to the field's queues.
pub fn drain(stack: &StackInfo, field: &Field, queue: &str) -> Result<Transfer, RedriveError> {
    routed(stack, field, &sibling_url(catch_all(stack), queue), false)
}

fn catch_all(stack: &StackInfo) -> &str {
    stack.queue_urls.get(CATCH_ALL).map_or("", String::as_str)
}

fn routed(stack: &StackInfo, field: &Field, from: &str, misplaced: bool) -> Result<Transfer, RedriveError> {
    let mut routes = stack.queue_urls.clone();
    routes.remove(CATCH_ALL);
    let choice = Choice::Routed { field: field.clone(), routes, from: from.to_owned(), misplaced };
    if choice.targets().is_empty() {
        return Err(RedriveError::NoQueue(field.clone()));
    }
    transfer(stack, Queue::new(&client(stack), from), choice)
}

/// Adds the key of the group ids if the move needs it.
fn transfer(stack: &StackInfo, source: Queue, choice: Choice) -> Result<Transfer, RedriveError> {
    let needs_key = !source.is_fifo() && choice.targets().into_iter().any(is_fifo);
    let group_key = if needs_key { stack.credentials()?.verify_token } else { String::new() };
    Ok(Transfer { source, choice, group_key })
}
