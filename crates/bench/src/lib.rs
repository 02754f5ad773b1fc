//! What the bench measures without a network: the pure path, and the notifications that it is given.

pub mod notifications;
pub mod pure;
