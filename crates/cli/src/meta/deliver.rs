//! Delivers a sample over HTTP, as Meta would.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use reqwest::{
    Client, Method, Url,
    header::{HeaderMap, InvalidHeaderValue},
    redirect::Policy,
};
use thiserror::Error;

use crate::{
    endpoint_secrets::EndpointSecrets,
    error::root_cause,
    http,
    meta::{
        samples::{Sample, VERIFY_TOKEN},
        sign,
    },
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The [maximum integration timeout](https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html) of
/// an HTTP API.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The headers of a sample that come from Meta. Client, load balancer and API Gateway add the others.
const SENT_HEADERS: [&str; 3] = ["accept", "content-type", "user-agent"];

/// A callback URL, and a client with connections to it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    client: Client,
    url: Url,
}

/// The response of an endpoint, or of the function itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The body, decoded.
    pub body: Vec<u8>,
}

/// The response of an endpoint, with its headers and latency.
#[derive(Debug, Clone)]
pub struct TimedResponse {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// The time from the start of the request to the end of the response.
    pub elapsed: Duration,
}

impl TimedResponse {
    /// Returns the response without headers and latency.
    #[must_use]
    pub fn untimed(&self) -> Response {
        Response { status: self.status, body: self.body.clone() }
    }
}

/// A delivery that got no response.
#[derive(Debug, Error)]
pub enum DeliverError {
    /// The URL is not a valid HTTP URL.
    #[error("{url} is not a callback URL: {reason}")]
    InvalidUrl {
        /// The text of the URL.
        url: String,
        /// The reason why it is not valid.
        reason: String,
    },
    /// A header of the sample is not valid in HTTP.
    #[error("cannot send the sample's header {name}: {source}")]
    InvalidHeader {
        /// The header's name.
        name: &'static str,
        /// The error of the HTTP library.
        source: InvalidHeaderValue,
    },
    /// The method of the sample is not valid in HTTP.
    #[error("cannot send the sample's method {0}")]
    InvalidMethod(String),
    /// The connection, TLS or the request failed, or the response did not arrive in time.
    #[error("no response from {url}: {reason}")]
    NoResponse {
        /// The callback URL.
        url: Url,
        /// The message of the root cause.
        reason: String,
    },
}

impl Endpoint {
    /// Prepares deliveries to a URL.
    ///
    /// A host under `.localhost` is this computer, also without DNS. Requests to it and to loopback addresses bypass
    /// proxies. Redirects are not followed, because Meta does not follow them either.
    pub fn new(url: &str) -> Result<Self, DeliverError> {
        let invalid =
            |reason: &dyn ToString| DeliverError::InvalidUrl { url: url.to_owned(), reason: reason.to_string() };
        let parsed = Url::parse(url).map_err(|error| invalid(&error))?;
        let ("http" | "https", Some(host)) = (parsed.scheme(), parsed.host_str()) else {
            return Err(invalid(&"it does not start with http:// or https://"));
        };
        let mut client =
            http::client_builder().redirect(Policy::none()).connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT);
        if host.ends_with(".localhost") {
            // Port 0 means the port of the URL.
            client = client.resolve(host, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).no_proxy();
        } else if is_local(host) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| invalid(&root_cause(&error)))?;
        Ok(Self { client, url: parsed })
    }

    /// Whether the URL leads to this computer.
    #[must_use]
    pub fn is_local(&self) -> bool {
        is_local(self.url.host_str().unwrap_or_default())
    }

    /// The callback URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Sends a sample with the secrets of the endpoint: signs a notification again, and replaces the verify token of a
    /// verification request.
    ///
    /// A forged sample remains forged, an unsigned one unsigned, and a wrong verify token wrong.
    pub async fn deliver(&self, sample: &Sample, secrets: &EndpointSecrets) -> Result<TimedResponse, DeliverError> {
        let method = Method::from_bytes(sample.method.as_bytes())
            .map_err(|_| DeliverError::InvalidMethod(sample.method.clone()))?;
        let query = query(sample, &secrets.verify_token);
        self.send(method, &query, headers(sample, &secrets.app_secret)?, sample.body.clone()).await
    }

    /// Sends any request. If `query` is empty, the query of the URL remains.
    pub(crate) async fn send(
        &self,
        method: Method,
        query: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<TimedResponse, DeliverError> {
        let mut url = self.url.clone();
        if !query.is_empty() {
            url.set_query(Some(query));
        }
        let request = self.client.request(method, url).headers(headers).body(body);
        let started = Instant::now();
        let no_response = |error: reqwest::Error| DeliverError::NoResponse {
            url: self.url.clone(),
            reason: root_cause(&error.without_url()),
        };
        let mut response = request.send().await.map_err(no_response)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(no_response)? {
            body.extend_from_slice(&chunk);
        }
        let elapsed = started.elapsed();
        Ok(TimedResponse {
            status: response.status().as_u16(),
            headers: std::mem::take(response.headers_mut()),
            body,
            elapsed,
        })
    }
}

/// Returns the headers of a sample that come from Meta, with new signatures.
fn headers(sample: &Sample, app_secret: &str) -> Result<HeaderMap, DeliverError> {
    let sent = SENT_HEADERS.into_iter().filter_map(|name| Some((name, sample.headers.get(name)?.clone())));
    sent.chain(sign::headers(sample, app_secret))
        .map(|(name, value)| {
            let value = value.parse().map_err(|source| DeliverError::InvalidHeader { name, source })?;
            Ok((name.parse().expect("the names are constants of this program"), value))
        })
        .collect()
}

/// Returns the query of a sample, with the verify token of the endpoint instead of that of the samples.
fn query(sample: &Sample, verify_token: &str) -> String {
    let members = form_urlencoded::parse(sample.query.as_bytes());
    let is_sample_token = |name: &str, value: &str| name == "hub.verify_token" && value == VERIFY_TOKEN;
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(members.map(|(name, value)| {
            let value = if is_sample_token(&name, &value) { verify_token.to_owned().into() } else { value };
            (name, value)
        }))
        .finish()
}

fn is_local(host: &str) -> bool {
    let is_loopback = |ip: IpAddr| ip.is_loopback();
    host == "localhost" || host.ends_with(".localhost") || host.trim_matches(['[', ']']).parse().is_ok_and(is_loopback)
}
