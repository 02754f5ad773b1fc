//! What the fuzz targets hold the pure crate against.

pub use whatsapp_webhook::{message, notification, signature};

pub mod plan;
