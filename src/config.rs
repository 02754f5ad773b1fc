//! The settings, read from the environment and checked once, at start.

use thiserror::Error;
use whatsapp_webhook::routes::{Routes, RoutesError};

/// What an operator sets.
#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    /// Name or ARN of the secret.
    pub secret_id: String,
    /// Which queue each field goes to.
    pub routes: Routes,
    /// The bucket for bodies of messages over SQS's limit. Without it, a request with such a message is answered with 503.
    pub payload_bucket: Option<String>,
    /// Common name of the client certificate that a caller has to show; without it, none is asked for.
    pub client_certificate_cn: Option<String>,
    /// How many requests Lambda sends to the execution environment at a time.
    pub max_concurrency: usize,
}

/// A setting that cannot be worked with.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The variable must be there.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// The variable must say something.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// The routes make no sense.
    #[error("QUEUE_URLS {0}")]
    Routes(#[from] RoutesError),
}

impl Config {
    /// Reads the environment of the function. An error names the variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads the settings from wherever `lookup` finds them by name.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let optional = |name| match lookup(name) {
            Some(value) if value.trim().is_empty() => Err(ConfigError::Empty(name)),
            value => Ok(value),
        };
        let required = |name| optional(name)?.ok_or(ConfigError::Missing(name));
        Ok(Self {
            secret_id: required("SECRET_ID")?,
            routes: Routes::parse(&required("QUEUE_URLS")?)?,
            payload_bucket: optional("PAYLOAD_BUCKET")?,
            client_certificate_cn: optional("CLIENT_CERTIFICATE_CN")?,
            max_concurrency: max_concurrency(lookup("AWS_LAMBDA_MAX_CONCURRENCY").as_deref()),
        })
    }
}

/// Reads the number as Lambda's runtime does: one, unless it is a positive number.
fn max_concurrency(variable: Option<&str>) -> usize {
    let number = variable.and_then(|text| text.parse::<u32>().ok()).unwrap_or(1).max(1);
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUES: &str = r#"{"*":"https://sqs.eu-west-1.amazonaws.com/123456789012/unrouted"}"#;

    fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| variables.iter().find(|(of, _)| *of == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_settings_are_read_by_name() {
        let config = read(&[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("PAYLOAD_BUCKET", "b")]).unwrap();
        assert_eq!((config.secret_id.as_str(), config.payload_bucket.as_deref()), ("s", Some("b")));
        assert_eq!(config.routes, Routes::parse(QUEUES).unwrap());
        assert_eq!(config.client_certificate_cn, None);
        let config = read(&[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("CLIENT_CERTIFICATE_CN", "c")]).unwrap();
        assert_eq!((config.payload_bucket, config.client_certificate_cn.as_deref()), (None, Some("c")));
    }

    #[test]
    fn unusable_concurrency_is_one() {
        for (text, expected) in [("8", 8), ("1", 1), ("0", 1), ("", 1), ("-2", 1), ("many", 1)] {
            let variables = [("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("AWS_LAMBDA_MAX_CONCURRENCY", text)];
            assert_eq!(read(&variables).unwrap().max_concurrency, expected, "{text}");
        }
        assert_eq!(read(&[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES)]).unwrap().max_concurrency, 1);
    }

    #[test]
    fn an_error_names_its_variable() {
        for (variables, expected) in [
            (&[("QUEUE_URLS", QUEUES)][..], "SECRET_ID is not set"),
            (&[("QUEUE_URLS", QUEUES), ("SECRET_ID", " ")], "SECRET_ID is empty"),
            (&[("SECRET_ID", "s")], "QUEUE_URLS is not set"),
            (&[("SECRET_ID", "s"), ("QUEUE_URLS", "")], "QUEUE_URLS is empty"),
            (
                &[("SECRET_ID", "s"), ("QUEUE_URLS", "{}")],
                "QUEUE_URLS has no route `*`, the queue of everything without a route of its own",
            ),
            (
                &[("SECRET_ID", "s"), ("QUEUE_URLS", "x")],
                "QUEUE_URLS is not a JSON object of routes: expected value at line 1 column 1",
            ),
            (&[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("PAYLOAD_BUCKET", "")], "PAYLOAD_BUCKET is empty"),
            (
                &[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("CLIENT_CERTIFICATE_CN", "")],
                "CLIENT_CERTIFICATE_CN is empty",
            ),
        ] {
            assert_eq!(read(variables).unwrap_err().to_string(), expected);
        }
    }
}
