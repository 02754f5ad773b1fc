//! SQS as far as a sender sees it: `SendMessageBatch` and `SendMessage` in its JSON protocol 1.0.

mod digest;
mod error;
mod limits;
mod queue;
mod send;

pub(crate) use digest::hex;
pub(crate) use error::failure;
pub(crate) use queue::Queues;
pub use queue::{Message, Queue};
pub(crate) use send::Send;
pub use send::{Attribute, Entry};
