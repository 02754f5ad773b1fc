//! The function deployed on this computer, in a child process that ends with this one.

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

/// Start and deployment take about 10 s. The timeout is longer than the sum of the script's own timeouts.
const READY_TIMEOUT: Duration = Duration::from_mins(5);
/// The script waits 5 s for the exit of each of its child processes.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const SCRIPT: &str = "infra/local_stack.py";
const FOLDER: &str = ".local/stack";

/// A running stack. It ends when this is dropped, or when this process ends in any way.
#[derive(Debug)]
pub struct Stack {
    script: Script,
    secrets: EndpointSecrets,
    _file: RunningStackFile,
    /// The description of the stack.
    pub info: StackInfo,
}

/// A stack that did not start, or whose script failed.
#[derive(Debug, Error)]
pub enum StackError {
    /// The script did not start.
    #[error("cannot run {}: {source} (`make run` installs it)", python.display())]
    NotStarted {
        /// The interpreter.
        python: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The script exited before the stack was ready. It printed the reason.
    #[error("the local stack exited before it was ready ({0})")]
    Exited(ExitStatus),
    /// The stack was not ready in time.
    #[error("the local stack was not ready within {} s", READY_TIMEOUT.as_secs())]
    Timeout,
    /// The line that the script printed is not a description.
    #[error("cannot parse the description of the local stack: {0}")]
    InvalidDescription(serde_json::Error),
    /// The secret of the stack cannot be used, or its description cannot be written.
    #[error(transparent)]
    StackInfo(#[from] StackInfoError),
    /// A pipe failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

/// The options of a stack. The default is the stack of `make run`.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// The address on which the local AWS listens: loopback, or that of the bridge to containers.
    pub address: IpAddr,
    /// The secrets of the function. If `None`, the script generates random ones.
    pub secrets: Option<EndpointSecrets>,
    /// The template's `ArchiveDays`. With 0, the function has no archive.
    pub archive_days: u16,
}

impl Default for StackOptions {
    fn default() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), secrets: None, archive_days: 0 }
    }
}

impl Stack {
    /// Deploys the built template on this computer. Progress goes to standard error.
    pub async fn start(root: &Path, python: &Path) -> Result<Self, StackError> {
        Self::start_with(&StackOptions::default(), root, python).await
    }

    /// Deploys the built template on this computer with these options. Progress goes to standard error.
    pub async fn start_with(options: &StackOptions, root: &Path, python: &Path) -> Result<Self, StackError> {
        let (mut script, output) = Script::start(options, root, python)?;
        let line = timeout(READY_TIMEOUT, BufReader::new(output).lines().next_line())
            .await
            .map_err(|_| StackError::Timeout)?
            .map_err(|source| StackError::Io { action: "read the description of the local stack", source })?;
        let Some(line) = line else {
            let status = timeout(STOP_TIMEOUT, script.wait_for_exit()).await.map_err(|_| StackError::Timeout)??;
            return Err(StackError::Exited(status));
        };
        let info: StackInfo = serde_json::from_str(&line).map_err(StackError::InvalidDescription)?;
        let secrets = info.secrets()?;
        let file = info.publish(root)?;
        Ok(Self { script, secrets, _file: file, info })
    }

    /// Returns the secrets that the function shares with Meta.
    #[must_use]
    pub fn secrets(&self) -> EndpointSecrets {
        self.secrets.clone()
    }

    /// Waits until the stack exits, which it does only after an error.
    pub async fn wait_for_exit(&mut self) -> Result<ExitStatus, StackError> {
        self.script.wait_for_exit().await
    }
}

/// The child process, which exits at the end of its standard input.
#[derive(Debug)]
struct Script {
    child: Child,
    /// Separate from `child`, because `Child::wait` would close it.
    input: Option<ChildStdin>,
}

impl Script {
    fn start(options: &StackOptions, root: &Path, python: &Path) -> Result<(Self, ChildStdout), StackError> {
        // Passed in the environment, because every process of this computer can read arguments.
        let secrets = options.secrets.iter();
        let secrets =
            secrets.flat_map(|secrets| [("APP_SECRET", &secrets.app_secret), ("VERIFY_TOKEN", &secrets.verify_token)]);
        let mut child = Command::new(python)
            .arg(SCRIPT)
            .args(["--address", &options.address.to_string()])
            .args(["--archive-days", &options.archive_days.to_string()])
            .args(["--dir", FOLDER])
            .env_remove("APP_SECRET")
            .env_remove("VERIFY_TOKEN")
            .envs(secrets)
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal goes to the whole process group. The script exits at the end of its input instead.
            .process_group(0)
            .spawn()
            .map_err(|source| StackError::NotStarted { python: python.to_owned(), source })?;
        let output = child.stdout.take().expect("standard output is piped");
        Ok((Self { input: child.stdin.take(), child }, output))
    }

    async fn wait_for_exit(&mut self) -> Result<ExitStatus, StackError> {
        self.child.wait().await.map_err(|source| StackError::Io { action: "wait for the local stack", source })
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.input.take());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // Its child processes end too, because the script holds their standard input.
                let _ = self.child.start_kill();
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
