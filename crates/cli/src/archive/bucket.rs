//! The calls to S3 for the archive and for large bodies.

use std::time::Duration;

use aws_sdk_sqs::config::{Credentials, Region, SharedCredentialsProvider};
use aws_sdk_sqs::error::ProvideErrorMetadata as _;
use aws_types::SdkConfig;
use bytes::Bytes;
use signed_s3::{DeleteObject, GetObject, ListObjects, ObjectPage, PutObject, S3Error, is_transient};
use tokio::time::{sleep, timeout};
use whatsapp_webhook::archive::PREFIX;

use super::error::ArchiveError;
use crate::{
    aws::{cli::AwsCli, stack_info::StackInfo},
    endpoint_secrets::variable,
    error::root_cause,
    http::aws_client,
};

const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A call is repeated this many times after a transient error. The interval between them doubles.
const MAX_RETRIES: u32 = 5;
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// The buckets of a stack, and a client to call S3 with.
#[derive(Debug, Clone)]
pub struct Buckets {
    aws: SdkConfig,
    owner: Option<String>,
    archive: String,
    payloads: Option<String>,
}

impl Buckets {
    /// Reads the names of the buckets from the function's environment variables. `archive` is another bucket with archived
    /// notifications.
    pub async fn of(stack: &StackInfo, aws: &AwsCli, archive: Option<String>) -> Result<Self, ArchiveError> {
        let function = stack.output("FunctionName")?;
        let call = ["lambda", "get-function-configuration", "--function-name", function];
        let names: Option<(Option<String>, Option<String>)> =
            aws.call(&stack.region, &call, "Environment.Variables.[ARCHIVE_BUCKET, PAYLOAD_BUCKET]").await?;
        let (own, payloads) = names.unwrap_or_default();
        let archive =
            archive.or(own).filter(|name| !name.is_empty()).ok_or_else(|| ArchiveError::Off(stack.stack.clone()))?;
        Ok(Self::new(stack, archive, payloads.filter(|name| !name.is_empty())))
    }

    /// Takes the names of the buckets for archived notifications and for large bodies.
    #[must_use]
    pub fn new(stack: &StackInfo, archive: String, payloads: Option<String>) -> Self {
        let key = Credentials::new(
            &stack.access_key_id,
            &stack.secret_access_key,
            stack.session_token.clone(),
            None,
            "stack",
        );
        // Of a deployed stack, the description has the endpoint of SQS only.
        let endpoint = if stack.is_local() {
            Some(stack.aws_endpoint.clone())
        } else {
            variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"))
        };
        let mut aws = SdkConfig::builder()
            .region(Region::new(stack.region.clone()))
            .credentials_provider(SharedCredentialsProvider::new(key))
            .http_client(aws_client());
        aws.set_endpoint_url(endpoint);
        let owner = stack.routes.catch_all().account_id().map(str::to_owned);
        Self { aws: aws.build(), owner, archive, payloads }
    }

    /// Returns the name of the archive's bucket.
    #[must_use]
    pub fn archive(&self) -> &str {
        &self.archive
    }

    /// Returns the name of the bucket for large bodies.
    pub(crate) fn payloads(&self) -> Result<&str, ArchiveError> {
        self.payloads.as_deref().ok_or(ArchiveError::NoPayloadBucket)
    }

    /// Lists a page of keys of the archive.
    pub(crate) async fn list(&self, start_after: Option<&str>) -> Result<ObjectPage, ArchiveError> {
        let list = ListObjects { bucket: &self.archive, prefix: PREFIX, start_after, owner: self.owner.as_deref() };
        retry("list the keys with the prefix", PREFIX, || list.send(&self.aws)).await
    }

    /// Reads an object of the archive. `None` if there is none with this key.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Bytes>, ArchiveError> {
        let get = GetObject { bucket: &self.archive, key, owner: self.owner.as_deref() };
        let content = || async {
            match get.send(&self.aws).await {
                Err(error) if error.code() == Some("NoSuchKey") => Ok(None),
                content => content.map(Some),
            }
        };
        retry("read", key, content).await
    }

    /// Replaces an object of the archive.
    pub(crate) async fn put(&self, key: &str, body: Bytes) -> Result<(), ArchiveError> {
        self.put_to(&self.archive, key, "application/gzip", body).await
    }

    /// Stores a large body.
    pub(crate) async fn put_payload(&self, key: &str, body: Bytes) -> Result<(), ArchiveError> {
        self.put_to(self.payloads()?, key, "application/json", body).await
    }

    async fn put_to(&self, bucket: &str, key: &str, content_type: &str, body: Bytes) -> Result<(), ArchiveError> {
        let owner = self.owner.as_deref();
        let put = || PutObject { bucket, key, content_type, body: body.clone(), owner }.send(&self.aws);
        retry("write", key, put).await
    }

    /// Deletes an object of the archive.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), ArchiveError> {
        let delete = DeleteObject { bucket: &self.archive, key, owner: self.owner.as_deref() };
        retry("delete", key, || delete.send(&self.aws)).await
    }
}

/// Makes a call, and repeats it after a transient error.
async fn retry<T, F: Future<Output = Result<T, S3Error>>>(
    action: &'static str,
    key: &str,
    call: impl Fn() -> F,
) -> Result<T, ArchiveError> {
    let mut retries = 0;
    loop {
        let (reason, is_transient) = match timeout(CALL_TIMEOUT, call()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => (describe(&error), is_transient(&error)),
            Err(_) => ("no answer in time".to_owned(), true),
        };
        if !is_transient || retries == MAX_RETRIES {
            return Err(ArchiveError::S3 { action, key: key.to_owned(), reason });
        }
        sleep(RETRY_INTERVAL * 2_u32.pow(retries)).await;
        retries += 1;
    }
}

fn describe(error: &S3Error) -> String {
    match (error.code(), error.raw_response()) {
        (Some(code), _) => code.to_owned(),
        (None, Some(response)) if !response.status().is_success() => format!("status {}", response.status().as_u16()),
        _ => root_cause(error),
    }
}
