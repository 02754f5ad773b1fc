//! The function under test: a bootstrap process that takes its events from a Runtime API of its own.

mod environment;
mod process;
mod runtime_api;

use crate::aws::FakeAws;
use crate::server::Server;
use process::Process;
use runtime_api::RuntimeApi;
pub use runtime_api::{Invocation, Outcome};
use serde_json::Value;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// One sandbox of the function: its process, killed when this is dropped, and its Runtime API.
///
/// As in Lambda, one invocation runs at a time, a later one waits for its turn, and one that runs into its timeout costs
/// the process its life. Several functions may share one [`FakeAws`].
#[derive(Debug)]
pub struct Function {
    sandbox: Arc<Sandbox>,
    aws: FakeAws,
    _server: Server,
}

#[derive(Debug)]
pub(crate) struct Sandbox {
    process: Process,
    api: Arc<RuntimeApi>,
}

impl Function {
    /// Starts a bootstrap with Lambda's environment, credentials, the fake as its endpoint, and `variables`, which also
    /// replace any of these; nothing of the caller's environment is passed on.
    ///
    /// # Panics
    /// When the bootstrap cannot be started.
    #[must_use]
    pub fn start<K, V>(bootstrap: impl AsRef<Path>, aws: &FakeAws, variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        Self::start_command(Command::new(bootstrap.as_ref()), aws, variables)
    }

    /// Starts a bootstrap that needs arguments, or a program around it.
    ///
    /// # Panics
    /// When the command cannot be started.
    #[must_use]
    pub fn start_command<K, V>(mut command: Command, aws: &FakeAws, variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let started = Instant::now();
        let (api, server) = RuntimeApi::serve(aws.runtime(), started);
        environment::set(&mut command, aws, server.address);
        command.envs(variables);
        let process = Process::spawn(&mut command);
        Self { sandbox: Arc::new(Sandbox { process, api }), aws: aws.clone(), _server: server }
    }

    /// Delivers an event (JSON text, or a [`Value`]) and waits for what comes of it, not longer than `timeout` after it
    /// was fetched. A function that has not fetched it within the 10 s that Lambda gives to init has timed out too.
    ///
    /// # Panics
    /// When the fake has been shut down.
    pub async fn invoke(&self, event: impl ToString, timeout: Duration) -> Invocation {
        let (event, sandbox) = (event.to_string(), Arc::clone(&self.sandbox));
        let invocation = async move { sandbox.api.invoke(event, timeout, &sandbox.process).await };
        self.aws.runtime().spawn(invocation).await.expect("the fake runs as long as a function does")
    }

    /// Waits until the function asks for its first event, which ends init; the time is that since the process was spawned.
    ///
    /// # Panics
    /// When the fake has been shut down.
    pub async fn ready(&self, within: Duration) -> Result<Duration, InitFailure> {
        let sandbox = Arc::clone(&self.sandbox);
        let ready = async move {
            let end = Instant::now() + within;
            loop {
                if let Some(after) = sandbox.api.first_next() {
                    return Ok(after);
                }
                let exit = sandbox.process.exit_status();
                if exit.is_some() || Instant::now() >= end {
                    let logs = sandbox.process.all_logs();
                    return Err(InitFailure { exit, reported: sandbox.api.init_error(), logs });
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        self.aws.runtime().spawn(ready).await.expect("the fake runs as long as a function does")
    }

    /// Sets the tracing header of the invocations from now on; before, each has a trace of its own that is not recorded.
    pub fn set_trace(&self, header: &str) {
        self.sandbox.api.set_trace(header);
    }

    /// Makes the deadline of the invocations from now on appear this much later than it is, as to a function whose clock
    /// is behind. An invocation still ends at its real timeout.
    pub fn set_clock_lag(&self, lag: Duration) {
        self.sandbox.api.set_clock_lag(lag);
    }

    /// When the process was spawned.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.sandbox.api.started()
    }

    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.sandbox.process.pid()
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.exit_status().is_some()
    }

    /// How the process ended, if it has.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.sandbox.process.exit_status()
    }

    /// The lines that the process has written to stdout and stderr so far. The last ones may still be on their way.
    #[must_use]
    pub fn logs(&self) -> Vec<String> {
        self.sandbox.process.logs()
    }

    /// Waits for a line that contains `text`.
    pub async fn log_line(&self, text: &str, within: Duration) -> Option<String> {
        let (text, sandbox) = (text.to_owned(), Arc::clone(&self.sandbox));
        let found = async move {
            let end = Instant::now() + within;
            loop {
                let line = sandbox.process.logs().into_iter().find(|line| line.contains(&text));
                if line.is_some() || Instant::now() >= end {
                    return line;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        self.aws.runtime().spawn(found).await.ok().flatten()
    }

    /// Stops the process where it is, as Lambda freezes a sandbox between invocations; time goes on without it.
    ///
    /// # Panics
    /// When the machine has no `kill`.
    pub fn freeze(&self) {
        self.sandbox.process.signal("-STOP");
    }

    /// Lets a frozen process go on.
    ///
    /// # Panics
    /// When the machine has no `kill`.
    pub fn thaw(&self) {
        self.sandbox.process.signal("-CONT");
    }

    /// Kills the process and returns every line that it has written.
    #[must_use]
    pub fn stop(self) -> Vec<String> {
        self.sandbox.process.kill();
        self.sandbox.process.all_logs()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.sandbox.process.kill();
    }
}

/// Init that did not end with the function asking for an event.
#[derive(Debug)]
#[non_exhaustive]
pub struct InitFailure {
    /// How the process ended; none if it still runs.
    pub exit: Option<ExitStatus>,
    /// What it told the Runtime API of it.
    pub reported: Option<Value>,
    /// All that it wrote.
    pub logs: Vec<String>,
}

impl fmt::Display for InitFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exit {
            Some(status) => write!(f, "the function ended in init: {status}")?,
            None => f.write_str("the function did not end its init in time")?,
        }
        self.logs.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

impl std::error::Error for InitFailure {}
