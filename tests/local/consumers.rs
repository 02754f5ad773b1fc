//! The consumers of `examples/`, each on a queue that the deployed function filled. `make consumers` builds them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use aws_sdk_sqs::{
    config::{BehaviorVersion, Credentials, Region},
    types::QueueAttributeName,
};
use ingress_tools::{
    aws::stack_info::StackInfo,
    endpoint_secrets::EndpointSecrets,
    local::stack::Stack,
    meta::{
        deliver::Endpoint,
        samples::{Sample, Signer},
    },
};
use serde_json::{Value, json};
use tokio::sync::MutexGuard;
use whatsapp_webhook::{message::event_id, notification::split};

use crate::{TURN, root, tool};

/// The limit for the start and the work of a consumer.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(90);

fn python() -> Command {
    Command::new(tool("python"))
}

fn samples() -> Vec<Sample> {
    let all = Sample::load_all(&root().join("events")).unwrap();
    all.into_iter().filter(|sample| sample.method == "POST" && sample.signer() == Signer::Meta).collect()
}

fn load(name: &str) -> Sample {
    Sample::load(&root().join(format!("events/{name}.json"))).unwrap()
}

/// Makes the message's body too large for SQS.
fn large(mut sample: Sample) -> Sample {
    let body = String::from_utf8(sample.body).unwrap();
    sample.body = body.replace("in stock?", &"in stock? ".repeat(110_000)).into_bytes();
    sample
}

/// Returns a notification with three messages in one change. No consumer can read the second.
fn unreadable() -> Sample {
    let mut sample = load("messages-three");
    let mut body: Value = serde_json::from_slice(&sample.body).unwrap();
    *body.pointer_mut("/entry/0/changes/0/value/messages/1").unwrap() = Value::Null;
    sample.body = body.to_string().into_bytes();
    sample
}

struct Deployed {
    stack: Stack,
    endpoint: Endpoint,
    secrets: EndpointSecrets,
    sqs: aws_sdk_sqs::Client,
    _turn: MutexGuard<'static, ()>,
}

impl Deployed {
    async fn new() -> Self {
        let turn = TURN.lock().await;
        let stack = Stack::start(root(), &root().join(".venv/bin/python")).await.unwrap();
        let StackInfo { access_key_id, secret_access_key, region, aws_endpoint, .. } = &stack.info;
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.clone()))
            .endpoint_url(aws_endpoint)
            .credentials_provider(Credentials::new(access_key_id, secret_access_key, None, None, "stack"));
        Self {
            endpoint: Endpoint::new(&stack.info.callback_url).unwrap(),
            secrets: stack.secrets(),
            sqs: aws_sdk_sqs::Client::from_conf(config.build()),
            stack,
            _turn: turn,
        }
    }

    async fn deliver(&self, samples: impl IntoIterator<Item = Sample>) {
        for sample in samples {
            let response = self.endpoint.deliver(&sample, &self.secrets).await.unwrap();
            assert_eq!(response.status, 200, "{}", sample.name);
        }
    }

    fn queue_url(&self) -> &str {
        self.stack.info.queue_urls()["messages"][0]
    }

    /// Returns the numbers of visible messages and of messages in flight.
    async fn depth(&self, queue_url: &str) -> (String, String) {
        const VISIBLE: QueueAttributeName = QueueAttributeName::ApproximateNumberOfMessages;
        const IN_FLIGHT: QueueAttributeName = QueueAttributeName::ApproximateNumberOfMessagesNotVisible;
        let call = self.sqs.get_queue_attributes().queue_url(queue_url);
        let attributes =
            call.attribute_names(VISIBLE).attribute_names(IN_FLIGHT).send().await.unwrap().attributes.unwrap();
        (attributes[&VISIBLE].clone(), attributes[&IN_FLIGHT].clone())
    }

    /// Waits until no message is visible, and this many are in flight.
    async fn wait_for(&self, in_flight: usize) {
        self.wait_for_on(self.queue_url(), in_flight).await;
    }

    async fn wait_for_on(&self, queue_url: &str, in_flight: usize) {
        let expected = ("0".to_owned(), in_flight.to_string());
        let deadline = Instant::now() + CONSUMER_TIMEOUT;
        while self.depth(queue_url).await != expected {
            assert!(Instant::now() < deadline, "{:?} instead of {expected:?}", self.depth(queue_url).await);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Returns the environment variables with which AWS's libraries use the local AWS.
    fn environment(&self) -> [(&'static str, &str); 5] {
        let info = &self.stack.info;
        [
            ("AWS_ENDPOINT_URL", &info.aws_endpoint),
            ("AWS_REGION", &info.region),
            ("AWS_DEFAULT_REGION", &info.region),
            ("AWS_ACCESS_KEY_ID", &info.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &info.secret_access_key),
        ]
    }

    fn start(&self, command: &mut Command) -> RunningConsumer {
        let command = command.env("QUEUE_URL", self.queue_url()).envs(self.environment());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (send, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        RunningConsumer { child, lines }
    }
}

/// A running consumer, and the lines that it prints.
struct RunningConsumer {
    child: Child,
    lines: Receiver<String>,
}

impl RunningConsumer {
    /// Returns the next lines, sorted, because a standard queue has no order.
    fn lines(&self, count: usize) -> Vec<String> {
        let mut lines: Vec<_> = (0..count).map(|_| self.lines.recv_timeout(CONSUMER_TIMEOUT).unwrap()).collect();
        lines.sort_unstable();
        lines
    }

    /// Sends SIGTERM. The consumer must exit with status 0 and print no more lines.
    fn terminate(mut self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        let deadline = Instant::now() + Duration::from_secs(40);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the consumer does not exit");
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert_eq!(self.lines.try_iter().collect::<Vec<_>>(), [""; 0]);
    }
}

impl Drop for RunningConsumer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the notifications for the pollers: nine items, one of them with its body in S3, a copy of a message, an unreadable
/// item and a change without an item.
fn poller_samples() -> [Sample; 8] {
    let [text, receipts, errors] = [load("messages-text"), load("messages-with-receipts"), load("messages-errors")];
    let [image, empty] = [load("messages-image"), load("messages-without-kind")];
    [text.clone(), unreadable(), text.clone(), image, receipts, errors, empty, large(text)]
}

#[allow(clippy::explicit_write, reason = "the test harness captures the output of the macro")]
fn report_skipped(reason: &str) {
    writeln!(std::io::stderr(), "SKIPPED: {reason}").unwrap();
}

fn has_node() -> bool {
    let version = Command::new("node").args(["--print", "Number(process.versions.node.split('.')[0])"]).output();
    let version = version.ok().and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse::<u32>().ok());
    let has = version.is_some_and(|version| version >= 20);
    if !has {
        report_skipped("Node.js 20 or later is not installed");
    }
    // If Node.js is installed, the poller must be built.
    assert!(!has || root().join("examples/node-poller/poller.js").is_file(), "run `make consumers` first");
    has
}

#[tokio::test]
async fn rust_poller_handles_messages_and_large_bodies() {
    let deployed = Deployed::new().await;
    deployed.deliver(poller_samples()).await;
    let done = root().join(".local/consumers/rust-poller-done");
    fs::create_dir_all(done.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&done);
    let poller = deployed.start(Command::new(poller()).env("HANDLED_FILE", &done));
    let handled = poller.lines(9);
    let handled = handled.iter().map(|line| (line.split(' ').nth(1).unwrap(), line.split(": ").nth(1).unwrap()));
    assert_eq!(
        sorted(handled),
        [
            ("error", "Rate limit hit"),
            ("message", "1100049 characters"),
            ("message", "22 characters"),
            ("message", "25 characters"),
            ("message", "26 characters"),
            ("message", "58 characters"),
            ("message", "a picture, image/jpeg"),
            ("receipt", "Delivered"),
            ("receipt", "Read"),
        ]
    );
    deployed.wait_for(2).await;
    poller.terminate();
}

fn sorted<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    all
}

/// Returns the poller, which the tests of the workspace build into the folder above that of this test.
fn poller() -> PathBuf {
    let poller = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("whatsapp-poller");
    assert!(poller.exists(), "run `cargo test --workspace`, or `cargo build --package whatsapp-poller` before");
    poller
}

#[tokio::test]
async fn node_poller_handles_messages_and_large_bodies() {
    if !has_node() {
        return;
    }
    let deployed = Deployed::new().await;
    deployed.deliver(poller_samples()).await;
    let table = python()
        .args(["-c", "import boto3, local_queues; local_queues.create_table(boto3.client('dynamodb'), 'node-poller')"])
        .env("PYTHONPATH", root().join("examples"))
        .envs(deployed.environment())
        .status()
        .unwrap();
    assert!(table.success());
    // A copy of an item that is in work comes back after the visibility timeout, in seconds.
    let mut poller = Command::new("node");
    poller.arg(root().join("examples/node-poller/poller.js"));
    poller.envs([("HANDLED_TABLE", "node-poller"), ("VISIBILITY_TIMEOUT", "15")]);
    let poller = deployed.start(&mut poller);
    let handled: Vec<Value> = poller.lines(9).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let what = |line: &Value| {
        let what = ["type", "status", "title"].iter().find_map(|name| line.get(name)).unwrap();
        what.as_str().unwrap().to_owned()
    };
    assert_eq!(
        sorted(handled.iter().map(what)),
        ["Rate limit hit", "delivered", "image", "read", "text", "text", "text", "text", "text"]
    );
    deployed.wait_for(2).await;
    poller.terminate();
}

#[tokio::test]
async fn extended_client_reads_large_bodies() {
    let deployed = Deployed::new().await;
    let [text, large] = [load("messages-text"), large(load("messages-text"))];
    // Copies of a large body have an object each.
    deployed.deliver([large.clone(), text.clone(), large.clone()]).await;
    let reader = root().join("examples/python-extended-client/reader.py");
    let reader = deployed.start(python().arg(reader).args([deployed.queue_url(), "--until-empty"]));
    let length = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["content"]["text"]["body"].as_str().unwrap().len()
    };
    assert_eq!(sorted(reader.lines(2).iter().map(length)), [58, 1_100_049]);
    deployed.wait_for(0).await;
}

/// The script uses only docs/contract.md, so the page is sufficient to read every queue.
#[tokio::test]
async fn shell_worker_handles_every_queue() {
    let tools = ["curl", "jq"].map(|tool| Command::new(tool).arg("--version").output().is_ok());
    if tools != [true, true] {
        report_skipped("curl and jq are not both installed");
        return;
    }
    let deployed = Deployed::new().await;
    let large = large(load("messages-text"));
    let copies = [large.clone(), large.clone()];
    let mut not_text = load("not-json");
    not_text.body = b"\xff\xfe\0\0".to_vec();
    let samples: Vec<_> = samples().into_iter().filter(|sample| sample.name != "messages-without-kind").collect();
    deployed.deliver(samples.iter().cloned().chain(copies).chain([not_text])).await;
    let done = root().join(".local/consumers/done");
    fs::create_dir_all(done.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&done);

    let mut worked = Vec::new();
    for url in deployed.stack.info.queue_urls().into_values().flatten() {
        let script = root().join("examples/shell/consume.sh");
        let run = Command::new(script).arg(url).arg(&done).envs(deployed.environment()).output().unwrap();
        assert!(run.status.success(), "{url}: {}", String::from_utf8_lossy(&run.stderr));
        worked.extend(String::from_utf8(run.stdout).unwrap().lines().map(str::to_owned));
    }
    let worked: Vec<Value> = worked.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut sent: Vec<_> = samples.into_iter().chain([large]).flat_map(|sample| split_ids(&sample.body)).collect();
    sent.extend(split_ids(b"\xff\xfe\0\0"));
    let ids = |line: &Value| line["event_id"].as_str().unwrap().to_owned();
    assert_eq!(sorted(worked.iter().map(ids)), sorted(sent.into_iter()));
    let bytes: Vec<_> = worked.iter().filter_map(|line| line["bytes"].as_u64()).collect();
    assert_eq!(sorted(bytes.into_iter()), [4, 43]);
    let fields = worked.iter().filter(|line| line["field"].is_string()).count();
    assert_eq!(worked.len() - fields, 5, "two are not JSON, two are not notifications, one has no field");
    for url in deployed.stack.info.queue_urls().into_values().flatten() {
        deployed.wait_for_on(url, 0).await;
    }
}

fn split_ids(body: &[u8]) -> Vec<String> {
    split(body).iter().map(event_id).collect()
}

mod lambda {
    use super::*;

    const FOLDER: &str = "examples/python-lambda";

    /// Prints a summary of the table of handled items, and what the function logged of each item.
    const READ_RESULTS: &str = r#"
import boto3, json, sys
items = boto3.client("dynamodb").scan(TableName=sys.argv[1])["Items"]
log = boto3.client("logs").filter_log_events(logGroupName=sys.argv[2])["events"]
lines = [event["message"] for event in log if '"message":"handled"' in event["message"]]
print(json.dumps({
    "handled": sum(item["status"]["S"] == "COMPLETED" for item in items),
    "expire": all("expiration" in item for item in items),
    "items": len(items),
    "worked": sorted(json.loads(line[line.index("{"):])["what"] for line in lines),
}))
"#;

    fn deploy(deployed: &Deployed) {
        let folder = root().join(".local/consumers");
        fs::create_dir_all(&folder).unwrap();
        // Without a date of the last check, SAM CLI checks for a newer version on the network.
        fs::write(folder.join("metadata.json"), r#"{"lastVersionCheck": 4000000000}"#).unwrap();
        let version =
            python().args(["-c", "import sys; print('python%d.%d' % sys.version_info[:2])"]).output().unwrap();
        let info = &deployed.stack.info;
        let sam = python()
            .args(["-m", "samcli", "deploy", "--stack-name", "a-consumer", "--region", &info.region])
            .args([
                "--template-file",
                ".aws-sam/build/template.yaml",
                "--resolve-s3",
                "--capabilities",
                "CAPABILITY_IAM",
            ])
            .args(["--no-confirm-changeset", "--no-progressbar", "--parameter-overrides"])
            .arg(format!("QueueArn={}", info.outputs["QueueMessagesQueueArn"]))
            .arg(format!("PayloadBucket={}", info.outputs["PayloadBucket"]))
            .arg(format!("Runtime={}", String::from_utf8(version.stdout).unwrap().trim()))
            .current_dir(root().join(FOLDER))
            .envs(deployed.environment())
            .envs([("SAM_CLI_TELEMETRY", "0"), ("__SAM_CLI_APP_DIR", folder.to_str().unwrap()), ("COLUMNS", "240")])
            .output()
            .unwrap();
        let output = [sam.stdout, sam.stderr].concat();
        assert!(sam.status.success(), "{}", String::from_utf8_lossy(&output));
    }

    #[tokio::test]
    async fn handles_each_item_once_and_reports_failures() {
        let deployed = Deployed::new().await;
        deployed.deliver(poller_samples()).await;
        deploy(&deployed);
        deployed.wait_for(2).await;

        let outputs = python()
            .args(["-c", "import boto3, sys; print(boto3.client('cloudformation').describe_stacks(StackName='a-consumer')['Stacks'][0]['Outputs'][0]['OutputValue'])"])
            .envs(deployed.environment())
            .output()
            .unwrap();
        let table = String::from_utf8(outputs.stdout).unwrap().trim().to_owned();
        let look = python()
            .args(["-c", READ_RESULTS, &table, "/aws/lambda/a-consumer"])
            .envs(deployed.environment())
            .output()
            .unwrap();
        assert!(look.status.success(), "{}", String::from_utf8_lossy(&look.stderr));
        let found: Value = serde_json::from_slice(&look.stdout).unwrap();
        let worked = ["Rate limit hit", "delivered", "image", "read", "text", "text", "text", "text", "text"];
        assert_eq!(found, json!({"handled": 9, "expire": true, "items": 9, "worked": worked}));
    }
}
