//! What a service says to a call, and the ways in which saying it can break.

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A service's answer, not yet on the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self { status, headers: vec![("content-type", content_type.to_owned())], body: body.into() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn into_response(self, ending: Ending) -> Response<AnswerBody> {
        let length = self.body.len();
        let sent = match ending {
            Ending::Whole => self.body,
            Ending::Truncated => self.body.slice(..length / 2),
            Ending::Stalled => Bytes::new(),
        };
        let body = AnswerBody { length: length as u64, sent: Some(sent), flushed: false, ending };
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(body).expect("the fake makes no malformed header")
    }
}

/// How much of an answer arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All of it.
    Whole,
    /// The headers and half of the body, then the connection closes.
    Truncated,
    /// The headers, then nothing, on a connection that stays open.
    Stalled,
}

/// The connection is to be closed without (the rest of) an answer.
#[derive(Debug)]
pub(crate) struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dropped on purpose")
    }
}

impl std::error::Error for Dropped {}

/// A body that always announces its whole length, and keeps that promise only if its ending is whole.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    length: u64,
    sent: Option<Bytes>,
    flushed: bool,
    ending: Ending,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        if let Some(bytes) = self.sent.take().filter(|bytes| !bytes.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match self.ending {
            Ending::Whole => Poll::Ready(None),
            Ending::Stalled => Poll::Pending,
            Ending::Truncated if self.flushed => Poll::Ready(Some(Err(Dropped))),
            Ending::Truncated => {
                // hyper throws away what it has buffered when a body fails, but flushes it when a body is not ready.
                self.flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ending == Ending::Whole && self.sent.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
