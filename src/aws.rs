//! What all calls to AWS have in common: one HTTP client, and an end to every wait.

use std::time::Duration;

use aws_config::{
    BehaviorVersion, SdkConfig, environment::EnvironmentVariableCredentialsProvider, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_sdk_sqs::config::ProvideCredentials as _;
use aws_smithy_http_client::{
    Connector,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::{
    HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};

/// Region, credentials and endpoint as every AWS SDK finds them, with explicit timeouts.
///
/// The clients made from it share their connections and the trust store. By default the SDK waits for a
/// connection for 3.1 s, and for an answer forever.
pub async fn config() -> SdkConfig {
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client()).timeout_config(timeouts());
    // Lambda gives the credentials in the environment, where the SDK looks first; what else it would ask, it builds before
    // it asks, with a client of STS.
    let environment = EnvironmentVariableCredentialsProvider::new();
    let has_credentials = environment.provide_credentials().await.is_ok();
    let loader = if has_credentials { loader.credentials_provider(environment) } else { loader };
    loader.load().await
}

/// Timeouts of every call to AWS.
#[must_use]
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_attempt_timeout(Duration::from_secs(2))
        .operation_timeout(Duration::from_secs(5))
        .build()
}

/// The same without the SDK's retries: what is tried again, and until when, is the caller's own matter.
#[must_use]
pub fn without_retries(config: &SdkConfig) -> SdkConfig {
    config.to_builder().retry_config(RetryConfig::disabled()).build()
}

/// A client with one connector for all, which has the time to connect in. The SDK's own would make another for every client
/// that is built, only to see that it can, and parse all certificates of the trust store each time. What a client's own
/// settings say of connecting and reading does not reach it: only the timeouts of operations do.
fn http_client() -> SharedHttpClient {
    let settings = HttpConnectorSettings::builder().connect_timeout(Duration::from_secs(1)).build();
    let tls = Provider::Rustls(CryptoMode::AwsLc);
    let connector = Connector::builder().tls_provider(tls).connector_settings(settings).build();
    let connector = SharedHttpConnector::new(connector);
    http_client_fn(move |_, _| connector.clone())
}
