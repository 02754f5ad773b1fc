//! Counts, receives and moves the messages of a stack.
//!
//! - [`stack_queues`] lists the queues that the function writes to, and receives what is on them.
//! - [`backlog`] counts the messages of each queue and its dead-letter queue, with the age of the oldest.
//! - [`redrive`] selects messages and the queues that they belong on; [`transfer`] moves them.
//! - [`catch_all`] finds the messages of one run on the catch-all queue.

pub mod backlog;
pub mod catch_all;
pub mod redrive;
mod resend;
mod source;
pub mod stack_queues;
pub mod transfer;
