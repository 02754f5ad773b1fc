//! The function's pure modules, built from its own sources so that the fuzzer instruments them and not the AWS
//! SDKs, and what the targets hold them against.

// rustfmt, skipped here, would look for the modules' own tests beside this file.
#[path = "../../src/message.rs"]
#[rustfmt::skip]
pub mod message;
#[path = "../../src/notification.rs"]
#[rustfmt::skip]
pub mod notification;
#[path = "../../src/signature.rs"]
pub mod signature;

pub mod model;
pub mod plan;
