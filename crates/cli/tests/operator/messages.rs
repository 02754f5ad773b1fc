//! Counts and moves messages, dead letters and unrouted messages of a stack on the local AWS.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, Config, Credentials, Region},
    types::{MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry},
};
use ingress_tools::aws::stack_info::StackInfo;
use serde_json::{Value, json};
use tokio::{process::Command, time::sleep};

use crate::{
    assert_output, ingress, json_in,
    stack::{TestStack, root},
};

/// Longer than the visibility timeout of the messages that a killed run received.
const REAPPEARED_AFTER: Duration = Duration::from_secs(32);

pub(crate) fn client(info: &StackInfo) -> Client {
    let key = Credentials::new(&info.access_key_id, &info.secret_access_key, None, None, "test");
    let config = Config::builder().behavior_version(BehaviorVersion::latest()).region(Region::new("us-east-1"));
    Client::from_conf(config.endpoint_url(&info.aws_endpoint).credentials_provider(key).build())
}

/// Returns the URL of a queue of the stack.
pub(crate) fn url(info: &StackInfo, name: &str) -> String {
    let (account, _) = info.routes.catch_all().url.rsplit_once('/').unwrap();
    format!("{account}/whatsapp-ingress-{name}")
}

async fn put(client: &Client, url: &str, events: &[String], attributes: &[(&str, &str)]) {
    for batch in events.chunks(10) {
        let entries = batch.iter().enumerate().map(|(id, event)| {
            let mut entry = SendMessageBatchRequestEntry::builder().id(id.to_string()).message_body("{}");
            for (name, value) in attributes.iter().copied().chain([("event_id", event.as_str())]) {
                let value = MessageAttributeValue::builder().data_type("String").string_value(value).build().unwrap();
                entry = entry.message_attributes(name, value);
            }
            entry.message_group_id("106540352242922").build().unwrap()
        });
        let sent =
            client.send_message_batch().queue_url(url).set_entries(Some(entries.collect())).send().await.unwrap();
        assert!(sent.failed().is_empty(), "{sent:?}");
    }
}

/// Receives and deletes all messages of a queue. Returns event id, reason and group of each.
async fn receive_and_delete(client: &Client, url: &str) -> Vec<(String, Option<String>, Option<String>)> {
    let mut received = Vec::new();
    loop {
        let receive = client.receive_message().queue_url(url).max_number_of_messages(10).message_attribute_names("All");
        let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
        let messages = receive.send().await.unwrap().messages.unwrap_or_default();
        if messages.is_empty() {
            return received;
        }
        for message in messages {
            let text = |name| message.message_attributes.as_ref()?.get(name)?.string_value.clone();
            let group = message.attributes.as_ref().unwrap().get(&MessageSystemAttributeName::MessageGroupId).cloned();
            received.push((text("event_id").unwrap(), text("unrouted_reason"), group));
            client
                .delete_message()
                .queue_url(url)
                .receipt_handle(message.receipt_handle.unwrap())
                .send()
                .await
                .unwrap();
        }
    }
}

pub(crate) async fn depth(client: &Client, url: &str) -> usize {
    const COUNT: QueueAttributeName = QueueAttributeName::ApproximateNumberOfMessages;
    let response = client.get_queue_attributes().queue_url(url).attribute_names(COUNT).send().await.unwrap();
    response.attributes.unwrap()[&COUNT].parse().unwrap()
}

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number:03}")).collect()
}

pub(crate) async fn run(stack: &TestStack, arguments: &[&str]) -> (String, bool) {
    let output = ingress(stack, arguments, &[]).await;
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.success())
}

#[tokio::test]
async fn messages_are_counted_and_moved() {
    let stack = TestStack::start().await;
    let sqs = client(&stack.info);
    let at = |name: &str| url(&stack.info, name);
    let misplaced = [("field", "security"), ("unrouted_reason", "queue-unavailable")];
    put(&sqs, &at("security"), &numbered("waiting-", 3), &[("field", "security")]).await;
    put(&sqs, &at("security-dead"), &numbered("dead-", 14), &[("field", "security")]).await;
    put(&sqs, &at("unrouted"), &numbered("others-", 5), &[("field", "calls"), ("unrouted_reason", "no-route")]).await;
    put(&sqs, &at("unrouted"), &numbered("diverted-", 12), &misplaced).await;

    let table = run(&stack, &["queues"]).await;
    assert_output(
        table.clone(),
        true,
        &["messages.statuses", "CloudWatch has no value", "account 000000000000  region us-east-1"],
    );
    let lines: Vec<Vec<&str>> = table.0.lines().map(|line| line.split_whitespace().collect()).collect();
    let line = |name: &str| lines.iter().find(|line| line.first() == Some(&name)).unwrap().clone();
    assert_eq!(
        line("whatsapp-ingress-security"),
        ["whatsapp-ingress-security", "usable", "3", "0", "0", "-", "14", "-", "security"]
    );
    assert_eq!(
        line("whatsapp-ingress-unrouted"),
        ["whatsapp-ingress-unrouted", "usable", "17", "0", "0", "-", "-", "-", "*"]
    );
    assert_ages(&stack).await;
    assert_other_queues(&stack, &sqs).await;

    let dry = run(&stack, &["redrive", "--field", "security"]).await;
    assert_output(dry, true, &["whatsapp-ingress-security-dead: 14 visible", "whatsapp-ingress-security: 3 visible"]);
    let dry = run(&stack, &["reroute", "--field", "security", "--json"]).await;
    let counted = json_in(&dry.0);
    assert_eq!((&counted["applied"], &counted["moves"][0]["from"]["visible"]), (&json!(false), &json!(17)));
    assert_output(run(&stack, &["reroute", "--field", "calls", "--apply"]).await, false, &["calls has no queue"]);
    assert_output(run(&stack, &["redrive", "--field", "messages.x"]).await, false, &["x is not a kind"]);
    assert_output(run(&stack, &["redrive", "--field", ""]).await, false, &["the field is empty"]);

    let redrive = run(&stack, &["redrive", "--field", "security", "--apply", "--stack", "whatsapp-ingress"]).await;
    assert_output(redrive, true, &["14 moved"]);
    let reroute = run(&stack, &["reroute", "--field", "security", "--apply"]).await;
    assert_output(reroute, true, &["12 moved", "5 not moved"]);

    let arrived = receive_and_delete(&sqs, &at("security")).await;
    let events: BTreeSet<_> = arrived.iter().map(|(event, ..)| event.clone()).collect();
    assert_eq!((arrived.len(), events.len()), (29, 29));
    assert!(arrived.iter().all(|(_, reason, group)| reason.is_none() && group.as_deref() == Some("106540352242922")));
    assert_eq!((depth(&sqs, &at("security-dead")).await, depth(&sqs, &at("unrouted")).await), (0, 5));

    assert_drained(&stack, &sqs).await;
}

/// Puts ages into the local `CloudWatch`, which computes none, and checks that the command prints them.
async fn assert_ages(stack: &TestStack) {
    let script = "import boto3, datetime as d; boto3.client('cloudwatch').put_metric_data(Namespace='AWS/SQS', MetricData=[\
        {'MetricName': 'ApproximateAgeOfOldestMessage', 'Value': v, 'Timestamp': d.datetime.now(d.timezone.utc) - \
        d.timedelta(minutes=m), 'Dimensions': [{'Name': 'QueueName', 'Value': 'whatsapp-ingress-security' + q}]} \
        for q, m, v in [('', 4, 7000), ('', 2, 7260), ('-dead', 3, 266400), ('-dead', 60, 1)]])";
    let info = &stack.info;
    let mut python = Command::new(root().join(".venv/bin/python"));
    python.args(["-c", script]).env("AWS_ENDPOINT_URL", &info.aws_endpoint).env("AWS_DEFAULT_REGION", &info.region);
    python.env("AWS_ACCESS_KEY_ID", &info.access_key_id).env("AWS_SECRET_ACCESS_KEY", &info.secret_access_key);
    assert!(python.status().await.unwrap().success());

    let output = ingress(stack, &["queues", "--json", "--stack", "whatsapp-ingress"], &[]).await;
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let queues = json["queues"].as_array().unwrap();
    let security = queues.iter().find(|queue| queue["queue"] == "whatsapp-ingress-security").unwrap();
    assert_eq!(
        (&security["oldest_seconds"], &security["dead_letter_queue"]["oldest_seconds"]),
        (&json!(7260), &json!(266_400))
    );
    assert_eq!((queues[0]["oldest_seconds"].clone(), &json["ages_error"]), (Value::Null, &Value::Null));
}

/// Queues with the stack's prefix but without a route are listed.
async fn assert_other_queues(stack: &TestStack, sqs: &Client) {
    assert!(!run(stack, &["queues"]).await.0.contains("other queues"), "each queue of the stack is known");
    for name in ["whatsapp-ingress-left-behind", "whatsapp-ingress2-messages"] {
        sqs.create_queue().queue_name(name).send().await.unwrap();
    }
    put(sqs, &url(&stack.info, "left-behind"), &numbered("left-", 2), &[]).await;

    let (table, _) = run(stack, &["queues"]).await;
    let line = table.lines().find(|line| line.contains("left-behind")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["whatsapp-ingress-left-behind", "2", "0", "0"]);
    assert!(table.contains("Another stack named whatsapp-ingress-… may own one"), "{table}");
    let (json, _) = run(stack, &["queues", "--json", "--stack", "whatsapp-ingress"]).await;
    let others = json_in(&json)["other_queues"].clone();
    assert_eq!((&others[0]["queue"], &others[0]["visible"]), (&json!("whatsapp-ingress-left-behind"), &json!(2)));
    assert_eq!(others.as_array().unwrap().len(), 1);
}

/// The messages of a FIFO queue without a route are moved to a standard queue.
async fn assert_drained(stack: &TestStack, sqs: &Client) {
    let old = sqs.create_queue().queue_name("an-old-queue.fifo").attributes(QueueAttributeName::FifoQueue, "true");
    let old = old.send().await.unwrap().queue_url.unwrap();
    for event in numbered("old-", 3) {
        let named =
            |value: &str| MessageAttributeValue::builder().data_type("String").string_value(value).build().unwrap();
        let sent = sqs.send_message().queue_url(&old).message_body("{}").message_group_id("a-conversation");
        let sent = sent.message_deduplication_id(&event).message_attributes("event_id", named(&event));
        let sent = sent.message_attributes("field", named("security")).message_attributes("entry_id", named("123"));
        sent.send().await.unwrap();
    }
    let arguments = ["redrive", "--field", "security", "--from", "an-old-queue.fifo", "--apply"];
    assert_output(run(stack, &arguments).await, true, &["3 moved"]);
    let arrived = receive_and_delete(sqs, &url(&stack.info, "security")).await;
    assert_eq!(arrived.len(), 3);
    assert!(arrived.iter().all(|(_, _, group)| group.as_deref() == Some("123")), "{arrived:?}");
    assert_eq!(depth(sqs, &old).await, 0);
}

/// After each kill, every message is on one of the two queues. After a complete run, it is on the right one.
#[tokio::test]
async fn killed_redrive_loses_nothing() {
    const KILLS: usize = 8;
    let stack = TestStack::start().await;
    let sqs = client(&stack.info);
    let (dead, queue) = (url(&stack.info, "security-dead"), url(&stack.info, "security"));
    let events = numbered("e-", 1000);
    put(&sqs, &dead, &events, &[("field", "security")]).await;

    let mut arrived = Vec::new();
    for _ in 0..KILLS {
        let mut redrive = Command::new(env!("CARGO_BIN_EXE_ingress"));
        redrive.args(["redrive", "--field", "security", "--apply", "--rate", "100000"]).current_dir(stack.folder());
        let mut redrive = redrive.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let before = depth(&sqs, &queue).await;
        // Kills the run some calls after its first message arrived.
        while depth(&sqs, &queue).await <= before && redrive.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(fastrand::u64(0..120))).await;
        redrive.kill().await.unwrap();
        arrived.extend(receive_and_delete(&sqs, &queue).await.into_iter().map(|(event, ..)| event));
    }
    let moved_by_killed = arrived.iter().collect::<BTreeSet<_>>().len();
    assert!(
        (1..events.len()).contains(&moved_by_killed),
        "no run was killed while it moved messages: {moved_by_killed} moved"
    );

    sleep(REAPPEARED_AFTER).await;
    assert_output(
        run(&stack, &["redrive", "--field", "security", "--apply", "--rate", "100000"]).await,
        true,
        &["moved"],
    );
    arrived.extend(receive_and_delete(&sqs, &queue).await.into_iter().map(|(event, ..)| event));
    let (copies, count) = (arrived.len(), events.len());
    assert_eq!(arrived.into_iter().collect::<BTreeSet<_>>(), events.into_iter().collect());
    assert!(copies - count <= KILLS * 10, "{} duplicates", copies - count);
    assert_eq!(depth(&sqs, &dead).await, 0);
    assert!(receive_and_delete(&sqs, &dead).await.is_empty());
    eprintln!("{moved_by_killed} moved by killed runs, {} duplicates", copies - count);
}
