//! Old secrets: a reading takes as long as it takes, and so the clock jumps but does not stand still.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{VERIFY_TOKEN, handle, secret, status};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::Credentials;
use fake_aws::{FakeAws, Fault, Queue, Times, event::event};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::util::SubscriberInitExt;
use whatsapp_ingress::{
    aws::without_retries, handler::Ingress, payload::Payloads, queue::Queues, secrets::SecretCache,
    telemetry::RequestLog,
};
use whatsapp_webhook::{routes::Routes, signature::sign};

struct Sandbox {
    aws: FakeAws,
    ingress: Ingress,
    log: Log,
    _logging: DefaultGuard,
    _queue: Queue,
}

/// All that is logged.
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

impl Sandbox {
    /// Secrets Manager is slower than SQS, as after minutes without a connection to it.
    async fn new() -> Self {
        let aws = FakeAws::start();
        let queue = aws.queue("unrouted");
        aws.set_secret("ingress", secret("old", VERIFY_TOKEN));
        let config = config(&aws);
        let secrets =
            SecretCache::read(aws_sdk_secretsmanager::Client::new(&config), "ingress".to_owned()).await.unwrap();
        let without_sdk_retries = without_retries(&config);
        let routes = Routes::parse(&json!({ "*": queue.url() }).to_string()).unwrap();
        let payloads = Payloads::new(&without_sdk_retries, None);
        let queues = Queues::new(aws_sdk_sqs::Client::new(&without_sdk_retries), routes, payloads);
        aws.secrets().set_latency(Duration::from_millis(150));
        let log = Log::default();
        let writer = log.clone();
        let logging = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish().set_default();
        let ingress = Ingress::new(secrets, queues, RequestLog::new("INFO", "function", log.clone()));
        Self { aws, ingress, log, _logging: logging, _queue: queue }
    }

    /// How often a metric was told of since this was last asked.
    fn told(&self, metric: &str) -> usize {
        let text = String::from_utf8(std::mem::take(&mut *self.log.0.lock().unwrap())).unwrap();
        text.matches(&format!(r#""{metric}":1"#)).count()
    }

    async fn signed_with(&self, app_secret: &str) -> u16 {
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

    fn reads(&self) -> usize {
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

async fn later(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_removed_secret_stops_working_though_storing_is_faster_than_reading() {
    let sandbox = Sandbox::new().await;
    sandbox.aws.set_secret("ingress", secret("new", VERIFY_TOKEN));
    later(299).await;
    assert_eq!((sandbox.signed_with("old").await, sandbox.reads()), (200, 1));
    for removed in ["old", "new"] {
        later(302).await;
        // The first reading is not over when the request is answered.
        assert_eq!((sandbox.signed_with(removed).await, sandbox.told("SecretRefreshes")), (200, 0));
        // The second one is, and what was removed is gone with it.
        assert_eq!((sandbox.signed_with(removed).await, sandbox.told("SecretRefreshes")), (200, 1));
        assert_eq!(sandbox.signed_with(removed).await, if removed == "old" { 401 } else { 200 });
        assert_eq!(sandbox.signed_with("new").await, 200);
        // The refused one had it read again.
        assert_eq!(sandbox.told("SecretRefreshes"), usize::from(removed == "old"));
    }
}

/// The steps of `docs/operations.md`. Meta sends again what is refused, so that is no loss as long as it is taken then.
#[tokio::test]
async fn a_rotation_as_in_the_runbook_refuses_nothing_that_meta_does_not_send_again() {
    let sandbox = Sandbox::new().await;
    let set = |secrets: &[&str]| {
        sandbox.aws.set_secret("ingress", json!({"app_secret": secrets, "verify_token": VERIFY_TOKEN}).to_string());
    };
    // Meta signs with the new one, which nobody has told us yet; then both are put in.
    assert_eq!(sandbox.signed_with("new").await, 401);
    set(&["new", "old"]);
    assert_eq!((sandbox.signed_with("new").await, sandbox.signed_with("old").await), (401, 200));
    later(31).await;
    for app_secret in ["new", "old", "new"] {
        assert_eq!(sandbox.signed_with(app_secret).await, 200, "{app_secret}");
    }
    // A week later, the new one alone.
    later(7 * 24 * 60 * 60).await;
    set(&["new"]);
    assert_eq!(sandbox.signed_with("new").await, 200);
    later(31).await;
    assert_eq!(sandbox.signed_with("new").await, 200);
    assert_eq!((sandbox.signed_with("old").await, sandbox.signed_with("new").await), (401, 200));
}

#[tokio::test]
async fn a_challenge_is_checked_with_secrets_that_are_not_old() {
    let sandbox = Sandbox::new().await;
    sandbox.aws.set_secret("ingress", secret("old", "new-token"));
    later(301).await;
    assert_eq!(sandbox.challenge(VERIFY_TOKEN).await, 403);
    assert_eq!(sandbox.challenge("new-token").await, 200);
}

#[tokio::test]
async fn hanging_secret_delays_requests_less_and_less_often() {
    let sandbox = Sandbox::new().await;
    sandbox.aws.secrets().fault(Fault::hang(), Times::Always);
    // Seconds since the request before, and what a request then waits at least, in milliseconds.
    for (since, waits) in [
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
        later(since).await;
        let started = Instant::now();
        assert_eq!(sandbox.signed_with("old").await, 200);
        let waited = started.elapsed();
        assert_eq!(sandbox.told("SecretFailures"), usize::from(waits > 0), "{since} {waits} {waited:?}");
        assert!(waited >= Duration::from_millis(waits), "{waits} {waited:?}");
    }
}

#[tokio::test]
async fn a_reading_that_failed_is_followed_by_one_that_nobody_waits_for() {
    let sandbox = Sandbox::new().await;
    later(301).await;
    assert_eq!((sandbox.signed_with("old").await, sandbox.told("SecretRefreshes")), (200, 0));
    let refused = sandbox.aws.secrets().fault(Fault::access_denied(), Times::Always);
    assert_eq!((sandbox.signed_with("old").await, sandbox.told("SecretFailures")), (200, 1));
    refused.clear();
    later(31).await;
    assert_eq!((sandbox.signed_with("old").await, sandbox.told("SecretRefreshes")), (200, 0));
}

#[tokio::test]
async fn refresh_of_an_old_secret_leaves_time_to_answer() {
    let sandbox = Sandbox::new().await;
    sandbox.aws.secrets().fault(Fault::hang(), Times::Always);
    later(301).await;
    let signature = sign("old", b"{}");
    let post = || event("POST", "", &[("x-hub-signature-256", &signature)], b"{}");
    for _ in 0..3 {
        sandbox.send(post()).await;
        later(31).await;
    }
    let query = format!("hub.mode=subscribe&hub.challenge=1&hub.verify_token={VERIFY_TOKEN}");
    for event in [post(), event("GET", &query, &[], b"")] {
        let started = Instant::now();
        // One second is reserved for the answer. `tests/simulation` checks that the refresh ends in time.
        assert_eq!(sandbox.send_within(event, Duration::from_millis(1_400)).await, 200);
        assert!(started.elapsed() > Duration::from_millis(350), "{:?}", started.elapsed());
        later(301).await;
    }
}

#[tokio::test]
async fn one_reading_of_an_old_secret_serves_all_who_wait() {
    let sandbox = Sandbox::new().await;
    later(301).await;
    let all = join_all((0..5).map(|_| sandbox.challenge(VERIFY_TOKEN))).await;
    assert_eq!((all, sandbox.reads()), (vec![200; 5], 2));
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_tried_again_after_thirty_seconds_not_with_every_request() {
    let sandbox = Sandbox::new().await;
    sandbox.aws.secrets().set_latency(Duration::ZERO);
    sandbox.aws.secrets().fault(Fault::access_denied(), Times::Always);
    // Slow enough for the reading beside it to end.
    sandbox.aws.sqs().set_latency(Duration::from_millis(300));
    later(301).await;
    for _ in 0..3 {
        assert_eq!((sandbox.signed_with("old").await, sandbox.reads()), (200, 2));
    }
    later(31).await;
    assert_eq!((sandbox.signed_with("old").await, sandbox.reads()), (200, 3));
}
