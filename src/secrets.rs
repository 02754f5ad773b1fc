//! What Meta and the operator share: the verify token and the app secrets, kept in Secrets Manager.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aws_sdk_secretsmanager::Client;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::{sync::Mutex, time::Instant};

use crate::{metrics::Metrics, telemetry::causes};

/// A value older than this is read again, beside the work of a request.
const OLD: Duration = Duration::from_mins(5);

/// After a signature that nobody made, or a refresh that failed, the next reading waits this long, so that
/// neither forgers nor an outage drive it.
const PAUSE: Duration = Duration::from_secs(30);

/// How long an answer waits at most for a reading, and how long after it the next follows, by how many were dropped
/// before it. A reading is mostly slower than the storing beside it, and an outage must not slow every request down.
const TRIES: [(Duration, Duration); 4] = [
    (Duration::ZERO, Duration::ZERO),
    (Duration::from_millis(250), PAUSE),
    (Duration::from_millis(500), PAUSE),
    (Duration::from_secs(1), OLD),
];

/// What the template writes where the operator is to put the app secret.
const PLACEHOLDER: &str = "REPLACE_ME";

/// The secrets as they were when last read.
pub struct Known {
    /// What Meta says in its verification request.
    pub verify_token: String,
    /// What Meta signs with: more than one for several apps at one URL, or while one is rotated.
    pub app_secrets: Vec<String>,
}

impl Known {
    /// Reads the text of the secret. An error names the member that is wrong, and quotes nothing.
    pub fn parse(text: &str) -> Result<Self, SecretsError> {
        // Into a value first: what serde says of a wrong type quotes the text.
        let secret: Map<String, Value> = serde_json::from_str(text).map_err(|_| SecretsError::NotAnObject)?;
        let verify_token = usable("verify_token", secret.get("verify_token"))?;
        let app_secrets = match secret.get("app_secret") {
            Some(Value::Array(list)) if list.is_empty() => Err(wrong("app_secret", "is an empty list")),
            Some(Value::Array(list)) => list.iter().map(|one| usable("app_secret", Some(one))).collect(),
            one => usable("app_secret", one).map(|one| vec![one]),
        }?;
        Ok(Self { verify_token, app_secrets })
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Known").finish_non_exhaustive()
    }
}

/// The current secrets, and the way to newer ones.
#[derive(Debug)]
pub struct Secrets {
    client: Client,
    secret_id: String,
    current: RwLock<Current>,
    /// Held while reading, so that one reading serves all who wait; and when a mismatch last made us read.
    reading: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Current {
    known: Arc<Known>,
    refresh_at: Instant,
    /// Readings in a row that were begun and dropped.
    dropped: usize,
}

impl Current {
    fn is_old(&self) -> bool {
        Instant::now() >= self.refresh_at
    }

    fn next_try(&self) -> (Duration, Duration) {
        TRIES[self.dropped.min(TRIES.len() - 1)]
    }
}

/// Why there are no secrets to work with. No text of a secret is in it.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// Secrets Manager did not answer, or not with a value.
    #[error("the secret of SECRET_ID cannot be read: {0}")]
    Unreadable(String),
    /// The value is no JSON object.
    #[error("the secret must be a JSON object with verify_token and app_secret")]
    NotAnObject,
    /// A member cannot be used.
    #[error("{member} in the secret {problem}")]
    Member {
        /// Which one.
        member: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Secrets {
    /// Reads the secret for the first time; without it nothing can be verified, so an error here ends the start.
    pub async fn read(client: Client, secret_id: String) -> Result<Self, SecretsError> {
        let known = Arc::new(fetch(&client, &secret_id).await?);
        let current = RwLock::new(Current { known, refresh_at: Instant::now() + OLD, dropped: 0 });
        Ok(Self { client, secret_id, current, reading: Mutex::new(None) })
    }

    /// The secrets to check a request with.
    #[must_use]
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).known)
    }

    /// How long an answer may wait for the secret to be [refreshed](Self::refresh).
    #[must_use]
    pub fn patience(&self) -> Duration {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        if current.is_old() { current.next_try().0 } else { Duration::ZERO }
    }

    /// Reads the secret again if it is old. The old value serves on when that fails, and when the caller's
    /// [patience](Self::patience) is at its end and it drops this.
    pub async fn refresh(&self, metrics: &Metrics) {
        let is_old = || self.current.read().unwrap_or_else(PoisonError::into_inner).is_old();
        if !is_old() {
            return;
        }
        let _reading = self.reading.lock().await;
        if is_old() {
            {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                current.refresh_at = Instant::now() + current.next_try().1;
                current.dropped += 1;
            }
            self.replace(metrics).await;
        }
    }

    /// Reads the secret again because `seen` did not explain a signature or a token, and gives what to check
    /// with once more; none if there is nothing newer than `seen` to be had yet.
    pub async fn after_mismatch(&self, seen: &Arc<Known>, metrics: &Metrics) -> Option<Arc<Known>> {
        let mut last = self.reading.lock().await;
        if last.is_none_or(|last| last.elapsed() >= PAUSE) {
            *last = Some(Instant::now());
            self.replace(metrics).await;
        }
        Some(self.known()).filter(|known| !Arc::ptr_eq(known, seen))
    }

    async fn replace(&self, metrics: &Metrics) {
        let fetched = fetch(&self.client, &self.secret_id).await;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.dropped = 0;
        match fetched {
            Ok(known) => {
                current.known = Arc::new(known);
                current.refresh_at = Instant::now() + OLD;
                metrics.count("SecretRefreshes", 1);
            }
            Err(error) => {
                metrics.count("SecretFailures", 1);
                current.refresh_at = Instant::now() + PAUSE;
                tracing::error!(error.text = %error, "secret not refreshed, the old one serves on");
            }
        }
    }
}

async fn fetch(client: &Client, secret_id: &str) -> Result<Known, SecretsError> {
    let answer = client.get_secret_value().secret_id(secret_id).send().await;
    let answer = answer.map_err(|error| SecretsError::Unreadable(causes(&error)))?;
    Known::parse(answer.secret_string().ok_or(SecretsError::NotAnObject)?)
}

fn usable(member: &'static str, value: Option<&Value>) -> Result<String, SecretsError> {
    let problem = match value {
        None => "is missing",
        Some(Value::String(text)) if text.trim().is_empty() => "is empty or blank",
        Some(Value::String(text)) if text == PLACEHOLDER => "is still the placeholder REPLACE_ME",
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(_) => "is not a string",
    };
    Err(wrong(member, problem))
}

const fn wrong(member: &'static str, problem: &'static str) -> SecretsError {
    SecretsError::Member { member, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_app_secret_is_one_or_a_list() {
        let one = Known::parse(r#"{"verify_token":"t","app_secret":"a","more":1}"#).unwrap();
        assert_eq!((one.verify_token.as_str(), one.app_secrets), ("t", vec!["a".to_owned()]));
        let list = Known::parse(r#"{"app_secret":["new","old"],"verify_token":" x "}"#).unwrap();
        assert_eq!((list.verify_token.as_str(), list.app_secrets), (" x ", vec!["new".to_owned(), "old".to_owned()]));
    }

    #[test]
    fn an_unusable_secret_is_refused_by_member_without_being_quoted() {
        for (text, expected) in [
            ("hush", "the secret must be a JSON object with verify_token and app_secret"),
            ("\"hush\"", "the secret must be a JSON object with verify_token and app_secret"),
            (r#"{"app_secret":"hush"}"#, "verify_token in the secret is missing"),
            (r#"{"verify_token":"","app_secret":"hush"}"#, "verify_token in the secret is empty or blank"),
            (r#"{"verify_token":" \n","app_secret":"hush"}"#, "verify_token in the secret is empty or blank"),
            (r#"{"verify_token":7,"app_secret":"hush"}"#, "verify_token in the secret is not a string"),
            (r#"{"verify_token":"hush"}"#, "app_secret in the secret is missing"),
            (r#"{"verify_token":"hush","app_secret":null}"#, "app_secret in the secret is not a string"),
            (r#"{"verify_token":"hush","app_secret":[]}"#, "app_secret in the secret is an empty list"),
            (r#"{"verify_token":"hush","app_secret":["hush",""]}"#, "app_secret in the secret is empty or blank"),
            (r#"{"verify_token":"hush","app_secret":["hush",["hush"]]}"#, "app_secret in the secret is not a string"),
            (
                r#"{"verify_token":"hush","app_secret":"REPLACE_ME"}"#,
                "app_secret in the secret is still the placeholder REPLACE_ME",
            ),
            (
                r#"{"verify_token":"REPLACE_ME","app_secret":"hush"}"#,
                "verify_token in the secret is still the placeholder REPLACE_ME",
            ),
        ] {
            assert_eq!(Known::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let known = Known::parse(r#"{"verify_token":"hush","app_secret":"hush"}"#).unwrap();
        assert_eq!(format!("{known:?}"), "Known { .. }");
    }
}
