//! Delays the start of a function until everything is prepared, so that the measured time excludes the preparation.

use std::{
    env, fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{self, Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::limits::unique_name;

/// `O_NONBLOCK` of Linux. With it, opening a pipe without a reader fails instead of blocking.
const O_NONBLOCK: i32 = 0o4000;

/// How long to wait for the shell. The slowest one observed took a hundredth of this.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A named pipe. The shell reads a line from it before it executes the function.
#[derive(Debug)]
pub(crate) struct Gate(PathBuf);

impl Gate {
    pub(crate) fn new() -> io::Result<Self> {
        let path = path::absolute(env::temp_dir())?.join(unique_name());
        let status = Command::new("mkfifo").arg(&path).status()?;
        if status.success() { Ok(Self(path)) } else { Err(io::Error::other("mkfifo failed")) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Waits until the shell reads the pipe, and releases it. Returns the time of the release.
    pub(crate) fn open(self) -> io::Result<Instant> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        loop {
            match fs::OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&self.0) {
                Ok(mut pipe) => {
                    let opened = Instant::now();
                    pipe.write_all(b"\n")?;
                    return Ok(opened);
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_micros(200)),
            }
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
