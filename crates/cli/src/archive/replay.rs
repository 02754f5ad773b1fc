//! Replays archived notifications: to the callback URL, or to queues as the function would store them.
//!
//! A notification counts as replayed after every queue stored or rejected each of its messages. Then its key is written to the
//! state file. A run that was killed goes on after this key, so it loses nothing. For each queue it repeats at most the
//! messages of one call of `Run::flush`.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
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
    notification::{Archived, Content},
    scan::{Archive, ScanRange},
    selection::{Selection, SelectionId},
    send::Sender,
    state::{NotReplayed, State, StateFile},
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
const OLDER_SECRET: &str = "the function no longer accepts the app secret that signed it; use --to-queue";

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
    /// The notifications and messages that are not replayed, also those of the interrupted run that this one resumes.
    pub not_replayed: NotReplayed,
    /// When the interrupted run began that this one resumes. Notifications received later are not replayed.
    pub resumed_since: Option<Time>,
    /// The key after which this run resumes. `None` if the interrupted run completed no notification.
    pub resumed_after: Option<String>,
    /// The key of the last notification that was replayed completely.
    pub last_key: Option<String>,
    /// The file that remembers `last_key`, if the replay is not complete.
    pub state_file: Option<PathBuf>,
    /// The reason why the replay is not complete.
    pub stop_reason: Option<String>,
}

impl ReplayReport {
    /// Whether all selected notifications were replayed, and at least one was selected.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.stop_reason.is_none() && self.not_replayed.is_empty() && !self.is_empty()
    }

    /// Whether no notification is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_complete = self.stop_reason.is_none();
        is_complete && self.notifications == 0 && self.not_replayed.is_empty() && self.resumed_after.is_none()
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
        let selection = selection.validate(&archive.routes)?;
        let group_key = stack.group_key()?;
        Ok(Self { archive, stack, selection, queues, group_key, state_file })
    }

    /// Returns the names of the queues, none for the callback URL.
    pub fn queue_names(&self) -> impl Iterator<Item = &str> {
        self.queues.iter().map(|queue| queue.name.as_str())
    }

    const fn is_to_endpoint(&self) -> bool {
        self.queues.is_empty()
    }

    /// Counts the notifications and messages, and sends none.
    pub async fn count(&self, restart: bool, stop: &AtomicBool) -> Result<ReplayReport, ArchiveError> {
        let (mut state, mut report) = self.begin(restart)?;
        let (selection, limit) = self.rest(&state);
        let range = ScanRange { after: report.resumed_after.clone(), limit, stop };
        let visit = async |archived: Archived| {
            if let Some(content) = self.replayable(&archived, &mut state.not_replayed) {
                let fragments = self.selection.fragments(&content.body, &self.archive.routes).len();
                report.notifications += 1;
                report.sent += if self.is_to_endpoint() { 1 } else { fragments * self.queues.len() };
            }
            Ok(())
        };
        self.archive.scan(&selection, range, visit).await?;
        Ok(ReplayReport { not_replayed: state.not_replayed, ..report })
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
        let (state, report) = self.begin(restart)?;
        // Written before the first message, so that the next run has the same time and sends no other deduplication ids.
        self.state_file.write(&state)?;
        let (selection, limit) = self.rest(&state);
        let range = ScanRange { after: report.resumed_after.clone(), limit, stop };
        let mut run = Run {
            replay: self,
            endpoint: Endpoint::new(&self.stack.callback_url)?,
            sender: Sender::new(rate),
            waiting: self.queues.iter().map(|_| Vec::new()).collect(),
            waiting_notifications: 0,
            state,
            report,
            stop,
            progress,
        };
        let mut result = self.archive.scan(&selection, range, async |archived| run.visit(archived).await).await;
        if result.is_ok() {
            result = run.flush().await;
        }
        let mut report = ReplayReport { sent: run.sender.sent, not_replayed: run.state.not_replayed, ..run.report };
        match result {
            Ok(()) => self.state_file.delete()?,
            Err(error) => {
                report.stop_reason = Some(error.to_string());
                report.state_file = Some(self.state_file.path().to_owned());
            }
        }
        Ok(report)
    }

    /// Returns the state of the interrupted run, or else that of a run that begins now, and the report to begin with.
    fn begin(&self, restart: bool) -> Result<(State, ReplayReport), ArchiveError> {
        let interrupted = if restart { None } else { self.state_file.read()? };
        let resumed_since = interrupted.as_ref().map(|state| state.started.clone());
        let state = interrupted.unwrap_or_else(|| State {
            started: Time::now(),
            last_key: None,
            notifications: 0,
            not_replayed: NotReplayed::new(),
        });
        let last_key = state.last_key.clone();
        let report =
            ReplayReport { resumed_since, resumed_after: last_key.clone(), last_key, ..ReplayReport::default() };
        Ok((state, report))
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

    /// Returns the content of a notification that may be replayed. Adds the key of any other to `not_replayed`.
    fn replayable<'a>(&self, archived: &'a Archived, not_replayed: &mut NotReplayed) -> Option<&'a Content> {
        let signature = archived.signature();
        let reason = match archived.content.as_ref().filter(|_| signature.is_authentic()) {
            None => signature.text(),
            Some(content) if self.is_to_endpoint() && content.signer == Some(Signer::Older) => OLDER_SECRET,
            Some(content) => return Some(content),
        };
        not_replayed.entry(reason.to_owned()).or_default().add(&archived.key);
        None
    }
}

/// One run of a replay.
struct Run<'r, P> {
    replay: &'r Replay<'r>,
    endpoint: Endpoint,
    sender: Sender,
    /// The messages for each queue that are not sent yet.
    waiting: Vec<Vec<Message>>,
    /// The notifications of these messages.
    waiting_notifications: usize,
    /// The state after these messages are sent.
    state: State,
    report: ReplayReport,
    stop: &'r AtomicBool,
    progress: P,
}

impl<P: FnMut(&ReplayReport)> Run<'_, P> {
    async fn visit(&mut self, archived: Archived) -> Result<(), ArchiveError> {
        let replay = self.replay;
        if let Some(content) = replay.replayable(&archived, &mut self.state.not_replayed) {
            if replay.is_to_endpoint() {
                self.post(&archived.key, content).await?;
            } else {
                for fragment in replay.selection.fragments(&content.body, &replay.archive.routes) {
                    self.add_messages(&fragment, &content.header).await?;
                }
            }
            self.waiting_notifications += 1;
        }
        self.state.last_key = Some(archived.key);
        self.state.notifications += 1;
        let is_full = self.waiting.iter().any(|messages| messages.len() >= MIN_FLUSH_MESSAGES);
        if replay.is_to_endpoint() || is_full {
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

    /// Sends the waiting messages, then writes the state to its file.
    async fn flush(&mut self) -> Result<(), ArchiveError> {
        for (queue, waiting) in self.replay.queues.iter().zip(&mut self.waiting) {
            let (waiting, not_replayed) = (std::mem::take(waiting), &mut self.state.not_replayed);
            self.sender.send_all(queue, waiting, not_replayed, self.stop).await?;
        }
        self.replay.state_file.write(&self.state)?;
        self.report.notifications += std::mem::take(&mut self.waiting_notifications);
        self.report.last_key.clone_from(&self.state.last_key);
        (self.progress)(&self.report);
        Ok(())
    }

    /// Posts a request as Meta did, until the callback URL answers 200.
    async fn post(&mut self, key: &str, Content { header, body, .. }: &Content) -> Result<(), ArchiveError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(signature::HEADER, header.signature.parse().expect("a verified signature is ASCII"));
        let mut retries = 0;
        loop {
            self.sender.wait(1).await;
            let response = self.endpoint.send(Method::POST, "", headers.clone(), body.clone()).await;
            let error = match response {
                Ok(response) if response.status == 200 => {
                    self.sender.sent += 1;
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
