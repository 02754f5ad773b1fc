//! Receives the WhatsApp Business webhooks of a Meta app and puts every change on the SQS queue of its field.
//!
//! The life of a request, in order:
//!
//! 1. [`event`] reduces the Lambda event to the members that are needed; [`handler`] answers it. Nothing else knows HTTP.
//! 2. [`challenge`] answers Meta's verification request; [`signature`] proves that Meta sent a notification.
//!    Both work with what [`secrets`] keeps.
//! 3. [`notification`] cuts the body into pieces: a change each, and what is no change.
//! 4. [`routes`] says which queue a piece goes to, [`message`] gives it the form that consumers rely on, with the
//!    [`trace`] that it is part of.
//! 5. [`queue`] stores the messages, and has [`payload`] keep the bodies that are too large for SQS.
//!
//! [`metrics`] are counted on the way, and [`telemetry`] writes them into the one line that is logged of a request.
//! [`config`] and [`aws`] are for the start. The modules for challenge, signature and notification
//! do no I/O and need nothing of the others.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod aws;
pub mod challenge;
pub mod client_certificate;
pub mod config;
pub mod event;
pub mod handler;
pub mod message;
pub mod metrics;
pub mod notification;
pub mod payload;
pub mod queue;
pub mod routes;
pub mod secrets;
pub mod signature;
pub mod sqs_error;
pub mod telemetry;
pub mod trace;
