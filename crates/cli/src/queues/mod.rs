//! Counts, receives and moves the messages of a stack.
//!
//! - [`queue`] calls SQS for one queue.
//! - [`stack_queues`] lists the queues that the function writes to, and receives their messages.
//! - [`backlog`] counts the messages of each queue and its dead-letter queue, with the age of the oldest.
//! - [`inspect`] counts, deletes and copies the messages of one queue, which [`scan`] receives.
//! - `pass` limits how long a queue is read, and how many messages are hidden meanwhile.
//! - [`redrive`] prepares moves: [`selection`] selects the messages and their queues, [`transfer`] moves them.
//! - [`declared`] compares queues with the template, and creates missing ones again.
//! - [`verify_queue`] finds the messages of one `verify` run on their own queue, and deletes them.

pub mod backlog;
pub mod declared;
pub mod error;
pub mod inspect;
pub mod pass;
pub mod queue;
pub mod redrive;
pub(crate) mod resend;
pub mod scan;
pub mod selection;
pub mod stack_queues;
pub mod transfer;
pub mod verify_queue;
