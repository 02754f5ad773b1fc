//! The contract with consumers, as `docs/message.schema.json` and the examples of `docs/contract.md` state it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::schema::{Attributes, received, schema, validator};
use crate::support::{APP_SECRET, Entry, Reply, VERIFY_TOKEN, Webhook, corpus};
use ingress_tools::meta::{
    samples::{Sample, Signer},
    sign,
};
use serde_json::{Value, json};
use whatsapp_ingress::payload::Payloads;
use whatsapp_webhook::{
    message::{Attribute, Message, RequestContext, UnroutedReason, event_id},
    notification::{Fragment, split},
};

const ROUTES: [(&str, &str); 4] = [
    ("messages", "messages"),
    ("messages.statuses", "messages-statuses"),
    ("account_update", "account_update"),
    ("message_template_status_update", "message_template_status_update"),
];

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// The samples that the function takes from Meta.
fn samples() -> Vec<Sample> {
    let all = Sample::load_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("events")).unwrap();
    all.into_iter().filter(|sample| sample.method == "POST" && sample.signer() == Signer::Meta).collect()
}

fn sample(name: &str) -> Sample {
    samples().into_iter().find(|sample| sample.name == name).unwrap()
}

fn check(name: &str, body: &str, attributes: &Attributes) {
    let received = received(body, attributes).unwrap();
    let errors: Vec<_> = validator().iter_errors(&received).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}");
    let schema = schema();
    let documented = schema["$defs"]["attributes"]["properties"].as_object().unwrap();
    let unknown: Vec<_> = attributes.keys().filter(|name| !documented.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "{name}: {unknown:?}");
}

/// The attributes of a message that was not sent.
fn attributes(message: &Message) -> Attributes {
    let text = |value: &Attribute| match value {
        Attribute::Text(text) => text.clone(),
        Attribute::Number(number) => number.to_string(),
    };
    message.attributes.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect()
}

async fn delivered(sample: &Sample, script: impl Fn(&[Entry]) -> Reply + Send + Sync + 'static) -> Vec<Entry> {
    let webhook = Webhook::scripted(&ROUTES, script).await;
    assert_eq!(
        crate::support::status(&webhook.send_text(&sign::sign_event(sample, APP_SECRET)).await),
        200,
        "{}",
        sample.name
    );
    webhook.stored()
}

fn but_the_catch_all(entries: &[Entry]) -> Reply {
    if entries[0].queue == "unrouted" { Reply::Stored } else { Reply::Error(400, "QueueDoesNotExist") }
}

/// SQS finds fault with every message that has an attribute which the barest form has not.
fn but_the_barest(entries: &[Entry]) -> Reply {
    let has_more = |entry: &Entry| entry.attributes.contains_key("request_id");
    let refused = (0..entries.len()).filter(|at| has_more(&entries[*at])).collect();
    Reply::Refused(refused, "InvalidMessageContents", true)
}

/// A fragment as a claim check in each form that a fragment can have.
fn claim_checks(sample: &Sample) -> Vec<Message> {
    let event: Value = serde_json::from_str(&sample.text).unwrap();
    let request_id = event["requestContext"]["requestId"].as_str().unwrap();
    let request = RequestContext { request_id, trace: None, group_key: VERIFY_TOKEN };
    let reason = |fragment: &Fragment<'_>| {
        let is_routed = matches!(fragment, Fragment::Change(change) if change.field.is_some());
        (!is_routed).then(|| UnroutedReason::of_fragment(fragment))
    };
    let mut all = Vec::new();
    for fragment in &split(&sample.body) {
        let id = event_id(fragment);
        for mut message in
            [Message::new(fragment, &id, request, reason(fragment), false), Message::raw_base64(fragment, &id, false)]
        {
            message.replace_body_with_pointer("a-bucket", &Payloads::key(Some("messages"), &id));
            all.push(message);
        }
    }
    all
}

#[test]
fn the_schema_is_one_of_2020_12_and_of_the_first_edition() {
    jsonschema::draft202012::meta::validate(&schema()).unwrap();
    assert_eq!(schema()["$id"], "urn:whatsapp-ingress:message:1");
}

#[tokio::test(start_paused = true)]
async fn every_message_that_a_sample_makes_is_valid_wherever_it_lands() {
    for sample in samples() {
        let stored = delivered(&sample, |_| Reply::Stored).await;
        let diverted = delivered(&sample, but_the_catch_all).await;
        let barest = delivered(&sample, but_the_barest).await;
        assert!(!stored.is_empty() && stored.len() == diverted.len() && stored.len() == barest.len());
        for entry in stored.iter().chain(&diverted).chain(&barest) {
            check(&sample.name, &entry.body, &entry.attributes);
        }
        for message in claim_checks(&sample) {
            check(&sample.name, &message.body, &attributes(&message));
        }
    }
}

#[tokio::test]
async fn every_message_that_a_public_payload_makes_is_valid() {
    let Some(folder) = corpus::folder() else { return };
    for (name, body) in corpus::payloads(&folder) {
        let webhook = Webhook::new(&ROUTES).await;
        assert_eq!(webhook.deliver(&body).await, 200, "{name}");
        let stored = webhook.stored();
        assert!(!stored.is_empty(), "{name}");
        for entry in stored {
            check(&name, &entry.body, &entry.attributes);
        }
    }
}

#[cfg(feature = "local-aws")]
#[tokio::test(start_paused = true)]
async fn another_validator_is_of_the_same_opinion() {
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
        let stored = delivered(&sample, |_| Reply::Stored).await;
        let diverted = delivered(&sample, but_the_catch_all).await;
        for entry in stored.iter().chain(&diverted) {
            let whole = received(&entry.body, &entry.attributes).unwrap();
            messages.push(whole.clone());
            for attribute in entry.attributes.keys() {
                let mut less = whole.clone();
                less["attributes"].as_object_mut().unwrap().remove(attribute);
                messages.push(less);
            }
        }
    }
    let ours: Vec<_> = messages.iter().map(|message| validator().is_valid(message)).collect();
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let mut theirs =
        Command::new(python).args(["-c", VALIDATE]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    serde_json::to_writer(theirs.stdin.take().unwrap(), &(schema(), &messages)).unwrap();
    let theirs: Vec<bool> = serde_json::from_slice(&theirs.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(ours, theirs);
    assert!(ours.iter().filter(|valid| !**valid).count() > 100);
}

#[tokio::test]
async fn a_body_that_sqs_would_not_take_as_text_is_valid() {
    for body in [&b"\xff\xfeh\0i\0"[..], b"\x01", b"1234"] {
        let webhook = Webhook::new(&ROUTES).await;
        webhook.deliver(body).await;
        let [entry] = &webhook.stored()[..] else { panic!() };
        check("no text", &entry.body, &entry.attributes);
    }
}

mod refused {
    use super::*;

    /// The message of a sample, as a consumer validates it.
    async fn message(name: &str) -> Value {
        let stored = delivered(&sample(name), |_| Reply::Stored).await;
        received(&stored[0].body, &stored[0].attributes).unwrap()
    }

    fn is_valid(message: &Value) -> bool {
        validator().is_valid(message)
    }

    #[tokio::test]
    async fn whatever_attribute_is_missing() {
        for name in ["messages-text", "statuses-read", "messages-errors", "unknown-field", "other-product", "not-json"]
        {
            let whole = message(name).await;
            assert!(is_valid(&whole), "{name}");
            for attribute in whole["attributes"].as_object().unwrap().keys() {
                // Then it is what the field's queue would get, if it had one.
                if (name, attribute.as_str()) == ("unknown-field", "unrouted_reason") {
                    continue;
                }
                let mut less = whole.clone();
                less["attributes"].as_object_mut().unwrap().remove(attribute);
                assert!(!is_valid(&less), "{name} without {attribute}");
            }
        }
    }

    #[tokio::test]
    async fn a_second_change_or_entry_and_none() {
        for [way, many] in [["/body/entry", "entry"], ["/body/entry/0/changes", "change"]] {
            let mut twice = message("messages-text").await;
            let list = twice.pointer_mut(way).unwrap().as_array_mut().unwrap();
            list.push(list[0].clone());
            assert!(!is_valid(&twice), "two of {many}");
            *twice.pointer_mut(way).unwrap() = json!([]);
            assert!(!is_valid(&twice), "no {many}");
        }
    }

    #[tokio::test]
    async fn an_attribute_that_says_what_no_attribute_says() {
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

    #[tokio::test]
    async fn a_body_that_is_not_what_the_attributes_say() {
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
    async fn but_not_an_attribute_of_a_later_edition() {
        let mut later = message("messages-text").await;
        later["attributes"]["new_in_a_later_release"] = "text".into();
        assert!(is_valid(&later));
    }
}

mod examples {
    use super::*;

    const BEFORE: &str = "<!-- example: ";

    /// The message that an example of the page shows.
    async fn shown(name: &str) -> (String, Attributes) {
        let (sample_name, how) = name.split_once(", ").unwrap_or((name, ""));
        let mut sample = sample(sample_name);
        let stored = match how {
            "" => delivered(&sample, |_| Reply::Stored).await,
            "its queue deleted" => delivered(&sample, but_the_catch_all).await,
            "refused" => delivered(&sample, but_the_barest).await,
            "in UTF-16" => {
                let webhook = Webhook::new(&ROUTES).await;
                let text = std::str::from_utf8(&sample.body).unwrap();
                let bytes: Vec<_> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
                webhook.deliver([b"\xff\xfe", &bytes[..]].concat()).await;
                webhook.stored()
            }
            "of more than 1 MiB" => {
                let text = std::str::from_utf8(&sample.body).unwrap();
                sample.body = text.replace("in stock?", &"in stock? ".repeat(110_000)).into_bytes();
                let [claim_check, _] = &claim_checks(&sample)[..] else { panic!() };
                let id = &attributes(claim_check)["event_id"];
                // Bucket, day and random part are another each time.
                let (before, after) = claim_check.body.split_once(id.as_str()).unwrap();
                let (before, after) = (before.len() - "2026-01-01/".len(), &after[after.find('"').unwrap()..]);
                let key = format!("{}2026-01-01/{id}-0b6f2c9d51e8a734{after}", &claim_check.body[..before]);
                return (key.replace("a-bucket", "whatsapp-ingress-payloads-1x2y3z"), attributes(claim_check));
            }
            _ => panic!("{how}"),
        };
        (stored[0].body.clone(), stored[0].attributes.clone())
    }

    /// Attributes a line each, an empty line, the body.
    fn text(body: &str, attributes: &Attributes) -> String {
        let lines: Vec<_> = attributes.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        format!("{}\n{body}\n", lines.concat())
    }

    /// The page with its examples made anew, and how many there are.
    async fn made_anew(page: &str) -> (String, usize) {
        let mut parts = page.split(BEFORE);
        let mut made = parts.next().unwrap().to_owned();
        let mut count = 0;
        for part in parts {
            let (name, rest) = part.split_once(" -->\n```text\n").unwrap();
            let (_, after) = rest.split_once("```\n").unwrap();
            let (body, attributes) = shown(name).await;
            check(name, &body, &attributes);
            let message = text(&body, &attributes);
            made.extend([BEFORE, name, " -->\n```text\n", &message, "```\n", after]);
            count += 1;
        }
        (made, count)
    }

    #[tokio::test(start_paused = true)]
    async fn on_the_page_are_what_the_function_makes_of_the_samples() {
        let path = docs().join("contract.md");
        let page = fs::read_to_string(&path).unwrap();
        let (made, count) = made_anew(&page).await;
        if std::env::var_os("WRITE_EXAMPLES").is_some() {
            fs::write(&path, &made).unwrap();
        }
        assert!(count >= 11, "{count} examples");
        let differing = page.lines().zip(made.lines()).find(|(old, new)| old != new);
        assert_eq!((differing, page.len()), (None, made.len()), "WRITE_EXAMPLES=1 writes them anew");
    }

    #[test]
    fn on_the_page_are_of_every_kind_and_every_reason() {
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
