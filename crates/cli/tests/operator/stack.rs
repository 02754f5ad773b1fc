//! A stack on the local AWS.

use std::{
    ops::Deref,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use ingress_tools::local::stack::{Stack, StackOptions};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The number of stacks at a time. Their tests mostly wait, but a deployment needs a processor.
static PERMITS: Semaphore = Semaphore::const_new(3);

/// The folder of the project.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// A running stack, and the folder in which commands find it. The folder has links to the files that they read.
pub(crate) struct TestStack {
    stack: Stack,
    folder: TempDir,
    _permit: SemaphorePermit<'static>,
}

impl TestStack {
    pub(crate) async fn start() -> Self {
        Self::start_with(&StackOptions::default()).await
    }

    pub(crate) async fn start_with(options: &StackOptions) -> Self {
        let permit = PERMITS.acquire().await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in ["infra", "samconfig.toml"] {
            symlink(root().join(name), folder.path().join(name)).unwrap();
        }
        let stack = Stack::start_with(options, folder.path(), &root().join(".venv/bin/python")).await.unwrap();
        Self { stack, folder, _permit: permit }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Deref for TestStack {
    type Target = Stack;

    fn deref(&self) -> &Stack {
        &self.stack
    }
}
