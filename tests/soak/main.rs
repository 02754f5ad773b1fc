//! The soak: thousands of notifications of every size at the built binary, over an AWS that fails in every way it can.
//!
//! What was answered with 200 must be stored, to the letter; what was not signed must not; the memory must not grow.
//! Meta is played to the end: what is not answered with 200 is delivered again.
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
use fake_aws::{FakeAws, Fault, FaultHandle, ServiceHandle, Times};
use futures_util::future::join_all;
use ledger::Ledger;
use memory::Memory;
use serde_json::json;
use webhook::{APP_SECRET, Answer, Webhook, signed};

/// Of all calls to each service, so many fail.
const FAULTS: f64 = 0.02;

/// S3 and Secrets Manager get so few calls that of these more fail, or most kinds of fault would never come.
const RARE_FAULTS: f64 = 0.2;

/// How late the calls are that a slow service answers: the function may start a second call meanwhile.
const LATE: Duration = Duration::from_millis(1_200);

/// Sandboxes at a time, all on one AWS.
const SANDBOXES: usize = 4;

/// For each invocation; the shorter, the sooner a call that hangs is given up.
const DEADLINE: Duration = Duration::from_secs(4);

/// As often as this may Meta have to deliver a notification, at worst.
const MOST_DELIVERIES: usize = 12;

#[tokio::test]
#[ignore = "takes minutes: make soak"]
async fn what_was_accepted_is_stored_what_was_forged_is_not_and_memory_is_flat() {
    let count = std::env::var("SOAK_NOTIFICATIONS").map_or(20_000, |count| count.parse().unwrap());
    let aws = FakeAws::start();
    let soak = Arc::new(Soak { count, next: AtomicUsize::new(0), ledger: Ledger::default() });
    let sandboxes: Vec<_> = (0..SANDBOXES).map(|at| sandbox(&aws, &access_key(at))).collect();
    join_all(sandboxes.iter().map(|sandbox| sandbox.function.ready(DEADLINE))).await;
    let (started, injected) = (Instant::now(), inject(&aws));
    let run = join_all(sandboxes.iter().enumerate().map(|(at, sandbox)| soak.run(sandbox, access_key(at))));
    let memories = tokio::time::timeout(soak.longest(), run).await.expect("the soak ends in time");
    aws.clear_faults();
    aws.late_effects().await;
    soak.ledger.take_in(&sandboxes[0]);

    let faults: usize = injected.iter().map(FaultHandle::fired).sum();
    eprintln!("{count} notifications in {:.1} s, {faults} faults injected", started.elapsed().as_secs_f64());
    soak.ledger.report();
    for memory in &memories {
        memory.report();
    }
    soak.ledger.check();
    soak.ledger.check_causes(&aws, &sandboxes[0].bucket);
    let silent = injected.iter().filter(|injected| injected.fired() == 0).count();
    assert!(count < 20_000 || silent == 0, "{silent} kinds of fault never came");
    for (memory, sandbox) in memories.iter().zip(&sandboxes) {
        assert!(!sandbox.function.has_exited());
        memory.check();
    }
}

struct Soak {
    count: usize,
    next: AtomicUsize,
    ledger: Ledger,
}

impl Soak {
    /// Takes one notification after the other until there is none left, and watches the memory.
    async fn run(&self, sandbox: &Webhook, access_key: String) -> Memory {
        let mut memory = Memory::default();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                return memory;
            }
            let delivery = Delivery::new(number);
            if number % 20 == 7 {
                self.forge(sandbox, &delivery).await;
            }
            self.deliver(sandbox, &access_key, number, &delivery).await;
            if number.is_multiple_of(25) {
                memory.sample(sandbox.function.pid());
                self.ledger.take_in(sandbox);
            }
            if number.is_multiple_of(1_000) {
                sandbox.aws.close_idle_connections();
            }
        }
    }

    async fn deliver(&self, sandbox: &Webhook, access_key: &str, number: usize, delivery: &Delivery) {
        self.ledger.expect(number, delivery);
        for _ in 0..MOST_DELIVERIES {
            let started = Instant::now();
            let Answer { status, .. } = sandbox.send_within(signed(APP_SECRET, &delivery.body), DEADLINE).await;
            let attempt = Attempt { access_key: access_key.to_owned(), started, ended: Instant::now(), status };
            self.ledger.answered(number, delivery, attempt);
            if status == 200 {
                return;
            }
            assert_eq!(status, 503);
        }
        panic!("not taken in {MOST_DELIVERIES} deliveries");
    }

    async fn forge(&self, sandbox: &Webhook, delivery: &Delivery) {
        // The ledger knows nothing of these changes, and would not accept them.
        let forged = delivery.forged();
        let answer = sandbox.send_within(signed("a-forger", &forged.body), DEADLINE).await;
        assert_eq!(answer.status, 401);
        self.ledger.forged();
    }

    fn longest(&self) -> Duration {
        Duration::from_mins(1) + Duration::from_millis(50) * u32::try_from(self.count).unwrap()
    }
}

/// The access key of a sandbox, by which the record of calls tells the sandboxes apart.
fn access_key(at: usize) -> String {
    format!("SANDBOX{at}")
}

fn sandbox(aws: &FakeAws, access_key: &str) -> Webhook {
    let names = ["messages", "statuses", "security.fifo", "unrouted"];
    let queues = names.map(|name| (name.to_owned(), aws.queue(name)));
    let urls = json!({
        "*": aws.queue("unrouted").url(),
        "messages": "messages",
        "messages.statuses": "statuses",
        "security": "security.fifo",
    });
    Webhook::routed(aws.clone(), queues.into(), &urls, &[("AWS_ACCESS_KEY_ID", access_key)])
}

/// Every kind of fault, in equal shares, at every service.
fn inject(aws: &FakeAws) -> Vec<FaultHandle> {
    let failing = || {
        vec![
            Fault::internal_error(),
            Fault::unavailable(),
            Fault::throttled(),
            Fault::access_denied(),
            Fault::queue_does_not_exist(),
            Fault::kms_disabled(),
            Fault::drop_unread(),
            Fault::drop_connection(),
            Fault::hang(),
            Fault::store_and_drop(),
            Fault::store_and_hang(),
            Fault::store_and_truncate(),
            Fault::store_and_stall(),
            Fault::store_and_garble(),
            Fault::slow(LATE / 6),
            Fault::slow(LATE),
            Fault::store_late(LATE / 6),
            Fault::store_late(LATE),
        ]
    };
    let refusing = vec![
        Fault::refuse_entry(0),
        Fault::refuse_all_entries(),
        Fault::refuse_entry(0).code("InvalidMessageContents").senders_fault(),
        Fault::refuse_all_entries().code("InvalidMessageContents").senders_fault(),
        Fault::error(400, "InvalidParameterValue"),
        Fault::store_and_answer(200, "{}"),
        Fault::store_entries_late(LATE, |entry| entry.id == "0"),
    ];
    let sqs = share(&aws.sqs(), [failing(), refusing].concat(), FAULTS, 100);
    // So few calls go there that the odds of a fault are of no use in counting.
    let _ = share(&aws.s3(), failing(), RARE_FAULTS, 200);
    let _ = share(&aws.secrets(), failing(), RARE_FAULTS, 300);
    sqs
}

fn share(service: &ServiceHandle, faults: Vec<Fault>, share: f64, seed: u64) -> Vec<FaultHandle> {
    let probability = share / f64::from(u32::try_from(faults.len()).unwrap());
    let numbered = faults.into_iter().zip(seed..);
    numbered.map(|(fault, seed)| service.fault(fault, Times::Chance { probability, seed })).collect()
}
