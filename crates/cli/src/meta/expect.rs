//! The expected response of a sample, and the fragments that the function should store.

use oracle::{Fragment, fragments};

use crate::meta::samples::{Sample, Signer, VERIFY_TOKEN};

/// The expected result of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The status of the response.
    pub status: u16,
    /// The body of the response.
    pub body: String,
    /// The fragments that should be stored.
    pub fragments: Vec<Fragment>,
}

impl Expected {
    /// Determines the result of a sample that is delivered with the secrets of the endpoint.
    #[must_use]
    pub fn of(sample: &Sample) -> Self {
        let (status, body, fragments) = match (sample.method.as_str(), sample.signer()) {
            ("GET", _) if sample.query_value("hub.verify_token").as_deref() != Some(VERIFY_TOKEN) => {
                (403, None, vec![])
            }
            ("GET", _) => match sample.query_value("hub.challenge") {
                Some(challenge) => (200, Some(challenge), vec![]),
                None => (400, None, vec![]),
            },
            ("POST", Signer::Meta) => (200, None, fragments(&sample.body)),
            ("POST", Signer::Forger | Signer::Nobody) => (401, None, vec![]),
            _ => (405, None, vec![]),
        };
        Self { status, body: body.unwrap_or_default(), fragments }
    }
}
