//! The plan of a seed: one execution environment, its requests, and the faults of AWS.

use std::time::Duration;

use fastrand::Rng;

use crate::{
    aws::{Conditions, Queue},
    faults::{Condition, Latency, Profile, Service},
    notification::{self, Notification},
};

/// The latency of Secrets Manager up to which a start must succeed. The function waits 4.5 s for a response.
pub(crate) const MAX_START_LATENCY: Duration = Duration::from_millis(4400);

/// One seed in this many has routes with several queues, and narrowed ones.
const LIST_SEEDS: u64 = 4;

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) profile: Profile,
    /// The first one is the catch-all queue.
    pub(crate) queues: Vec<Queue>,
    pub(crate) has_bucket: bool,
    pub(crate) start: Conditions,
    pub(crate) deliveries: Vec<Delivery>,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// The time since the response to the previous request.
    pub(crate) gap: Duration,
    pub(crate) content: Content,
    pub(crate) signature: Signature,
    pub(crate) deadline: Deadline,
    pub(crate) conditions: Conditions,
}

#[derive(Debug)]
pub(crate) enum Content {
    New(Notification),
    /// The notification of the previous request, as Meta redelivers it after a 503.
    Repeated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signature {
    Genuine,
    /// Signed with an app secret that is new since this request.
    Rotated,
    Forged,
}

/// The deadline of the response that Lambda sends to the function.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deadline {
    In(Duration),
    /// The clock of the environment is an hour ahead, so the deadline has passed.
    ClockAhead,
    /// The clock of the environment is an hour behind.
    ClockBehind,
}

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let profile = match rng.u8(..10) {
            0..2 => Profile::Faultless,
            2..5 => Profile::Slow,
            _ => Profile::Chaotic,
        };
        // Draws of their own leave the other seeds, and thus the regression seeds, as they are.
        let list_rng = &mut Rng::with_seed(!seed);
        let mut queues = draw_queues(rng);
        let first = queues.len();
        if seed.is_multiple_of(LIST_SEEDS) {
            queues.extend(draw_list_queues(list_rng));
        }
        let mut draw_conditions = |rng: &mut Rng| {
            let mut conditions = Conditions::draw(rng, profile, first);
            let further = (first..queues.len()).map(|queue| Condition::draw(list_rng, profile, Service::Sqs(queue)));
            conditions.queues.extend(further);
            conditions
        };
        let mut start = draw_conditions(rng);
        if profile == Profile::Slow {
            start.secrets_manager.latency = Latency::Steady(MAX_START_LATENCY.mul_f64(rng.f64() / 1.1));
        }
        let has_bucket = rng.u8(..10) > 0;
        let mut serial = 0;
        let count = rng.usize(1..=3);
        let mut deliveries: Vec<Delivery> = Vec::with_capacity(count);
        for index in 0..count {
            let repeated = index > 0 && rng.u8(..4) == 0 && deliveries[index - 1].signature != Signature::Forged;
            let signature = match rng.u8(..20) {
                0 if !repeated => Signature::Forged,
                1 | 2 => Signature::Rotated,
                _ => Signature::Genuine,
            };
            deliveries.push(Delivery {
                gap: match rng.u8(..4) {
                    0 => Duration::from_secs(rng.u64(31..700)),
                    _ => Duration::from_millis(rng.u64(..5000)),
                },
                content: if repeated { Content::Repeated } else { Content::New(notification::draw(rng, &mut serial)) },
                signature,
                deadline: Deadline::draw(rng, profile),
                conditions: draw_conditions(rng),
            });
        }
        Self { profile, queues, has_bucket, start, deliveries }
    }
}

fn draw_queues(rng: &mut Rng) -> Vec<Queue> {
    let mut queues = vec![Queue::new("*", "unrouted".to_owned())];
    for (route, name) in
        [("messages", "messages"), ("messages.statuses", "statuses"), ("account_update", "account-update")]
    {
        if rng.u8(..4) > 0 {
            let suffix = if rng.bool() { ".fifo" } else { "" };
            queues.push(Queue::new(route, format!("{name}{suffix}")));
        }
    }
    queues
}

/// Draws queues for routes that may have one already, and for routes that are narrowed to an entry id.
fn draw_list_queues(rng: &mut Rng) -> Vec<Queue> {
    let mut queues = Vec::new();
    for (route, name) in [
        ("messages", "crm"),
        ("messages", "archive"),
        ("messages.statuses", "billing"),
        ("account_update", "audit"),
        ("messages@477984957095892", "brand"),
        ("messages@477984957095892", "brand-archive"),
        ("messages.statuses@477984957095891", "brand-receipts"),
    ] {
        if rng.bool() {
            let suffix = if rng.bool() { ".fifo" } else { "" };
            queues.push(Queue::new(route, format!("{name}{suffix}")));
        }
    }
    queues
}

impl Conditions {
    fn draw(rng: &mut Rng, profile: Profile, queues: usize) -> Self {
        let mut draw = |service| Condition::draw(rng, profile, service);
        Self {
            queues: (0..queues).map(|queue| draw(Service::Sqs(queue))).collect(),
            s3: draw(Service::S3),
            secrets_manager: draw(Service::SecretsManager),
        }
    }

    pub(crate) fn quick(queues: usize) -> Self {
        Self { queues: vec![Condition::QUICK; queues], s3: Condition::QUICK, secrets_manager: Condition::QUICK }
    }
}

impl Deadline {
    fn draw(rng: &mut Rng, profile: Profile) -> Self {
        match rng.u8(..20) {
            _ if profile == Profile::Faultless => Self::In(Duration::from_secs(10)),
            0 | 1 => Self::In(Duration::from_millis(rng.u64(500..1500))),
            2..5 => Self::In(Duration::from_millis(rng.u64(1500..6000))),
            5 => Self::In(Duration::from_mins(1)),
            6 => Self::ClockAhead,
            7 | 8 => Self::ClockBehind,
            _ => Self::In(Duration::from_secs(10)),
        }
    }
}
