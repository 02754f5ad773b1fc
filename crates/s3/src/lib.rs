//! The operations of S3 that the function and the command line need: [`PutObject`](https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html),
//! and for the command line alone [`GetObject`](https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html),
//! [`ListObjectsV2`](https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html) and
//! [`DeleteObject`](https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObject.html).
//!
//! The request is signed and sent by the same crates as those of the AWS SDK. The SDK's own client for S3 has 110
//! operations: it would add a quarter to the build time of the function and a fifth to its binary.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod list;
mod request;

use aws_types::SdkConfig;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;

use request::Request;

pub use list::{ListObjects, ListedObject, ObjectPage};
pub use request::{S3Error, is_transient};

/// An object to be stored.
#[derive(Debug)]
pub struct PutObject<'o> {
    /// The name of the bucket.
    pub bucket: &'o str,
    /// The key, not percent-encoded.
    pub key: &'o str,
    /// The media type of the body.
    pub content_type: &'o str,
    /// The content.
    pub body: Bytes,
    /// The account that must own the bucket.
    pub owner: Option<&'o str>,
}

impl PutObject<'_> {
    /// Sends the request once, without a time limit. If this returns `Ok`, the object is durable.
    ///
    /// S3 verifies the body with `x-amz-content-sha256`. For a bucket with Object Lock it also requires `x-amz-checksum-sha256`,
    /// the same digest.
    ///
    /// Outside Lambda, where credentials come from a profile or an instance, each request resolves them anew.
    pub async fn send(self, aws: &SdkConfig) -> Result<(), S3Error> {
        let Self { bucket, key, content_type, body, owner } = self;
        let request = Request::new("PUT", bucket, key, owner).with_body(body);
        let checksum = BASE64.encode(request.digest);
        let headers = vec![("content-type", content_type), ("x-amz-checksum-sha256", &checksum)];
        Request { headers, ..request }.send(aws, "PutObject", |_| Ok(())).await
    }
}

/// An object to be read.
#[derive(Debug, Clone, Copy)]
pub struct GetObject<'o> {
    /// The name of the bucket.
    pub bucket: &'o str,
    /// The key, not percent-encoded.
    pub key: &'o str,
    /// The account that must own the bucket.
    pub owner: Option<&'o str>,
}

impl GetObject<'_> {
    /// Sends the request once, without a time limit. Returns the content.
    pub async fn send(self, aws: &SdkConfig) -> Result<Bytes, S3Error> {
        let Self { bucket, key, owner } = self;
        Request::new("GET", bucket, key, owner).send(aws, "GetObject", |body| Ok(Bytes::copy_from_slice(body))).await
    }
}

/// An object to be deleted.
#[derive(Debug, Clone, Copy)]
pub struct DeleteObject<'o> {
    /// The name of the bucket.
    pub bucket: &'o str,
    /// The key, not percent-encoded.
    pub key: &'o str,
    /// The account that must own the bucket.
    pub owner: Option<&'o str>,
}

impl DeleteObject<'_> {
    /// Sends the request once, without a time limit. Succeeds too if the object does not exist.
    pub async fn send(self, aws: &SdkConfig) -> Result<(), S3Error> {
        let Self { bucket, key, owner } = self;
        Request::new("DELETE", bucket, key, owner).send(aws, "DeleteObject", |_| Ok(())).await
    }
}
