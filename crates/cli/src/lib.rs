//! The command line for operators and for development: deploys the function locally, sends it samples as Meta does,
//! verifies an endpoint, subscribes an app, and inspects and moves messages.
//!
//! - [`meta`] acts as Meta: reads, signs and delivers samples, and compares the results with the expected ones.
//! - [`http`] builds HTTP clients.
//! - [`endpoint_secrets`] holds the app secret and the verify token of an endpoint.
//! - [`aws`] describes a stack, local or deployed.
//! - [`queues`] counts, receives and moves the messages of a stack.
//! - [`archive`] lists, verifies, replays and erases archived notifications.
//! - [`verify`] checks an endpoint with genuine and forged requests.
//! - [`subscribe`] compares and changes the subscriptions of a Meta app.
//! - [`local`] runs the function on this computer.
//! - [`report`] prints the results as text.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod archive;
pub mod aws;
pub mod endpoint_secrets;
mod error;
pub mod http;
pub mod local;
pub mod meta;
pub mod queues;
pub mod report;
pub mod subscribe;
pub mod verify;
