//! [Lambda's Runtime API] (version 2018-06-01) of one execution environment, and its invocations.
//!
//! [Lambda's Runtime API]: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html

use super::process::Process;
use crate::ids::{ACCOUNT, REGION, new_id};
use crate::lock::lock;
use crate::response::{ConnectionDroppedError, Delivery, ResponseBody, ServiceResponse};
use crate::server::{Connections, Server};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, sleep_until};

/// How long Lambda waits until a function requests its first event.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a waiting invocation checks whether the process has exited.
const EXIT_CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// A finished invocation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Invocation {
    /// The request id that the function received.
    pub request_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The time from the delivery of the event to the complete response, or to the timeout or exit.
    pub elapsed: Duration,
    /// When it ended.
    pub ended: Instant,
}

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The function responded. `null` if the response is not JSON.
    Response(Value),
    /// The function reported an error.
    FunctionError {
        /// `errorType`.
        error_type: String,
        /// `errorMessage`.
        error_message: String,
    },
    /// The invocation timed out, and the process was killed.
    TimedOut,
    /// The process exited before or during the invocation.
    Exited(ExitStatus),
}

impl Invocation {
    /// Returns the response, if there is one.
    #[must_use]
    pub fn response(&self) -> Option<&Value> {
        if let Outcome::Response(response) = &self.outcome { Some(response) } else { None }
    }

    /// Returns the HTTP status of a response to API Gateway.
    #[must_use]
    pub fn status_code(&self) -> Option<u64> {
        self.response()?.get("statusCode")?.as_u64()
    }
}

/// The Runtime API of one execution environment.
#[derive(Debug)]
pub(crate) struct RuntimeApi {
    started: Instant,
    init_duration: Mutex<Option<Duration>>,
    init_error: Mutex<Option<Value>>,
    event_sender: mpsc::UnboundedSender<PendingEvent>,
    event_receiver: AsyncMutex<mpsc::UnboundedReceiver<PendingEvent>>,
    /// The invocations that may run at a time.
    slots: Semaphore,
    /// The events that the function has fetched and not responded to yet, by request id.
    running: Mutex<HashMap<String, oneshot::Sender<(Outcome, Instant)>>>,
    trace_header: Mutex<Option<String>>,
    clock_lag: Mutex<Duration>,
}

/// An event that the function has not fetched yet.
#[derive(Debug)]
struct PendingEvent {
    request_id: String,
    event: String,
    timeout: Duration,
    trace_header: Option<String>,
    delivery: oneshot::Sender<Instant>,
    outcome: oneshot::Sender<(Outcome, Instant)>,
}

impl RuntimeApi {
    /// Serves the Runtime API of an environment that runs `max_concurrency` invocations at a time, on a free port.
    pub(super) fn serve(runtime: &Handle, started: Instant, max_concurrency: usize) -> (Arc<Self>, Server) {
        let (event_sender, event_receiver) = mpsc::unbounded_channel();
        let api = Arc::new(Self {
            started,
            init_duration: Mutex::default(),
            init_error: Mutex::default(),
            event_sender,
            event_receiver: AsyncMutex::new(event_receiver),
            slots: Semaphore::new(max_concurrency),
            running: Mutex::default(),
            trace_header: Mutex::default(),
            clock_lag: Mutex::default(),
        });
        let served_api = Arc::clone(&api);
        let server = Server::start(runtime, Arc::new(Connections::default()), None, move |_, request| {
            let api = Arc::clone(&served_api);
            async move { api.handle(request).await }
        });
        (api, server)
    }

    pub(super) fn set_trace_header(&self, header: &str) {
        *lock(&self.trace_header) = Some(header.to_owned());
    }

    pub(super) fn trace_header(&self) -> Option<String> {
        lock(&self.trace_header).clone()
    }

    pub(super) fn set_clock_lag(&self, lag: Duration) {
        *lock(&self.clock_lag) = lag;
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn init_duration(&self) -> Option<Duration> {
        *lock(&self.init_duration)
    }

    pub(super) fn init_error(&self) -> Option<Value> {
        lock(&self.init_error).clone()
    }

    /// Offers an event to the function and waits for its response, the exit of the process or the timeout.
    pub(super) async fn invoke(
        &self,
        event: String,
        trace_header: Option<String>,
        timeout: Duration,
        process: &Process,
    ) -> Invocation {
        let _slot = self.slots.acquire().await;
        let request_id = new_id();
        let (delivery, mut delivered_at) = oneshot::channel();
        let (outcome, outcome_received) = oneshot::channel();
        let pending = PendingEvent { request_id: request_id.clone(), event, timeout, trace_header, delivery, outcome };
        let mut started = Instant::now();
        let _ = self.event_sender.send(pending);
        let response = async {
            tokio::select! {
                at = &mut delivered_at => started = at.unwrap_or(started),
                () = sleep(INIT_TIMEOUT) => return (Outcome::TimedOut, Instant::now()),
            }
            tokio::select! {
                Ok(outcome) = outcome_received => outcome,
                () = sleep_until((started + timeout).into()) => (Outcome::TimedOut, Instant::now()),
            }
        };
        let (outcome, ended) = tokio::select! {
            biased;
            outcome = response => outcome,
            status = wait_for_exit(process) => (Outcome::Exited(status), Instant::now()),
        };
        lock(&self.running).remove(&request_id);
        if outcome == Outcome::TimedOut {
            process.kill();
        }
        Invocation { request_id, outcome, elapsed: ended - started, ended }
    }

    async fn handle(&self, request: Request<Incoming>) -> Result<Response<ResponseBody>, ConnectionDroppedError> {
        let path = request.uri().path().to_owned();
        let route = path.strip_prefix("/2018-06-01/runtime/").unwrap_or_default();
        let answer = match (request.method(), route.split('/').collect::<Vec<_>>().as_slice()) {
            (&Method::GET, ["invocation", "next"]) => self.next_event().await,
            (&Method::POST, ["invocation", id, "response"]) => {
                let body = read_body(request).await?;
                let response = serde_json::from_slice(&body).unwrap_or_default();
                self.complete(id, Outcome::Response(response))
            }
            (&Method::POST, ["invocation", id, "error"]) => {
                let report: Value = serde_json::from_slice(&read_body(request).await?).unwrap_or_default();
                let text = |member: &str| report[member].as_str().unwrap_or_default().to_owned();
                let (error_type, error_message) = (text("errorType"), text("errorMessage"));
                self.complete(id, Outcome::FunctionError { error_type, error_message })
            }
            (&Method::POST, ["init", "error"]) => {
                let report = serde_json::from_slice(&read_body(request).await?).unwrap_or_default();
                *lock(&self.init_error) = Some(report);
                accepted_response()
            }
            _ => error_response(404, "NotFound", "there is no such path"),
        };
        Ok(answer.into_http(Delivery::Complete))
    }

    /// Waits for the next event, without a timeout.
    async fn next_event(&self) -> ServiceResponse {
        lock(&self.init_duration).get_or_insert_with(|| self.started.elapsed());
        let pending = loop {
            let Some(pending) = self.event_receiver.lock().await.recv().await else {
                return error_response(500, "Runtime.Ended", "the execution environment has ended");
            };
            // A closed channel means that the invocation of this event has already ended.
            if !pending.delivery.is_closed() {
                break pending;
            }
        };
        let deadline = SystemTime::now() + pending.timeout + *lock(&self.clock_lag);
        let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let hex = new_id().replace('-', "");
        let trace = pending.trace_header.unwrap_or_else(|| format!("Root=1-{}-{};Sampled=0", &hex[..8], &hex[8..]));
        let answer = ServiceResponse::new(200, "application/json", pending.event)
            .with_header("lambda-runtime-aws-request-id", pending.request_id.clone())
            .with_header("lambda-runtime-deadline-ms", deadline.to_string())
            .with_header(
                "lambda-runtime-invoked-function-arn",
                format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:function"),
            )
            .with_header("lambda-runtime-trace-id", trace);
        lock(&self.running).insert(pending.request_id, pending.outcome);
        let _ = pending.delivery.send(Instant::now());
        answer
    }

    fn complete(&self, id: &str, outcome: Outcome) -> ServiceResponse {
        let now = Instant::now();
        match lock(&self.running).remove(id) {
            Some(running) => {
                let _ = running.send((outcome, now));
                accepted_response()
            }
            None => error_response(400, "InvalidRequestID", "no such invocation is running"),
        }
    }
}

async fn read_body(request: Request<Incoming>) -> Result<Bytes, ConnectionDroppedError> {
    Ok(request.into_body().collect().await.map_err(|_| ConnectionDroppedError)?.to_bytes())
}

fn accepted_response() -> ServiceResponse {
    ServiceResponse::new(202, "application/json", json!({ "status": "OK" }).to_string())
}

fn error_response(status: u16, error_type: &str, message: &str) -> ServiceResponse {
    let body = json!({ "errorType": error_type, "errorMessage": message }).to_string();
    ServiceResponse::new(status, "application/json", body)
}

async fn wait_for_exit(process: &Process) -> ExitStatus {
    loop {
        if let Some(status) = process.exit_status() {
            return status;
        }
        sleep(EXIT_CHECK_INTERVAL).await;
    }
}
