//! Unusual parts of a request that must not change the answer. Only a real account shows what API Gateway makes of them.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// An unusual part of a request.
#[derive(Debug)]
pub(crate) struct Oddity {
    /// Completes "with …".
    pub(crate) name: &'static str,
    /// The query, without those parameters that the request needs anyway.
    pub(crate) query: &'static str,
    headers: &'static [(&'static str, &'static [u8])],
}

/// Oddities that one check covers.
#[derive(Debug)]
pub(crate) struct Oddities {
    /// The name of the check.
    pub(crate) check: &'static str,
    /// Each is sent in a request of its own.
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
            let value = HeaderValue::from_bytes(value).expect("the values are legal");
            to.append(HeaderName::from_static(name), value);
        }
    }
}

const UNUSED_BY_META: &str = "Meta sends no such request; if a proxy or client of yours does, change it there, or exempt the path in the firewall";

/// Bytes above 0x7f and tabs are legal in a header value (RFC 9110, section 5.5).
pub(crate) const HEADERS: Oddities = Oddities {
    check: "odd header accepted",
    all: &[
        Oddity::of_header(
            "a tab, quotes and non-ASCII characters in a header",
            &[("x-ingress-verify", b"\"a\\b\"\t\xc3\xa4 \xe2\x82\xac {%}")],
        ),
        Oddity::of_header("a duplicate header", &[("x-ingress-verify", b"1"), ("x-ingress-verify", b"2")]),
        Oddity::of_header("an empty header", &[("x-ingress-verify", b"")]),
    ],
    fix: UNUSED_BY_META,
};

/// Characters that clients send without encoding them, although RFC 3986 does not allow them in a query; and percent
/// sequences, which some gateways decode before they pass the query on.
const ODD_QUERIES: &[Oddity] = &[
    Oddity::of_query("raw characters in the query", "odd=[a]{b}|c\\d^e`f"),
    Oddity::of_query("percent sequences in the query that do not decode", "odd=%zz%ff%&%=%"),
    Oddity::of_query("encoded control characters in the query", "odd=%00%09%0A%0D%20%22%3C%3E%23%7F"),
];

pub(crate) const QUERIES: Oddities = Oddities { check: "odd query accepted", all: ODD_QUERIES, fix: UNUSED_BY_META };

pub(crate) const CHALLENGE_QUERIES: Oddities =
    Oddities { check: "challenge with an odd query answered", all: ODD_QUERIES, fix: UNUSED_BY_META };

/// Each proxy of a chain that appends to the header adds a scheme.
pub(crate) const FORWARDED: Oddities = Oddities {
    check: "doubled x-forwarded-proto accepted",
    all: &[Oddity::of_header("x-forwarded-proto: https,http", &[("x-forwarded-proto", b"https,http")])],
    fix: "have the proxies in front of the API replace x-forwarded-proto instead of appending to it",
};

/// The oddities that are sent with signed notifications.
pub(crate) const SIGNED: [Oddities; 3] = [HEADERS, QUERIES, FORWARDED];
