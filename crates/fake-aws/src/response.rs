//! The response of a service, and how much of it reaches the client.

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A response before it is sent.
#[derive(Debug)]
pub(crate) struct ServiceResponse {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl ServiceResponse {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self { status, headers: vec![("content-type", content_type.to_owned())], body: body.into() }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn into_http(self, delivery: Delivery) -> Response<ResponseBody> {
        let length = self.body.len();
        let to_send = match delivery {
            Delivery::Complete => self.body,
            Delivery::Truncated => self.body.slice(..length / 2),
            Delivery::Stalled => Bytes::new(),
        };
        // An empty body cannot be cut off, so the header announces a byte that is not sent.
        let announced = if delivery == Delivery::Complete { length } else { length.max(1) };
        let body = ResponseBody { length: announced as u64, to_send: Some(to_send), flushed: false, delivery };
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(body).expect("the headers of the fake are well-formed")
    }
}

/// How much of a response reaches the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The whole response.
    Complete,
    /// The headers and half of the body. Then the connection closes.
    Truncated,
    /// The headers only. The connection stays open.
    Stalled,
}

/// Makes hyper close the connection before the response is complete.
#[derive(Debug)]
pub(crate) struct ConnectionDroppedError;

impl fmt::Display for ConnectionDroppedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fake closes the connection")
    }
}

impl std::error::Error for ConnectionDroppedError {}

/// A body whose `content-length` is that of the complete body, however much of it is sent.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    length: u64,
    to_send: Option<Bytes>,
    flushed: bool,
    delivery: Delivery,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ConnectionDroppedError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ConnectionDroppedError>>> {
        if let Some(bytes) = self.to_send.take().filter(|bytes| !bytes.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match self.delivery {
            Delivery::Complete => Poll::Ready(None),
            Delivery::Stalled => Poll::Pending,
            Delivery::Truncated if self.flushed => Poll::Ready(Some(Err(ConnectionDroppedError))),
            Delivery::Truncated => {
                // hyper discards its write buffer if a body returns an error, but flushes it if a body is pending.
                self.flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.delivery == Delivery::Complete && self.to_send.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
