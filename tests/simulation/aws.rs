//! SQS, S3 and Secrets Manager behind one HTTP connector, in virtual time.

use std::{
    collections::HashMap,
    fmt,
    future::pending,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
};
use aws_smithy_types::{
    body::SdkBody,
    byte_stream::{AggregatedBytes, ByteStream},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use fastrand::Rng;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use crate::{
    faults::{Condition, Fate, Reply, Service},
    notification::Fragment,
    sqs::{Batch, Entry},
};

/// The index of the catch-all queue.
pub(crate) const CATCH_ALL: usize = 0;

/// How long SQS drops messages with the same deduplication id.
const DEDUPLICATION_INTERVAL: Duration = Duration::from_mins(5);

/// The simulated services of one execution environment.
#[derive(Clone)]
pub(crate) struct Aws(Arc<Mutex<State>>);

pub(crate) struct State {
    rng: Rng,
    pub(crate) queues: Vec<Queue>,
    pub(crate) objects: HashMap<String, Object>,
    /// Fragments of the notifications. One that belongs on several queues is here once for each.
    pub(crate) fragments: Vec<Fragment>,
    /// The index of the queue that each fragment belongs on.
    destinations: Vec<usize>,
    by_event_id: HashMap<String, Range<usize>>,
    pub(crate) calls: Vec<Call>,
    pub(crate) violations: Vec<Violation>,
    /// The version of the app secret. Meta signs with a new version immediately.
    pub(crate) secret_version: usize,
    /// The newest version that the function has received.
    pub(crate) received_secret_version: usize,
    /// The number of the current request. Calls before the first one belong to the start.
    pub(crate) delivery: usize,
    pub(crate) delivery_started: Instant,
    pub(crate) conditions: Conditions,
}

/// The condition of each service during one request.
#[derive(Debug, Clone)]
pub(crate) struct Conditions {
    pub(crate) queues: Vec<Condition>,
    pub(crate) s3: Condition,
    pub(crate) secrets_manager: Condition,
}

#[derive(Debug, Clone)]
pub(crate) struct Queue {
    pub(crate) route: &'static str,
    pub(crate) name: String,
    pub(crate) messages: Vec<Message>,
    deduplication: HashMap<String, Instant>,
}

/// A stored message, whose content was compared with its fragment when it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) fragment: usize,
    pub(crate) group: Option<String>,
    pub(crate) object: Option<String>,
}

/// A stored object.
pub(crate) struct Object {
    pub(crate) fragment: usize,
    body: Bytes,
}

/// One call of the function, and how it ended for the function.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) delivery: usize,
    pub(crate) service: Service,
    pub(crate) started: Instant,
    /// The fragment of each entry. An empty batch has none.
    pub(crate) fragments: Vec<usize>,
    pub(crate) fate: Fate,
    pub(crate) end: Option<End>,
    /// The entries that a FIFO queue dropped as duplicates, as bits.
    pub(crate) deduplicated: u16,
    secret_version: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Responded(Instant),
    Abandoned(Instant),
}

/// An invariant that does not hold.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) detail: String,
}

enum Request {
    SendMessageBatch(Batch),
    PutObject { key: String, body: Bytes },
    GetSecretValue,
}

impl Call {
    /// Returns whether the function received the confirmation that the fragment is stored.
    pub(crate) fn is_confirmed(&self, fragment: usize) -> bool {
        let is_stored = |(index, of): (usize, &usize)| *of == fragment && self.fate.is_entry_stored(index);
        matches!(self.end, Some(End::Responded(_)))
            && self.fate.reply == Reply::Result
            && self.fragments.iter().enumerate().any(is_stored)
    }

    pub(crate) fn is_of_sqs(&self) -> bool {
        matches!(self.service, Service::Sqs(_))
    }
}

impl Aws {
    pub(crate) fn new(seed: u64, queues: Vec<Queue>, conditions: Conditions) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: Rng::with_seed(seed),
            queues,
            objects: HashMap::new(),
            fragments: Vec::new(),
            destinations: Vec::new(),
            by_event_id: HashMap::new(),
            calls: Vec::new(),
            violations: Vec::new(),
            secret_version: 0,
            received_secret_version: 0,
            delivery: 0,
            delivery_started: Instant::now(),
            conditions,
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = Request::read(request).await;
        let call = self.state().begin(&request);
        let mut guard = CallGuard { aws: self.clone(), call, is_responded: false };
        let (sender, receiver) = oneshot::channel();
        // The service continues if the caller gives up.
        tokio::spawn(self.execute(call, request, sender));
        let Ok(reply) = receiver.await else { return pending().await };
        guard.is_responded = true;
        reply
    }

    async fn execute(
        self,
        call: usize,
        request: Request,
        sender: oneshot::Sender<Result<HttpResponse, ConnectorError>>,
    ) {
        let (started, fate) = {
            let call = &self.state().calls[call];
            (call.started, call.fate.clone())
        };
        sleep_until(started + fate.effect_after).await;
        self.state().execute(call, &request);
        sleep_until(started + fate.reply_after).await;
        let reply = match fate.reply {
            Reply::Result => {
                let (status, body) = self.state().result(call, &request);
                Ok(respond(status, body.to_string()))
            }
            Reply::Error(status, code) => Ok(respond(status, error(&request, code))),
            Reply::Unparseable => Ok(respond(200, "<html>".to_owned())),
            Reply::ConnectionLost => Err(ConnectorError::io("the connection was reset".into())),
            Reply::Never => return,
        };
        // The caller may have given up.
        let _ = sender.send(reply);
    }
}

impl HttpConnector for Aws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().serve(request))
    }
}

impl fmt::Debug for Aws {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Aws").finish_non_exhaustive()
    }
}

/// Records how a call ends for its caller.
struct CallGuard {
    aws: Aws,
    call: usize,
    is_responded: bool,
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut state = self.aws.state();
        let call = &mut state.calls[self.call];
        call.end = Some(if self.is_responded { End::Responded(now) } else { End::Abandoned(now) });
        let (is_read, version) = (self.is_responded && call.fate.reply == Reply::Result, call.secret_version);
        if is_read && call.service == Service::SecretsManager && call.fate.is_executed {
            state.received_secret_version = state.received_secret_version.max(version);
        }
    }
}

impl Request {
    async fn read(mut request: HttpRequest) -> Self {
        let target = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        let path = request.uri().split('?').next().unwrap_or_default().to_owned();
        let body = ByteStream::new(std::mem::replace(request.body_mut(), SdkBody::taken())).collect().await;
        let body = body.map(AggregatedBytes::into_bytes).unwrap_or_default();
        match target.rsplit('.').next() {
            Some("SendMessageBatch") => Self::SendMessageBatch(serde_json::from_slice(&body).unwrap()),
            Some("GetSecretValue") => Self::GetSecretValue,
            _ => {
                let key = percent_decode_str(path.splitn(4, '/').nth(3).unwrap_or_default());
                let key = key.decode_utf8_lossy().into_owned();
                Self::PutObject { key, body }
            }
        }
    }
}

impl State {
    pub(crate) fn violate(&mut self, invariant: &'static str, detail: impl Into<String>) {
        self.violations.push(Violation { invariant, detail: detail.into() });
    }

    /// Adds the fragments of a notification and returns their indices.
    pub(crate) fn expect(&mut self, fragments: &[Fragment]) -> Range<usize> {
        let first = self.fragments.len();
        for fragment in fragments {
            let (start, destinations) = (self.fragments.len(), self.queues_of(fragment));
            self.fragments.extend(destinations.iter().map(|_| fragment.clone()));
            self.destinations.extend(destinations);
            self.by_event_id.insert(fragment.event_id.clone(), start..self.fragments.len());
        }
        first..self.fragments.len()
    }

    /// Records a call and draws its fate.
    fn begin(&mut self, request: &Request) -> usize {
        let (service, fragments) = match request {
            Request::GetSecretValue => (Service::SecretsManager, Vec::new()),
            Request::PutObject { key, body } => (Service::S3, self.fragments_of_object(key, body).collect()),
            Request::SendMessageBatch(batch) => self.read_batch(batch),
        };
        let condition = match service {
            Service::Sqs(queue) => &self.conditions.queues[queue],
            Service::S3 => &self.conditions.s3,
            Service::SecretsManager => &self.conditions.secrets_manager,
        };
        let fate = condition.fate(&mut self.rng, service, self.delivery_started.elapsed());
        self.calls.push(Call {
            delivery: self.delivery,
            service,
            started: Instant::now(),
            fragments,
            fate,
            end: None,
            deduplicated: 0,
            secret_version: 0,
        });
        self.calls.len() - 1
    }

    fn read_batch(&mut self, batch: &Batch) -> (Service, Vec<usize>) {
        let queue = self.queues.iter().position(|queue| queue.name == batch.queue_name()).expect("a known queue");
        if let Some(rule) = batch.violated_limit(self.queues[queue].is_fifo()) {
            self.violate("SQS accepts every call", rule);
        }
        let fragments = batch.entries.iter().map(|entry| self.fragment_of_entry(queue, entry)).collect();
        (Service::Sqs(queue), fragments)
    }

    /// Finds the fragment of an entry, and compares it with the body that a consumer reads.
    fn fragment_of_entry(&mut self, queue: usize, entry: &Entry) -> usize {
        let event_id = entry.attribute("event_id").unwrap_or_default();
        let Some(fragments) = self.by_event_id.get(event_id).cloned() else {
            self.violate("only signed fragments are sent", format!("event id `{event_id}`"));
            return self.expect(&[Fragment::unknown(event_id)]).start;
        };
        let diverted_from = entry.attribute("diverted_from");
        let destination = match diverted_from {
            Some(name) if queue == CATCH_ALL => self.queues.iter().position(|queue| queue.name == name),
            _ => Some(queue),
        };
        let fragment = fragments.clone().find(|fragment| Some(self.destinations[*fragment]) == destination);
        let is_diverted = entry.attribute("unrouted_reason") == Some("queue-unavailable");
        let is_in_default_form = entry.attribute("request_id").is_some();
        let is_placed = match diverted_from {
            None => !is_diverted,
            Some(_) => queue == CATCH_ALL && (is_diverted || !is_in_default_form),
        };
        if fragment.is_none() || !is_placed {
            let detail = format!("{event_id} on queue {queue}, diverted from {diverted_from:?}");
            self.violate("messages are on the queues of their route", detail);
        }
        let fragment = fragment.unwrap_or(fragments.start);
        let expected = &self.fragments[fragment];
        let object = pointer(entry).map(|key| self.objects.get(&key));
        let body = match object {
            Some(None) => {
                self.violate("a pointer leads to a stored object", event_id);
                return fragment;
            }
            Some(Some(object)) => &object.body,
            None => entry.message_body.as_bytes(),
        };
        let is_equal = match entry.attribute("encoding") {
            None => expected.is_equal_to(body),
            Some(_) => BASE64.decode(body).is_ok_and(|decoded| decoded == expected.bytes),
        };
        if !is_equal {
            self.violate("messages have the signed bytes", event_id);
        }
        fragment
    }

    /// Returns the queue that a fragment belongs on.
    pub(crate) fn destination(&self, fragment: usize) -> usize {
        self.destinations[fragment]
    }

    /// Returns the indices of the same fragment for all of its queues.
    pub(crate) fn siblings(&self, fragment: usize) -> Range<usize> {
        self.by_event_id[&self.fragments[fragment].event_id].clone()
    }

    /// Finds all queues of the most specific route of a fragment.
    fn queues_of(&self, fragment: &Fragment) -> Vec<usize> {
        let queues_of = |route: &str| {
            let queues = self.queues.iter().enumerate().filter(|(_, queue)| queue.route == route);
            queues.map(|(index, _)| index).collect::<Vec<_>>()
        };
        let mut found = fragment.routes.iter().map(|route| queues_of(route));
        found.find(|queues| !queues.is_empty()).unwrap_or_else(|| vec![CATCH_ALL])
    }

    /// Finds the fragment of an object, for all of its queues: an object does not show its queue.
    fn fragments_of_object(&mut self, key: &str, body: &[u8]) -> Range<usize> {
        let event_id = key.rsplit('/').next().and_then(|name| name.split('-').next()).unwrap_or_default();
        let fragments = self.by_event_id.get(event_id).cloned().unwrap_or_default();
        let is_equal = |fragment: &Fragment| {
            fragment.is_equal_to(body) || BASE64.decode(body).is_ok_and(|decoded| decoded == fragment.bytes)
        };
        if !self.fragments[fragments.clone()].first().is_some_and(is_equal) {
            self.violate("objects have the signed bytes", key);
        }
        fragments
    }

    fn execute(&mut self, index: usize, request: &Request) {
        let (secret_version, call) = (self.secret_version, &mut self.calls[index]);
        call.secret_version = secret_version;
        if !call.fate.is_executed {
            return;
        }
        match request {
            Request::GetSecretValue => {}
            Request::PutObject { key, body } => {
                if let Some(&fragment) = call.fragments.first() {
                    self.objects.insert(key.clone(), Object { fragment, body: body.clone() });
                }
            }
            Request::SendMessageBatch(batch) => {
                let Service::Sqs(queue) = call.service else { return };
                for (index, (entry, &fragment)) in batch.entries.iter().zip(&call.fragments).enumerate() {
                    if call.fate.is_entry_stored(index) && !self.queues[queue].store(entry, fragment) {
                        call.deduplicated |= 1 << index;
                    }
                }
            }
        }
    }

    fn result(&self, call: usize, request: &Request) -> (u16, Value) {
        let call = &self.calls[call];
        match request {
            Request::SendMessageBatch(batch) => batch.respond(&call.fate),
            Request::PutObject { .. } => (200, Value::Null),
            Request::GetSecretValue => (200, json!({"Name": "id", "SecretString": secret(call.secret_version)})),
        }
    }

    /// The key of the object of each stored message that has one.
    pub(crate) fn referenced_objects(&self) -> impl Iterator<Item = &str> {
        let messages = self.queues.iter().flat_map(|queue| &queue.messages);
        messages.filter_map(|message| message.object.as_deref())
    }
}

impl Queue {
    pub(crate) fn new(route: &'static str, name: String) -> Self {
        Self { route, name, messages: Vec::new(), deduplication: HashMap::new() }
    }

    pub(crate) fn is_fifo(&self) -> bool {
        self.name.strip_suffix(".fifo").is_some()
    }

    /// Stores a message unless it is a copy that a FIFO queue drops.
    fn store(&mut self, entry: &Entry, fragment: usize) -> bool {
        if let Some(id) = &entry.message_deduplication_id {
            let now = Instant::now();
            if self.deduplication.get(id).is_some_and(|stored| now - *stored < DEDUPLICATION_INTERVAL) {
                return false;
            }
            self.deduplication.insert(id.clone(), now);
        }
        self.messages.push(Message { fragment, group: entry.message_group_id.clone(), object: pointer(entry) });
        true
    }
}

pub(crate) fn app_secret(version: usize) -> String {
    format!("{version:032x}")
}

fn secret(version: usize) -> String {
    json!({"app_secret": app_secret(version), "verify_token": "a-verify-token"}).to_string()
}

/// The key of the object to which a message points.
fn pointer(entry: &Entry) -> Option<String> {
    entry.attribute("ExtendedPayloadSize")?;
    let pointer: Value = serde_json::from_str(&entry.message_body).ok()?;
    Some(pointer[1]["s3Key"].as_str()?.to_owned())
}

fn error(request: &Request, code: &str) -> String {
    match request {
        Request::PutObject { .. } => format!("<Error><Code>{code}</Code><Message>simulated</Message></Error>"),
        _ => json!({"__type": format!("com.amazonaws#{code}"), "message": "simulated"}).to_string(),
    }
}

fn respond(status: u16, body: String) -> HttpResponse {
    HttpResponse::new(status.try_into().unwrap(), body.into())
}
