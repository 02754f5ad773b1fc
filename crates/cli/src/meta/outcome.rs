//! The result of a delivered sample, compared with the expected result.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use oracle::Fragment;
use tokio::time::sleep;

use crate::{
    meta::{deliver::Response, expect::Expected, samples::Sample},
    queues::{
        error::QueueError,
        stack_queues::{ReceivedMessage, StackQueues},
    },
};

/// After a response with status 200, a receive has to return the messages within this time.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The result of one delivery.
#[derive(Debug)]
pub struct Outcome {
    /// The sample's name.
    pub sample: String,
    /// The status of the response.
    pub status: u16,
    /// The latency of the response.
    pub elapsed: Duration,
    /// The queues with messages of the sample, as text.
    pub queues: String,
    /// The differences from the expected result.
    pub problems: Vec<String>,
}

impl Outcome {
    /// Receives the messages of a sample, and compares them and the response with the expected result.
    pub async fn of(
        sample: &Sample,
        response: &Response,
        elapsed: Duration,
        queues: &mut StackQueues,
    ) -> Result<Self, QueueError> {
        let expected = Expected::of(sample);
        let status_matches = response.status == expected.status;
        let messages_of = |fragment: &Fragment| queues.queues_of(&find_route(fragment, queues)).count();
        let message_count = if status_matches { expected.fragments.iter().map(messages_of).sum() } else { 0 };
        let stored = receive(queues, message_count).await?;
        let mut problems = response_problems(&expected, response);
        if status_matches {
            problems.extend(storage_problems(&expected.fragments, &stored, queues));
        }
        Ok(Self {
            sample: sample.name.clone(),
            status: response.status,
            elapsed,
            queues: describe_queues(&stored),
            problems,
        })
    }

    /// Whether there are no differences.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Receives until there are `expected` messages, or until the timeout.
async fn receive(queues: &mut StackQueues, expected: usize) -> Result<Vec<ReceivedMessage>, QueueError> {
    let deadline = Instant::now() + RECEIVE_TIMEOUT;
    let mut messages = queues.receive_all().await?;
    while messages.len() < expected && Instant::now() < deadline {
        sleep(POLL_INTERVAL).await;
        messages.extend(queues.receive_all().await?);
    }
    Ok(messages)
}

fn response_problems(expected: &Expected, response: &Response) -> Vec<String> {
    let mut problems = Vec::new();
    if response.status != expected.status {
        problems.push(format!("the status is {}, not {}", response.status, expected.status));
    } else if response.body != expected.body.as_bytes() {
        let body = String::from_utf8_lossy(&response.body);
        problems.push(format!("the body is {body:?}, not {:?}", expected.body));
    }
    problems
}

/// Finds the most specific route of a fragment.
fn find_route(fragment: &Fragment, queues: &StackQueues) -> String {
    fragment.route(|route| queues.has_route(route))
}

/// Finds the messages of each fragment, and reports missing, misplaced and unexpected messages.
fn storage_problems(fragments: &[Fragment], stored: &[ReceivedMessage], queues: &StackQueues) -> Vec<String> {
    let (mut problems, mut not_found) = (Vec::new(), Vec::new());
    let mut unmatched: Vec<_> = stored.iter().collect();
    for fragment in fragments {
        let route = find_route(fragment, queues);
        for queue in queues.queues_of(&route) {
            let is_here = |message: &&ReceivedMessage| has_bytes(message, fragment) && message.queue == queue;
            match unmatched.iter().position(is_here) {
                Some(index) => problems.extend(reason_problem(fragment, &route, unmatched.remove(index))),
                None => not_found.push((fragment, route.clone(), queue.to_owned())),
            }
        }
    }
    for (fragment, route, queue) in not_found {
        let Some(index) = unmatched.iter().position(|message| has_bytes(message, fragment)) else {
            problems.push(format!("no message on a queue has the expected bytes for {queue}"));
            continue;
        };
        let message = unmatched.remove(index);
        problems.push(format!("stored on {}, not on {queue}", message.queue));
        problems.extend(reason_problem(fragment, &route, message));
    }
    problems.extend(unmatched.iter().map(|message| format!("unexpected message on {}", message.queue)));
    problems
}

fn has_bytes(message: &ReceivedMessage, fragment: &Fragment) -> bool {
    message.body.as_bytes() == fragment.bytes()
}

fn reason_problem(fragment: &Fragment, route: &str, message: &ReceivedMessage) -> Option<String> {
    let reason = message.attributes.get("unrouted_reason").map(String::as_str);
    let expected = fragment.unrouted_reason(route);
    let [found, wanted] = [reason, expected].map(|reason| reason.unwrap_or("none"));
    (reason != expected).then(|| format!("unrouted_reason is {found}, not {wanted}"))
}

/// Returns a text such as `messages, messages-statuses ×2, unrouted (no-route)`.
fn describe_queues(stored: &[ReceivedMessage]) -> String {
    let mut counts = BTreeMap::new();
    for message in stored {
        let queue = match message.attributes.get("unrouted_reason") {
            Some(reason) => format!("{} ({reason})", message.queue),
            None => message.queue.clone(),
        };
        *counts.entry(queue).or_insert(0) += 1;
    }
    let queues: Vec<_> =
        counts.into_iter().map(|(queue, count)| if count == 1 { queue } else { format!("{queue} ×{count}") }).collect();
    queues.join(", ")
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

    fn message(queue: &str, change: &str, reason: Option<&str>) -> ReceivedMessage {
        let attributes = reason.map(|reason| ("unrouted_reason".to_owned(), reason.to_owned()));
        ReceivedMessage { queue: queue.to_owned(), body: body(change), attributes: attributes.into_iter().collect() }
    }

    fn problems(sent: &str, stored: &[ReceivedMessage]) -> Vec<String> {
        storage_problems(&fragments(body(sent).as_bytes()), stored, &StackQueues::of(&StackInfo::for_tests()))
    }

    #[test]
    fn change_on_the_queue_of_its_field_is_no_problem() {
        assert_eq!(problems(SECURITY, &[message("security", SECURITY, None)]), Vec::<String>::new());
    }

    #[test]
    fn change_is_expected_on_every_queue_of_its_route() {
        const MESSAGE: &str = r#"{"field":"messages","value":{}}"#;
        let on = |queue| message(queue, MESSAGE, None);

        assert_eq!(problems(MESSAGE, &[on("archive"), on("messages")]), Vec::<String>::new());
        let missing = "no message on a queue has the expected bytes for archive";
        assert_eq!(problems(MESSAGE, &[on("messages")]), [missing]);
        assert_eq!(problems(MESSAGE, &[on("messages"), on("messages")]), ["stored on messages, not on archive"]);
        let more = [on("messages"), on("archive"), on("archive")];
        assert_eq!(problems(MESSAGE, &more), ["unexpected message on archive"]);
    }

    #[test]
    fn change_on_another_queue_is_a_problem() {
        assert_eq!(
            problems(SECURITY, &[message("unrouted", SECURITY, Some("no-route"))]),
            ["stored on unrouted, not on security", "unrouted_reason is no-route, not none"]
        );
    }

    #[test]
    fn missing_change_is_a_problem() {
        assert_eq!(problems(SECURITY, &[]), ["no message on a queue has the expected bytes for security"]);
    }

    #[test]
    fn reserialised_change_is_a_problem() {
        assert_eq!(
            problems(SECURITY, &[message("security", &SECURITY.replace(':', ": "), None)]),
            ["no message on a queue has the expected bytes for security", "unexpected message on security"]
        );
    }

    #[test]
    fn duplicate_change_is_a_problem() {
        let twice = [message("security", SECURITY, None), message("security", SECURITY, None)];

        assert_eq!(problems(SECURITY, &twice), ["unexpected message on security"]);
        assert_eq!(describe_queues(&twice), "security ×2");
    }

    #[test]
    fn field_without_a_route_needs_a_reason() {
        let change = r#"{"field":"calls","value":{}}"#;

        assert_eq!(problems(change, &[message("unrouted", change, Some("no-route"))]), Vec::<String>::new());
        assert_eq!(problems(change, &[message("unrouted", change, None)]), ["unrouted_reason is none, not no-route"]);
    }
}
