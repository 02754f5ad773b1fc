//! Runs the function in Docker with `sam local`, on queues and a secret of the local AWS.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    local::{
        docker::{self, DockerError, HOST_GATEWAY, HOST_NAME, Image},
        stack::{Stack, StackError, StackOptions},
    },
    meta::{
        deliver::{DeliverError, Endpoint, Response},
        outcome::Outcome,
        samples::{self, Sample},
    },
    queues::{error::QueueError, stack_queues::StackQueues},
    report,
};

/// The logical id of the function in the template.
const FUNCTION: &str = "Ingress";
/// The folder of the files for SAM CLI.
const FOLDER: &str = ".local/sam-local";
/// Long, because SAM CLI may have to build its image first.
const INVOKE_TIMEOUT: Duration = Duration::from_mins(5);
const API_TIMEOUT: Duration = Duration::from_mins(5);
/// SAM CLI removes its containers before it exits.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// The environment in which `sam local` runs the function.
#[derive(Debug)]
pub struct SamLocal {
    stack: Stack,
    queues: StackQueues,
    image: Image,
    root: PathBuf,
    python: PathBuf,
    variables_file: PathBuf,
    /// The endpoint of the local AWS, as containers reach it.
    container_endpoint: String,
}

/// The result of one `sam local invoke`.
#[derive(Debug)]
pub struct Invocation {
    /// The response and the stored messages.
    pub outcome: Outcome,
    /// The log of the function, mixed with that of the emulator.
    pub log: String,
}

/// A running `sam local start-api`, which ends when this is dropped.
#[derive(Debug)]
pub struct LocalApi {
    /// The endpoint of the API.
    pub endpoint: Endpoint,
    process: SamProcess,
}

/// A run of `sam local` that failed.
#[derive(Debug, Error)]
pub enum SamError {
    /// Containers cannot be started.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// The local AWS did not start.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// A call to SQS failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The URL of the API is not valid, or a delivery to it failed.
    #[error(transparent)]
    Endpoint(#[from] DeliverError),
    /// A process or a file failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The function or SAM CLI exited without a response.
    #[error("no response to {sample}:\n{log}")]
    NoResponse {
        /// The sample's name.
        sample: String,
        /// The log of SAM CLI, the emulator and the function.
        log: String,
    },
    /// A command of SAM CLI did not finish in time.
    #[error("{0} did not finish in time")]
    Timeout(&'static str),
    /// The API exited before it was ready.
    #[error("`sam local start-api` exited before it was ready: see {}", .0.display())]
    Exited(PathBuf),
}

impl SamLocal {
    /// Prepares the image, and deploys the built template to a local AWS that containers can reach.
    pub async fn start(root: &Path, python: &Path) -> Result<Self, SamError> {
        let python = fs::canonicalize(python.parent().unwrap_or(root)).map_or(python.to_owned(), |folder| {
            // Resolves only the folder. The target of the interpreter's link would not use the virtual environment.
            folder.join(python.file_name().unwrap_or_default())
        });
        let image = docker::prepare_image(root, &python).await?;
        let options = StackOptions {
            address: docker::host_address().await?,
            secrets: Some(samples::secrets()),
            ..StackOptions::default()
        };
        let stack = Stack::start_with(&options, root, &python).await?;
        let address = options.address.to_string();
        let container_url = |url: &str| url.replacen(&address, HOST_NAME, 1);
        let info = &stack.info;
        let urls = info.queue_urls().into_iter();
        let routes: BTreeMap<_, Vec<_>> =
            urls.map(|(route, urls)| (route, urls.into_iter().map(container_url).collect())).collect();
        let variables = json!({ FUNCTION: {
            "SECRET_ID": info.outputs.get("SecretArn"),
            "QUEUE_URLS": json!(routes).to_string(),
            "PAYLOAD_BUCKET": info.outputs.get("PayloadBucket"),
        }});
        let folder = root.join(FOLDER);
        let variables_file = folder.join("variables.json");
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&variables_file, variables.to_string()))
            .map_err(|source| SamError::Io { action: "write the function's variables", source })?;
        Ok(Self {
            queues: StackQueues::of(info),
            container_endpoint: container_url(&info.aws_endpoint),
            stack,
            image,
            root: root.to_owned(),
            python,
            variables_file,
        })
    }

    /// The image that the function runs in.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Runs the function on each sample in a new container, and prints a table of the results.
    pub async fn invoke_all(&mut self, samples: &[Sample]) -> Result<Vec<Invocation>, SamError> {
        report::image(&self.image.image, self.image.stand_in_reason.as_deref());
        let table = report::DeliveryTable::start(samples.iter().map(|sample| sample.name.as_str()));
        let mut invocations = Vec::new();
        for sample in samples {
            let invocation = self.invoke(sample).await?;
            table.print_row(&invocation.outcome);
            if samples.len() == 1 || !invocation.outcome.is_as_expected() {
                report::log_tail(&invocation.log);
            }
            invocations.push(invocation);
        }
        report::summary(invocations.iter().map(|invocation| &invocation.outcome));
        Ok(invocations)
    }

    /// Runs the function on the event in the file of a sample.
    pub async fn invoke(&mut self, sample: &Sample) -> Result<Invocation, SamError> {
        let event =
            fs::canonicalize(&sample.path).map_err(|source| SamError::Io { action: "find the sample", source })?;
        let mut command = self.sam_command("invoke");
        command.arg("--event").arg(event);
        let started = Instant::now();
        let output = timeout(INVOKE_TIMEOUT, SamProcess::run(command))
            .await
            .map_err(|_| SamError::Timeout("`sam local invoke`"))?
            .map_err(|source| SamError::Io { action: "run `sam local invoke`", source })?;
        let elapsed = started.elapsed();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let Some(response) = parse_response(&output.stdout) else {
            return Err(SamError::NoResponse { sample: sample.name.clone(), log });
        };
        let elapsed = reported_duration(&log).unwrap_or(elapsed);
        let outcome = Outcome::of(sample, &response, elapsed, &mut self.queues).await?;
        Ok(Invocation { outcome, log })
    }

    /// Delivers a sample to an API, and compares the response and the stored messages with the expected ones.
    pub async fn deliver(&mut self, sample: &Sample, api: &LocalApi) -> Result<Outcome, SamError> {
        let response = api.endpoint.deliver(sample, &self.stack.secrets()).await?;
        Ok(Outcome::of(sample, &response.untimed(), response.elapsed, &mut self.queues).await?)
    }

    /// Serves the function over HTTP, on a free port of this computer.
    pub async fn start_api(&self) -> Result<LocalApi, SamError> {
        let io = |action| move |source| SamError::Io { action, source };
        let free_address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|probe| probe.local_addr());
        let address = free_address.map_err(io("find a free port"))?;
        let path = self.root.join(FOLDER).join("start-api.log");
        let log = fs::File::create(&path).map_err(io("write the log of `sam local start-api`"))?;
        let mut command = self.sam_command("start-api");
        command.args(["--host", "127.0.0.1", "--port", &address.port().to_string(), "--warm-containers", "EAGER"]);
        command.stdout(Stdio::null()).stderr(log);
        let process = SamProcess::spawn(command).map_err(io("run `sam local start-api`"))?;
        let mut api = LocalApi { endpoint: Endpoint::new(&format!("http://{address}/webhook"))?, process };
        let deadline = Instant::now() + API_TIMEOUT;
        while TcpStream::connect(address).await.is_err() {
            if api.process.0.try_wait().map_err(io("watch `sam local start-api`"))?.is_some() {
                return Err(SamError::Exited(path));
            }
            if Instant::now() > deadline {
                return Err(SamError::Timeout("`sam local start-api`"));
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(api)
    }

    fn sam_command(&self, verb: &str) -> Command {
        let info = &self.stack.info;
        let mut command = Command::new(&self.python);
        command.current_dir(&self.root).stdin(Stdio::null());
        command.args(["-m", "samcli", "local", verb]);
        if verb == "invoke" {
            command.arg(FUNCTION);
        }
        command.arg("--env-vars").arg(&self.variables_file);
        // SAM CLI passes only the variables of the template to the function.
        command.args(["--parameter-overrides", &format!("AwsEndpointUrl={}", self.container_endpoint)]);
        command.args(["--add-host", &format!("{HOST_NAME}:{HOST_GATEWAY}")]);
        if self.image.stand_in_reason.is_some() {
            command.arg("--skip-pull-image");
        }
        // With these, SAM CLI reads the account id from the local AWS.
        command.env("AWS_ENDPOINT_URL", &info.aws_endpoint).env("AWS_DEFAULT_REGION", &info.region);
        command.env("AWS_ACCESS_KEY_ID", &info.access_key_id).env("AWS_SECRET_ACCESS_KEY", &info.secret_access_key);
        // SAM CLI would pass these variables of the shell to the function.
        for name in ["SECRET_ID", "QUEUE_URLS", "PAYLOAD_BUCKET", "AWS_PROFILE", "AWS_SESSION_TOKEN"] {
            command.env_remove(name);
        }
        command.env("SAM_CLI_TELEMETRY", "0");
        command
    }
}

/// A process of SAM CLI. If it still runs when this is dropped, it is interrupted, so that it removes its containers.
#[derive(Debug)]
struct SamProcess(Child);

impl SamProcess {
    fn spawn(mut command: Command) -> io::Result<Self> {
        // Ctrl-C in a terminal goes to the whole process group. A second interrupt would end the removal of the containers.
        // `kill_on_drop` is the last resort, if the process still runs after the `Drop` below.
        command.process_group(0).kill_on_drop(true).spawn().map(Self)
    }

    /// Runs a command to its end.
    async fn run(mut command: Command) -> io::Result<Output> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Self::spawn(command)?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let pipes = process.0.stdout.take().zip(process.0.stderr.take());
        let (mut stdout_pipe, mut stderr_pipe) = pipes.expect("both are piped");
        tokio::try_join!(stdout_pipe.read_to_end(&mut stdout), stderr_pipe.read_to_end(&mut stderr))?;
        Ok(Output { status: process.0.wait().await?, stdout, stderr })
    }
}

impl Drop for SamProcess {
    fn drop(&mut self) {
        // After the process ended, it has no id.
        let Some(id) = self.0.id() else { return };
        // SIGKILL would leave the containers behind.
        let signal = std::process::Command::new("kill").args(["-INT", &id.to_string()]).status();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while signal.is_ok() && Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Parses the function's output as API Gateway does.
fn parse_response(output: &[u8]) -> Option<Response> {
    let proxy: ProxyResponse = serde_json::from_slice(output).ok()?;
    let body = if proxy.is_base64_encoded { BASE64_STANDARD.decode(proxy.body).ok()? } else { proxy.body.into_bytes() };
    Some(Response { status: proxy.status_code, body })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProxyResponse {
    status_code: u16,
    #[serde(default)]
    body: String,
    #[serde(default)]
    is_base64_encoded: bool,
}

/// Returns the duration that the emulator reports.
fn reported_duration(log: &str) -> Option<Duration> {
    let (_, from) = log.split_once("\tDuration: ")?;
    let milliseconds: f64 = from.split_once(" ms")?.0.parse().ok()?;
    Duration::try_from_secs_f64(milliseconds / 1000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell that needs some time to end after an interrupt, as SAM CLI does to remove its containers.
    fn shell(folder: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command.current_dir(folder).arg("-c");
        command.arg("trap 'sleep 0.3; echo > removed; exit' INT; echo > started; while :; do sleep 0.05; done");
        command
    }

    #[tokio::test]
    async fn abandoned_invocation_removes_its_container() {
        let folder = tempfile::tempdir().unwrap();
        let run = SamProcess::run(shell(folder.path()));
        let started = async {
            while !folder.path().join("started").exists() {
                sleep(Duration::from_millis(10)).await;
            }
        };

        tokio::select! {
            output = run => panic!("{output:?}"),
            () = started => (),
        }

        assert!(folder.path().join("removed").exists());
    }

    #[tokio::test]
    async fn output_of_an_invocation_is_read() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo response; echo log >&2; exit 3"]);

        let Output { status, stdout, stderr } = SamProcess::run(command).await.unwrap();

        assert_eq!((status.code(), stdout.as_slice(), stderr.as_slice()), (Some(3), &b"response\n"[..], &b"log\n"[..]));
    }

    #[test]
    fn response_is_parsed_as_api_gateway_does() {
        let parse = |output: &str| parse_response(output.as_bytes()).map(|response| (response.status, response.body));
        assert_eq!(
            parse(r#"{"statusCode":200,"headers":{},"body":"123","isBase64Encoded":false}"#),
            Some((200, b"123".to_vec()))
        );
        assert_eq!(parse(r#"{"statusCode":200,"body":"MTIz","isBase64Encoded":true}"#), Some((200, b"123".to_vec())));
        assert_eq!(parse(r#"{"statusCode":401}"#), Some((401, Vec::new())));
        assert_eq!(parse(r#"{"errorType":"Runtime.ExitError"}"#), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn duration_is_that_of_the_report() {
        let log = "REPORT RequestId: 1\tInit Duration: 0.05 ms\tDuration: 13.52 ms\tBilled Duration: 14 ms\t";
        assert_eq!(reported_duration(log), Some(Duration::from_micros(13_520)));
        assert_eq!(reported_duration("END"), None);
    }
}
