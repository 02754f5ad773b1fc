//! The contract with consumers: `docs/message.schema.json` and the examples in `docs/contract.md`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::schema::{Attributes, consumer_view, schema, validator};
use crate::support::{APP_SECRET, Entry, Reply, VERIFY_TOKEN, Webhook, corpus};
use ingress_tools::meta::{
    samples::{Sample, Signer},
    sign,
};
use serde_json::{Value, json};
use whatsapp_ingress::payload::Payloads;
use whatsapp_webhook::{
    message::{Attribute, CatchAllReason, Message, RequestContext, event_id},
    notification::{Fragment, split},
};

const ROUTES: [(&str, &str); 4] = [
    ("messages", "whatsapp-ingress-messages"),
    ("messages.statuses", "whatsapp-ingress-messages-statuses"),
    ("account_update", "whatsapp-ingress-account_update"),
    ("message_template_status_update", "whatsapp-ingress-message_template_status_update"),
];

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Returns the samples that Meta signed.
fn samples() -> Vec<Sample> {
    let all = Sample::load_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("events")).unwrap();
    all.into_iter().filter(|sample| sample.method == "POST" && sample.signer() == Signer::Meta).collect()
}

fn sample(name: &str) -> Sample {
    samples().into_iter().find(|sample| sample.name == name).unwrap()
}

fn check(name: &str, body: &str, attributes: &Attributes) {
    let received = consumer_view(body, attributes).unwrap();
    let errors: Vec<_> = validator().iter_errors(&received).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}");
    let schema = schema();
    let documented = schema["$defs"]["attributes"]["properties"].as_object().unwrap();
    let unknown: Vec<_> = attributes.keys().filter(|name| !documented.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "{name}: {unknown:?}");
}

/// Returns the attributes of a message as text.
fn attributes(message: &Message) -> Attributes {
    let text = |value: &Attribute| match value {
        Attribute::Text(text) => text.clone(),
        Attribute::Number(number) => number.to_string(),
    };
    message.attributes.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect()
}

async fn deliver(sample: &Sample, script: impl Fn(&[Entry]) -> Reply + Send + Sync + 'static) -> Vec<Entry> {
    let webhook = Webhook::with_script(&ROUTES, script).await;
    assert_eq!(
        crate::support::status(&webhook.send_text(&sign::sign_event(sample, APP_SECRET)).await),
        200,
        "{}",
        sample.name
    );
    webhook.stored_entries()
}

/// Delivers a body that is no sample.
async fn deliver_body(body: &[u8]) -> Vec<Entry> {
    let webhook = Webhook::new(&ROUTES).await;
    assert_eq!(webhook.deliver(body).await, 200);
    webhook.stored_entries()
}

fn reject_except_on_catch_all(entries: &[Entry]) -> Reply {
    if entries[0].queue == "unrouted" { Reply::Stored } else { Reply::CallRejected(400, "QueueDoesNotExist") }
}

/// SQS rejects every message that is not in the fallback form, base64 with two attributes.
fn reject_except_base64(entries: &[Entry]) -> Reply {
    let is_original = |entry: &Entry| entry.attributes.contains_key("request_id");
    let rejected = (0..entries.len()).filter(|index| is_original(&entries[*index])).collect();
    Reply::EntriesRejected(rejected, "InvalidMessageContents", true)
}

fn request_id(sample: &Sample) -> String {
    let event: Value = serde_json::from_str(&sample.text).unwrap();
    event["requestContext"]["requestId"].as_str().unwrap().to_owned()
}

/// Makes the claim checks of every fragment: with all attributes, and in the base64 form.
fn claim_checks(sample: &Sample) -> Vec<Message> {
    let request_id = &request_id(sample);
    let request = RequestContext { request_id, trace: None, group_key: VERIFY_TOKEN };
    let reason = |fragment: &Fragment<'_>| {
        let is_routed = matches!(fragment, Fragment::Change(change) if change.field.is_some());
        (!is_routed).then(|| CatchAllReason::of_fragment(fragment))
    };
    let mut all = Vec::new();
    for fragment in &split(&sample.body) {
        let id = event_id(fragment);
        for mut message in [
            Message::new(fragment, &id, request, reason(fragment), false),
            Message::raw_base64(fragment, &id, None, false),
        ] {
            message.replace_body_with_pointer("a-bucket", &Payloads::key(Some("messages"), &id));
            all.push(message);
        }
    }
    all
}

#[test]
fn schema_is_valid_and_of_the_first_edition() {
    jsonschema::draft202012::meta::validate(&schema()).unwrap();
    assert_eq!(schema()["$id"], "urn:whatsapp-ingress:message:1");
}

#[tokio::test(start_paused = true)]
async fn messages_of_every_sample_are_valid() {
    for sample in samples() {
        let stored = deliver(&sample, |_| Reply::Stored).await;
        let diverted = deliver(&sample, reject_except_on_catch_all).await;
        let base64 = deliver(&sample, reject_except_base64).await;
        assert!(!stored.is_empty() && stored.len() == diverted.len() && stored.len() == base64.len());
        for entry in stored.iter().chain(&diverted).chain(&base64) {
            check(&sample.name, &entry.body, &entry.attributes);
        }
        for message in claim_checks(&sample) {
            check(&sample.name, &message.body, &attributes(&message));
        }
    }
}

#[tokio::test]
async fn messages_of_public_payloads_are_valid() {
    let Some(folder) = corpus::folder() else { return };
    for (name, body) in corpus::payloads(&folder) {
        let webhook = Webhook::new(&ROUTES).await;
        assert_eq!(webhook.deliver(&body).await, 200, "{name}");
        let stored = webhook.stored_entries();
        assert!(!stored.is_empty(), "{name}");
        for entry in stored {
            check(&name, &entry.body, &entry.attributes);
        }
    }
}

#[cfg(feature = "local-aws")]
#[tokio::test(start_paused = true)]
async fn python_validator_agrees() {
    use std::process::{Command, Stdio};

    const VALIDATE: &str = "
import json, sys
from jsonschema import Draft202012Validator
schema, messages = json.load(sys.stdin)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
print(json.dumps([validator.is_valid(message) for message in messages]))
";
    let mut messages = Vec::new();
    for sample in samples() {
        let stored = deliver(&sample, |_| Reply::Stored).await;
        let diverted = deliver(&sample, reject_except_on_catch_all).await;
        for entry in stored.iter().chain(&diverted) {
            let whole = consumer_view(&entry.body, &entry.attributes).unwrap();
            messages.push(whole.clone());
            for attribute in entry.attributes.keys() {
                let mut incomplete = whole.clone();
                incomplete["attributes"].as_object_mut().unwrap().remove(attribute);
                messages.push(incomplete);
            }
        }
    }
    let results: Vec<_> = messages.iter().map(|message| validator().is_valid(message)).collect();
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let mut validation =
        Command::new(python).args(["-c", VALIDATE]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    serde_json::to_writer(validation.stdin.take().unwrap(), &(schema(), &messages)).unwrap();
    let python_results: Vec<bool> = serde_json::from_slice(&validation.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(results, python_results);
    assert!(results.iter().filter(|valid| !**valid).count() > 100);
}

#[tokio::test]
async fn message_of_a_binary_body_is_valid() {
    for body in [&b"\xff\xfeh\0i\0"[..], b"\x01", b"1234"] {
        let webhook = Webhook::new(&ROUTES).await;
        webhook.deliver(body).await;
        let [entry] = &webhook.stored_entries()[..] else { panic!() };
        check("no text", &entry.body, &entry.attributes);
    }
}

mod invalid_messages {
    use super::*;

    /// Returns the message of a sample as a consumer validates it.
    async fn message(name: &str) -> Value {
        let stored = deliver(&sample(name), |_| Reply::Stored).await;
        consumer_view(&stored[0].body, &stored[0].attributes).unwrap()
    }

    fn is_valid(message: &Value) -> bool {
        validator().is_valid(message)
    }

    #[tokio::test]
    async fn message_without_an_attribute_is_invalid() {
        for name in ["messages-text", "statuses-read", "messages-errors", "unknown-field", "other-product", "not-json"]
        {
            let whole = message(name).await;
            assert!(is_valid(&whole), "{name}");
            for attribute in whole["attributes"].as_object().unwrap().keys() {
                // Without the reason, it is a valid message for a queue of the field.
                if (name, attribute.as_str()) == ("unknown-field", "unrouted_reason") {
                    continue;
                }
                let mut incomplete = whole.clone();
                incomplete["attributes"].as_object_mut().unwrap().remove(attribute);
                assert!(!is_valid(&incomplete), "{name} without {attribute}");
            }
        }
    }

    #[tokio::test]
    async fn message_without_exactly_one_change_is_invalid() {
        for [pointer, name] in [["/body/entry", "entry"], ["/body/entry/0/changes", "change"]] {
            let mut twice = message("messages-text").await;
            let list = twice.pointer_mut(pointer).unwrap().as_array_mut().unwrap();
            list.push(list[0].clone());
            assert!(!is_valid(&twice), "two of {name}");
            *twice.pointer_mut(pointer).unwrap() = json!([]);
            assert!(!is_valid(&twice), "no {name}");
        }
    }

    #[tokio::test]
    async fn unknown_attribute_value_is_invalid() {
        for (name, attribute, value) in [
            ("unknown-field", "unrouted_reason", "no-reason"),
            ("unknown-field", "unrouted_reason", "no-field"),
            ("unknown-field", "unrouted_reason", "not-json"),
            ("unknown-field", "unrouted_reason", ""),
            ("messages-text", "unrouted_reason", "not-a-notification"),
            ("other-product", "unrouted_reason", "no-field"),
            ("other-product", "field", "messages"),
            ("messages-text", "event_id", "4f"),
            ("messages-text", "kind", "statuses"),
            ("messages-text", "kind", "calls"),
            ("account-update", "kind", "messages"),
            ("messages-text", "phone_number_id", ""),
            ("messages-text", "diverted_from", "messages"),
            ("unknown-field", "diverted_from", "messages"),
            ("other-product", "diverted_from", "messages"),
            ("not-json", "diverted_from", "messages"),
            ("messages-text", "encoding", "base64"),
            ("messages-text", "encoding", "gzip"),
            ("messages-text", "ExtendedPayloadSize", "1100000"),
            ("messages-text", "contract", "2"),
        ] {
            let mut other = message(name).await;
            other["attributes"][attribute] = value.into();
            assert!(!is_valid(&other), "{name} with {attribute} {value}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn diverted_message_without_a_queue_name() {
        let stored = deliver(&sample("messages-text"), reject_except_on_catch_all).await;
        let diverted = consumer_view(&stored[0].body, &stored[0].attributes).unwrap();
        assert!(is_valid(&diverted));
        for name in ["", "a b", "https://host/1/messages", "messages.fifo.x", &"x".repeat(81)] {
            let mut other = diverted.clone();
            other["attributes"]["diverted_from"] = name.into();
            assert!(!is_valid(&other), "{name}");
        }
        let mut less = diverted.clone();
        less["attributes"].as_object_mut().unwrap().remove("diverted_from");
        assert!(!is_valid(&less));
    }

    #[tokio::test]
    async fn body_that_contradicts_attributes_is_invalid() {
        let mut as_text = message("messages-text").await;
        as_text["body"] = as_text["body"].to_string().into();
        assert!(!is_valid(&as_text));

        let mut pointer = message("messages-text").await;
        let [claim_check, _] = &claim_checks(&sample("messages-text"))[..] else { panic!() };
        pointer["body"] = serde_json::from_str(&claim_check.body).unwrap();
        assert!(!is_valid(&pointer), "a pointer without its size");
        pointer["attributes"]["ExtendedPayloadSize"] = "5".into();
        assert!(is_valid(&pointer));
        pointer["body"][1]["s3Key"] = "elsewhere".into();
        assert!(!is_valid(&pointer), "a key without the event's id");

        let mut bytes = message("not-json").await;
        bytes["attributes"]["encoding"] = "base64".into();
        assert!(!is_valid(&bytes), "text that is no base64");
        bytes["body"] = "aGk=".into();
        assert!(is_valid(&bytes));
    }

    #[tokio::test]
    async fn unknown_attribute_is_valid() {
        let mut later = message("messages-text").await;
        later["attributes"]["new_in_a_later_release"] = "text".into();
        assert!(is_valid(&later));
    }
}

pub(crate) mod examples {
    use super::*;

    const MARKER: &str = "<!-- example: ";

    /// Generates the message of an example.
    pub(crate) async fn generate(name: &str) -> (String, Attributes) {
        let (sample_name, how) = name.split_once(", ").unwrap_or((name, ""));
        let mut sample = sample(sample_name);
        let stored = match how {
            "" => deliver(&sample, |_| Reply::Stored).await,
            "its queue deleted" => deliver(&sample, reject_except_on_catch_all).await,
            "refused" => deliver(&sample, reject_except_base64).await,
            "in UTF-16" => {
                let text = std::str::from_utf8(&sample.body).unwrap();
                let bytes: Vec<_> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
                deliver_body(&[b"\xff\xfe", &bytes[..]].concat()).await
            }
            "of a group" => {
                let mut body: Value = serde_json::from_slice(&sample.body).unwrap();
                let statuses = body.pointer_mut("/entry/0/changes/0/value/statuses").unwrap().as_array_mut().unwrap();
                statuses[0]["recipient_type"] = "group".into();
                statuses[0]["recipient_id"] = "Y2FwaV9ncm91cDo0NDc3MDA5MDAxNDI6MTIwMzYz".into();
                statuses.push(statuses[0].clone());
                for (status, member) in statuses.iter_mut().zip(["447700900317", "447700900318"]) {
                    status["recipient_participant_id"] = member.into();
                }
                deliver_body(body.to_string().as_bytes()).await
            }
            "replayed" => {
                let [fragment] = &split(&sample.body)[..] else { panic!() };
                let request_id = &request_id(&sample);
                let request = RequestContext { request_id, trace: None, group_key: VERIFY_TOKEN };
                let message = Message::new(fragment, &event_id(fragment), request, None, false);
                let message = message.replayed("2026-01-02T03:04:05Z");
                return (message.body.clone(), attributes(&message));
            }
            "of more than 1 MiB" => {
                let text = std::str::from_utf8(&sample.body).unwrap();
                sample.body = text.replace("in stock?", &"in stock? ".repeat(110_000)).into_bytes();
                let [claim_check, _] = &claim_checks(&sample)[..] else { panic!() };
                let id = &attributes(claim_check)["event_id"];
                // The bucket, the date and the random part differ in each run.
                let (before, after) = claim_check.body.split_once(id.as_str()).unwrap();
                let (before, after) = (before.len() - "2026-01-01/".len(), &after[after.find('"').unwrap()..]);
                let key = format!("{}2026-01-01/{id}-0b6f2c9d51e8a734{after}", &claim_check.body[..before]);
                return (key.replace("a-bucket", "whatsapp-ingress-payloads-1x2y3z"), attributes(claim_check));
            }
            _ => panic!("{how}"),
        };
        (stored[0].body.clone(), stored[0].attributes.clone())
    }

    /// Returns the names of the examples on the page.
    pub(crate) fn names() -> Vec<String> {
        let page = fs::read_to_string(docs().join("contract.md")).unwrap();
        page.split(MARKER).skip(1).map(|part| part.split_once(" -->").unwrap().0.to_owned()).collect()
    }

    /// Formats a message: a line for each attribute, an empty line, the body.
    fn text(body: &str, attributes: &Attributes) -> String {
        let lines: Vec<_> = attributes.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        format!("{}\n{body}\n", lines.concat())
    }

    /// Returns the page with newly generated examples, and their number.
    async fn regenerate(page: &str) -> (String, usize) {
        let mut parts = page.split(MARKER);
        let mut updated = parts.next().unwrap().to_owned();
        let mut count = 0;
        for part in parts {
            let (name, rest) = part.split_once(" -->\n```text\n").unwrap();
            let (_, after) = rest.split_once("```\n").unwrap();
            let (body, attributes) = generate(name).await;
            check(name, &body, &attributes);
            let message = text(&body, &attributes);
            updated.extend([MARKER, name, " -->\n```text\n", &message, "```\n", after]);
            count += 1;
        }
        (updated, count)
    }

    #[tokio::test(start_paused = true)]
    async fn examples_match_the_messages_of_the_function() {
        let path = docs().join("contract.md");
        let page = fs::read_to_string(&path).unwrap();
        let (updated, count) = regenerate(&page).await;
        if std::env::var_os("WRITE_EXAMPLES").is_some() {
            fs::write(&path, &updated).unwrap();
        }
        assert!(count >= 11, "{count} examples");
        let differing = page.lines().zip(updated.lines()).find(|(old, new)| old != new);
        assert_eq!((differing, page.len()), (None, updated.len()), "WRITE_EXAMPLES=1 updates the page");
    }

    #[test]
    fn examples_cover_every_kind_and_reason() {
        let page = fs::read_to_string(docs().join("contract.md")).unwrap();
        let schema = schema();
        for attribute in ["kind", "unrouted_reason"] {
            for value in schema["$defs"]["attributes"]["properties"][attribute]["enum"].as_array().unwrap() {
                let line = format!("\n{attribute}: {}\n", value.as_str().unwrap());
                assert!(page.contains(&line), "{line}");
            }
        }
        for line in ["\nencoding: base64\n", "\nExtendedPayloadSize: "] {
            assert!(page.contains(line), "{line}");
        }
    }
}
