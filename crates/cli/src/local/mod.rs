//! Runs the function on this computer.
//!
//! - [`stack`] deploys it to a local AWS.
//! - [`run`] delivers every sample to that stack.
//! - [`sam_local`] runs it in Docker by `sam local`, with the help of [`docker`].

pub mod docker;
mod logs;
pub mod run;
pub mod sam_local;
pub mod stack;
