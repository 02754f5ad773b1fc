//! The settings: environment variables that are read and checked once, at the start.

use thiserror::Error;
use whatsapp_webhook::routes::{Routes, RoutesError};

/// The settings of the function.
#[derive(Debug, PartialEq, Eq)]
pub struct Config {
    /// `SECRET_ID`: the name or ARN of the secret.
    pub secret_id: String,
    /// `QUEUE_URLS`: the queues of each route.
    ///
    /// In a deployment, the template sets it. To add a route, see "Adding a field" in `docs/tasks.md`.
    pub routes: Routes,
    /// `PAYLOAD_BUCKET`: the bucket for bodies of messages over SQS's limit. If it is `None`, the function answers a request with
    /// such a message with 503.
    pub payload_bucket: Option<String>,
    /// `CLIENT_CERTIFICATE_CN`: the common name that the client certificate of a caller must have. `None` allows all callers.
    pub client_certificate_cn: Option<String>,
    /// `ARCHIVE_BUCKET`: the bucket for notifications as received. `None` archives nothing.
    pub archive_bucket: Option<String>,
    /// `ARCHIVE_REQUIRED`: whether a notification that is not archived is answered with 503.
    pub is_archive_required: bool,
    /// `AWS_LAMBDA_MAX_CONCURRENCY`: the maximum number of requests that Lambda sends to the execution environment at a time.
    pub max_concurrency: usize,
}

/// An invalid setting. The text names the variable.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A required variable is missing.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// A variable is empty or blank.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A variable is neither `true` nor `false`.
    #[error("{0} is neither true nor false")]
    NotABoolean(&'static str),
    /// The routes are invalid.
    #[error("QUEUE_URLS {0}")]
    Routes(#[from] RoutesError),
}

impl Config {
    /// Reads the settings from the environment variables of the process.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`].
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads the settings from `lookup`, which returns the value of a variable.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let optional = |name| match lookup(name) {
            Some(value) if value.trim().is_empty() => Err(ConfigError::Empty(name)),
            value => Ok(value),
        };
        let required = |name| optional(name)?.ok_or(ConfigError::Missing(name));
        let is_archive_required = match lookup("ARCHIVE_REQUIRED").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(ConfigError::NotABoolean("ARCHIVE_REQUIRED")),
        };
        Ok(Self {
            secret_id: required("SECRET_ID")?,
            routes: Routes::parse(&required("QUEUE_URLS")?)?,
            payload_bucket: optional("PAYLOAD_BUCKET")?,
            client_certificate_cn: optional("CLIENT_CERTIFICATE_CN")?,
            archive_bucket: if is_archive_required {
                Some(required("ARCHIVE_BUCKET")?)
            } else {
                optional("ARCHIVE_BUCKET")?
            },
            is_archive_required,
            max_concurrency: max_concurrency(lookup("AWS_LAMBDA_MAX_CONCURRENCY").as_deref()),
        })
    }
}

/// Parses the number of requests. Returns 1 if the variable is unset or not a positive number, as Lambda's runtime does.
fn max_concurrency(variable: Option<&str>) -> usize {
    let number = variable.and_then(|text| text.parse::<u32>().ok()).unwrap_or(1).max(1);
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUES: &str = r#"{"*":"https://sqs.eu-west-1.amazonaws.com/123456789012/unrouted"}"#;

    fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_lookup(|name| {
            variables.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn settings_are_read_by_name() {
        let config = read(&[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("PAYLOAD_BUCKET", "b")]).unwrap();
        assert_eq!((config.secret_id.as_str(), config.payload_bucket.as_deref()), ("s", Some("b")));
        assert_eq!(config.routes, Routes::parse(QUEUES).unwrap());
        assert_eq!(config.client_certificate_cn, None);
        let config = read(&[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("CLIENT_CERTIFICATE_CN", "c")]).unwrap();
        assert_eq!((config.payload_bucket, config.client_certificate_cn.as_deref()), (None, Some("c")));
    }

    #[test]
    fn archive_is_off_unless_it_has_a_bucket() {
        for (variables, expected) in [
            (&[][..], (None, false)),
            (&[("ARCHIVE_BUCKET", "a")], (Some("a"), false)),
            (&[("ARCHIVE_BUCKET", "a"), ("ARCHIVE_REQUIRED", "false")], (Some("a"), false)),
            (&[("ARCHIVE_BUCKET", "a"), ("ARCHIVE_REQUIRED", "true")], (Some("a"), true)),
        ] {
            let config = read(&[&[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES)], variables].concat()).unwrap();
            assert_eq!((config.archive_bucket.as_deref(), config.is_archive_required), expected);
        }
    }

    #[test]
    fn invalid_concurrency_counts_as_one() {
        for (text, expected) in [("8", 8), ("1", 1), ("0", 1), ("", 1), ("-2", 1), ("many", 1)] {
            let variables = [("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("AWS_LAMBDA_MAX_CONCURRENCY", text)];
            assert_eq!(read(&variables).unwrap().max_concurrency, expected, "{text}");
        }
        assert_eq!(read(&[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES)]).unwrap().max_concurrency, 1);
    }

    #[test]
    fn error_names_its_variable() {
        for (variables, expected) in [
            (&[("QUEUE_URLS", QUEUES)][..], "SECRET_ID is not set"),
            (&[("QUEUE_URLS", QUEUES), ("SECRET_ID", " ")], "SECRET_ID is empty"),
            (&[("SECRET_ID", "s")], "QUEUE_URLS is not set"),
            (&[("SECRET_ID", "s"), ("QUEUE_URLS", "")], "QUEUE_URLS is empty"),
            (&[("SECRET_ID", "s"), ("QUEUE_URLS", "{}")], "QUEUE_URLS has no route `*` for the catch-all queue"),
            (
                &[("SECRET_ID", "s"), ("QUEUE_URLS", "x")],
                "QUEUE_URLS is not a JSON object of routes: expected value at line 1 column 1",
            ),
            (&[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("PAYLOAD_BUCKET", "")], "PAYLOAD_BUCKET is empty"),
            (
                &[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("CLIENT_CERTIFICATE_CN", "")],
                "CLIENT_CERTIFICATE_CN is empty",
            ),
            (&[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("ARCHIVE_BUCKET", "")], "ARCHIVE_BUCKET is empty"),
            (&[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("ARCHIVE_REQUIRED", "true")], "ARCHIVE_BUCKET is not set"),
            (
                &[("SECRET_ID", "s"), ("QUEUE_URLS", QUEUES), ("ARCHIVE_BUCKET", "a"), ("ARCHIVE_REQUIRED", "yes")],
                "ARCHIVE_REQUIRED is neither true nor false",
            ),
        ] {
            assert_eq!(read(variables).unwrap_err().to_string(), expected);
        }
    }
}
