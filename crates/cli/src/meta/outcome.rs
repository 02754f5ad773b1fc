//! The result of a delivered sample, compared with the expected result.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use oracle::Fragment;
use tokio::time::sleep;

use crate::{
    meta::{deliver::Answer, expect::Expected, samples::Sample},
    queues::{
        error::QueueError,
        stack_queues::{ReceivedMessage, StackQueues},
    },
};

/// How long messages may be invisible after a 200, which means that they are stored.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The result of one delivery.
#[derive(Debug)]
pub struct Outcome {
    /// The sample's name.
    pub event: String,
    /// The answer's status.
    pub status: u16,
    /// How long the answer took.
    pub elapsed: Duration,
    /// The queues with messages of the sample, for people.
    pub landed: String,
    /// The differences from the expected result.
    pub problems: Vec<String>,
}

impl Outcome {
    /// Receives the messages of a sample, and compares them and the response with the expected result.
    pub async fn of(
        sample: &Sample,
        answer: &Answer,
        elapsed: Duration,
        queues: &mut StackQueues,
    ) -> Result<Self, QueueError> {
        let expected = Expected::of(sample);
        let status_matches = answer.status == expected.status;
        let landed = landed(queues, if status_matches { expected.fragments.len() } else { 0 }).await?;
        let mut problems = problems_of_answer(&expected, answer);
        if status_matches {
            problems.extend(problems_of_landing(&expected.fragments, &landed, queues));
        }
        Ok(Self { event: sample.name.clone(), status: answer.status, elapsed, landed: in_words(&landed), problems })
    }

    /// Whether everything is as it should be.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.problems.is_empty()
    }
}

async fn landed(queues: &mut StackQueues, expected: usize) -> Result<Vec<ReceivedMessage>, QueueError> {
    let deadline = Instant::now() + RECEIVE_TIMEOUT;
    let mut landed = queues.receive_all().await?;
    while landed.len() < expected && Instant::now() < deadline {
        sleep(POLL_INTERVAL).await;
        landed.extend(queues.receive_all().await?);
    }
    Ok(landed)
}

fn problems_of_answer(expected: &Expected, answer: &Answer) -> Vec<String> {
    let mut problems = Vec::new();
    if answer.status != expected.status {
        problems.push(format!("answered {}, not {}", answer.status, expected.status));
    } else if answer.body != expected.answer.as_bytes() {
        let body = String::from_utf8_lossy(&answer.body);
        problems.push(format!("answered {body:?}, not {:?}", expected.answer));
    }
    problems
}

/// Finds the message of each fragment, and reports missing, misplaced and unexpected messages.
fn problems_of_landing(fragments: &[Fragment], landed: &[ReceivedMessage], queues: &StackQueues) -> Vec<String> {
    let mut problems = Vec::new();
    let mut left: Vec<_> = landed.iter().collect();
    for fragment in fragments {
        let route = fragment.route(|route| queues.has_route(route));
        let queue = queues.queue_of(&route).unwrap_or_default();
        let Some(at) = left.iter().position(|message| message.body.as_bytes() == fragment.bytes()) else {
            problems.push(format!("the message expected on {queue} is missing or has other bytes"));
            continue;
        };
        let message = left.remove(at);
        if message.queue != queue {
            problems.push(format!("landed on {}, not on {queue}", message.queue));
        }
        let reason = message.attributes.get("unrouted_reason").map(String::as_str);
        let expected_reason = fragment.unrouted_reason(&route);
        if reason != expected_reason {
            let [reason, expected] = [reason, expected_reason].map(|reason| reason.unwrap_or("none"));
            problems.push(format!("unrouted_reason is {reason}, not {expected}"));
        }
    }
    problems.extend(left.iter().map(|message| format!("unexpected message on {}", message.queue)));
    problems
}

/// Such as `messages, messages-statuses ×2, unrouted (no-route)`.
fn in_words(landed: &[ReceivedMessage]) -> String {
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

#[cfg(test)]
mod tests {
    use oracle::fragments;

    use super::*;
    use crate::aws::stack_info::StackInfo;

    const SECURITY: &str = r#"{"field":"security","value":{"event":"A"}}"#;

    fn body(change: &str) -> String {
        format!(r#"{{"entry":[{{"id":"1","changes":[{change}]}}]}}"#)
    }

    fn landed(queue: &str, change: &str, reason: Option<&str>) -> ReceivedMessage {
        let attributes = reason.map(|reason| ("unrouted_reason".to_owned(), reason.to_owned()));
        ReceivedMessage { queue: queue.to_owned(), body: body(change), attributes: attributes.into_iter().collect() }
    }

    fn problems(sent: &str, landed: &[ReceivedMessage]) -> Vec<String> {
        problems_of_landing(&fragments(body(sent).as_bytes()), landed, &StackQueues::of(&StackInfo::for_tests()))
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
        assert_eq!(problems(SECURITY, &[]), ["the message expected on security is missing or has other bytes"]);
    }

    #[test]
    fn a_change_that_was_written_anew_is_a_problem() {
        assert_eq!(
            problems(SECURITY, &[landed("security", &SECURITY.replace(':', ": "), None)]),
            ["the message expected on security is missing or has other bytes", "unexpected message on security"]
        );
    }

    #[test]
    fn a_change_that_is_there_twice_is_a_problem() {
        let twice = [landed("security", SECURITY, None), landed("security", SECURITY, None)];

        assert_eq!(problems(SECURITY, &twice), ["unexpected message on security"]);
        assert_eq!(in_words(&twice), "security ×2");
    }

    #[test]
    fn a_field_without_a_route_belongs_on_the_catch_all_with_its_reason() {
        let change = r#"{"field":"calls","value":{}}"#;

        assert_eq!(problems(change, &[landed("unrouted", change, Some("no-route"))]), Vec::<String>::new());
        assert_eq!(problems(change, &[landed("unrouted", change, None)]), ["unrouted_reason is none, not no-route"]);
    }
}
