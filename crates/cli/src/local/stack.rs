//! The function deployed on this computer: a child process that ends with this one.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::{
    aws::stack_info::{RunningStackFile, StackInfo, StackInfoError},
    endpoint_secrets::EndpointSecrets,
};

/// Start and deployment take about 10 s; this is far above the sum of the script's own bounds.
const READY_TIMEOUT: Duration = Duration::from_mins(5);
/// The script gives each of its own children 5 s to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const SCRIPT: &str = "infra/local_stack.py";

/// A stack that is up. It ends when this is dropped, or when this process does, however that happens.
#[derive(Debug)]
pub struct Stack {
    script: Script,
    secrets: EndpointSecrets,
    _running: RunningStackFile,
    /// What the stack says of itself.
    pub info: StackInfo,
}

/// Why there is no stack.
#[derive(Debug, Error)]
pub enum StackError {
    /// The script did not start.
    #[error("cannot run {}: {source} (`make run` installs it)", python.display())]
    NotStarted {
        /// The interpreter.
        python: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The script ended before it was ready; it has told why.
    #[error("the local stack ended before it was ready ({0})")]
    Ended(ExitStatus),
    /// The script is still busy after a long time.
    #[error("the local stack was not ready in time (at most {} s)", READY_TIMEOUT.as_secs())]
    Late,
    /// The script's line is not the one agreed upon.
    #[error("the local stack says what is not understood: {0}")]
    Garbled(serde_json::Error),
    /// Its secret cannot be used, or others cannot be told of it.
    #[error(transparent)]
    StackInfo(#[from] StackInfoError),
    /// A pipe failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// How a stack differs from the one that `make run` shows.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where the local AWS listens: loopback, or the address of a bridge that containers are at.
    pub address: IpAddr,
    /// The secrets of the function; without them, ones that nobody knows.
    pub secrets: Option<EndpointSecrets>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), secrets: None }
    }
}

impl Stack {
    /// Deploys the built template on this computer. Progress goes to standard error.
    pub async fn start(root: &Path, python: &Path) -> Result<Self, StackError> {
        Self::start_as(&Setup::default(), root, python).await
    }

    /// The same, set up in another way.
    pub async fn start_as(setup: &Setup, root: &Path, python: &Path) -> Result<Self, StackError> {
        let (mut script, output) = Script::start(setup, root, python)?;
        let line = timeout(READY_TIMEOUT, BufReader::new(output).lines().next_line())
            .await
            .map_err(|_| StackError::Late)?
            .map_err(|source| StackError::Io { doing: "read what the local stack says", source })?;
        let Some(line) = line else {
            let status = timeout(STOP_TIMEOUT, script.ended()).await.map_err(|_| StackError::Late)??;
            return Err(StackError::Ended(status));
        };
        let info: StackInfo = serde_json::from_str(&line).map_err(StackError::Garbled)?;
        let secrets = info.secrets()?;
        let running = info.publish(root)?;
        Ok(Self { script, secrets, _running: running, info })
    }

    /// The secrets that its function shares with Meta.
    #[must_use]
    pub fn secrets(&self) -> EndpointSecrets {
        self.secrets.clone()
    }

    /// Waits until the stack ends by itself, which it does only when something is wrong.
    pub async fn ended(&mut self) -> Result<ExitStatus, StackError> {
        self.script.ended().await
    }
}

/// The child process, which ends with its input.
#[derive(Debug)]
struct Script {
    child: Child,
    /// Apart from the child, whose `wait` would close it.
    input: Option<ChildStdin>,
}

impl Script {
    fn start(setup: &Setup, root: &Path, python: &Path) -> Result<(Self, ChildStdout), StackError> {
        // In the environment: arguments can be read by every process of this computer.
        let secrets = setup.secrets.iter();
        let secrets =
            secrets.flat_map(|secrets| [("APP_SECRET", &secrets.app_secret), ("VERIFY_TOKEN", &secrets.verify_token)]);
        let mut child = Command::new(python)
            .arg(SCRIPT)
            .args(["--address", &setup.address.to_string()])
            .env_remove("APP_SECRET")
            .env_remove("VERIFY_TOKEN")
            .envs(secrets)
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal goes to the whole group, and the script is to end when told, not before.
            .process_group(0)
            .spawn()
            .map_err(|source| StackError::NotStarted { python: python.to_owned(), source })?;
        let output = child.stdout.take().expect("standard output is piped");
        Ok((Self { input: child.stdin.take(), child }, output))
    }

    async fn ended(&mut self) -> Result<ExitStatus, StackError> {
        self.child.wait().await.map_err(|source| StackError::Io { doing: "wait for the local stack", source })
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.input.take());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // Its own children end with their input, which it holds.
                let _ = self.child.start_kill();
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
