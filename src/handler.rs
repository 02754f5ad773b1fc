//! Answers a request: the only module that decides about HTTP statuses.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use lambda_http::{
    Body, Context,
    aws_lambda_events::apigw::ApiGatewayV2httpResponse,
    http::{
        HeaderValue, StatusCode,
        header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
};
use serde::Serialize;
use thiserror::Error;
use tokio::time::Instant;
use tracing::{Instrument as _, Level};
use whatsapp_webhook::{
    challenge::{self, ChallengeError},
    credentials::AppCredentials,
    message::RequestContext,
    notification::{Change, Fragment, split},
    signature::{self, SignatureError},
    trace,
};

use crate::{
    client_certificate::has_common_name,
    event::{Event, HttpRequest},
    metrics::{Metric, Metrics},
    queue::{Queues, StoreContext, StoreReport},
    secrets::SecretCache,
    telemetry::RequestLog,
};

/// The part of an invocation's time that is reserved for sending the answer.
const RESPONSE_MARGIN: Duration = Duration::from_secs(1);

/// API Gateway waits this long for an answer, so a later deadline comes from a wrong clock.
///
/// Source: <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html>
const MAX_INVOCATION_TIME: Duration = Duration::from_secs(29);

/// The time for storing if the deadline is in the past, as some local emulators send it.
const DEFAULT_STORAGE_TIME: Duration = Duration::from_secs(9);

/// A challenge waits at most this long for a regular refresh of the secret.
const CHALLENGE_REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// The webhook: secrets to check requests with, and queues to store changes on.
#[derive(Debug)]
pub struct Ingress {
    secrets: SecretCache,
    queues: Queues,
    log: RequestLog,
    client_cn: Option<String>,
    must_restart: AtomicBool,
}

/// Why a request is answered with 200.
#[derive(Debug)]
enum Accepted {
    Challenge(String),
    Stored,
    /// Signed, but without a body.
    Empty,
}

/// Why a request is not answered with 200. The caller gets the status only.
#[derive(Debug, Error)]
enum RequestError {
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    #[error(transparent)]
    Signature(#[from] SignatureError),
    #[error("method not allowed")]
    Method,
    #[error("not a request of an HTTP API")]
    UnsupportedEvent,
    #[error("the body is not valid base64")]
    UndecodableBody,
    #[error("client certificate not allowed")]
    ClientCertificate,
    #[error("credentials expired")]
    ExpiredCredentials,
    #[error("{} of {} not stored, {} diverted", .0.not_stored, .0.messages, .0.diverted)]
    NotStored(StoreReport),
}

impl RequestError {
    /// The HTTP status. Meta repeats a request for days unless the status is 200.
    const fn status(&self) -> StatusCode {
        match self {
            Self::Challenge(ChallengeError::NotAVerificationRequest | ChallengeError::WrongToken)
            | Self::ClientCertificate => StatusCode::FORBIDDEN,
            Self::Challenge(ChallengeError::NoChallenge) | Self::UnsupportedEvent | Self::UndecodableBody => {
                StatusCode::BAD_REQUEST
            }
            Self::Signature(_) => StatusCode::UNAUTHORIZED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotStored(_) | Self::ExpiredCredentials => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn count(&self, metrics: &Metrics) {
        match self {
            Self::ClientCertificate => metrics.count(Metric::RefusedCertificates, 1),
            Self::Challenge(ChallengeError::WrongToken) => metrics.count(Metric::RefusedTokens, 1),
            Self::Signature(rejection) => {
                metrics.count(Metric::RefusedSignatures, 1);
                metrics.count(Metric::SignatureMismatches, usize::from(*rejection == SignatureError::Mismatch));
            }
            _ => {}
        }
    }
}

/// One request, with what every step of its handling needs.
struct Exchange<'r> {
    request: &'r HttpRequest,
    request_id: &'r str,
    context: &'r Context,
    deadline: Instant,
    metrics: &'r Metrics,
}

impl Ingress {
    /// Takes secrets, queues and the log of requests. Makes no call.
    #[must_use]
    pub const fn new(secrets: SecretCache, queues: Queues, log: RequestLog) -> Self {
        Self { secrets, queues, log, client_cn: None, must_restart: AtomicBool::new(false) }
    }

    /// Rejects every caller whose client certificate does not have this common name. `None` allows all callers.
    ///
    /// API Gateway has verified the certificate against the truststore of its custom domain.
    #[must_use]
    pub fn require_client_cn(self, client_cn: Option<String>) -> Self {
        Self { client_cn, ..self }
    }

    /// Whether the execution environment should end, because AWS no longer accepts its credentials.
    ///
    /// Lambda then starts a new one, with new credentials.
    #[must_use]
    pub fn must_restart(&self) -> bool {
        self.must_restart.load(Relaxed)
    }

    /// Answers one request. Every event gets an answer, and 200 to a POST means that all of it is stored.
    pub async fn handle(&self, event: Event, context: &Context) -> Result<ApiGatewayV2httpResponse, Infallible> {
        let (metrics, deadline) = (Metrics::default(), storage_deadline(context));
        let (request, is_supported) = match event {
            Event::Request(request) => (request, true),
            Event::Unsupported => (HttpRequest::default(), false),
        };
        // Not every local emulator sends API Gateway's id.
        let request_id = request.request_id.as_deref().unwrap_or(&context.request_id);
        let exchange = Exchange { request: &request, request_id, context, deadline, metrics: &metrics };
        let answer = async {
            let result = match request.method.as_str() {
                _ if !is_supported => Err(RequestError::UnsupportedEvent),
                _ if !self.is_client_allowed(&request) => Err(RequestError::ClientCertificate),
                "GET" => self.challenge(&exchange).await,
                "POST" => self.notification(&exchange).await,
                _ => Err(RequestError::Method),
            };
            if let Err(error) = &result {
                error.count(&metrics);
                if matches!(error, RequestError::ExpiredCredentials) {
                    tracing::error!("credentials expired, the execution environment ends after this response");
                    self.must_restart.store(true, Relaxed);
                }
            }
            result
        };
        // Warnings and errors get the request's id from the span.
        let result = answer.instrument(tracing::error_span!("request", request.id = request_id)).await;
        self.secrets.take_background_counts(&metrics);
        self.log(&result, &exchange);
        Ok(match result {
            Ok(Accepted::Challenge(challenge)) => challenge_response(challenge),
            Ok(Accepted::Stored | Accepted::Empty) => response(StatusCode::OK),
            Err(error) => response(error.status()),
        })
    }

    /// Keeps the secret fresh if several requests run at the same time. Never returns.
    pub async fn keep_secrets_fresh(&self) -> Infallible {
        self.secrets.keep_fresh().await
    }

    fn is_client_allowed(&self, request: &HttpRequest) -> bool {
        let has_name = |name: &str| request.client_subject.as_deref().is_some_and(|dn| has_common_name(dn, name));
        self.client_cn.as_deref().is_none_or(has_name)
    }

    async fn challenge(&self, exchange: &Exchange<'_>) -> Result<Accepted, RequestError> {
        let (query, metrics) = (&exchange.request.query, exchange.metrics);
        // A challenge may wait for a refresh, because Meta measures the latency of notifications only. If an execution
        // environment gets no notifications, it refreshes the secret only here.
        let limit = exchange.deadline.min(Instant::now() + CHALLENGE_REFRESH_TIMEOUT);
        self.secrets.refresh_within(limit, metrics).await;
        let credentials = self.secrets.credentials();
        let mut answer = challenge::answer(query, &credentials.verify_token);
        if answer == Err(ChallengeError::WrongToken)
            && let Some(newer) = self.read_newer_secrets(&credentials, exchange).await
        {
            answer = challenge::answer(query, &newer.verify_token);
        }
        Ok(Accepted::Challenge(answer?.into_owned()))
    }

    async fn notification(&self, exchange: &Exchange<'_>) -> Result<Accepted, RequestError> {
        let (deadline, metrics) = (exchange.deadline, exchange.metrics);
        let body = exchange.request.body.as_deref().ok_or(RequestError::UndecodableBody)?;
        if let Err(error) = self.verify(body, exchange).await {
            // Meta may have signed with a new app secret, which this execution environment can no longer read.
            let is_inconclusive = error == SignatureError::Mismatch && self.secrets.has_expired_credentials();
            return Err(if is_inconclusive { RequestError::ExpiredCredentials } else { error.into() });
        }
        metrics.count(Metric::Notifications, 1);
        let started = Instant::now();
        let fragments = split(body);
        if fragments.is_empty() {
            return Ok(Accepted::Empty);
        }
        if let Some(age) = fragments.iter().find_map(change).and_then(age) {
            metrics.time(Metric::EventAge, age);
        }
        let credentials = self.secrets.credentials();
        let trace = exchange.context.xray_trace_id.as_deref().and_then(trace::header);
        let request_context = RequestContext {
            request_id: exchange.request_id,
            group_key: self.secrets.group_key(&credentials),
            trace: trace.as_deref(),
        };
        let store = self.queues.store(&fragments, StoreContext { request: request_context, deadline, metrics });
        let stored = self.secrets.refresh_alongside(store, deadline, metrics).await;
        metrics.time(Metric::StoreTime, started.elapsed());
        metrics.count(Metric::Changes, stored.fragments);
        metrics.count(Metric::Stored, stored.messages - stored.not_stored);
        metrics.count(Metric::Diverted, stored.diverted);
        metrics.count(Metric::NotStored, stored.not_stored);
        metrics.count(Metric::Unrouted, stored.unrouted);
        // If something was stored, the credentials still work.
        if stored.has_expired_credentials && stored.not_stored == stored.messages {
            return Err(RequestError::ExpiredCredentials);
        }
        if stored.not_stored > 0 { Err(RequestError::NotStored(stored)) } else { Ok(Accepted::Stored) }
    }

    async fn verify(&self, body: &[u8], exchange: &Exchange<'_>) -> Result<(), SignatureError> {
        let header = exchange.request.signature.as_deref().map(str::as_bytes);
        let check = |credentials: &AppCredentials| {
            signature::verify(credentials.app_secrets.iter().map(String::as_str), body, header)
        };
        let credentials = self.secrets.credentials();
        let result = check(&credentials);
        if result == Err(SignatureError::Mismatch)
            && let Some(newer) = self.read_newer_secrets(&credentials, exchange).await
        {
            return check(&newer);
        }
        result
    }

    /// Reads the secret again if that may explain a mismatch. Leaves half of the time for storing.
    async fn read_newer_secrets(
        &self,
        credentials: &Arc<AppCredentials>,
        exchange: &Exchange<'_>,
    ) -> Option<Arc<AppCredentials>> {
        let now = Instant::now();
        let limit = now + exchange.deadline.saturating_duration_since(now) / 2;
        self.secrets.read_newer_than(credentials, limit, exchange.metrics).await
    }

    /// Writes the log line of a request: our failure as an error, the caller's as a warning.
    fn log(&self, result: &Result<Accepted, RequestError>, exchange: &Exchange<'_>) {
        let status = result.as_ref().map_or_else(RequestError::status, |_| StatusCode::OK);
        let (level, message) = match result {
            Ok(Accepted::Stored) => (Level::INFO, "stored"),
            Ok(Accepted::Challenge(_)) => (Level::INFO, "challenge answered"),
            Ok(Accepted::Empty) => (Level::WARN, "empty notification"),
            Err(_) if status.is_server_error() => (Level::ERROR, "rejected"),
            Err(_) => (Level::WARN, "rejected"),
        };
        let line = Line {
            message,
            request_id: exchange.request_id,
            status: status.as_u16(),
            bytes: exchange.request.body.as_ref().map_or(0, Vec::len),
            reason: result.as_ref().err().map(ToString::to_string),
            metrics: exchange.metrics,
        };
        self.log.write(level, &line);
    }
}

/// The members of a request's log line, apart from time, level and target.
#[derive(Serialize)]
struct Line<'r> {
    message: &'static str,
    #[serde(rename = "request.id")]
    request_id: &'r str,
    #[serde(rename = "response.status")]
    status: u16,
    #[serde(rename = "body.bytes")]
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    metrics: &'r Metrics,
}

/// How long ago a change was sent or happened. Zero if its time is ahead of our clock.
fn age(change: &Change<'_>) -> Option<Duration> {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(change.time()?))?;
    Some(SystemTime::now().duration_since(time).unwrap_or_default())
}

fn change<'p, 'b>(fragment: &'p Fragment<'b>) -> Option<&'p Change<'b>> {
    if let Fragment::Change(change) = fragment { Some(change) } else { None }
}

/// When storing has to end, so that the answer leaves before Lambda ends the invocation.
fn storage_deadline(context: &Context) -> Instant {
    let deadline = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(context.deadline));
    let left = deadline.and_then(|deadline| deadline.duration_since(SystemTime::now()).ok());
    let time = left.map_or(DEFAULT_STORAGE_TIME, |left| left.min(MAX_INVOCATION_TIME).saturating_sub(RESPONSE_MARGIN));
    Instant::now() + time
}

fn challenge_response(challenge: String) -> ApiGatewayV2httpResponse {
    let mut response = response(StatusCode::OK);
    // The challenge is the caller's text: no browser may interpret it as a page, and no cache may keep it.
    response.headers.extend([
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]);
    response.body = Some(Body::Text(challenge));
    response
}

fn response(status: StatusCode) -> ApiGatewayV2httpResponse {
    let mut response = ApiGatewayV2httpResponse::default();
    response.status_code = i64::from(status.as_u16());
    response.body = Some(Body::Text(String::new()));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}
