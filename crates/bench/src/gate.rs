//! Holds a process back until all is ready for it, so that its time begins when a shell is let go to become it.

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

/// Linux's `O_NONBLOCK`: to open a pipe fails while nobody reads it, instead of waiting, perhaps for a shell that is gone.
const NONBLOCK: i32 = 0o4000;

/// The longest that a shell has been seen to take is a hundredth of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A named pipe that a shell reads a line from before it becomes the process.
#[derive(Debug)]
pub(crate) struct Gate(PathBuf);

impl Gate {
    pub(crate) fn new() -> io::Result<Self> {
        let path = path::absolute(env::temp_dir())?.join(unique_name());
        let made = Command::new("mkfifo").arg(&path).status()?;
        if made.success() { Ok(Self(path)) } else { Err(io::Error::other("mkfifo failed")) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Waits until the shell stands before it, and lets it through; says when that was.
    pub(crate) fn open(self) -> io::Result<Instant> {
        let last = Instant::now() + PATIENCE;
        loop {
            match fs::OpenOptions::new().write(true).custom_flags(NONBLOCK).open(&self.0) {
                Ok(mut pipe) => {
                    let opened = Instant::now();
                    pipe.write_all(b"\n")?;
                    return Ok(opened);
                }
                Err(error) if Instant::now() > last => return Err(error),
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
