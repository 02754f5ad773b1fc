//! Reads the app credentials from the function's secret in Secrets Manager, and keeps them up to date.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_sdk_secretsmanager::Client;
use thiserror::Error;
use tokio::{
    select,
    sync::Mutex,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use whatsapp_webhook::{
    aws_error::is_expired_credentials,
    credentials::{AppCredentials, CredentialsError},
};

use crate::{
    aws::{error_code, error_reason},
    metrics::{Metric, Metrics},
};

/// The age from which app credentials are old. [`SecretCache`] then reads the secret again.
const MAX_AGE: Duration = Duration::from_mins(5);

/// The interval between a failed refresh and the next one, so that retries do not prolong an outage.
const FAILURE_INTERVAL: Duration = Duration::from_secs(30);

/// The minimum interval between two reads that were caused by a wrong signature or token, because anyone can send any number of
/// these.
const MISMATCH_INTERVAL: Duration = Duration::from_secs(30);

/// How long a request with a wrong signature or token waits for a read that something else began. If Secrets Manager does not
/// respond, forged requests would otherwise occupy the environment.
const OTHER_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The limits of a refresh by a request.
struct RefreshBackoff {
    /// How long a refresh may take from the start of the work, before the answer stops waiting.
    refresh_timeout: Duration,
    /// The interval until the next refresh if this one is abandoned, because it did not end within `refresh_timeout`.
    next_interval: Duration,
}

/// The limits of the next refresh. The index is the number of refreshes in a row that were abandoned.
///
/// A refresh usually takes longer than storing, so after the first abandoned refresh the answer has to wait for it. In an outage
/// of Secrets Manager, the growing intervals limit the number of answers that wait.
const REFRESH_BACKOFF: [RefreshBackoff; 4] = [
    RefreshBackoff { refresh_timeout: Duration::ZERO, next_interval: Duration::ZERO },
    RefreshBackoff { refresh_timeout: Duration::from_millis(250), next_interval: FAILURE_INTERVAL },
    RefreshBackoff { refresh_timeout: Duration::from_millis(500), next_interval: FAILURE_INTERVAL },
    RefreshBackoff { refresh_timeout: Duration::from_secs(1), next_interval: MAX_AGE },
];

/// Caches the app credentials, and reads them again when they are old or do not match.
///
/// If the environment serves one request at a time, requests refresh credentials that are old, see
/// [`Self::refresh_alongside`].
/// Otherwise a task does this, see [`Self::keep_fresh`].
#[derive(Debug)]
pub struct SecretCache {
    client: Client,
    secret_id: String,
    current: RwLock<Current>,
    /// Locked while the secret is read, so that one read serves all waiting requests.
    read_lock: Mutex<ReadState>,
    /// Whether the last read failed because AWS no longer accepts the credentials of the execution environment.
    has_expired_aws_credentials: AtomicBool,
    /// The metrics of [`Self::keep_fresh`]. `None` if requests refresh the secret.
    background_metrics: Option<Metrics>,
}

#[derive(Debug, Default)]
struct ReadState {
    /// The time of the last read that was caused by a wrong signature or token.
    last_mismatch_read: Option<Instant>,
}

#[derive(Debug)]
struct Current {
    credentials: Arc<AppCredentials>,
    /// The time from which on the credentials are old.
    refresh_at: Instant,
    /// The number of refreshes in a row that were abandoned.
    abandoned_refreshes: usize,
}

impl Current {
    fn is_old(&self) -> bool {
        Instant::now() >= self.refresh_at
    }

    /// The limits of the next refresh.
    fn backoff(&self) -> &'static RefreshBackoff {
        &REFRESH_BACKOFF[self.abandoned_refreshes.min(REFRESH_BACKOFF.len() - 1)]
    }
}

/// Why the app credentials could not be read. The text contains no part of the secret.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// Secrets Manager did not return a value.
    #[error("the secret of SECRET_ID cannot be read: {0}")]
    Unreadable(String),
    /// AWS no longer accepts the credentials of this execution environment.
    #[error("the secret of SECRET_ID cannot be read: {0}")]
    ExpiredAwsCredentials(String),
    /// The value cannot be used.
    #[error(transparent)]
    Unusable(#[from] CredentialsError),
}

impl SecretCache {
    /// Reads the secret for the first time.
    ///
    /// # Errors
    ///
    /// If the secret cannot be read or used. The function then cannot verify any request.
    pub async fn read(client: Client, secret_id: String) -> Result<Self, SecretsError> {
        let credentials = Arc::new(fetch(&client, &secret_id).await?);
        warn_of_unusual_app_secrets(&credentials);
        let current =
            RwLock::new(Current { credentials, refresh_at: Instant::now() + MAX_AGE, abandoned_refreshes: 0 });
        Ok(Self {
            client,
            secret_id,
            current,
            read_lock: Mutex::default(),
            has_expired_aws_credentials: AtomicBool::new(false),
            background_metrics: None,
        })
    }

    /// Sets the number of requests that the environment serves at a time. If it is more than one, [`Self::keep_fresh`]
    /// refreshes the secret instead of the requests.
    ///
    /// A request would abandon its refresh when it is answered, although other requests need the result too.
    #[must_use]
    pub fn shared_by(self, requests: usize) -> Self {
        Self { background_metrics: (requests > 1).then(Metrics::default), ..self }
    }

    /// Reads the secret again whenever it is old. Never returns. Does nothing if requests refresh the secret.
    ///
    /// A task can do this because Lambda does not freeze an execution environment that serves several requests at a time.
    pub async fn keep_fresh(&self) -> Infallible {
        let Some(metrics) = &self.background_metrics else { return std::future::pending().await };
        loop {
            let refresh_at = self.current().refresh_at;
            sleep_until(refresh_at).await;
            self.refresh(metrics).await;
        }
    }

    /// Moves the counts of [`Self::keep_fresh`] to the metrics of a request, because only requests log metrics.
    pub fn take_background_counts(&self, metrics: &Metrics) {
        if let Some(background_metrics) = &self.background_metrics {
            metrics.take_counts(background_metrics);
        }
    }

    /// Whether AWS no longer accepts the credentials of this execution environment.
    #[must_use]
    pub fn has_expired_aws_credentials(&self) -> bool {
        self.has_expired_aws_credentials.load(Relaxed)
    }

    /// The app credentials to verify a request with.
    #[must_use]
    pub fn credentials(&self) -> Arc<AppCredentials> {
        Arc::clone(&self.current().credentials)
    }

    /// The HMAC key of conversation group ids. Rotating the verify token or an app secret does not change it.
    #[must_use]
    pub fn group_key<'k>(&'k self, credentials: &'k AppCredentials) -> &'k str {
        credentials.group_key(&self.secret_id)
    }

    /// Reads the secret again if it is old. If there is no result at the deadline, the old credentials stay in use.
    ///
    /// Does nothing if [`Self::keep_fresh`] refreshes the secret.
    pub async fn refresh_by(&self, deadline: Instant, metrics: &Metrics) {
        if self.background_metrics.is_some() {
            return;
        }
        if timeout_at(deadline, self.refresh(metrics)).await.is_err() {
            report_timeout(metrics);
        }
    }

    /// Does the work of a request, and concurrently reads the secret again if it is old.
    ///
    /// Lambda freezes the execution environment after the answer. A refresh that takes longer than the work is therefore
    /// abandoned, and a later request starts another one. After an abandoned refresh, an answer waits for the refresh, at most
    /// until the deadline. `REFRESH_BACKOFF` has the limits.
    ///
    /// Does only the work if [`Self::keep_fresh`] refreshes the secret.
    pub async fn refresh_alongside<T>(&self, work: impl Future<Output = T>, deadline: Instant, metrics: &Metrics) -> T {
        if self.background_metrics.is_some() {
            return work.await;
        }
        let refresh_timeout = self.refresh_timeout();
        let refresh_deadline = deadline.min(Instant::now() + refresh_timeout);
        let (mut work, mut refresh) = (pin!(work), pin!(self.refresh(metrics)));
        select! {
            biased;
            result = &mut work => {
                if timeout_at(refresh_deadline, refresh).await.is_err() && !refresh_timeout.is_zero() {
                    report_timeout(metrics);
                }
                result
            }
            () = &mut refresh => work.await,
        }
    }

    /// How long a refresh may take from now, before the answer of this request stops waiting.
    fn refresh_timeout(&self) -> Duration {
        let current = self.current();
        if current.is_old() { current.backoff().refresh_timeout } else { Duration::ZERO }
    }

    /// Reads the secret again if it is old. If that fails, the old credentials stay in use.
    async fn refresh(&self, metrics: &Metrics) {
        if !self.current().is_old() {
            return;
        }
        let _guard = self.read_lock.lock().await;
        if self.current().is_old() {
            {
                // The refresh counts as abandoned until it has a result, because code in an abandoned future does not run.
                let mut current = self.current_mut();
                current.refresh_at = Instant::now() + current.backoff().next_interval;
                current.abandoned_refreshes += 1;
            }
            self.read_again(metrics).await;
        }
    }

    /// Returns newer app credentials than `mismatched`, which did not match a signature or a token. `None` if there are none.
    ///
    /// Reads the secret again, but not before `MISMATCH_INTERVAL` after the last such read. `None` if there is no result at the
    /// deadline, or within `OTHER_READ_TIMEOUT` if the secret is being read already.
    pub async fn read_newer_than(
        &self,
        mismatched: &Arc<AppCredentials>,
        deadline: Instant,
        metrics: &Metrics,
    ) -> Option<Arc<AppCredentials>> {
        let read = async {
            let Ok(mut state) = timeout(OTHER_READ_TIMEOUT, self.read_lock.lock()).await else { return };
            if state.last_mismatch_read.is_none_or(|last| last.elapsed() >= MISMATCH_INTERVAL) {
                state.last_mismatch_read = Some(Instant::now());
                self.read_again(metrics).await;
            }
        };
        if timeout_at(deadline, read).await.is_err() {
            report_timeout(metrics);
            return None;
        }
        Some(self.credentials()).filter(|credentials| !Arc::ptr_eq(credentials, mismatched))
    }

    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn current_mut(&self) -> RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_again(&self, metrics: &Metrics) {
        let fetched = fetch(&self.client, &self.secret_id).await;
        self.has_expired_aws_credentials.store(matches!(fetched, Err(SecretsError::ExpiredAwsCredentials(_))), Relaxed);
        let mut current = self.current_mut();
        current.abandoned_refreshes = 0;
        match fetched {
            Ok(credentials) => {
                if credentials.app_secrets != current.credentials.app_secrets {
                    warn_of_unusual_app_secrets(&credentials);
                }
                current.credentials = Arc::new(credentials);
                current.refresh_at = Instant::now() + MAX_AGE;
                metrics.count(Metric::SecretRefreshes, 1);
            }
            Err(error) => {
                metrics.count(Metric::SecretFailures, 1);
                current.refresh_at = Instant::now() + FAILURE_INTERVAL;
                tracing::error!(error.text = %error, "secret refresh failed, the cached secret stays in use");
            }
        }
    }
}

fn warn_of_unusual_app_secrets(credentials: &AppCredentials) {
    if !credentials.has_usual_app_secrets() {
        tracing::warn!("app_secret in the secret is not 32 hexadecimal digits, the form that Meta uses");
    }
}

fn report_timeout(metrics: &Metrics) {
    metrics.count(Metric::SecretFailures, 1);
    tracing::error!("secret refresh timed out, the cached secret stays in use");
}

async fn fetch(client: &Client, secret_id: &str) -> Result<AppCredentials, SecretsError> {
    let answer = client.get_secret_value().secret_id(secret_id).send().await;
    let answer = answer.map_err(|error| {
        let is_expired = error_code(&error).is_some_and(|(_, code)| is_expired_credentials(code));
        let to_error = if is_expired { SecretsError::ExpiredAwsCredentials } else { SecretsError::Unreadable };
        to_error(error_reason(&error))
    })?;
    Ok(AppCredentials::parse(answer.secret_string().ok_or(CredentialsError::NotAnObject)?)?)
}
