//! The modules that the fuzz targets test, and the generator of bodies.

pub use whatsapp_webhook::{message, notification, signature};

pub mod plan;
