//! The function and its AWS, and a sender that signs as Meta does.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use fake_aws::{Bucket, Call, FakeAws, Function, Invocation, Outcome, Queue};
use serde_json::{Value, json};
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
}

/// An answer of the function.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u64,
    pub(crate) body: String,
}

impl Webhook {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// `variables` replace those of the function, or add to them; an empty value removes one.
    pub(crate) fn with(variables: &[(&str, &str)]) -> Self {
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
        Self::routed(aws, queues, &urls, variables)
    }

    /// A function with routes of the test's own; `queues` are all that they lead to.
    pub(crate) fn routed(
        aws: FakeAws,
        queues: BTreeMap<String, Queue>,
        urls: &Value,
        variables: &[(&str, &str)],
    ) -> Self {
        aws.set_secret(SECRET_ID, secret(&json!(APP_SECRET)));
        let bucket = aws.bucket(BUCKET);
        let urls = urls.to_string();
        let mut all = BTreeMap::from([("SECRET_ID", SECRET_ID), ("QUEUE_URLS", &urls), ("PAYLOAD_BUCKET", BUCKET)]);
        all.extend(variables.iter().copied());
        all.retain(|_, value| !value.is_empty());
        let function = Function::start(bootstrap(), &aws, all);
        Self { aws, function, queues, bucket }
    }

    pub(crate) fn queue(&self, name: &str) -> &Queue {
        &self.queues[name]
    }

    /// Delivers a body that Meta signed, within the timeout of the template.
    pub(crate) async fn deliver(&self, body: impl AsRef<[u8]>) -> Answer {
        self.deliver_within(body, LAMBDA_TIMEOUT).await
    }

    pub(crate) async fn deliver_within(&self, body: impl AsRef<[u8]>, deadline: Duration) -> Answer {
        self.send_within(signed(APP_SECRET, body.as_ref()), deadline).await
    }

    /// Asks for the challenge `1158201444`.
    pub(crate) async fn challenge(&self, verify_token: &str) -> Answer {
        let query = format!("hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={verify_token}");
        self.send(event("GET", &query, &[], b"")).await
    }

    pub(crate) async fn send(&self, event: Value) -> Answer {
        self.send_within(event, LAMBDA_TIMEOUT).await
    }

    /// Invokes the function and checks that it answers before the deadline.
    pub(crate) async fn send_within(&self, event: Value, deadline: Duration) -> Answer {
        let invocation = self.invoke(event, deadline).await;
        let Outcome::Response(response) = &invocation.outcome else {
            panic!("no answer but {:?}\n{}", invocation.outcome, self.function.logs().join("\n"));
        };
        Answer {
            status: response["statusCode"].as_u64().unwrap(),
            body: response["body"].as_str().unwrap_or_default().to_owned(),
        }
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

    /// The calls that had messages for SQS.
    pub(crate) fn sends(&self) -> Vec<Call> {
        self.aws.calls().into_iter().filter(|call| call.entries > 0).collect()
    }

    /// How often the secret was asked for.
    pub(crate) fn readings(&self) -> usize {
        self.aws.calls().iter().filter(|call| call.service == fake_aws::Service::Secrets).count()
    }
}

/// The binary that is tested; a variable can name another build, such as the one that is shipped.
pub(crate) fn bootstrap() -> PathBuf {
    std::env::var_os("WHATSAPP_INGRESS").map_or_else(|| env!("CARGO_BIN_EXE_whatsapp-ingress").into(), PathBuf::from)
}

/// The text of a secret that the function works with.
pub(crate) fn secret(app_secret: &Value) -> String {
    json!({"app_secret": app_secret, "verify_token": VERIFY_TOKEN}).to_string()
}

/// The event that API Gateway makes of Meta's POST.
pub(crate) fn signed(app_secret: &str, body: &[u8]) -> Value {
    event("POST", "", &[("x-hub-signature-256", &sign(app_secret, body))], body)
}
