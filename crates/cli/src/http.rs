//! HTTP clients, all with one TLS implementation: rustls with ring.
//!
//! AWS-LC, the default of both libraries, would take a third of the build time of the command line and its dependencies.

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use reqwest::ClientBuilder;

/// Starts a client for HTTP.
pub fn client() -> ClientBuilder {
    // It fails if this process has chosen a provider already, which then applies.
    let _ = rustls::crypto::ring::default_provider().install_default();
    ClientBuilder::new()
}

/// A client for AWS's SDK.
pub(crate) fn client_for_aws() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}
