//! The fake account: a test sets up its resources and reads back what the function stored.

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

/// A fake AWS account with an endpoint on loopback. Dropping the last clone closes the endpoint and all connections.
///
/// The fake has its own threads, so it also runs while the test blocks its thread or pauses tokio's clock. Clones share one
/// account.
#[derive(Debug, Clone)]
pub struct FakeAws {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    runtime: Option<Runtime>,
    server: Server,
    extra_servers: Mutex<Vec<Server>>,
    state: Arc<State>,
    tls: Option<Tls>,
}

impl FakeAws {
    /// Starts an account that listens on a free port, without TLS.
    ///
    /// # Panics
    /// If no thread can be started or no port is free.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts an account that listens on a free port, with TLS. A [`Function`](crate::Function) finds the certificate
    /// authority in the environment variables that Rust, Python and Node.js read.
    ///
    /// # Panics
    /// As [`start`](Self::start), and if no temporary file can be written.
    #[must_use]
    pub fn start_tls() -> Self {
        Self::start_with(Some(Tls::new()))
    }

    fn start_with(tls: Option<Tls>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("fake-aws")
            .enable_all()
            .build()
            .expect("the machine can start threads");
        let state = Arc::new(State::default());
        let server = listen(runtime.handle(), &state, tls.as_ref());
        Self { inner: Arc::new(Inner { runtime: Some(runtime), server, extra_servers: Mutex::default(), state, tls }) }
    }

    /// Returns the URL for `AWS_ENDPOINT_URL`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.url(&self.inner.server)
    }

    /// Opens another port to the same account, for `AWS_ENDPOINT_URL_SQS` and similar variables. With a port for each
    /// service, a client needs a separate connection for each, as with the hosts of AWS.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn add_endpoint(&self) -> String {
        let server = listen(self.runtime(), &self.inner.state, self.inner.tls.as_ref());
        let url = self.url(&server);
        lock(&self.inner.extra_servers).push(server);
        url
    }

    fn url(&self, server: &Server) -> String {
        let scheme = if self.inner.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", server.address)
    }

    pub(crate) fn trust_stores(&self) -> Option<&TrustStores> {
        self.inner.tls.as_ref().map(|tls| &tls.trust_stores)
    }

    /// Returns the queue of this name, and creates it if it does not exist. The suffix `.fifo` makes it a FIFO queue.
    #[must_use]
    pub fn queue(&self, name: &str) -> Queue {
        Queue::open(Arc::clone(&self.inner.state), &self.endpoint(), name)
    }

    /// Sets `SecretString` of a secret, and creates the secret if it does not exist.
    pub fn set_secret(&self, name: &str, text: impl Into<String>) {
        lock(&self.inner.state.secrets).set_text(name, text.into());
    }

    /// Sets `SecretBinary` of a secret, and creates the secret if it does not exist.
    pub fn set_binary_secret(&self, name: &str, bytes: impl Into<Vec<u8>>) {
        lock(&self.inner.state.secrets).set_bytes(name, bytes.into());
    }

    /// Deletes a secret. Reading it then fails with `ResourceNotFoundException`.
    pub fn remove_secret(&self, name: &str) {
        lock(&self.inner.state.secrets).remove(name);
    }

    /// Returns the ARN of a secret. `GetSecretValue` accepts the name and the ARN.
    #[must_use]
    pub fn secret_arn(name: &str) -> String {
        secrets::arn(name)
    }

    /// Returns the bucket of this name, and creates it if it does not exist.
    #[must_use]
    pub fn bucket(&self, name: &str) -> Bucket {
        Bucket::open(Arc::clone(&self.inner.state), name)
    }

    /// Returns the handle for faults in calls to any queue, and for the latency of SQS.
    #[must_use]
    pub fn sqs(&self) -> ServiceHandle {
        self.service(Service::Sqs)
    }

    /// Returns the handle for faults and latency of Secrets Manager.
    #[must_use]
    pub fn secrets(&self) -> ServiceHandle {
        self.service(Service::Secrets)
    }

    /// Returns the handle for faults and latency of S3.
    #[must_use]
    pub fn s3(&self) -> ServiceHandle {
        self.service(Service::S3)
    }

    fn service(&self, service: Service) -> ServiceHandle {
        ServiceHandle { service, state: Arc::clone(&self.inner.state) }
    }

    /// Removes every fault of every service and queue.
    pub fn clear_faults(&self) {
        self.inner.state.rules.clear();
    }

    /// Returns the record of every call so far, in the order of arrival. To wait for a call, poll this.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.inner.state.calls.snapshot()
    }

    /// Waits until every call that has arrived with the fault [`Fault::delay_commit`](crate::Fault::delay_commit) or
    /// [`Fault::delay_entries`](crate::Fault::delay_entries) has taken effect.
    ///
    /// # Panics
    /// If the fake has been shut down, which only happens when the last clone is dropped.
    pub async fn wait_for_delayed_commits(&self) {
        let state = Arc::clone(&self.inner.state);
        let all_committed = async move {
            while state.delayed_commits.now() > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        self.runtime().spawn(all_committed).await.expect("the fake runs until its last handle is dropped");
    }

    /// Returns the highest number of concurrent calls since the start or [`reset_peaks`](Self::reset_peaks).
    #[must_use]
    pub fn peak_calls(&self) -> usize {
        self.inner.state.calls.in_flight.peak()
    }

    /// Returns the number of open connections.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.inner.state.connections.open.now()
    }

    /// Returns the highest number of open connections since the start or [`reset_peaks`](Self::reset_peaks).
    #[must_use]
    pub fn peak_connections(&self) -> usize {
        self.inner.state.connections.open.peak()
    }

    /// Returns how many connections were accepted so far.
    #[must_use]
    pub fn accepted_connections(&self) -> u64 {
        self.inner.state.connections.accepted()
    }

    /// Resets both peaks to the current values.
    pub fn reset_peaks(&self) {
        self.inner.state.connections.open.reset_peak();
        self.inner.state.calls.in_flight.reset_peak();
    }

    /// Closes idle connections now and each busy one after its response, as AWS does while an execution environment is frozen. Does not
    /// wait until they are closed.
    pub fn close_idle_connections(&self) {
        self.inner.state.connections.close_idle();
    }

    pub(crate) fn runtime(&self) -> &Handle {
        self.inner.runtime.as_ref().expect("only drop takes the runtime").handle()
    }
}

fn listen(runtime: &Handle, state: &Arc<State>, tls: Option<&Tls>) -> Server {
    let (connections, state) = (Arc::clone(&state.connections), Arc::clone(state));
    Server::start(runtime, connections, tls.map(|tls| tls.acceptor.clone()), move |connection, request| {
        dispatch(Arc::clone(&state), connection, request)
    })
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Waiting for the threads would panic in an asynchronous test. The sockets close without waiting, too.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
