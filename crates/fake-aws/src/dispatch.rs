//! Processes one call: parses it, selects the fault, executes it, waits for the latency, and responds.

use crate::call::{CallInFlight, Service};
use crate::fault::{Fault, FaultKind};
use crate::lock::lock;
use crate::response::{ConnectionDroppedError, Delivery, ResponseBody, ServiceResponse};
use crate::rules::IncomingCall;
use crate::service_error::ServiceError;
use crate::sqs::{EntryFault, Selection};
use crate::state::State;
use crate::{s3, secrets, sqs};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::http::request::Parts;
use hyper::{Request, Response, body};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// How long a connection without a response stays open, if the client has no timeout.
const HANG_TIMEOUT: Duration = Duration::from_mins(5);

/// Processes one call. An error closes its connection.
pub(crate) async fn dispatch(
    state: Arc<State>,
    connection: u64,
    request: Request<body::Incoming>,
) -> Result<Response<ResponseBody>, ConnectionDroppedError> {
    let (head, body) = request.into_parts();
    let (service, operation) = service_and_operation(&head);
    let call = state.calls.begin(connection, service, &operation);
    if let Some(fault) = state.rules.select_before_body(service, &operation, connection) {
        call.update(|call| call.fault = Some(fault.name()));
        return Err(ConnectionDroppedError);
    }
    let body = body.collect().await.map_err(|_| ConnectionDroppedError)?.to_bytes();
    let arrived_at = Instant::now();
    call.update(|call| {
        call.bytes = body.len();
        call.access_key = access_key(&head);
    });
    let respond_at = arrived_at + state.latency(service);
    let (response, fault) = match ParsedCall::parse(service, &operation, &head, &body) {
        Ok(parsed) => execute_with_fault(&state, &call, &operation, parsed, respond_at).await?,
        Err(response) => (response, None),
    };
    let delay = if let Some(FaultKind::DelayResponse(by)) = fault.as_ref().map(|fault| &fault.kind) {
        *by
    } else {
        Duration::ZERO
    };
    sleep_until(respond_at + delay).await;
    respond(&call, response, fault.map(|fault| fault.kind)).await
}

/// Determines service and operation from the headers alone.
fn service_and_operation(head: &Parts) -> (Service, String) {
    let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    match target.split_once('.') {
        Some(("AmazonSQS", operation)) => (Service::Sqs, operation.to_owned()),
        Some(("secretsmanager", operation)) => (Service::Secrets, operation.to_owned()),
        _ => (Service::S3, s3::operation(&head.method).to_owned()),
    }
}

/// Extracts the id of the access key from the `authorization` header of Signature Version 4.
fn access_key(head: &Parts) -> Option<String> {
    let (_, credential) = head.headers.get("authorization")?.to_str().ok()?.split_once("Credential=")?;
    Some(credential.split_once('/')?.0.to_owned())
}

/// A well-formed call before its execution.
enum ParsedCall {
    Sqs(sqs::SendCall),
    Secrets(secrets::GetSecretValueCall),
    S3(s3::ObjectCall),
}

impl ParsedCall {
    fn parse(service: Service, operation: &str, head: &Parts, body: &Bytes) -> Result<Self, ServiceResponse> {
        if !head.headers.contains_key("authorization") {
            // The fake requires a signature, but does not verify it.
            return Err(error_response(service, &ServiceError::AccessDenied));
        }
        match service {
            Service::Sqs => sqs::SendCall::parse(operation, body).map(Self::Sqs),
            Service::Secrets => secrets::GetSecretValueCall::parse(operation, body).map(Self::Secrets),
            Service::S3 => s3::ObjectCall::parse(head, body).map(Self::S3),
        }
    }

    fn execute(self, state: &State, call_number: usize, entry_fault: Option<&EntryFault>) -> ServiceResponse {
        match self {
            Self::Sqs(send) => send.execute(&state.queues, call_number, entry_fault),
            Self::Secrets(get) => get.execute(&lock(&state.secrets)),
            Self::S3(object) => object.execute(&mut lock(&state.buckets), call_number),
        }
    }

    /// Executes the call at `commit_at`. With a selection, only the selected entries wait until then.
    async fn execute_delayed(
        self,
        state: &State,
        call_number: usize,
        delayed: Option<&Selection>,
        commit_at: Instant,
    ) -> ServiceResponse {
        match (self, delayed) {
            (Self::Sqs(send), Some(delayed)) => {
                send.execute_delayed(&state.queues, call_number, delayed, commit_at).await
            }
            (parsed, _) => {
                sleep_until(commit_at).await;
                parsed.execute(state, call_number, None)
            }
        }
    }
}

/// Makes the error response of a service.
fn error_response(service: Service, error: &ServiceError) -> ServiceResponse {
    match service {
        Service::Sqs => sqs::error_response(error),
        Service::Secrets => secrets::error_response(error),
        Service::S3 => s3::error_response(error),
    }
}

/// Selects the fault for a call, and executes the call unless the fault prevents it.
///
/// `respond_at` is the time of the response without a fault. A fault can delay the execution until some time after it.
async fn execute_with_fault(
    state: &Arc<State>,
    call: &CallInFlight,
    operation: &str,
    parsed: ParsedCall,
    respond_at: Instant,
) -> Result<(ServiceResponse, Option<Fault>), ConnectionDroppedError> {
    let (service, queue, entries) = match &parsed {
        ParsedCall::Sqs(send) => (Service::Sqs, Some(send.queue.as_str()), send.entries.as_slice()),
        ParsedCall::Secrets(_) => (Service::Secrets, None, [].as_slice()),
        ParsedCall::S3(_) => (Service::S3, None, [].as_slice()),
    };
    let fault = state.rules.select_after_body(&IncomingCall {
        service,
        operation,
        connection: call.connection,
        queue,
        entries,
        nth: 0,
    });
    call.update(|call| {
        call.queue = queue.map(str::to_owned);
        call.entries = entries.len();
        call.fault = fault.as_ref().map(Fault::name);
    });
    let entry_fault = match fault.as_ref().map(|fault| &fault.kind) {
        Some(FaultKind::Fail(error)) => return Ok((error_response(service, error), fault)),
        Some(FaultKind::Drop) => return Err(ConnectionDroppedError),
        Some(FaultKind::Hang) => return hang().await,
        Some(FaultKind::DelayCommit(by, entries)) => {
            let response = execute_in_background(state, call.number, parsed, entries.clone(), respond_at + *by).await?;
            return Ok((response, fault));
        }
        Some(FaultKind::RejectEntries(entry_fault)) => Some(entry_fault),
        _ => None,
    };
    Ok((parsed.execute(state, call.number, entry_fault), fault))
}

/// Executes a delayed call in a separate task. Otherwise hyper would cancel it if the client closed the connection.
async fn execute_in_background(
    state: &Arc<State>,
    call_number: usize,
    parsed: ParsedCall,
    delayed: Option<Selection>,
    commit_at: Instant,
) -> Result<ServiceResponse, ConnectionDroppedError> {
    let commit = DelayedCommit::begin(state);
    let task = async move { parsed.execute_delayed(&commit.0, call_number, delayed.as_ref(), commit_at).await };
    tokio::spawn(task).await.map_err(|_| ConnectionDroppedError)
}

/// Counts a call that has not taken effect yet, until this is dropped.
struct DelayedCommit(Arc<State>);

impl DelayedCommit {
    fn begin(state: &Arc<State>) -> Self {
        state.delayed_commits.increment();
        Self(Arc::clone(state))
    }
}

impl Drop for DelayedCommit {
    fn drop(&mut self) {
        self.0.delayed_commits.decrement();
    }
}

/// Makes the HTTP response, and applies the fault to it.
async fn respond(
    call: &CallInFlight,
    mut response: ServiceResponse,
    fault: Option<FaultKind>,
) -> Result<Response<ResponseBody>, ConnectionDroppedError> {
    let delivery = match fault {
        Some(FaultKind::CommitThenDrop) => return Err(ConnectionDroppedError),
        Some(FaultKind::CommitThenHang) => return hang().await,
        Some(FaultKind::CommitThenTruncate) => Delivery::Truncated,
        Some(FaultKind::CommitThenStall) => Delivery::Stalled,
        Some(FaultKind::CommitThenGarble) => {
            response.body = Bytes::from_static(b"{\"Successful\":[{\"Id\":");
            Delivery::Complete
        }
        Some(FaultKind::CommitThenRespond { status, body }) => {
            response.status = status;
            response.body = body.into();
            Delivery::Complete
        }
        _ => Delivery::Complete,
    };
    call.update(|call| call.status = Some(response.status));
    Ok(response.into_http(delivery))
}

async fn hang<T>() -> Result<T, ConnectionDroppedError> {
    sleep(HANG_TIMEOUT).await;
    Err(ConnectionDroppedError)
}
