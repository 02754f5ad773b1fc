//! `sam deploy` with the repository's settings, again and again, and `sam delete`: what is unread stays.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, process::Command};

#[test]
fn a_stack_is_deployed_changed_and_deleted_and_nothing_unread_with_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut script = Command::new(root.join(".venv/bin/python"));
    assert!(script.arg(root.join("tests/sam_deploy.py")).status().unwrap().success());
}
