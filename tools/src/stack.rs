//! The function deployed on this computer: a child process that ends with this one.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::deliver::Keys;

/// Start and deployment take about 10 s; this is far above the sum of the script's own bounds.
const READY_TIMEOUT: Duration = Duration::from_mins(5);
/// The script gives each of its own children 5 s to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const SCRIPT: &str = "tools/local_stack.py";
/// Where a stack that is up tells its address, so that a sample can be delivered from another terminal.
const RUNNING: &str = ".local/running.json";

/// A stack that is up. It ends when this is dropped, or when this process does, however that happens.
#[derive(Debug)]
pub struct Stack {
    script: Script,
    running: PathBuf,
    /// What the stack says of itself.
    pub facts: Facts,
}

/// The line of JSON with which the script says that the stack is up.
#[derive(Debug, Clone, Deserialize)]
pub struct Facts {
    /// Where the local AWS listens.
    pub aws_endpoint: String,
    /// Its region.
    pub region: String,
    /// A key that may read the queues.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// What Meta would call.
    pub callback_url: String,
    /// The app secret of the function.
    pub app_secret: String,
    /// The verify token of the function.
    pub verify_token: String,
    /// Name of the `CloudFormation` stack, with which the names of its queues begin.
    pub stack: String,
    /// The URL of each route's queue.
    pub queue_urls: BTreeMap<String, String>,
    /// The outputs of the stack.
    pub outputs: BTreeMap<String, String>,
    /// The function's log group.
    pub log_group: String,
    /// The log of the local AWS.
    pub log: PathBuf,
}

/// The address of a stack that is up, for a delivery from outside.
#[derive(Debug, Deserialize, Serialize)]
pub struct Running {
    /// What Meta would call.
    pub callback_url: String,
    /// The app secret of the function.
    pub app_secret: String,
    /// The verify token of the function.
    pub verify_token: String,
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
    /// A pipe or a file failed.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// No stack is up.
    #[error("no stack is up: start one with `make run`, or name a URL")]
    NotRunning,
}

/// How a stack differs from the one that `make run` shows.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where the local AWS listens: loopback, or the address of a bridge that containers are at.
    pub address: IpAddr,
    /// The secrets of the function; without them, ones that nobody knows.
    pub keys: Option<Keys>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), keys: None }
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
        let facts: Facts = serde_json::from_str(&line).map_err(StackError::Garbled)?;
        let running = root.join(RUNNING);
        Running::from(&facts).write(&running)?;
        Ok(Self { script, running, facts })
    }

    /// The secrets that its function shares with Meta.
    #[must_use]
    pub fn keys(&self) -> Keys {
        Keys { app_secret: self.facts.app_secret.clone(), verify_token: self.facts.verify_token.clone() }
    }

    /// Waits until the stack ends by itself, which it does only when something is wrong.
    pub async fn ended(&mut self) -> Result<ExitStatus, StackError> {
        self.script.ended().await
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // It is of no use to anybody now; if it cannot be removed, a delivery to it fails with a plain error.
        let _ = fs::remove_file(&self.running);
    }
}

impl Running {
    /// Reads the address of the stack that is up in this folder.
    pub fn read(root: &Path) -> Result<Self, StackError> {
        let text = match fs::read(root.join(RUNNING)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StackError::NotRunning),
            Err(source) => return Err(StackError::Io { doing: "read the address of the local stack", source }),
        };
        serde_json::from_slice(&text).map_err(StackError::Garbled)
    }

    fn write(&self, path: &Path) -> Result<(), StackError> {
        let text = serde_json::to_vec_pretty(self).expect("strings alone always make JSON");
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        folder
            .and_then(|()| fs::write(path, text))
            .map_err(|source| StackError::Io { doing: "write the address of the local stack", source })
    }
}

impl From<&Facts> for Running {
    fn from(facts: &Facts) -> Self {
        Self {
            callback_url: facts.callback_url.clone(),
            app_secret: facts.app_secret.clone(),
            verify_token: facts.verify_token.clone(),
        }
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
        let keys = setup.keys.iter();
        let mut child = Command::new(python)
            .arg(SCRIPT)
            .args(["--address", &setup.address.to_string()])
            .args(keys.flat_map(|keys| ["--app-secret", &keys.app_secret, "--verify-token", &keys.verify_token]))
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

#[cfg(test)]
impl Facts {
    /// A stack with three queues that nobody started.
    pub(crate) fn for_tests() -> Self {
        let queue = |route: &str, name| (route.to_owned(), format!("http://127.0.0.1:1/123456789012/a-stack-{name}"));
        Self {
            aws_endpoint: "http://127.0.0.1:1".to_owned(),
            region: "us-east-1".to_owned(),
            access_key_id: "id".to_owned(),
            secret_access_key: "key".to_owned(),
            callback_url: "http://api.localhost:1/webhook".to_owned(),
            app_secret: "secret".to_owned(),
            verify_token: "token".to_owned(),
            stack: "a-stack".to_owned(),
            queue_urls: [queue("*", "unrouted"), queue("messages", "messages"), queue("security", "security")].into(),
            outputs: BTreeMap::new(),
            log_group: "/aws/lambda/a-stack".to_owned(),
            log: "the.log".into(),
        }
    }
}
