//! The claim check: a body that is too large for SQS is stored in S3, and its message has a pointer to the object.

use aws_config::SdkConfig;
use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use bytes::Bytes;
use signed_s3::{PutObject, is_transient};
use thiserror::Error;
use whatsapp_webhook::{aws_error::is_expired_credentials, message::object_key};

use crate::aws::{error_code, error_reason};

/// The bucket for bodies over SQS's limit.
#[derive(Debug)]
pub struct Payloads {
    bucket: Option<String>,
    owner: Option<String>,
    aws: SdkConfig,
}

/// Why a body was not stored.
#[derive(Debug, Error)]
pub enum PayloadError {
    /// `PAYLOAD_BUCKET` is not set.
    #[error("body over the SQS limit, and PAYLOAD_BUCKET is not set")]
    NoBucket,
    /// S3 rejects the request, or the SDK cannot build it.
    #[error("S3: {0}")]
    Rejected(String),
    /// The same request may succeed later.
    #[error("S3: {0}")]
    Transient(String),
    /// S3 no longer accepts the credentials.
    #[error("S3: {0}")]
    ExpiredAwsCredentials(String),
}

impl Payloads {
    /// Takes the configuration, the name of the bucket, and the id of the AWS account that the bucket must belong to. Without an
    /// id, the bucket may belong to any account. S3 is not called.
    #[must_use]
    pub fn new(aws: &SdkConfig, bucket: Option<String>, owner: Option<String>) -> Self {
        Self { bucket, owner, aws: aws.clone() }
    }

    /// The name of the bucket.
    ///
    /// # Errors
    ///
    /// [`PayloadError::NoBucket`] if no bucket is configured.
    pub fn bucket(&self) -> Result<&str, PayloadError> {
        self.bucket.as_deref().ok_or(PayloadError::NoBucket)
    }

    /// A key that no other object has, see [`object_key`].
    #[must_use]
    pub fn key(route: Option<&str>, event_id: &str) -> String {
        let now = DateTime::from(std::time::SystemTime::now()).fmt(DateTimeFormat::DateTime).unwrap_or_default();
        object_key(route, now.split('T').next().unwrap_or_default(), event_id, fastrand::u64(..))
    }

    /// Stores a body with one request, without a timeout and without retries. If this returns `Ok`, the body is durable.
    ///
    /// # Errors
    ///
    /// See [`PayloadError`].
    pub async fn put(&self, key: &str, body: Bytes) -> Result<(), PayloadError> {
        let owner = self.owner.as_deref();
        put(&self.aws, PutObject { bucket: self.bucket()?, key, content_type: "application/json", body, owner }).await
    }
}

/// Sends an object once, without a time limit.
pub(crate) async fn put(aws: &SdkConfig, object: PutObject<'_>) -> Result<(), PayloadError> {
    let Err(error) = object.send(aws).await else { return Ok(()) };
    let reason = error_reason(&error);
    Err(if error_code(&error).is_some_and(|(_, code)| is_expired_credentials(code)) {
        PayloadError::ExpiredAwsCredentials(reason)
    } else if is_transient(&error) {
        PayloadError::Transient(reason)
    } else {
        PayloadError::Rejected(reason)
    })
}
