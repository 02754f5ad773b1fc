//! The whole way on this computer: deploys, acts as Meta with every sample, and looks at what came of it.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::Path,
    process::ExitStatus,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::time::sleep;
use whatsapp_ingress::signature;

use crate::{
    deliver::{DeliverError, Endpoint, Keys, Reply},
    expect::{Expected, Piece},
    logs,
    queues::{Landed, QueueError, Queues},
    report,
    samples::{Sample, SampleError, Signer},
    stack::{Facts, Stack, StackError},
};

/// A 200 means that the messages are stored, so they should be there at once.
const LANDING_TIMEOUT: Duration = Duration::from_secs(3);
const LANDING_PAUSE: Duration = Duration::from_millis(50);
const WATCH_PAUSE: Duration = Duration::from_secs(1);
const LOG_LINES: usize = 20;

/// A stack that is up, after Meta's part was acted.
#[derive(Debug)]
pub struct Local {
    stack: Stack,
    queues: Queues,
    endpoint: Endpoint,
    keys: Keys,
    outcomes: Vec<Outcome>,
}

/// What came of one delivery.
#[derive(Debug)]
pub struct Outcome {
    /// The sample's name.
    pub event: String,
    /// The answer's status.
    pub status: u16,
    /// How long the answer took.
    pub elapsed: Duration,
    /// The queues where something landed, in words.
    pub landed: String,
    /// What is not as it should be.
    pub problems: Vec<String>,
}

/// Why a run could not be finished.
#[derive(Debug, Error)]
pub enum RunError {
    /// The samples cannot be read.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The stack did not come up.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The endpoint does not answer.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// The queues cannot be looked at.
    #[error(transparent)]
    Queues(#[from] QueueError),
    /// The stack ended while it should have stayed up.
    #[error("the local stack ended by itself ({0})")]
    Down(ExitStatus),
}

impl Local {
    /// Starts the stack and delivers every sample to it, one after another.
    ///
    /// What lands is received once, compared with what was sent, and put back at the end.
    pub async fn act_as_meta(root: &Path, events: &Path, python: &Path) -> Result<Self, RunError> {
        let mut samples = Sample::load_all(events)?;
        samples.sort_by_key(|sample| (sample.method != "GET", sample.signer() != Signer::Meta));
        let stack = Stack::start(root, python).await?;
        let mut local = Self {
            queues: Queues::of(&stack.facts),
            endpoint: Endpoint::new(&stack.facts.callback_url)?,
            keys: stack.keys(),
            outcomes: Vec::new(),
            stack,
        };
        let played = local.play(&samples).await;
        if played.is_err() || !local.is_as_expected() {
            local.show_log().await;
        }
        played.map(|()| local)
    }

    /// Whether every sample was answered and landed as it should.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.outcomes.iter().all(|outcome| outcome.problems.is_empty())
    }

    /// Says how to call the stack, keeps it up and tells what comes to its queues. Returns only when something is wrong.
    pub async fn keep_up(mut self) -> Result<Infallible, RunError> {
        self.invite();
        tokio::select! {
            // It has told why itself.
            status = self.stack.ended() => Err(RunError::Down(status?)),
            watched = watch(&self.queues) => {
                self.show_log().await;
                watched
            }
        }
    }

    async fn play(&mut self, samples: &[Sample]) -> Result<(), RunError> {
        let table = report::Deliveries::start(samples.iter().map(|sample| sample.name.as_str()));
        for sample in samples {
            let outcome = self.delivered(sample).await?;
            table.line(&outcome);
            self.outcomes.push(outcome);
        }
        self.queues.give_back().await?;
        report::summary(&self.outcomes);
        report::depths(&self.queues.depths().await?);
        Ok(())
    }

    async fn delivered(&mut self, sample: &Sample) -> Result<Outcome, RunError> {
        let expected = Expected::of(sample);
        let reply = self.endpoint.deliver(sample, &self.keys).await?;
        let answered = reply.status == expected.status;
        let landed = self.landed(if answered { expected.pieces.len() } else { 0 }).await?;
        let mut problems = problems_of_answer(&expected, &reply);
        if answered {
            problems.extend(problems_of_landing(&expected.pieces, &landed, &self.queues));
        }
        Ok(Outcome {
            event: sample.name.clone(),
            status: reply.status,
            elapsed: reply.elapsed,
            landed: in_words(&landed),
            problems,
        })
    }

    async fn landed(&mut self, expected: usize) -> Result<Vec<Landed>, RunError> {
        let deadline = Instant::now() + LANDING_TIMEOUT;
        let mut landed = self.queues.take().await?;
        while landed.len() < expected && Instant::now() < deadline {
            sleep(LANDING_PAUSE).await;
            landed.extend(self.queues.take().await?);
        }
        Ok(landed)
    }

    fn invite(&self) {
        let Facts { aws_endpoint, region, access_key_id, secret_access_key, callback_url, .. } = &self.stack.facts;
        let environment = [
            ("AWS_ENDPOINT_URL", aws_endpoint.as_str()),
            ("AWS_DEFAULT_REGION", region),
            ("AWS_ACCESS_KEY_ID", access_key_id),
            ("AWS_SECRET_ACCESS_KEY", secret_access_key),
        ];
        report::invitation(callback_url, &curl(&self.endpoint, &self.keys), &environment);
    }

    async fn show_log(&self) {
        report::log_tail(&logs::tail(&self.stack.facts, LOG_LINES).await);
    }
}

async fn watch(queues: &Queues) -> Result<Infallible, RunError> {
    let mut before = queues.depths().await?;
    loop {
        sleep(WATCH_PAUSE).await;
        let now = queues.depths().await?;
        for (before, now) in before.iter().zip(&now).filter(|(before, now)| before != now) {
            report::change(before, now);
        }
        before = now;
    }
}

fn problems_of_answer(expected: &Expected, reply: &Reply) -> Vec<String> {
    let mut problems = Vec::new();
    if reply.status != expected.status {
        problems.push(format!("answered {}, not {}", reply.status, expected.status));
    } else if reply.body != expected.answer.as_bytes() {
        let body = String::from_utf8_lossy(&reply.body);
        problems.push(format!("answered {body:?}, not {:?}", expected.answer));
    }
    problems
}

/// Finds for every piece the message that was made of it, and what is left over on either side.
fn problems_of_landing(pieces: &[Piece], landed: &[Landed], queues: &Queues) -> Vec<String> {
    let mut problems = Vec::new();
    let mut left: Vec<_> = landed.iter().collect();
    for piece in pieces {
        let route = piece.route(|route| queues.has_route(route));
        let queue = queues.queue_of(&route).unwrap_or_default();
        let Some(at) = left.iter().position(|message| Piece::all_of(message.body.as_bytes()) == [piece.clone()]) else {
            problems.push(format!("what belongs on {queue} landed nowhere, or with other bytes"));
            continue;
        };
        let message = left.remove(at);
        if message.queue != queue {
            problems.push(format!("landed on {}, not on {queue}", message.queue));
        }
        let reason = message.attributes.get("unrouted_reason").map(String::as_str);
        if reason != piece.reason_on(&route) {
            let wanted = piece.reason_on(&route).unwrap_or("none");
            problems.push(format!("unrouted_reason is {}, not {wanted}", reason.unwrap_or("none")));
        }
    }
    problems.extend(left.iter().map(|message| format!("a message on {} was made of nothing sent", message.queue)));
    problems
}

/// Such as `messages, messages-statuses ×2, unrouted (no-route)`.
fn in_words(landed: &[Landed]) -> String {
    let mut counts = BTreeMap::new();
    for message in landed {
        let place = match message.attributes.get("unrouted_reason") {
            Some(reason) => format!("{} ({reason})", message.queue),
            None => message.queue.clone(),
        };
        *counts.entry(place).or_insert(0) += 1;
    }
    let places: Vec<_> =
        counts.into_iter().map(|(place, count)| if count == 1 { place } else { format!("{place} ×{count}") }).collect();
    places.join(", ")
}

/// A command that delivers a message of its own, as it can be pasted.
fn curl(endpoint: &Endpoint, keys: &Keys) -> String {
    const BODY: &str = r#"{"object":"whatsapp_business_account","entry":[{"id":"0","changes":[{"field":"messages","value":{"messaging_product":"whatsapp","messages":[{"from":"12025550101","id":"wamid.by-hand","type":"text","text":{"body":"Hello"}}]}}]}]}"#;
    let url = endpoint.url();
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    let signature = signature::sign(&keys.app_secret, BODY.as_bytes());
    format!(
        "curl -i --resolve {host}:{port}:127.0.0.1 -H 'content-type: application/json' \\\n  \
         -H '{}: {signature}' \\\n  -d '{BODY}' \\\n  '{url}'",
        signature::HEADER
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECURITY: &str = r#"{"field":"security","value":{"event":"A"}}"#;

    fn body(change: &str) -> String {
        format!(r#"{{"entry":[{{"id":"1","changes":[{change}]}}]}}"#)
    }

    fn landed(queue: &str, change: &str, reason: Option<&str>) -> Landed {
        let attributes = reason.map(|reason| ("unrouted_reason".to_owned(), reason.to_owned()));
        Landed { queue: queue.to_owned(), body: body(change), attributes: attributes.into_iter().collect() }
    }

    fn problems(sent: &str, landed: &[Landed]) -> Vec<String> {
        problems_of_landing(&Piece::all_of(body(sent).as_bytes()), landed, &Queues::of(&Facts::for_tests()))
    }

    #[test]
    fn a_change_on_the_queue_of_its_field_is_as_it_should_be() {
        assert_eq!(problems(SECURITY, &[landed("security", SECURITY, None)]), Vec::<String>::new());
    }

    #[test]
    fn a_change_on_another_queue_is_a_problem() {
        assert_eq!(
            problems(SECURITY, &[landed("unrouted", SECURITY, Some("no-route"))]),
            ["landed on unrouted, not on security", "unrouted_reason is no-route, not none"]
        );
    }

    #[test]
    fn a_change_that_is_missing_is_a_problem() {
        assert_eq!(problems(SECURITY, &[]), ["what belongs on security landed nowhere, or with other bytes"]);
    }

    #[test]
    fn a_change_that_was_written_anew_is_a_problem() {
        assert_eq!(
            problems(SECURITY, &[landed("security", &SECURITY.replace(':', ": "), None)]),
            [
                "what belongs on security landed nowhere, or with other bytes",
                "a message on security was made of nothing sent"
            ]
        );
    }

    #[test]
    fn a_change_that_is_there_twice_is_a_problem() {
        let twice = [landed("security", SECURITY, None), landed("security", SECURITY, None)];

        assert_eq!(problems(SECURITY, &twice), ["a message on security was made of nothing sent"]);
        assert_eq!(in_words(&twice), "security ×2");
    }

    #[test]
    fn a_field_without_a_route_belongs_on_the_catch_all_with_its_reason() {
        let change = r#"{"field":"calls","value":{}}"#;

        assert_eq!(problems(change, &[landed("unrouted", change, Some("no-route"))]), Vec::<String>::new());
        assert_eq!(problems(change, &[landed("unrouted", change, None)]), ["unrouted_reason is none, not no-route"]);
    }
}
