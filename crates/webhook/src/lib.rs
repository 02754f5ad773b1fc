//! WhatsApp Business webhooks without any I/O: verification, signatures, notifications, and their messages for SQS.
//!
//! - [`challenge`] answers Meta's verification request.
//! - [`credentials`] parses the verify token and the app secrets.
//! - [`signature`] verifies that Meta sent a notification.
//! - [`notification`] splits a notification into fragments: one for each change, and one for each part without a change.
//! - [`routes`] maps the field and kind of a change to a queue.
//! - [`message`] gives a fragment the form that consumers rely on, with the [`trace`] header of its request.
//! - [`sqs_error`] classifies the error codes of SQS.
//!
//! Nothing here calls a service, reads a clock or needs an asynchronous runtime.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod challenge;
pub mod credentials;
pub mod message;
pub mod notification;
pub mod routes;
pub mod signature;
pub mod sqs_error;
pub mod trace;
