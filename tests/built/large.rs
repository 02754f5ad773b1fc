//! Signed bodies of the largest size that Lambda accepts: status 200, stored byte for byte, with bounded memory.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use fake_aws::{Fault, Frequency, Message};
use serde_json::Value;

use crate::{
    PROCESSOR,
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, Webhook, signed},
};

/// The largest body, in bytes, that fits into an event without escapes.
const MAX_BODY: usize = 5_900_000;

/// Lambda's limit for the event of an invocation, in bytes.
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const MAX_EVENT: usize = 6 * 1_048_576;

/// Longer than in the template, because a build without optimization takes several times as long.
const TIMEOUT: Duration = Duration::from_secs(29);

/// The limit of the resident memory of the process, in kilobytes.
const MAX_MEMORY: u64 = 160 * 1024;

/// Delivers a body and expects these fragments on the queues, or the whole body if there are none.
async fn assert_stored(case: &str, body: &[u8], fragments: Option<Vec<String>>) {
    let webhook = Webhook::start();
    webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
    let event = signed(APP_SECRET, body).to_string();
    assert!(event.len() <= MAX_EVENT, "{case}: an event of {} bytes is over the limit", event.len());
    let invocation = webhook.invoke(event, TIMEOUT).await;
    assert_eq!(invocation.status_code(), Some(200), "{case}: {:?}", invocation.outcome);
    let peak = peak_memory(webhook.function.pid());
    let mut expected =
        fragments.map_or_else(|| vec![body.to_vec()], |texts| texts.into_iter().map(Into::into).collect());
    let mut stored: Vec<_> = webhook.stored_messages().iter().map(|(_, message)| content(&webhook, message)).collect();
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

/// Returns the peak of the resident memory in kilobytes.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Makes a body of the largest size by repeating `element`.
fn fill_body(before: &str, element: &str, after: &str) -> String {
    let count = (MAX_BODY - before.len() - after.len()) / (element.len() + 1);
    format!("{before}{}{after}", vec![element; count].join(","))
}

/// The counts and text lengths of a notification.
struct Shape {
    envelope: usize,
    entry: usize,
    entries: usize,
    changes: usize,
    value: usize,
}

impl Shape {
    /// Returns the body and the expected bodies of the messages.
    fn build(&self) -> (String, Vec<String>) {
        let (head, tail) = (format!(r#"{{"object":"{}","entry":["#, "o".repeat(self.envelope)), "]}");
        let change = |number: usize| {
            let text = "x".repeat(self.value);
            format!(r#"{{"field":"security","value":{{"number":{number},"text":"{text}"}}}}"#)
        };
        let (mut entries, mut fragments) = (Vec::new(), Vec::new());
        for entry in 0..self.entries {
            let (before, after) = (format!(r#"{{"id":"{entry}{}","changes":["#, "0".repeat(self.entry)), "]}");
            let changes: Vec<_> = (0..self.changes).map(|index| change(entry * self.changes + index)).collect();
            fragments.extend(changes.iter().map(|change| format!("{head}{before}{change}{after}{tail}")));
            entries.push(format!("{before}{}{after}", changes.join(",")));
        }
        (format!("{head}{}{tail}", entries.join(",")), fragments)
    }
}

#[tokio::test]
async fn body_of_many_elements_is_stored_whole() {
    let _turn = PROCESSOR.lock().await;
    for (before, element, after) in
        [(r#"{"entry":[{"changes":["#, "0", "]}]}"), (r#"{"entry":["#, "0", "]}"), ("[", "0", "]"), ("[", "{}", "]")]
    {
        let body = fill_body(before, element, after);
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
    let _turn = PROCESSOR.lock().await;
    let (body, fragments) = Shape { envelope: 10, entry: 0, entries: 3_300, changes: 3, value: 480 }.build();
    assert_stored("9,900 changes", body.as_bytes(), Some(fragments)).await;
    let (body, _) = Shape { envelope: 10, entry: 0, entries: 4_000, changes: 3, value: 380 }.build();
    assert_stored("12,000 changes", body.as_bytes(), None).await;
}

#[tokio::test]
async fn many_changes_in_a_long_envelope_are_stored() {
    let _turn = PROCESSOR.lock().await;
    let (body, fragments) = Shape { envelope: 6_000, entry: 0, entries: 1, changes: 9_999, value: 300 }.build();
    assert_stored("9,999 changes", body.as_bytes(), Some(fragments)).await;
}

/// The fragments together have 62 MB in the first case, and 75 MB in the second.
#[tokio::test]
async fn changes_in_a_huge_entry_are_stored() {
    let (body, fragments) = Shape { envelope: 10, entry: 2_500_000, entries: 1, changes: 25, value: 100 }.build();
    assert_stored("fragments", body.as_bytes(), Some(fragments)).await;
    let (body, _) = Shape { envelope: 10, entry: 3_000_000, entries: 1, changes: 25, value: 100 }.build();
    assert_stored("whole", body.as_bytes(), None).await;
}

/// Each fragment is a megabyte of escapes, which double when the message is encoded as JSON.
#[tokio::test]
async fn hanging_queue_keeps_memory_bounded() {
    let webhook = Webhook::start();
    webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
    webhook.queue("security").inject_fault(Fault::hang(), Frequency::Always);
    webhook.queue("unrouted").inject_fault(Fault::delay_response(Duration::from_millis(500)), Frequency::Always);
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
