//! The claim check: a body that SQS would not take is stored in S3, and its message points there.

use std::sync::OnceLock;

use aws_config::SdkConfig;
use aws_sdk_s3::{
    Client,
    config::Builder,
    error::ProvideErrorMetadata,
    primitives::{ByteStream, DateTime, DateTimeFormat},
};
use thiserror::Error;

use crate::telemetry::causes;

/// Where what has no route of its own is kept.
const UNROUTED: &str = "unrouted";

/// The bucket for bodies over SQS's limit.
#[derive(Debug)]
pub struct Payloads {
    bucket: Option<String>,
    aws: SdkConfig,
    client: OnceLock<Client>,
}

/// Why a body was not stored.
#[derive(Debug, Error)]
pub enum PayloadError {
    /// There is no bucket to store it in.
    #[error("over the SQS limit, and PAYLOAD_BUCKET is not set")]
    NoBucket,
    /// S3 says that it may not be stored there.
    #[error("S3: {0}")]
    Refused(String),
    /// S3 did not take it, but may do so in a moment.
    #[error("S3: {0}")]
    Passing(String),
}

impl Payloads {
    /// Takes the settings; S3 is not called, nor its client made, until a body needs it.
    #[must_use]
    pub fn new(aws: &SdkConfig, bucket: Option<String>) -> Self {
        Self { bucket, aws: aws.clone(), client: OnceLock::new() }
    }

    /// The bucket's name.
    pub fn bucket(&self) -> Result<&str, PayloadError> {
        self.bucket.as_deref().ok_or(PayloadError::NoBucket)
    }

    /// A key that no other object has, under the route's own prefix.
    ///
    /// A consumer's library deletes the object together with its message, so two messages must never share one,
    /// not even two copies of the same message.
    #[must_use]
    pub fn key(route: Option<&str>, event_id: &str) -> String {
        let now = DateTime::from(std::time::SystemTime::now()).fmt(DateTimeFormat::DateTime).unwrap_or_default();
        let date = now.split('T').next().unwrap_or_default();
        format!("{}/{date}/{event_id}-{:016x}", route.unwrap_or(UNROUTED), fastrand::u64(..))
    }

    /// Stores a body; when this returns, it is durable.
    pub async fn put(&self, key: &str, body: String) -> Result<(), PayloadError> {
        let put = self.client().put_object().bucket(self.bucket()?).key(key).content_type("application/json");
        let sent = put.body(ByteStream::from(body.into_bytes())).send().await;
        sent.map(drop).map_err(|error| {
            let status = error.raw_response().map_or(0, |answer| answer.status().as_u16());
            let code = error.code().unwrap_or_default();
            // A slow upload is answered with 400, what is in conflict with another call with 409, and for a new bucket
            // that is not known everywhere yet with 307; but for one in another region always with 301.
            let passing =
                matches!(status, 307 | 408 | 409 | 429) || code.contains("Timeout") || code.contains("Throttl");
            let refused = (300..500).contains(&status) && !passing;
            if refused { PayloadError::Refused(causes(&error)) } else { PayloadError::Passing(causes(&error)) }
        })
    }

    fn client(&self) -> &Client {
        self.client.get_or_init(|| {
            // A bucket's own host name does not resolve at a local endpoint.
            let path_style = self.aws.endpoint_url().is_some();
            Client::from_conf(Builder::from(&self.aws).force_path_style(path_style).build())
        })
    }
}
