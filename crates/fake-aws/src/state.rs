//! The state of one fake AWS account.

use crate::call::{CallLog, Service};
use crate::lock::lock;
use crate::rules::FaultRules;
use crate::s3::Buckets;
use crate::secrets::Secrets;
use crate::server::{Connections, Gauge};
use crate::sqs::Queues;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The state that calls share.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) queues: Mutex<Queues>,
    pub(crate) secrets: Mutex<Secrets>,
    pub(crate) buckets: Mutex<Buckets>,
    pub(crate) rules: FaultRules,
    pub(crate) calls: Arc<CallLog>,
    pub(crate) delayed_commits: Gauge,
    pub(crate) connections: Arc<Connections>,
    latencies: Mutex<HashMap<Service, Duration>>,
}

impl State {
    pub(crate) fn latency(&self, service: Service) -> Duration {
        lock(&self.latencies).get(&service).copied().unwrap_or_default()
    }

    pub(crate) fn set_latency(&self, service: Service, latency: Duration) {
        lock(&self.latencies).insert(service, latency);
    }
}
