//! Configures the clients of AWS: one HTTP client, timeouts and retries. Makes error texts without data.

use std::{error::Error, time::Duration};

use aws_config::{
    BehaviorVersion, SdkConfig, environment::EnvironmentVariableCredentialsProvider, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_sdk_sqs::{
    config::ProvideCredentials as _,
    error::{ProvideErrorMetadata, SdkError},
};
use aws_smithy_http_client::{
    Connector,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn},
    orchestrator::HttpResponse,
};

use crate::telemetry::causes;

/// The limit for opening a connection. The SDK's own limit is 3.1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long one attempt at reading the secret may take, and all attempts together: Lambda allows 10 s for the start.
const SECRET_ATTEMPT_TIMEOUT: Duration = Duration::from_millis(4_500);
const SECRET_TIMEOUT: Duration = Duration::from_secs(9);

/// Region, credentials and endpoint as every AWS SDK finds them, with timeouts and retries for reading the secret.
///
/// All clients that are built from it share one connection pool and one trust store.
pub async fn config() -> SdkConfig {
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client()).timeout_config(timeouts());
    // Lambda provides the credentials in the environment. The SDK's default chain looks there first, but builds all
    // other providers beforehand, including a client for STS.
    let environment = EnvironmentVariableCredentialsProvider::new();
    let has_credentials = environment.provide_credentials().await.is_ok();
    let loader = if has_credentials { loader.credentials_provider(environment) } else { loader };
    loader.load().await
}

/// Timeouts for reading the secret. [`without_retries`] removes them for SQS and S3.
#[must_use]
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(SECRET_ATTEMPT_TIMEOUT).operation_timeout(SECRET_TIMEOUT).build()
}

/// The configuration for SQS and S3, without the SDK's retries and timeouts: the caller decides which calls it repeats, and
/// until when.
#[must_use]
pub fn without_retries(config: &SdkConfig) -> SdkConfig {
    config.to_builder().retry_config(RetryConfig::disabled()).timeout_config(TimeoutConfig::disabled()).build()
}

/// Shares one connector between all SDK clients. By default each client builds its own and parses the trust store again.
///
/// The connect and read timeouts of a client's own configuration do not apply to a shared connector.
fn http_client() -> SharedHttpClient {
    let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build();
    let tls = Provider::Rustls(CryptoMode::AwsLc);
    let connector = Connector::builder().tls_provider(tls).connector_settings(settings).build();
    let connector = SharedHttpConnector::new(connector);
    http_client_fn(move |_, _| connector.clone())
}

/// The HTTP status and the error code of a response; `None` if there is no response.
pub(crate) fn error_code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<(u16, &str)> {
    let status = error.raw_response()?.status().as_u16();
    Some((status, error.code().unwrap_or("unreadable response")))
}

/// The text of an error for the log: code and status of a response, never its message, which can quote data.
pub(crate) fn error_reason<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    error_code(error).map_or_else(|| causes(error), |(status, code)| format!("{code} ({status})"))
}
