//! Describes a stack, local or deployed.
//!
//! - [`stack_info`] holds the settings of a stack, and the file that describes the running local stack.
//! - [`describe`] reads them from AWS with the AWS [`cli`].
//! - [`stack_choice`] decides which stack a command uses.
//! - [`resources`] reads the resources of a stack with the properties of its [`template`].
//! - `message_age` reads the age of the oldest message of a queue, and `kms` the states of keys.

pub mod cli;
pub mod describe;
pub(crate) mod kms;
pub(crate) mod message_age;
pub mod resources;
pub mod stack_choice;
pub mod stack_info;
pub mod template;
