//! The bootstrap process: output, exit status and signals.

use crate::lock::lock;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait for the remaining output of an exited process. A child process that inherited its pipes can keep them
/// open.
const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    child: Mutex<Child>,
    output: Arc<Output>,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Vec<String>>,
    open_pipes: AtomicUsize,
}

impl Process {
    pub(super) fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|cause| panic!("{} cannot be started: {cause}", command.get_program().display()));
        let output = Arc::new(Output::default());
        Output::capture(&output, child.stdout.take());
        Output::capture(&output, child.stderr.take());
        Self { pid: child.id(), child: Mutex::new(child), output }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn exit_status(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }

    /// Kills the process if it is running, and waits for its exit.
    pub(super) fn kill(&self) {
        let mut child = lock(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }

    pub(super) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid.to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the process receives the signal");
    }

    pub(super) fn logs(&self) -> Vec<String> {
        lock(&self.output.lines).clone()
    }

    /// Returns all log lines of a process that has exited.
    pub(super) fn all_logs(&self) -> Vec<String> {
        let deadline = Instant::now() + LAST_OUTPUT_TIMEOUT;
        while self.exit_status().is_some()
            && self.output.open_pipes.load(Ordering::Acquire) > 0
            && Instant::now() < deadline
        {
            thread::sleep(Duration::from_millis(1));
        }
        self.logs()
    }
}

impl Output {
    /// Reads lines on a new thread until the pipe closes.
    fn capture(self: &Arc<Self>, pipe: Option<impl Read + Send + 'static>) {
        let Some(pipe) = pipe else { return };
        self.open_pipes.fetch_add(1, Ordering::Release);
        let output = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                lock(&output.lines).push(String::from_utf8_lossy(&line).into_owned());
            }
            output.open_pipes.fetch_sub(1, Ordering::Release);
        });
    }
}
