//! Reads a stack, local or deployed.

pub mod facts;
