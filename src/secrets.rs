//! What Meta and the operator share: the verify token and the app secrets, kept in Secrets Manager.

use std::{
    fmt,
    pin::pin,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use aws_sdk_secretsmanager::Client;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::{
    select,
    sync::Mutex,
    time::{Instant, timeout_at},
};

use crate::{aws::error_reason, metrics::Metrics};

/// A secret that was read longer ago than this is read again, alongside the work of a request.
const MAX_AGE: Duration = Duration::from_mins(5);

/// After a failed refresh, the next one waits this long, so that an outage is not made worse.
const FAILURE_INTERVAL: Duration = Duration::from_secs(30);

/// Unexplained signatures and tokens cause at most one read in this time, so that forgers do not cause more.
const MISMATCH_INTERVAL: Duration = Duration::from_secs(30);

/// By the number of refreshes that were abandoned in a row: how long an answer waits for the next one, and how long after it
/// the one after that starts.
///
/// A refresh usually takes longer than storing, so some answers have to wait for it; but not many, even in an outage.
const REFRESH_BACKOFF: [(Duration, Duration); 4] = [
    (Duration::ZERO, Duration::ZERO),
    (Duration::from_millis(250), FAILURE_INTERVAL),
    (Duration::from_millis(500), FAILURE_INTERVAL),
    (Duration::from_secs(1), MAX_AGE),
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

    /// Whether all app secrets have the form that Meta uses: 32 hexadecimal digits.
    #[must_use]
    pub fn has_usual_app_secrets(&self) -> bool {
        self.app_secrets.iter().all(|secret| secret.len() == 32 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()))
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
    /// Locked while the secret is read, so that one read serves all waiting requests. The value is the time of the last
    /// read that a mismatch caused.
    reading: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Current {
    known: Arc<Known>,
    refresh_at: Instant,
    /// Refreshes in a row that were started and not waited for.
    abandoned_refreshes: usize,
}

impl Current {
    fn is_old(&self) -> bool {
        Instant::now() >= self.refresh_at
    }

    fn backoff(&self) -> (Duration, Duration) {
        REFRESH_BACKOFF[self.abandoned_refreshes.min(REFRESH_BACKOFF.len() - 1)]
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
        if !known.has_usual_app_secrets() {
            tracing::warn!("app_secret in the secret is not 32 hexadecimal digits, the form that Meta uses");
        }
        let current = RwLock::new(Current { known, refresh_at: Instant::now() + MAX_AGE, abandoned_refreshes: 0 });
        Ok(Self { client, secret_id, current, reading: Mutex::new(None) })
    }

    /// The secrets to check a request with.
    #[must_use]
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.current().known)
    }

    /// Reads the secret again if it is old. Gives up at `limit`; the old value then stays in use.
    pub async fn refresh_within(&self, limit: Instant, metrics: &Metrics) {
        if timeout_at(limit, self.refresh(metrics)).await.is_err() {
            report_timeout(metrics);
        }
    }

    /// Does some work, and reads the secret again alongside if it is old.
    ///
    /// Lambda freezes the execution environment after the answer, so a refresh that takes longer than the work is abandoned
    /// and the next request starts another one. After abandoned refreshes an answer waits a little; see
    /// [`REFRESH_BACKOFF`].
    pub async fn refresh_alongside<T>(&self, work: impl Future<Output = T>, deadline: Instant, metrics: &Metrics) -> T {
        let wait = self.refresh_wait();
        let limit = deadline.min(Instant::now() + wait);
        let (mut work, mut refresh) = (pin!(work), pin!(self.refresh(metrics)));
        select! {
            biased;
            result = &mut work => {
                if timeout_at(limit, refresh).await.is_err() && !wait.is_zero() {
                    report_timeout(metrics);
                }
                result
            }
            () = &mut refresh => work.await,
        }
    }

    /// How long an answer may wait for a refresh.
    fn refresh_wait(&self) -> Duration {
        let current = self.current();
        if current.is_old() { current.backoff().0 } else { Duration::ZERO }
    }

    /// Reads the secret again if it is old. If that fails, the old value stays in use.
    async fn refresh(&self, metrics: &Metrics) {
        if !self.current().is_old() {
            return;
        }
        let _reading = self.reading.lock().await;
        if self.current().is_old() {
            {
                let mut current = self.current_mut();
                current.refresh_at = Instant::now() + current.backoff().1;
                current.abandoned_refreshes += 1;
            }
            self.replace(metrics).await;
        }
    }

    /// Secrets that are newer than `seen`, which did not explain a signature or a token. `None` if there are none.
    ///
    /// Reads the secret again, but at most once in [`MISMATCH_INTERVAL`], and gives up at `limit`.
    pub async fn newer_than(&self, seen: &Arc<Known>, limit: Instant, metrics: &Metrics) -> Option<Arc<Known>> {
        let read = async {
            let mut last_mismatch = self.reading.lock().await;
            if last_mismatch.is_none_or(|last| last.elapsed() >= MISMATCH_INTERVAL) {
                *last_mismatch = Some(Instant::now());
                self.replace(metrics).await;
            }
        };
        if timeout_at(limit, read).await.is_err() {
            report_timeout(metrics);
            return None;
        }
        Some(self.known()).filter(|known| !Arc::ptr_eq(known, seen))
    }

    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn current_mut(&self) -> RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn replace(&self, metrics: &Metrics) {
        let fetched = fetch(&self.client, &self.secret_id).await;
        let mut current = self.current_mut();
        current.abandoned_refreshes = 0;
        match fetched {
            Ok(known) => {
                current.known = Arc::new(known);
                current.refresh_at = Instant::now() + MAX_AGE;
                metrics.count("SecretRefreshes", 1);
            }
            Err(error) => {
                metrics.count("SecretFailures", 1);
                current.refresh_at = Instant::now() + FAILURE_INTERVAL;
                tracing::error!(error.text = %error, "secret not refreshed, the old one serves on");
            }
        }
    }
}

fn report_timeout(metrics: &Metrics) {
    metrics.count("SecretFailures", 1);
    tracing::error!("secret not read in time, the old one serves on");
}

async fn fetch(client: &Client, secret_id: &str) -> Result<Known, SecretsError> {
    let answer = client.get_secret_value().secret_id(secret_id).send().await;
    let answer = answer.map_err(|error| SecretsError::Unreadable(error_reason(&error)))?;
    Known::parse(answer.secret_string().ok_or(SecretsError::NotAnObject)?)
}

fn usable(member: &'static str, value: Option<&Value>) -> Result<String, SecretsError> {
    let problem = match value {
        None => "is missing",
        Some(Value::String(text)) if text.trim().is_empty() => "is empty or blank",
        Some(Value::String(text)) if text == PLACEHOLDER => "is still the placeholder REPLACE_ME",
        // Both come from copying, and neither Meta's app secret nor its verify token would ever match.
        Some(Value::String(text)) if text.trim() != text => "has white space around it",
        Some(Value::String(text)) if is_quoted(text) => "is in quotes",
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(_) => "is not a string",
    };
    Err(wrong(member, problem))
}

fn is_quoted(text: &str) -> bool {
    ['"', '\'', '`'].iter().any(|quote| text.len() > 1 && text.starts_with(*quote) && text.ends_with(*quote))
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
        let list = Known::parse(r#"{"app_secret":["new","old"],"verify_token":"x y"}"#).unwrap();
        assert_eq!((list.verify_token.as_str(), list.app_secrets), ("x y", vec!["new".to_owned(), "old".to_owned()]));
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
            (r#"{"verify_token":"hush","app_secret":"hush\n"}"#, "app_secret in the secret has white space around it"),
            (r#"{"verify_token":" hush","app_secret":"hush"}"#, "verify_token in the secret has white space around it"),
            (
                r#"{"verify_token":"hush","app_secret":["hush","\u00a0hush"]}"#,
                "app_secret in the secret has white space around it",
            ),
            (r#"{"verify_token":"hush","app_secret":"\"hush\""}"#, "app_secret in the secret is in quotes"),
            (r#"{"verify_token":"'hush'","app_secret":"hush"}"#, "verify_token in the secret is in quotes"),
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
    fn usual_app_secrets_are_32_hexadecimal_digits() {
        let parse = |secrets: &str| Known::parse(&format!(r#"{{"verify_token":"t","app_secret":{secrets}}}"#)).unwrap();
        assert!(parse(r#""0123456789abcdef0123456789ABCDEF""#).has_usual_app_secrets());
        assert!(!parse(r#""0123456789abcdef0123456789abcdeg""#).has_usual_app_secrets());
        assert!(!parse(r#"["0123456789abcdef0123456789abcdef","x"]"#).has_usual_app_secrets());
    }

    #[test]
    fn secrets_are_not_printed() {
        let known = Known::parse(r#"{"verify_token":"hush","app_secret":"hush"}"#).unwrap();
        assert_eq!(format!("{known:?}"), "Known { .. }");
    }
}
