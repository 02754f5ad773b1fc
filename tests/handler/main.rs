//! Tests of the handler with complete Lambda events and the real SDK clients, whose network is scripted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod corpus;
mod groups;
mod message_files;
mod properties;
mod refresh;
mod requests;
mod routes;
mod support;
