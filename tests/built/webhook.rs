//! The function with its fake AWS, and requests signed as by Meta.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use fake_aws::{Bucket, Call, FakeAws, Function, Invocation, Outcome, Queue};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use whatsapp_webhook::signature::sign;

pub(crate) use fake_aws::event::event;

pub(crate) const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const VERIFY_TOKEN: &str = "the-verify-token-of-the-tests";
pub(crate) const SECRET_ID: &str = "ingress";
const BUCKET: &str = "payloads";

/// The timeout of the function in `template.yaml`.
pub(crate) const LAMBDA_TIMEOUT: Duration = Duration::from_secs(10);

const QUEUES: [&str; 5] = ["messages", "statuses", "security", "account_update", "unrouted"];

/// A running function with routes to five queues, a bucket and a secret.
pub(crate) struct Webhook {
    pub(crate) aws: FakeAws,
    pub(crate) function: Function,
    pub(crate) queues: BTreeMap<String, Queue>,
    pub(crate) bucket: Bucket,
    /// The text of `QUEUE_URLS`.
    pub(crate) routes: String,
}

/// The HTTP response of the function.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u64,
    pub(crate) body: String,
}

impl Webhook {
    pub(crate) fn start() -> Self {
        Self::with_variables(&[])
    }

    /// Starts the function with additional variables. They replace the defaults. An empty value removes a variable.
    pub(crate) fn with_variables(variables: &[(&str, &str)]) -> Self {
        Self::with_aws(FakeAws::start(), variables)
    }

    pub(crate) fn with_aws(aws: FakeAws, variables: &[(&str, &str)]) -> Self {
        aws.set_secret(SECRET_ID, secret(&json!(APP_SECRET)));
        let queues: BTreeMap<_, _> = QUEUES.into_iter().map(|name| (name.to_owned(), aws.queue(name))).collect();
        let urls = json!({
            "*": queues["unrouted"].url(),
            "messages": "messages",
            "messages.statuses": "statuses",
            "security": queues["security"].url(),
            "account_update": "account_update",
        });
        Self::with_routes(aws, queues, &urls, variables)
    }

    /// Starts the function with these routes. `queues` are all queues of the routes.
    pub(crate) fn with_routes(
        aws: FakeAws,
        queues: BTreeMap<String, Queue>,
        urls: &Value,
        variables: &[(&str, &str)],
    ) -> Self {
        aws.set_secret(SECRET_ID, secret(&json!(APP_SECRET)));
        let bucket = aws.bucket(BUCKET);
        let routes = urls.to_string();
        let mut all = BTreeMap::from([("SECRET_ID", SECRET_ID), ("QUEUE_URLS", &routes), ("PAYLOAD_BUCKET", BUCKET)]);
        let max_concurrency = std::env::var("BUILT_MAX_CONCURRENCY").unwrap_or_default();
        all.insert("AWS_LAMBDA_MAX_CONCURRENCY", &max_concurrency);
        all.extend(variables.iter().copied());
        all.retain(|_, value| !value.is_empty());
        let function = Function::start(bootstrap(), &aws, all);
        Self { aws, function, queues, bucket, routes }
    }

    pub(crate) fn queue(&self, name: &str) -> &Queue {
        &self.queues[name]
    }

    /// Delivers a body signed by Meta, with the Lambda timeout of the template.
    pub(crate) async fn deliver(&self, body: impl AsRef<[u8]>) -> Response {
        self.deliver_within(body, LAMBDA_TIMEOUT).await
    }

    pub(crate) async fn deliver_within(&self, body: impl AsRef<[u8]>, deadline: Duration) -> Response {
        self.send_within(signed(APP_SECRET, body.as_ref()), deadline).await
    }

    /// Sends a verification request with the challenge `1158201444`.
    pub(crate) async fn challenge(&self, verify_token: &str) -> Response {
        let query = format!("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={verify_token}");
        self.send(event("GET", &query, &[], b"")).await
    }

    pub(crate) async fn send(&self, event: Value) -> Response {
        self.send_within(event, LAMBDA_TIMEOUT).await
    }

    /// Invokes the function and checks that it answers before the deadline.
    pub(crate) async fn send_within(&self, event: Value, deadline: Duration) -> Response {
        let invocation = self.invoke(event, deadline).await;
        let Outcome::Response(response) = &invocation.outcome else {
            panic!("no answer but {:?}\n{}", invocation.outcome, self.function.logs().join("\n"));
        };
        Response {
            status: response["statusCode"].as_u64().unwrap(),
            body: response["body"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Waits until the process has exited.
    pub(crate) async fn assert_exits(&self, case: &str) {
        let exited = async {
            while !self.function.has_exited() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(LAMBDA_TIMEOUT, exited).await.is_ok(), "{case}: the process is still running");
    }

    /// Invokes the function, whatever comes of it.
    pub(crate) async fn invoke(&self, event: impl ToString, deadline: Duration) -> Invocation {
        self.function.invoke(event, deadline).await
    }

    /// Takes everything out of the queues and every fault away.
    pub(crate) fn reset(&self) {
        self.aws.clear_faults();
        for queue in self.queues.values() {
            drop(queue.take_messages());
        }
    }

    /// Returns the calls to SQS that contain messages.
    pub(crate) fn send_calls(&self) -> Vec<Call> {
        self.aws.calls().into_iter().filter(|call| call.entries > 0).collect()
    }

    /// Returns how often the function read the secret.
    pub(crate) fn secret_reads(&self) -> usize {
        self.aws.calls().iter().filter(|call| call.service == fake_aws::Service::Secrets).count()
    }
}

/// The tested binary. `WHATSAPP_INGRESS` selects another build, for example the release build.
pub(crate) fn bootstrap() -> PathBuf {
    std::env::var_os("WHATSAPP_INGRESS").map_or_else(|| env!("CARGO_BIN_EXE_whatsapp-ingress").into(), PathBuf::from)
}

/// Makes the text of a valid secret.
pub(crate) fn secret(app_secret: &Value) -> String {
    json!({"app_secret": app_secret, "verify_token": VERIFY_TOKEN}).to_string()
}

/// Makes the event of a POST that is signed with `app_secret`.
pub(crate) fn signed(app_secret: &str, body: &[u8]) -> Value {
    event("POST", "", &[("x-hub-signature-256", &sign(app_secret, body))], body)
}
