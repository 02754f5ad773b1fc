//! SQS as far as a sender sees it: `SendMessageBatch` and `SendMessage` in its JSON protocol 1.0.

mod digest;
mod entry;
mod error;
mod limits;
mod queue;
mod selection;
mod send;

pub use entry::{Attribute, Entry};
pub(crate) use error::failure;
pub use queue::Message;
pub(crate) use queue::{Queues, Stored};
pub(crate) use selection::{Refusal, Selection};
pub(crate) use send::Send;
