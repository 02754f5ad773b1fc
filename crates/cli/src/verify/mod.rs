//! Acts as Meta, and as a forger, against one endpoint, and says of each thing that Meta relies on whether it holds.

pub mod diagnosis;

use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Serialize;
use serde_json::{Value, json};
use whatsapp_webhook::{credentials::AppCredentials, signature};

use crate::{
    meta::{
        deliver::{DeliverError, Endpoint, TimedResponse},
        oddity::{self, Oddities, Oddity},
    },
    queues::catch_all::{CatchAllQueue, SearchResult},
    verify::diagnosis::{Asked, Diagnosis},
};

/// The field of the notifications that are sent: nobody's, so that no team's queue gets them.
pub const FIELD: &str = "ingress_verify";
/// How many notifications the latency is measured with.
pub const MEASURED: usize = 20;
/// How many notifications are sent with something odd each.
pub const ODD: usize = oddity::HEADERS.all.len() + oddity::QUERIES.all.len() + oddity::FORWARDED.all.len();
/// What Meta expects of the median, and of all but 1 %.
const MEDIAN: Duration = Duration::from_millis(250);
const SLOWEST: Duration = Duration::from_secs(1);

/// An endpoint, and what its function shares with Meta.
#[derive(Debug)]
pub struct Target {
    /// The callback URL.
    pub endpoint: Endpoint,
    /// The JSON text of the secret, with verify token and app secrets.
    pub secret: String,
    /// The queue where notifications of an unknown field land; without it none are sent.
    pub catch_all: Option<CatchAllQueue>,
}

/// One thing that Meta relies on.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What should hold.
    pub check: &'static str,
    /// Whether it does.
    #[serde(flatten)]
    pub finding: Finding,
}

/// Whether it holds.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum Finding {
    /// It does.
    Holds {
        /// How it was seen.
        detail: String,
    },
    /// It does not.
    Fails {
        /// What was seen.
        detail: String,
        /// What is most likely wrong, and what to do about it.
        #[serde(flatten)]
        diagnosis: Diagnosis,
    },
    /// It could not be looked at.
    Skipped {
        /// Why not.
        detail: String,
    },
}

impl Check {
    /// Whether this is a failure.
    #[must_use]
    pub fn fails(&self) -> bool {
        matches!(self.finding, Finding::Fails { .. })
    }
}

const SECRET: &str = "app secret and verify token well-formed";
const CONNECTION: &str = "certificate trusted, TLS 1.2 or later";
const CHALLENGE: &str = "challenge answered verbatim";
const WRONG_TOKEN: &str = "wrong verify token refused";
const EMPTY_TOKEN: &str = "empty verify token refused";
const FORGED: &str = "forged notification refused";
const RESERIALISED: &str = "re-serialised notification refused";
const UNSIGNED: &str = "unsigned notification refused";
const ACCEPTED: &str = "signed notification accepted";
const LATENCY: &str = "answers as fast as Meta asks for";
const STORED: &str = "stored on the catch-all, nothing beside it";
const INTERRUPTED: &str = "interrupted";
/// All checks, in their order.
const CHECKS: [&str; 15] = [
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
    LATENCY,
    oddity::HEADERS.check,
    oddity::QUERIES.check,
    oddity::FORWARDED.check,
    STORED,
];

/// Looks at everything, in order, and tells each finding as soon as it is there.
///
/// Once told to stop, it sends no more signed notifications, and only cleans up after those that it has sent.
pub async fn verify(target: &Target, stop: &AtomicBool, mut tell: impl FnMut(&Check)) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut found = |check, finding| {
        let check = Check { check, finding };
        tell(&check);
        checks.push(check);
    };

    let known = match AppCredentials::parse(&target.secret) {
        Ok(known) => known,
        Err(error) => {
            found(SECRET, Finding::Fails { detail: error.to_string(), diagnosis: diagnosis::of_secret() });
            for check in after(SECRET) {
                found(check, skipped("the function does not work with this secret"));
            }
            return checks;
        }
    };
    found(
        SECRET,
        if known.has_usual_app_secrets() {
            holds("app_secret is 32 hexadecimal digits")
        } else {
            let detail = "app_secret in the secret is not 32 hexadecimal digits".to_owned();
            Finding::Fails { detail, diagnosis: diagnosis::of_app_secret() }
        },
    );

    let mut run = Run { target, known, stop, id: random(), sent: Vec::new(), taken: 0 };
    let challenge = format!("{}+<b>\"&%\u{e4}", random());
    let token = run.known.verify_token.clone();
    let answer = run.ask(&token, &challenge, "").await;
    if let Err(DeliverError::NoResponse { reason, .. }) = &answer {
        found(CONNECTION, Finding::Fails { detail: reason.clone(), diagnosis: diagnosis::of_connection(reason) });
        for check in after(CONNECTION) {
            found(check, skipped("there is no connection"));
        }
        return checks;
    }
    found(CONNECTION, run.connection());
    let challenged = challenged(&answer, &challenge, Asked::Challenge);
    let is_challenged = matches!(challenged, Finding::Holds { .. });
    found(CHALLENGE, challenged);
    let odd = if is_challenged { run.odd_challenges().await } else { skipped("no challenge is answered") };
    found(oddity::CHALLENGE_QUERIES.check, odd);
    found(WRONG_TOKEN, expect(&run.ask(&random(), "1", "").await, 403, Asked::WrongToken));
    found(EMPTY_TOKEN, expect(&run.ask("", "1", "").await, 403, Asked::WrongToken));

    let body = run.notification();
    let again = reserialised(&body);
    let sign = |secret: &str, body: &str| Some(signature::sign(secret, body.as_bytes()));
    let app_secret = &run.known.app_secrets[0].clone();
    found(FORGED, run.refused(&body, sign(&random(), &body), Asked::Forged).await);
    let finding = match run.refused(&again, sign(app_secret, &body), Asked::Reserialised).await {
        // The other way round, as somebody would take it who hashes what was parsed.
        Finding::Holds { .. } => run.refused(&body, sign(app_secret, &again), Asked::Reserialised).await,
        finding => finding,
    };
    found(RESERIALISED, finding);
    found(UNSIGNED, run.refused(&body, None, Asked::Forged).await);

    let Some(catch_all) = &target.catch_all else {
        for check in after(UNSIGNED) {
            found(check, skipped("no stack is named whose catch-all queue to look at and to clean up"));
        }
        return checks;
    };
    let accepted = run.accepted().await;
    let is_accepted = matches!(accepted, Finding::Holds { .. });
    found(ACCEPTED, accepted);
    let latency = if is_accepted { run.latency().await } else { skipped("no notification is accepted") };
    found(LATENCY, if run.is_stopped() { skipped(INTERRUPTED) } else { latency });
    for oddities in oddity::SIGNED {
        let odd =
            if is_accepted { run.odd_notifications(&oddities).await } else { skipped("no notification is accepted") };
        found(oddities.check, odd);
    }
    // In any case: what was taken and should not have been is to be found, and to be cleaned up.
    let collected = catch_all.find_and_delete(&run.id, run.sent.len() + run.taken).await;
    found(
        STORED,
        match collected {
            Ok(_) if run.sent.len() + run.taken == 0 => skipped("no notification is accepted"),
            Ok(collected) => stored(&run.sent, collected),
            Err(error) => {
                Finding::Fails { detail: error.to_string(), diagnosis: diagnosis::of_queue(run.sent.len(), FIELD) }
            }
        },
    );
    checks
}

fn after(check: &str) -> impl Iterator<Item = &'static str> {
    CHECKS.into_iter().skip_while(move |other| *other != check).skip(1)
}

struct Run<'t> {
    target: &'t Target,
    known: AppCredentials,
    stop: &'t AtomicBool,
    /// Marks the notifications of this run: another may be under way.
    id: String,
    /// The bodies that were answered with 200 and so should be stored.
    sent: Vec<String>,
    /// How many should have been refused and were answered with 200.
    taken: usize,
}

impl Run<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn connection(&self) -> Finding {
        let endpoint = &self.target.endpoint;
        match endpoint.url().scheme() {
            // The client takes no other: it has none of the older versions, and trusts what this computer trusts.
            "https" => holds("as this computer trusts it"),
            _ if endpoint.is_local() => skipped("plain HTTP on this computer; API Gateway has the certificate"),
            _ => Finding::Fails { detail: "plain HTTP".to_owned(), diagnosis: diagnosis::of_plain_http() },
        }
    }

    /// Sends a challenge, with `odd` before the parameters.
    async fn ask(&self, token: &str, challenge: &str, odd: &str) -> Result<TimedResponse, DeliverError> {
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
            headers.insert(signature::HEADER, signature.parse().expect("hex digits make a header"));
        }
        oddity.add_headers(&mut headers);
        self.target.endpoint.send(Method::POST, oddity.query, headers, body.as_bytes().to_vec()).await
    }

    /// A notification as Meta writes one, with escapes that any other writer would write otherwise.
    fn notification(&self) -> String {
        let (run, one) = (&self.id, random());
        format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"0","changes":[{{"value":{{"run":"{run}","one":"{one}","text":"\u00e4 \/"}},"field":"{FIELD}"}}]}}]}}"#
        )
    }

    async fn refused(&mut self, body: &str, signature: Option<String>, asked: Asked) -> Finding {
        let answer = self.post(body, signature, &Oddity::NONE).await;
        self.taken += usize::from(answer.as_ref().is_ok_and(|answer| answer.status == 200));
        expect(&answer, 401, asked)
    }

    async fn deliver(&mut self, app_secret: &str, oddity: &Oddity) -> Result<TimedResponse, DeliverError> {
        let body = self.notification();
        let answer = self.post(&body, Some(signature::sign(app_secret, body.as_bytes())), oddity).await;
        // One that got no answer may be stored too, and is looked for by its run.
        if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
            self.sent.push(body);
        }
        answer
    }

    async fn accepted(&mut self) -> Finding {
        let secrets = self.known.app_secrets.clone();
        for (at, secret) in secrets.iter().enumerate() {
            if self.is_stopped() {
                return skipped(INTERRUPTED);
            }
            let answer = self.deliver(secret, &Oddity::NONE).await;
            if let Finding::Fails { detail, diagnosis } = expect(&answer, 200, Asked::Signed) {
                let which =
                    if at == 0 { String::new() } else { format!(" with app secret {} of {}", at + 1, secrets.len()) };
                return Finding::Fails { detail: detail + &which, diagnosis };
            }
        }
        match secrets.len() {
            1 => holds("200"),
            several => holds(format!("200, with each of {several} app secrets")),
        }
    }

    async fn latency(&mut self) -> Finding {
        let mut times = Vec::new();
        let secret = self.known.app_secrets[0].clone();
        for _ in 0..MEASURED {
            if self.is_stopped() {
                return skipped(INTERRUPTED);
            }
            let started = Instant::now();
            let answer = self.deliver(&secret, &Oddity::NONE).await;
            times.push(started.elapsed());
            if let failed @ Finding::Fails { .. } = expect(&answer, 200, Asked::Signed) {
                return failed;
            }
        }
        times.sort();
        let (median, slowest) = (times[MEASURED / 2], times[MEASURED - 1]);
        let seen = format!("median {} ms, slowest {} ms of {MEASURED}", median.as_millis(), slowest.as_millis());
        if median <= MEDIAN && slowest <= SLOWEST {
            holds(seen)
        } else {
            Finding::Fails { detail: seen, diagnosis: diagnosis::of_latency() }
        }
    }

    async fn odd_challenges(&self) -> Finding {
        let oddities = &oddity::CHALLENGE_QUERIES;
        let mut findings = Vec::new();
        for oddity in oddities.all {
            let challenge = random();
            let answer = self.ask(&self.known.verify_token, &challenge, oddity.query).await;
            findings.push(challenged(&answer, &challenge, Asked::Odd(oddities.fix)));
        }
        joined(oddities, findings)
    }

    async fn odd_notifications(&mut self, oddities: &Oddities) -> Finding {
        let secret = self.known.app_secrets[0].clone();
        let mut findings = Vec::new();
        for oddity in oddities.all {
            if self.is_stopped() {
                return skipped(INTERRUPTED);
            }
            let answer = self.deliver(&secret, oddity).await;
            findings.push(expect(&answer, 200, Asked::Odd(oddities.fix)));
        }
        joined(oddities, findings)
    }
}

/// One finding for those of all oddities, with the diagnosis of the first that fails.
fn joined(oddities: &Oddities, findings: Vec<Finding>) -> Finding {
    let (mut details, mut first) = (Vec::new(), None);
    for (oddity, finding) in oddities.all.iter().zip(findings) {
        if let Finding::Fails { detail, diagnosis } = finding {
            details.push(format!("{detail} with {}", oddity.name));
            first.get_or_insert(diagnosis);
        }
    }
    match first {
        None => holds("200"),
        Some(diagnosis) => Finding::Fails { detail: details.join("; "), diagnosis },
    }
}

fn challenged(answer: &Result<TimedResponse, DeliverError>, challenge: &str, asked: Asked) -> Finding {
    match answer {
        Ok(answer) if answer.status == 200 && answer.body != challenge.as_bytes() => {
            Finding::Fails { detail: "200, with another text".to_owned(), diagnosis: diagnosis::of_challenge() }
        }
        answer => expect(answer, 200, asked),
    }
}

fn expect(answer: &Result<TimedResponse, DeliverError>, status: u16, asked: Asked) -> Finding {
    match answer {
        Ok(answer) if answer.status == status => holds(status),
        Ok(answer) => Finding::Fails {
            detail: format!("{}, not {status}", answer.status),
            diagnosis: diagnosis::of_status(answer.status, !answer.body.is_empty(), asked),
        },
        Err(DeliverError::NoResponse { reason, .. }) => {
            Finding::Fails { detail: reason.clone(), diagnosis: diagnosis::of_connection(reason) }
        }
        Err(error) => Finding::Fails { detail: error.to_string(), diagnosis: diagnosis::of_connection("") },
    }
}

fn stored(sent: &[String], collected: SearchResult) -> Finding {
    let SearchResult { found, received, not_deleted } = collected;
    let mut problems = Vec::new();
    let missing = sent.iter().filter(|body| !found.iter().any(|message| message.body == **body)).count();
    if missing > 0 {
        problems.push(format!("{missing} of {} not found among {received} messages", sent.len()));
    }
    let strange = found.iter().filter(|message| !sent.contains(&message.body)).count();
    if strange > 0 {
        problems.push(format!("{strange} stored that were refused, or with other bytes"));
    }
    let attributes = json!({ "field": FIELD, "unrouted_reason": "no-route" });
    let wrong = |name: &str, of: &Value| {
        found.iter().any(|message| message.attributes.get(name).map(String::as_str) != of.as_str())
    };
    for (name, value) in attributes.as_object().into_iter().flatten() {
        if wrong(name, value) {
            problems.push(format!("the attribute {name} is not {value}"));
        }
    }
    if not_deleted > 0 {
        problems.push(format!("{not_deleted} not deleted"));
    }
    if problems.is_empty() {
        holds(format!("{} of {}, and deleted there", found.len(), sent.len()))
    } else {
        Finding::Fails { detail: problems.join("; "), diagnosis: diagnosis::of_queue(sent.len(), FIELD) }
    }
}

fn holds(detail: impl Display) -> Finding {
    Finding::Holds { detail: detail.to_string() }
}

fn skipped(why: &str) -> Finding {
    Finding::Skipped { detail: why.to_owned() }
}

/// The same JSON, as a program writes it that parsed it.
fn reserialised(body: &str) -> String {
    serde_json::from_str::<Value>(body).expect("the notification is JSON").to_string()
}

fn random() -> String {
    format!("{:016x}", fastrand::u64(..))
}
