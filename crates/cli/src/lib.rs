//! The command line for operators and for development: deploys the function locally, sends it samples as Meta does,
//! verifies an endpoint, subscribes an app, and inspects and moves messages.
//!
//! - [`meta`] acts as Meta: samples, their signatures, their delivery, and the results that they should have.
//! - [`http`] builds the clients.
//! - [`keys`] holds the secrets of an endpoint.
//! - [`aws`] reads a stack, local or deployed.
//! - [`queues`] counts, receives and moves the messages of a stack.
//! - [`verify`] checks that an endpoint does what Meta relies on.
//! - [`subscribe`] compares and changes the subscriptions of a Meta app.
//! - [`local`] runs the function on this computer.
//! - [`report`] prints the results for people.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod aws;
mod error;
pub mod http;
pub mod keys;
pub mod local;
pub mod meta;
pub mod queues;
pub mod report;
pub mod subscribe;
pub mod verify;
