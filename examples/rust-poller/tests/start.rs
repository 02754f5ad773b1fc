//! The start of the built poller; what it does with messages needs a queue.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

#[test]
fn without_a_queue_it_ends_and_says_what_is_missing() {
    let poller = Command::new(env!("CARGO_BIN_EXE_whatsapp-poller")).env_remove("QUEUE_URL").output().unwrap();
    assert_eq!(poller.status.code(), Some(1));
    assert_eq!(String::from_utf8(poller.stderr).unwrap(), "Error: \"QUEUE_URL is not set\"\n");
}
