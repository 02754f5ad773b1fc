//! Reads the app credentials from Secrets Manager, and keeps them up to date.

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
    time::{Instant, sleep_until, timeout_at},
};
use whatsapp_webhook::{
    aws_error::is_expired_credentials,
    credentials::{AppCredentials, CredentialsError},
};

use crate::{
    aws::{error_code, error_reason},
    metrics::{Metric, Metrics},
};

/// A secret that was read longer ago than this is read again, alongside the work of a request.
const MAX_AGE: Duration = Duration::from_mins(5);

/// After a failed refresh, the next one waits this long, so that an outage is not made worse.
const FAILURE_INTERVAL: Duration = Duration::from_secs(30);

/// Signatures and tokens that do not match cause at most one read in this time, because forgers can send any number of them.
const MISMATCH_INTERVAL: Duration = Duration::from_secs(30);

/// How long an answer waits for a refresh, and the interval until another refresh if this one is abandoned. The index is the
/// number of refreshes that were abandoned in a row.
///
/// A refresh usually takes longer than storing, so it succeeds only if an answer waits for it. In an outage few answers may wait.
const REFRESH_BACKOFF: [(Duration, Duration); 4] = [
    (Duration::ZERO, Duration::ZERO),
    (Duration::from_millis(250), FAILURE_INTERVAL),
    (Duration::from_millis(500), FAILURE_INTERVAL),
    (Duration::from_secs(1), MAX_AGE),
];

/// Caches the app credentials, and reads them again when they are old or do not match.
#[derive(Debug)]
pub struct SecretCache {
    client: Client,
    secret_id: String,
    current: RwLock<Current>,
    /// Locked while the secret is read, so that one read serves all waiting requests. The value is the time of the last
    /// read that a mismatch caused.
    reading: Mutex<Option<Instant>>,
    /// Whether the last read failed because AWS no longer accepts the credentials of the execution environment.
    has_expired_credentials: AtomicBool,
    /// The counts of [`Self::keep_fresh`]. `None` if requests refresh the secret.
    background: Option<Metrics>,
}

#[derive(Debug)]
struct Current {
    credentials: Arc<AppCredentials>,
    refresh_at: Instant,
    /// Refreshes in a row that did not end in time.
    abandoned_refreshes: usize,
}

impl Current {
    fn is_old(&self) -> bool {
        Instant::now() >= self.refresh_at
    }

    /// The entry of [`REFRESH_BACKOFF`] for the next refresh: the wait of an answer, and the interval.
    fn backoff(&self) -> (Duration, Duration) {
        REFRESH_BACKOFF[self.abandoned_refreshes.min(REFRESH_BACKOFF.len() - 1)]
    }
}

/// The reason why there are no app credentials. It quotes nothing of the secret.
#[derive(Debug, Error)]
pub enum SecretsError {
    /// Secrets Manager did not return a value.
    #[error("the secret of SECRET_ID cannot be read: {0}")]
    Unreadable(String),
    /// AWS no longer accepts the credentials of this execution environment.
    #[error("the secret of SECRET_ID cannot be read: {0}")]
    ExpiredCredentials(String),
    /// The value cannot be used.
    #[error(transparent)]
    Unusable(#[from] CredentialsError),
}

impl SecretCache {
    /// Reads the secret for the first time. An error ends the start, because nothing can be verified without the secret.
    pub async fn read(client: Client, secret_id: String) -> Result<Self, SecretsError> {
        let credentials = Arc::new(fetch(&client, &secret_id).await?);
        warn_of_unusual(&credentials);
        let current =
            RwLock::new(Current { credentials, refresh_at: Instant::now() + MAX_AGE, abandoned_refreshes: 0 });
        Ok(Self {
            client,
            secret_id,
            current,
            reading: Mutex::new(None),
            has_expired_credentials: AtomicBool::new(false),
            background: None,
        })
    }

    /// Leaves the refresh of an old secret to [`Self::keep_fresh`] if this many requests run at the same time.
    ///
    /// A request that reads the secret alongside its work abandons the read when it is answered, although other requests
    /// need it too.
    #[must_use]
    pub fn shared_by(self, requests: usize) -> Self {
        Self { background: (requests > 1).then(Metrics::default), ..self }
    }

    /// Reads the secret whenever it is old. Lambda does not freeze an execution environment that serves several requests.
    ///
    /// Never returns. If requests refresh the secret, it does nothing.
    pub async fn keep_fresh(&self) -> Infallible {
        let Some(metrics) = &self.background else { return std::future::pending().await };
        loop {
            let refresh_at = self.current().refresh_at;
            sleep_until(refresh_at).await;
            self.refresh(metrics).await;
        }
    }

    /// Adds the counts of reads that no request caused to those of a request, because only requests log metrics.
    pub fn take_background_counts(&self, metrics: &Metrics) {
        if let Some(background) = &self.background {
            metrics.take_counts(background);
        }
    }

    /// Whether AWS no longer accepts the credentials of this execution environment.
    #[must_use]
    pub fn has_expired_credentials(&self) -> bool {
        self.has_expired_credentials.load(Relaxed)
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

    /// Reads the secret again if it is old. If this takes longer than until `limit`, the old value stays in use.
    pub async fn refresh_within(&self, limit: Instant, metrics: &Metrics) {
        if self.background.is_some() {
            return;
        }
        if timeout_at(limit, self.refresh(metrics)).await.is_err() {
            report_timeout(metrics);
        }
    }

    /// Does some work, and concurrently reads the secret again if it is old.
    ///
    /// Lambda freezes the execution environment after the answer, so a refresh that takes longer than the work is abandoned
    /// and the next request starts another one. After abandoned refreshes an answer waits a little; see
    /// `REFRESH_BACKOFF`.
    pub async fn refresh_alongside<T>(&self, work: impl Future<Output = T>, deadline: Instant, metrics: &Metrics) -> T {
        if self.background.is_some() {
            return work.await;
        }
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
                // The refresh counts as abandoned until it has a result, because an abandoned future cannot count itself.
                let mut current = self.current_mut();
                current.refresh_at = Instant::now() + current.backoff().1;
                current.abandoned_refreshes += 1;
            }
            self.read_again(metrics).await;
        }
    }

    /// Returns app credentials that are newer than `seen`, which did not match a signature or a token. `None` if there are none.
    ///
    /// Reads the secret again, at most once in `MISMATCH_INTERVAL` and until `limit`.
    pub async fn read_newer_than(
        &self,
        seen: &Arc<AppCredentials>,
        limit: Instant,
        metrics: &Metrics,
    ) -> Option<Arc<AppCredentials>> {
        let read = async {
            let mut last_mismatch = self.reading.lock().await;
            if last_mismatch.is_none_or(|last| last.elapsed() >= MISMATCH_INTERVAL) {
                *last_mismatch = Some(Instant::now());
                self.read_again(metrics).await;
            }
        };
        if timeout_at(limit, read).await.is_err() {
            report_timeout(metrics);
            return None;
        }
        Some(self.credentials()).filter(|credentials| !Arc::ptr_eq(credentials, seen))
    }

    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn current_mut(&self) -> RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_again(&self, metrics: &Metrics) {
        let fetched = fetch(&self.client, &self.secret_id).await;
        self.has_expired_credentials.store(matches!(fetched, Err(SecretsError::ExpiredCredentials(_))), Relaxed);
        let mut current = self.current_mut();
        current.abandoned_refreshes = 0;
        match fetched {
            Ok(credentials) => {
                if credentials.app_secrets != current.credentials.app_secrets {
                    warn_of_unusual(&credentials);
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

fn warn_of_unusual(credentials: &AppCredentials) {
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
        let to_error = if is_expired { SecretsError::ExpiredCredentials } else { SecretsError::Unreadable };
        to_error(error_reason(&error))
    })?;
    Ok(AppCredentials::parse(answer.secret_string().ok_or(CredentialsError::NotAnObject)?)?)
}
