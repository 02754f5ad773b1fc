//! The record of every call that the fake received.

use crate::lock::lock;
use crate::server::Gauge;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A service that the fake implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Simple Queue Service.
    Sqs,
    /// Secrets Manager.
    Secrets,
    /// Simple Storage Service.
    S3,
}

/// One call and its result.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Call {
    /// The index among all calls to this fake, in the order of arrival.
    pub number: usize,
    /// The number of its connection. The first connection has number 1.
    pub connection: u64,
    /// The id of the access key that signed it. Functions with different keys can share a fake.
    pub access_key: Option<String>,
    /// The service.
    pub service: Service,
    /// The operation, for example `SendMessageBatch`.
    pub operation: String,
    /// The name of the queue, for calls to SQS.
    pub queue: Option<String>,
    /// The number of messages in a call to SQS. 0 for other services.
    pub entries: usize,
    /// The size of the request body in bytes.
    pub bytes: usize,
    /// When the headers arrived.
    pub started: Instant,
    /// The time from the headers of the request to the start of the response, or to the end of the connection. `None`
    /// while the call is in flight.
    pub duration: Option<Duration>,
    /// The status of the response. `None` while the call is in flight, and if there was no response.
    pub status: Option<u16>,
    /// The name of the fault that was injected, see [`Fault::name`](crate::Fault::name).
    pub fault: Option<&'static str>,
}

/// All calls, in the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct CallLog {
    calls: Mutex<Vec<Call>>,
    pub(crate) in_flight: Gauge,
}

impl CallLog {
    pub(crate) fn begin(self: &Arc<Self>, connection: u64, service: Service, operation: &str) -> CallInFlight {
        self.in_flight.increment();
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
            duration: None,
            status: None,
            fault: None,
        });
        CallInFlight { log: Arc::clone(self), number, connection }
    }

    pub(crate) fn snapshot(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }
}

/// A call in flight. Dropping this records the end of the call, also if the client has closed the connection.
#[derive(Debug)]
pub(crate) struct CallInFlight {
    log: Arc<CallLog>,
    pub(crate) number: usize,
    pub(crate) connection: u64,
}

impl CallInFlight {
    pub(crate) fn update(&self, change: impl FnOnce(&mut Call)) {
        if let Some(call) = lock(&self.log.calls).get_mut(self.number) {
            change(call);
        }
    }
}

impl Drop for CallInFlight {
    fn drop(&mut self) {
        self.update(|call| call.duration = Some(call.started.elapsed()));
        self.log.in_flight.decrement();
    }
}
