//! The handler with real SDK clients, whose network is a scripted SQS and Secrets Manager.

pub(crate) mod corpus;
pub(crate) mod schema;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use aws_smithy_http_client::test_util::infallible_client_fn;
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use fake_aws::event;
use lambda_http::{Context, Response, aws_lambda_events::apigw::ApiGatewayV2httpResponse};
use serde_json::{Value, json};
use whatsapp_ingress::{
    handler::Ingress, payload::Payloads, queue::Queues, secrets::SecretCache, telemetry::RequestLog,
};
use whatsapp_webhook::{routes::Routes, signature::sign};

pub(crate) const APP_SECRET: &str = "an-app-secret";
pub(crate) const VERIFY_TOKEN: &str = "a-verify-token";
pub(crate) const CATCH_ALL_URL: &str = "https://sqs.eu-west-1.amazonaws.com/123456789012/unrouted";

/// One entry of a call to SQS.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) queue: String,
    pub(crate) call: usize,
    pub(crate) body: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) group: String,
    pub(crate) deduplication: Option<String>,
    pub(crate) is_stored: bool,
}

impl Entry {
    /// Returns the size that SQS limits. Without a bucket, all attributes are strings.
    pub(crate) fn bytes(&self) -> usize {
        let attributes = self.attributes.iter().map(|(name, value)| name.len() + "String".len() + value.len());
        self.body.len() + attributes.sum::<usize>()
    }
}

/// The response of SQS to a call.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Stored,
    /// Rejects the entries with these indices, with a code and `SenderFault`.
    EntriesRejected(Vec<usize>, &'static str, bool),
    /// Neither stores nor mentions the entries with these indices.
    EntriesOmitted(Vec<usize>),
    /// Rejects the call with a status and a code.
    CallRejected(u16, &'static str),
}

pub(crate) struct Webhook {
    ingress: Ingress,
    entries: Arc<Mutex<Vec<Entry>>>,
    secret: Arc<Mutex<Result<String, u16>>>,
    reads: Arc<Mutex<usize>>,
}

/// Parses an event as Lambda's runtime does, and handles it with this timeout.
pub(crate) async fn handle(ingress: &Ingress, event: &str, timeout: Duration) -> ApiGatewayV2httpResponse {
    let deadline = SystemTime::UNIX_EPOCH.elapsed().unwrap() + timeout;
    let mut context = Context::default();
    context.deadline = u64::try_from(deadline.as_millis()).unwrap();
    let Ok(response) = ingress.handle(serde_json::from_str(event).unwrap(), &context).await;
    response
}

pub(crate) fn status(response: &ApiGatewayV2httpResponse) -> u16 {
    response.status_code.try_into().unwrap()
}

/// Makes the text of a valid secret.
pub(crate) fn secret(app_secret: &str, verify_token: &str) -> String {
    json!({"app_secret": app_secret, "verify_token": verify_token}).to_string()
}

impl Webhook {
    /// Creates a webhook whose SQS stores everything. The routes map to names of queues.
    pub(crate) async fn new(routes: &[(&str, &str)]) -> Self {
        Self::with_script(routes, |_| Reply::Stored).await
    }

    /// Creates a webhook. `script` returns the response to the entries of each call.
    pub(crate) async fn with_script(
        routes: &[(&str, &str)],
        script: impl Fn(&[Entry]) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let mut urls: BTreeMap<_, _> = routes.iter().copied().collect();
        urls.insert("*", CATCH_ALL_URL);
        Self::configured(&serde_json::to_string(&urls).unwrap(), script).await
    }

    /// The same with the JSON text of the routes.
    pub(crate) async fn configured(
        queue_urls: &str,
        script: impl Fn(&[Entry]) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let routes = Routes::parse(queue_urls).unwrap();
        let entries: Arc<Mutex<Vec<Entry>>> = Arc::default();
        let payloads = Payloads::new(&SdkConfig::builder().build(), None, None);
        let queues = Queues::new(sqs(Arc::clone(&entries), script), routes, payloads);
        let secret = Arc::new(Mutex::new(Ok(secret(APP_SECRET, VERIFY_TOKEN))));
        let reads = Arc::default();
        let secrets = SecretCache::read(secrets_manager(Arc::clone(&secret), Arc::clone(&reads)), "id".into()).await;
        Self {
            ingress: Ingress::new(secrets.unwrap(), queues, RequestLog::new("INFO", "function", std::io::sink())),
            entries,
            secret,
            reads,
        }
    }

    /// Requires a client certificate with this common name.
    pub(crate) fn require_client_cn(self, name: &str) -> Self {
        Self { ingress: self.ingress.require_client_cn(Some(name.to_owned())), ..self }
    }

    /// Delivers a body signed with the app secret.
    pub(crate) async fn deliver(&self, body: impl AsRef<[u8]>) -> u16 {
        self.deliver_signed(body.as_ref(), &sign(APP_SECRET, body.as_ref())).await
    }

    pub(crate) async fn deliver_signed(&self, body: &[u8], signature: &str) -> u16 {
        let event = event::event("POST", "", &[("X-Hub-Signature-256", signature)], body);
        status(&self.send(event).await)
    }

    pub(crate) async fn send(&self, event: Value) -> ApiGatewayV2httpResponse {
        self.send_text(&event.to_string()).await
    }

    /// Sends an event with a timeout of ten seconds.
    pub(crate) async fn send_text(&self, event: &str) -> ApiGatewayV2httpResponse {
        handle(&self.ingress, event, Duration::from_secs(10)).await
    }

    /// Returns all entries of all calls.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }

    /// Returns the stored entries in order.
    pub(crate) fn stored_entries(&self) -> Vec<Entry> {
        self.entries().into_iter().filter(|entry| entry.is_stored).collect()
    }

    /// Returns the bodies on a queue.
    pub(crate) fn bodies(&self, queue: &str) -> Vec<String> {
        self.stored_entries().into_iter().filter(|entry| entry.queue == queue).map(|entry| entry.body).collect()
    }

    pub(crate) fn set_secret(&self, secret: Result<String, u16>) {
        *self.secret.lock().unwrap() = secret;
    }

    /// Returns how often the function read the secret.
    pub(crate) fn secret_reads(&self) -> usize {
        *self.reads.lock().unwrap()
    }
}

fn sqs(
    entries: Arc<Mutex<Vec<Entry>>>,
    script: impl Fn(&[Entry]) -> Reply + Send + Sync + 'static,
) -> aws_sdk_sqs::Client {
    let calls = Mutex::new(0);
    let network = infallible_client_fn(move |request| {
        let call = {
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        let length = request.headers()["content-length"].to_str().unwrap();
        let body = request.body().bytes().unwrap();
        assert_eq!(length, body.len().to_string());
        let mut sent = parse_entries(call, &serde_json::from_slice(body).unwrap());
        let reply = script(&sent);
        let response = respond(&reply, &mut sent);
        entries.lock().unwrap().extend(sent);
        response
    });
    let config = aws_sdk_sqs::Config::builder().with_test_defaults_v2().behavior_version(BehaviorVersion::latest());
    let config = config.http_client(network).retry_config(RetryConfig::disabled());
    aws_sdk_sqs::Client::from_conf(config.build())
}

/// Parses the entries of a call.
fn parse_entries(call: usize, body: &Value) -> Vec<Entry> {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let queue = body["QueueUrl"].as_str().unwrap().rsplit('/').next().unwrap();
    let entry = |(index, entry): (usize, &Value)| {
        assert_eq!(entry["Id"], index.to_string());
        assert!(entry.as_object().unwrap().values().all(|value| !value.is_null()), "{entry}");
        let attributes = entry["MessageAttributes"].as_object().unwrap().iter();
        Entry {
            queue: queue.to_owned(),
            call,
            body: text(&entry["MessageBody"]).unwrap(),
            attributes: attributes.map(|(name, value)| (name.clone(), text(&value["StringValue"]).unwrap())).collect(),
            group: text(&entry["MessageGroupId"]).unwrap_or_default(),
            deduplication: text(&entry["MessageDeduplicationId"]),
            is_stored: true,
        }
    };
    body["Entries"].as_array().unwrap().iter().enumerate().map(entry).collect()
}

fn respond(reply: &Reply, sent: &mut [Entry]) -> Response<String> {
    let (rejected, code, fault) = match reply {
        Reply::Stored => (&[][..], "", false),
        Reply::EntriesOmitted(rejected) => (&rejected[..], "", false),
        Reply::EntriesRejected(rejected, code, fault) => (&rejected[..], *code, *fault),
        Reply::CallRejected(status, code) => {
            for entry in sent {
                entry.is_stored = false;
            }
            return make_response(*status, &error_body(code));
        }
    };
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (index, sent) in sent.iter_mut().enumerate() {
        let id = index.to_string();
        sent.is_stored = !rejected.contains(&index);
        if sent.is_stored {
            successful.push(json!({"Id": id, "MessageId": "m", "MD5OfMessageBody": "d"}));
        } else if !matches!(reply, Reply::EntriesOmitted(_)) {
            failed.push(json!({"Id": id, "Code": code, "SenderFault": fault}));
        }
    }
    make_response(200, &json!({"Successful": successful, "Failed": failed}))
}

fn make_response(status: u16, body: &Value) -> Response<String> {
    Response::builder().status(status).body(body.to_string()).unwrap()
}

fn secrets_manager(
    secret: Arc<Mutex<Result<String, u16>>>,
    reads: Arc<Mutex<usize>>,
) -> aws_sdk_secretsmanager::Client {
    let rule = mock!(aws_sdk_secretsmanager::Client::get_secret_value).then_compute_response(move |_| {
        *reads.lock().unwrap() += 1;
        match &*secret.lock().unwrap() {
            Ok(secret) => MockResponse::Output(GetSecretValueOutput::builder().secret_string(secret).build()),
            Err(status) => MockResponse::Http(error_response(*status, "InternalServiceError")),
        }
    });
    mock_client!(aws_sdk_secretsmanager, RuleMode::MatchAny, [&rule], |config| {
        config.retry_config(RetryConfig::disabled())
    })
}

fn error_response(status: u16, code: &str) -> HttpResponse {
    HttpResponse::new(status.try_into().unwrap(), error_body(code).to_string().into())
}

fn error_body(code: &str) -> Value {
    json!({"__type": format!("com.amazonaws.sqs#{code}"), "message": "scripted"})
}
