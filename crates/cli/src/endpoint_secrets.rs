//! The two secrets that an endpoint shares with Meta, and the environment variables that override them.

use std::env;

/// The secrets that an endpoint shares with Meta.
#[derive(Debug, Clone)]
pub struct EndpointSecrets {
    /// The key with which Meta signs notifications.
    pub app_secret: String,
    /// The text with which Meta's verification request authenticates itself.
    pub verify_token: String,
}

impl EndpointSecrets {
    /// Replaces the secrets by those of `APP_SECRET` and `VERIFY_TOKEN`, unless the variable is unset or empty.
    #[must_use]
    pub fn overridden_by_environment(self) -> Self {
        Self {
            app_secret: variable("APP_SECRET").unwrap_or(self.app_secret),
            verify_token: variable("VERIFY_TOKEN").unwrap_or(self.verify_token),
        }
    }
}

/// Returns an environment variable, or `None` if it is unset or empty.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
