//! One execution environment: the handler with real SDK clients, and the requests of a plan one after the other.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{SharedHttpConnector, http_client_fn};
use fake_aws::event::event;
use lambda_http::Context;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};
use whatsapp_ingress::{
    aws::{timeouts, without_retries_and_timeouts},
    handler::Ingress,
    payload::Payloads,
    queue::Queues,
    secrets::SecretCache,
    telemetry::RequestLog,
};
use whatsapp_webhook::{routes::Routes, signature};

use crate::{
    aws::{Aws, Call, Conditions, End, Violation, app_secret},
    invariants::{self, Response},
    plan::{Content, Deadline, Delivery, MAX_START_LATENCY, Plan, Signature},
};

/// The limit of Lambda for the start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long API Gateway waits for a response.
const INTEGRATION_TIMEOUT: Duration = Duration::from_secs(29);

/// The timeout of the deployed function.
const FUNCTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that the function reserves for the response.
const RESPONSE_MARGIN: Duration = Duration::from_secs(1);

/// After this time every call has taken effect.
const LONGEST_CALL: Duration = Duration::from_secs(30);

/// The outcome of a plan.
pub(crate) struct Report {
    pub(crate) violations: Vec<Violation>,
    /// A line for each request and call.
    pub(crate) trace: Vec<String>,
}

/// Runs the environment of a seed.
pub(crate) fn run(seed: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    // The function uses the random generator of this thread for its backoff and the keys of objects.
    fastrand::seed(seed);
    runtime.block_on(async { Environment::new(seed).run().await })
}

struct Environment {
    plan: Plan,
    aws: Aws,
    began: Instant,
    trace: Vec<String>,
}

impl Environment {
    fn new(seed: u64) -> Self {
        let plan = Plan::draw(seed);
        let aws = Aws::new(seed, plan.queues.clone(), plan.start.clone());
        Self { plan, aws, began: Instant::now(), trace: Vec::new() }
    }

    async fn run(mut self) -> Report {
        self.trace.push(format!("{:?}, queues {:?}", self.plan.profile, self.queue_names()));
        let ingress = self.start().await;
        let mut responses: Vec<Response> = Vec::new();
        for delivery in std::mem::take(&mut self.plan.deliveries) {
            let response = self.deliver(&ingress, delivery, responses.last()).await;
            invariants::check_response(&mut self.aws.state(), &self.plan, &response);
            responses.push(response);
        }
        sleep(LONGEST_CALL).await;
        let mut state = self.aws.state();
        invariants::check_end(&mut state, &self.plan, &responses);
        let calls = state.calls.iter().map(|call| describe(call, self.began));
        let violations = state.violations.clone();
        Report { trace: self.trace.into_iter().chain(calls).collect(), violations }
    }

    fn queue_names(&self) -> Vec<&str> {
        self.plan.queues.iter().map(|queue| queue.name.as_str()).collect()
    }

    /// Starts the function as `main` does. If a fault prevents the start, repeats it without faults.
    async fn start(&self) -> Ingress {
        for _ in 0..2 {
            let started = Instant::now();
            let latency = self.aws.state().conditions.secrets_manager.max_latency();
            if let Ok(Ok(ingress)) = timeout_at(started + START_TIMEOUT, self.try_start()).await {
                return ingress;
            }
            if latency.is_some_and(|latency| latency <= MAX_START_LATENCY) {
                let detail = format!("not started after {:?}", started.elapsed());
                self.aws.state().violate("a start waits for a slow Secrets Manager", detail);
            }
            self.aws.state().conditions = Conditions::quick(self.plan.queues.len());
        }
        panic!("the function does not start although all services work");
    }

    async fn try_start(&self) -> Result<Ingress, whatsapp_ingress::secrets::SecretsError> {
        let connector = SharedHttpConnector::new(self.aws.clone());
        let credentials = SharedCredentialsProvider::new(Credentials::new("id", "secret", None, None, "simulated"));
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(credentials)
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .timeout_config(timeouts())
            .build();
        let without_retries = without_retries_and_timeouts(&config);
        let url = |name: &str| format!("https://sqs.eu-central-1.amazonaws.com/123456789012/{name}");
        // A route with several queues occurs several times.
        let members = self.plan.queues.iter().map(|queue| format!(r#""{}":"{}""#, queue.route, url(&queue.name)));
        let routes = Routes::parse(&format!("{{{}}}", members.collect::<Vec<_>>().join(","))).unwrap();
        let payloads = Payloads::new(&without_retries, self.plan.has_bucket.then(|| "bucket".to_owned()), None);
        let queues = Queues::new(aws_sdk_sqs::Client::new(&without_retries), routes, payloads);
        let secrets = SecretCache::read(aws_sdk_secretsmanager::Client::new(&config), "id".to_owned());
        let (secrets, ()) = tokio::join!(secrets, queues.warm_up());
        Ok(Ingress::new(secrets?, queues, RequestLog::new("INFO", "function", std::io::sink())))
    }

    /// Begins a request, and rotates the secret if the request is signed with a new one. Returns the version of the secret.
    fn begin(&self, delivery: &Delivery) -> usize {
        let mut state = self.aws.state();
        state.secret_version += usize::from(delivery.signature == Signature::Rotated);
        state.delivery += 1;
        state.delivery_started = Instant::now();
        state.conditions = delivery.conditions.clone();
        state.secret_version
    }

    async fn deliver(&mut self, ingress: &Ingress, delivery: Delivery, last: Option<&Response>) -> Response {
        sleep(delivery.gap).await;
        let is_forged = delivery.signature == Signature::Forged;
        let (body, fragments) = match (&delivery.content, last) {
            (Content::Repeated, Some(last)) => (last.body.clone(), last.fragments.clone()),
            (Content::Repeated, None) => unreachable!("the first notification is new"),
            (Content::New(notification), _) if is_forged => (notification.body.clone(), 0..0),
            (Content::New(notification), _) => {
                let fragments = self.aws.state().expect(&notification.fragments);
                (notification.body.clone(), fragments)
            }
        };
        let secret_version = self.begin(&delivery);
        let is_secret_known = self.aws.state().received_secret_version == secret_version;
        let key = if is_forged { "forged".to_owned() } else { app_secret(secret_version) };
        let signature = signature::sign(&key, &body);
        let event = event("POST", "", &[("X-Hub-Signature-256", &signature)], &body);
        let started = Instant::now();
        let time = delivery.deadline.response_timeout();
        let status = timeout_at(started + time, handle(ingress, event, delivery.deadline)).await.ok();
        let response = Response {
            delivery: self.aws.state().delivery,
            body,
            fragments,
            is_forged,
            secret_version,
            is_secret_known,
            conditions: delivery.conditions,
            started,
            storage_deadline: started + time.saturating_sub(RESPONSE_MARGIN),
            responded: Instant::now(),
            status,
        };
        self.trace.push(format!(
            "{:>9.3} request {}: {:?}, {} fragments from {}, {} bytes, {:?}: {status:?} after {:?}; {:?}",
            (started - self.began).as_secs_f64(),
            response.delivery,
            delivery.signature,
            response.fragments.len(),
            response.fragments.start,
            response.body.len(),
            delivery.deadline,
            response.responded - started,
            response.conditions,
        ));
        response
    }
}

impl Deadline {
    /// Returns how long the gateway or Lambda waits.
    fn response_timeout(self) -> Duration {
        match self {
            Self::In(time) => time.min(INTEGRATION_TIMEOUT),
            Self::ClockAhead => FUNCTION_TIMEOUT,
            Self::ClockBehind => INTEGRATION_TIMEOUT,
        }
    }

    /// Returns the deadline that Lambda sends, in milliseconds since the epoch.
    fn resolve(self) -> u64 {
        let hour = Duration::from_hours(1);
        let now = middle_of_millisecond();
        let deadline = match self {
            Self::In(time) => now + time,
            Self::ClockAhead => now.saturating_sub(hour),
            Self::ClockBehind => now + hour + FUNCTION_TIMEOUT,
        };
        u64::try_from(deadline.as_millis()).unwrap()
    }
}

/// Waits for the middle of a millisecond and returns the time since the epoch.
///
/// The function compares a deadline in milliseconds with the real clock. Without this, the fraction of the millisecond and the
/// outcome of a seed would differ between runs.
fn middle_of_millisecond() -> Duration {
    loop {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        if (500_000..530_000).contains(&(now.subsec_nanos() % 1_000_000)) {
            return now;
        }
        std::hint::spin_loop();
    }
}

/// Calls the handler as Lambda's runtime does.
async fn handle(ingress: &Ingress, event: Value, deadline: Deadline) -> u16 {
    let event = serde_json::from_str(&event.to_string()).unwrap();
    let mut context = Context::default();
    context.deadline = deadline.resolve();
    let Ok(response) = ingress.handle(event, &context).await;
    response.status_code.try_into().unwrap()
}

fn describe(call: &Call, began: Instant) -> String {
    let (fate, fragments) = (&call.fate, &call.fragments);
    let seconds = |when: Instant| (when - began).as_secs_f64();
    let which = match fragments[..] {
        [] => "nothing".to_owned(),
        [one] => format!("fragment {one}"),
        [first, .., last] => format!("{} fragments {first}..={last}", fragments.len()),
    };
    let outcome = match (fate.is_executed, fate.not_stored) {
        (false, _) => "not executed".to_owned(),
        (true, (0, _)) => format!("executed after {:?}", fate.effect_after),
        (true, (entries, error)) => {
            let code = error.map_or("omitted from the response", |error| error.code);
            format!("executed after {:?} without {entries:#012b}: {code}", fate.effect_after)
        }
    };
    let end = match call.end {
        Some(End::Responded(when)) => format!("responded at {:.3}", seconds(when)),
        Some(End::Abandoned(when)) => format!("abandoned at {:.3}", seconds(when)),
        None => "open".to_owned(),
    };
    format!(
        "{:>9.3} {:?}, {which}: {:?} after {:?}, {outcome}; {end}",
        seconds(call.started),
        call.service,
        fate.reply,
        fate.reply_after,
    )
}
