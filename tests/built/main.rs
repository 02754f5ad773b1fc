//! Tests of the built binary with Lambda's Runtime API and a fake AWS over HTTP.
//!
//! Each test checks the response, the deadline and every stored message: its body byte for byte, its attributes, and that
//! retries explain all duplicates.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archive;
mod concurrent;
mod connections;
mod deadlines;
mod deliveries;
mod edges;
mod faults;
mod fifo;
mod large;
mod lists;
mod log_line;
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

/// Locked by each test that computes for two seconds or more without waiting in between. Two of them at a time could delay the
/// function of another test beyond its deadline.
static PROCESSOR: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
