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
/// API Gateway itself gives up on a function after this time.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Headers of a sample that Meta sends; the others are added on the way by client, load balancer and API Gateway.
const SENT_HEADERS: [&str; 3] = ["accept", "content-type", "user-agent"];

/// A callback URL, and a client with connections to it.
#[derive(Debug, Clone)]
pub struct Endpoint {
    client: Client,
    url: Url,
}

/// What an endpoint, or the function itself, answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body, decoded.
    pub body: Vec<u8>,
}

/// What an endpoint answered, and how fast.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// From the start of the request to the end of the answer.
    pub elapsed: Duration,
}

impl Reply {
    /// The answer alone.
    #[must_use]
    pub fn answer(&self) -> Answer {
        Answer { status: self.status, body: self.body.clone() }
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum DeliverError {
    /// The URL is none, or not one of HTTP.
    #[error("{url} is no URL to deliver to: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A header of the sample cannot be sent.
    #[error("the sample's {name} cannot be sent: {source}")]
    Header {
        /// The header's name.
        name: &'static str,
        /// What is wrong with it.
        source: InvalidHeaderValue,
    },
    /// The sample's method is none of HTTP's.
    #[error("the sample's method cannot be sent: {0}")]
    Method(String),
    /// No connection, no TLS, or no answer in time.
    #[error("{url} did not answer: {reason}")]
    NoAnswer {
        /// The callback URL.
        url: Url,
        /// The innermost cause, which is the telling one.
        reason: String,
    },
}

impl Endpoint {
    /// Prepares deliveries to a URL.
    ///
    /// A host under `.localhost` is this computer and need not resolve; it and loopback addresses are never
    /// reached by way of a proxy. Redirects are not followed: Meta does not follow them either.
    pub fn new(url: &str) -> Result<Self, DeliverError> {
        let refused = |reason: &dyn ToString| DeliverError::Url { url: url.to_owned(), reason: reason.to_string() };
        let parsed = Url::parse(url).map_err(|error| refused(&error))?;
        let ("http" | "https", Some(host)) = (parsed.scheme(), parsed.host_str()) else {
            return Err(refused(&"it does not start with http:// or https://"));
        };
        let mut client =
            http::client_builder().redirect(Policy::none()).connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT);
        if host.ends_with(".localhost") {
            // Port 0 stands for the URL's own.
            client = client.resolve(host, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).no_proxy();
        } else if is_local(host) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|error| refused(&root_cause(&error)))?;
        Ok(Self { client, url: parsed })
    }

    /// Whether the URL is one of this computer.
    #[must_use]
    pub fn is_local(&self) -> bool {
        is_local(self.url.host_str().unwrap_or_default())
    }

    /// The callback URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Sends a sample: signed anew, and a challenge with this endpoint's token.
    ///
    /// What is forged, unsigned or carries a wrong token stays so.
    pub async fn deliver(&self, sample: &Sample, secrets: &EndpointSecrets) -> Result<Reply, DeliverError> {
        let method =
            Method::from_bytes(sample.method.as_bytes()).map_err(|_| DeliverError::Method(sample.method.clone()))?;
        let query = query(sample, &secrets.verify_token);
        self.send(method, &query, headers(sample, &secrets.app_secret)?, sample.body.clone()).await
    }

    /// Sends any request. No query means that of the URL.
    pub(crate) async fn send(
        &self,
        method: Method,
        query: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Reply, DeliverError> {
        let mut url = self.url.clone();
        if !query.is_empty() {
            url.set_query(Some(query));
        }
        let request = self.client.request(method, url).headers(headers).body(body);
        let started = Instant::now();
        let no_answer = |error: reqwest::Error| DeliverError::NoAnswer {
            url: self.url.clone(),
            reason: root_cause(&error.without_url()),
        };
        let mut answer = request.send().await.map_err(no_answer)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(no_answer)? {
            body.extend_from_slice(&chunk);
        }
        let elapsed = started.elapsed();
        Ok(Reply { status: answer.status().as_u16(), headers: std::mem::take(answer.headers_mut()), body, elapsed })
    }
}

fn headers(sample: &Sample, app_secret: &str) -> Result<HeaderMap, DeliverError> {
    let sent = SENT_HEADERS.into_iter().filter_map(|name| Some((name, sample.headers.get(name)?.clone())));
    sent.chain(sign::headers(sample, app_secret))
        .map(|(name, value)| {
            let value = value.parse().map_err(|source| DeliverError::Header { name, source })?;
            Ok((name.parse().expect("the names are in this program"), value))
        })
        .collect()
}

fn query(sample: &Sample, verify_token: &str) -> String {
    let members = form_urlencoded::parse(sample.query.as_bytes());
    let ours = |name: &str, value: &str| name == "hub.verify_token" && value == VERIFY_TOKEN;
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(members.map(|(name, value)| {
            let value = if ours(&name, &value) { verify_token.to_owned().into() } else { value };
            (name, value)
        }))
        .finish()
}

fn is_local(host: &str) -> bool {
    let is_loopback = |ip: IpAddr| ip.is_loopback();
    host == "localhost" || host.ends_with(".localhost") || host.trim_matches(['[', ']']).parse().is_ok_and(is_loopback)
}
