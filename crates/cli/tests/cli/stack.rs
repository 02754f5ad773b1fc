//! Starts and stops stacks whose scripts are a few lines of shell.

use std::{fs, net::TcpListener, path::Path, time::Duration};

use ingress_tools::{
    aws::stack_info::{StackInfo, StackInfoError},
    endpoint_secrets::EndpointSecrets,
    local::stack::{Stack, StackError, StackOptions},
};
use tempfile::TempDir;
use tokio::time::timeout;

const READY: &str = r#"echo '{"aws_endpoint":"http://127.0.0.1:1","region":"us-east-1","access_key_id":"id",
"secret_access_key":"key","callback_url":"http://api.localhost:1/webhook",
"secret":"{\"verify_token\":\"v\",\"app_secret\":[\"s\",\"old\"]}","stack":"a-stack","queue_urls":{"*":"http://127.0.0.1:1/q"},"log_group":"/aws/lambda/a-stack","outputs":{},"log":"the.log","more":1}' | tr -d '\n'; echo"#;
const UNTIL_INPUT_ENDS: &str = "cat > /dev/null; echo > ended";

fn root(script: &[&str]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("infra")).unwrap();
    fs::write(root.path().join("infra/local_stack.py"), script.join("\n")).unwrap();
    root
}

async fn start(root: &TempDir) -> Result<Stack, StackError> {
    Stack::start(root.path(), Path::new("/bin/sh")).await
}

#[tokio::test]
async fn stack_runs_until_it_is_dropped() {
    let aws = TcpListener::bind("127.0.0.1:0").unwrap();
    let ready = READY.replace("127.0.0.1:1\",\"region", &format!("{}\",\"region", aws.local_addr().unwrap()));
    let root = root(&[&ready, UNTIL_INPUT_ENDS]);
    let mut stack = start(&root).await.unwrap();

    assert_eq!(stack.secrets().app_secret, "s");
    assert_eq!(StackInfo::running(root.path()).unwrap().callback_url, "http://api.localhost:1/webhook");
    assert!(
        timeout(Duration::from_millis(100), stack.wait_for_exit()).await.is_err(),
        "the stack exited while it was waited for"
    );
    assert!(!root.path().join("ended").exists());

    drop(stack);
    assert!(root.path().join("ended").exists());
    assert!(matches!(StackInfo::running(root.path()), Err(StackInfoError::NotRunning)));
}

/// Every process of this computer can read the arguments of the others.
#[tokio::test]
async fn secrets_are_not_passed_as_arguments() {
    let root = root(&[r#"echo "$*" > arguments; echo "$APP_SECRET $VERIFY_TOKEN" > secrets"#, READY, UNTIL_INPUT_ENDS]);
    let secrets = EndpointSecrets { app_secret: "the-secret".to_owned(), verify_token: "the-token".to_owned() };
    let options = StackOptions { secrets: Some(secrets), ..StackOptions::default() };
    Stack::start_with(&options, root.path(), Path::new("/bin/sh")).await.unwrap();

    let read = |name| fs::read_to_string(root.path().join(name)).unwrap();
    assert_eq!(read("arguments"), "--address 127.0.0.1 --archive-days 0 --dir .local/stack\n");
    assert_eq!(read("secrets"), "the-secret the-token\n");

    start(&root).await.unwrap();
    assert_eq!(read("secrets"), " \n");
}

#[tokio::test]
async fn unexpected_exit_is_returned() {
    let root = root(&[READY, "exit 3"]);
    let mut stack = start(&root).await.unwrap();

    assert_eq!(stack.wait_for_exit().await.unwrap().code(), Some(3));
}

#[tokio::test]
async fn exit_before_ready_is_an_error() {
    let error = start(&root(&["exit 1"])).await.unwrap_err();

    assert_eq!(error.to_string(), "the local stack exited before it was ready (exit status: 1)");
}

#[tokio::test(start_paused = true)]
async fn silent_stack_is_stopped_at_the_timeout() {
    let root = root(&[UNTIL_INPUT_ENDS]);

    assert!(matches!(start(&root).await, Err(StackError::Timeout)));
    assert!(root.path().join("ended").exists());
}

#[tokio::test]
async fn invalid_description_is_an_error() {
    assert!(matches!(start(&root(&["echo ready", UNTIL_INPUT_ENDS])).await, Err(StackError::InvalidDescription(_))));
}

#[tokio::test]
async fn missing_interpreter_is_named() {
    let error = Stack::start(root(&[]).path(), Path::new("no/such/python")).await.unwrap_err();

    assert!(error.to_string().starts_with("cannot run no/such/python: "), "{error}");
}
