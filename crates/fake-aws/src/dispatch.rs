//! The life of one call: read, fault, effect, latency, answer.

use crate::answer::{Answer, AnswerBody, Dropped, Ending};
use crate::call::{CallInFlight, Service};
use crate::failure::Failure;
use crate::fault::{Fault, Kind};
use crate::lock::lock;
use crate::rules::Incoming;
use crate::sqs::{Refusal, Selection};
use crate::state::State;
use crate::{s3, secrets, sqs};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::http::request::Parts;
use hyper::{Request, Response, body};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// How long an answer that never comes is waited for at most, by a client that has no patience limit of its own.
const NEVER: Duration = Duration::from_mins(5);

/// Answers one call, or tells to drop its connection.
pub(crate) async fn dispatch(
    state: Arc<State>,
    connection: u64,
    request: Request<body::Incoming>,
) -> Result<Response<AnswerBody>, Dropped> {
    let (head, body) = request.into_parts();
    let (service, operation) = addressee(&head);
    let call = state.calls.begin(connection, service, &operation);
    if let Some(fault) = state.rules.pick_unread(service, &operation, connection) {
        call.note(|call| call.fault = Some(fault.name()));
        return Err(Dropped);
    }
    let body = body.collect().await.map_err(|_| Dropped)?.to_bytes();
    let arrived = Instant::now();
    call.note(|call| {
        call.bytes = body.len();
        call.access_key = access_key(&head);
    });
    let due = arrived + state.latency(service);
    let (answer, fault) = match Effect::read(service, &operation, &head, &body) {
        Ok(effect) => take_effect(&state, &call, &operation, effect, due).await?,
        Err(answer) => (answer, None),
    };
    let slower = if let Some(Kind::Slow(by)) = fault.as_ref().map(|fault| &fault.kind) { *by } else { Duration::ZERO };
    sleep_until(due + slower).await;
    say(&call, answer, fault.map(|fault| fault.kind)).await
}

/// The service and operation that a call is for, told by its headers alone.
fn addressee(head: &Parts) -> (Service, String) {
    let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    match target.split_once('.') {
        Some(("AmazonSQS", operation)) => (Service::Sqs, operation.to_owned()),
        Some(("secretsmanager", operation)) => (Service::Secrets, operation.to_owned()),
        _ => (Service::S3, s3::operation(&head.method).to_owned()),
    }
}

/// The id of the access key in the header of AWS's signature version 4.
fn access_key(head: &Parts) -> Option<String> {
    let (_, credential) = head.headers.get("authorization")?.to_str().ok()?.split_once("Credential=")?;
    Some(credential.split_once('/')?.0.to_owned())
}

/// A call that was understood and has not taken effect yet.
enum Effect {
    Sqs(sqs::Send),
    Secrets(secrets::Get),
    S3(s3::Action),
}

impl Effect {
    fn read(service: Service, operation: &str, head: &Parts, body: &Bytes) -> Result<Self, Answer> {
        if !head.headers.contains_key("authorization") {
            return Err(fail(service, &Failure::AccessDenied)); // that it is signed is all that is looked at
        }
        match service {
            Service::Sqs => sqs::Send::read(operation, body).map(Self::Sqs),
            Service::Secrets => secrets::Get::read(operation, body).map(Self::Secrets),
            Service::S3 => s3::Action::read(head, body).map(Self::S3),
        }
    }

    fn act(self, state: &State, call: usize, refusal: Option<&Refusal>) -> Answer {
        match self {
            Self::Sqs(send) => send.act(&state.queues, call, refusal),
            Self::Secrets(get) => get.act(&lock(&state.secrets)),
            Self::S3(action) => action.act(&mut lock(&state.buckets), call),
        }
    }

    /// Acts on the selected entries, or on the whole call, only at `due`.
    async fn act_late(self, state: &State, call: usize, entries: Option<&Selection>, due: Instant) -> Answer {
        match (self, entries) {
            (Self::Sqs(send), Some(entries)) => send.act_late(&state.queues, call, entries, due).await,
            (effect, _) => {
                sleep_until(due).await;
                effect.act(state, call, None)
            }
        }
    }
}

/// A failure of a whole call in the words of its service.
fn fail(service: Service, failure: &Failure) -> Answer {
    match service {
        Service::Sqs => sqs::failure(failure),
        Service::Secrets => secrets::failure(failure),
        Service::S3 => s3::failure(failure),
    }
}

/// Lets a call do what it is for, unless a fault is in the way. `due` is when its answer would be without a fault.
async fn take_effect(
    state: &Arc<State>,
    call: &CallInFlight,
    operation: &str,
    effect: Effect,
    due: Instant,
) -> Result<(Answer, Option<Fault>), Dropped> {
    let (service, queue, entries) = match &effect {
        Effect::Sqs(send) => (Service::Sqs, Some(send.queue.as_str()), send.entries.as_slice()),
        Effect::Secrets(_) => (Service::Secrets, None, [].as_slice()),
        Effect::S3(_) => (Service::S3, None, [].as_slice()),
    };
    let fault = state.rules.pick(&Incoming { service, operation, connection: call.connection, queue, entries, nth: 0 });
    call.note(|call| {
        call.queue = queue.map(str::to_owned);
        call.entries = entries.len();
        call.fault = fault.as_ref().map(Fault::name);
    });
    let refusal = match fault.as_ref().map(|fault| &fault.kind) {
        Some(Kind::Fail(failure)) => return Ok((fail(service, failure), fault)),
        Some(Kind::Drop) => return Err(Dropped),
        Some(Kind::Hang) => return never().await,
        Some(Kind::StoreLate(by, entries)) => {
            let answer = take_effect_late(state, call.number, effect, entries.clone(), due + *by).await?;
            return Ok((answer, fault));
        }
        Some(Kind::Refuse(refusal)) => Some(refusal),
        _ => None,
    };
    Ok((effect.act(state, call.number, refusal), fault))
}

/// Takes effect in a task of its own: hyper drops the future of a call whose client has closed the connection.
async fn take_effect_late(
    state: &Arc<State>,
    call: usize,
    effect: Effect,
    entries: Option<Selection>,
    due: Instant,
) -> Result<Answer, Dropped> {
    let late = LateEffect::begin(state);
    let task = async move { effect.act_late(&late.0, call, entries.as_ref(), due).await };
    tokio::spawn(task).await.map_err(|_| Dropped)
}

/// An effect that is still to come, counted until this is dropped.
struct LateEffect(Arc<State>);

impl LateEffect {
    fn begin(state: &Arc<State>) -> Self {
        state.late_effects.up();
        Self(Arc::clone(state))
    }
}

impl Drop for LateEffect {
    fn drop(&mut self) {
        self.0.late_effects.down();
    }
}

/// Puts the answer on the wire, or as much of it as the fault leaves.
async fn say(call: &CallInFlight, mut answer: Answer, fault: Option<Kind>) -> Result<Response<AnswerBody>, Dropped> {
    let ending = match fault {
        Some(Kind::StoreAndDrop) => return Err(Dropped),
        Some(Kind::StoreAndHang) => return never().await,
        Some(Kind::StoreAndTruncate) => Ending::Truncated,
        Some(Kind::StoreAndStall) => Ending::Stalled,
        Some(Kind::StoreAndGarble) => {
            answer.body = Bytes::from_static(b"{\"Successful\":[{\"Id\":");
            Ending::Whole
        }
        Some(Kind::StoreAndAnswer { status, body }) => {
            answer.status = status;
            answer.body = body.into();
            Ending::Whole
        }
        _ => Ending::Whole,
    };
    call.note(|call| call.status = Some(answer.status));
    Ok(answer.into_response(ending))
}

async fn never<T>() -> Result<T, Dropped> {
    sleep(NEVER).await;
    Err(Dropped)
}
