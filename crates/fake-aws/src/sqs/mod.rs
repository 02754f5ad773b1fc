//! `SendMessageBatch` and `SendMessage` of SQS in the AWS JSON 1.0 protocol.

mod digest;
mod entry;
mod error;
mod limits;
mod queue;
mod selection;
mod send;

pub use entry::{Attribute, Entry};
pub(crate) use error::error_response;
pub use queue::Message;
pub(crate) use queue::{QueueState, Queues};
pub(crate) use selection::{EntryFault, Selection};
pub(crate) use send::SendCall;
