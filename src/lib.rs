//! Receives the WhatsApp Business webhooks of a Meta app and stores every change on the SQS queues of its route.
//!
//! The steps of a request:
//!
//! 1. [`event`] reads the needed members of the Lambda event. [`handler`] answers the request, and is the only module that
//!    decides about HTTP statuses. [`client_certificate`] reads the name in the caller's certificate if one is required.
//! 2. [`challenge`] answers Meta's verification request, and [`signature`] verifies that Meta sent a notification. Both use
//!    the credentials that [`secrets`] caches.
//! 3. [`notification`] splits the body into fragments: one for each change, and one for each entry or body without a
//!    change.
//! 4. [`routes`] selects the queues of a fragment. [`message`] builds its messages. [`trace`] gives them the tracing header of
//!    the request.
//! 5. [`queue`] sends the messages. [`payload`] stores bodies in S3 that are too large for SQS. [`archive`] stores
//!    the notification as received, if it is on.
//!
//! All steps count [`metrics`], and [`telemetry`] writes the metrics into the log line of the request. [`config`] reads the
//! settings at the start, and [`aws`] configures the clients of AWS. [`drain`] waits until the process may end without loss.
//! The crate [`whatsapp_webhook`] has the modules that need neither network nor clock.
//!
//! [`challenge`]: whatsapp_webhook::challenge
//! [`signature`]: whatsapp_webhook::signature
//! [`notification`]: whatsapp_webhook::notification
//! [`routes`]: whatsapp_webhook::routes
//! [`message`]: whatsapp_webhook::message
//! [`trace`]: whatsapp_webhook::trace
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod archive;
pub mod aws;
pub mod client_certificate;
pub mod config;
pub mod drain;
pub mod event;
pub mod handler;
mod lock;
pub mod metrics;
pub mod payload;
pub mod queue;
pub mod secrets;
pub mod telemetry;
