//! Measures the functions in turn and in small portions, so that other load on the computer affects all of them.

use std::{
    error::Error,
    io,
    time::{Duration, Instant},
};

use fake_aws::{Bucket, Call, FakeAws, Function, Queue, Service};
use serde_json::json;

use crate::{
    gate::Gate,
    limits::Limits,
    memory,
    plan::{Effort, Group},
    results::{Cell, Failure, Setting, quantile},
    scenario::{APP_SECRET, Scenario, VERIFY_TOKEN},
    subject::{ARCHIVE, Subject},
};

/// The settings of the glibc allocator in the template. They help every function that uses it.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_MMAP_THRESHOLD_", "8388608"), ("MALLOC_TRIM_THRESHOLD_", "33554432")];

const SECRET_ID: &str = "ingress";
const BUCKET: &str = "payloads";

/// The timeout of an invocation. With a fourteenth of a processor some take seconds.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The number of portions into which the invocations of a scenario are divided.
const PORTIONS: u32 = 6;

/// The number of invocations before the measurement. Just-in-time compilers need them.
const WARM_UP_COUNT: usize = 12;
/// The limit of their total time.
const WARM_UP_TIME: Duration = Duration::from_secs(1);

/// A fake AWS with the latency of a setting.
pub(crate) struct TestBed {
    aws: FakeAws,
    /// Separate endpoints for Secrets Manager and S3, because AWS has a host for each service.
    endpoints: [String; 2],
    queues: Vec<Queue>,
    _buckets: [Bucket; 2],
    setting: Setting,
    effort: Effort,
}

/// A running subject. The order of the fields ends the process before its control groups are removed.
pub(crate) struct Environment {
    function: Function,
    limits: Limits,
    /// When the gate released the shell.
    started: Instant,
}

/// The measurements of one subject in one scenario.
#[derive(Default)]
struct Samples {
    times: Vec<Duration>,
    inits: Vec<Duration>,
    cpu: Duration,
    peak_mb: f64,
    calls: usize,
    bytes: usize,
}

/// Measures all scenarios of a group with each subject. Calls `report` with each cell as soon as it is complete.
///
/// A subject that fails is left out of the following scenarios, because its environment may have ended.
pub(crate) async fn measure(
    group: &Group,
    subjects: &[Subject],
    effort: Effort,
    mut report: impl FnMut(Result<Cell, Failure>),
) -> Result<(), Box<dyn Error>> {
    let test_bed = TestBed::new(group.setting, effort);
    let failure = |step: &str, subject: Subject, reason: Box<dyn Error>| Failure {
        step: step.to_owned(),
        subject: subject.name().to_owned(),
        setting: group.setting,
        reason: reason.to_string(),
    };
    if group.scenarios.contains(&Scenario::Cold) {
        let cold = subjects.iter().filter(|subject| subject.is_measured_in(Scenario::Cold));
        let mut runs: Vec<_> = cold.map(|subject| (*subject, Ok(Samples::default()))).collect();
        for _ in 0..group.cold_starts.min(effort.max_invocations) {
            for (subject, run) in &mut runs {
                test_bed.add(run, async |samples| test_bed.start_cold(*subject, samples).await).await;
            }
        }
        for (subject, run) in runs {
            let cell = run.map(|samples| samples.cell(Scenario::Cold, subject, group.setting));
            report(cell.map_err(|reason| failure(Scenario::Cold.name(), subject, reason)));
        }
    }
    let mut environments = Vec::new();
    for subject in subjects {
        let environment = test_bed.start(*subject, &[])?;
        match environment.function.wait_for_init(TIMEOUT).await {
            Ok(_) => environments.push((*subject, environment)),
            Err(reason) => report(Err(failure(Failure::START, *subject, reason.into()))),
        }
    }
    for scenario in group.scenarios.iter().filter(|scenario| **scenario != Scenario::Cold) {
        let event = scenario.event();
        let mut running = Vec::new();
        for (subject, environment) in environments.iter().filter(|(subject, _)| subject.is_measured_in(*scenario)) {
            let mut run = Ok(Samples::default());
            test_bed.add(&mut run, async |_| test_bed.warm_up(*scenario, *subject, environment, &event).await).await;
            running.push((*subject, environment, run));
        }
        for _ in 0..PORTIONS {
            for (subject, environment, run) in &mut running {
                let portion = async |samples: &mut _| {
                    test_bed.measure_portion(*scenario, *subject, environment, &event, samples).await
                };
                test_bed.add(run, portion).await;
            }
        }
        let mut failed = Vec::new();
        for (subject, environment, run) in running {
            match run {
                Ok(mut samples) => {
                    samples.peak_mb = memory::peak_mb(environment.function.pid())?;
                    report(Ok(samples.cell(*scenario, subject, group.setting)));
                }
                Err(reason) => {
                    report(Err(failure(scenario.name(), subject, reason)));
                    failed.push(subject);
                }
            }
        }
        environments.retain(|(subject, _)| !failed.contains(subject));
    }
    Ok(())
}

impl Environment {
    pub(crate) fn pid(&self) -> u32 {
        self.function.pid()
    }

    pub(crate) fn used_time(&self) -> io::Result<Duration> {
        self.limits.used_time()
    }
}

impl TestBed {
    pub(crate) fn new(setting: Setting, effort: Effort) -> Self {
        let aws = if setting.tls { FakeAws::start_tls() } else { FakeAws::start() };
        let secret = json!({ "app_secret": APP_SECRET, "verify_token": VERIFY_TOKEN });
        aws.set_secret(SECRET_ID, secret.to_string());
        for service in [aws.sqs(), aws.secrets(), aws.s3()] {
            service.set_latency(Duration::from_millis(setting.latency_ms));
        }
        let queues = ["messages", "messages-statuses", "unrouted"].map(|name| aws.queue(name)).into();
        let endpoints = [aws.add_endpoint(), aws.add_endpoint()];
        Self { _buckets: [BUCKET, ARCHIVE].map(|name| aws.bucket(name)), endpoints, aws, queues, setting, effort }
    }

    /// Starts a subject with these variables in addition to those of every subject.
    pub(crate) fn start(&self, subject: Subject, more: &[(&'static str, String)]) -> io::Result<Environment> {
        let limits = Limits::new(self.setting.memory_mb)?;
        let urls = json!({
            "*": self.queues[2].url(), "messages": "messages", "messages.statuses": "messages-statuses",
        });
        let mut variables = subject.variables();
        variables.extend(ALLOCATOR.map(|(name, value)| (name, value.to_owned())));
        variables.extend([
            ("SECRET_ID", SECRET_ID.to_owned()),
            ("QUEUE_URLS", urls.to_string()),
            ("PAYLOAD_BUCKET", BUCKET.to_owned()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", self.endpoints[0].clone()),
            ("AWS_ENDPOINT_URL_S3", self.endpoints[1].clone()),
            ("BARE_QUEUE_URL", self.queues[0].url().to_owned()),
        ]);
        variables.extend_from_slice(more);
        let gate = Gate::new()?;
        let function = Function::start_command(subject.command(limits.groups(), &gate), &self.aws, variables);
        let started = gate.open()?;
        Ok(Environment { function, limits, started })
    }

    /// Adds a measurement to those of a subject, unless one failed before. Then it removes what the failed one stored.
    async fn add(
        &self,
        run: &mut Result<Samples, Box<dyn Error>>,
        measure: impl AsyncFnOnce(&mut Samples) -> Result<(), Box<dyn Error>>,
    ) {
        let Ok(samples) = run else { return };
        if let Err(reason) = measure(samples).await {
            *run = Err(reason);
            self.clear();
        }
    }

    async fn start_cold(&self, subject: Subject, samples: &mut Samples) -> Result<(), Box<dyn Error>> {
        let before = self.aws.calls().len();
        let environment = self.start(subject, &[])?;
        let init = environment.function.wait_for_init(TIMEOUT);
        let (init, first) = tokio::join!(init, environment.function.invoke(Scenario::Cold.event(), TIMEOUT));
        let init = init.map_err(|error| format!("{}: {error}", subject.name()))?;
        let response = first.response().ok_or_else(|| unexpected(subject, Scenario::Cold, &first))?;
        if !Scenario::Cold.is_expected(response) {
            return Err(unexpected(subject, Scenario::Cold, &first).into());
        }
        samples.inits.push(environment.function.started() + init - environment.started);
        samples.times.push(first.ended - environment.started);
        samples.cpu += environment.limits.used_time()?;
        samples.peak_mb = samples.peak_mb.max(memory::peak_mb(environment.function.pid())?);
        self.count_calls(subject, Scenario::Cold, 1, before, samples)
    }

    async fn warm_up(
        &self,
        scenario: Scenario,
        subject: Subject,
        environment: &Environment,
        event: &str,
    ) -> Result<(), Box<dyn Error>> {
        let started = Instant::now();
        for _ in 0..WARM_UP_COUNT.min(self.effort.max_invocations) {
            invoke(scenario, subject, environment, event).await?;
            if started.elapsed() > WARM_UP_TIME {
                break;
            }
        }
        self.clear();
        memory::reset_peak(environment.function.pid())?;
        Ok(())
    }

    /// Removes all messages.
    pub(crate) fn clear(&self) {
        for queue in &self.queues {
            let _ = queue.take_messages();
        }
    }

    async fn measure_portion(
        &self,
        scenario: Scenario,
        subject: Subject,
        environment: &Environment,
        event: &str,
        samples: &mut Samples,
    ) -> Result<(), Box<dyn Error>> {
        let (before, used, started) = (self.aws.calls().len(), environment.limits.used_time()?, Instant::now());
        let max_invocations = self.effort.max_invocations.div_ceil(PORTIONS as usize);
        let mut count = 0;
        while count < max_invocations && (count == 0 || started.elapsed() < self.effort.time / PORTIONS) {
            samples.times.push(invoke(scenario, subject, environment, event).await?);
            count += 1;
        }
        samples.cpu += environment.limits.used_time()?.saturating_sub(used);
        self.count_calls(subject, scenario, count, before, samples)
    }

    /// Counts the calls of the invocations, and checks that all messages are stored.
    fn count_calls(
        &self,
        subject: Subject,
        scenario: Scenario,
        invocations: usize,
        before: usize,
        samples: &mut Samples,
    ) -> Result<(), Box<dyn Error>> {
        let calls = self.aws.calls().split_off(before);
        let is_send = |call: &&Call| call.service == Service::Sqs && call.entries > 0;
        samples.calls += calls.iter().filter(is_send).count();
        samples.bytes += calls.iter().filter(is_send).map(|call| call.bytes).sum::<usize>();
        self.expect_messages(scenario, subject, invocations)
    }

    /// Removes all messages, and checks that they are those of the invocations.
    pub(crate) fn expect_messages(
        &self,
        scenario: Scenario,
        subject: Subject,
        invocations: usize,
    ) -> Result<(), Box<dyn Error>> {
        let stored: usize = self.queues.iter().map(|queue| queue.take_messages().len()).sum();
        let expected = match subject {
            Subject::Null | Subject::NullRuntime => 0,
            Subject::Bare => invocations,
            _ => scenario.message_count() * invocations,
        };
        if stored == expected {
            return Ok(());
        }
        Err(format!("{}, {}: {stored} messages stored instead of {expected}", subject.name(), scenario.name()).into())
    }
}

/// Delivers the event once. Returns the time until the response, or the time that the function reports.
pub(crate) async fn invoke(
    scenario: Scenario,
    subject: Subject,
    environment: &Environment,
    event: &str,
) -> Result<Duration, Box<dyn Error>> {
    let invocation = environment.function.invoke(event, TIMEOUT).await;
    let response = invocation.response().ok_or_else(|| unexpected(subject, scenario, &invocation))?;
    if subject == Subject::Bare {
        let duration = response["body"].as_str().and_then(|body| body.parse().ok());
        return Ok(duration.map(Duration::from_micros).ok_or_else(|| unexpected(subject, scenario, &invocation))?);
    }
    if subject.is_full_implementation() && !scenario.is_expected(response) {
        return Err(unexpected(subject, scenario, &invocation).into());
    }
    Ok(invocation.elapsed)
}

fn unexpected(subject: Subject, scenario: Scenario, invocation: &fake_aws::Invocation) -> String {
    format!("{}, {}: {:?}", subject.name(), scenario.name(), invocation.outcome)
}

impl Samples {
    fn cell(mut self, scenario: Scenario, subject: Subject, setting: Setting) -> Cell {
        self.times.sort_unstable();
        self.inits.sort_unstable();
        let samples = self.times.len();
        #[allow(clippy::cast_precision_loss, reason = "the numbers are small")]
        let each = |total: f64| total / samples as f64;
        #[allow(clippy::cast_precision_loss, reason = "the numbers are small")]
        let [calls, bytes] = [self.calls as f64, self.bytes as f64];
        Cell {
            scenario: scenario.name().to_owned(),
            subject: subject.name().to_owned(),
            setting,
            samples,
            median_ms: quantile(&self.times, 0.5),
            p99_ms: quantile(&self.times, 0.99),
            mean_ms: each(self.times.iter().sum::<Duration>().as_secs_f64() * 1e3),
            init_ms: (!self.inits.is_empty()).then(|| quantile(&self.inits, 0.5)),
            cpu_ms: each(self.cpu.as_secs_f64() * 1e3),
            peak_mb: self.peak_mb,
            calls: each(calls),
            bytes: each(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ALLOCATOR;

    #[test]
    fn allocator_settings_match_the_template() {
        for (name, value) in ALLOCATOR {
            assert!(include_str!("../../../template.yaml").contains(&format!("{name}: \"{value}\"\n")), "{name}");
        }
    }
}
