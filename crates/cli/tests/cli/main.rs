//! The command line against scripted endpoints and a scripted SQS. Nothing is deployed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archive;
mod aws;
mod deliver;
mod events;
mod inspect;
mod queues;
mod scripts;
mod sqs;
mod stack;
mod subscribe;
mod transfer;
mod verify;
mod verify_queue;
