//! The two secrets that an endpoint shares with Meta, and the environment that sets them.

use std::env;

/// The secrets that an endpoint shares with Meta.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Signs notifications.
    pub app_secret: String,
    /// Goes with each challenge.
    pub verify_token: String,
}

impl Keys {
    /// Replaces each secret that `APP_SECRET` or `VERIFY_TOKEN` sets to a value that is not empty.
    #[must_use]
    pub fn overridden_by_environment(self) -> Self {
        Self {
            app_secret: variable("APP_SECRET").unwrap_or(self.app_secret),
            verify_token: variable("VERIFY_TOKEN").unwrap_or(self.verify_token),
        }
    }
}

/// Returns a variable of the environment unless it is empty.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
