//! Configures the clients of AWS: one HTTP client for all, timeouts and retries. Describes their errors for the log.

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

/// The timeout for opening a connection. The SDK's default is 3.1 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The timeout for one attempt to read the secret.
const SECRET_ATTEMPT_TIMEOUT: Duration = Duration::from_millis(4_500);

/// The timeout for all attempts to read the secret together. Lambda limits the start of the function to 10 s.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html>
const SECRET_TIMEOUT: Duration = Duration::from_secs(9);

/// The configuration for reading the secret: region, credentials and endpoint from the environment, with timeouts and retries.
///
/// All clients that are built from this configuration share one connection pool and one trust store.
pub async fn config() -> SdkConfig {
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client()).timeout_config(timeouts());
    // Lambda provides the credentials in the environment. The SDK's default chain also looks there first, but before that it
    // builds all other providers, including a client for STS.
    let environment = EnvironmentVariableCredentialsProvider::new();
    let has_credentials = environment.provide_credentials().await.is_ok();
    let loader = if has_credentials { loader.credentials_provider(environment) } else { loader };
    loader.load().await
}

/// The timeouts for reading the secret.
#[must_use]
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().operation_attempt_timeout(SECRET_ATTEMPT_TIMEOUT).operation_timeout(SECRET_TIMEOUT).build()
}

/// The configuration for SQS and S3, without the SDK's retries and timeouts. The module [`queue`](crate::queue) decides which
/// calls are repeated, and until when.
#[must_use]
pub fn without_retries_and_timeouts(config: &SdkConfig) -> SdkConfig {
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

/// The HTTP status and the error code of a response. `None` if there was no response.
pub(crate) fn error_code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<(u16, &str)> {
    let status = error.raw_response()?.status().as_u16();
    Some((status, error.code().unwrap_or("unreadable response")))
}

/// The text of an error for the log. Of a response it has the code and the status, but not the message, because AWS can quote
/// data in it.
pub(crate) fn error_reason<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    error_code(error).map_or_else(|| causes(error), |(status, code)| format!("{code} ({status})"))
}
