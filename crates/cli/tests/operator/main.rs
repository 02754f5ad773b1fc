//! The commands for a deployed stack, tested against a stack on the local AWS.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archive;
mod graph;
mod messages;
mod restore;
mod stack;

use std::{
    env,
    process::Output,
    sync::{Arc, Mutex},
};

use ingress_tools::{
    meta::{deliver::Endpoint, samples::Sample},
    queues::stack_queues::StackQueues,
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    graph::{ACCESS_TOKEN, ACCOUNT, APP, Meta, graph},
    stack::{TestStack, root},
};

/// Runs the command in an environment that only contains the local AWS. Fails if the output contains a secret.
async fn ingress(stack: &TestStack, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingress"));
    command.args(arguments).current_dir(stack.folder());
    // The AWS CLI of the tests, if the requirements are installed.
    let path = env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", root().join(".local/aws-cli/bin").display()));
    for name in ["APP_SECRET", "VERIFY_TOKEN", "META_ACCESS_TOKEN", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"] {
        command.env_remove(name);
    }
    let info = &stack.info;
    command.env("AWS_ENDPOINT_URL", &info.aws_endpoint).env("AWS_DEFAULT_REGION", &info.region);
    command.env("AWS_ACCESS_KEY_ID", &info.access_key_id).env("AWS_SECRET_ACCESS_KEY", &info.secret_access_key);
    let output = command.envs(environment.iter().copied()).output().await.unwrap();
    for stream in [&output.stdout, &output.stderr] {
        let output_text = String::from_utf8_lossy(stream);
        for secret in [stack.secrets().app_secret.as_str(), &stack.secrets().verify_token, ACCESS_TOKEN] {
            assert!(!output_text.contains(secret), "{arguments:?} prints a secret: {output_text}");
        }
    }
    output
}

/// Returns the name and the JSON of each check that did not pass.
async fn failed_checks(stack: &TestStack, arguments: &[&str], environment: &[(&str, &str)]) -> Vec<(String, String)> {
    let output = ingress(stack, &[&["verify", "--json"], arguments].concat(), environment).await;
    let json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(json["passed"].as_bool().unwrap(), output.status.success());
    let checks = json["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| check["result"] != "passed")
        .map(|check| (check["check"].as_str().unwrap().to_owned(), check.to_string()))
        .collect()
}

#[track_caller]
fn assert_not_passed(found: &[(String, String)], expected: &[(&str, &str)]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((check, json), (name, text)) in found.iter().zip(expected) {
        assert_eq!(check, name);
        assert!(json.contains(text), "{json}");
    }
}

const PLAIN: (&str, &str) = ("certificate trusted, TLS 1.2 or later", "plain HTTP on this computer");
const NO_TOPIC: (&str, &str) = ("alarm topic exists and has a subscription", "the stack has none");

#[tokio::test]
async fn deployed_stack_is_verified() {
    let stack = TestStack::start().await;
    let endpoint = Endpoint::new(&stack.info.callback_url).unwrap();
    let others = Sample::load(&root().join("events/unknown-field.json")).unwrap();
    assert_eq!(endpoint.deliver(&others, &stack.secrets()).await.unwrap().status, 200);

    // The running local stack, then a stack that is described by AWS, by its name and by its URL.
    assert_not_passed(&failed_checks(&stack, &[], &[]).await, &[PLAIN, NO_TOPIC]);
    assert_not_passed(&failed_checks(&stack, &["--stack", "whatsapp-ingress"], &[]).await, &[PLAIN, NO_TOPIC]);
    assert_not_passed(&failed_checks(&stack, &["--url", &stack.info.callback_url], &[]).await, &[PLAIN, NO_TOPIC]);

    let wrong = failed_checks(&stack, &[], &[("APP_SECRET", "0123456789abcdef0123456789abcdef")]).await;
    let no_notification = "the endpoint accepts no notification";
    assert_not_passed(
        &wrong,
        &[
            PLAIN,
            ("signed notification accepted", "another app secret"),
            ("unusual header accepted", no_notification),
            ("unusual query accepted", no_notification),
            ("x-forwarded-proto with two schemes accepted", no_notification),
            NO_TOPIC,
            ("latency within Meta's limits", no_notification),
            ("accepted notifications stored, rejected ones not", no_notification),
        ],
    );
    let wrong = failed_checks(&stack, &[], &[("VERIFY_TOKEN", "another")]).await;
    assert_not_passed(
        &wrong,
        &[
            PLAIN,
            ("challenge answered verbatim", "another verify token"),
            ("challenge with an unusual query answered", "the endpoint returns no challenge"),
            NO_TOPIC,
        ],
    );

    let elsewhere = stack.info.callback_url.replace("/webhook", "/webhooks");
    let wrong = failed_checks(&stack, &["--url", &elsewhere], &[]).await;
    assert_not_passed(&wrong[1..2], &[("challenge answered verbatim", "no route")]);

    let unknown = ingress(&stack, &["verify", "--stack", "no-such"], &[]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no-such does not exist"), "{unknown:?}");
    let nowhere = ingress(&stack, &["verify", "--stack", "any"], &[("AWS_DEFAULT_REGION", "")]).await;
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("no AWS region is set"), "{nowhere:?}");

    // Without an archive, the commands name the parameter that turns it on, unless they have the bucket of an older one.
    let bucket = ["--bucket", &stack.info.outputs["PayloadBucket"]];
    for (arguments, succeeds, text) in
        [(&[][..], false, "ArchiveDays, if it is not 0"), (&bucket, true, "\n0 notifications")]
    {
        let output = ingress(&stack, &[&["archive", "list"], arguments].concat(), &[]).await;
        let output_text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_output((output_text, output.status.success()), succeeds, &[text]);
    }

    let mut queues = StackQueues::of(&stack.info);
    let left: Vec<_> =
        queues.receive_all().await.unwrap().into_iter().map(|message| message.attributes["field"].clone()).collect();
    assert_eq!(left.len(), 1, "only the message of the other sender is left: {left:?}");
    assert_ne!(left[0], "ingress_verify");
}

/// Runs `ingress subscribe`. Returns its output, and whether it succeeded.
async fn subscribe(stack: &TestStack, graph: &str, arguments: &[&str]) -> (String, bool) {
    let graph = format!("{graph}/v25.0");
    let arguments = [&["subscribe", "--stack", "whatsapp-ingress", "--graph-url", &graph, "--app", APP], arguments];
    let output = ingress(stack, &arguments.concat(), &[("META_ACCESS_TOKEN", ACCESS_TOKEN)]).await;
    let output_text = [output.stdout, output.stderr].concat();
    (String::from_utf8(output_text).unwrap(), output.status.success())
}

#[track_caller]
fn assert_output((output_text, succeeded): (String, bool), success: bool, parts: &[&str]) {
    assert_eq!(succeeded, success, "{output_text}");
    for part in parts {
        assert!(output_text.contains(part), "{part}\n{output_text}");
    }
}

/// Returns the JSON in the output of a command, which also names its stack.
fn json_in(output_text: &str) -> Value {
    let line = output_text.lines().find(|line| line.starts_with('{'));
    serde_json::from_str(line.unwrap_or_else(|| panic!("{output_text}"))).unwrap()
}

#[tokio::test]
async fn app_is_subscribed_to_fields_with_a_queue() {
    let stack = TestStack::start().await;
    let url = stack.info.callback_url.clone();
    let meta = Arc::new(Mutex::new(Meta { app_secret: stack.secrets().app_secret, ..Meta::default() }));
    let server = graph(&meta).await;
    let uri = server.uri();
    let account = ["--account", ACCOUNT];

    let dry = subscribe(&stack, &uri, &account).await;
    assert_output(dry, true, &["callback URL  none", "messages, messages-statuses", "nothing was changed"]);
    assert_eq!(meta.lock().unwrap().changes, 0);

    let applied = subscribe(&stack, &uri, &["--account", ACCOUNT, "--apply"]).await;
    assert_output(applied, true, &["done"]);
    {
        let meta = meta.lock().unwrap();
        assert_eq!((meta.callback_url.as_ref(), meta.changes, meta.account_is_subscribed), (Some(&url), 2, true));
        assert_eq!(meta.fields.len(), graph::count_fields_with_queue());
    }
    assert_output(subscribe(&stack, &uri, &["--account", ACCOUNT, "--apply"]).await, true, &["nothing to do"]);
    assert_eq!(meta.lock().unwrap().changes, 2);

    // A field without a queue is kept, and the URL of another endpoint is replaced.
    {
        let mut meta = meta.lock().unwrap();
        meta.fields = ["calls", "messages"].map(str::to_owned).into();
        meta.callback_url = Some("https://other.example/hook".to_owned());
    }
    let dry = subscribe(&stack, &uri, &["--fields", "messages,security", "--json"]).await;
    let json = json_in(&dry.0);
    assert_eq!((&json["applied"], &json["done"]), (&json!(false), &json!(false)));
    assert_eq!(json["plan"]["current_callback_url"], "https://other.example/hook");
    let actions: Vec<_> = json["plan"]["fields"].as_array().unwrap().iter().map(|field| &field["action"]).collect();
    assert_eq!(actions.iter().filter(|action| **action == "leave").count(), graph::count_fields_with_queue() - 2);
    let applied = subscribe(&stack, &uri, &["--fields", "messages,security", "--apply"]).await;
    assert_output(applied, true, &["calls", "done"]);
    assert_eq!(meta.lock().unwrap().fields, ["calls", "messages", "security"].map(str::to_owned).into());
    let dropped = subscribe(&stack, &uri, &["--fields", "messages", "--replace", "--apply"]).await;
    assert_output(dropped, true, &["done"]);
    assert_eq!(meta.lock().unwrap().fields, ["messages".to_owned()].into());

    assert_rejections(&stack, &uri, &meta).await;
    let tokens = [stack.secrets().app_secret, stack.secrets().verify_token, ACCESS_TOKEN.to_owned()];
    let urls = meta.lock().unwrap().urls.clone();
    assert!(urls.iter().all(|url| tokens.iter().all(|token| !url.contains(token))), "{urls:#?}");
}

/// Calls that Meta rejects change nothing, and their errors name a fix.
async fn assert_rejections(stack: &TestStack, uri: &str, meta: &Mutex<Meta>) {
    let changes = meta.lock().unwrap().changes;
    let elsewhere = stack.info.callback_url.replace("/webhook", "/elsewhere");
    let unverified = subscribe(stack, uri, &["--url", &elsewhere, "--apply"]).await;
    assert_output(unverified, false, &["HTTP Status Code = 404", "`make verify` shows"]);
    let unknown = subscribe(stack, uri, &["--fields", "mesages", "--apply"]).await;
    assert_output(unknown, false, &["mesages", "the names of the fields"]);
    let strange = subscribe(stack, uri, &["--account", "12"]).await;
    assert_output(strange, false, &["no object has this id"]);

    meta.lock().unwrap().is_token_of_other_app = true;
    let others = subscribe(stack, uri, &["--account", ACCOUNT, "--apply"]).await;
    assert_output(others, false, &["to another app than the app secret"]);
    "another".clone_into(&mut meta.lock().unwrap().app_secret);
    assert_output(subscribe(stack, uri, &[]).await, false, &["must belong together", "Invalid OAuth access token …"]);
    assert_output(subscribe(stack, "http://127.0.0.1:1", &[]).await, false, &["no response from Meta"]);
    assert_eq!(meta.lock().unwrap().changes, changes);

    let output = ingress(stack, &["subscribe", "--app", APP, "--account", ACCOUNT], &[]).await;
    assert_output((String::from_utf8(output.stderr).unwrap(), output.status.success()), false, &["META_ACCESS_TOKEN"]);
    let output = ingress(stack, &["subscribe", "--app", "1/2"], &[]).await;
    assert_eq!(output.status.code(), Some(2));
}
