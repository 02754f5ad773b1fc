//! Replays archived notifications: to the callback URL, or to queues as the function would store them.
//!
//! A notification counts as replayed after every queue stored all its messages. Then its key is written to the state file. A
//! run that was killed goes on after this key, so it loses nothing and repeats the messages of one batch or one
//! notification at most.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use reqwest::{Method, header::HeaderMap};
use serde::Serialize;
use tokio::time::sleep;
use whatsapp_webhook::{
    archive::ArchiveHeader,
    message::{CatchAllReason, MAX_MESSAGE_BYTES, Message, RequestContext, event_id, object_key},
    notification::Fragment,
    signature,
};

use super::{
    app_secrets::Signer,
    error::ArchiveError,
    notification::{Archived, SignatureState},
    scan::{Archive, ScanRange},
    selection::{Selection, SelectionId},
    send::Sender,
    state::{State, StateFile},
    time::Time,
};
use crate::{
    aws::stack_info::StackInfo,
    meta::deliver::Endpoint,
    queues::{
        pass::{MAX_RETRIES, RETRY_INTERVAL},
        queue::{Queue, sibling_url, sqs_client},
    },
};

/// Messages that are collected before they are sent, so that most calls send a full batch.
const MIN_FLUSH_MESSAGES: usize = 10;
/// Where notifications are replayed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destination {
    /// The callback URL of the stack gets whole requests.
    Endpoint,
    /// The queues of this route get its changes.
    Route(String),
    /// The queue with this name or URL gets the selected changes.
    Queue(String),
}

/// A replay that was prepared.
#[derive(Debug)]
pub struct Replay<'s> {
    archive: &'s Archive,
    stack: &'s StackInfo,
    selection: Selection,
    queues: Vec<Queue>,
    group_key: String,
    state_file: StateFile,
}

/// The identity of a replay: the next run with the same one goes on where it stopped.
#[derive(Serialize)]
struct Identity<'r> {
    region: &'r str,
    stack: &'r str,
    bucket: &'r str,
    selection: SelectionId<'r>,
    destination: &'r Destination,
}

/// The result of a replay, or of its dry run.
#[derive(Debug, Default, Serialize)]
pub struct ReplayReport {
    /// Notifications that were replayed completely.
    pub notifications: usize,
    /// Messages that queues stored, or requests that the callback URL accepted.
    pub sent: usize,
    /// Those of them whose body is in S3.
    pub claim_checks: usize,
    /// The keys of objects that are not authentic. They are never replayed.
    pub not_authentic: Vec<(String, SignatureState)>,
    /// Notifications that the callback URL would reject, because only an older app secret signed them.
    pub older_secret: usize,
    /// Messages that a queue rejects, by SQS's code.
    pub rejected: BTreeMap<String, usize>,
    /// The key after which this run began, because an earlier one was interrupted.
    pub resumed_after: Option<String>,
    /// The key of the last notification that was replayed completely.
    pub last_key: Option<String>,
    /// The file that remembers `last_key`, if the replay is not complete.
    pub state_file: Option<PathBuf>,
    /// The reason why the replay is not complete.
    pub stop_reason: Option<String>,
}

impl ReplayReport {
    /// Whether all selected notifications were replayed.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.stop_reason.is_none()
            && self.not_authentic.is_empty()
            && self.older_secret == 0
            && self.rejected.is_empty()
    }
}

impl<'s> Replay<'s> {
    /// Determines the queues of a replay. Calls nothing. `state_folder` is for the file that remembers how far it got.
    pub fn prepare(
        archive: &'s Archive,
        stack: &'s StackInfo,
        selection: Selection,
        destination: &Destination,
        state_folder: &Path,
    ) -> Result<Self, ArchiveError> {
        let bucket = archive.buckets.archive();
        let (client, catch_all) = (sqs_client(stack), &stack.routes.catch_all().url);
        let identity =
            Identity { region: &stack.region, stack: &stack.stack, bucket, selection: selection.id(), destination };
        let state_file = StateFile::in_folder(state_folder, &identity);
        let (selection, queues) = match destination {
            Destination::Endpoint => (selection, Vec::new()),
            Destination::Route(route) => {
                let selection = Selection { route: Some(route.clone()), ..selection };
                let urls = stack.queue_urls().remove(route.as_str()).unwrap_or_default();
                (selection, urls.into_iter().map(|url| Queue::new(&client, url)).collect())
            }
            Destination::Queue(queue) if queue.contains("://") => (selection, vec![Queue::new(&client, queue)]),
            Destination::Queue(queue) => (selection, vec![Queue::new(&client, &sibling_url(catch_all, queue))]),
        };
        let selection = selection.with_route_of(&archive.routes)?;
        let group_key = stack.group_key()?;
        Ok(Self { archive, stack, selection, queues, group_key, state_file })
    }

    /// Returns the names of the queues, none for the callback URL.
    pub fn queue_names(&self) -> impl Iterator<Item = &str> {
        self.queues.iter().map(|queue| queue.name.as_str())
    }

    /// Counts the notifications and messages, and sends none.
    pub async fn count(&self, restart: bool, stop: &AtomicBool) -> Result<ReplayReport, ArchiveError> {
        let state = self.state(restart)?;
        let (selection, limit) = self.rest(&state);
        let range = ScanRange { after: state.last_key.as_deref(), limit, stop };
        let mut report = ReplayReport::default();
        let visit = async |archived: Archived| {
            if let Some(body) = self.replayable(&archived, &mut report) {
                let fragments = self.selection.fragments(body, &self.archive.routes).len();
                report.notifications += 1;
                report.sent += if self.queues.is_empty() { 1 } else { fragments * self.queues.len() };
            }
            Ok(())
        };
        self.archive.scan(&selection, range, visit).await?;
        Ok(ReplayReport { resumed_after: state.last_key, ..report })
    }

    /// Replays the notifications, after those of an interrupted run unless `restart` is set.
    ///
    /// A result with a reason to stop is not an error: its state file has the place where the next run begins.
    pub async fn run(
        &self,
        rate: u32,
        restart: bool,
        stop: &AtomicBool,
        progress: impl FnMut(&ReplayReport),
    ) -> Result<ReplayReport, ArchiveError> {
        let _lock = self.state_file.lock()?;
        let state = self.state(restart)?;
        // Written before the first message, so that the next run has the same time and sends no other deduplication ids.
        self.state_file.write(&state)?;
        let after = state.last_key.clone();
        let (selection, limit) = self.rest(&state);
        let report = ReplayReport { resumed_after: after.clone(), last_key: after.clone(), ..ReplayReport::default() };
        let mut run = Run {
            replay: self,
            endpoint: Endpoint::new(&self.stack.callback_url)?,
            sender: Sender::new(rate),
            waiting: self.queues.iter().map(|_| Vec::new()).collect(),
            waiting_key: None,
            waiting_notifications: 0,
            waiting_replayed: 0,
            state,
            report,
            stop,
            progress,
        };
        let range = ScanRange { after: after.as_deref(), limit, stop };
        let mut result = self.archive.scan(&selection, range, async |archived| run.visit(archived).await).await;
        if result.is_ok() {
            result = run.flush().await;
        }
        let mut report = run.report;
        report.sent += run.sender.sent;
        report.rejected = run.sender.rejected;
        match result {
            Ok(()) => self.state_file.delete()?,
            Err(error) => {
                report.stop_reason = Some(error.to_string());
                report.state_file = Some(self.state_file.path().to_owned());
            }
        }
        Ok(report)
    }

    /// Returns the state of the interrupted run, or else that of a run that begins now.
    fn state(&self, restart: bool) -> Result<State, ArchiveError> {
        let interrupted = if restart { None } else { self.state_file.read()? };
        Ok(interrupted.unwrap_or_else(|| State { started: Time::now(), last_key: None, notifications: 0 }))
    }

    /// Returns the selection with its end, and the maximum number of notifications that are left.
    ///
    /// The function archives what a replay to the callback URL delivers. If the selection ended later than the replay began,
    /// each of these notifications would be delivered again.
    fn rest(&self, state: &State) -> (Selection, usize) {
        let end = self.selection.to.iter().chain([&state.started]).min().cloned();
        let limit = self.selection.limit.unwrap_or(usize::MAX).saturating_sub(state.notifications);
        (Selection { to: end, ..self.selection.clone() }, limit)
    }

    /// Returns the body of a notification that may be replayed. Counts any other.
    fn replayable<'a>(&self, archived: &'a Archived, report: &mut ReplayReport) -> Option<&'a [u8]> {
        let state = archived.signature();
        let content = archived.content.as_ref().filter(|_| state.is_authentic());
        let Some(content) = content else {
            report.not_authentic.push((archived.key.clone(), state));
            return None;
        };
        if self.queues.is_empty() && content.signer == Some(Signer::Older) {
            report.older_secret += 1;
            return None;
        }
        Some(&content.body)
    }
}

/// One run of a replay.
struct Run<'r, P> {
    replay: &'r Replay<'r>,
    endpoint: Endpoint,
    sender: Sender,
    /// The messages for each queue that are not sent yet.
    waiting: Vec<Vec<Message>>,
    /// The key of the last notification whose messages are complete in `waiting`.
    waiting_key: Option<String>,
    /// The notifications since the last one whose key was written.
    waiting_notifications: usize,
    /// Those of them that are authentic.
    waiting_replayed: usize,
    state: State,
    report: ReplayReport,
    stop: &'r AtomicBool,
    progress: P,
}

impl<P: FnMut(&ReplayReport)> Run<'_, P> {
    async fn visit(&mut self, archived: Archived) -> Result<(), ArchiveError> {
        let replay = self.replay;
        if let (Some(body), Some(content)) = (replay.replayable(&archived, &mut self.report), &archived.content) {
            if replay.queues.is_empty() {
                self.post(&archived.key, &content.header, body).await?;
            } else {
                for fragment in replay.selection.fragments(body, &replay.archive.routes) {
                    self.add_messages(&fragment, &content.header).await?;
                }
            }
            self.waiting_replayed += 1;
        }
        self.waiting_key = Some(archived.key);
        self.waiting_notifications += 1;
        let is_full = self.waiting.iter().any(|messages| messages.len() >= MIN_FLUSH_MESSAGES);
        if replay.queues.is_empty() || is_full {
            self.flush().await?;
        }
        Ok(())
    }

    /// Builds the message of a fragment for each queue, as the function does.
    async fn add_messages(&mut self, fragment: &Fragment<'_>, header: &ArchiveHeader) -> Result<(), ArchiveError> {
        let replay = self.replay;
        let route = replay.archive.routes.find(fragment).route;
        let reason = route.is_none().then(|| CatchAllReason::of_fragment(fragment));
        let request = RequestContext {
            request_id: &header.request_id,
            group_key: &replay.group_key,
            trace: header.trace.as_deref(),
        };
        let event_id = event_id(fragment);
        for (queue, waiting) in replay.queues.iter().zip(&mut self.waiting) {
            let message = Message::new(fragment, &event_id, request, reason, queue.is_fifo());
            let mut message = message.replayed(&self.state.started.to_seconds());
            if message.size() > MAX_MESSAGE_BYTES {
                let buckets = &replay.archive.buckets;
                let key = object_key(route, Time::now().date(), &event_id, fastrand::u64(..));
                let body = Bytes::from(message.replace_body_with_pointer(buckets.payloads()?, &key));
                buckets.put_payload(&key, body).await?;
                self.report.claim_checks += 1;
            }
            waiting.push(message);
        }
        Ok(())
    }

    /// Sends the waiting messages, then writes the key of their last notification to the state file.
    async fn flush(&mut self) -> Result<(), ArchiveError> {
        for (queue, waiting) in self.replay.queues.iter().zip(&mut self.waiting) {
            self.sender.send_all(queue, std::mem::take(waiting), self.stop).await?;
        }
        if let Some(key) = self.waiting_key.take() {
            self.state.notifications += std::mem::take(&mut self.waiting_notifications);
            self.state.last_key = Some(key.clone());
            self.report.notifications += std::mem::take(&mut self.waiting_replayed);
            self.replay.state_file.write(&self.state)?;
            self.report.last_key = Some(key);
        }
        (self.progress)(&self.report);
        Ok(())
    }

    /// Posts a request as Meta did, until the callback URL answers 200.
    async fn post(&mut self, key: &str, header: &ArchiveHeader, body: &[u8]) -> Result<(), ArchiveError> {
        let mut headers = HeaderMap::new();
        let value =
            |text: &str| text.parse().map_err(|_| ArchiveError::Status { status: 0, key: key.to_owned(), hint: "" });
        headers.insert("content-type", value("application/json")?);
        headers.insert(signature::HEADER, value(&header.signature)?);
        let mut retries = 0;
        loop {
            self.sender.wait(1).await;
            let response = self.endpoint.send(Method::POST, "", headers.clone(), body.to_vec()).await;
            let error = match response {
                Ok(response) if response.status == 200 => {
                    self.report.sent += 1;
                    return Ok(());
                }
                Ok(response) => {
                    let (status, key) = (response.status, key.to_owned());
                    let error = ArchiveError::Status { status, key, hint: hint(status) };
                    if status < 500 && status != 429 {
                        return Err(error);
                    }
                    error
                }
                Err(error) => error.into(),
            };
            if retries == MAX_RETRIES {
                return Err(error);
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(ArchiveError::Interrupted);
            }
            sleep(RETRY_INTERVAL * 2_u32.pow(retries)).await;
            retries += 1;
        }
    }
}

const fn hint(status: u16) -> &'static str {
    match status {
        401 => ": the function no longer accepts the app secret that signed it; use --to-queue",
        403 => ": the function requires Meta's client certificate; use --to-queue",
        404 => ": the API has no such route",
        _ => "",
    }
}
