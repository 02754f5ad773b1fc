//! Reads a stack, local or deployed.

pub mod stack_info;
