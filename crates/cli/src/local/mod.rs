//! Runs the function on this computer.
//!
//! - [`stack`] deploys it to a local AWS.
//! - [`run`] delivers every sample to that stack.
//! - [`sam_local`] runs it in Docker with `sam local`, on the image of [`docker`].
//! - `logs` reads the logs of the function and of the local AWS.

pub mod docker;
mod logs;
pub mod run;
pub mod sam_local;
pub mod stack;
