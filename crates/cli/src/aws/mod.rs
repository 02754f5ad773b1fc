//! Reads a stack, local or deployed.
//!
//! - [`stack_info`] is what the commands need of a stack, and the note that the running local stack leaves.
//! - [`describe`] reads it from AWS, through the AWS [`cli`].
//! - `message_age` reads the age of the oldest message of a queue.

pub mod cli;
pub mod describe;
pub(crate) mod message_age;
pub mod stack_info;
