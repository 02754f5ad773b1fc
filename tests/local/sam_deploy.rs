//! `sam deploy` with the repository's settings, again and again, and `sam delete`: what is unread stays.

use std::process::Command;

use crate::{TURN, root, tool};

#[test]
fn a_stack_is_deployed_changed_and_deleted_and_nothing_unread_with_it() {
    let _turn = TURN.blocking_lock();
    let mut script = Command::new(tool("python"));
    assert!(script.arg(root().join("tests/local/sam_deploy.py")).status().unwrap().success());
}
