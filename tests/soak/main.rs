//! The soak test: delivers thousands of notifications of every size to the built binary, with every fault of the fake AWS.
//!
//! Every notification with status 200 must be stored byte for byte, and no forged one. The memory must not grow. Like Meta, the
//! test redelivers a notification until the status is 200.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod causes;
mod delivery;
mod ledger;
mod memory;
#[allow(dead_code, reason = "the soak needs a part of it")]
#[path = "../built/webhook.rs"]
mod webhook;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use causes::Attempt;
use delivery::Delivery;
use fake_aws::{FakeAws, Fault, FaultHandle, Frequency, ServiceHandle};
use futures_util::future::join_all;
use ledger::Ledger;
use memory::Memory;
use serde_json::json;
use webhook::{APP_SECRET, Response, Webhook, signed};

/// The fraction of the calls to SQS that have a fault.
const FAULT_RATE: f64 = 0.02;

/// The fraction for S3 and Secrets Manager. It is higher, because few calls would not meet every kind of fault.
const RARE_CALL_FAULT_RATE: f64 = 0.2;

/// The delay of slow calls. It is long enough for the function to start a second call.
const DELAY: Duration = Duration::from_millis(1_200);

/// The concurrent execution environments, by the number of requests that each serves at a time. They share one AWS account.
const ENVIRONMENTS: [usize; 3] = [1, 1, 4];

/// The Lambda timeout. A short one limits how long hanging calls take.
const INVOCATION_TIMEOUT: Duration = Duration::from_secs(4);

/// The limit of deliveries of one notification.
const MAX_DELIVERIES: usize = 12;

#[tokio::test]
#[ignore = "takes minutes: make soak"]
async fn every_accepted_notification_is_stored() {
    let count = std::env::var("SOAK_NOTIFICATIONS").map_or(20_000, |count| count.parse().unwrap());
    let aws = FakeAws::start();
    let soak = Arc::new(Soak { count, next: AtomicUsize::new(0), ledger: Ledger::default() });
    let environments: Vec<_> = ENVIRONMENTS
        .iter()
        .enumerate()
        .map(|(at, max_concurrency)| start_environment(&aws, &access_key(at), *max_concurrency))
        .collect();
    join_all(environments.iter().map(|environment| environment.function.wait_for_init(INVOCATION_TIMEOUT))).await;
    let (started, handles) = (Instant::now(), inject_faults(&aws));
    let memories: Vec<_> = ENVIRONMENTS.map(Memory::of_environment).into();
    let requests = environments.iter().zip(&memories).enumerate().flat_map(|(at, (environment, memory))| {
        let soak = &soak;
        (0..ENVIRONMENTS[at]).map(move |_| soak.run(environment, access_key(at), memory))
    });
    tokio::time::timeout(soak.timeout(), join_all(requests)).await.expect("the soak ends in time");
    aws.clear_faults();
    aws.wait_for_delayed_commits().await;
    soak.ledger.record_messages(&environments[0]);

    let faults: usize = handles.iter().map(FaultHandle::fired).sum();
    eprintln!("{count} notifications in {:.1} s, {faults} faults injected", started.elapsed().as_secs_f64());
    soak.ledger.report();
    for (memory, environment) in memories.iter().zip(&environments) {
        memory.report();
        let logs = environment.function.logs();
        for line in logs.iter().filter(|line| line.contains("not stored")) {
            eprintln!("  {line}");
        }
    }
    soak.ledger.check();
    soak.ledger.check_causes(&aws, &environments[0].bucket);
    let unused = handles.iter().filter(|handle| handle.fired() == 0).count();
    assert!(count < 20_000 || unused == 0, "{unused} kinds of fault were never injected");
    for (memory, environment) in memories.iter().zip(&environments) {
        assert!(!environment.function.has_exited());
        memory.check();
    }
}

struct Soak {
    count: usize,
    next: AtomicUsize,
    ledger: Ledger,
}

impl Soak {
    /// Delivers one notification after the other until none is left, and samples the memory.
    async fn run(&self, environment: &Webhook, access_key: String, memory: &Memory) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                return;
            }
            let delivery = Delivery::new(number);
            if number % 20 == 7 {
                self.forge(environment, &delivery).await;
            }
            self.deliver(environment, &access_key, number, &delivery).await;
            if number.is_multiple_of(25) {
                memory.sample(environment.function.pid());
                self.ledger.record_messages(environment);
            }
            if number.is_multiple_of(1_000) {
                environment.aws.close_idle_connections();
            }
        }
    }

    async fn deliver(&self, environment: &Webhook, access_key: &str, number: usize, delivery: &Delivery) {
        self.ledger.expect(number, delivery);
        for _ in 0..MAX_DELIVERIES {
            let started = Instant::now();
            let Response { status, .. } =
                environment.send_within(signed(APP_SECRET, &delivery.body), INVOCATION_TIMEOUT).await;
            let attempt = Attempt { access_key: access_key.to_owned(), started, ended: Instant::now(), status };
            self.ledger.record_attempt(number, delivery, attempt);
            if status == 200 {
                return;
            }
            assert_eq!(status, 503);
        }
        panic!("not accepted in {MAX_DELIVERIES} deliveries");
    }

    async fn forge(&self, environment: &Webhook, delivery: &Delivery) {
        // The ledger has no record of these changes, so it would report them if they were stored.
        let forged = delivery.forged();
        let response = environment.send_within(signed("a-forger", &forged.body), INVOCATION_TIMEOUT).await;
        assert_eq!(response.status, 401);
        self.ledger.record_forgery();
    }

    fn timeout(&self) -> Duration {
        Duration::from_mins(1) + Duration::from_millis(50) * u32::try_from(self.count).unwrap()
    }
}

/// Returns the access key of an environment, which identifies its calls in the record.
fn access_key(at: usize) -> String {
    format!("ENVIRONMENT{at}")
}

fn start_environment(aws: &FakeAws, access_key: &str, max_concurrency: usize) -> Webhook {
    let names = ["messages", "statuses", "security.fifo", "unrouted"];
    let queues = names.map(|name| (name.to_owned(), aws.queue(name)));
    let urls = json!({
        "*": aws.queue("unrouted").url(),
        "messages": "messages",
        "messages.statuses": "statuses",
        "security": "security.fifo",
    });
    let max_concurrency = max_concurrency.to_string();
    let variables = [("AWS_ACCESS_KEY_ID", access_key), ("AWS_LAMBDA_MAX_CONCURRENCY", &max_concurrency)];
    Webhook::with_routes(aws.clone(), queues.into(), &urls, &variables)
}

/// Injects every kind of fault with equal probability into every service.
fn inject_faults(aws: &FakeAws) -> Vec<FaultHandle> {
    let call_faults = || {
        vec![
            Fault::internal_error(),
            Fault::unavailable(),
            Fault::throttled(),
            Fault::access_denied(),
            Fault::resource_does_not_exist(),
            Fault::kms_disabled(),
            Fault::drop_unread(),
            Fault::drop_connection(),
            Fault::hang(),
            Fault::commit_then_drop(),
            Fault::commit_then_hang(),
            Fault::commit_then_truncate(),
            Fault::commit_then_stall(),
            Fault::commit_then_garble(),
            Fault::delay_response(DELAY / 6),
            Fault::delay_response(DELAY),
            Fault::delay_commit(DELAY / 6),
            Fault::delay_commit(DELAY),
        ]
    };
    let sqs_faults = vec![
        Fault::reject_entry(0),
        Fault::reject_all_entries(),
        Fault::reject_entry(0).code("InvalidMessageContents").sender_fault(),
        Fault::reject_all_entries().code("InvalidMessageContents").sender_fault(),
        Fault::error(400, "InvalidParameterValue"),
        Fault::commit_then_respond(200, "{}"),
        Fault::delay_entries(DELAY, |entry| entry.id == "0"),
    ];
    let sqs = inject_with_rate(&aws.sqs(), [call_faults(), sqs_faults].concat(), FAULT_RATE, 100);
    // There are too few calls to expect that every fault is injected, so these handles are not checked.
    let _ = inject_with_rate(&aws.s3(), call_faults(), RARE_CALL_FAULT_RATE, 200);
    let _ = inject_with_rate(&aws.secrets(), call_faults(), RARE_CALL_FAULT_RATE, 300);
    sqs
}

fn inject_with_rate(service: &ServiceHandle, faults: Vec<Fault>, rate: f64, seed: u64) -> Vec<FaultHandle> {
    let probability = rate / f64::from(u32::try_from(faults.len()).unwrap());
    let numbered = faults.into_iter().zip(seed..);
    numbered.map(|(fault, seed)| service.inject_fault(fault, Frequency::Random { probability, seed })).collect()
}
