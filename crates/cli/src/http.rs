//! HTTP clients for reqwest and the AWS SDK. Both use rustls with ring.
//!
//! AWS-LC, their default, would take a third of the build time of the command line and its dependencies.

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use reqwest::ClientBuilder;

/// Returns a builder for HTTP clients.
pub fn client_builder() -> ClientBuilder {
    // If this fails, another provider is installed already and remains in use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientBuilder::new()
}

/// Returns a client for the AWS SDK.
pub(crate) fn aws_client() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}
