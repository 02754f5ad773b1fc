//! Describes a stack, local or deployed.
//!
//! - [`stack_info`] holds the settings of a stack, and the file that describes the running local stack.
//! - [`describe`] reads them from AWS with the AWS [`cli`].
//! - `message_age` reads the age of the oldest message of a queue.

pub mod cli;
pub mod describe;
pub(crate) mod message_age;
pub mod stack_info;
