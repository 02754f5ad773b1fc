//! Simulates execution environments in virtual time: the handler with a scripted AWS, driven by a seed.
//!
//! A seed chooses notifications, latencies, faults, deadlines and rotations of the secret. Invariants are checked after each
//! response and at the end. Environment variables: `SIMULATION_SEEDS` is the number of seeds, `SIMULATION_FIRST_SEED` the
//! first one, and `SIMULATION_SEED` a single one whose calls are printed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod aws;
mod environment;
mod faults;
mod invariants;
mod notification;
mod plan;
mod sqs;

use std::{
    collections::BTreeMap,
    io::Write as _,
    panic::catch_unwind,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use aws::Violation;
use environment::Report;

const DEFAULT_SEEDS: u64 = 1000;

/// Declares a test for a seed that once found a defect. The name states the invariant.
///
/// After a change of the generator, a seed may no longer find its defect. Then restore the defect and search for a new seed.
macro_rules! regression_seeds {
    ($($name:ident = $seed:literal,)*) => { $(#[test] fn $name() { assert_invariants($seed); })* };
}

regression_seeds! {
    slow_queue_gets_at_most_two_copies = 19,
    slow_queue_is_awaited = 26,
    slow_catch_all_queue_is_awaited = 207,
    slow_s3_leaves_at_most_one_orphaned_object = 1765,
    slow_secrets_manager_only_delays_the_start = 6,
    nothing_is_sent_in_the_last_200_milliseconds = 23,
    clock_an_hour_behind_does_not_delay_the_response = 55,
    throttled_entry_is_not_diverted_immediately = 59,
    throttled_entry_is_retried_until_the_deadline = 331,
}

/// The failing seeds of each invariant.
type Failures = BTreeMap<&'static str, Vec<(u64, String)>>;

#[test]
fn invariants_hold_for_all_seeds() {
    if let Some(seed) = variable("SIMULATION_SEED") {
        return assert_invariants(seed);
    }
    let first = variable("SIMULATION_FIRST_SEED").unwrap_or_default();
    let count = variable("SIMULATION_SEEDS").unwrap_or(DEFAULT_SEEDS);
    let (started, next, failures) = (Instant::now(), AtomicU64::new(first), Mutex::new(Failures::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    for violation in run(seed).violations {
                        let detail = (seed, violation.detail);
                        failures.lock().unwrap().entry(violation.invariant).or_default().push(detail);
                    }
                }
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "the rate is only displayed")]
    let rate = count as f64 / seconds;
    print(&format!("simulation: {count} seeds in {seconds:.1} s, {rate:.0} a second"));
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", describe(&failures));
}

/// Prints a line that the test harness does not capture.
fn print(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// Panics with the calls of the seed if an invariant does not hold.
fn assert_invariants(seed: u64) {
    let report = run(seed);
    let violations: BTreeMap<_, _> =
        report.violations.iter().map(|violation| (violation.invariant, &violation.detail)).collect();
    let lines = violations.into_iter().map(|(invariant, detail)| format!("{invariant}: {detail}"));
    let text = report.trace.iter().cloned().chain(lines).collect::<Vec<_>>().join("\n");
    assert!(report.violations.is_empty(), "seed {seed}\n{text}");
    if variable("SIMULATION_SEED").is_some() {
        print(&text);
    }
}

fn run(seed: u64) -> Report {
    catch_unwind(|| environment::run(seed)).unwrap_or_else(|_| Report {
        violations: vec![Violation { invariant: "nothing panics", detail: String::new() }],
        trace: Vec::new(),
    })
}

fn describe(failures: &Failures) -> String {
    let describe = |(invariant, found): (&&str, &Vec<(u64, String)>)| {
        let mut found = found.clone();
        found.sort();
        found.dedup_by_key(|(seed, _)| *seed);
        let examples: Vec<_> = found.iter().take(3).map(|(seed, detail)| format!("{seed} ({detail})")).collect();
        let (seed, _) = found[0];
        format!(
            "{invariant}: does not hold for {} seeds: {}\n    SIMULATION_SEED={seed} cargo test --test simulation",
            found.len(),
            examples.join(", "),
        )
    };
    failures.iter().map(describe).collect::<Vec<_>>().join("\n")
}
