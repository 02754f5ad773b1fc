//! One fake AWS account: its address, what a test puts into it and what it finds there afterwards.

use crate::call::{Call, Service};
use crate::dispatch::dispatch;
use crate::handles::{Bucket, Queue, ServiceHandle};
use crate::lock::lock;
use crate::secrets;
use crate::server::Server;
use crate::state::State;
use crate::tls::{Tls, TrustStores};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};
use tokio::time::sleep;

/// A fake AWS that listens on loopback until its last handle is dropped, and takes every connection along then.
///
/// It runs on threads of its own, so neither a blocked test nor a paused clock holds it up. Clones are the same account.
#[derive(Debug, Clone)]
pub struct FakeAws {
    host: Arc<Host>,
}

#[derive(Debug)]
struct Host {
    runtime: Option<Runtime>,
    server: Server,
    others: Mutex<Vec<Server>>,
    state: Arc<State>,
    tls: Option<Tls>,
}

impl FakeAws {
    /// Listens at a free port.
    ///
    /// # Panics
    /// When the machine has no thread or port left.
    #[must_use]
    pub fn start() -> Self {
        Self::serve(None)
    }

    /// The same over TLS. A [`Function`](crate::Function) is told where the authority is, in the ways in which Rust,
    /// Python and Node look for it.
    ///
    /// # Panics
    /// As [`start`](Self::start), and when no temporary file can be written.
    #[must_use]
    pub fn start_tls() -> Self {
        Self::serve(Some(Tls::new()))
    }

    fn serve(tls: Option<Tls>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("fake-aws")
            .enable_all()
            .build()
            .expect("the machine has threads left");
        let state = Arc::new(State::default());
        let server = listen(runtime.handle(), &state, tls.as_ref());
        Self { host: Arc::new(Host { runtime: Some(runtime), server, others: Mutex::default(), state, tls }) }
    }

    /// The URL for `AWS_ENDPOINT_URL`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.url(&self.host.server)
    }

    /// Opens another port to the same account, for `AWS_ENDPOINT_URL_SQS` and its like: AWS has a host for each
    /// service, and clients do not use a connection to one for another.
    ///
    /// # Panics
    /// When the machine has no port left.
    #[must_use]
    pub fn another_endpoint(&self) -> String {
        let server = listen(self.runtime(), &self.host.state, self.host.tls.as_ref());
        let url = self.url(&server);
        lock(&self.host.others).push(server);
        url
    }

    fn url(&self, server: &Server) -> String {
        let scheme = if self.host.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", server.address)
    }

    pub(crate) fn trust(&self) -> Option<&TrustStores> {
        self.host.tls.as_ref().map(|tls| &tls.trust)
    }

    /// The queue of that name, made if there is none; a name that ends in `.fifo` makes a FIFO queue.
    #[must_use]
    pub fn queue(&self, name: &str) -> Queue {
        Queue::open(Arc::clone(&self.host.state), &self.endpoint(), name)
    }

    /// Gives a secret a text, in place of what it was.
    pub fn set_secret(&self, name: &str, text: impl Into<String>) {
        lock(&self.host.state.secrets).set_text(name, text.into());
    }

    /// Gives a secret bytes where a text is expected.
    pub fn set_binary_secret(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        lock(&self.host.state.secrets).set_bytes(name, bytes.into());
    }

    /// Removes a secret; reading it fails with `ResourceNotFoundException`, as it does before it is set.
    pub fn remove_secret(&self, name: &str) {
        lock(&self.host.state.secrets).remove(name);
    }

    /// The ARN under which a secret can be read as well as under its name.
    #[must_use]
    pub fn secret_arn(name: &str) -> String {
        secrets::arn(name)
    }

    /// The bucket of that name, made if there is none.
    #[must_use]
    pub fn bucket(&self, name: &str) -> Bucket {
        Bucket::open(Arc::clone(&self.host.state), name)
    }

    /// SQS as a whole: faults that hit any queue, and its latency.
    #[must_use]
    pub fn sqs(&self) -> ServiceHandle {
        self.service(Service::Sqs)
    }

    /// Secrets Manager's faults and latency.
    #[must_use]
    pub fn secrets(&self) -> ServiceHandle {
        self.service(Service::Secrets)
    }

    /// S3's faults and latency.
    #[must_use]
    pub fn s3(&self) -> ServiceHandle {
        self.service(Service::S3)
    }

    fn service(&self, service: Service) -> ServiceHandle {
        ServiceHandle { service, state: Arc::clone(&self.host.state) }
    }

    /// Takes every fault away, whatever it was set on.
    pub fn clear_faults(&self) {
        self.host.state.rules.clear();
    }

    /// Every call so far, in the order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.host.state.calls.all()
    }

    /// Waits until every call that [`Fault::store_late`](crate::Fault::store_late) or [`Fault::store_entries_late`](crate::Fault::store_entries_late) has hit so far has taken effect.
    ///
    /// # Panics
    /// When the fake has been shut down.
    pub async fn late_effects(&self) {
        let state = Arc::clone(&self.host.state);
        let settled = async move {
            while state.late_effects.now() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        self.runtime().spawn(settled).await.expect("the fake runs as long as a handle to it does");
    }

    /// The most calls that were under way at the same time.
    #[must_use]
    pub fn peak_calls(&self) -> usize {
        self.host.state.calls.in_flight.peak()
    }

    /// Connections open now.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.host.state.connections.open.now()
    }

    /// The most connections that were open at the same time.
    #[must_use]
    pub fn peak_connections(&self) -> usize {
        self.host.state.connections.open.peak()
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted_connections(&self) -> u64 {
        self.host.state.connections.accepted()
    }

    /// Starts both peaks anew from what is open now.
    pub fn forget_peaks(&self) {
        self.host.state.connections.open.forget_peak();
        self.host.state.calls.in_flight.forget_peak();
    }

    /// Closes every connection that carries no call, as AWS does to a sandbox that was frozen for long.
    pub fn close_idle_connections(&self) {
        self.host.state.connections.close_idle();
    }

    pub(crate) fn runtime(&self) -> &Handle {
        self.host.runtime.as_ref().expect("taken only when dropped").handle()
    }
}

fn listen(runtime: &Handle, state: &Arc<State>, tls: Option<&Tls>) -> Server {
    let (connections, state) = (Arc::clone(&state.connections), Arc::clone(state));
    Server::start(runtime, connections, tls.map(|tls| tls.acceptor.clone()), move |connection, request| {
        dispatch(Arc::clone(&state), connection, request)
    })
}

impl Drop for Host {
    fn drop(&mut self) {
        // Waiting for the threads would not be allowed inside an asynchronous test; their sockets close all the same.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
