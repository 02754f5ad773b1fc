//! Acts as Meta.
//!
//! - [`samples`] reads the events of `events/`, which are also the fixtures of the function's tests.
//! - [`sign`] computes the headers of a sample that depend on its body.
//! - [`deliver`] sends a sample to an endpoint over HTTP.
//! - [`expect`] computes the expected response and messages of a sample, independently of the function's code.
//! - [`outcome`] compares the result of a delivery with the expected one.
//! - `oddity` lists unusual parts of a request.

pub mod deliver;
pub mod expect;
pub(crate) mod oddity;
pub mod outcome;
pub mod samples;
pub mod sign;
