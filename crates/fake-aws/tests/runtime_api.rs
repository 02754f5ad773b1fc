//! Lambda's Runtime API, as `lambda_runtime`'s own client uses it. The function that these tests start is this very
//! program, which then runs `bootstrap` alone.

use fake_aws::{FakeAws, Function, Outcome};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, SystemTime};

const LONG: Duration = Duration::from_secs(10);

/// The function; as a test it has nothing to do.
#[tokio::test]
async fn bootstrap() {
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        return;
    }
    if let Ok(problem) = std::env::var("FAILS_IN_INIT") {
        eprintln!("{problem}");
        std::process::exit(3);
    }
    if std::env::var_os("HANGS_IN_INIT").is_some() {
        tokio::time::sleep(LONG).await;
    }
    lambda_runtime::run(service_fn(handle)).await.expect("the Runtime API is there");
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    match event.payload["do"].as_str() {
        Some("fail") => Err("failed as told".into()),
        Some("panic") => panic!("panicked as told"),
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
    let mut command = Command::new(std::env::current_exe().expect("a test has a program"));
    command.args(["bootstrap", "--exact", "--nocapture"]);
    Function::start_command(command, aws, variables.iter().copied())
}

#[tokio::test]
async fn an_event_arrives_as_it_is_and_its_answer_comes_back() {
    let aws = FakeAws::start();
    let function = start(&aws, &[]);
    let init = function.ready(LONG).await.expect("init ends");
    assert!(init > Duration::ZERO && init < LONG);
    for number in 1..=3 {
        let event = json!({ "text": "käse\n", "number": number });
        let invocation = function.invoke(&event, LONG).await;
        let response = invocation.response().expect("it answers");
        assert_eq!(response["event"], event);
        assert_eq!(response["request_id"], invocation.request_id);
        assert_eq!(response["arn"], "arn:aws:lambda:eu-central-1:123456789012:function:function");
        assert!(response["trace"].as_str().is_some_and(|trace| trace.starts_with("Root=1-")));
        let left = Duration::from_millis(response["deadline"].as_u64().expect("a number"));
        let left = left.checked_sub(SystemTime::UNIX_EPOCH.elapsed().expect("a time")).expect("still to come");
        assert!(left <= LONG && left + Duration::from_secs(5) > LONG, "{left:?}");
        assert!(invocation.ended.duration_since(function.started()) >= init);
        let line = format!("handling {}", invocation.request_id);
        assert!(function.log_line(&line, LONG).await.is_some(), "{:?}", function.logs());
    }
    let logs = function.stop();
    assert_eq!(logs.iter().filter(|line| line.starts_with("handling")).count(), 3, "{logs:?}");
}

#[tokio::test]
async fn clock_lag_moves_the_deadline_only() {
    let aws = FakeAws::start();
    let function = start(&aws, &[]);
    function.ready(LONG).await.expect("init ends");
    let hour = Duration::from_hours(1);
    function.set_clock_lag(hour);
    let invocation = function.invoke("{}", LONG).await;
    let deadline = invocation.response().expect("it answers")["deadline"].as_u64().expect("a number");
    let left = Duration::from_millis(deadline).checked_sub(SystemTime::UNIX_EPOCH.elapsed().expect("a time"));
    assert!(left.is_some_and(|left| left > hour && left <= hour + LONG), "{left:?}");
    let hanging = function.invoke(r#"{"do":"hang"}"#, Duration::from_millis(300)).await;
    assert_eq!(hanging.outcome, Outcome::TimedOut);
}

#[tokio::test]
async fn errors_and_panics_are_reported_and_the_next_event_is_handled() {
    let aws = FakeAws::start();
    let function = start(&aws, &[]);
    for (event, message) in [(r#"{"do":"fail"}"#, "failed as told"), (r#"{"do":"panic"}"#, "panicked as told")] {
        let invocation = function.invoke(event, LONG).await;
        let Outcome::FunctionError { error_type, error_message } = invocation.outcome else { panic!("{invocation:?}") };
        assert!(error_message.contains(message), "{error_message}");
        assert!(!error_type.is_empty());
    }
    assert!(function.invoke("{}", LONG).await.response().is_some());
    assert!(!function.has_exited());
}

#[tokio::test]
async fn an_answer_too_late_costs_the_process_its_life() {
    let aws = FakeAws::start();
    let function = start(&aws, &[]);
    function.ready(LONG).await.expect("init ends");
    let invocation = function.invoke(r#"{"do":"hang"}"#, Duration::from_millis(300)).await;
    assert_eq!(invocation.outcome, Outcome::TimedOut);
    assert!(invocation.elapsed >= Duration::from_millis(300), "{:?}", invocation.elapsed);
    assert!(function.has_exited());
    assert!(matches!(function.invoke("{}", LONG).await.outcome, Outcome::Exited(_)));
}

#[tokio::test]
async fn a_process_that_ends_is_noticed_at_once() {
    let aws = FakeAws::start();
    let function = start(&aws, &[]);
    let invocation = function.invoke(r#"{"do":"exit"}"#, LONG).await;
    let Outcome::Exited(status) = invocation.outcome else { panic!("{invocation:?}") };
    assert_eq!(status.code(), Some(4));
}

#[tokio::test]
async fn a_failing_init_shows_its_status_and_its_words() {
    let aws = FakeAws::start();
    let function = start(&aws, &[("FAILS_IN_INIT", "QUEUE_URLS is missing")]);
    let failure = function.ready(LONG).await.expect_err("init fails");
    assert_eq!(failure.exit.and_then(|status| status.code()), Some(3));
    assert!(failure.logs.iter().any(|line| line == "QUEUE_URLS is missing"), "{failure}");

    let function = start(&aws, &[("HANGS_IN_INIT", "")]);
    let failure = function.ready(Duration::from_millis(300)).await.expect_err("init does not end");
    assert_eq!(failure.exit, None);
}

#[tokio::test]
async fn invocations_of_one_function_take_turns_and_of_two_do_not() {
    let aws = FakeAws::start();
    let (one, other) = (start(&aws, &[]), start(&aws, &[]));
    one.ready(LONG).await.expect("init ends");
    other.ready(LONG).await.expect("init ends");
    let event = r#"{"do":"sleep"}"#;
    let (first, second, elsewhere) =
        tokio::join!(one.invoke(event, LONG), one.invoke(event, LONG), other.invoke(event, LONG));
    let (earlier, later) = (first.ended.min(second.ended), first.ended.max(second.ended));
    assert!(later - earlier >= Duration::from_millis(100));
    assert!(elsewhere.ended < later);
}

#[tokio::test]
async fn the_environment_is_lambdas_and_the_tests_and_nothing_else() {
    let aws = FakeAws::start();
    let function = start(&aws, &[("SECRET_ID", "ingress"), ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")]);
    let invocation = function.invoke(r#"{"do":"environment"}"#, LONG).await;
    let variables = invocation.response().and_then(Value::as_array).expect("a list");
    let value = |name: &str| variables.iter().find(|pair| pair[0] == name).map(|pair| pair[1].clone());
    assert_eq!(value("SECRET_ID"), Some(json!("ingress")));
    assert_eq!(value("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"), Some(json!("128")));
    assert_eq!(value("AWS_ENDPOINT_URL"), Some(json!(aws.endpoint())));
    assert_eq!(value("CARGO_MANIFEST_DIR"), None);
    assert_eq!(value("HOME"), None);
}

#[tokio::test]
async fn a_dropped_function_runs_no_more() {
    let aws = FakeAws::start();
    let function = start(&aws, &[]);
    function.ready(LONG).await.expect("init ends");
    let process = format!("/proc/{}", function.pid());
    assert!(std::path::Path::new(&process).exists());
    drop(function);
    assert!(!std::path::Path::new(&process).exists());
}

#[tokio::test]
async fn over_tls_a_function_is_told_whom_to_trust() {
    let aws = FakeAws::start_tls();
    let function = start(&aws, &[]);
    let answer = function.invoke(json!({ "do": "environment" }), LONG).await;
    let environment = answer.response().and_then(Value::as_array).expect("a list");
    let variable =
        |name: &str| environment.iter().find_map(|pair| pair[1].as_str().filter(|_| pair[0] == name)).expect(name);
    let read = |name: &str| std::fs::read_to_string(variable(name)).expect("the file is there");
    assert!(variable("AWS_ENDPOINT_URL").starts_with("https://"));
    let authority = read("NODE_EXTRA_CA_CERTS");
    for name in ["SSL_CERT_FILE", "AWS_CA_BUNDLE"] {
        assert!(read(name).ends_with(&authority));
    }
    assert_eq!(authority.matches("BEGIN CERTIFICATE").count(), 1);
}
