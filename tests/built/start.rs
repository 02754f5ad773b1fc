//! The start: settings and secrets that cannot be worked with end it, and say what is wrong.

use std::time::Duration;

use fake_aws::{FakeAws, Fault, Function, Times};
use serde_json::{Value, json};

use crate::{
    notification::Notification,
    stored::Copy::Own,
    webhook::{SECRET_ID, VERIFY_TOKEN, Webhook, bootstrap},
};

/// The time that Lambda gives to init.
const INIT: Duration = Duration::from_secs(10);

/// Starts the function, sees it end before it asks for an event, and gives what its only line of log says.
async fn problem(aws: &FakeAws, variables: &[(&str, &str)]) -> String {
    let _ = aws.queue("unrouted");
    let function = Function::start(bootstrap(), aws, variables.iter().copied());
    let failure = function.ready(INIT).await.expect_err("the start fails");
    assert_eq!(failure.exit.and_then(|status| status.code()), Some(1), "{failure}");
    let [line] = &failure.logs[..] else { panic!("{failure}") };
    assert!(!line.contains("hush"), "{line}");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["level"], &line["message"]), (&json!("ERROR"), &json!("cannot start")));
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    line["error.text"].as_str().unwrap().to_owned()
}

const QUEUES: &str = r#"{"*":"https://sqs.eu-central-1.amazonaws.com/123456789012/unrouted"}"#;

#[tokio::test]
async fn a_setting_that_is_missing_or_wrong_is_named_before_anything_is_called() {
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
            "QUEUE_URLS has no queue's URL or name as the value of `*`",
        ),
        (vec![("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES), ("PAYLOAD_BUCKET", "")], "PAYLOAD_BUCKET is empty"),
    ];
    for (variables, expected) in cases {
        let problem = problem(&aws, &variables).await;
        assert!(problem.starts_with(expected), "{problem}");
    }
    assert_eq!(aws.accepted_connections(), 0);
}

#[tokio::test]
async fn a_secret_that_cannot_be_worked_with_is_refused_by_member() {
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
        let problem = problem(&aws, &[("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES)]).await;
        assert!(problem.starts_with(expected), "{problem}");
    }
    aws.set_secret(SECRET_ID, r#"{"app_secret":"hush","verify_token":"hush""#);
    let truncated = problem(&aws, &[("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES)]).await;
    assert!(truncated.starts_with("the secret must be a JSON object"), "{truncated}");
    aws.set_binary_secret(SECRET_ID, json!({"app_secret": "hush", "verify_token": "hush"}).to_string());
    let binary = problem(&aws, &[("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES)]).await;
    assert!(binary.starts_with("the secret must be a JSON object"), "{binary}");
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_ends_the_start_within_lambdas_limit() {
    let text = json!({"SecretString": "hush", "verify_token": VERIFY_TOKEN}).to_string();
    let faults = [
        (Fault::access_denied(), "AccessDeniedException"),
        (Fault::kms_disabled(), "DecryptionFailure"),
        (Fault::internal_error(), "InternalServiceError"),
        (Fault::throttled(), "ThrottlingException"),
        (Fault::hang(), "timeout"),
        (Fault::store_and_stall(), "timeout"),
        (Fault::drop_unread(), ""),
        (Fault::drop_connection(), ""),
        (Fault::store_and_truncate(), ""),
        (Fault::store_and_answer(200, &text[..text.len() / 2]), ""),
        (Fault::store_and_answer(200, r#"{"SecretString":["hush"]}"#), ""),
        (Fault::store_and_answer(502, "<html>hush</html>"), ""),
    ];
    futures_util::future::join_all(faults.into_iter().map(async |(fault, expected)| {
        let aws = FakeAws::start();
        aws.set_secret(SECRET_ID, json!({"app_secret": "hush", "verify_token": "hush"}).to_string());
        aws.secrets().fault(fault.clone(), Times::Always);
        let problem = problem(&aws, &[("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES)]).await;
        let named = problem.starts_with("the secret of SECRET_ID cannot be read: ") && problem.contains(expected);
        assert!(named, "{}: {problem}", fault.name());
    }))
    .await;
    let aws = FakeAws::start();
    let missing = problem(&aws, &[("SECRET_ID", SECRET_ID), ("QUEUE_URLS", QUEUES)]).await;
    assert!(missing.contains("ResourceNotFoundException"), "{missing}");
}

#[tokio::test]
async fn a_secret_that_is_read_at_the_second_try_is_as_good_and_may_be_named_by_its_arn() {
    let aws = FakeAws::start();
    aws.set_secret(SECRET_ID, json!({"app_secret": ["hush", "hush, too"], "verify_token": "hush"}).to_string());
    aws.secrets().fault(Fault::drop_connection(), Times::Once);
    let _ = aws.queue("unrouted");
    let variables = [("SECRET_ID", FakeAws::secret_arn(SECRET_ID)), ("QUEUE_URLS", QUEUES.to_owned())];
    let function = Function::start(bootstrap(), &aws, variables);
    function.ready(INIT).await.unwrap();
    let lines = function.stop();
    let [warning] = &lines[..] else { panic!("{lines:#?}") };
    assert!(warning.contains("app_secret in the secret is not 32 hexadecimal digits"), "{warning}");
    assert!(!warning.contains("hush"), "{warning}");
}

/// Where it runs outside of Lambda, that is.
#[tokio::test]
async fn credentials_that_are_not_in_the_environment_are_looked_for_where_every_sdk_does() {
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
    start(file).ready(INIT).await.unwrap();
    let failure = start("/nonexistent").ready(INIT).await.unwrap_err();
    assert!(failure.to_string().contains("the secret of SECRET_ID cannot be read: "), "{failure}");
}

/// The first request of a new sandbox finds a connection to SQS, whose handshake took nothing of its time.
#[tokio::test]
async fn the_first_request_finds_the_connection_that_the_start_has_made() {
    for aws in [FakeAws::start(), FakeAws::start_tls()] {
        let secrets = aws.another_endpoint();
        let webhook = Webhook::with_aws(aws, &[("AWS_ENDPOINT_URL_SECRETS_MANAGER", &secrets)]);
        webhook.function.ready(INIT).await.unwrap();
        assert_eq!(webhook.aws.accepted_connections(), 2);
        let sent = Notification::of(&["messages", "messages"]);
        assert_eq!(webhook.deliver(&sent.body).await.status, 200);
        assert_eq!((webhook.copies(&sent), webhook.aws.accepted_connections()), (vec![vec![Own]; 2], 2));
        assert!(webhook.function.log_line("stored", INIT).await.is_some());
        assert_eq!(webhook.function.logs().len(), 1);
    }
}

/// What the start learns of SQS is told and costs nothing: SQS may work again when the first message comes.
#[tokio::test]
async fn an_sqs_that_fails_at_the_start_is_logged_and_the_start_goes_on() {
    let faults = [
        (Fault::access_denied(), "AccessDenied"),
        (Fault::queue_does_not_exist(), "NonExistentQueue"),
        (Fault::internal_error(), "InternalFailure (500)"),
        (Fault::drop_connection(), ""),
        (Fault::hang(), "timeout"),
        (Fault::store_and_garble(), ""),
    ];
    futures_util::future::join_all(faults.into_iter().map(async |(fault, expected)| {
        let aws = FakeAws::start();
        let injected = aws.sqs().fault(fault.clone(), Times::Always);
        let webhook = Webhook::with_aws(aws, &[]);
        webhook.function.ready(INIT / 2).await.unwrap();
        assert_eq!(injected.fired(), 1, "{}", fault.name());
        injected.clear();
        let line = webhook.function.log_line("SQS may not take messages", INIT).await.unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["level"], &line["queue.name"]), (&json!("WARN"), &json!("unrouted")));
        assert!(line["error.reason"].as_str().unwrap().contains(expected), "{}: {line}", fault.name());
        let sent = Notification::of(&["messages"]);
        assert_eq!((webhook.deliver(&sent.body).await.status, webhook.copies(&sent)), (200, vec![vec![Own]]));
    }))
    .await;
}
