//! The pure path, which is measured without a network, and generated notifications.

pub mod notifications;
pub mod pure;
