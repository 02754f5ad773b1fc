//! HTTP clients, all with one TLS implementation: rustls with ring.
//!
//! AWS-LC, the default of both libraries, would take a third of the build time of the command line and its dependencies.

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use reqwest::ClientBuilder;

/// Returns a builder for HTTP clients.
pub fn client_builder() -> ClientBuilder {
    // This fails if a provider is installed already. That one then applies.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientBuilder::new()
}

/// A client for AWS's SDK.
pub(crate) fn client_for_aws() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}
