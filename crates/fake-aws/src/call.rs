//! The record of every call that reached the fake.

use crate::lock::lock;
use crate::server::Gauge;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A service of AWS that is faked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Simple Queue Service.
    Sqs,
    /// Secrets Manager.
    Secrets,
    /// Simple Storage Service.
    S3,
}

/// One call as it arrived, and what became of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call {
    /// Its place among all calls of this fake, from 0.
    pub number: usize,
    /// The connection that brought it, counted from 1.
    pub connection: u64,
    /// The access key that signed it, which tells functions with different keys apart.
    pub access_key: Option<String>,
    /// The service it was for.
    pub service: Service,
    /// The operation, as `SendMessageBatch`.
    pub operation: String,
    /// The queue's name, where the call names one.
    pub queue: Option<String>,
    /// Entries of a batch; 0 for anything else.
    pub entries: usize,
    /// Bytes of the request's body.
    pub bytes: usize,
    /// When its headers had arrived.
    pub started: Instant,
    /// How long until its answer began or its connection was dropped; none while it is under way.
    pub took: Option<Duration>,
    /// The status answered; none while it is under way, and where no answer came.
    pub status: Option<u16>,
    /// The fault that was injected into it.
    pub fault: Option<&'static str>,
}

/// All calls, in the order of their arrival.
#[derive(Debug, Default)]
pub(crate) struct CallLog {
    calls: Mutex<Vec<Call>>,
    pub(crate) in_flight: Gauge,
}

impl CallLog {
    pub(crate) fn begin(self: &Arc<Self>, connection: u64, service: Service, operation: &str) -> CallInFlight {
        self.in_flight.up();
        let mut calls = lock(&self.calls);
        let number = calls.len();
        calls.push(Call {
            number,
            connection,
            access_key: None,
            service,
            operation: operation.to_owned(),
            queue: None,
            entries: 0,
            bytes: 0,
            started: Instant::now(),
            took: None,
            status: None,
            fault: None,
        });
        CallInFlight { log: Arc::clone(self), number, connection }
    }

    pub(crate) fn all(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }
}

/// A call under way; its end is noted when this is dropped, even if the client has gone.
#[derive(Debug)]
pub(crate) struct CallInFlight {
    log: Arc<CallLog>,
    pub(crate) number: usize,
    pub(crate) connection: u64,
}

impl CallInFlight {
    pub(crate) fn note(&self, change: impl FnOnce(&mut Call)) {
        if let Some(call) = lock(&self.log.calls).get_mut(self.number) {
            change(call);
        }
    }
}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        self.note(|call| call.took = Some(call.started.elapsed()));
        self.log.in_flight.down();
    }
}
