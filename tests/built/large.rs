//! Signed bodies of the largest size that Lambda takes: 200, stored to the byte, in bounded memory.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use fake_aws::{Fault, Message, Times};
use serde_json::Value;

use crate::webhook::{APP_SECRET, LAMBDA_TIMEOUT, Webhook, signed};

/// Bytes of a body that fits into an event if nothing in it has to be escaped.
const MAX_BODY: usize = 5_900_000;

/// Lambda's limit for the event of an invocation, in bytes.
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const MAX_EVENT: usize = 6 * 1_048_576;

/// Longer than in the template, because a build without optimization takes several times as long.
const TIMEOUT: Duration = Duration::from_secs(29);

/// Peak of the process's resident memory, in kilobytes.
const MAX_MEMORY: u64 = 160 * 1024;

/// Delivers a body and compares what is stored with it, whole or in the given fragments.
async fn assert_stored(case: &str, body: &[u8], fragments: Option<Vec<String>>) {
    let webhook = Webhook::start();
    webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
    let event = signed(APP_SECRET, body).to_string();
    assert!(event.len() <= MAX_EVENT, "{case}: no event has {} bytes", event.len());
    let invocation = webhook.invoke(event, TIMEOUT).await;
    assert_eq!(invocation.status_code(), Some(200), "{case}: {:?}", invocation.outcome);
    let peak = peak_memory(webhook.function.pid());
    let mut expected =
        fragments.map_or_else(|| vec![body.to_vec()], |texts| texts.into_iter().map(Into::into).collect());
    let mut stored: Vec<_> = webhook.stored().iter().map(|(_, message)| content(&webhook, message)).collect();
    expected.sort_unstable();
    stored.sort_unstable();
    assert!(stored == expected, "{case}: {} messages, not {}, or other bytes", stored.len(), expected.len());
    assert!(peak < MAX_MEMORY, "{case}: {peak} kB");
}

fn content(webhook: &Webhook, message: &Message) -> Vec<u8> {
    let mut body = message.body.clone().into_bytes();
    if message.attribute("ExtendedPayloadSize").is_some() {
        let pointer: Value = serde_json::from_slice(&body).unwrap();
        body = webhook.bucket.object(pointer[1]["s3Key"].as_str().unwrap()).unwrap().body.to_vec();
    }
    if message.attribute("encoding").is_some() { BASE64.decode(body).unwrap() } else { body }
}

/// The peak of the resident memory that the kernel counted, in kilobytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A body of the largest size: `element` as often as it fits between two texts.
fn filled(before: &str, element: &str, after: &str) -> String {
    let count = (MAX_BODY - before.len() - after.len()) / (element.len() + 1);
    format!("{before}{}{after}", vec![element; count].join(","))
}

/// A notification, by the lengths and counts of its parts.
struct Shape {
    envelope: usize,
    entry: usize,
    entries: usize,
    changes: usize,
    value: usize,
}

impl Shape {
    /// The body, and its fragments in the form in which they are stored.
    fn build(&self) -> (String, Vec<String>) {
        let (head, tail) = (format!(r#"{{"object":"{}","entry":["#, "o".repeat(self.envelope)), "]}");
        let change = |number: usize| {
            let text = "x".repeat(self.value);
            format!(r#"{{"field":"security","value":{{"number":{number},"text":"{text}"}}}}"#)
        };
        let (mut entries, mut fragments) = (Vec::new(), Vec::new());
        for entry in 0..self.entries {
            let (before, after) = (format!(r#"{{"id":"{entry}{}","changes":["#, "0".repeat(self.entry)), "]}");
            let changes: Vec<_> = (0..self.changes).map(|at| change(entry * self.changes + at)).collect();
            fragments.extend(changes.iter().map(|change| format!("{head}{before}{change}{after}{tail}")));
            entries.push(format!("{before}{}{after}", changes.join(",")));
        }
        (format!("{head}{}{tail}", entries.join(",")), fragments)
    }
}

#[tokio::test]
async fn body_of_countless_elements_is_stored_whole() {
    for (before, element, after) in
        [(r#"{"entry":[{"changes":["#, "0", "]}]}"), (r#"{"entry":["#, "0", "]}"), ("[", "0", "]"), ("[", "{}", "]")]
    {
        let body = filled(before, element, after);
        assert_stored(before, body.as_bytes(), None).await;
    }
}

#[tokio::test]
async fn body_without_structure_is_stored_whole() {
    let text = "x".repeat(MAX_BODY);
    assert_stored("string", format!("\"{}\"", &text[2..]).as_bytes(), None).await;
    assert_stored("no JSON", text.as_bytes(), None).await;
    assert_stored("no text", &vec![0xff; MAX_BODY * 3 / 4], None).await;
}

#[tokio::test]
async fn many_small_entries_are_stored() {
    let (body, fragments) = Shape { envelope: 10, entry: 0, entries: 3_300, changes: 3, value: 480 }.build();
    assert_stored("9,900 changes", body.as_bytes(), Some(fragments)).await;
    let (body, _) = Shape { envelope: 10, entry: 0, entries: 4_000, changes: 3, value: 380 }.build();
    assert_stored("12,000 changes", body.as_bytes(), None).await;
}

#[tokio::test]
async fn many_changes_in_a_long_envelope_are_stored() {
    let (body, fragments) = Shape { envelope: 6_000, entry: 0, entries: 1, changes: 9_999, value: 300 }.build();
    assert_stored("9,999 changes", body.as_bytes(), Some(fragments)).await;
}

/// The fragments have 62 MB together in the first case, and 75 MB in the second.
#[tokio::test]
async fn changes_in_a_huge_entry_are_stored() {
    let (body, fragments) = Shape { envelope: 10, entry: 2_500_000, entries: 1, changes: 25, value: 100 }.build();
    assert_stored("fragments", body.as_bytes(), Some(fragments)).await;
    let (body, _) = Shape { envelope: 10, entry: 3_000_000, entries: 1, changes: 25, value: 100 }.build();
    assert_stored("whole", body.as_bytes(), None).await;
}

/// Sixty fragments of a megabyte each, all of escapes, which JSON in JSON makes twice as long.
#[tokio::test]
async fn silent_queue_keeps_memory_bounded() {
    let webhook = Webhook::start();
    webhook.function.ready(LAMBDA_TIMEOUT).await.unwrap();
    webhook.queue("security").fault(Fault::hang(), Times::Always);
    webhook.queue("unrouted").fault(Fault::slow(Duration::from_millis(500)), Times::Always);
    let changes = vec![r#"{"field":"security","value":0}"#; 30].join(",");
    let body = format!(r#"{{"entry":[{{"text":"{}","changes":[{changes}]}}]}}"#, r"\\".repeat(500_000));
    let invocation = webhook.invoke(signed(APP_SECRET, body.as_bytes()), TIMEOUT);
    let sample = async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let peak = peak_memory(webhook.function.pid());
            assert!(peak < MAX_MEMORY, "{peak} kB");
        }
    };
    tokio::select! {
        invocation = invocation => {
            let logs = webhook.function.logs().join("\n");
            assert_eq!(invocation.status_code(), Some(200), "{:?}\n{logs}", invocation.outcome);
        }
        () = sample => {}
    }
}
