//! The handler, driven by whole Lambda events over a scripted AWS: the SDK's clients are real, their network is not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod corpus;
mod properties;
mod refresh;
mod requests;
mod support;
