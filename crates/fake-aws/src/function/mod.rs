//! The function under test: a bootstrap process with its own Runtime API.

mod process;
mod runtime_api;
mod variables;

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

/// One execution environment of the function: its process and its Runtime API. Dropping this kills the process.
///
/// As in Lambda, an environment runs up to `AWS_LAMBDA_MAX_CONCURRENCY` invocations at a time, by
/// default one, and further ones wait. A timeout kills the process. Several functions can share one [`FakeAws`].
#[derive(Debug)]
pub struct Function {
    environment: Arc<Environment>,
    aws: FakeAws,
    _server: Server,
}

#[derive(Debug)]
pub(crate) struct Environment {
    process: Process,
    api: Arc<RuntimeApi>,
}

impl Function {
    /// Starts a bootstrap with Lambda's environment variables, the fake as its endpoint, and `variables`, which take
    /// precedence. It does not inherit the variables of the test.
    ///
    /// # Panics
    /// If the bootstrap cannot be started.
    #[must_use]
    pub fn start<K, V>(bootstrap: impl AsRef<Path>, aws: &FakeAws, variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        Self::start_command(Command::new(bootstrap.as_ref()), aws, variables)
    }

    /// Starts a command as the bootstrap, for arguments or a wrapper program.
    ///
    /// # Panics
    /// If the command cannot be started.
    #[must_use]
    pub fn start_command<K, V>(mut command: Command, aws: &FakeAws, variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let started = Instant::now();
        let variables: Vec<_> = variables.into_iter().collect();
        let (api, server) = RuntimeApi::serve(aws.runtime(), started, variables::max_concurrency(&variables));
        variables::set(&mut command, aws, server.address);
        command.envs(variables);
        let process = Process::spawn(&mut command);
        Self { environment: Arc::new(Environment { process, api }), aws: aws.clone(), _server: server }
    }

    /// Delivers an event (JSON text or a [`Value`]) and waits for its outcome.
    ///
    /// The timeout starts when the function fetches the event. A function that does not fetch it within 10 s of being offered it, the
    /// time that Lambda allows for init, has timed out, too.
    ///
    /// # Panics
    /// If the fake has been shut down.
    pub async fn invoke(&self, event: impl ToString, timeout: Duration) -> Invocation {
        let (event, environment) = (event.to_string(), Arc::clone(&self.environment));
        let trace_header = environment.api.trace_header();
        let invocation =
            async move { environment.api.invoke(event, trace_header, timeout, &environment.process).await };
        self.aws.runtime().spawn(invocation).await.expect("the fake runs until its last function is dropped")
    }

    /// Waits until the function requests its first event, which ends init. Returns the time since the process was spawned.
    ///
    /// # Errors
    /// If the process exits before, or init takes longer than `timeout`.
    ///
    /// # Panics
    /// If the fake has been shut down.
    pub async fn wait_for_init(&self, timeout: Duration) -> Result<Duration, InitError> {
        let environment = Arc::clone(&self.environment);
        let init = async move {
            let deadline = Instant::now() + timeout;
            loop {
                if let Some(duration) = environment.api.init_duration() {
                    return Ok(duration);
                }
                let exit = environment.process.exit_status();
                if exit.is_some() || Instant::now() >= deadline {
                    let logs = environment.process.all_logs();
                    return Err(InitError { exit, report: environment.api.init_error(), logs });
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        self.aws.runtime().spawn(init).await.expect("the fake runs until its last function is dropped")
    }

    /// Sets the trace header of later calls of [`Self::invoke`]. By default each invocation has its own trace, which is not sampled.
    pub fn set_trace_header(&self, header: &str) {
        self.environment.api.set_trace_header(header);
    }

    /// Adds `lag` to the deadline that later invocations receive, as if the clock of the function were behind. Invocations
    /// still end at their timeout.
    pub fn set_clock_lag(&self, lag: Duration) {
        self.environment.api.set_clock_lag(lag);
    }

    /// Returns when the process was spawned.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.environment.api.started()
    }

    /// Returns the process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.environment.process.pid()
    }

    /// Returns whether the process has exited.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.exit_status().is_some()
    }

    /// Returns the exit status, or `None` if the process is running.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.environment.process.exit_status()
    }

    /// Returns the lines that the process has written to stdout and stderr. The latest lines can be missing.
    #[must_use]
    pub fn logs(&self) -> Vec<String> {
        self.environment.process.logs()
    }

    /// Waits for a log line that contains `text`. Returns `None` after `timeout`.
    pub async fn wait_for_log_line(&self, text: &str, timeout: Duration) -> Option<String> {
        let (text, environment) = (text.to_owned(), Arc::clone(&self.environment));
        let search = async move {
            let deadline = Instant::now() + timeout;
            loop {
                let line = environment.process.logs().into_iter().find(|line| line.contains(&text));
                if line.is_some() || Instant::now() >= deadline {
                    return line;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        self.aws.runtime().spawn(search).await.ok().flatten()
    }

    /// Pauses the process, as Lambda freezes an execution environment between invocations. The clock continues.
    ///
    /// # Panics
    /// If the program `kill` is not installed.
    pub fn freeze(&self) {
        self.environment.process.signal("-STOP");
    }

    /// Resumes a frozen process.
    ///
    /// # Panics
    /// If the program `kill` is not installed.
    pub fn thaw(&self) {
        self.environment.process.signal("-CONT");
    }

    /// Kills the process and returns all its log lines.
    #[must_use]
    pub fn stop(self) -> Vec<String> {
        self.environment.process.kill();
        self.environment.process.all_logs()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.environment.process.kill();
    }
}

/// The process exited or the timeout ended before the function requested its first event.
#[derive(Debug)]
#[non_exhaustive]
pub struct InitError {
    /// The exit status. `None` after a timeout.
    pub exit: Option<ExitStatus>,
    /// The body of the function's request to `/runtime/init/error`, if it sent one.
    pub report: Option<Value>,
    /// All log lines.
    pub logs: Vec<String>,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exit {
            Some(status) => write!(f, "the function exited during init: {status}")?,
            None => f.write_str("the init of the function timed out")?,
        }
        self.logs.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

impl std::error::Error for InitError {}
