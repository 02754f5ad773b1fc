//! The start: invalid settings and secrets end it with an error message.

use std::time::Duration;

use fake_aws::{FakeAws, Fault, Frequency, Function};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::{
    log_line,
    notification::Notification,
    stored::Placement::Own,
    webhook::{SECRET_ID, VERIFY_TOKEN, Webhook, bootstrap},
};

/// The time that Lambda allows for init.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How many functions start at a time. More need too much processor time in an emulator.
const MAX_STARTS: usize = 3;

/// Expects that the start fails, and returns the error text of its only log line.
async fn start_error(aws: &FakeAws, variables: &[(&str, &str)]) -> String {
    let _ = aws.queue("unrouted");
    let function = Function::start(bootstrap(), aws, variables.iter().copied());
    let error = function.wait_for_init(INIT_TIMEOUT).await.expect_err("the start fails");
    assert_eq!(error.exit.and_then(|status| status.code()), Some(1), "{error}");
    let [line] = &error.logs[..] else { panic!("{error}") };
    assert!(!line.contains("hush"), "{line}");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["level"], &line["message"]), (&json!("ERROR"), &json!("cannot start")));
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    line["error.text"].as_str().unwrap().to_owned()
}

const QUEUES: &str = r#"{"*":"https://sqs.eu-central-1.amazonaws.com/123456789012/unrouted"}"#;

#[tokio::test]
async fn invalid_setting_is_reported_before_any_call() {
    let aws = FakeAws::start();
    aws.set_secret(SECRET_ID, json!({"app_secret": "hush", "verify_token": "hush"}).to_string());
    let cases = [
        (vec![], "SECRET_ID is not set"),
        (vec![("QUEUE_URLS", QUEUES)], "SECRET_ID is not set"),
        (vec![("QUEUE_URLS", QUEUES), ("SECRET_ID", " ")], "SECRET_ID is empty"),
        (vec![("SECRET_ID", SECRET_ID)], "QUEUE_URLS is not set"),
        (vec![("SECRET_ID", SECRET_ID), ("QUEUE_URLS", "messages")], "QUEUE_URLS is not a JSON object"),
        (vec![("SECRET_ID", SECRET_ID), ("QUEUE_URLS", r#"{"messages":"m"}"#)], "QUEUE_URLS has no route `*`"),
        (
            vec![("SECRET_ID", SECRET_ID), ("QUEUE_URLS", r#"{"*":"unrouted"}"#)],
            "QUEUE_URLS has a name for the route `*`, which must be a URL",
        ),
        (
            vec![("SECRET_ID", SECRET_ID), ("QUEUE_URLS", r#"{"*":"https://sqs/1/q","messages@x":"m"}"#)],
            "QUEUE_URLS has the invalid route `messages@x`",
        ),
        (
            vec![
                ("SECRET_ID", SECRET_ID),
                ("QUEUE_URLS", r#"{"*":"https://sqs/1/q","calls":["m","https://sqs/1/m"]}"#),
            ],
            "QUEUE_URLS has the queue name `m` twice for the route `calls`",
        ),
        (vec![("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES), ("PAYLOAD_BUCKET", "")], "PAYLOAD_BUCKET is empty"),
    ];
    for (variables, expected) in cases {
        let error = start_error(&aws, &variables).await;
        assert!(error.starts_with(expected), "{error}");
    }
    assert_eq!(aws.accepted_connections(), 0);
}

#[tokio::test]
async fn invalid_secret_is_reported_by_member() {
    let aws = FakeAws::start();
    let cases = [
        (json!("hush"), "the secret must be a JSON object"),
        (json!({"verify_token": "hush"}), "app_secret in the secret is missing"),
        (json!({"app_secret": "hush"}), "verify_token in the secret is missing"),
        (json!({"app_secret": "", "verify_token": "hush"}), "app_secret in the secret is empty or blank"),
        (json!({"app_secret": ["hush", " "], "verify_token": "hush"}), "app_secret in the secret is empty or blank"),
        (json!({"app_secret": [], "verify_token": "hush"}), "app_secret in the secret is an empty list"),
        (
            json!({"app_secret": "REPLACE_ME", "verify_token": "hush"}),
            "app_secret in the secret is still the placeholder",
        ),
        (json!({"app_secret": "hush", "verify_token": "REPLACE_ME"}), "verify_token in the secret is still"),
        (json!({"app_secret": {"hush": 1}, "verify_token": "hush"}), "app_secret in the secret is not a string"),
        (json!({"app_secret": "hush", "verify_token": ["hush"]}), "verify_token in the secret is not a string"),
        (json!({"app_secret": "hush\n", "verify_token": "hush"}), "app_secret in the secret has white space around it"),
        (json!({"app_secret": "hush", "verify_token": "\"hush\""}), "verify_token in the secret is in quotes"),
    ];
    for (secret, expected) in cases {
        aws.set_secret(SECRET_ID, secret.to_string());
        let error = start_error(&aws, &[("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES)]).await;
        assert!(error.starts_with(expected), "{error}");
    }
    aws.set_secret(SECRET_ID, r#"{"app_secret":"hush","verify_token":"hush""#);
    let truncated = start_error(&aws, &[("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES)]).await;
    assert!(truncated.starts_with("the secret must be a JSON object"), "{truncated}");
    aws.set_binary_secret(SECRET_ID, json!({"app_secret": "hush", "verify_token": "hush"}).to_string());
    let binary = start_error(&aws, &[("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES)]).await;
    assert!(binary.starts_with("the secret must be a JSON object"), "{binary}");
}

#[tokio::test]
async fn unreadable_secret_ends_the_start_in_time() {
    let text = json!({"SecretString": "hush", "verify_token": VERIFY_TOKEN}).to_string();
    // Those that take all the time come first.
    let faults = [
        (Fault::hang(), "timeout"),
        (Fault::commit_then_stall(), "timeout"),
        (Fault::access_denied(), "AccessDeniedException"),
        (Fault::kms_disabled(), "DecryptionFailure"),
        (Fault::internal_error(), "InternalServiceError"),
        (Fault::throttled(), "ThrottlingException"),
        (Fault::drop_unread(), ""),
        (Fault::drop_connection(), ""),
        (Fault::commit_then_truncate(), ""),
        (Fault::commit_then_respond(200, &text[..text.len() / 2]), ""),
        (Fault::commit_then_respond(200, r#"{"SecretString":["hush"]}"#), ""),
        (Fault::commit_then_respond(502, "<html>hush</html>"), ""),
    ];
    stream::iter(faults)
        .for_each_concurrent(MAX_STARTS, async |(fault, expected)| {
            let aws = FakeAws::start();
            aws.set_secret(SECRET_ID, json!({"app_secret": "hush", "verify_token": "hush"}).to_string());
            aws.secrets().inject_fault(fault.clone(), Frequency::Always);
            let error = start_error(&aws, &[("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES)]).await;
            let is_explained =
                error.starts_with("the secret of SECRET_ID cannot be read: ") && error.contains(expected);
            assert!(is_explained, "{}: {error}", fault.name());
        })
        .await;
    let aws = FakeAws::start();
    let missing = start_error(&aws, &[("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES)]).await;
    assert!(missing.contains("ResourceNotFoundException"), "{missing}");
}

#[tokio::test]
async fn secret_is_read_by_arn_after_a_retry() {
    let aws = FakeAws::start();
    aws.set_secret(SECRET_ID, json!({"app_secret": ["hush", "hush, too"], "verify_token": "hush"}).to_string());
    aws.secrets().inject_fault(Fault::drop_connection(), Frequency::Once);
    let _ = aws.queue("unrouted");
    let variables = [("SECRET_ID", FakeAws::secret_arn(SECRET_ID)), ("QUEUE_URLS", QUEUES.to_owned())];
    let function = Function::start(bootstrap(), &aws, variables);
    function.wait_for_init(INIT_TIMEOUT).await.unwrap();
    let lines = function.stop();
    let [warning, started] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!(log_line::parse(started)["message"], "started");
    assert!(warning.contains("app_secret in the secret is not 32 hexadecimal digits"), "{warning}");
    assert!(!warning.contains("hush"), "{warning}");
}

#[tokio::test]
async fn started_line_has_the_version() {
    let webhook = Webhook::start();
    webhook.function.wait_for_init(INIT_TIMEOUT).await.unwrap();
    let line = webhook.function.wait_for_log_line(r#""message":"started""#, INIT_TIMEOUT).await.unwrap();
    let line = log_line::parse(&line);
    assert_eq!((&line["level"], &line["version"]), (&json!("INFO"), &json!(env!("CARGO_PKG_VERSION"))));
}

/// For a function that does not run in Lambda.
#[tokio::test]
async fn credentials_are_read_from_the_credentials_file() {
    let aws = FakeAws::start();
    aws.set_secret(SECRET_ID, json!({"app_secret": "hush", "verify_token": "hush"}).to_string());
    let _ = aws.queue("unrouted");
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/credentials");
    std::fs::write(file, "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = hush\n")
        .unwrap();
    let start = |file: &str| {
        let blank = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("AWS_SHARED_CREDENTIALS_FILE", file)];
        let settings = [("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES)];
        Function::start(bootstrap(), &aws, blank.into_iter().chain(settings))
    };
    start(file).wait_for_init(INIT_TIMEOUT).await.unwrap();
    let error = start("/nonexistent").wait_for_init(INIT_TIMEOUT).await.unwrap_err();
    assert!(error.to_string().contains("the secret of SECRET_ID cannot be read: "), "{error}");
}

/// The handshake with SQS takes place during init, not during the first request.
#[tokio::test]
async fn first_request_uses_the_connection_of_the_start() {
    for aws in [FakeAws::start(), FakeAws::start_tls()] {
        let secrets = aws.add_endpoint();
        let webhook = Webhook::with_aws(aws, &[("AWS_ENDPOINT_URL_SECRETS_MANAGER", &secrets)]);
        webhook.function.wait_for_init(INIT_TIMEOUT).await.unwrap();
        assert_eq!(webhook.aws.accepted_connections(), 2);
        let sent = Notification::of(&["messages", "messages"]);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200);
        assert_eq!((webhook.copies(&sent), webhook.aws.accepted_connections()), (vec![vec![Own]; 2], 2));
        assert!(webhook.function.wait_for_log_line("stored", INIT_TIMEOUT).await.is_some());
        let messages: Vec<_> =
            webhook.function.logs().iter().map(|line| log_line::parse(line)["message"].clone()).collect();
        assert_eq!(messages, ["started", "stored"]);
    }
}

/// SQS may be available again when the first message arrives.
#[tokio::test]
async fn sqs_error_at_the_start_is_only_logged() {
    let faults = [
        (Fault::access_denied(), "AccessDenied"),
        (Fault::resource_does_not_exist(), "NonExistentQueue"),
        (Fault::internal_error(), "InternalFailure (500)"),
        (Fault::drop_connection(), ""),
        (Fault::hang(), "timeout"),
        (Fault::commit_then_garble(), ""),
    ];
    futures_util::future::join_all(faults.into_iter().map(async |(fault, expected)| {
        let aws = FakeAws::start();
        let handle = aws.sqs().inject_fault(fault.clone(), Frequency::Always);
        let webhook = Webhook::with_aws(aws, &[]);
        webhook.function.wait_for_init(INIT_TIMEOUT / 2).await.unwrap();
        assert_eq!(handle.fired(), 1, "{}", fault.name());
        handle.clear();
        let line =
            webhook.function.wait_for_log_line("probe of the catch-all queue failed", INIT_TIMEOUT).await.unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["level"], &line["queue.name"]), (&json!("WARN"), &json!("unrouted")));
        assert!(line["error.reason"].as_str().unwrap().contains(expected), "{}: {line}", fault.name());
        let sent = Notification::of(&["messages"]);
        assert_eq!((webhook.deliver(&sent.body).await.status, webhook.copies(&sent)), (200, vec![vec![Own]]));
    }))
    .await;
}
