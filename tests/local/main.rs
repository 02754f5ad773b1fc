//! Tests that need the project's Python tools: the function deployed to the local AWS, and the consumers of its queues.
//!
//! They run with the feature `local-aws`, after `make build` and `make consumers`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use ingress_tools::meta::samples::Sample;
use serde_json::Value;
use tokio::sync::Mutex;

mod cargo_lambda;
mod consumers;
#[path = "../handler/support/corpus.rs"]
mod corpus;
mod local_stack;
mod sam_local;

/// Locked by each test that starts a local AWS. Two of them would share queue names and folders.
static TURN: Mutex<()> = Mutex::const_new(());

/// The folder of the project.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program that the requirements install.
fn tool(name: &str) -> PathBuf {
    root().join(".venv/bin").join(name)
}

/// A sample of this event, with a name for messages.
fn sample(name: &str, event: &Value) -> Sample {
    Sample::from_text(Path::new(name), event.to_string()).unwrap()
}
