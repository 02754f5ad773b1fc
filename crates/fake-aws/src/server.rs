//! Accepts connections on loopback, counts them, and serves HTTP/1.1 on each.

use crate::response::{ConnectionDroppedError, ResponseBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

/// Counts connections, and closes idle ones when a test requests it.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    accepted: AtomicU64,
    pub(crate) open: Gauge,
    close_signal: watch::Sender<()>,
}

impl Connections {
    /// Closes every connection as soon as it is idle.
    pub(crate) fn close_idle(&self) {
        self.close_signal.send_replace(());
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// A counter with its highest value.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Gauge {
    pub(crate) fn increment(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn decrement(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    pub(crate) fn reset_peak(&self) {
        self.peak.store(self.now(), Ordering::Relaxed);
    }
}

/// A listener on a free port of loopback. Dropping this closes it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accept_task: AbortHandle,
}

impl Server {
    /// Passes every request to `handler`, with the number of its connection. If the handler returns an error, the connection
    /// closes.
    pub(crate) fn start<F, R>(
        runtime: &Handle,
        connections: Arc<Connections>,
        tls: Option<TlsAcceptor>,
        handler: F,
    ) -> Self
    where
        F: Fn(u64, Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Response<ResponseBody>, ConnectionDroppedError>> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let accept_task = runtime.spawn(accept(listener, connections, tls, handler)).abort_handle();
        Self { address, accept_task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept_task.abort();
    }
}

async fn accept<F, R>(
    listener: std::net::TcpListener,
    connections: Arc<Connections>,
    tls: Option<TlsAcceptor>,
    handler: F,
) where
    F: Fn(u64, Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Response<ResponseBody>, ConnectionDroppedError>> + Send + 'static,
{
    let listener = TcpListener::from_std(listener).expect("the runtime drives sockets");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await; // the limit of file descriptors may be reached temporarily
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (tls, connections, handler) = (tls.clone(), Arc::clone(&connections), handler.clone());
        tokio::spawn(async move {
            let Some(tls) = tls else { return serve_connection(stream, connections, handler).await };
            // A failed handshake does not count as a connection.
            if let Ok(stream) = tls.accept(stream).await {
                serve_connection(stream, connections, handler).await;
            }
        });
    }
}

/// Serves one connection with or without TLS.
async fn serve_connection<S, F, R>(stream: S, connections: Arc<Connections>, handler: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(u64, Request<Incoming>) -> R,
    R: Future<Output = Result<Response<ResponseBody>, ConnectionDroppedError>>,
{
    let open = OpenConnection::new(&connections);
    let mut close_signal = connections.close_signal.subscribe();
    let service = service_fn(|request| handler(open.number, request));
    let connection = http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    loop {
        tokio::select! {
            // An error means that the client closed the connection or that a fault was injected.
            _ = connection.as_mut() => return,
            Ok(()) = close_signal.changed() => connection.as_mut().graceful_shutdown(),
        }
    }
}

/// Counts an open connection until this is dropped.
struct OpenConnection<'a> {
    connections: &'a Connections,
    number: u64,
}

impl<'a> OpenConnection<'a> {
    fn new(connections: &'a Connections) -> Self {
        connections.open.increment();
        Self { connections, number: connections.accepted.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.connections.open.decrement();
    }
}
