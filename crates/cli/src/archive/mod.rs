//! The archive of a stack: each signed notification as the function received it, as one object in S3.
//!
//! - [`bucket`] calls S3, and [`app_secrets`] reads all app secrets that may have signed a notification.
//! - [`notification`] decodes an object and checks its signature.
//! - [`person`] finds a person in a notification, [`time`] reads and prints times, [`selection`] selects notifications.
//! - [`scan`] passes each selected notification to a command.
//! - [`list`], [`replay`] and [`erase`] are the commands. `rewrite` removes a person from the text of a notification, `send`
//!   sends messages to queues, and [`state`] remembers how far a replay got.
//! - [`mod@print`] prints their results, and `printable` makes text from the bucket safe for a terminal.

pub mod app_secrets;
pub mod bucket;
pub mod erase;
pub mod error;
pub mod list;
pub mod notification;
pub mod person;
pub mod print;
mod printable;
pub mod replay;
mod rewrite;
pub mod scan;
pub mod selection;
mod send;
pub mod state;
pub mod time;
