//! `PutObject` and `GetObject` of S3 with path-style URLs.

mod chunked;

use crate::ids::{ACCOUNT, new_id};
use crate::response::ServiceResponse;
use crate::service_error::ServiceError;
use bytes::Bytes;
use hyper::Method;
use hyper::http::request::Parts;
use md5::{Digest, Md5};
use percent_encoding::percent_decode_str;
use std::collections::{BTreeMap, HashMap};

/// The objects of each bucket. The outer key is the name of the bucket, the inner key is that of the object.
pub(crate) type Buckets = HashMap<String, BTreeMap<String, Object>>;

/// A stored object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Object {
    /// The content, decoded if the SDK sent it in chunks.
    pub body: Bytes,
    /// The content type of the upload, if it had one.
    pub content_type: Option<String>,
    /// The [number](crate::Call::number) of the call that stored it.
    pub call: usize,
}

pub(crate) fn operation(method: &Method) -> &'static str {
    match *method {
        Method::PUT => "PutObject",
        Method::GET => "GetObject",
        _ => "unknown",
    }
}

/// A well-formed call to S3.
#[derive(Debug)]
pub(crate) struct ObjectCall {
    bucket: String,
    key: String,
    upload: Option<Object>,
}

impl ObjectCall {
    pub(crate) fn parse(head: &Parts, body: &Bytes) -> Result<Self, ServiceResponse> {
        let path = percent_decode_str(head.uri.path()).decode_utf8_lossy();
        let Some((bucket, key)) = path.trim_start_matches('/').split_once('/').filter(|(_, key)| !key.is_empty())
        else {
            return Err(xml_error(400, "InvalidURI", "The fake supports only paths of the form /bucket/key."));
        };
        if header(head, "x-amz-expected-bucket-owner").is_some_and(|owner| owner != ACCOUNT) {
            return Err(error_response(&ServiceError::AccessDenied));
        }
        let upload = match head.method {
            Method::GET => None,
            Method::PUT => Some(Object {
                body: decode_body(head, body)?,
                content_type: header(head, "content-type").map(str::to_owned),
                call: 0,
            }),
            _ => return Err(xml_error(405, "MethodNotAllowed", "The fake supports only PutObject and GetObject.")),
        };
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned(), upload })
    }

    pub(crate) fn execute(self, buckets: &mut Buckets, call_number: usize) -> ServiceResponse {
        let Some(bucket) = buckets.get_mut(&self.bucket) else {
            return xml_error(404, "NoSuchBucket", "The specified bucket does not exist");
        };
        if let Some(object) = self.upload {
            let tag = etag(&object.body);
            bucket.insert(self.key, Object { call: call_number, ..object });
            return ServiceResponse::new(200, "application/xml", "")
                .with_header("etag", tag)
                .with_header("x-amz-request-id", new_id());
        }
        let Some(object) = bucket.get(&self.key) else {
            return xml_error(404, "NoSuchKey", "The specified key does not exist.");
        };
        let content_type = object.content_type.as_deref().unwrap_or("binary/octet-stream");
        ServiceResponse::new(200, content_type, object.body.clone())
            .with_header("etag", etag(&object.body))
            .with_header("x-amz-request-id", new_id())
    }
}

/// Returns the content of an upload, decoded if the SDK sent it in chunks.
fn decode_body(head: &Parts, body: &Bytes) -> Result<Bytes, ServiceResponse> {
    let is_chunked = header(head, "x-amz-content-sha256").is_some_and(|hash| hash.starts_with("STREAMING-"));
    if !is_chunked {
        return Ok(body.clone());
    }
    let decoded = chunked::decode(body).ok_or_else(|| xml_error(400, "IncompleteBody", "The chunks are malformed."))?;
    let declared_length = header(head, "x-amz-decoded-content-length").and_then(|length| length.parse::<usize>().ok());
    match declared_length {
        Some(length) if decoded.len() == length => Ok(decoded),
        Some(_) => Err(xml_error(400, "IncompleteBody", "The chunks do not have the declared length.")),
        None => Err(xml_error(411, "MissingContentLength", "x-amz-decoded-content-length is missing.")),
    }
}

fn header<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name)?.to_str().ok()
}

fn etag(body: &[u8]) -> String {
    format!("\"{}\"", hex::encode(Md5::digest(body)))
}

/// Makes the response of S3 for an error.
pub(crate) fn error_response(error: &ServiceError) -> ServiceResponse {
    match error {
        ServiceError::InternalError => {
            xml_error(500, "InternalError", "We encountered an internal error. Please try again.")
        }
        ServiceError::Unavailable => xml_error(503, "ServiceUnavailable", "Service is unable to handle request."),
        ServiceError::Throttled => xml_error(503, "SlowDown", "Please reduce your request rate."),
        ServiceError::AccessDenied => xml_error(403, "AccessDenied", "Access Denied"),
        ServiceError::ResourceDoesNotExist => xml_error(404, "NoSuchBucket", "The specified bucket does not exist"),
        ServiceError::KmsDisabled => xml_error(400, "KMS.DisabledException", "The key is disabled."),
        ServiceError::Other { status, code } => xml_error(*status, code, "The test injected this error."),
    }
}

fn xml_error(status: u16, code: &str, message: &str) -> ServiceResponse {
    let id = new_id();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{id}</RequestId></Error>"
    );
    ServiceResponse::new(status, "application/xml", body).with_header("x-amz-request-id", id)
}
