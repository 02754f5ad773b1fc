//! Refresh of cached secrets. Reads take real time, so the clock is advanced but not paused.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{VERIFY_TOKEN, handle, secret, status};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::Credentials;
use fake_aws::{FakeAws, Fault, Frequency, Queue, event::event};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::util::SubscriberInitExt;
use whatsapp_ingress::{
    aws::without_retries_and_timeouts, handler::Ingress, payload::Payloads, queue::Queues, secrets::SecretCache,
    telemetry::RequestLog,
};
use whatsapp_webhook::{routes::Routes, signature::sign};

struct Environment {
    aws: FakeAws,
    ingress: Ingress,
    log: Log,
    _logging: DefaultGuard,
    _queue: Queue,
}

/// The captured log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Environment {
    /// Makes Secrets Manager slower than SQS, as it is without an open connection.
    async fn new() -> Self {
        Self::shared_by(1).await
    }

    async fn shared_by(requests: usize) -> Self {
        let aws = FakeAws::start();
        let queue = aws.queue("unrouted");
        aws.set_secret("ingress", secret("old", VERIFY_TOKEN));
        let config = config(&aws);
        let secrets =
            SecretCache::read(aws_sdk_secretsmanager::Client::new(&config), "ingress".to_owned()).await.unwrap();
        let without_sdk_retries = without_retries_and_timeouts(&config);
        let routes = Routes::parse(&json!({ "*": queue.url() }).to_string()).unwrap();
        let payloads = Payloads::new(&without_sdk_retries, None, None);
        let queues = Queues::new(aws_sdk_sqs::Client::new(&without_sdk_retries), routes, payloads);
        aws.secrets().set_latency(Duration::from_millis(150));
        let log = Log::default();
        let writer = log.clone();
        let logging = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish().set_default();
        let ingress = Ingress::new(
            secrets.shared_by(requests),
            queues.shared_by(requests),
            RequestLog::new("INFO", "function", log.clone()),
        );
        Self { aws, ingress, log, _logging: logging, _queue: queue }
    }

    /// Counts the log lines with this metric since the last call.
    fn take_metric(&self, metric: &str) -> usize {
        let text = String::from_utf8(std::mem::take(&mut *self.log.0.lock().unwrap())).unwrap();
        text.matches(&format!(r#""{metric}":1"#)).count()
    }

    async fn deliver_signed_with(&self, app_secret: &str) -> u16 {
        let signature = sign(app_secret, b"{}");
        self.send(event("POST", "", &[("x-hub-signature-256", &signature)], b"{}")).await
    }

    async fn challenge(&self, token: &str) -> u16 {
        let query = format!("hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}");
        self.send(event("GET", &query, &[], b"")).await
    }

    async fn send(&self, event: serde_json::Value) -> u16 {
        self.send_within(event, Duration::from_secs(10)).await
    }

    async fn send_within(&self, event: serde_json::Value, deadline: Duration) -> u16 {
        status(&handle(&self.ingress, &event.to_string(), deadline).await)
    }

    /// Runs the refresh in the background until this read of the secret has ended.
    async fn keep_fresh_until_read(&self, number: usize) {
        let is_read = async {
            let has_ended = |call: &fake_aws::Call| call.operation == "GetSecretValue" && call.duration.is_some();
            while self.aws.calls().iter().filter(|call| has_ended(call)).count() < number {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // The function has the response.
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        tokio::select! {
            never = self.ingress.keep_secrets_fresh() => match never {},
            () = is_read => {}
        }
    }

    fn secret_reads(&self) -> usize {
        self.aws.calls().iter().filter(|call| call.operation == "GetSecretValue").count()
    }
}

fn config(aws: &FakeAws) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(aws_sdk_sqs::config::SharedCredentialsProvider::new(Credentials::new(
            "id", "secret", None, None, "test",
        )))
        .endpoint_url(aws.endpoint())
        .build()
}

async fn advance_clock(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn removed_secret_is_rejected_after_two_requests() {
    let environment = Environment::new().await;
    environment.aws.set_secret("ingress", secret("new", VERIFY_TOKEN));
    advance_clock(299).await;
    assert_eq!((environment.deliver_signed_with("old").await, environment.secret_reads()), (200, 1));
    for removed in ["old", "new"] {
        advance_clock(302).await;
        // The first refresh is not complete when the function responds.
        assert_eq!(
            (environment.deliver_signed_with(removed).await, environment.take_metric("SecretRefreshes")),
            (200, 0)
        );
        // The second refresh completes, so the removed secret is rejected from now on.
        assert_eq!(
            (environment.deliver_signed_with(removed).await, environment.take_metric("SecretRefreshes")),
            (200, 1)
        );
        assert_eq!(environment.deliver_signed_with(removed).await, if removed == "old" { 401 } else { 200 });
        assert_eq!(environment.deliver_signed_with("new").await, 200);
        // The rejected signature caused a refresh.
        assert_eq!(environment.take_metric("SecretRefreshes"), usize::from(removed == "old"));
    }
}

/// Follows the steps of `docs/tasks.md`. Meta redelivers rejected notifications, so they must be accepted later.
#[tokio::test]
async fn rotation_of_the_runbook_loses_no_notification() {
    let environment = Environment::new().await;
    let set = |secrets: &[&str]| {
        environment.aws.set_secret("ingress", json!({"app_secret": secrets, "verify_token": VERIFY_TOKEN}).to_string());
    };
    // Meta signs with the new secret before the operator adds it.
    assert_eq!(environment.deliver_signed_with("new").await, 401);
    set(&["new", "old"]);
    assert_eq!(
        (environment.deliver_signed_with("new").await, environment.deliver_signed_with("old").await),
        (401, 200)
    );
    advance_clock(31).await;
    for app_secret in ["new", "old", "new"] {
        assert_eq!(environment.deliver_signed_with(app_secret).await, 200, "{app_secret}");
    }
    // A week later, the operator removes the old secret.
    advance_clock(7 * 24 * 60 * 60).await;
    set(&["new"]);
    assert_eq!(environment.deliver_signed_with("new").await, 200);
    advance_clock(31).await;
    assert_eq!(environment.deliver_signed_with("new").await, 200);
    assert_eq!(
        (environment.deliver_signed_with("old").await, environment.deliver_signed_with("new").await),
        (401, 200)
    );
}

#[tokio::test]
async fn challenge_is_checked_with_fresh_credentials() {
    let environment = Environment::new().await;
    environment.aws.set_secret("ingress", secret("old", "new-token"));
    advance_clock(301).await;
    assert_eq!(environment.challenge(VERIFY_TOKEN).await, 403);
    assert_eq!(environment.challenge("new-token").await, 200);
}

#[tokio::test]
async fn hanging_refresh_backs_off() {
    let environment = Environment::new().await;
    environment.aws.secrets().inject_fault(Fault::hang(), Frequency::Always);
    // Seconds since the previous request, and the minimal wait of the request in milliseconds.
    for (seconds, min_wait_ms) in [
        (301, 0),
        (0, 250),
        (29, 0),
        (2, 500),
        (29, 0),
        (2, 1_000),
        (31, 0),
        (265, 0),
        (4, 1_000),
        (296, 0),
        (4, 1_000),
    ] {
        advance_clock(seconds).await;
        let started = Instant::now();
        assert_eq!(environment.deliver_signed_with("old").await, 200);
        let elapsed = started.elapsed();
        assert_eq!(
            environment.take_metric("SecretFailures"),
            usize::from(min_wait_ms > 0),
            "{seconds} {min_wait_ms} {elapsed:?}"
        );
        assert!(elapsed >= Duration::from_millis(min_wait_ms), "{min_wait_ms} {elapsed:?}");
    }
}

#[tokio::test]
async fn failed_refresh_resets_the_wait() {
    let environment = Environment::new().await;
    advance_clock(301).await;
    assert_eq!((environment.deliver_signed_with("old").await, environment.take_metric("SecretRefreshes")), (200, 0));
    let handle = environment.aws.secrets().inject_fault(Fault::access_denied(), Frequency::Always);
    assert_eq!((environment.deliver_signed_with("old").await, environment.take_metric("SecretFailures")), (200, 1));
    handle.clear();
    advance_clock(31).await;
    assert_eq!((environment.deliver_signed_with("old").await, environment.take_metric("SecretRefreshes")), (200, 0));
}

#[tokio::test]
async fn refresh_leaves_time_for_the_response() {
    let environment = Environment::new().await;
    environment.aws.secrets().inject_fault(Fault::hang(), Frequency::Always);
    advance_clock(301).await;
    let signature = sign("old", b"{}");
    let post = || event("POST", "", &[("x-hub-signature-256", &signature)], b"{}");
    for _ in 0..3 {
        environment.send(post()).await;
        advance_clock(31).await;
    }
    let query = format!("hub.mode=subscribe&hub.challenge=1&hub.verify_token={VERIFY_TOKEN}");
    for event in [post(), event("GET", &query, &[], b"")] {
        let started = Instant::now();
        // One second is reserved for the response. `tests/simulation` checks that the refresh ends in time.
        assert_eq!(environment.send_within(event, Duration::from_millis(1_400)).await, 200);
        assert!(started.elapsed() > Duration::from_millis(350), "{:?}", started.elapsed());
        advance_clock(301).await;
    }
}

#[tokio::test]
async fn concurrent_requests_share_one_refresh() {
    let environment = Environment::new().await;
    advance_clock(301).await;
    let statuses = join_all((0..5).map(|_| environment.challenge(VERIFY_TOKEN))).await;
    assert_eq!((statuses, environment.secret_reads()), (vec![200; 5], 2));
}

#[tokio::test]
async fn failed_refresh_is_retried_after_thirty_seconds() {
    let environment = Environment::new().await;
    environment.aws.secrets().set_latency(Duration::ZERO);
    environment.aws.secrets().inject_fault(Fault::access_denied(), Frequency::Always);
    // Slow enough for the concurrent refresh to complete.
    environment.aws.sqs().set_latency(Duration::from_millis(300));
    advance_clock(301).await;
    for _ in 0..3 {
        assert_eq!((environment.deliver_signed_with("old").await, environment.secret_reads()), (200, 2));
    }
    advance_clock(31).await;
    assert_eq!((environment.deliver_signed_with("old").await, environment.secret_reads()), (200, 3));
}

#[tokio::test]
async fn several_requests_leave_the_refresh_to_background() {
    let environment = Environment::shared_by(8).await;
    environment.aws.set_secret("ingress", secret("new", VERIFY_TOKEN));
    advance_clock(301).await;
    let statuses = join_all((0..8).map(|_| environment.deliver_signed_with("old"))).await;
    assert_eq!((statuses, environment.secret_reads()), (vec![200; 8], 1));
    environment.keep_fresh_until_read(2).await;
    let statuses = join_all(["new", "old", "new"].map(|secret| environment.deliver_signed_with(secret))).await;
    assert_eq!(statuses, [200, 401, 200]);
    // One request reports the read in the background, and the rejected one its own.
    assert_eq!((environment.take_metric("SecretRefreshes"), environment.secret_reads()), (2, 3));
}

#[tokio::test]
async fn failed_refresh_in_background_is_reported_once() {
    let environment = Environment::shared_by(8).await;
    let handle = environment.aws.secrets().inject_fault(Fault::access_denied(), Frequency::Always);
    for read in [2, 3] {
        advance_clock(301).await;
        environment.keep_fresh_until_read(read).await;
        for expected in [1, 0] {
            let status = environment.deliver_signed_with("old").await;
            assert_eq!((status, environment.take_metric("SecretFailures")), (200, expected));
        }
    }
    handle.clear();
    advance_clock(31).await;
    environment.keep_fresh_until_read(4).await;
    let status = environment.deliver_signed_with("old").await;
    assert_eq!((status, environment.take_metric("SecretRefreshes")), (200, 1));
}

#[tokio::test]
async fn forged_request_does_not_wait_for_a_hanging_read() {
    let environment = Environment::shared_by(8).await;
    environment.aws.secrets().inject_fault(Fault::hang(), Frequency::Always);
    advance_clock(302).await;
    let forged = async {
        while environment.secret_reads() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        environment.deliver_signed_with("forged").await
    };
    let status = tokio::select! {
        never = environment.ingress.keep_secrets_fresh() => match never {},
        status = forged => status,
    };
    // A wait until the deadline counts as a failed read.
    assert_eq!((status, environment.take_metric("SecretFailures")), (401, 0));
}
