//! The likely cause of a failed check, and a fix.

use serde::Serialize;

/// The diagnosis of a failed check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The likely cause.
    pub cause: String,
    /// What to do about it.
    pub fix: String,
}

/// The kind of a request of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    Challenge,
    WrongToken,
    Forged,
    Reserialised,
    Signed,
    /// A valid request with an unusual part. Contains the fix if something in front of the function rejects it.
    Odd(&'static str),
}

/// The diagnosis if the function cannot read the event of an unusual request.
const UNREADABLE_EVENT: (&str, &str) = (
    "the deployed function fails on such a request",
    "deploy the current version; if it is deployed, see the last error line in the function's log group",
);

/// Diagnoses an unexpected status.
///
/// Of the function's responses, only the one to a verification request has a body. Any other response with a body comes from another
/// server.
pub(crate) fn of_status(status: u16, has_body: bool, kind: RequestKind) -> Diagnosis {
    let (cause, fix) = match (status, kind) {
        (200, RequestKind::WrongToken) => (
            "the server that responds does not compare the verify token",
            "do not connect Meta to it, because anybody could claim the URL; find out which server responds",
        ),
        (200, RequestKind::Reserialised) => (
            "the server checks the signature of JSON that it parsed and serialized again, or no signature at all",
            "do not connect Meta to it, because it would reject genuine notifications too; it must hash the raw body",
        ),
        (200, RequestKind::Forged) => (
            "the server that responds does not check signatures",
            "do not connect Meta to it, because anybody could send notifications; find out which server responds",
        ),
        (201..=299, _) => (
            "another server than the function responds; for Meta only 200 is a success",
            "find out which server responds",
        ),
        (300..=399, _) => {
            ("the URL redirects, and Meta does not follow redirects", "give Meta the URL of the redirect's target")
        }
        (400, RequestKind::Odd(_)) if !has_body => UNREADABLE_EVENT,
        (500 | 502, RequestKind::Odd(_)) => UNREADABLE_EVENT,
        (401 | 403, RequestKind::Odd(_)) if !has_body => (
            "something in front of the function changes the request: its query, its body or the signature header",
            "configure proxies to pass requests on unchanged",
        ),
        (400 | 403 | 413 | 414 | 431, RequestKind::Odd(fix)) => (
            "API Gateway, or a proxy or firewall in front of it, rejects such a request; the function does not receive it",
            fix,
        ),
        (401, RequestKind::Signed) if !has_body => (
            "the function has another app secret",
            "put the app secret into the stack's secret, or correct APP_SECRET; the function reads a new secret at once",
        ),
        (403, RequestKind::Challenge) if !has_body => {
            ("the function has another verify token", "compare VERIFY_TOKEN with verify_token in the stack's secret")
        }
        (401 | 403, _) => (
            "something in front of the function rejects the request: an authorizer, a firewall, or a domain without a mapping",
            "allow GET and POST of this path without authorization",
        ),
        (404 | 405, _) => (
            "the API has no route for this path and method",
            "use the stack's output CallbackUrl: its path is /webhook",
        ),
        (429, _) => ("requests are throttled", "raise the API's throttling limits, or wait a minute"),
        (503, RequestKind::Signed | RequestKind::Odd(_)) if !has_body => (
            "the function could store the notification neither on its queue nor on the catch-all queue",
            "see the function's log group: an error line names the queue and the reason",
        ),
        (500 | 502, _) => (
            "the function does not start, most often because the secret still has its placeholder",
            "see the function's log group: the last error line names the member or setting that is wrong",
        ),
        (503 | 504, _) => (
            "the function timed out or has no concurrency left",
            "see the function's Duration and Throttles in CloudWatch, and its log group",
        ),
        _ => (
            "another server than the function responds",
            "find out which server responds; the URL is the stack's output CallbackUrl",
        ),
    };
    diagnosis(cause, fix)
}

/// Diagnoses a request without a response, by the error of the network or of TLS.
pub(crate) fn of_connection(reason: &str) -> Diagnosis {
    let contains = |part: &str| reason.to_lowercase().contains(part);
    let (cause, fix) = if contains("unknownissuer")
        || contains("unknown issuer")
        || contains("self-signed")
        || contains("self signed")
    {
        (
            "the certificate is self-signed, or its chain is not complete",
            "use a certificate of a public authority, with its intermediates, such as API Gateway's own",
        )
    } else if contains("not valid for name") || contains("notvalidforname") {
        ("the certificate is for another name", "use a name that the certificate covers, or issue one for this name")
    } else if contains("expired") {
        ("the certificate has expired", "renew it; ACM renews a certificate automatically while it can validate it")
    } else if contains("certificate") {
        ("the certificate is not trusted", "use a certificate of a public authority")
    } else if contains("protocolversion") || contains("protocol version") || contains("incompatible") {
        ("the server does not support TLS 1.2 or later", "set the domain's security policy to TLS 1.2")
    } else if contains("lookup") || contains("resolve") || contains("name or service") || contains("nodename") {
        ("the name does not resolve", "check the URL; a new domain name takes a while")
    } else if contains("refused") {
        ("no server listens on this host and port", "check host and port of the URL, and whether the stack is running")
    } else if contains("timed out") || contains("deadline") || contains("elapsed") {
        ("no response in time", "check the URL, and whether a firewall drops packets; see the function's Duration")
    } else if contains("corrupt") || contains("invalidmessage") || contains("invalid message") {
        ("the server does not use TLS", "check scheme and port of the URL")
    } else {
        ("the connection was closed or reset", "check the URL, and the proxies in front of the API")
    };
    diagnosis(cause, fix)
}

pub(crate) fn of_secret() -> Diagnosis {
    diagnosis(
        "the value was not replaced, or was copied with quotes or white space",
        "write the secret again, as in the README under Deploy; APP_SECRET and VERIFY_TOKEN override the stack's values",
    )
}

pub(crate) fn of_app_secret() -> Diagnosis {
    diagnosis(
        "the value is an id, a token or a part of the app secret: an app secret has 32 hexadecimal digits",
        "copy the app secret from the app's dashboard, App settings > Basic, and write it into the secret",
    )
}

pub(crate) fn of_plain_http() -> Diagnosis {
    diagnosis("the URL is plain HTTP, which Meta rejects", "use the https URL; API Gateway has a certificate")
}

pub(crate) fn of_challenge() -> Diagnosis {
    diagnosis(
        "the challenge is quoted, escaped or otherwise changed in the response",
        "respond with the challenge alone; a mapping of the API must not change the body",
    )
}

pub(crate) fn of_latency() -> Diagnosis {
    diagnosis(
        "cold starts, too little memory, or the network between this computer and the region",
        "run this from the region; compare with the function's Duration; give it more MemorySize",
    )
}

pub(crate) fn of_verify_queue(sent: usize) -> Diagnosis {
    let cause = "the credentials do not permit ReceiveMessage, another program reads the queue of ingress_verify, the \
                 function could not use it, or the URL belongs to another stack";
    diagnosis(
        cause,
        &format!(
            "name the stack of the URL; `ingress drop --field ingress_verify --apply` deletes up to {sent} messages that \
             are on the catch-all queue"
        ),
    )
}

pub(crate) fn of_template() -> Diagnosis {
    diagnosis(
        "the credentials do not permit GetTemplate, DescribeStacks and ListStackResources of CloudFormation",
        "permit these calls for the stack and its nested stacks",
    )
}

pub(crate) fn of_queues() -> Diagnosis {
    diagnosis(
        "a queue was deleted, created or changed by hand, or a key is disabled or scheduled for deletion",
        "`ingress restore-queue ROUTE` makes a queue as in the template; enable the key, or cancel its deletion",
    )
}

pub(crate) fn of_alarm_topic() -> Diagnosis {
    diagnosis(
        "the topic was deleted, is in another account, or nobody confirmed a subscription: alarms reach nobody",
        "create the topic again, or subscribe to it and confirm the subscription",
    )
}

fn diagnosis(cause: &str, fix: &str) -> Diagnosis {
    Diagnosis { cause: cause.to_owned(), fix: fix.to_owned() }
}
