//! What an operator runs against a deployed stack, against one on the local AWS.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use ingress_tools::{deliver::Endpoint, queues::Queues, samples::Sample, stack::Stack};
use serde_json::Value;
use tokio::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The command, in an environment where AWS is the local one and nothing else is set.
async fn ingress(stack: &Stack, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingress"));
    command.args(arguments).current_dir(root());
    for name in ["APP_SECRET", "VERIFY_TOKEN", "META_ACCESS_TOKEN", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"] {
        command.env_remove(name);
    }
    let facts = &stack.facts;
    command.env("AWS_ENDPOINT_URL", &facts.aws_endpoint).env("AWS_DEFAULT_REGION", &facts.region);
    command.env("AWS_ACCESS_KEY_ID", &facts.access_key_id).env("AWS_SECRET_ACCESS_KEY", &facts.secret_access_key);
    let output = command.envs(environment.iter().copied()).output().await.unwrap();
    for stream in [&output.stdout, &output.stderr] {
        let told = String::from_utf8_lossy(stream);
        for secret in [&stack.keys().app_secret, &stack.keys().verify_token] {
            assert!(!told.contains(secret.as_str()), "{arguments:?} tells a secret");
        }
    }
    output
}

/// Each check's result, and cause and remedy where it fails.
async fn verified(stack: &Stack, arguments: &[&str], environment: &[(&str, &str)]) -> Vec<(String, String)> {
    let output = ingress(stack, &[&["verify", "--json"], arguments].concat(), environment).await;
    let told: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(told["holds"].as_bool().unwrap(), output.status.success());
    let checks = told["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| check["result"] != "holds")
        .map(|check| (check["check"].as_str().unwrap().to_owned(), check.to_string()))
        .collect()
}

#[track_caller]
fn assert_found(found: &[(String, String)], expected: &[(&str, &str)]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((check, told), (name, words)) in found.iter().zip(expected) {
        assert_eq!(check, name);
        assert!(told.contains(words), "{told}");
    }
}

const PLAIN: (&str, &str) = ("certificate trusted, TLS 1.2 or later", "plain HTTP on this computer");

#[tokio::test]
async fn a_deployed_stack_is_verified() {
    let stack = Stack::start(&root(), &root().join(".venv/bin/python")).await.unwrap();
    let endpoint = Endpoint::new(&stack.facts.callback_url).unwrap();
    let others = Sample::load(&root().join("events/unknown-field.json")).unwrap();
    assert_eq!(endpoint.deliver(&others, &stack.keys()).await.unwrap().status, 200);

    // The stack that is up here; and one that AWS is asked for, by its name and by its URL.
    assert_found(&verified(&stack, &[], &[]).await, &[PLAIN]);
    assert_found(&verified(&stack, &["--stack", "whatsapp-ingress"], &[]).await, &[PLAIN]);
    assert_found(&verified(&stack, &["--url", &stack.facts.callback_url], &[]).await, &[PLAIN]);

    let wrong = verified(&stack, &[], &[("APP_SECRET", "another")]).await;
    let not_sent = "no notification is accepted";
    assert_found(
        &wrong,
        &[
            PLAIN,
            ("signed notification accepted", "another app secret"),
            ("answers as fast as Meta asks for", not_sent),
            ("stored on the catch-all, nothing beside it", not_sent),
        ],
    );
    let wrong = verified(&stack, &[], &[("VERIFY_TOKEN", "another")]).await;
    assert_found(&wrong, &[PLAIN, ("challenge answered verbatim", "another verify token")]);

    let elsewhere = stack.facts.callback_url.replace("/webhook", "/webhooks");
    let wrong = verified(&stack, &["--url", &elsewhere], &[]).await;
    assert_found(&wrong[1..2], &[("challenge answered verbatim", "no route")]);

    let unknown = ingress(&stack, &["verify", "--stack", "no-such"], &[]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no-such does not exist"), "{unknown:?}");
    let nowhere = ingress(&stack, &["verify", "--stack", "any"], &[("AWS_DEFAULT_REGION", "")]).await;
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("no AWS region is set"), "{nowhere:?}");

    let mut queues = Queues::of(&stack.facts);
    let left: Vec<_> =
        queues.take().await.unwrap().into_iter().map(|message| message.attributes["field"].clone()).collect();
    assert_eq!(left.len(), 1, "what was sent is gone, and what others sent is there: {left:?}");
    assert_ne!(left[0], "ingress_verify");
}
