//! A request in, an answer out: the only file that knows HTTP.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use lambda_http::{
    Body, Request, RequestExt, Response,
    http::{
        Method, StatusCode,
        header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
        response::Builder,
    },
    request::RequestContext,
};
use serde::Serialize;
use thiserror::Error;
use tokio::{
    pin, select,
    time::{Instant, timeout_at},
};
use tracing::Level;

use crate::{
    challenge::{self, Refusal},
    message::Origin,
    metrics::{Metrics, Unit},
    notification::{Change, Piece, split},
    queue::{Queues, Stored},
    secrets::{Known, Secrets},
    signature::{self, Rejection},
    telemetry, trace,
};

/// What is kept of an invocation's time to answer in.
const MARGIN: Duration = Duration::from_secs(1);

/// The time to store in where the deadline is none: some local emulators send one long past.
const NO_DEADLINE: Duration = Duration::from_secs(9);

/// No challenge waits longer than this for secrets that are merely old.
const LONGEST_REFRESH: Duration = Duration::from_secs(1);

/// The webhook: secrets to check requests with, and queues to put changes on.
#[derive(Debug)]
pub struct Ingress {
    secrets: Secrets,
    queues: Queues,
    caller: Option<String>,
}

/// Why a request is answered with 200.
#[derive(Debug)]
enum Done {
    Challenge(String),
    Stored,
    /// Signed, and nothing to store.
    Empty,
}

/// Why a request is not answered with 200. None of it is told to the caller.
#[derive(Debug, Error)]
enum Refused {
    #[error(transparent)]
    Challenge(#[from] Refusal),
    #[error(transparent)]
    Signature(#[from] Rejection),
    #[error("method not allowed")]
    Method,
    #[error("the client certificate is not the one that is let in")]
    Certificate,
    #[error("{} of {} stored nowhere, {} diverted", .0.lost, .0.pieces, .0.diverted)]
    NotStored(Stored),
}

impl Refused {
    /// What Meta makes of it: it tries again with anything that is not 200, for days.
    const fn status(&self) -> StatusCode {
        match self {
            Self::Challenge(Refusal::Forbidden | Refusal::WrongToken) | Self::Certificate => StatusCode::FORBIDDEN,
            Self::Challenge(Refusal::NoChallenge) => StatusCode::BAD_REQUEST,
            Self::Signature(_) => StatusCode::UNAUTHORIZED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotStored(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Ingress {
    /// Takes what it needs; nothing is called.
    #[must_use]
    pub const fn new(secrets: Secrets, queues: Queues) -> Self {
        Self { secrets, queues, caller: None }
    }

    /// Lets in only who shows a client certificate of this common name, if there is one.
    ///
    /// API Gateway has checked the certificate itself, against the truststore of its domain.
    #[must_use]
    pub fn only_for(self, caller: Option<String>) -> Self {
        Self { caller, ..self }
    }

    /// Answers one request; there is no request without an answer, and 200 to a POST means that all of it is stored.
    pub async fn handle(&self, request: Request) -> Result<Response<Body>, Infallible> {
        let request_id = request_id(&request);
        let metrics = Metrics::default();
        let answer = match *request.method() {
            _ if !self.lets_in(&request) => {
                metrics.count("RefusedCertificates", 1);
                Err(Refused::Certificate)
            }
            Method::GET => self.challenge(&request, until(&request), &metrics).await,
            Method::POST => self.notification(&request, &request_id, &metrics).await,
            _ => Err(Refused::Method),
        };
        log(&answer, &request, &request_id, &metrics);
        Ok(match answer {
            Ok(Done::Challenge(challenge)) => challenge_response(challenge),
            Ok(Done::Stored | Done::Empty) => empty(StatusCode::OK),
            Err(refused) => empty(refused.status()),
        })
    }

    fn lets_in(&self, request: &Request) -> bool {
        self.caller.as_deref().is_none_or(|caller| subject(request).is_some_and(|subject| names(subject, caller)))
    }

    async fn challenge(&self, request: &Request, until: Instant, metrics: &Metrics) -> Result<Done, Refused> {
        let query = request.uri().query().unwrap_or_default();
        // Nobody measures how long a challenge takes, and a sandbox may get nothing else.
        let ends = until.min(Instant::now() + LONGEST_REFRESH);
        if timeout_at(ends, self.secrets.refresh(metrics)).await.is_err() {
            not_read_in_time(metrics);
        }
        let known = self.secrets.known();
        let mut answer = challenge::answer(query, &known.verify_token);
        if answer == Err(Refusal::WrongToken)
            && let Some(newer) = self.newer_than(&known, until, metrics).await
        {
            answer = challenge::answer(query, &newer.verify_token);
        }
        metrics.count("RefusedTokens", usize::from(answer == Err(Refusal::WrongToken)));
        Ok(Done::Challenge(answer?.into_owned()))
    }

    async fn notification(&self, request: &Request, request_id: &str, metrics: &Metrics) -> Result<Done, Refused> {
        let until = until(request);
        let body: &[u8] = request.body().as_ref();
        self.verify(request, body, until, metrics).await.inspect_err(|rejection| {
            metrics.count("RefusedSignatures", 1);
            metrics.count("SignatureMismatches", usize::from(*rejection == Rejection::Mismatch));
        })?;
        metrics.count("Notifications", 1);
        let started = Instant::now();
        let pieces = split(body);
        if pieces.is_empty() {
            return Ok(Done::Empty);
        }
        if let Some(age) = pieces.iter().find_map(change).and_then(age) {
            metrics.time("EventAge", Unit::Seconds, age);
        }
        let known = self.secrets.known();
        let trace = request.lambda_context_ref().and_then(|context| trace::header(context.xray_trace_id.as_deref()?));
        let origin = Origin { request_id, group_key: &known.verify_token, trace: trace.as_deref() };
        let stored = self.store(self.queues.store(&pieces, origin, until, metrics), until, metrics).await;
        metrics.time("StoreTime", Unit::Milliseconds, started.elapsed());
        metrics.count("Changes", stored.pieces);
        metrics.count("Stored", stored.pieces - stored.lost);
        metrics.count("Diverted", stored.diverted);
        metrics.count("NotStored", stored.lost);
        metrics.count("Unrouted", stored.unrouted);
        if stored.lost > 0 { Err(Refused::NotStored(stored)) } else { Ok(Done::Stored) }
    }

    /// Stores, and refreshes the secrets beside it if they are old.
    ///
    /// Nothing is done after the answer, so a reading that takes longer than the storing is dropped, and the next
    /// request begins one; after such, an answer waits a little.
    async fn store(&self, store: impl Future<Output = Stored>, until: Instant, metrics: &Metrics) -> Stored {
        let patience = self.secrets.patience();
        let ends = until.min(Instant::now() + patience);
        let refresh = self.secrets.refresh(metrics);
        pin!(store, refresh);
        select! {
            biased;
            stored = &mut store => {
                if timeout_at(ends, refresh).await.is_err() && !patience.is_zero() {
                    not_read_in_time(metrics);
                }
                stored
            }
            () = &mut refresh => store.await,
        }
    }

    async fn verify(&self, request: &Request, body: &[u8], until: Instant, metrics: &Metrics) -> Result<(), Rejection> {
        let header = request.headers().get(signature::HEADER).map(lambda_http::http::HeaderValue::as_bytes);
        let signed_by = |known: &Known| signature::verify(known.app_secrets.iter().map(String::as_str), body, header);
        let known = self.secrets.known();
        let verdict = signed_by(&known);
        if verdict == Err(Rejection::Mismatch)
            && let Some(newer) = self.newer_than(&known, until, metrics).await
        {
            return signed_by(&newer);
        }
        verdict
    }

    /// Reads the secret again where that may explain a mismatch, but leaves half of the time for storing.
    async fn newer_than(&self, known: &Arc<Known>, until: Instant, metrics: &Metrics) -> Option<Arc<Known>> {
        let now = Instant::now();
        let half = now + until.saturating_duration_since(now) / 2;
        timeout_at(half, self.secrets.after_mismatch(known, metrics)).await.unwrap_or_else(|_| {
            not_read_in_time(metrics);
            None
        })
    }
}

fn not_read_in_time(metrics: &Metrics) {
    metrics.count("SecretFailures", 1);
    tracing::error!("secret not read in time, the old one serves on");
}

/// Logs what became of a request: our failure as an error, the caller's as a warning.
fn log(answer: &Result<Done, Refused>, request: &Request, request_id: &str, metrics: &Metrics) {
    let status = answer.as_ref().map_or_else(Refused::status, |_| StatusCode::OK);
    let (level, message) = match answer {
        Ok(Done::Stored) => (Level::INFO, "stored"),
        Ok(Done::Challenge(_)) => (Level::INFO, "challenge answered"),
        Ok(Done::Empty) => (Level::WARN, "signed, but empty"),
        Err(_) if status.is_server_error() => (Level::ERROR, "refused"),
        Err(_) => (Level::WARN, "refused"),
    };
    let line = Line {
        message,
        request_id,
        status: status.as_u16(),
        bytes: request.body().as_ref().len(),
        reason: answer.as_ref().err().map(ToString::to_string),
        metrics,
    };
    telemetry::request(level, &line);
}

/// What is said of a request, besides what every line has.
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

/// How long ago a change was sent, or happened; a clock ahead of ours makes it none.
fn age(change: &Change<'_>) -> Option<Duration> {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(change.time()?))?;
    Some(SystemTime::now().duration_since(time).unwrap_or_default())
}

fn change<'p, 'b>(piece: &'p Piece<'b>) -> Option<&'p Change<'b>> {
    if let Piece::Change(change) = piece { Some(change) } else { None }
}

fn request_id(request: &Request) -> String {
    // By far not all local emulators send API Gateway's id; Lambda's own is always there.
    let from_gateway = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.request_id.clone(),
        _ => None,
    };
    let from_lambda = || request.lambda_context_ref().map(|context| context.request_id.clone());
    from_gateway.or_else(from_lambda).unwrap_or_default()
}

/// The distinguished name in the client certificate.
fn subject(request: &Request) -> Option<&str> {
    match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => {
            context.authentication.as_ref()?.client_cert.as_ref()?.subject_dn.as_deref()
        }
        _ => None,
    }
}

/// Whether a distinguished name has exactly one common name, and it is this.
///
/// A name with quoted or escaped characters, in which a comma may be part of a value, is not taken apart but refused.
fn names(subject: &str, common_name: &str) -> bool {
    let parts = subject.split([',', '+']).map(str::trim_start);
    let mut found = parts.filter_map(|part| part.split_once('=')).filter(|(kind, _)| kind.eq_ignore_ascii_case("CN"));
    !subject.contains(['\\', '"'])
        && found.next().is_some_and(|(_, name)| name == common_name)
        && found.next().is_none()
}

/// When storing has to end, so that the answer leaves before Lambda ends the invocation.
fn until(request: &Request) -> Instant {
    let deadline = request.lambda_context_ref().map_or(0, |context| context.deadline);
    let deadline = SystemTime::UNIX_EPOCH + Duration::from_millis(deadline);
    let left = deadline.duration_since(SystemTime::now());
    Instant::now() + left.map_or(NO_DEADLINE, |left| left.saturating_sub(MARGIN))
}

fn challenge_response(challenge: String) -> Response<Body> {
    // The challenge is the caller's text: no browser may take it for a page, no cache keep it.
    let head = Response::builder()
        .header(CONTENT_TYPE, "text/plain; charset=utf-8")
        .header(X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(CACHE_CONTROL, "no-store");
    respond(head, Body::Text(challenge))
}

fn empty(status: StatusCode) -> Response<Body> {
    let head = Response::builder().status(status);
    let is_method = status == StatusCode::METHOD_NOT_ALLOWED;
    respond(if is_method { head.header(ALLOW, "GET, POST") } else { head }, Body::Empty)
}

fn respond(head: Builder, body: Body) -> Response<Body> {
    head.body(body).expect("every header is a constant")
}
