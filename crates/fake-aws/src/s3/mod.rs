//! S3's `PutObject` and `GetObject`, path-style.

mod chunked;

use crate::answer::Answer;
use crate::failure::Failure;
use crate::ids::{ACCOUNT, new_id};
use bytes::Bytes;
use hyper::Method;
use hyper::http::request::Parts;
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;
use std::collections::{BTreeMap, HashMap};

/// All buckets, by name, and in each its objects, by key.
pub(crate) type Buckets = HashMap<String, BTreeMap<String, Object>>;

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Object {
    /// Its bytes, free of the framing in which the SDK sends them.
    pub body: Bytes,
    /// Its content type, if it was given one.
    pub content_type: Option<String>,
    /// The call that stored it, as [`crate::Call::number`].
    pub call: usize,
}

pub(crate) fn operation(method: &Method) -> &'static str {
    match *method {
        Method::PUT => "PutObject",
        Method::GET => "GetObject",
        _ => "unknown",
    }
}

/// A call to S3 that was understood.
#[derive(Debug)]
pub(crate) struct Action {
    bucket: String,
    key: String,
    stored: Option<Object>,
}

impl Action {
    pub(crate) fn read(head: &Parts, body: &Bytes) -> Result<Self, Answer> {
        let path = percent_decode_str(head.uri.path()).decode_utf8_lossy();
        let Some((bucket, key)) = path.trim_start_matches('/').split_once('/').filter(|(_, key)| !key.is_empty())
        else {
            return Err(error(400, "InvalidURI", "The fake knows paths of the form /bucket/key only."));
        };
        if header(head, "x-amz-expected-bucket-owner").is_some_and(|owner| owner != ACCOUNT) {
            return Err(failure(&Failure::AccessDenied));
        }
        let stored = match head.method {
            Method::GET => None,
            Method::PUT => Some(Object {
                body: unframed(head, body)?,
                content_type: header(head, "content-type").map(str::to_owned),
                call: 0,
            }),
            _ => return Err(error(405, "MethodNotAllowed", "The fake knows PutObject and GetObject only.")),
        };
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned(), stored })
    }

    pub(crate) fn act(self, buckets: &mut Buckets, call: usize) -> Answer {
        let Some(bucket) = buckets.get_mut(&self.bucket) else {
            return error(404, "NoSuchBucket", "The specified bucket does not exist");
        };
        if let Some(object) = self.stored {
            let tag = etag(&object.body);
            bucket.insert(self.key, Object { call, ..object });
            return Answer::new(200, "application/xml", "").header("etag", tag).header("x-amz-request-id", new_id());
        }
        let Some(object) = bucket.get(&self.key) else {
            return error(404, "NoSuchKey", "The specified key does not exist.");
        };
        let content_type = object.content_type.as_deref().unwrap_or("binary/octet-stream");
        Answer::new(200, content_type, object.body.clone())
            .header("etag", etag(&object.body))
            .header("x-amz-request-id", new_id())
    }
}

/// The object's bytes, out of the chunks in which the SDK may have framed them.
fn unframed(head: &Parts, body: &Bytes) -> Result<Bytes, Answer> {
    let streaming = header(head, "x-amz-content-sha256").is_some_and(|hash| hash.starts_with("STREAMING-"));
    if !streaming {
        return Ok(body.clone());
    }
    let decoded = chunked::decode(body).ok_or_else(|| error(400, "IncompleteBody", "The chunks are malformed."))?;
    let announced = header(head, "x-amz-decoded-content-length").and_then(|length| length.parse::<usize>().ok());
    match announced {
        Some(length) if decoded.len() == length => Ok(decoded),
        Some(_) => Err(error(400, "IncompleteBody", "The chunks are not of the length announced.")),
        None => Err(error(411, "MissingContentLength", "x-amz-decoded-content-length is missing.")),
    }
}

fn header<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name)?.to_str().ok()
}

fn etag(body: &[u8]) -> String {
    format!("\"{}\"", hex::encode(Md5::digest(body)))
}

/// A failure of the whole call in this service's words.
pub(crate) fn failure(failure: &Failure) -> Answer {
    match failure {
        Failure::InternalError => error(500, "InternalError", "We encountered an internal error. Please try again."),
        Failure::Unavailable => error(503, "ServiceUnavailable", "Service is unable to handle request."),
        Failure::Throttled => error(503, "SlowDown", "Please reduce your request rate."),
        Failure::AccessDenied => error(403, "AccessDenied", "Access Denied"),
        Failure::QueueDoesNotExist => error(404, "NoSuchBucket", "The specified bucket does not exist"),
        Failure::KmsDisabled => error(400, "KMS.DisabledException", "The key is disabled."),
        Failure::Other { status, code } => error(*status, code, "The test asked for this error."),
    }
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    let id = new_id();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{id}</RequestId></Error>"
    );
    Answer::new(status, "application/xml", body).header("x-amz-request-id", id)
}
