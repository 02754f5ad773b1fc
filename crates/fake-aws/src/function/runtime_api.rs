//! Lambda's Runtime API (version 2018-06-01) for one sandbox, and the invocations that go through it.

use super::process::Process;
use crate::answer::{Answer, AnswerBody, Dropped, Ending};
use crate::ids::{ACCOUNT, REGION, new_id};
use crate::lock::lock;
use crate::server::{Connections, Server};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::{Value, json};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Handle;
use tokio::sync::{Mutex as TurnMutex, mpsc, oneshot};
use tokio::time::{sleep, sleep_until};

/// How long Lambda waits for a function to ask for its first event.
const INIT_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked whether the process has ended while an invocation waits.
const EXIT_CHECK: Duration = Duration::from_millis(5);

/// What became of one event.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Invocation {
    /// The request id under which the function saw it.
    pub request_id: String,
    /// What came of it.
    pub outcome: Outcome,
    /// From the delivery of the event to the arrival of the whole answer, or to the end of waiting.
    pub elapsed: Duration,
    /// When that was.
    pub ended: Instant,
}

/// What came of an invocation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The function's response; null if it was no JSON.
    Response(Value),
    /// The function reported an error of the invocation.
    FunctionError {
        /// `errorType`.
        error_type: String,
        /// `errorMessage`.
        error_message: String,
    },
    /// No answer came in time, and the process was killed.
    TimedOut,
    /// The process had ended, or ended without an answer.
    Exited(ExitStatus),
}

impl Invocation {
    /// The response, if there is one.
    #[must_use]
    pub fn response(&self) -> Option<&Value> {
        if let Outcome::Response(response) = &self.outcome { Some(response) } else { None }
    }

    /// The HTTP status in a response to API Gateway.
    #[must_use]
    pub fn status_code(&self) -> Option<u64> {
        self.response()?.get("statusCode")?.as_u64()
    }
}

/// The Runtime API of one sandbox.
#[derive(Debug)]
pub(crate) struct RuntimeApi {
    started: Instant,
    first_next: Mutex<Option<Duration>>,
    init_error: Mutex<Option<Value>>,
    offers: mpsc::Sender<Offer>,
    next: TurnMutex<mpsc::Receiver<Offer>>,
    turn: TurnMutex<()>,
    running: Mutex<Option<Running>>,
    trace: Mutex<Option<String>>,
    clock_lag: Mutex<Duration>,
}

/// An event that waits to be fetched.
#[derive(Debug)]
struct Offer {
    request_id: String,
    event: String,
    timeout: Duration,
    delivered: oneshot::Sender<Instant>,
    answered: oneshot::Sender<(Outcome, Instant)>,
}

/// An event that was fetched and is not answered yet.
#[derive(Debug)]
struct Running {
    request_id: String,
    answered: oneshot::Sender<(Outcome, Instant)>,
}

impl RuntimeApi {
    /// Serves it at a free port.
    pub(super) fn serve(runtime: &Handle, started: Instant) -> (Arc<Self>, Server) {
        let (offers, next) = mpsc::channel(1);
        let api = Arc::new(Self {
            started,
            first_next: Mutex::default(),
            init_error: Mutex::default(),
            offers,
            next: TurnMutex::new(next),
            turn: TurnMutex::default(),
            running: Mutex::default(),
            trace: Mutex::default(),
            clock_lag: Mutex::default(),
        });
        let serving = Arc::clone(&api);
        let server = Server::start(runtime, Arc::new(Connections::default()), None, move |_, request| {
            let api = Arc::clone(&serving);
            async move { api.handle(request).await }
        });
        (api, server)
    }

    pub(super) fn set_trace(&self, header: &str) {
        *lock(&self.trace) = Some(header.to_owned());
    }

    pub(super) fn set_clock_lag(&self, lag: Duration) {
        *lock(&self.clock_lag) = lag;
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn first_next(&self) -> Option<Duration> {
        *lock(&self.first_next)
    }

    pub(super) fn init_error(&self) -> Option<Value> {
        lock(&self.init_error).clone()
    }

    /// Offers an event and waits for the first of: its answer, the end of the process, the end of patience.
    pub(super) async fn invoke(&self, event: String, timeout: Duration, process: &Process) -> Invocation {
        let _turn = self.turn.lock().await;
        let request_id = new_id();
        let (delivered, mut delivery) = oneshot::channel();
        let (answered, answer) = oneshot::channel();
        let offer = Offer { request_id: request_id.clone(), event, timeout, delivered, answered };
        let mut began = Instant::now();
        // A process that has died before may have left the last offer unfetched; there is no room then.
        let _ = self.offers.try_send(offer);
        let waiting = async {
            tokio::select! {
                at = &mut delivery => began = at.unwrap_or(began),
                () = sleep(INIT_LIMIT) => return (Outcome::TimedOut, Instant::now()),
            }
            tokio::select! {
                Ok(answer) = answer => answer,
                () = sleep_until((began + timeout).into()) => (Outcome::TimedOut, Instant::now()),
            }
        };
        let (outcome, ended) = tokio::select! {
            biased;
            answer = waiting => answer,
            status = exit_of(process) => (Outcome::Exited(status), Instant::now()),
        };
        lock(&self.running).take();
        if outcome == Outcome::TimedOut {
            process.kill();
        }
        Invocation { request_id, outcome, elapsed: ended - began, ended }
    }

    async fn handle(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>, Dropped> {
        let path = request.uri().path().to_owned();
        let route = path.strip_prefix("/2018-06-01/runtime/").unwrap_or_default();
        let answer = match (request.method(), route.split('/').collect::<Vec<_>>().as_slice()) {
            (&Method::GET, ["invocation", "next"]) => self.next().await,
            (&Method::POST, ["invocation", id, "response"]) => {
                let body = whole(request).await?;
                let response = serde_json::from_slice(&body).unwrap_or_default();
                self.complete(id, Outcome::Response(response))
            }
            (&Method::POST, ["invocation", id, "error"]) => {
                let report: Value = serde_json::from_slice(&whole(request).await?).unwrap_or_default();
                let text = |member: &str| report[member].as_str().unwrap_or_default().to_owned();
                let (error_type, error_message) = (text("errorType"), text("errorMessage"));
                self.complete(id, Outcome::FunctionError { error_type, error_message })
            }
            (&Method::POST, ["init", "error"]) => {
                let report = serde_json::from_slice(&whole(request).await?).unwrap_or_default();
                *lock(&self.init_error) = Some(report);
                accepted()
            }
            _ => refused(404, "NotFound", "there is no such path"),
        };
        Ok(answer.into_response(Ending::Whole))
    }

    /// Waits for an event for as long as the function does.
    async fn next(&self) -> Answer {
        lock(&self.first_next).get_or_insert_with(|| self.started.elapsed());
        let offer = loop {
            let Some(offer) = self.next.lock().await.recv().await else {
                return refused(500, "Runtime.Ended", "the sandbox has ended");
            };
            // Nobody waits any more for an event that was offered to a process that has ended.
            if !offer.delivered.is_closed() {
                break offer;
            }
        };
        let deadline = SystemTime::now() + offer.timeout + *lock(&self.clock_lag);
        let deadline = deadline.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let hex = new_id().replace('-', "");
        let trace = lock(&self.trace).clone();
        let trace = trace.unwrap_or_else(|| format!("Root=1-{}-{};Sampled=0", &hex[..8], &hex[8..]));
        let answer = Answer::new(200, "application/json", offer.event)
            .header("lambda-runtime-aws-request-id", offer.request_id.clone())
            .header("lambda-runtime-deadline-ms", deadline.to_string())
            .header(
                "lambda-runtime-invoked-function-arn",
                format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:function"),
            )
            .header("lambda-runtime-trace-id", trace);
        *lock(&self.running) = Some(Running { request_id: offer.request_id, answered: offer.answered });
        let _ = offer.delivered.send(Instant::now());
        answer
    }

    fn complete(&self, id: &str, outcome: Outcome) -> Answer {
        let now = Instant::now();
        match lock(&self.running).take_if(|running| running.request_id == id) {
            Some(running) => {
                let _ = running.answered.send((outcome, now));
                accepted()
            }
            None => refused(400, "InvalidRequestID", "no such invocation is running"),
        }
    }
}

async fn whole(request: Request<Incoming>) -> Result<Bytes, Dropped> {
    Ok(request.into_body().collect().await.map_err(|_| Dropped)?.to_bytes())
}

fn accepted() -> Answer {
    Answer::new(202, "application/json", json!({ "status": "OK" }).to_string())
}

fn refused(status: u16, error_type: &str, message: &str) -> Answer {
    let body = json!({ "errorType": error_type, "errorMessage": message }).to_string();
    Answer::new(status, "application/json", body)
}

async fn exit_of(process: &Process) -> ExitStatus {
    loop {
        if let Some(status) = process.exit_status() {
            return status;
        }
        sleep(EXIT_CHECK).await;
    }
}
