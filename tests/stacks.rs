//! Stacks with other parameters than the usual, each on one local AWS: see the script.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, process::Command};

#[test]
fn every_parameter_does_what_it_promises_to_those_whom_it_is_about() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut script = Command::new(root.join(".venv/bin/python"));
    assert!(script.arg(root.join("tests/stacks.py")).status().unwrap().success());
}
