//! WhatsApp Business webhooks without any I/O: verification, signatures, notifications, and their messages for SQS.
//!
//! - [`challenge`] answers Meta's verification request.
//! - [`credentials`] parses the function's secret, with the verify token and the app secrets.
//! - [`signature`] verifies that Meta sent a notification.
//! - [`notification`] splits a notification into fragments: one for each change, and one for each entry or body without a
//!   change.
//! - [`routes`] selects the queues of a fragment: those of its most specific route.
//! - [`message`] builds the SQS messages of a fragment. [`trace`] gives them the tracing header of their request.
//! - [`archive`] defines the form of an archived notification, with which its signature can be verified again.
//! - [`aws_error`] classifies the error codes of AWS services.
//!
//! Nothing here calls a service, reads a clock or needs an asynchronous runtime.
//!
//! ```
//! use whatsapp_webhook::{
//!     message::{Message, RequestContext, event_id},
//!     notification::split,
//!     signature::{sign, verify},
//! };
//!
//! let body = br#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[
//!     {"field":"security","value":{"event":"PIN_CHANGED"}},
//!     {"field":"messages","value":{"statuses":[{"id":"wamid.1"}]}}
//! ]}]}"#;
//! let header = sign("the app secret", body);
//! assert!(verify(["the app secret"], body, Some(header.as_bytes())).is_ok());
//!
//! let fragments = split(body);
//! assert_eq!(fragments.len(), 2);
//! let request = RequestContext { request_id: "request", group_key: "a key", trace: None };
//! let (unrouted_reason, fifo) = (None, false);
//! let message = Message::new(&fragments[0], &event_id(&fragments[0]), request, unrouted_reason, fifo);
//! assert!(message.body.contains("PIN_CHANGED") && !message.body.contains("wamid.1"));
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod archive;
pub mod aws_error;
pub mod challenge;
pub mod credentials;
pub mod message;
pub mod notification;
pub mod routes;
pub mod signature;
pub mod trace;
