//! What the commands need of a stack, local or deployed.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use whatsapp_webhook::credentials::{AppCredentials, CredentialsError};

use super::cli::AwsCliError;
use crate::keys::Keys;

/// The note that a stack that runs on this computer leaves for commands in another terminal.
const RUNNING: &str = ".local/running.json";

/// The settings of a stack, and a way to its queues.
#[derive(Clone, Deserialize, Serialize)]
pub struct StackInfo {
    /// The endpoint of SQS. A local AWS has one for all services.
    pub aws_endpoint: String,
    /// The region.
    pub region: String,
    /// The id of the key that SQS is called with.
    pub access_key_id: String,
    /// The secret of the key.
    pub secret_access_key: String,
    /// The token of a temporary key.
    #[serde(default)]
    pub session_token: Option<String>,
    /// The URL that Meta sends notifications to.
    pub callback_url: String,
    /// The JSON text of the function's secret.
    pub secret: String,
    /// The name of the `CloudFormation` stack. The names of its queues begin with it.
    pub stack: String,
    /// The URL of each route's queue.
    pub queue_urls: BTreeMap<String, String>,
    /// The outputs of the stack.
    pub outputs: BTreeMap<String, String>,
    /// The function's log group.
    pub log_group: String,
    /// The log of the local AWS. A stack on AWS has none.
    #[serde(default)]
    pub log: Option<PathBuf>,
}

/// The note that a stack runs on this computer. Dropping this removes it.
#[derive(Debug)]
pub struct Running(PathBuf);

/// A stack that cannot be described.
#[derive(Debug, Error)]
pub enum StackInfoError {
    /// No stack runs on this computer.
    #[error("no stack is up: start one with `make run`, or name a URL or a stack")]
    NotRunning,
    /// The note of the running stack cannot be read or written.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The note of the running stack has another form.
    #[error("the note of the running stack cannot be read: {0}")]
    Garbled(serde_json::Error),
    /// AWS returned no description.
    #[error(transparent)]
    Aws(#[from] AwsCliError),
    /// The stack is of another template.
    #[error("the stack {stack} is not of this template: it lacks {missing}")]
    OtherTemplate {
        /// The stack's name.
        stack: String,
        /// What every stack of this template has.
        missing: String,
    },
    /// The secret of the stack is not usable.
    #[error("{0}: correct the secret, see README, Deploy")]
    Secret(#[from] CredentialsError),
}

impl StackInfo {
    /// The stack that is up in this folder.
    pub fn running(root: &Path) -> Result<Self, StackInfoError> {
        let text = match fs::read(root.join(RUNNING)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StackInfoError::NotRunning),
            Err(source) => return Err(StackInfoError::Io { doing: "read of the local stack", source }),
        };
        serde_json::from_slice(&text).map_err(StackInfoError::Garbled)
    }

    /// Parses the secret of the stack as the function does.
    pub fn credentials(&self) -> Result<AppCredentials, StackInfoError> {
        Ok(AppCredentials::parse(&self.secret)?)
    }

    /// The secrets that a delivery needs: of several app secrets the first.
    pub fn keys(&self) -> Result<Keys, StackInfoError> {
        let AppCredentials { verify_token, mut app_secrets } = self.credentials()?;
        Ok(Keys { app_secret: app_secrets.swap_remove(0), verify_token })
    }

    pub(crate) fn publish(&self, root: &Path) -> Result<Running, StackInfoError> {
        let path = root.join(RUNNING);
        let text = serde_json::to_vec_pretty(self).expect("strings alone always make JSON");
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text))
            .map_err(|source| StackInfoError::Io { doing: "write of the local stack", source })?;
        Ok(Running(path))
    }
}

impl std::fmt::Debug for StackInfo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StackInfo").field("stack", &self.stack).finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It is of no use to anybody now; if it cannot be removed, a delivery to it fails with a plain error.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
impl StackInfo {
    /// A stack with three queues that nobody started.
    pub(crate) fn for_tests() -> Self {
        let queue = |route: &str, name| (route.to_owned(), format!("http://127.0.0.1:1/123456789012/a-stack-{name}"));
        Self {
            aws_endpoint: "http://127.0.0.1:1".to_owned(),
            region: "us-east-1".to_owned(),
            access_key_id: "id".to_owned(),
            secret_access_key: "key".to_owned(),
            session_token: None,
            callback_url: "http://api.localhost:1/webhook".to_owned(),
            secret: r#"{"verify_token":"token","app_secret":"secret"}"#.to_owned(),
            stack: "a-stack".to_owned(),
            queue_urls: [queue("*", "unrouted"), queue("messages", "messages"), queue("security", "security")].into(),
            outputs: BTreeMap::new(),
            log_group: "/aws/lambda/a-stack".to_owned(),
            log: None,
        }
    }
}
