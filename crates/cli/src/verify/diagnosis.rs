//! For what an endpoint does wrong: the likely cause, and what to do about it.

use serde::Serialize;

/// What an operator needs to know of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// What is most likely wrong.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

/// What an answer was to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Challenge,
    WrongToken,
    Forged,
    Reserialised,
    Signed,
    /// A request with something odd, of a kind that is answered without it; with the fix if something before the
    /// function rejects it.
    Odd(&'static str),
}

/// The function cannot read the event that API Gateway makes of an odd request.
const ODD_EVENT: (&str, &str) = (
    "the deployed function fails on such a request",
    "deploy the current version; if it is deployed, see the last error line in the function's log group",
);

/// For a status that is not the one expected. All of the function's answers but the challenge are without a body.
pub(crate) fn of_status(status: u16, has_body: bool, asked: Asked) -> Diagnosis {
    let (cause, remedy) = match (status, asked) {
        (200, Asked::Challenge | Asked::Signed | Asked::Odd(_)) => ("the answer is another", "see what answers there"),
        (200, Asked::WrongToken) => (
            "whoever answers there does not compare the verify token",
            "do not connect Meta to it: anybody could take the URL over; see what answers there",
        ),
        (200, Asked::Reserialised) => (
            "the signature is checked over JSON that was parsed and written again, or not at all",
            "do not connect Meta to it: it would refuse genuine notifications too; it has to hash the raw body",
        ),
        (200, Asked::Forged) => (
            "whoever answers there does not check signatures",
            "do not connect Meta to it: anybody could send notifications; see what answers there",
        ),
        (201..=299, _) => ("not the function answers; to Meta anything but 200 is a failure", "see what answers there"),
        (300..=399, _) => ("the URL redirects, and Meta does not follow", "give Meta the URL that it leads to"),
        (400, Asked::Odd(_)) if !has_body => ODD_EVENT,
        (500 | 502, Asked::Odd(_)) => ODD_EVENT,
        (401 | 403, Asked::Odd(_)) if !has_body => (
            "something before the function changes the request: its query, its body or the signature header",
            "have proxies pass requests on unchanged",
        ),
        (400 | 403 | 413 | 414 | 431, Asked::Odd(fix)) => (
            "API Gateway, or a proxy or firewall in front of it, rejects such a request; the function does not receive it",
            fix,
        ),
        (401, Asked::Signed) if !has_body => (
            "the function knows another app secret",
            "put the app's secret into the stack's secret, or the right one into APP_SECRET; a new one works at once",
        ),
        (403, Asked::Challenge) if !has_body => {
            ("the function knows another verify token", "compare VERIFY_TOKEN with verify_token in the stack's secret")
        }
        (401 | 403, _) => (
            "something before the function refuses: an authorizer, a firewall, or a domain without a mapping",
            "let GET and POST of this path through to the function without authorization",
        ),
        (404 | 405, _) => (
            "the API has no route for this path and method",
            "take the URL from the stack's output CallbackUrl: its path is /webhook",
        ),
        (429, _) => ("requests are throttled", "raise the API's throttling limits, or wait a minute"),
        (503, Asked::Signed | Asked::Odd(_)) if !has_body => (
            "neither the queue nor the catch-all took the notification",
            "see the function's log group: an error line names the queue and the reason",
        ),
        (500 | 502, _) => (
            "the function does not start, most often because the secret still has its placeholder",
            "see the function's log group: the last error line names the member or setting that is wrong",
        ),
        (503 | 504, _) => (
            "the function is out of time or of concurrency",
            "see the function's Duration and Throttles in CloudWatch, and its log group",
        ),
        _ => ("not the function answers", "see what answers there; the URL is the stack's output CallbackUrl"),
    };
    told(cause, remedy)
}

/// For no answer at all, by what the network or TLS said.
pub(crate) fn of_connection(reason: &str) -> Diagnosis {
    let has = |part: &str| reason.to_lowercase().contains(part);
    let (cause, remedy) = if has("unknownissuer") || has("unknown issuer") || has("self-signed") || has("self signed") {
        (
            "the certificate is self-signed, or its chain is not complete",
            "use a certificate of a public authority, with its intermediates; API Gateway's own is one",
        )
    } else if has("not valid for name") || has("notvalidforname") {
        ("the certificate is for another name", "use a name that the certificate has, or have one made for this name")
    } else if has("expired") {
        ("the certificate has expired", "renew it; ACM renews by itself what it can still validate")
    } else if has("certificate") {
        ("the certificate is not trusted", "use a certificate of a public authority")
    } else if has("protocolversion") || has("protocol version") || has("incompatible") {
        ("the server does not speak TLS 1.2 or later", "set the domain's security policy to TLS 1.2")
    } else if has("lookup") || has("resolve") || has("name or service") || has("nodename") {
        ("the name does not resolve", "check the URL; a new domain name takes a while")
    } else if has("refused") {
        ("nothing listens there", "check host and port of the URL; is the stack up?")
    } else if has("timed out") || has("deadline") || has("elapsed") {
        ("no answer in time", "check the URL, and whether a firewall drops packets; see the function's Duration")
    } else if has("corrupt") || has("invalidmessage") || has("invalid message") {
        ("what listens there does not speak TLS", "check scheme and port of the URL")
    } else {
        ("the connection was closed or broken", "check the URL, and what stands before the API")
    };
    told(cause, remedy)
}

pub(crate) fn of_secret() -> Diagnosis {
    told(
        "the value was not replaced, or was copied together with its surroundings",
        "write the secret again, as in the README under Deploy; APP_SECRET and VERIFY_TOKEN override the stack's values",
    )
}

pub(crate) fn of_app_secret() -> Diagnosis {
    told(
        "the value is not the app secret but an id, a token or a part of it: Meta's are 32 hexadecimal digits",
        "copy the app secret from the app's dashboard, App settings > Basic, and write it into the secret",
    )
}

pub(crate) fn of_plain_http() -> Diagnosis {
    told("the URL is plain HTTP, which Meta refuses", "use the https URL; API Gateway has a certificate")
}

pub(crate) fn of_challenge() -> Diagnosis {
    told(
        "the challenge is quoted, escaped or otherwise changed on its way back",
        "answer with its text alone; a mapping of the API must not touch the body",
    )
}

pub(crate) fn of_latency() -> Diagnosis {
    told(
        "cold starts, too little memory, or the way from here to the region",
        "run this from the region; compare with the function's Duration; give it more MemorySize",
    )
}

pub(crate) fn of_queue(sent: usize, field: &str) -> Diagnosis {
    let cause = "a consumer of the catch-all was faster, the queue holds too much to look through, this key may not \
                 receive from it, or the URL is another stack's";
    told(cause, &format!("name the URL's own stack; pause the consumer; delete up to {sent} messages of field {field}"))
}

fn told(cause: &str, remedy: &str) -> Diagnosis {
    Diagnosis { cause: cause.to_owned(), remedy: remedy.to_owned() }
}
