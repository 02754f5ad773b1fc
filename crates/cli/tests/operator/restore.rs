//! Deletes and changes queues of a stack on the local AWS, and makes them as in the template again.

use std::collections::HashMap;

use aws_sdk_sqs::{Client, types::QueueAttributeName};
use serde_json::Value;

use crate::{
    assert_output, failed_checks, ingress,
    messages::{client, run, url},
    stack::TestStack,
};

const QUEUES_CHECK: &str = "queues exist and match the template";

const POLICY_BY_HAND: &str = r#"{"Version":"2012-10-17","Statement":[{"Sid":"ByHand","Effect":"Allow","Principal":"*","Action":"sqs:*","Resource":"*"}]}"#;

/// Returns the attributes that a template sets, as JSON if they are JSON, and the tags.
async fn settings(client: &Client, url: &str) -> (HashMap<String, Value>, HashMap<String, String>) {
    let call = client.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
    let attributes = call.send().await.unwrap().attributes.unwrap().into_iter();
    let json = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    let attributes = attributes.map(|(name, value)| (name.as_str().to_owned(), json(value)));
    let is_setting = |name: &str| !name.starts_with("Approximate") && !name.ends_with("Timestamp");
    let tags = client.list_queue_tags().queue_url(url).send().await.unwrap().tags.unwrap_or_default();
    let tags = tags.into_iter().filter(|(name, _)| !name.starts_with("aws:"));
    // On the local AWS a policy without its rule about TLS may be empty, which is the same as none.
    let is_empty = |value: &Value| value["Statement"].as_array().is_some_and(Vec::is_empty);
    (attributes.filter(|(name, value)| is_setting(name) && !is_empty(value)).collect(), tags.collect())
}

async fn queues_problem(stack: &TestStack) -> Option<String> {
    let failed = failed_checks(stack, &[], &[]).await;
    failed.into_iter().find(|(check, _)| check == QUEUES_CHECK).map(|(_, json)| json)
}

#[tokio::test]
async fn deleted_queue_is_restored_as_in_the_template() {
    let stack = TestStack::start().await;
    let sqs = client(&stack.info);
    let names = ["security", "security-dead", "messages", "unrouted"];
    let urls = names.map(|name| url(&stack.info, name));
    let mut before = Vec::new();
    for url in &urls {
        before.push(settings(&sqs, url).await);
    }
    assert_eq!(queues_problem(&stack).await, None);

    for url in [&urls[0], &urls[1], &urls[3]] {
        sqs.delete_queue().queue_url(url).send().await.unwrap();
    }
    let changed =
        sqs.set_queue_attributes().queue_url(&urls[2]).attributes(QueueAttributeName::MaximumMessageSize, "1024");
    // The template declares no policy but the one about TLS, which the local AWS does not have.
    let changed = changed.attributes(QueueAttributeName::Policy, POLICY_BY_HAND);
    changed.attributes(QueueAttributeName::DelaySeconds, "900").send().await.unwrap();
    sqs.untag_queue().queue_url(&urls[2]).tag_keys("route").send().await.unwrap();

    let table = run(&stack, &["queues"]).await;
    assert_output(table, false, &["whatsapp-ingress-security: gone", "`ingress restore-queue 'security'`"]);
    let problem = queues_problem(&stack).await.unwrap();
    for part in [
        "whatsapp-ingress-security: gone",
        "-security-dead: gone",
        "-unrouted: gone",
        "MaximumMessageSize is 1024",
        "DelaySeconds is 900, not 0",
        "Policy has the statement ByHand, unlike the template",
        "tag route is unset, not messages",
    ] {
        assert!(problem.contains(part), "{problem}");
    }
    let dry = run(&stack, &["restore-queue", "security"]).await;
    assert_output(dry, true, &["whatsapp-ingress-security-dead: to be created", "nothing was changed"]);
    assert_output(run(&stack, &["queues"]).await, false, &["whatsapp-ingress-security: gone"]);

    for route in ["security", "messages", "*"] {
        let restored = run(&stack, &["restore-queue", route, "--apply"]).await;
        assert_output(restored, true, &["account 000000000000", "done"]);
    }
    for (url, before) in urls.iter().zip(before) {
        assert_eq!(settings(&sqs, url).await, before, "{url}");
    }
    assert_eq!(queues_problem(&stack).await, None);
    assert_output(run(&stack, &["queues"]).await, true, &["whatsapp-ingress-security"]);
    assert_output(run(&stack, &["restore-queue", "security", "--apply"]).await, true, &["nothing to do"]);
    let unknown = ingress(&stack, &["restore-queue", "no_such_route"], &[]).await;
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("the stack has no route no_such_route"), "{unknown:?}");
}
