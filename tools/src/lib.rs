//! Acts as Meta: signs samples, delivers them to an endpoint, and tells what should come of each.
//!
//! - [`samples`]: the events of `events/`, which are also the fixtures of the function's tests;
//! - [`sign`]: the headers of a sample that follow from its body;
//! - [`expect`]: answer and messages that a sample should bring about, worked out apart from the function's own code;
//! - [`deliver`]: one sample over HTTP to one endpoint;
//! - [`stack`] and [`queues`]: the function deployed on this computer, and what is on its queues;
//! - [`run`]: all of it together, sample by sample, with a table for people.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod deliver;
pub mod expect;
mod logs;
pub mod queues;
mod report;
pub mod run;
pub mod samples;
pub mod sign;
pub mod stack;
