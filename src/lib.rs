//! Receives the WhatsApp Business webhooks of a Meta app and puts every change on the SQS queue of its field.
//!
//! The life of a request, in order:
//!
//! 1. [`event`] reduces the Lambda event to the members that are needed. [`handler`] answers it, and decides about the HTTP
//!    status. [`client_certificate`] checks the caller's certificate if one is required.
//! 2. [`challenge`] answers Meta's verification request; [`signature`] verifies that Meta sent a notification. Both use the
//!    credentials that [`secrets`] caches.
//! 3. [`notification`] splits the body into fragments: one for each change, and one for each entry or body without a
//!    change.
//! 4. [`routes`] selects the queue of a fragment. [`message`] gives it the form that consumers rely on, with the [`trace`]
//!    header of the request.
//! 5. [`queue`] stores the messages. [`payload`] stores bodies in S3 that are too large for SQS.
//!
//! [`metrics`] are counted on the way, and [`telemetry`] writes them into the log line of the request. [`config`] reads the
//! settings at the start, [`aws`] configures the clients of AWS, and [`drain`] ends the process. The crate
//! [`whatsapp_webhook`] has the parts that need neither network nor clock.
//!
//! [`challenge`]: whatsapp_webhook::challenge
//! [`signature`]: whatsapp_webhook::signature
//! [`notification`]: whatsapp_webhook::notification
//! [`routes`]: whatsapp_webhook::routes
//! [`message`]: whatsapp_webhook::message
//! [`trace`]: whatsapp_webhook::trace
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod aws;
pub mod client_certificate;
pub mod config;
pub mod drain;
pub mod event;
pub mod handler;
pub mod metrics;
pub mod payload;
pub mod queue;
pub mod secrets;
pub mod telemetry;
