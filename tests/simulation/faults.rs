//! The condition of a service during a request, and the fate of each call.

use std::time::Duration;

use fastrand::Rng;

const MAX_QUICK: Duration = Duration::from_millis(40);
const MAX_TAIL: Duration = Duration::from_secs(12);

/// The faults that a seed can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Every call succeeds quickly.
    Faultless,
    /// Every call succeeds, but can take seconds.
    Slow,
    /// Every kind of fault.
    Chaotic,
}

/// The services that the function calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Service {
    /// A queue, by its index.
    Sqs(usize),
    S3,
    SecretsManager,
}

/// The condition of one service during one request.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(crate) latency: Latency,
    pub(crate) faults: Option<Faults>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Latency {
    Quick,
    /// Within a tenth of this.
    Steady(Duration),
    /// One call in four takes up to twelve seconds.
    Tailed,
}

#[derive(Debug, Clone)]
pub(crate) struct Faults {
    percent: u8,
    /// `None` draws a fault of any kind for each call.
    fault: Option<Fault>,
    /// After this time in the request, the service works.
    heals_after: Option<Duration>,
}

/// A fault of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The service rejects the call.
    CallRejected(&'static ServiceError),
    /// SQS rejects some entries of the batch.
    EntriesRejected(&'static ServiceError),
    /// Some entries are not stored, and the response omits them.
    EntriesOmitted,
    /// The service executes the call, but the caller receives another response or none.
    ResponseLost(Reply),
    /// The connection ends before the service has executed the call.
    ConnectionLost,
    /// The service neither executes the call nor responds.
    Hang,
    /// The service executes the call seconds later, when it responds.
    Late,
}

/// An error of a service.
#[derive(Debug)]
pub(crate) struct ServiceError {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) is_sender_fault: bool,
    pub(crate) scope: Scope,
}

/// The messages that cannot be stored because of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The same call may succeed.
    Nothing,
    Message,
    /// Any message on this queue, or any object in this bucket.
    Service,
}

/// What the caller receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The result of the call.
    Result,
    /// An error of a service.
    Error(u16, &'static str),
    /// The connection closes without a response.
    ConnectionLost,
    /// A response with status 200 that cannot be parsed.
    Unparseable,
    Never,
}

/// What happens to one call.
#[derive(Debug, Clone)]
pub(crate) struct Fate {
    /// When the service executes the call, counted from its start.
    pub(crate) effect_after: Duration,
    /// When the caller gets the reply.
    pub(crate) reply_after: Duration,
    pub(crate) reply: Reply,
    pub(crate) is_executed: bool,
    /// The entries that are not stored, as bits, and their error.
    pub(crate) not_stored: (u16, Option<&'static ServiceError>),
    /// The error of the whole call.
    pub(crate) error: Option<&'static ServiceError>,
}

impl Fate {
    pub(crate) fn is_entry_stored(&self, index: usize) -> bool {
        self.is_executed && self.not_stored.0 & (1 << index) == 0
    }

    /// Returns whether the call has a fault other than latency.
    pub(crate) fn is_faulty(&self) -> bool {
        self.reply != Reply::Result || self.not_stored.0 != 0
    }

    /// Returns whether the caller cannot know the result of the call.
    pub(crate) fn is_response_lost(&self) -> bool {
        match self.reply {
            Reply::Result => false,
            Reply::Error(..) => self.is_executed,
            Reply::ConnectionLost | Reply::Unparseable | Reply::Never => true,
        }
    }
}

const fn service_error(status: u16, code: &'static str, is_sender_fault: bool, scope: Scope) -> ServiceError {
    ServiceError { status, code, is_sender_fault, scope }
}

static SQS_CALL: [ServiceError; 11] = [
    service_error(500, "InternalFailure", false, Scope::Nothing),
    service_error(503, "ServiceUnavailable", false, Scope::Nothing),
    service_error(400, "ThrottlingException", true, Scope::Nothing),
    service_error(400, "RequestThrottled", true, Scope::Nothing),
    service_error(400, "KmsThrottled", true, Scope::Nothing),
    service_error(429, "TooManyRequestsException", true, Scope::Nothing),
    service_error(403, "AccessDeniedException", true, Scope::Service),
    service_error(400, "QueueDoesNotExist", true, Scope::Service),
    service_error(400, "KmsDisabled", true, Scope::Service),
    service_error(400, "InvalidParameterValueException", true, Scope::Message),
    service_error(400, "BrandNewException", true, Scope::Message),
];

static SQS_ENTRY: [ServiceError; 9] = [
    service_error(200, "InternalError", false, Scope::Nothing),
    service_error(200, "ServiceUnavailable", false, Scope::Nothing),
    service_error(200, "ThrottlingException", true, Scope::Nothing),
    service_error(200, "RequestThrottled", true, Scope::Nothing),
    service_error(200, "KMS.ThrottlingException", true, Scope::Nothing),
    service_error(200, "ServiceUnavailable", true, Scope::Nothing),
    service_error(200, "InvalidMessageContents", true, Scope::Message),
    service_error(200, "KMS.DisabledException", true, Scope::Service),
    service_error(200, "BrandNewError", true, Scope::Message),
];

static S3_CALL: [ServiceError; 6] = [
    service_error(500, "InternalError", false, Scope::Nothing),
    service_error(503, "SlowDown", false, Scope::Nothing),
    service_error(400, "RequestTimeout", true, Scope::Nothing),
    service_error(409, "OperationAborted", true, Scope::Nothing),
    service_error(403, "AccessDenied", true, Scope::Service),
    service_error(404, "NoSuchBucket", true, Scope::Service),
];

static SECRETS_CALL: [ServiceError; 4] = [
    service_error(500, "InternalServiceError", false, Scope::Nothing),
    service_error(400, "ThrottlingException", true, Scope::Nothing),
    service_error(400, "AccessDeniedException", true, Scope::Service),
    service_error(400, "DecryptionFailure", true, Scope::Service),
];

impl Condition {
    pub(crate) const QUICK: Self = Self { latency: Latency::Quick, faults: None };

    pub(crate) fn draw(rng: &mut Rng, profile: Profile, service: Service) -> Self {
        match (profile, rng.u8(..100)) {
            (Profile::Faultless, _) | (Profile::Slow, 0..40) | (Profile::Chaotic, 0..35) => Self::QUICK,
            (Profile::Slow, _) | (Profile::Chaotic, 35..55) => Self { latency: Latency::draw_slow(rng), faults: None },
            (Profile::Chaotic, _) => {
                let latency = if rng.u8(..10) < 7 { Latency::Quick } else { Latency::draw_slow(rng) };
                Self { latency, faults: Some(Faults::draw(rng, service)) }
            }
        }
    }

    /// Returns the longest latency of a call. `None` if calls can have faults.
    pub(crate) fn max_latency(&self) -> Option<Duration> {
        let longest = match self.latency {
            Latency::Quick => MAX_QUICK,
            Latency::Steady(latency) => latency.mul_f64(1.1),
            Latency::Tailed => MAX_TAIL,
        };
        self.faults.is_none().then_some(longest)
    }

    /// Draws the fate of a call that starts `elapsed` after the request.
    pub(crate) fn fate(&self, rng: &mut Rng, service: Service, elapsed: Duration) -> Fate {
        let latency = self.latency.draw(rng);
        let mut fate = Fate {
            effect_after: match rng.u8(..3) {
                0 => Duration::ZERO,
                1 => latency,
                _ => latency.mul_f64(rng.f64()),
            },
            reply_after: latency,
            reply: Reply::Result,
            is_executed: true,
            not_stored: (0, None),
            error: None,
        };
        if let Some(fault) = self.faults.as_ref().and_then(|faults| faults.fault(rng, service, elapsed)) {
            fault.apply(rng, &mut fate);
        }
        fate
    }
}

impl Latency {
    fn draw_slow(rng: &mut Rng) -> Self {
        match rng.u8(..6) {
            0 => Self::Steady(Duration::from_millis(rng.u64(50..1000))),
            1 | 2 => Self::Steady(Duration::from_millis(rng.u64(1000..4000))),
            3 => Self::Steady(Duration::from_millis(rng.u64(4000..12_000))),
            _ => Self::Tailed,
        }
    }

    fn draw(self, rng: &mut Rng) -> Duration {
        let quick = |rng: &mut Rng| Duration::from_millis(rng.u64(2..=40));
        match self {
            Self::Quick => quick(rng),
            Self::Steady(latency) => latency.mul_f64(0.9 + rng.f64() / 5.0),
            Self::Tailed if rng.u8(..4) > 0 => quick(rng),
            Self::Tailed => Duration::from_millis(rng.u64(100..=12_000)),
        }
    }
}

impl Faults {
    fn draw(rng: &mut Rng, service: Service) -> Self {
        Self {
            percent: *rng.choice(&[10, 30, 60, 100]).unwrap_or(&100),
            fault: (rng.u8(..10) < 7).then(|| Fault::draw(rng, service)),
            heals_after: (rng.u8(..3) == 0).then(|| Duration::from_millis(rng.u64(100..6000))),
        }
    }

    fn fault(&self, rng: &mut Rng, service: Service, elapsed: Duration) -> Option<Fault> {
        let is_faulty = rng.u8(..100) < self.percent && self.heals_after.is_none_or(|healed| elapsed < healed);
        is_faulty.then(|| self.fault.unwrap_or_else(|| Fault::draw(rng, service)))
    }
}

impl Fault {
    fn draw(rng: &mut Rng, service: Service) -> Self {
        let pick = |rng: &mut Rng, errors: &'static [ServiceError]| &errors[rng.usize(..errors.len())];
        match (rng.u8(..12), service) {
            (0..3, Service::Sqs(_)) => Self::EntriesRejected(pick(rng, &SQS_ENTRY)),
            (3, Service::Sqs(_)) => Self::EntriesOmitted,
            (0..6, Service::Sqs(_)) => Self::CallRejected(pick(rng, &SQS_CALL)),
            (0..6, Service::S3) => Self::CallRejected(pick(rng, &S3_CALL)),
            (0..6, Service::SecretsManager) => Self::CallRejected(pick(rng, &SECRETS_CALL)),
            (6 | 7, _) => {
                let replies =
                    [Reply::ConnectionLost, Reply::Error(500, "InternalFailure"), Reply::Never, Reply::Unparseable];
                // A caller of `PutObject` ignores the body of a response.
                let count = if service == Service::S3 { 3 } else { 4 };
                Self::ResponseLost(replies[rng.usize(..count)])
            }
            (8, _) => Self::ConnectionLost,
            (9, _) => Self::Hang,
            _ => Self::Late,
        }
    }

    fn apply(self, rng: &mut Rng, fate: &mut Fate) {
        let entries = match rng.u8(..3) {
            0 => u16::MAX,
            1 => 1 << rng.u8(..10),
            _ => rng.u16(..),
        };
        match self {
            Self::CallRejected(error) => {
                fate.reply = Reply::Error(error.status, error.code);
                fate.is_executed = false;
                fate.error = Some(error);
            }
            Self::EntriesRejected(error) => fate.not_stored = (entries, Some(error)),
            Self::EntriesOmitted => fate.not_stored = (entries, None),
            Self::ResponseLost(reply) => fate.reply = reply,
            Self::ConnectionLost => (fate.reply, fate.is_executed) = (Reply::ConnectionLost, false),
            Self::Hang => (fate.reply, fate.is_executed) = (Reply::Never, false),
            Self::Late => {
                fate.reply_after = Duration::from_millis(rng.u64(1000..20_000));
                fate.effect_after = fate.reply_after;
            }
        }
    }
}
