//! The settings of a stack, local or deployed.

use std::{
    collections::BTreeMap,
    fs, io,
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::Url;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use whatsapp_webhook::{
    credentials::{AppCredentials, CredentialsError},
    routes::{CATCH_ALL, Queue as RouteQueue, Routes},
};

use super::cli::{AwsCli, AwsCliError};
use crate::endpoint_secrets::EndpointSecrets;

/// The file that describes the running local stack to commands in another terminal.
const RUNNING_STACK_FILE: &str = ".local/running.json";
/// The local AWS is on this computer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The settings of a stack, and credentials for its queues.
#[derive(Clone, Deserialize, Serialize)]
pub struct StackInfo {
    /// The endpoint of SQS. A local AWS has one for all services.
    pub aws_endpoint: String,
    /// The region.
    pub region: String,
    /// The id of the access key for calls to SQS.
    pub access_key_id: String,
    /// The secret of the access key.
    pub secret_access_key: String,
    /// The token of temporary credentials.
    #[serde(default)]
    pub session_token: Option<String>,
    /// The URL that Meta sends notifications to.
    pub callback_url: String,
    /// The JSON text of the function's secret. `None` if it was not read.
    pub secret: Option<String>,
    /// The name of the `CloudFormation` stack. The names of its queues begin with it.
    pub stack: String,
    /// The routes of the function, in the form of its `QUEUE_URLS`.
    #[serde(rename = "queue_urls", with = "queue_urls")]
    pub routes: Routes,
    /// The outputs of the stack.
    pub outputs: BTreeMap<String, String>,
    /// The function's log group.
    pub log_group: String,
    /// The log of the local AWS. A stack on AWS has none.
    #[serde(default)]
    pub log: Option<PathBuf>,
}

/// The file that describes the running local stack. Dropping this removes the file.
#[derive(Debug)]
pub struct RunningStackFile(PathBuf);

/// A stack that cannot be described.
#[derive(Debug, Error)]
pub enum StackInfoError {
    /// No stack runs on this computer.
    #[error("no local stack is running: start one with `make run`, or name a URL or a stack")]
    NotRunning,
    /// No stack is named or saved, and the command uses no local stack.
    #[error(
        "no stack is named, and no local stack is used: name one with --stack or the variable STACK, or run the command in \
         the folder of the samconfig.toml that `sam deploy --guided` wrote; `make run` starts a local stack, which --local uses"
    )]
    NoStack,
    /// A local stack runs, but the environment leads elsewhere.
    #[error(
        "a local stack is running, but {0} leads elsewhere: name a deployed stack with --stack or the variable STACK, or \
         use the local one with --local"
    )]
    AmbiguousStack(&'static str),
    /// samconfig.toml is not TOML.
    #[error("cannot parse samconfig.toml: {0}")]
    SamConfig(String),
    /// The file of the running stack cannot be read or written.
    #[error("cannot {action}: {source}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The file of the running stack is not a description.
    #[error("cannot parse the description of the running stack: {0}")]
    InvalidDescription(serde_json::Error),
    /// samconfig.toml names another profile or region than the environment.
    #[error(
        "samconfig.toml deploys with the {setting} {saved}, but the environment has {actual}: set {variable}={saved}, or name the \
         stack with --stack or the variable STACK"
    )]
    OtherSamConfig {
        /// `profile` or `region`.
        setting: &'static str,
        /// The value in samconfig.toml.
        saved: String,
        /// The value of the environment, or `none`.
        actual: String,
        /// The variable that sets it.
        variable: &'static str,
    },
    /// AWS did not return a description.
    #[error(transparent)]
    Aws(#[from] AwsCliError),
    /// The stack is of another template.
    #[error("the stack {stack} was not deployed from this template: it lacks {missing}")]
    OtherTemplate {
        /// The stack's name.
        stack: String,
        /// The setting that every stack of this template has.
        missing: String,
    },
    /// The function cannot use the secret of the stack.
    #[error("{0}: correct the secret, see README, Deploy")]
    Secret(#[from] CredentialsError),
}

impl StackInfo {
    /// Returns the AWS CLI for calls about this stack. A local stack has its own endpoint and credentials.
    #[must_use]
    pub fn aws_cli(&self) -> AwsCli {
        if !self.is_local() {
            return AwsCli::default();
        }
        let variables = vec![
            ("AWS_ENDPOINT_URL", self.aws_endpoint.clone()),
            ("AWS_ACCESS_KEY_ID", self.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_access_key.clone()),
            ("AWS_REGION", self.region.clone()),
            ("AWS_DEFAULT_REGION", self.region.clone()),
            ("AWS_PROFILE", String::new()),
            ("AWS_SESSION_TOKEN", String::new()),
            // `true` in the shell would make the AWS CLI ignore AWS_ENDPOINT_URL, and call AWS.
            ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false".to_owned()),
        ];
        AwsCli { variables, ..AwsCli::default() }
    }

    /// Reads the description of the local stack that runs in this folder. If `make run` was killed, the file remains, but no AWS
    /// listens at its endpoint: the stack is not running.
    pub fn running(root: &Path) -> Result<Self, StackInfoError> {
        let text = match fs::read(root.join(RUNNING_STACK_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StackInfoError::NotRunning),
            Err(source) => {
                return Err(StackInfoError::Io { action: "read the description of the local stack", source });
            }
        };
        let info: Self = serde_json::from_slice(&text).map_err(StackInfoError::InvalidDescription)?;
        let addresses = Url::parse(&info.aws_endpoint).ok().and_then(|url| url.socket_addrs(|| None).ok());
        let mut addresses = addresses.unwrap_or_default().into_iter();
        let is_running = addresses.any(|address| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).is_ok());
        if is_running { Ok(info) } else { Err(StackInfoError::NotRunning) }
    }

    /// Whether the stack runs on a local AWS of `make run`.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.log.is_some()
    }

    /// Whether the stack's queues are called without TLS, as on a local AWS.
    #[must_use]
    pub fn is_plain_http(&self) -> bool {
        self.aws_endpoint.starts_with("http:")
    }

    /// Returns the id of the account that owns the catch-all queue.
    #[must_use]
    pub fn account_id(&self) -> &str {
        self.routes.catch_all().account_id().unwrap_or("unknown")
    }

    /// Reads the secret of the stack, unless it was read before.
    pub async fn read_secret(&self) -> Result<String, StackInfoError> {
        if let Some(secret) = &self.secret {
            return Ok(secret.clone());
        }
        let call = ["secretsmanager", "get-secret-value", "--secret-id", self.output("SecretArn")?];
        Ok(self.aws_cli().call(&self.region, &call, "SecretString").await?)
    }

    /// Completes the description with the secret.
    pub async fn with_secret(self) -> Result<Self, StackInfoError> {
        Ok(Self { secret: Some(self.read_secret().await?), ..self })
    }

    /// Parses the secret of the stack as the function does. Requires [`Self::with_secret`].
    pub fn credentials(&self) -> Result<AppCredentials, StackInfoError> {
        Ok(AppCredentials::parse(self.secret.as_deref().unwrap_or_default())?)
    }

    /// Whether a route other than the catch-all route leads to a queue, so that consumers receive its messages.
    pub(crate) fn has_consumers(&self, url: &str) -> bool {
        let mut urls = self.queue_urls().into_iter().filter(|(route, _)| *route != CATCH_ALL);
        url != self.routes.catch_all().url && urls.any(|(_, urls)| urls.contains(&url))
    }

    /// Returns the URLs of each route's queues.
    #[must_use]
    pub fn queue_urls(&self) -> BTreeMap<&str, Vec<&str>> {
        let urls =
            |(route, queues)| (route, Iterator::map(queues, |queue: &'_ RouteQueue| queue.url.as_str()).collect());
        self.routes.iter().map(urls).collect()
    }

    /// Returns the secrets for a delivery, with the first of several app secrets.
    pub fn secrets(&self) -> Result<EndpointSecrets, StackInfoError> {
        let AppCredentials { verify_token, mut app_secrets, .. } = self.credentials()?;
        Ok(EndpointSecrets { app_secret: app_secrets.swap_remove(0), verify_token })
    }

    /// Returns the function's key of conversation group ids. The function's `SECRET_ID` is the output `SecretArn`.
    pub(crate) fn group_key(&self) -> Result<String, StackInfoError> {
        let secret_id = self.output("SecretArn")?;
        Ok(self.credentials()?.group_key(secret_id).to_owned())
    }

    /// Returns an output that every stack of this template has.
    pub(crate) fn output(&self, name: &str) -> Result<&str, StackInfoError> {
        self.outputs.get(name).map(String::as_str).ok_or_else(|| StackInfoError::OtherTemplate {
            stack: self.stack.clone(),
            missing: format!("the output {name}"),
        })
    }

    /// Writes the description for commands in another terminal.
    pub(crate) fn publish(&self, root: &Path) -> Result<RunningStackFile, StackInfoError> {
        let path = root.join(RUNNING_STACK_FILE);
        let text = serde_json::to_vec_pretty(self).expect("strings alone always make JSON");
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, text))
            .map_err(|source| StackInfoError::Io { action: "write the description of the local stack", source })?;
        Ok(RunningStackFile(path))
    }
}

/// Writes and reads the routes in the form of `QUEUE_URLS`. Reads them from raw JSON, because a map would hide a route that occurs
/// twice.
mod queue_urls {
    use serde::{
        Deserialize as _,
        de::{Deserializer, Error as _},
        ser::Serializer,
    };
    use serde_json::value::RawValue;
    use whatsapp_webhook::routes::Routes;

    pub(super) fn serialize<S: Serializer>(routes: &Routes, serializer: S) -> Result<S::Ok, S::Error> {
        let urls = routes.iter().map(|(route, queues)| (route, queues.map(|queue| &queue.url).collect::<Vec<_>>()));
        serializer.collect_map(urls)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Routes, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        Routes::parse(json.get()).map_err(D::Error::custom)
    }
}

impl std::fmt::Debug for StackInfo {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StackInfo").field("stack", &self.stack).finish_non_exhaustive()
    }
}

impl Drop for RunningStackFile {
    fn drop(&mut self) {
        // If the file remains, `running` ignores it.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
impl StackInfo {
    /// Returns the description of a stack with four queues that does not exist.
    pub(crate) fn for_tests() -> Self {
        Self {
            aws_endpoint: "http://127.0.0.1:1".to_owned(),
            region: "us-east-1".to_owned(),
            access_key_id: "id".to_owned(),
            secret_access_key: "key".to_owned(),
            session_token: None,
            callback_url: "http://api.localhost:1/webhook".to_owned(),
            secret: Some(r#"{"verify_token":"token","app_secret":"secret"}"#.to_owned()),
            stack: "a-stack".to_owned(),
            routes: Self::routes_for_tests(
                r#","messages":["a-stack-messages","a-stack-archive"],"security":"a-stack-security""#,
            ),
            outputs: BTreeMap::new(),
            log_group: "/aws/lambda/a-stack".to_owned(),
            log: None,
        }
    }

    /// Returns the routes without the catch-all route.
    pub(crate) fn routes_for_tests(others: &str) -> Routes {
        let json = format!(r#"{{"*":"http://127.0.0.1:1/123456789012/a-stack-unrouted"{others}}}"#);
        Routes::parse(&json).expect("valid routes")
    }
}
