//! Acts as Meta: signs samples, delivers them to an endpoint, and tells what should come of each.
//!
//! - [`samples`]: the events of `events/`, which are also the fixtures of the function's tests;
//! - [`sign`]: the headers of a sample that follow from its body;
//! - [`expect`]: answer and messages that a sample should bring about, worked out apart from the function's own code;
//! - [`deliver`]: one sample over HTTP to one endpoint;
//! - [`stack`]: the function deployed on this computer;
//! - [`facts`] and [`queues`]: what there is to know of a stack, local or deployed, and what is on its queues;
//! - [`backlog`]: how much waits there, and for how long;
//! - [`redrive`], by way of [`moving`]: messages back to the queue that they belong on;
//! - [`docker`]: an image for the function, and a way for containers to reach this computer;
//! - [`outcome`]: what came of a sample, compared with what should;
//! - [`run`]: all of it together, sample by sample, with a table for people;
//! - [`sam_local`]: the same in Docker, by `sam local`;
//! - [`verify`]: checks that an endpoint does what Meta relies on, with `oddity`, [`catch_all`] and [`remedy`];
//! - [`subscribe`], by way of [`graph`]: what Meta sends for an app, and has to send;
//! - [`report`]: what people see of all this.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod backlog;
pub mod catch_all;
pub mod deliver;
pub mod docker;
pub mod expect;
pub mod facts;
pub mod graph;
mod logs;
pub mod moving;
mod oddity;
pub mod outcome;
pub mod queues;
pub mod redrive;
pub mod remedy;
pub mod report;
mod resend;
pub mod run;
pub mod sam_local;
pub mod samples;
pub mod sign;
mod source;
pub mod stack;
pub mod subscribe;
pub mod verify;
