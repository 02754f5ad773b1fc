//! Unusual parts of a request that must not change the response.
//!
//! No local stack shows how API Gateway passes them on: only a stack on AWS does.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// An unusual part of a request.
#[derive(Debug)]
pub(crate) struct Oddity {
    /// The name, which completes "with …".
    pub(crate) name: &'static str,
    /// The unusual part of the query.
    pub(crate) query: &'static str,
    headers: &'static [(&'static str, &'static [u8])],
}

/// Oddities that one check covers.
#[derive(Debug)]
pub(crate) struct Oddities {
    /// The name of the check.
    pub(crate) check: &'static str,
    /// The oddities. Each is sent in its own request.
    pub(crate) all: &'static [Oddity],
    /// The fix if something before the function rejects the request.
    pub(crate) fix: &'static str,
}

impl Oddity {
    /// A request without oddities.
    pub(crate) const NONE: Self = Self { name: "", query: "", headers: &[] };

    const fn of_header(name: &'static str, headers: &'static [(&'static str, &'static [u8])]) -> Self {
        Self { name, query: "", headers }
    }

    const fn of_query(name: &'static str, query: &'static str) -> Self {
        Self { name, query, headers: &[] }
    }

    /// Appends the headers, so that duplicates remain.
    pub(crate) fn add_headers(&self, to: &mut HeaderMap) {
        for &(name, value) in self.headers {
            let value = HeaderValue::from_bytes(value).expect("the values are valid");
            to.append(HeaderName::from_static(name), value);
        }
    }
}

const FIX_OF_SENDER: &str = "Meta sends no such request. If your proxy or client does, change the proxy or client, or exempt the path in the firewall";

/// Bytes above 0x7f and tabs are legal in a header value
/// ([RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#section-5.5)).
pub(crate) const HEADERS: Oddities = Oddities {
    check: "unusual header accepted",
    all: &[
        Oddity::of_header(
            "a tab, quotes and non-ASCII characters in a header",
            &[("x-ingress-verify", b"\"a\\b\"\t\xc3\xa4 \xe2\x82\xac {%}")],
        ),
        Oddity::of_header("a duplicate header", &[("x-ingress-verify", b"1"), ("x-ingress-verify", b"2")]),
        Oddity::of_header("an empty header", &[("x-ingress-verify", b"")]),
    ],
    fix: FIX_OF_SENDER,
};

/// Characters that some clients do not encode, although [RFC 3986](https://www.rfc-editor.org/rfc/rfc3986#section-3.4)
/// requires it, and percent sequences, which some gateways decode.
const UNUSUAL_QUERIES: &[Oddity] = &[
    Oddity::of_query("raw characters in the query", "odd=[a]{b}|c\\d^e`f"),
    Oddity::of_query("percent sequences in the query that do not decode", "odd=%zz%ff%&%=%"),
    Oddity::of_query("encoded control characters in the query", "odd=%00%09%0A%0D%20%22%3C%3E%23%7F"),
];

pub(crate) const QUERIES: Oddities =
    Oddities { check: "unusual query accepted", all: UNUSUAL_QUERIES, fix: FIX_OF_SENDER };

pub(crate) const CHALLENGE_QUERIES: Oddities =
    Oddities { check: "challenge with an unusual query answered", all: UNUSUAL_QUERIES, fix: FIX_OF_SENDER };

/// If a proxy appends its scheme to the header instead of replacing the value, the header has several schemes.
pub(crate) const FORWARDED: Oddities = Oddities {
    check: "x-forwarded-proto with two schemes accepted",
    all: &[Oddity::of_header("x-forwarded-proto: https,http", &[("x-forwarded-proto", b"https,http")])],
    fix: "have the proxies in front of the API replace x-forwarded-proto instead of appending to it",
};

/// The oddities of notifications.
pub(crate) const OF_NOTIFICATIONS: [Oddities; 3] = [HEADERS, QUERIES, FORWARDED];
