//! Reads a deployed stack with a scripted AWS CLI.

use std::{env, fs, os::unix::fs::PermissionsExt, path::Path, process::Output};

use ingress_tools::{
    aws::{cli::AwsCli, stack_info::StackInfo},
    queues::backlog::Backlogs,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::sqs::Sqs;

const REGION: (&str, &str) = ("AWS_REGION", "eu-west-1");
const ACCESS_KEY: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "an-id"), ("AWS_SECRET_ACCESS_KEY", "a-key")];
/// Lines of an AWS CLI whose profile has a region and credentials.
const PROFILE: &str = r#"[ "$1 $2 $3" = "configure get region" ] && echo eu-west-1 && exit
[ "$1 $2" = "configure export-credentials" ] &&
    echo '{"Version":1,"AccessKeyId":"of-profile","SecretAccessKey":"k","SessionToken":"t"}' && exit"#;

/// The responses of AWS that describe a stack.
pub(crate) struct DescribedStack<'s> {
    pub(crate) callback_url: &'s str,
    /// The function's `QUEUE_URLS`.
    pub(crate) queues: &'s str,
    /// An output that the stack does not have.
    pub(crate) missing: &'s str,
}

impl Default for DescribedStack<'_> {
    fn default() -> Self {
        let queues = r#"{"*":"https://sqs.eu-west-1.amazonaws.com/123456789012/a-stack-unrouted"}"#;
        Self { callback_url: "https://api.example/webhook", queues, missing: "" }
    }
}

impl DescribedStack<'_> {
    /// The lines of an AWS CLI with these responses.
    pub(crate) fn script(&self) -> String {
        let outputs = [
            ("CallbackUrl", self.callback_url),
            ("FunctionName", "a-function"),
            ("LogGroupName", "/aws/lambda/a-function"),
            ("SecretArn", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a"),
        ];
        let outputs = outputs.into_iter().filter(|(name, _)| *name != self.missing);
        let outputs: Vec<_> = outputs.collect();
        let secret = r#"{"verify_token":"a-token","app_secret":"a-secret"}"#;
        let responses = [
            ("cloudformation describe-stacks", json!(outputs)),
            ("lambda get-function-configuration", json!(self.queues)),
            ("secretsmanager get-secret-value", json!(secret)),
        ];
        responses.map(|(call, response)| format!("[ \"$1 $2\" = '{call}' ] && echo '{response}' && exit\n")).concat()
    }
}

/// Writes an AWS CLI that appends each call to the file `calls` and then runs these lines of shell.
pub(crate) fn write_aws(folder: &Path, script: &str) {
    let path = folder.join("aws");
    let calls = folder.join("calls");
    fs::write(&path, format!("#!/bin/sh\necho \"$*\" >> '{}'\n{script}\nexit 254\n", calls.display())).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// `PATH` with a folder in front.
pub(crate) fn path_with(folder: &Path) -> String {
    format!("{}:{}", folder.display(), env::var("PATH").unwrap())
}

/// Runs a dry run of `ingress subscribe` that fails at the Graph API, if it does not fail before.
async fn subscribe(folder: &TempDir, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingress"));
    command.current_dir(folder.path());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.env("PATH", path_with(folder.path())).envs(environment.iter().copied());
    command.args(["subscribe", "--stack", "a-stack", "--app", "1", "--graph-url", "http://127.0.0.1:1"]);
    command.output().await.unwrap()
}

/// The error of a command that cannot describe the stack.
async fn error(script: &str, environment: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    write_aws(folder.path(), script);
    let output = subscribe(&folder, environment).await;
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap().trim().to_owned()
}

fn calls(folder: &TempDir) -> Vec<String> {
    fs::read_to_string(folder.path().join("calls")).unwrap().lines().map(str::to_owned).collect()
}

fn with_access_key<'e>(region: (&'e str, &'e str)) -> Vec<(&'e str, &'e str)> {
    [region].into_iter().chain(ACCESS_KEY).collect()
}

#[tokio::test]
async fn both_region_variables_count() {
    for (region, expected) in [
        (("AWS_REGION", "eu-west-1"), "--region eu-west-1 "),
        (("AWS_DEFAULT_REGION", "eu-central-1"), "--region eu-central-1 "),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_aws(folder.path(), &DescribedStack::default().script());

        let output = subscribe(&folder, &with_access_key(region)).await;

        assert!(String::from_utf8_lossy(&output.stderr).contains("no response from Meta"), "{output:?}");
        let calls = calls(&folder);
        assert_eq!(calls.len(), 3, "{calls:?}");
        assert!(calls.iter().all(|call| call.contains(expected)), "{calls:?}");
    }
}

#[tokio::test]
async fn profile_gives_region_and_credentials() {
    let folder = tempfile::tempdir().unwrap();
    write_aws(folder.path(), &[PROFILE, &DescribedStack::default().script()].join("\n"));

    let output = subscribe(&folder, &[("AWS_PROFILE", "a-profile")]).await;

    assert!(String::from_utf8_lossy(&output.stderr).contains("no response from Meta"), "{output:?}");
    let calls = calls(&folder);
    assert_eq!(calls[..2], ["configure get region", "configure export-credentials --format process"]);
    assert!(calls[2..].iter().all(|call| call.contains("--region eu-west-1 ")), "{calls:?}");
}

#[tokio::test]
async fn missing_region_is_reported() {
    assert_eq!(error("exit 1", &ACCESS_KEY).await, "ingress: no AWS region is set: set AWS_REGION or AWS_PROFILE");
    let unknown = error("echo 'The config profile (x) could not be found' >&2", &[("AWS_PROFILE", "x")]).await;
    assert!(unknown.ends_with("failed: The config profile (x) could not be found"), "{unknown}");
}

#[tokio::test]
async fn missing_credentials_are_reported() {
    let script = "echo 'Unable to retrieve credentials' >&2; exit 255";
    let expected = "ingress: no AWS credentials are set: set AWS_PROFILE, or sign in (Unable to retrieve credentials)";
    assert_eq!(error(script, &[REGION]).await, expected);
}

#[tokio::test]
async fn version_1_without_keys_is_reported() {
    let script = "echo 'aws: error: argument subcommand: Invalid selection, valid choices are:' >&2; exit 252";
    assert!(error(script, &[REGION]).await.contains("install version 2, or set AWS_ACCESS_KEY_ID"));
}

#[tokio::test]
async fn error_of_aws_is_passed_on() {
    let message = "An error occurred (ValidationError) when calling the DescribeStacks operation: \
                   Stack with id a-stack does not exist";
    assert_eq!(
        error(&format!("echo; echo '{message}' >&2"), &with_access_key(REGION)).await,
        format!("ingress: `aws cloudformation describe-stacks` failed: {message}")
    );
}

#[tokio::test]
async fn stack_of_another_template_is_reported() {
    for (missing, lacks) in [("FunctionName", "the output FunctionName"), ("CallbackUrl", "the output CallbackUrl")] {
        let script = DescribedStack { missing, ..DescribedStack::default() }.script();
        assert_eq!(
            error(&script, &with_access_key(REGION)).await,
            format!("ingress: the stack a-stack was not deployed from this template: it lacks {lacks}")
        );
    }
    let script = DescribedStack { queues: "{}", ..DescribedStack::default() }.script();
    assert!(error(&script, &with_access_key(REGION)).await.ends_with("it lacks the function's QUEUE_URLS"));
}

#[tokio::test]
async fn missing_cli_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let output = subscribe(&folder, &[&with_access_key(REGION)[..], &[("PATH", "/nowhere")]].concat()).await;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.starts_with("ingress: the AWS CLI is not installed: install version 2"), "{error}");
}

pub(crate) async fn backlogs(stack: &StackInfo, folder: &TempDir, script: &str) -> Backlogs {
    write_aws(folder.path(), script);
    Backlogs::of(stack, &AwsCli { program: folder.path().join("aws"), ..AwsCli::default() }).await
}

#[tokio::test]
async fn newest_age_of_each_queue_counts() {
    let sqs = Sqs::start(&["unrouted", "calls", "calls-dead"]).await;
    let stack = sqs.info(&[("*", "unrouted"), ("calls", "calls")]);
    let at = |minutes: u32| format!("2026-11-26T01:{:02}:00+00:00", 59 - minutes);
    let results = json!([
        ["a-stack-calls", [at(3), at(2), at(4)], [7200.0, 7260.0, 7140.0]],
        ["a-stack-calls-dead", [at(9)], [61.5]],
        ["a-stack-unrouted", [], []],
        ["a-stack-calls", [at(5)], [7080.0]],
    ]);
    let folder = tempfile::tempdir().unwrap();

    let backlogs = backlogs(&stack, &folder, &format!("echo '{results}'; exit")).await;

    let ages: Vec<_> = backlogs.queues.iter().map(|queue| queue.depth.oldest_seconds).collect();
    assert_eq!((ages.as_slice(), backlogs.ages_error), (&[Some(7260), None][..], None));
    assert_eq!(backlogs.queues[0].dead_letter_queue.as_ref().unwrap().oldest_seconds, Some(61));
    let [call] = calls(&folder).try_into().unwrap();
    let (_, queries) = call.split_once("--metric-data-queries ").unwrap();
    let (queries, rest) = queries.split_once(" --start-time ").unwrap();
    let queries: Value = serde_json::from_str(queries).unwrap();
    let dimension = &queries[1]["MetricStat"]["Metric"]["Dimensions"][0];
    assert_eq!(dimension, &json!({ "Name": "QueueName", "Value": "a-stack-calls-dead" }));
    assert!(rest.contains(" --region us-east-1 --output json "), "{call}");
}

#[tokio::test]
async fn counts_remain_if_cloudwatch_fails() {
    let sqs = Sqs::start(&["unrouted"]).await;
    let stack = sqs.info(&[("*", "unrouted")]);
    let folder = tempfile::tempdir().unwrap();

    let failed = backlogs(&stack, &folder, "echo 'An error occurred (AccessDenied)' >&2").await;
    let reason = "`aws cloudwatch get-metric-data` failed: An error occurred (AccessDenied)";
    assert_eq!((failed.queues.len(), failed.ages_error.as_deref()), (1, Some(reason)));

    let unparsable = backlogs(&stack, &folder, "echo '{}'; exit").await;
    let reason = unparsable.ages_error.unwrap();
    assert!(reason.starts_with("cannot parse the response of `aws cloudwatch get-metric-data`"), "{reason}");
}

#[tokio::test]
async fn local_stack_needs_no_aws_cli() {
    let sqs = Sqs::start(&["unrouted"]).await;
    let stack = StackInfo { log: Some("a.log".into()), ..sqs.info(&[("*", "unrouted")]) };

    let backlogs = Backlogs::of(&stack, &AwsCli { program: "no/such/aws".into(), ..AwsCli::default() }).await;

    assert_eq!((backlogs.queues.len(), backlogs.ages_error), (1, None));
}
