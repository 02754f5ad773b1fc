//! Calls AWS with the AWS CLI, which supports every source of credentials that operators have: profiles, IAM Identity
//! Center, assumed roles, external processes.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::{process::Command, time::timeout};

use crate::endpoint_secrets::variable;

/// Longer than three attempts of one request, which take 25 s each at most. The requests of all pages share it.
const CALL_TIMEOUT: Duration = Duration::from_mins(2);
/// Timeouts of one attempt, in seconds. The CLI's default is one minute each.
const ATTEMPT_TIMEOUTS: [&str; 4] = ["--cli-connect-timeout", "5", "--cli-read-timeout", "20"];

/// The AWS CLI of this computer.
#[derive(Debug, Clone)]
pub struct AwsCli {
    /// The program, looked up on `PATH` unless it contains a slash.
    pub program: PathBuf,
    /// Variables that replace those of the environment. An empty value removes the variable.
    pub variables: Vec<(&'static str, String)>,
}

impl Default for AwsCli {
    fn default() -> Self {
        Self { program: PathBuf::from("aws"), variables: Vec::new() }
    }
}

/// Credentials in the format of an external credential process.
///
/// Source: <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-sourcing-external.html>
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
}

/// A call of AWS that failed.
#[derive(Debug, Error)]
pub enum AwsCliError {
    /// There is no such program.
    #[error(
        "the AWS CLI is not installed: install version 2, \
         see https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html"
    )]
    NotInstalled,
    /// The program exists but does not start.
    #[error("cannot run the AWS CLI: {0}")]
    NotStarted(io::Error),
    /// The environment and the profile set no region.
    #[error("no AWS region is set: set AWS_REGION or AWS_PROFILE")]
    NoRegion,
    /// No source has valid credentials. Contains the CLI's message.
    #[error("no AWS credentials are set: set AWS_PROFILE, or sign in ({0})")]
    NoCredentials(String),
    /// Version 1 cannot export the credentials of a profile.
    #[error(
        "the AWS CLI is version 1, which cannot export the credentials of a profile: \
         install version 2, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    Version1,
    /// AWS or the CLI returned an error.
    #[error("`aws {call}` failed: {message}")]
    Failed {
        /// Service and operation.
        call: String,
        /// The CLI's message.
        message: String,
    },
    /// The call did not end in time.
    #[error("`aws {call}` did not end within {} s", CALL_TIMEOUT.as_secs())]
    Timeout {
        /// Service and operation.
        call: String,
    },
    /// The response is not the JSON that is documented.
    #[error("cannot parse the response of `aws {call}`: {source}")]
    Unreadable {
        /// Service and operation.
        call: String,
        /// The error of the JSON reader.
        source: serde_json::Error,
    },
}

impl AwsCli {
    /// Returns the region of the environment, or else of the profile.
    pub(crate) async fn region(&self) -> Result<String, AwsCliError> {
        if let Some(region) = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")) {
            return Ok(region);
        }
        match self.run_in_time(&["configure", "get", "region"]).await {
            Ok(region) => String::from_utf8_lossy(&region).split_whitespace().next().map(str::to_owned),
            // The CLI prints no message if the profile sets no region.
            Err(AwsCliError::Failed { message, .. }) if message.is_empty() => None,
            Err(error) => return Err(error),
        }
        .ok_or(AwsCliError::NoRegion)
    }

    /// Returns the credentials of the environment, which take precedence over `AWS_PROFILE`, or else those that the CLI
    /// finds.
    ///
    /// Source: <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-envvars.html>
    pub(crate) async fn credentials(&self) -> Result<Credentials, AwsCliError> {
        let pair = variable("AWS_ACCESS_KEY_ID").zip(variable("AWS_SECRET_ACCESS_KEY"));
        if let Some((access_key_id, secret_access_key)) = pair {
            return Ok(Credentials { access_key_id, secret_access_key, session_token: variable("AWS_SESSION_TOKEN") });
        }
        let arguments = ["configure", "export-credentials", "--format", "process"];
        match self.run_in_time(&arguments).await {
            Ok(response) => parse(&arguments, &response),
            // Version 1 rejects the unknown subcommand with this text.
            Err(AwsCliError::Failed { message, .. }) if message.contains("nvalid selection") => {
                Err(AwsCliError::Version1)
            }
            Err(AwsCliError::Failed { message, .. }) => Err(AwsCliError::NoCredentials(message)),
            Err(error) => Err(error),
        }
    }

    /// Calls an operation and returns the part of all pages of the response that a `JMESPath` expression selects.
    ///
    /// The CLI takes credentials and endpoint from the environment.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        region: &str,
        call: &[&str],
        query: &str,
    ) -> Result<T, AwsCliError> {
        let options = ["--region", region, "--output", "json", "--query", query];
        parse(call, &self.run_in_time(&[call, &options, &ATTEMPT_TIMEOUTS].concat()).await?)
    }

    /// Copies all files of a folder to S3. `url` ends in `/`.
    ///
    /// Has no time limit, because hundreds of MiB may take long over a slow connection. The CLI limits each request.
    pub(crate) async fn copy_folder(&self, folder: &Path, url: &str) -> Result<(), AwsCliError> {
        let folder = folder.to_string_lossy();
        self.run(&["s3", "cp", "--recursive", "--only-show-errors", &folder, url]).await.map(|_| ())
    }

    async fn run_in_time(&self, arguments: &[&str]) -> Result<Vec<u8>, AwsCliError> {
        let is_late = |_| Err(AwsCliError::Timeout { call: call_name(arguments) });
        timeout(CALL_TIMEOUT, self.run(arguments)).await.unwrap_or_else(is_late)
    }

    async fn run(&self, arguments: &[&str]) -> Result<Vec<u8>, AwsCliError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        command.envs([("AWS_PAGER", ""), ("AWS_CLI_AUTO_PROMPT", "off")]);
        command.envs([("AWS_RETRY_MODE", "standard"), ("AWS_MAX_ATTEMPTS", "3")]);
        // The CLI takes an empty AWS_PROFILE for the name of a profile.
        if variable("AWS_PROFILE").is_none() {
            command.env_remove("AWS_PROFILE");
        }
        for (name, value) in &self.variables {
            if value.is_empty() {
                command.env_remove(name)
            } else {
                command.env(name, value)
            };
        }
        let output = command.output().await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => AwsCliError::NotInstalled,
            _ => AwsCliError::NotStarted(error),
        })?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(AwsCliError::Failed { call: call_name(arguments), message })
    }
}

fn parse<T: DeserializeOwned>(call: &[&str], response: &[u8]) -> Result<T, AwsCliError> {
    serde_json::from_slice(response).map_err(|source| AwsCliError::Unreadable { call: call_name(call), source })
}

/// Returns the service and the operation of a call.
fn call_name(arguments: &[&str]) -> String {
    arguments[..arguments.len().min(2)].join(" ")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    /// The paused clock passes every timeout while the process runs.
    #[tokio::test(start_paused = true)]
    async fn copy_has_no_time_limit_but_a_call_has() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("aws");
        fs::write(&program, "#!/bin/sh\nsleep 0.2\necho 1\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let aws = AwsCli { program, ..AwsCli::default() };

        assert!(aws.copy_folder(folder.path(), "s3://a-bucket/").await.is_ok());
        let call = aws.call::<u32>("us-east-1", &["sns", "list-topics"], "x").await;
        assert!(matches!(call, Err(AwsCliError::Timeout { .. })), "{call:?}");
    }
}
