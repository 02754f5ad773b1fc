//! Tests of the Runtime API with the client of the crate `lambda_runtime`. The tests start this test program as the function,
//! which then runs only `bootstrap`.

use fake_aws::{FakeAws, Function, Outcome};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, SystemTime};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The function. Does nothing if the test runner calls it.
#[tokio::test]
async fn bootstrap() {
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        return;
    }
    if let Ok(message) = std::env::var("FAIL_IN_INIT") {
        eprintln!("{message}");
        std::process::exit(3);
    }
    if std::env::var_os("HANG_IN_INIT").is_some() {
        tokio::time::sleep(TIMEOUT).await;
    }
    lambda_runtime::run(service_fn(handle)).await.expect("the Runtime API is available");
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    match event.payload["do"].as_str() {
        Some("fail") => Err("failed on request".into()),
        Some("panic") => panic!("panicked on request"),
        Some("exit") => std::process::exit(4),
        Some("hang") => std::future::pending().await,
        Some("sleep") => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(Value::Null)
        }
        Some("environment") => {
            Ok(std::env::vars().collect::<Vec<_>>().into_iter().map(|(k, v)| json!([k, v])).collect())
        }
        _ => {
            eprintln!("handling {}", event.context.request_id);
            Ok(json!({
                "event": event.payload,
                "deadline": event.context.deadline,
                "arn": event.context.invoked_function_arn,
                "trace": event.context.xray_trace_id,
                "request_id": event.context.request_id,
            }))
        }
    }
}

fn start(aws: &FakeAws, variables: &[(&str, &str)]) -> Function {
    let mut command = Command::new(std::env::current_exe().expect("the test program has a path"));
    command.args(["bootstrap", "--exact", "--nocapture"]);
    Function::start_command(command, aws, variables.iter().copied())
}

#[tokio::test]
async fn event_and_response_pass_unchanged() {
    let aws = FakeAws::start();
    let function = start(&aws, &[]);
    let init = function.wait_for_init(TIMEOUT).await.expect("init ends");
    assert!(init > Duration::ZERO && init < TIMEOUT);
    for number in 1..=3 {
        let event = json!({ "text": "käse\n", "number": number });
        let invocation = function.invoke(&event, TIMEOUT).await;
        let response = invocation.response().expect("the function responds");
        assert_eq!(response["event"], event);
        assert_eq!(response["request_id"], invocation.request_id);
        assert_eq!(response["arn"], "arn:aws:lambda:eu-central-1:123456789012:function:function");
        assert!(response["trace"].as_str().is_some_and(|trace| trace.starts_with("Root=1-")));
        let remaining = Duration::from_millis(response["deadline"].as_u64().expect("a number"));
        let remaining = remaining
            .checked_sub(SystemTime::UNIX_EPOCH.elapsed().expect("a time"))
            .expect("the deadline is in the future");
        assert!(remaining <= TIMEOUT && remaining + Duration::from_secs(5) > TIMEOUT, "{remaining:?}");
        assert!(invocation.ended.duration_since(function.started()) >= init);
        let line = format!("handling {}", invocation.request_id);
        assert!(function.wait_for_log_line(&line, TIMEOUT).await.is_some(), "{:?}", function.logs());
    }
    let logs = function.stop();
    assert_eq!(logs.iter().filter(|line| line.starts_with("handling")).count(), 3, "{logs:?}");
}

#[tokio::test]
async fn clock_lag_moves_only_the_deadline() {
    let aws = FakeAws::start();
    let function = start(&aws, &[]);
    function.wait_for_init(TIMEOUT).await.expect("init ends");
    let hour = Duration::from_hours(1);
    function.set_clock_lag(hour);
    let invocation = function.invoke("{}", TIMEOUT).await;
    let deadline = invocation.response().expect("the function responds")["deadline"].as_u64().expect("a number");
    let remaining = Duration::from_millis(deadline).checked_sub(SystemTime::UNIX_EPOCH.elapsed().expect("a time"));
    assert!(remaining.is_some_and(|remaining| remaining > hour && remaining <= hour + TIMEOUT), "{remaining:?}");
    let hanging = function.invoke(r#"{"do":"hang"}"#, Duration::from_millis(300)).await;
    assert_eq!(hanging.outcome, Outcome::TimedOut);
}

#[tokio::test]
async fn next_event_is_handled_after_error_or_panic() {
    let aws = FakeAws::start();
    let function = start(&aws, &[]);
    for (event, message) in [(r#"{"do":"fail"}"#, "failed on request"), (r#"{"do":"panic"}"#, "panicked on request")] {
        let invocation = function.invoke(event, TIMEOUT).await;
        let Outcome::FunctionError { error_type, error_message } = invocation.outcome else { panic!("{invocation:?}") };
        assert!(error_message.contains(message), "{error_message}");
        assert!(!error_type.is_empty());
    }
    assert!(function.invoke("{}", TIMEOUT).await.response().is_some());
    assert!(!function.has_exited());
}

#[tokio::test]
async fn timeout_kills_the_process() {
    let aws = FakeAws::start();
    let function = start(&aws, &[]);
    function.wait_for_init(TIMEOUT).await.expect("init ends");
    let invocation = function.invoke(r#"{"do":"hang"}"#, Duration::from_millis(300)).await;
    assert_eq!(invocation.outcome, Outcome::TimedOut);
    assert!(invocation.elapsed >= Duration::from_millis(300), "{:?}", invocation.elapsed);
    assert!(function.has_exited());
    assert!(matches!(function.invoke("{}", TIMEOUT).await.outcome, Outcome::Exited(_)));
}

#[tokio::test]
async fn exit_during_invocation_is_reported() {
    let aws = FakeAws::start();
    let function = start(&aws, &[]);
    let invocation = function.invoke(r#"{"do":"exit"}"#, TIMEOUT).await;
    let Outcome::Exited(status) = invocation.outcome else { panic!("{invocation:?}") };
    assert_eq!(status.code(), Some(4));
}

#[tokio::test]
async fn failed_init_reports_exit_status_and_logs() {
    let aws = FakeAws::start();
    let function = start(&aws, &[("FAIL_IN_INIT", "QUEUE_URLS is missing")]);
    let failure = function.wait_for_init(TIMEOUT).await.expect_err("init fails");
    assert_eq!(failure.exit.and_then(|status| status.code()), Some(3));
    assert!(failure.logs.iter().any(|line| line == "QUEUE_URLS is missing"), "{failure}");

    let function = start(&aws, &[("HANG_IN_INIT", "")]);
    let failure = function.wait_for_init(Duration::from_millis(300)).await.expect_err("init does not end");
    assert_eq!(failure.exit, None);
}

#[tokio::test]
async fn invocations_of_one_function_are_sequential() {
    let aws = FakeAws::start();
    let (first_function, second_function) = (start(&aws, &[]), start(&aws, &[]));
    first_function.wait_for_init(TIMEOUT).await.expect("init ends");
    second_function.wait_for_init(TIMEOUT).await.expect("init ends");
    let event = r#"{"do":"sleep"}"#;
    let (first, second, parallel) = tokio::join!(
        first_function.invoke(event, TIMEOUT),
        first_function.invoke(event, TIMEOUT),
        second_function.invoke(event, TIMEOUT)
    );
    let (earlier, later) = (first.ended.min(second.ended), first.ended.max(second.ended));
    assert!(later - earlier >= Duration::from_millis(100));
    assert!(parallel.ended < later);
}

#[tokio::test]
async fn function_gets_only_variables_of_lambda_and_test() {
    let aws = FakeAws::start();
    let function = start(&aws, &[("SECRET_ID", "ingress"), ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")]);
    let invocation = function.invoke(r#"{"do":"environment"}"#, TIMEOUT).await;
    let variables = invocation.response().and_then(Value::as_array).expect("a list");
    let value = |name: &str| variables.iter().find(|pair| pair[0] == name).map(|pair| pair[1].clone());
    assert_eq!(value("SECRET_ID"), Some(json!("ingress")));
    assert_eq!(value("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"), Some(json!("128")));
    assert_eq!(value("AWS_ENDPOINT_URL"), Some(json!(aws.endpoint())));
    assert_eq!(value("CARGO_MANIFEST_DIR"), None);
    assert_eq!(value("HOME"), None);
}

#[tokio::test]
async fn dropping_a_function_kills_its_process() {
    let aws = FakeAws::start();
    let function = start(&aws, &[]);
    function.wait_for_init(TIMEOUT).await.expect("init ends");
    let process = format!("/proc/{}", function.pid());
    assert!(std::path::Path::new(&process).exists());
    drop(function);
    assert!(!std::path::Path::new(&process).exists());
}

#[tokio::test]
async fn tls_function_gets_the_certificate_authority() {
    let aws = FakeAws::start_tls();
    let function = start(&aws, &[]);
    let invocation = function.invoke(json!({ "do": "environment" }), TIMEOUT).await;
    let environment = invocation.response().and_then(Value::as_array).expect("a list");
    let variable =
        |name: &str| environment.iter().find_map(|pair| pair[1].as_str().filter(|_| pair[0] == name)).expect(name);
    let read = |name: &str| std::fs::read_to_string(variable(name)).expect("the file exists");
    assert!(variable("AWS_ENDPOINT_URL").starts_with("https://"));
    let authority = read("NODE_EXTRA_CA_CERTS");
    for name in ["SSL_CERT_FILE", "AWS_CA_BUNDLE"] {
        assert!(read(name).ends_with(&authority));
    }
    assert_eq!(authority.matches("BEGIN CERTIFICATE").count(), 1);
}
