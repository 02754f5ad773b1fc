//! Measuring: every function in turn, in small portions, so that what else the computer does hits all of them.

use std::{
    error::Error,
    io,
    time::{Duration, Instant},
};

use fake_aws::{Bucket, Call, FakeAws, Function, Queue, Service};
use serde_json::json;

use crate::{
    contender::Contender,
    gate::Gate,
    limits::Limits,
    memory,
    plan::{Effort, Group},
    results::{Cell, Setting, quantile},
    scene::{APP_SECRET, Scene, VERIFY_TOKEN},
};

/// What the template sets for the allocator; it helps whoever allocates with glibc.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_MMAP_THRESHOLD_", "8388608"), ("MALLOC_TRIM_THRESHOLD_", "33554432")];

const SECRET_ID: &str = "ingress";
const BUCKET: &str = "payloads";

/// What any one invocation may take; at a fourteenth of a processor some take seconds.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Into so many portions are a scene's invocations divided.
const PORTIONS: u32 = 6;

/// Before measuring: code that is compiled as it runs needs to have run.
const WARM_UP: usize = 12;
const WARM_UP_TIME: Duration = Duration::from_secs(1);

/// An AWS for one group, as fast as its setting says.
struct Stage {
    aws: FakeAws,
    /// Secrets Manager's and S3's own, as AWS has a host for each service.
    endpoints: [String; 2],
    queues: Vec<Queue>,
    _bucket: Bucket,
    setting: Setting,
    effort: Effort,
}

/// A running contender. The process ends before its control groups.
struct Sandbox {
    function: Function,
    limits: Limits,
    /// When the shell was let go to become the function.
    started: Instant,
}

/// What one contender took for one scene so far.
#[derive(Default)]
struct Samples {
    times: Vec<Duration>,
    inits: Vec<Duration>,
    cpu: Duration,
    peak_mb: f64,
    calls: usize,
    bytes: usize,
}

/// Measures all scenes of a group with each contender, and tells each cell as soon as it has it.
pub(crate) async fn measure(
    group: &Group,
    contenders: &[Contender],
    effort: Effort,
    mut tell: impl FnMut(Cell),
) -> Result<(), Box<dyn Error>> {
    let stage = Stage::new(group.setting, effort);
    if group.scenes.contains(&Scene::Cold) {
        let cold: Vec<_> = contenders.iter().copied().filter(|contender| *contender != Contender::Bare).collect();
        let mut samples: Vec<_> = cold.iter().map(|_| Samples::default()).collect();
        for _ in 0..group.cold_starts.min(effort.most) {
            for (contender, samples) in cold.iter().zip(&mut samples) {
                stage.start_cold(*contender, samples).await?;
            }
        }
        for (contender, samples) in cold.iter().zip(samples) {
            tell(samples.cell(Scene::Cold, *contender, group.setting));
        }
    }
    let mut sandboxes = Vec::new();
    for contender in contenders {
        let sandbox = stage.start(*contender)?;
        sandbox.function.wait_for_init(TIMEOUT).await.map_err(|error| format!("{}: {error}", contender.name()))?;
        sandboxes.push((*contender, sandbox));
    }
    for scene in group.scenes.iter().filter(|scene| **scene != Scene::Cold) {
        let event = scene.event();
        let fit = |contender: Contender| *scene == Scene::One || contender != Contender::Bare;
        let mut running = Vec::new();
        for (contender, sandbox) in sandboxes.iter().filter(|(contender, _)| fit(*contender)) {
            stage.warm_up(*scene, *contender, sandbox, &event).await?;
            memory::forget_peak(sandbox.function.pid())?;
            running.push((*contender, sandbox, Samples::default()));
        }
        for _ in 0..PORTIONS {
            for (contender, sandbox, samples) in &mut running {
                stage.portion(*scene, *contender, sandbox, &event, samples).await?;
            }
        }
        for (contender, sandbox, mut samples) in running {
            samples.peak_mb = memory::peak_mb(sandbox.function.pid())?;
            tell(samples.cell(*scene, contender, group.setting));
        }
    }
    Ok(())
}

impl Stage {
    fn new(setting: Setting, effort: Effort) -> Self {
        let aws = if setting.tls { FakeAws::start_tls() } else { FakeAws::start() };
        let secret = json!({ "app_secret": APP_SECRET, "verify_token": VERIFY_TOKEN });
        aws.set_secret(SECRET_ID, secret.to_string());
        for service in [aws.sqs(), aws.secrets(), aws.s3()] {
            service.set_latency(Duration::from_millis(setting.latency_ms));
        }
        let queues = ["messages", "messages-statuses", "unrouted"].map(|name| aws.queue(name)).into();
        let endpoints = [aws.add_endpoint(), aws.add_endpoint()];
        Self { _bucket: aws.bucket(BUCKET), endpoints, aws, queues, setting, effort }
    }

    fn start(&self, contender: Contender) -> io::Result<Sandbox> {
        let limits = Limits::new(self.setting.memory_mb)?;
        let urls = json!({
            "*": self.queues[2].url(), "messages": "messages", "messages.statuses": "messages-statuses",
        });
        let mut variables = contender.variables();
        variables.extend(ALLOCATOR.map(|(name, value)| (name, value.to_owned())));
        variables.extend([
            ("SECRET_ID", SECRET_ID.to_owned()),
            ("QUEUE_URLS", urls.to_string()),
            ("PAYLOAD_BUCKET", BUCKET.to_owned()),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", self.endpoints[0].clone()),
            ("AWS_ENDPOINT_URL_S3", self.endpoints[1].clone()),
            ("BARE_QUEUE_URL", self.queues[0].url().to_owned()),
        ]);
        let gate = Gate::new()?;
        let function = Function::start_command(contender.command(limits.groups(), &gate), &self.aws, variables);
        let started = gate.open()?;
        Ok(Sandbox { function, limits, started })
    }

    async fn start_cold(&self, contender: Contender, samples: &mut Samples) -> Result<(), Box<dyn Error>> {
        let before = self.aws.calls().len();
        let sandbox = self.start(contender)?;
        let init = sandbox.function.wait_for_init(TIMEOUT);
        let (init, first) = tokio::join!(init, sandbox.function.invoke(Scene::Cold.event(), TIMEOUT));
        let init = init.map_err(|error| format!("{}: {error}", contender.name()))?;
        let answer = first.response().ok_or_else(|| wrong(contender, Scene::Cold, &first))?;
        if !Scene::Cold.is_right(answer) {
            return Err(wrong(contender, Scene::Cold, &first).into());
        }
        samples.inits.push(sandbox.function.started() + init - sandbox.started);
        samples.times.push(first.ended - sandbox.started);
        samples.cpu += sandbox.limits.used()?;
        samples.peak_mb = samples.peak_mb.max(memory::peak_mb(sandbox.function.pid())?);
        self.count(contender, Scene::Cold, 1, before, samples)
    }

    async fn warm_up(
        &self,
        scene: Scene,
        contender: Contender,
        sandbox: &Sandbox,
        event: &str,
    ) -> Result<(), Box<dyn Error>> {
        let started = Instant::now();
        for _ in 0..WARM_UP.min(self.effort.most) {
            invoke(scene, contender, sandbox, event).await?;
            if started.elapsed() > WARM_UP_TIME {
                break;
            }
        }
        for queue in &self.queues {
            let _ = queue.take_messages();
        }
        Ok(())
    }

    async fn portion(
        &self,
        scene: Scene,
        contender: Contender,
        sandbox: &Sandbox,
        event: &str,
        samples: &mut Samples,
    ) -> Result<(), Box<dyn Error>> {
        let (before, used, started) = (self.aws.calls().len(), sandbox.limits.used()?, Instant::now());
        let most = self.effort.most.div_ceil(PORTIONS as usize);
        let mut count = 0;
        while count < most && (count == 0 || started.elapsed() < self.effort.time / PORTIONS) {
            samples.times.push(invoke(scene, contender, sandbox, event).await?);
            count += 1;
        }
        samples.cpu += sandbox.limits.used()?.saturating_sub(used);
        self.count(contender, scene, count, before, samples)
    }

    /// Adds the calls that were made, and sees that all is stored.
    fn count(
        &self,
        contender: Contender,
        scene: Scene,
        invocations: usize,
        before: usize,
        samples: &mut Samples,
    ) -> Result<(), Box<dyn Error>> {
        let calls = self.aws.calls().split_off(before);
        let sending = |call: &&Call| call.service == Service::Sqs && call.entries > 0;
        samples.calls += calls.iter().filter(sending).count();
        samples.bytes += calls.iter().filter(sending).map(|call| call.bytes).sum::<usize>();
        let stored: usize = self.queues.iter().map(|queue| queue.take_messages().len()).sum();
        let expected = match contender {
            Contender::Null | Contender::NullRuntime => 0,
            Contender::Bare => invocations,
            _ => scene.messages() * invocations,
        };
        if stored == expected {
            return Ok(());
        }
        Err(format!("{}, {}: {stored} messages stored instead of {expected}", contender.name(), scene.name()).into())
    }
}

/// Delivers the event once; gives the time from its delivery to the answer, or what the function says it was.
async fn invoke(
    scene: Scene,
    contender: Contender,
    sandbox: &Sandbox,
    event: &str,
) -> Result<Duration, Box<dyn Error>> {
    let invocation = sandbox.function.invoke(event, TIMEOUT).await;
    let answer = invocation.response().ok_or_else(|| wrong(contender, scene, &invocation))?;
    if contender == Contender::Bare {
        let took = answer["body"].as_str().and_then(|body| body.parse().ok());
        return Ok(took.map(Duration::from_micros).ok_or_else(|| wrong(contender, scene, &invocation))?);
    }
    if contender.is_peer() && !scene.is_right(answer) {
        return Err(wrong(contender, scene, &invocation).into());
    }
    Ok(invocation.elapsed)
}

fn wrong(contender: Contender, scene: Scene, invocation: &fake_aws::Invocation) -> String {
    format!("{}, {}: {:?}", contender.name(), scene.name(), invocation.outcome)
}

impl Samples {
    fn cell(mut self, scene: Scene, contender: Contender, setting: Setting) -> Cell {
        self.times.sort_unstable();
        self.inits.sort_unstable();
        let samples = self.times.len();
        #[allow(clippy::cast_precision_loss, reason = "there are not that many")]
        let each = |total: f64| total / samples as f64;
        #[allow(clippy::cast_precision_loss, reason = "there are not that many")]
        let [calls, bytes] = [self.calls as f64, self.bytes as f64];
        Cell {
            scene: scene.name().to_owned(),
            contender: contender.name().to_owned(),
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
    fn the_allocator_is_told_what_the_template_tells_it() {
        for (name, value) in ALLOCATOR {
            assert!(include_str!("../../../template.yaml").contains(&format!("{name}: \"{value}\"\n")), "{name}");
        }
    }
}
