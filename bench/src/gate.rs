//! Holds a process back until all is ready for it, so that its time begins with its own first instruction.

use std::{
    env, fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// A named pipe that a shell reads a line from before it becomes the process.
#[derive(Debug)]
pub(crate) struct Gate(PathBuf);

impl Gate {
    pub(crate) fn new() -> io::Result<Self> {
        let name = format!("ingress-bench-{}-{}.pipe", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        let made = Command::new("mkfifo").arg(&path).status()?;
        if made.success() { Ok(Self(path)) } else { Err(io::Error::other("mkfifo failed")) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Waits until the shell stands before it, and lets it through; says when that was.
    pub(crate) fn open(self) -> io::Result<Instant> {
        let mut pipe = fs::OpenOptions::new().write(true).open(&self.0)?;
        let opened = Instant::now();
        pipe.write_all(b"\n")?;
        Ok(opened)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
