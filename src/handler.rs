//! Answers a request: the only module that decides about HTTP statuses.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use futures_util::FutureExt as _;
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
    archive::Archive,
    client_certificate::has_common_name,
    event::{Event, HttpRequest},
    metrics::{Metric, Metrics},
    payload::PayloadError,
    queue::{Queues, StoreContext, StoreReport},
    secrets::SecretCache,
    telemetry::RequestLog,
};

/// The part of the time of an invocation that is reserved for sending the answer.
const RESPONSE_MARGIN: Duration = Duration::from_secs(1);

/// The maximum time from now to the deadline of an invocation, even if Lambda's timeout is longer or the clock is wrong.
///
/// API Gateway waits 30 s for an answer. One second of these is a reserve.
/// Source: <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html>
const MAX_INVOCATION_TIME: Duration = Duration::from_secs(29);

/// The time for storing if the deadline of the invocation is in the past. Some local emulators send such a deadline.
const DEFAULT_STORAGE_TIME: Duration = Duration::from_secs(9);

/// A verification request waits at most this long for the refresh of an old secret.
const CHALLENGE_REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// The function's state: the secrets that verify requests, the queues that store changes, and the log.
#[derive(Debug)]
pub struct Ingress {
    secrets: SecretCache,
    queues: Queues,
    archive: Option<Archive>,
    log: RequestLog,
    /// The common name that the client certificate of a caller must have. `None` allows all callers.
    client_cn: Option<String>,
    must_restart: AtomicBool,
}

/// Why a request is answered with 200.
#[derive(Debug)]
enum Accepted {
    /// A verification request, with its challenge.
    Challenge(String),
    /// A notification with all its messages stored.
    Stored,
    /// A signed POST with an empty body.
    Empty,
}

/// Why a request is not answered with 200. The log has the text, and the caller gets only the status.
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
    /// The signature could not be verified, because the new app secret could not be read.
    #[error("AWS credentials expired")]
    ExpiredAwsCredentials,
    #[error("{} of {} not stored, {} diverted", .0.not_stored, .0.messages, .0.diverted)]
    NotStored(StoreReport),
    #[error("stored, but not archived")]
    NotArchived(PayloadError),
}

impl RequestError {
    /// The HTTP status. Meta repeats a notification for days unless the status is 200.
    const fn status(&self) -> StatusCode {
        match self {
            Self::Challenge(ChallengeError::NotAVerificationRequest | ChallengeError::WrongToken)
            | Self::ClientCertificate => StatusCode::FORBIDDEN,
            Self::Challenge(ChallengeError::NoChallenge) | Self::UnsupportedEvent | Self::UndecodableBody => {
                StatusCode::BAD_REQUEST
            }
            Self::Signature(_) => StatusCode::UNAUTHORIZED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotStored(_) | Self::NotArchived(_) | Self::ExpiredAwsCredentials => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether a cause is that AWS no longer accepts the credentials. They may have expired after a part was stored.
    const fn has_expired_aws_credentials(&self) -> bool {
        match self {
            Self::ExpiredAwsCredentials | Self::NotArchived(PayloadError::ExpiredAwsCredentials(_)) => true,
            Self::NotStored(report) => report.has_expired_aws_credentials,
            _ => false,
        }
    }

    fn count(&self, metrics: &Metrics) {
        match self {
            Self::ClientCertificate => metrics.count(Metric::RefusedCertificates, 1),
            Self::Challenge(ChallengeError::WrongToken) => metrics.count(Metric::RefusedTokens, 1),
            Self::Signature(error) => {
                metrics.count(Metric::RefusedSignatures, 1);
                metrics.count(Metric::SignatureMismatches, usize::from(*error == SignatureError::Mismatch));
            }
            _ => {}
        }
    }
}

/// A request, with the values that every step of its handling needs.
struct Exchange<'r> {
    request: &'r HttpRequest,
    request_id: &'r str,
    context: &'r Context,
    /// When storing has to end.
    deadline: Instant,
    metrics: &'r Metrics,
}

impl Ingress {
    /// Takes the secrets, the queues and the log of requests. AWS is not called.
    #[must_use]
    pub const fn new(secrets: SecretCache, queues: Queues, log: RequestLog) -> Self {
        Self { secrets, queues, archive: None, log, client_cn: None, must_restart: AtomicBool::new(false) }
    }

    /// Archives every signed notification with a nonempty body. `None` archives nothing.
    #[must_use]
    pub fn with_archive(self, archive: Option<Archive>) -> Self {
        Self { archive, ..self }
    }

    /// Rejects every caller whose client certificate does not have this common name. `None` allows all callers.
    ///
    /// API Gateway verifies the certificate itself, against the truststore of its custom domain.
    #[must_use]
    pub fn require_client_cn(self, client_cn: Option<String>) -> Self {
        Self { client_cn, ..self }
    }

    /// Whether the execution environment must end, because a request failed and AWS no longer accepts the credentials.
    ///
    /// Lambda then starts a new one, with new credentials.
    #[must_use]
    pub fn must_restart(&self) -> bool {
        self.must_restart.load(Relaxed)
    }

    /// Answers one request. Every event gets an answer. The answer 200 to a POST means that all its messages are stored, and
    /// the notification is archived if the archive is required.
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
                if error.has_expired_aws_credentials() {
                    tracing::error!("AWS credentials expired, the execution environment ends after this response");
                    self.must_restart.store(true, Relaxed);
                }
            }
            result
        };
        // The span adds the request's id to the log lines of warnings and errors.
        let result = answer.instrument(tracing::error_span!("request", request.id = request_id)).await;
        self.secrets.take_background_counts(&metrics);
        self.log(&result, &exchange);
        Ok(match result {
            Ok(Accepted::Challenge(challenge)) => challenge_response(challenge),
            Ok(Accepted::Stored | Accepted::Empty) => response(StatusCode::OK),
            Err(error) => response(error.status()),
        })
    }

    /// Refreshes the secret if the environment serves several requests at a time, see [`SecretCache::keep_fresh`]. Never returns.
    pub async fn keep_secrets_fresh(&self) -> Infallible {
        self.secrets.keep_fresh().await
    }

    fn is_client_allowed(&self, request: &HttpRequest) -> bool {
        let has_cn = |cn: &str| request.client_subject.as_deref().is_some_and(|subject| has_common_name(subject, cn));
        self.client_cn.as_deref().is_none_or(has_cn)
    }

    async fn challenge(&self, exchange: &Exchange<'_>) -> Result<Accepted, RequestError> {
        let (query, metrics) = (&exchange.request.query, exchange.metrics);
        // An environment that serves one request at a time refreshes the secret only during requests, and may get no
        // notification. The answer may wait here, because Meta limits the latency of notifications only.
        let refresh_deadline = exchange.deadline.min(Instant::now() + CHALLENGE_REFRESH_TIMEOUT);
        self.secrets.refresh_by(refresh_deadline, metrics).await;
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
            // Meta may have signed with a new app secret that this execution environment cannot read.
            let is_inconclusive = error == SignatureError::Mismatch && self.secrets.has_expired_aws_credentials();
            return Err(if is_inconclusive { RequestError::ExpiredAwsCredentials } else { error.into() });
        }
        metrics.count(Metric::Notifications, 1);
        let started = Instant::now();
        let fragments = split(body);
        if fragments.is_empty() {
            return Ok(Accepted::Empty);
        }
        if let Some(age) = fragments.iter().find_map(as_change).and_then(age) {
            metrics.time(Metric::EventAge, age);
        }
        let credentials = self.secrets.credentials();
        let trace = exchange.context.xray_trace_id.as_deref().and_then(trace::header);
        let request_context = RequestContext {
            request_id: exchange.request_id,
            group_key: self.secrets.group_key(&credentials),
            trace: trace.as_deref(),
        };
        let context = StoreContext { request: request_context, deadline, metrics };
        let store = self.queues.store(&fragments, context);
        let work = async {
            let Some(archive) = &self.archive else { return (store.await, Ok(())) };
            let signature = exchange.request.signature.as_deref().unwrap_or_default();
            archive.store_alongside(store, body, signature, context).boxed().await
        };
        let (stored, archived) = self.secrets.refresh_alongside(work, deadline, metrics).await;
        metrics.time(Metric::StoreTime, started.elapsed());
        metrics.count(Metric::Changes, stored.fragments);
        metrics.count(Metric::Stored, stored.messages - stored.not_stored);
        metrics.count(Metric::Diverted, stored.diverted);
        metrics.count(Metric::NotStored, stored.not_stored);
        metrics.count(Metric::Unrouted, stored.unrouted);
        if stored.not_stored > 0 {
            return Err(RequestError::NotStored(stored));
        }
        archived.map(|()| Accepted::Stored).map_err(RequestError::NotArchived)
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

    /// Reads the secret again after a mismatch, and returns newer credentials if there are any. Leaves half of the time for
    /// storing.
    async fn read_newer_secrets(
        &self,
        credentials: &Arc<AppCredentials>,
        exchange: &Exchange<'_>,
    ) -> Option<Arc<AppCredentials>> {
        let now = Instant::now();
        let read_deadline = now + exchange.deadline.saturating_duration_since(now) / 2;
        self.secrets.read_newer_than(credentials, read_deadline, exchange.metrics).await
    }

    /// Writes the log line of a request. A failure of the function is an error, a rejected request is a warning.
    fn log(&self, result: &Result<Accepted, RequestError>, exchange: &Exchange<'_>) {
        let status = result.as_ref().map_or_else(RequestError::status, |_| StatusCode::OK);
        let (level, message) = match result {
            Ok(Accepted::Stored) => (Level::INFO, "stored"),
            Ok(Accepted::Challenge(_)) => (Level::INFO, "challenge answered"),
            Ok(Accepted::Empty) => (Level::WARN, "empty notification"),
            Err(RequestError::NotArchived(_)) => (Level::ERROR, "not archived"),
            Err(_) if status.is_server_error() => (Level::ERROR, "not stored"),
            Err(_) => (Level::WARN, "rejected"),
        };
        let line = RequestLine {
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
struct RequestLine<'r> {
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

/// The age of a change by its own time. Zero if that is in the future. `None` if the change has no time.
fn age(change: &Change<'_>) -> Option<Duration> {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(change.time()?))?;
    Some(SystemTime::now().duration_since(time).unwrap_or_default())
}

fn as_change<'f, 'b>(fragment: &'f Fragment<'b>) -> Option<&'f Change<'b>> {
    if let Fragment::Change(change) = fragment { Some(change) } else { None }
}

/// When storing has to end, so that the function can send the answer before Lambda ends the invocation.
fn storage_deadline(context: &Context) -> Instant {
    let deadline = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(context.deadline));
    let left = deadline.and_then(|deadline| deadline.duration_since(SystemTime::now()).ok());
    let time = left.map_or(DEFAULT_STORAGE_TIME, |left| left.min(MAX_INVOCATION_TIME).saturating_sub(RESPONSE_MARGIN));
    Instant::now() + time
}

fn challenge_response(challenge: String) -> ApiGatewayV2httpResponse {
    let mut response = response(StatusCode::OK);
    // The challenge is a text of the caller. No browser may interpret it as a page, and no cache may store it.
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
