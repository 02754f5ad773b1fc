//! Checks an endpoint with requests as Meta sends them, and with forged ones.

pub mod diagnosis;
mod finding;
mod stack;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Serialize;
use serde_json::Value;
use whatsapp_webhook::{credentials::AppCredentials, signature};

use crate::{
    aws::stack_info::StackInfo,
    meta::{
        deliver::{DeliverError, Endpoint, TimedResponse},
        oddity::{self, Oddities, Oddity},
    },
    queues::{
        stack_queues::ReceivedMessage,
        verify_queue::{SearchResult, VERIFY_FIELD, VerifyQueue},
    },
    verify::diagnosis::RequestKind,
};

pub use finding::Finding;
use finding::{passed, skipped};

/// The number of notifications that measure the latency.
pub const LATENCY_SAMPLES: usize = 20;
/// The number of notifications with an unusual part.
pub const ODD_NOTIFICATIONS: usize =
    oddity::HEADERS.all.len() + oddity::QUERIES.all.len() + oddity::FORWARDED.all.len();
/// Meta's limits for the median latency, and for the latency of all but 1 % of the requests.
const MAX_MEDIAN: Duration = Duration::from_millis(250);
const MAX_LATENCY: Duration = Duration::from_secs(1);

/// An endpoint, and the secrets that its function shares with Meta.
#[derive(Debug)]
pub struct Target {
    /// The callback URL.
    pub endpoint: Endpoint,
    /// The JSON text of the secret, with verify token and app secrets.
    pub secret: String,
    /// The queue for the notifications with content, or the reason why none of them is sent.
    pub verify_queue: Result<VerifyQueue, &'static str>,
    /// The stack whose queues are checked.
    pub stack: Option<StackInfo>,
}

/// The result of one check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// The name of the check.
    #[serde(rename = "check")]
    pub name: &'static str,
    /// The finding.
    #[serde(flatten)]
    pub finding: Finding,
}

impl Check {
    /// Whether the check failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        matches!(self.finding, Finding::Failed { .. })
    }
}

const SECRET: &str = "app secret and verify token well-formed";
const CONNECTION: &str = "certificate trusted, TLS 1.2 or later";
const CHALLENGE: &str = "challenge answered verbatim";
const WRONG_TOKEN: &str = "wrong verify token rejected";
const EMPTY_TOKEN: &str = "empty verify token rejected";
const FORGED: &str = "forged notification rejected";
const RESERIALISED: &str = "re-serialised notification rejected";
const UNSIGNED: &str = "unsigned notification rejected";
const ACCEPTED: &str = "signed notification accepted";
const LATENCY: &str = "latency within Meta's limits";
const STORED: &str = "accepted notifications stored, rejected ones not";
const QUEUES: &str = "queues exist and match the template";
const ALARM_TOPIC: &str = "alarm topic exists and has a subscription";
const INTERRUPTED: &str = "interrupted";
/// The reason why checks that need a stack are skipped.
pub const NO_STACK: &str = "no stack is named";
/// All checks, in their order.
const CHECKS: [&str; 17] = [
    SECRET,
    CONNECTION,
    CHALLENGE,
    oddity::CHALLENGE_QUERIES.check,
    WRONG_TOKEN,
    EMPTY_TOKEN,
    FORGED,
    RESERIALISED,
    UNSIGNED,
    ACCEPTED,
    oddity::HEADERS.check,
    oddity::QUERIES.check,
    oddity::FORWARDED.check,
    QUEUES,
    ALARM_TOPIC,
    LATENCY,
    STORED,
];

/// Makes all checks in order, and passes each result to `on_check` at once.
///
/// When `stop` is set, it sends no more signed notifications, and deletes the messages of those that it sent.
pub async fn verify(target: &Target, stop: &AtomicBool, mut on_check: impl FnMut(&Check)) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut report = |name, finding| {
        let check = Check { name, finding };
        on_check(&check);
        checks.push(check);
    };

    let credentials = match AppCredentials::parse(&target.secret) {
        Ok(credentials) => credentials,
        Err(error) => {
            report(SECRET, Finding::Failed { detail: error.to_string(), diagnosis: diagnosis::of_secret() });
            for check in checks_after(SECRET) {
                report(check, skipped("the function does not accept this secret"));
            }
            return checks;
        }
    };
    report(SECRET, check_app_secrets(&credentials));

    let mut run = Run {
        target,
        credentials,
        stop,
        id: random(),
        accepted_bodies: Vec::new(),
        unconfirmed_bodies: Vec::new(),
        accepted_forgeries: 0,
    };
    let challenge = format!("{}+<b>\"&%\u{e4}", random());
    let token = run.credentials.verify_token.clone();
    let response = run.request_challenge(&token, &challenge, "").await;
    if let Err(DeliverError::NoResponse { reason, .. }) = &response {
        report(CONNECTION, Finding::Failed { detail: reason.clone(), diagnosis: diagnosis::of_connection(reason) });
        for check in checks_after(CONNECTION) {
            report(check, skipped("there is no connection"));
        }
        return checks;
    }
    report(CONNECTION, run.check_connection());
    let finding = check_challenge(&response, &challenge, RequestKind::Challenge);
    let has_challenge = matches!(finding, Finding::Passed { .. });
    report(CHALLENGE, finding);
    let finding =
        if has_challenge { run.check_odd_challenges().await } else { skipped("the endpoint returns no challenge") };
    report(oddity::CHALLENGE_QUERIES.check, finding);
    report(WRONG_TOKEN, check_status(&run.request_challenge(&random(), "1", "").await, 403, RequestKind::WrongToken));
    report(EMPTY_TOKEN, check_status(&run.request_challenge("", "1", "").await, 403, RequestKind::WrongToken));

    let body = run.notification();
    let rewritten_body = reserialise(&body);
    let sign = |secret: &str, body: &str| Some(signature::sign(secret, body.as_bytes()));
    let app_secret = &run.credentials.app_secrets[0].clone();
    report(FORGED, run.send_forgery(&body, sign(&random(), &body), RequestKind::Forged).await);
    let finding = match run.send_forgery(&rewritten_body, sign(app_secret, &body), RequestKind::Reserialised).await {
        // The reverse: a server that hashes re-serialised JSON would accept the body with the signature of its other form.
        Finding::Passed { .. } => {
            run.send_forgery(&body, sign(app_secret, &rewritten_body), RequestKind::Reserialised).await
        }
        finding => finding,
    };
    report(RESERIALISED, finding);
    report(UNSIGNED, run.send_forgery(&body, None, RequestKind::Forged).await);

    let finding = run.check_acceptance().await;
    let is_accepted = matches!(finding, Finding::Passed { .. });
    report(ACCEPTED, finding);
    for oddities in oddity::OF_NOTIFICATIONS {
        let finding = if is_accepted {
            run.check_odd_notifications(&oddities).await
        } else {
            skipped("the endpoint accepts no notification")
        };
        report(oddities.check, finding);
    }
    let [queues, alarm_topic] = match &target.stack {
        Some(stack) => stack::check(stack).await,
        None => [QUEUES, ALARM_TOPIC].map(|_| skipped(NO_STACK)),
    };
    report(QUEUES, queues);
    report(ALARM_TOPIC, alarm_topic);

    let verify_queue = match &target.verify_queue {
        Ok(verify_queue) => verify_queue,
        Err(reason) => {
            for check in checks_after(ALARM_TOPIC) {
                report(check, skipped(reason));
            }
            return checks;
        }
    };
    let unusable = verify_queue.check().await.err().map(|error| error.to_string());
    let reason = if is_accepted { unusable.as_deref() } else { Some("the endpoint accepts no notification") };
    let latency = if let Some(reason) = reason { skipped(reason) } else { run.check_latency().await };
    report(LATENCY, if run.is_stopped() { skipped(INTERRUPTED) } else { latency });
    let expected = run.accepted_bodies.len() + run.accepted_forgeries;
    let finding = match reason {
        Some(reason) if expected == 0 => skipped(reason),
        // Also with a reason, if a forgery was accepted: its message has to be found and deleted.
        _ => run.check_storage(verify_queue, expected).await,
    };
    report(STORED, finding);
    checks
}

/// Returns the names of the checks after this one.
fn checks_after(check: &str) -> impl Iterator<Item = &'static str> {
    CHECKS.into_iter().skip_while(move |other| *other != check).skip(1)
}

/// The state of one run of the checks.
struct Run<'t> {
    target: &'t Target,
    credentials: AppCredentials,
    stop: &'t AtomicBool,
    /// Marks the notifications of this run, because another run may send some at the same time.
    id: String,
    /// The bodies whose response was 200, and which should therefore be stored.
    accepted_bodies: Vec<String>,
    /// The bodies with another response or none. The function may have stored them, if only its response was lost.
    unconfirmed_bodies: Vec<String>,
    /// The number of forgeries whose response was 200.
    accepted_forgeries: usize,
}

impl Run<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn check_connection(&self) -> Finding {
        let endpoint = &self.target.endpoint;
        match endpoint.url().scheme() {
            // The client supports no older version, and trusts the authorities of this computer.
            "https" => passed("trusted by this computer"),
            _ if endpoint.is_local() => skipped("plain HTTP on this computer; on AWS, API Gateway has the certificate"),
            _ => Finding::Failed { detail: "plain HTTP".to_owned(), diagnosis: diagnosis::of_plain_http() },
        }
    }

    /// Sends a verification request, with `odd` before its own parameters.
    async fn request_challenge(&self, token: &str, challenge: &str, odd: &str) -> Result<TimedResponse, DeliverError> {
        let members = [("hub.mode", "subscribe"), ("hub.challenge", challenge), ("hub.verify_token", token)];
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(members).finish();
        let query = if odd.is_empty() { query } else { format!("{odd}&{query}") };
        self.target.endpoint.send(Method::GET, &query, HeaderMap::new(), Vec::new()).await
    }

    async fn post(
        &self,
        body: &str,
        signature: Option<String>,
        oddity: &Oddity,
    ) -> Result<TimedResponse, DeliverError> {
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        if let Some(signature) = signature {
            headers.insert(signature::HEADER, signature.parse().expect("hexadecimal digits are valid in a header"));
        }
        oddity.add_headers(&mut headers);
        self.target.endpoint.send(Method::POST, oddity.query, headers, body.as_bytes().to_vec()).await
    }

    /// Returns a notification as Meta writes it, with escapes that most JSON libraries would write differently.
    fn notification(&self) -> String {
        let (run, id) = (&self.id, random());
        format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"0","changes":[{{"value":{{"run":"{run}","id":"{id}","text":"\u00e4 \/"}},"field":"{VERIFY_FIELD}"}}]}}]}}"#
        )
    }

    /// Sends a notification that the endpoint should reject.
    async fn send_forgery(&mut self, body: &str, signature: Option<String>, kind: RequestKind) -> Finding {
        let response = self.post(body, signature, &Oddity::NONE).await;
        self.accepted_forgeries += usize::from(response.as_ref().is_ok_and(|response| response.status == 200));
        check_status(&response, 401, kind)
    }

    /// Sends a signed notification without content. The function checks the signature and stores nothing.
    async fn deliver_empty(&self, app_secret: &str, oddity: &Oddity) -> Result<TimedResponse, DeliverError> {
        self.post("", Some(signature::sign(app_secret, b"")), oddity).await
    }

    /// Sends a signed notification of [`VERIFY_FIELD`].
    async fn deliver(&mut self, app_secret: &str) -> Result<TimedResponse, DeliverError> {
        let body = self.notification();
        let response = self.post(&body, Some(signature::sign(app_secret, body.as_bytes())), &Oddity::NONE).await;
        let is_accepted = response.as_ref().is_ok_and(|response| response.status == 200);
        let bodies = if is_accepted { &mut self.accepted_bodies } else { &mut self.unconfirmed_bodies };
        bodies.push(body);
        response
    }

    async fn check_acceptance(&self) -> Finding {
        let secrets = self.credentials.app_secrets.clone();
        for (index, secret) in secrets.iter().enumerate() {
            if self.is_stopped() {
                return skipped(INTERRUPTED);
            }
            let response = self.deliver_empty(secret, &Oddity::NONE).await;
            if let Finding::Failed { detail, diagnosis } = check_status(&response, 200, RequestKind::Signed) {
                let suffix = match index {
                    0 => String::new(),
                    _ => format!(" with app secret {} of {}", index + 1, secrets.len()),
                };
                return Finding::Failed { detail: detail + &suffix, diagnosis };
            }
        }
        match secrets.len() {
            1 => passed("200"),
            count => passed(format!("200, with each of {count} app secrets")),
        }
    }

    async fn check_latency(&mut self) -> Finding {
        let mut times = Vec::new();
        let secret = self.credentials.app_secrets[0].clone();
        for _ in 0..LATENCY_SAMPLES {
            if self.is_stopped() {
                return skipped(INTERRUPTED);
            }
            let started = Instant::now();
            let response = self.deliver(&secret).await;
            times.push(started.elapsed());
            if let failed @ Finding::Failed { .. } = check_status(&response, 200, RequestKind::Signed) {
                return failed;
            }
        }
        times.sort();
        let (median, slowest) = (times[LATENCY_SAMPLES / 2], times[LATENCY_SAMPLES - 1]);
        let detail =
            format!("median {} ms, slowest {} ms of {LATENCY_SAMPLES}", median.as_millis(), slowest.as_millis());
        if median <= MAX_MEDIAN && slowest <= MAX_LATENCY {
            passed(detail)
        } else {
            Finding::Failed { detail, diagnosis: diagnosis::of_latency() }
        }
    }

    async fn check_storage(&self, verify_queue: &VerifyQueue, expected: usize) -> Finding {
        match verify_queue.find_and_delete(&self.id, expected).await {
            Ok(result) => check_storage(&self.accepted_bodies, &self.unconfirmed_bodies, result),
            Err(error) => {
                Finding::Failed { detail: error.to_string(), diagnosis: diagnosis::of_verify_queue(expected) }
            }
        }
    }

    async fn check_odd_challenges(&self) -> Finding {
        let oddities = &oddity::CHALLENGE_QUERIES;
        let mut findings = Vec::new();
        for oddity in oddities.all {
            let challenge = random();
            let response = self.request_challenge(&self.credentials.verify_token, &challenge, oddity.query).await;
            findings.push(check_challenge(&response, &challenge, RequestKind::Odd(oddities.fix)));
        }
        merge(oddities, findings)
    }

    async fn check_odd_notifications(&self, oddities: &Oddities) -> Finding {
        let secret = self.credentials.app_secrets[0].clone();
        let mut findings = Vec::new();
        for oddity in oddities.all {
            if self.is_stopped() {
                return skipped(INTERRUPTED);
            }
            let response = self.deliver_empty(&secret, oddity).await;
            findings.push(check_status(&response, 200, RequestKind::Odd(oddities.fix)));
        }
        merge(oddities, findings)
    }
}

fn check_app_secrets(credentials: &AppCredentials) -> Finding {
    if credentials.has_usual_app_secrets() {
        passed("app_secret is 32 hexadecimal digits")
    } else {
        let detail = "app_secret in the secret is not 32 hexadecimal digits".to_owned();
        Finding::Failed { detail, diagnosis: diagnosis::of_app_secret() }
    }
}

/// Merges the findings of all oddities into one, with the diagnosis of the first failure.
fn merge(oddities: &Oddities, findings: Vec<Finding>) -> Finding {
    let (mut details, mut first) = (Vec::new(), None);
    for (oddity, finding) in oddities.all.iter().zip(findings) {
        if let Finding::Failed { detail, diagnosis } = finding {
            details.push(format!("{detail} with {}", oddity.name));
            first.get_or_insert(diagnosis);
        }
    }
    match first {
        None => passed("200"),
        Some(diagnosis) => Finding::Failed { detail: details.join("; "), diagnosis },
    }
}

fn check_challenge(response: &Result<TimedResponse, DeliverError>, challenge: &str, kind: RequestKind) -> Finding {
    match response {
        Ok(response) if response.status == 200 && response.body != challenge.as_bytes() => Finding::Failed {
            detail: "200, but the body is not the challenge".to_owned(),
            diagnosis: diagnosis::of_challenge(),
        },
        response => check_status(response, 200, kind),
    }
}

fn check_status(response: &Result<TimedResponse, DeliverError>, status: u16, kind: RequestKind) -> Finding {
    match response {
        Ok(response) if response.status == status => passed(status),
        Ok(response) => Finding::Failed {
            detail: format!("{}, not {status}", response.status),
            diagnosis: diagnosis::of_status(response.status, !response.body.is_empty(), kind),
        },
        Err(DeliverError::NoResponse { reason, .. }) => {
            Finding::Failed { detail: reason.clone(), diagnosis: diagnosis::of_connection(reason) }
        }
        Err(error) => Finding::Failed { detail: error.to_string(), diagnosis: diagnosis::of_connection("") },
    }
}

fn check_storage(accepted: &[String], unconfirmed: &[String], result: SearchResult) -> Finding {
    let SearchResult { found, received, not_deleted } = result;
    let mut problems = Vec::new();
    let missing = accepted.iter().filter(|body| !found.iter().any(|message| message.body == **body)).count();
    if missing > 0 {
        problems.push(format!("{missing} of {} not found among {received} messages", accepted.len()));
    }
    let is_expected =
        |message: &&ReceivedMessage| [accepted, unconfirmed].iter().any(|list| list.contains(&message.body));
    let unexpected = found.len() - found.iter().filter(is_expected).count();
    if unexpected > 0 {
        problems.push(format!("{unexpected} unexpected: forged, rejected or with other bytes"));
    }
    let attribute = |message: &ReceivedMessage, name: &str| message.attributes.get(name).cloned();
    if found.iter().any(|message| attribute(message, "field").as_deref() != Some(VERIFY_FIELD)) {
        problems.push(format!("the attribute field is not {VERIFY_FIELD}"));
    }
    if let Some(reason) = found.iter().find_map(|message| attribute(message, "unrouted_reason")) {
        problems.push(format!("the attribute unrouted_reason is {reason}"));
    }
    if not_deleted > 0 {
        problems.push(format!("{not_deleted} not deleted"));
    }
    if problems.is_empty() {
        let others = match found.len() - accepted.len() {
            0 => String::new(),
            count => format!(", {count} more: duplicates, or without the response 200"),
        };
        passed(format!("{0} of {0} found and deleted{others}", accepted.len()))
    } else {
        Finding::Failed { detail: problems.join("; "), diagnosis: diagnosis::of_verify_queue(accepted.len()) }
    }
}

/// Returns the same JSON, parsed and written again.
fn reserialise(body: &str) -> String {
    serde_json::from_str::<Value>(body).expect("the notification is JSON").to_string()
}

fn random() -> String {
    format!("{:016x}", fastrand::u64(..))
}
