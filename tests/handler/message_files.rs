//! `examples/messages/`: the messages of docs/contract.md and of more samples, as files for the tests of consumers.

use std::{collections::BTreeMap, fs, path::Path};

use md5::{Digest, Md5};
use serde_json::{Map, Value, json};

use crate::contract::examples::{generate, names};
use crate::support::schema::Attributes;

/// Messages that are no examples of the contract.
const MORE: [&str; 7] = [
    "messages-text, replayed",
    "messages-three",
    "messages-user-id",
    "messages-with-receipts",
    "messages-without-kind",
    "statuses-200",
    "statuses-delivered, of a group",
];
/// Later than every request of a sample.
const SENT: &str = "1767264000000";

/// Every file with its text, by its name in the folder.
async fn files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut add = |name: &str, messages: &[&(String, Attributes)]| {
        let received: Vec<_> = messages.iter().enumerate().map(|(index, message)| received(index, message)).collect();
        let records: Vec<_> = messages.iter().enumerate().map(|(index, message)| record(index, message)).collect();
        for (name, content) in [
            (format!("{name}.json"), json!({ "Messages": received })),
            (format!("lambda/{name}.json"), json!({ "Records": records })),
        ] {
            files.insert(name, serde_json::to_string_pretty(&content).unwrap() + "\n");
        }
    };
    for name in names().iter().map(String::as_str).chain(MORE) {
        let message = generate(name).await;
        add(&name.to_lowercase().replace(", ", "-").replace(' ', "-"), &[&message]);
        if name == "messages-text" {
            add("copies", &[&message, &message]);
        }
    }
    files
}

/// A message as `aws sqs receive-message` returns it.
fn received(index: usize, (body, attributes): &(String, Attributes)) -> Value {
    let attribute = |(name, value): (&String, &String)| {
        (name.clone(), json!({ "StringValue": value, "DataType": data_type(name) }))
    };
    json!({
        "MessageId": message_id(index, attributes),
        "ReceiptHandle": receipt_handle(index, attributes),
        "MD5OfBody": hex::encode(Md5::digest(body)),
        "Body": body,
        "Attributes": system_attributes(),
        "MessageAttributes": attributes.iter().map(attribute).collect::<Map<_, _>>(),
    })
}

/// The same message in the event of a Lambda function.
fn record(index: usize, (body, attributes): &(String, Attributes)) -> Value {
    let attribute = |(name, value): (&String, &String)| {
        let attribute = json!({
            "stringValue": value,
            "stringListValues": [],
            "binaryListValues": [],
            "dataType": data_type(name),
        });
        (name.clone(), attribute)
    };
    json!({
        "messageId": message_id(index, attributes),
        "receiptHandle": receipt_handle(index, attributes),
        "body": body,
        "attributes": system_attributes(),
        "messageAttributes": attributes.iter().map(attribute).collect::<Map<_, _>>(),
        "md5OfBody": hex::encode(Md5::digest(body)),
        "eventSource": "aws:sqs",
        "eventSourceARN": format!("arn:aws:sqs:eu-central-1:123456789012:whatsapp-ingress-{}", queue(attributes)),
        "awsRegion": "eu-central-1",
    })
}

fn data_type(attribute: &str) -> &'static str {
    if attribute == "ExtendedPayloadSize" { "Number" } else { "String" }
}

/// SQS gives each copy an id of its own.
fn message_id(index: usize, attributes: &Attributes) -> String {
    let id = &attributes["event_id"];
    format!("{}-{}-4{}-8{}-{index:012}", &id[..8], &id[8..12], &id[12..15], &id[15..18])
}

fn receipt_handle(index: usize, attributes: &Attributes) -> String {
    format!("receipt-handle-of-{}", message_id(index, attributes))
}

fn system_attributes() -> Value {
    json!({
        "ApproximateFirstReceiveTimestamp": SENT,
        "ApproximateReceiveCount": "1",
        "SenderId": "AROAEXAMPLEEXAMPLE000:whatsapp-ingress",
        "SentTimestamp": SENT,
    })
}

/// The last part of a queue's name in a stack with its default queues.
fn queue(attributes: &Attributes) -> String {
    match (attributes.get("field"), attributes.get("kind").map(String::as_str)) {
        (Some(field), Some("statuses")) if !attributes.contains_key("unrouted_reason") => format!("{field}-statuses"),
        (Some(field), _) if !attributes.contains_key("unrouted_reason") => field.clone(),
        _ => "unrouted".to_owned(),
    }
}

fn present(folder: &Path) -> BTreeMap<String, String> {
    let mut present = BTreeMap::new();
    for (prefix, folder) in [("", folder.to_owned()), ("lambda/", folder.join("lambda"))] {
        for file in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
            let name = file.file_name().into_string().unwrap();
            if file.path().extension().is_some_and(|extension| extension == "json") {
                present.insert(format!("{prefix}{name}"), fs::read_to_string(file.path()).unwrap());
            }
        }
    }
    present
}

#[tokio::test(start_paused = true)]
async fn message_files_match_the_function() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/messages");
    let (files, present) = (files().await, present(&folder));
    if std::env::var_os("WRITE_EXAMPLES").is_some() {
        fs::create_dir_all(folder.join("lambda")).unwrap();
        for name in present.keys().filter(|name| !files.contains_key(*name)) {
            fs::remove_file(folder.join(name)).unwrap();
        }
        for (name, text) in &files {
            fs::write(folder.join(name), text).unwrap();
        }
        return;
    }
    assert!(files.keys().eq(present.keys()), "{:?}", present.keys());
    for (name, text) in &files {
        assert!(present[name] == *text, "{name} differs: `make messages` writes it anew");
    }
}
