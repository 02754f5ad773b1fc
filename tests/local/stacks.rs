//! Stacks with other parameters than the usual, each on one local AWS: see the script.

use std::process::Command;

use crate::{TURN, root, tool};

#[test]
fn every_parameter_does_what_it_promises_to_those_whom_it_is_about() {
    let _turn = TURN.blocking_lock();
    let mut script = Command::new(tool("python"));
    assert!(script.arg(root().join("tests/local/stacks.py")).status().unwrap().success());
}
