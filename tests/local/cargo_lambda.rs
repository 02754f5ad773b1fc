//! `cargo lambda watch` and `invoke` with the samples, and `cargo lambda deploy` to a running stack.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use ingress_tools::{
    local::stack::{Stack, StackOptions},
    meta::{
        deliver::{Endpoint, Response},
        outcome::Outcome,
        samples::{self, Sample},
    },
    queues::stack_queues::StackQueues,
};
use serde_json::{Value, json};

use crate::{TURN, root, tool};

const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Starts a stack that accepts the signatures of the samples.
async fn stack() -> Stack {
    let options = StackOptions { secrets: Some(samples::secrets()), ..StackOptions::default() };
    Stack::start_with(&options, root(), &tool("python")).await.unwrap()
}

/// Returns a command of cargo-lambda with the credentials and the endpoint of the stack.
fn cargo_lambda(stack: &Stack, verb: &str) -> Command {
    let mut command = Command::new(tool("cargo-lambda"));
    command.current_dir(root()).stdin(Stdio::null()).args(["lambda", verb]);
    command.env("AWS_ENDPOINT_URL", &stack.info.aws_endpoint).env("AWS_REGION", &stack.info.region);
    command.env("AWS_ACCESS_KEY_ID", &stack.info.access_key_id);
    command.env("AWS_SECRET_ACCESS_KEY", &stack.info.secret_access_key);
    command.env_remove("AWS_PROFILE").env_remove("AWS_SESSION_TOKEN");
    command
}

/// Runs a command, which must succeed.
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A running `cargo lambda watch`, which ends when this is dropped.
struct Watch {
    process: Child,
    address: SocketAddr,
}

impl Watch {
    fn start(stack: &Stack) -> Self {
        // Otherwise it builds at the first request, which would time out.
        run(Command::new(env!("CARGO")).current_dir(root()).args(["build", "--package", "whatsapp-ingress"]));
        let address = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let log = fs::File::create(root().join(".local/watch.log")).unwrap();
        let mut command = cargo_lambda(stack, "watch");
        command.args(["--package", "whatsapp-ingress", "--ignore-changes", "--invoke-address", "127.0.0.1"]);
        command.args(["--invoke-port", &address.port().to_string()]);
        command.env("SECRET_ID", &stack.info.outputs["SecretArn"]);
        command.env("PAYLOAD_BUCKET", &stack.info.outputs["PayloadBucket"]);
        command.env("QUEUE_URLS", json!(stack.info.queue_urls()).to_string());
        // In its own process group, because its child processes do not end with it.
        command.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let watch = Self { process: command.spawn().unwrap(), address };
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "cargo lambda watch does not listen");
            thread::sleep(Duration::from_millis(50));
        }
        watch
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn watch_handles_every_sample_by_http_and_invoke() {
    let _turn = TURN.lock().await;
    let stack = stack().await;
    let mut queues = StackQueues::of(&stack.info);
    let watch = Watch::start(&stack);
    let endpoint = Endpoint::new(&format!("http://{}/webhook", watch.address)).unwrap();
    let port = watch.address.port().to_string();
    for sample in Sample::load_all(&root().join("events")).unwrap() {
        let response = endpoint.deliver(&sample, &stack.secrets()).await.unwrap();
        let outcome = Outcome::of(&sample, &response.untimed(), response.elapsed, &mut queues).await.unwrap();
        assert_eq!(outcome.problems, Vec::<String>::new(), "{} over HTTP", sample.name);

        let mut invoke = cargo_lambda(&stack, "invoke");
        invoke.args(["whatsapp-ingress", "--invoke-address", "127.0.0.1", "--invoke-port", &port]);
        let output = run(invoke.arg("--data-file").arg(&sample.path));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let status = u16::try_from(answer["statusCode"].as_u64().unwrap()).unwrap();
        let answer = Response { status, body: answer["body"].as_str().unwrap().into() };
        let outcome = Outcome::of(&sample, &answer, Duration::ZERO, &mut queues).await.unwrap();
        assert_eq!(outcome.problems, Vec::<String>::new(), "{} by invoke", sample.name);
    }
}

#[tokio::test]
async fn deploy_replaces_only_the_code_of_the_function() {
    let _turn = TURN.lock().await;
    let stack = stack().await;
    let mut queues = StackQueues::of(&stack.info);
    let sample = Sample::load(&root().join("events/messages-text.json")).unwrap();
    let endpoint = Endpoint::new(&stack.info.callback_url).unwrap();
    break_code(&stack);
    assert!(endpoint.deliver(&sample, &stack.secrets()).await.unwrap().status >= 500);
    let before = configuration(&stack);

    let mut deploy = cargo_lambda(&stack, "deploy");
    deploy.args(["--endpoint-url", &stack.info.aws_endpoint, "--binary-name", "whatsapp-ingress", "--alias", "live"]);
    run(deploy.arg(&stack.info.outputs["FunctionName"]));

    let after = configuration(&stack);
    assert_ne!(before["CodeSha256"], after["CodeSha256"]);
    for kept in ["Environment", "Role", "LoggingConfig", "MemorySize", "Timeout", "Runtime", "Handler", "Architectures"]
    {
        assert!(!before[kept].is_null(), "{kept}");
        assert_eq!(before[kept], after[kept], "{kept}");
    }
    let response = endpoint.deliver(&sample, &stack.secrets()).await.unwrap();
    let outcome = Outcome::of(&sample, &response.untimed(), response.elapsed, &mut queues).await.unwrap();
    assert_eq!(outcome.problems, Vec::<String>::new());
}

/// Replaces the function's code by a program that exits at once.
fn break_code(stack: &Stack) {
    let script = "
import io, sys, zipfile
packed = io.BytesIO()
with zipfile.ZipFile(packed, 'w') as archive:
    entry = zipfile.ZipInfo('bootstrap')
    entry.external_attr = 0o755 << 16
    archive.writestr(entry, '#!/bin/sh\\nexit 1\\n')
broken = functions.update_function_code(FunctionName=sys.argv[1], ZipFile=packed.getvalue(), Publish=True)
functions.update_alias(FunctionName=sys.argv[1], Name='live', FunctionVersion=broken['Version'])
";
    python(stack, script);
}

fn configuration(stack: &Stack) -> Value {
    let script = "import json, sys\nprint(json.dumps(functions.get_function_configuration(FunctionName=sys.argv[1]), default=str))";
    serde_json::from_slice(&python(stack, script).stdout).unwrap()
}

/// Runs a script with a client of Lambda, and the function's name as argument.
fn python(stack: &Stack, script: &str) -> Output {
    let script = format!("import boto3\nfunctions = boto3.client('lambda')\n{script}");
    let mut command = Command::new(tool("python"));
    command.args(["-c", &script, &stack.info.outputs["FunctionName"]]);
    command.env("AWS_ENDPOINT_URL", &stack.info.aws_endpoint).env("AWS_DEFAULT_REGION", &stack.info.region);
    command.env("AWS_ACCESS_KEY_ID", &stack.info.access_key_id);
    command.env("AWS_SECRET_ACCESS_KEY", &stack.info.secret_access_key);
    run(command.env_remove("AWS_PROFILE").env_remove("AWS_SESSION_TOKEN"))
}
