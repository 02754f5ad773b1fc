//! The function in Docker, as `sam local` runs it, on queues and a secret of the local AWS.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::json;
use thiserror::Error;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    local::{
        docker::{self, DockerError, HOST_GATEWAY, HOST_NAME, Image},
        stack::{Setup, Stack, StackError},
    },
    meta::{
        deliver::{DeliverError, Endpoint, Response},
        outcome::Outcome,
        samples::{self, Sample},
    },
    queues::{error::QueueError, stack_queues::StackQueues},
    report,
};

/// The function's name in the template.
const FUNCTION: &str = "Ingress";
/// What is written for SAM CLI.
const FOLDER: &str = ".local/sam-local";
/// It may have to build its image first.
const INVOKE_TIMEOUT: Duration = Duration::from_mins(5);
const API_TIMEOUT: Duration = Duration::from_mins(5);
/// It removes its containers before it ends.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// All that `sam local` needs to run the function.
#[derive(Debug)]
pub struct SamLocal {
    stack: Stack,
    queues: StackQueues,
    image: Image,
    root: PathBuf,
    python: PathBuf,
    variables: PathBuf,
    endpoint: String,
}

/// What came of one `sam local invoke`.
#[derive(Debug)]
pub struct Invoked {
    /// The answer, and what landed.
    pub outcome: Outcome,
    /// The function's log, among what the emulator says.
    pub log: String,
}

/// A `sam local start-api` that is up, until this is dropped.
#[derive(Debug)]
pub struct Api {
    /// Where it is.
    pub endpoint: Endpoint,
    process: Child,
}

/// Why `sam local` did not work.
#[derive(Debug, Error)]
pub enum SamError {
    /// No containers.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// No local AWS.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The queues cannot be looked at.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The API has no URL.
    #[error(transparent)]
    Endpoint(#[from] DeliverError),
    /// A process or a file failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The function or SAM CLI ended without an answer.
    #[error("{event} was not answered:\n{log}")]
    NoAnswer {
        /// The sample's name.
        event: String,
        /// All that SAM CLI, the emulator and the function said.
        log: String,
    },
    /// It still was not done after a long time.
    #[error("{0} took too long")]
    Late(&'static str),
    /// The API ended before it was ready.
    #[error("`sam local start-api` ended before it was ready; see {}", .0.display())]
    Ended(PathBuf),
}

impl SamLocal {
    /// Sees to an image, and deploys the built template to a local AWS that containers reach.
    pub async fn start(root: &Path, python: &Path) -> Result<Self, SamError> {
        let python = fs::canonicalize(python.parent().unwrap_or(root)).map_or(python.to_owned(), |folder| {
            // Not the interpreter that it links to, which would not know of its environment.
            folder.join(python.file_name().unwrap_or_default())
        });
        let image = docker::image(root, &python).await?;
        let setup = Setup { address: docker::address().await?, secrets: Some(samples::secrets()) };
        let stack = Stack::start_as(&setup, root, &python).await?;
        let here = setup.address.to_string();
        let seen = |url: &str| url.replacen(&here, HOST_NAME, 1);
        let info = &stack.info;
        let routes: BTreeMap<_, _> = info.queue_urls.iter().map(|(route, url)| (route, seen(url))).collect();
        let variables = json!({ FUNCTION: {
            "SECRET_ID": info.outputs.get("SecretArn"),
            "QUEUE_URLS": json!(routes).to_string(),
            "PAYLOAD_BUCKET": info.outputs.get("PayloadBucket"),
        }});
        let folder = root.join(FOLDER);
        let file = folder.join("variables.json");
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&file, variables.to_string()))
            .map_err(|source| SamError::Io { doing: "write the function's variables", source })?;
        Ok(Self {
            queues: StackQueues::of(info),
            endpoint: seen(&info.aws_endpoint),
            stack,
            image,
            root: root.to_owned(),
            python,
            variables: file,
        })
    }

    /// The image that the function runs in.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Runs the function on each of the samples, in a new container each time, and prints a table.
    pub async fn invoke_all(&mut self, samples: &[Sample]) -> Result<Vec<Invoked>, SamError> {
        report::image(&self.image.image, self.image.stand_in_because.as_deref());
        let table = report::Deliveries::start(samples.iter().map(|sample| sample.name.as_str()));
        let mut all = Vec::new();
        for sample in samples {
            let invoked = self.invoke(sample).await?;
            table.line(&invoked.outcome);
            if samples.len() == 1 || !invoked.outcome.is_as_expected() {
                report::log_tail(&invoked.log);
            }
            all.push(invoked);
        }
        report::summary(all.iter().map(|invoked| &invoked.outcome));
        Ok(all)
    }

    /// Runs the function on a sample as it is in its file.
    pub async fn invoke(&mut self, sample: &Sample) -> Result<Invoked, SamError> {
        let event =
            fs::canonicalize(&sample.path).map_err(|source| SamError::Io { doing: "find the sample", source })?;
        let mut command = self.sam("invoke");
        command.arg("--event").arg(event);
        let started = Instant::now();
        let output = timeout(INVOKE_TIMEOUT, command.output())
            .await
            .map_err(|_| SamError::Late("`sam local invoke`"))?
            .map_err(|source| SamError::Io { doing: "run `sam local invoke`", source })?;
        let elapsed = started.elapsed();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let Some(answer) = answer(&output.stdout) else {
            return Err(SamError::NoAnswer { event: sample.name.clone(), log });
        };
        let elapsed = reported(&log).unwrap_or(elapsed);
        let outcome = Outcome::of(sample, &answer, elapsed, &mut self.queues).await?;
        Ok(Invoked { outcome, log })
    }

    /// Takes what has landed since the last time, and compares it with what a sample delivered to an [`Api`] should
    /// have brought about.
    pub async fn outcome(&mut self, sample: &Sample, api: &Api) -> Result<Outcome, SamError> {
        let response = api.endpoint.deliver(sample, &self.stack.secrets()).await?;
        Ok(Outcome::of(sample, &response.untimed(), response.elapsed, &mut self.queues).await?)
    }

    /// Serves the function over HTTP, on a free port of this computer.
    pub async fn start_api(&self) -> Result<Api, SamError> {
        let io = |doing| move |source| SamError::Io { doing, source };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|probe| probe.local_addr());
        let address = free.map_err(io("find a free port"))?;
        let path = self.root.join(FOLDER).join("start-api.log");
        let log = fs::File::create(&path).map_err(io("write the log of `sam local start-api`"))?;
        let mut command = self.sam("start-api");
        command.args(["--host", "127.0.0.1", "--port", &address.port().to_string(), "--warm-containers", "EAGER"]);
        command.stdout(Stdio::null()).stderr(log);
        let process = command.spawn().map_err(io("run `sam local start-api`"))?;
        let mut api = Api { endpoint: Endpoint::new(&format!("http://{address}/webhook"))?, process };
        let deadline = Instant::now() + API_TIMEOUT;
        while TcpStream::connect(address).await.is_err() {
            if api.process.try_wait().map_err(io("watch `sam local start-api`"))?.is_some() {
                return Err(SamError::Ended(path));
            }
            if Instant::now() > deadline {
                return Err(SamError::Late("`sam local start-api`"));
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(api)
    }

    fn sam(&self, verb: &str) -> Command {
        let info = &self.stack.info;
        let mut command = Command::new(&self.python);
        command.current_dir(&self.root).stdin(Stdio::null()).kill_on_drop(true);
        command.args(["-m", "samcli", "local", verb]);
        if verb == "invoke" {
            command.arg(FUNCTION);
        }
        command.arg("--env-vars").arg(&self.variables);
        // SAM CLI passes on no variable that the template does not name.
        command.args(["--parameter-overrides", &format!("AwsEndpointUrl={}", self.endpoint)]);
        command.args(["--add-host", &format!("{HOST_NAME}:{HOST_GATEWAY}")]);
        if self.image.stand_in_because.is_some() {
            command.arg("--skip-pull-image");
        }
        // With these, SAM CLI asks the local AWS, not the real one, for the account that it runs as.
        command.env("AWS_ENDPOINT_URL", &info.aws_endpoint).env("AWS_DEFAULT_REGION", &info.region);
        command.env("AWS_ACCESS_KEY_ID", &info.access_key_id).env("AWS_SECRET_ACCESS_KEY", &info.secret_access_key);
        // Of the shell's, it would pass these on to the function.
        for name in ["SECRET_ID", "QUEUE_URLS", "PAYLOAD_BUCKET", "AWS_PROFILE", "AWS_SESSION_TOKEN"] {
            command.env_remove(name);
        }
        command.env("SAM_CLI_TELEMETRY", "0");
        command
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let Some(id) = self.process.id() else { return };
        // Killed outright, it would leave its containers behind.
        let asked = std::process::Command::new("kill").args(["-INT", &id.to_string()]).status();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while asked.is_ok() && Instant::now() < deadline && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The answer as API Gateway would get it.
fn answer(output: &[u8]) -> Option<Response> {
    let answered: Answered = serde_json::from_slice(output).ok()?;
    let body = if answered.is_base64_encoded {
        BASE64_STANDARD.decode(answered.body).ok()?
    } else {
        answered.body.into_bytes()
    };
    Some(Response { status: answered.status_code, body })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    status_code: u16,
    #[serde(default)]
    body: String,
    #[serde(default)]
    is_base64_encoded: bool,
}

/// How long the function took, by the emulator's report.
fn reported(log: &str) -> Option<Duration> {
    let (_, from) = log.split_once("\tDuration: ")?;
    let milliseconds: f64 = from.split_once(" ms")?.0.parse().ok()?;
    Duration::try_from_secs_f64(milliseconds / 1000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_api_gateway_reads_it() {
        let read = |output: &str| answer(output.as_bytes()).map(|answer| (answer.status, answer.body));
        assert_eq!(
            read(r#"{"statusCode":200,"headers":{},"body":"123","isBase64Encoded":false}"#),
            Some((200, b"123".to_vec()))
        );
        assert_eq!(read(r#"{"statusCode":200,"body":"MTIz","isBase64Encoded":true}"#), Some((200, b"123".to_vec())));
        assert_eq!(read(r#"{"statusCode":401}"#), Some((401, Vec::new())));
        assert_eq!(read(r#"{"errorType":"Runtime.ExitError"}"#), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn the_time_is_that_of_the_report() {
        let log = "REPORT RequestId: 1\tInit Duration: 0.05 ms\tDuration: 13.52 ms\tBilled Duration: 14 ms\t";
        assert_eq!(reported(log), Some(Duration::from_micros(13_520)));
        assert_eq!(reported("END"), None);
    }
}
