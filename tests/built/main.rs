//! The built binary behind Lambda's Runtime API, over real HTTP to an AWS that has SQS's limits and fails on demand.
//!
//! Each test checks the answer, that it came in time, and all that is stored: every body byte for byte, every
//! attribute, and no copy that a retry does not explain.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connections;
mod deadlines;
mod deliveries;
mod edges;
mod faults;
mod fifo;
mod large;
mod line;
mod logs;
mod malformed;
mod notification;
mod payloads;
mod secrets;
mod signals;
mod signed;
mod slow;
mod start;
mod stored;
mod trace;
mod webhook;
