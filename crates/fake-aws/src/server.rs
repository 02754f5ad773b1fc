//! Accepts connections on loopback, counts them, and serves HTTP/1.1 on each.

use crate::answer::{AnswerBody, Dropped};
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

/// Counts connections, and closes the idle ones on demand.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    accepted: AtomicU64,
    pub(crate) open: Gauge,
    closing: watch::Sender<()>,
}

impl Connections {
    /// Closes every connection, each as soon as it carries no call.
    pub(crate) fn close_idle(&self) {
        self.closing.send_replace(());
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// A count that remembers its highest value.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Gauge {
    pub(crate) fn up(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(crate) fn down(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    pub(crate) fn forget_peak(&self) {
        self.peak.store(self.now(), Ordering::Relaxed);
    }
}

/// A listener at a free port of loopback, which closes when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepting: AbortHandle,
}

impl Server {
    /// Serves `handler`, over TLS if it is given; an error of it closes its connection.
    pub(crate) fn start<F, R>(
        runtime: &Handle,
        connections: Arc<Connections>,
        tls: Option<TlsAcceptor>,
        handler: F,
    ) -> Self
    where
        F: Fn(u64, Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Response<AnswerBody>, Dropped>> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let accepting = runtime.spawn(accept(listener, connections, tls, handler)).abort_handle();
        Self { address, accepting }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<F, R>(
    listener: std::net::TcpListener,
    connections: Arc<Connections>,
    tls: Option<TlsAcceptor>,
    handler: F,
) where
    F: Fn(u64, Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Response<AnswerBody>, Dropped>> + Send + 'static,
{
    let listener = TcpListener::from_std(listener).expect("the runtime drives sockets");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await; // out of file descriptors, perhaps not for long
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (tls, connections, handler) = (tls.clone(), Arc::clone(&connections), handler.clone());
        tokio::spawn(async move {
            let Some(tls) = tls else { return serve_connection(stream, connections, handler).await };
            // A client that does not trust the certificate has gone; it never had a connection.
            if let Ok(stream) = tls.accept(stream).await {
                serve_connection(stream, connections, handler).await;
            }
        });
    }
}

/// Serves one connection, over TCP or TLS.
async fn serve_connection<S, F, R>(stream: S, connections: Arc<Connections>, handler: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(u64, Request<Incoming>) -> R,
    R: Future<Output = Result<Response<AnswerBody>, Dropped>>,
{
    let open = Open::new(&connections);
    let mut closing = connections.closing.subscribe();
    let service = service_fn(|request| handler(open.number, request));
    let connection = http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    loop {
        tokio::select! {
            // An error is the client's going away or a fault that a test asked for.
            _ = connection.as_mut() => return,
            Ok(()) = closing.changed() => connection.as_mut().graceful_shutdown(),
        }
    }
}

/// One open connection, counted while it lives.
struct Open<'a> {
    connections: &'a Connections,
    number: u64,
}

impl<'a> Open<'a> {
    fn new(connections: &'a Connections) -> Self {
        connections.open.up();
        Self { connections, number: connections.accepted.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.connections.open.down();
    }
}
