//! The faults that tests can inject into calls.

use crate::service_error::ServiceError;
use crate::sqs::{Entry, EntryFault, Selection};
use std::time::Duration;

/// A fault of the network or the service in one call.
///
/// With `commit_then_…` and `delay_…` the call takes effect: SQS stores the messages, and a retry stores them again, except on a
/// FIFO queue, which drops duplicates. With `reject_…` SQS stores the other entries of a batch; a call of `SendMessage` fails. With
/// all others the call has no effect.
#[derive(Debug, Clone)]
pub struct Fault {
    pub(crate) kind: FaultKind,
}

#[derive(Debug, Clone)]
pub(crate) enum FaultKind {
    RejectEntries(EntryFault),
    Fail(ServiceError),
    DropUnread,
    Drop,
    Hang,
    CommitThenDrop,
    CommitThenHang,
    CommitThenTruncate,
    CommitThenStall,
    CommitThenGarble,
    CommitThenRespond { status: u16, body: String },
    DelayResponse(Duration),
    DelayCommit(Duration, Option<Selection>),
}

impl Fault {
    /// Rejects the entry with this index in its batch, with `InternalError` and without `SenderFault`.
    #[must_use]
    pub fn reject_entry(index: usize) -> Self {
        Self::reject(move |entry_index, _| entry_index == index)
    }

    /// Rejects every entry with `InternalError` and without `SenderFault`. A call of `SendMessageBatch` itself succeeds.
    #[must_use]
    pub fn reject_all_entries() -> Self {
        Self::reject(|_, _| true)
    }

    /// Rejects the entries for which `is_hit` returns true, with `InternalError` and without `SenderFault`. Batches without
    /// such an entry are not affected.
    #[must_use]
    pub fn reject_entries(is_hit: impl Fn(&Entry) -> bool + Send + Sync + 'static) -> Self {
        Self::reject(move |_, entry| is_hit(entry))
    }

    fn reject(is_hit: impl Fn(usize, &Entry) -> bool + Send + Sync + 'static) -> Self {
        let code = "InternalError".to_owned();
        FaultKind::RejectEntries(EntryFault { entries: Selection::new(is_hit), code, sender_fault: false }).into()
    }

    /// Replaces the error code of rejected entries. Without effect on other faults.
    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        if let FaultKind::RejectEntries(fault) = &mut self.kind {
            code.clone_into(&mut fault.code);
        }
        self
    }

    /// Sets `SenderFault` of rejected entries, which marks the error as permanent. Without effect on other faults.
    #[must_use]
    pub fn sender_fault(mut self) -> Self {
        if let FaultKind::RejectEntries(fault) = &mut self.kind {
            fault.sender_fault = true;
        }
        self
    }

    /// Fails the call with status 500.
    #[must_use]
    pub fn internal_error() -> Self {
        FaultKind::Fail(ServiceError::InternalError).into()
    }

    /// Fails the call with status 503.
    #[must_use]
    pub fn unavailable() -> Self {
        FaultKind::Fail(ServiceError::Unavailable).into()
    }

    /// Throttles the call. SQS responds with 400 `RequestThrottled`, Secrets Manager with 400 `ThrottlingException`, and S3
    /// with 503 `SlowDown`.
    #[must_use]
    pub fn throttled() -> Self {
        FaultKind::Fail(ServiceError::Throttled).into()
    }

    /// Fails the call because the caller has no permission.
    #[must_use]
    pub fn access_denied() -> Self {
        FaultKind::Fail(ServiceError::AccessDenied).into()
    }

    /// Fails the call because the queue, the secret or the bucket does not exist.
    #[must_use]
    pub fn resource_does_not_exist() -> Self {
        FaultKind::Fail(ServiceError::ResourceDoesNotExist).into()
    }

    /// Fails the call because the KMS key of the queue, the secret or the object is disabled.
    #[must_use]
    pub fn kms_disabled() -> Self {
        FaultKind::Fail(ServiceError::KmsDisabled).into()
    }

    /// Fails the call with this status and code. SQS attributes a status below 500 to the sender.
    #[must_use]
    pub fn error(status: u16, code: &str) -> Self {
        FaultKind::Fail(ServiceError::Other { status, code: code.to_owned() }).into()
    }

    /// Closes the connection after the headers, before the body is read. Inject it into a service, not into a queue: the
    /// name of the queue is in the body.
    #[must_use]
    pub fn drop_unread() -> Self {
        FaultKind::DropUnread.into()
    }

    /// Reads the call and closes the connection. The call has no effect.
    #[must_use]
    pub fn drop_connection() -> Self {
        FaultKind::Drop.into()
    }

    /// Reads the call and sends no response. The call has no effect.
    #[must_use]
    pub fn hang() -> Self {
        FaultKind::Hang.into()
    }

    /// Executes the call and closes the connection without a response.
    #[must_use]
    pub fn commit_then_drop() -> Self {
        FaultKind::CommitThenDrop.into()
    }

    /// Executes the call and sends no response.
    #[must_use]
    pub fn commit_then_hang() -> Self {
        FaultKind::CommitThenHang.into()
    }

    /// Executes the call and closes the connection after half of the response body.
    #[must_use]
    pub fn commit_then_truncate() -> Self {
        FaultKind::CommitThenTruncate.into()
    }

    /// Executes the call, sends the headers of the response, and leaves the connection open without a body.
    #[must_use]
    pub fn commit_then_stall() -> Self {
        FaultKind::CommitThenStall.into()
    }

    /// Executes the call and replaces the body of the response with one that is not valid JSON or XML.
    #[must_use]
    pub fn commit_then_garble() -> Self {
        FaultKind::CommitThenGarble.into()
    }

    /// Executes the call and responds with this status and body.
    #[must_use]
    pub fn commit_then_respond(status: u16, body: &str) -> Self {
        FaultKind::CommitThenRespond { status, body: body.to_owned() }.into()
    }

    /// Executes the call immediately and adds `by` to the latency of the response.
    #[must_use]
    pub fn delay_response(by: Duration) -> Self {
        FaultKind::DelayResponse(by).into()
    }

    /// Adds `by` to the latency, and executes the call only when the response is due. The call takes effect even if the
    /// client has closed the connection by then, as in a service that queues calls.
    #[must_use]
    pub fn delay_commit(by: Duration) -> Self {
        FaultKind::DelayCommit(by, None).into()
    }

    /// Adds `by` to the latency. Stores the entries for which `is_delayed` returns true only when the response is due, and the
    /// others immediately. Batches without such an entry are not affected.
    ///
    /// On a FIFO queue, a delayed entry also delays the later entries of its message group, because SQS keeps their order.
    #[must_use]
    pub fn delay_entries(by: Duration, is_delayed: impl Fn(&Entry) -> bool + Send + Sync + 'static) -> Self {
        FaultKind::DelayCommit(by, Some(Selection::new(move |_, entry| is_delayed(entry)))).into()
    }

    /// Returns the name of the fault in [`Call::fault`](crate::Call::fault).
    #[must_use]
    pub fn name(&self) -> &'static str {
        match &self.kind {
            FaultKind::RejectEntries(fault) if fault.sender_fault => "entries rejected with SenderFault",
            FaultKind::RejectEntries(_) => "entries rejected",
            FaultKind::Fail(ServiceError::InternalError) => "internal error",
            FaultKind::Fail(ServiceError::Unavailable) => "unavailable",
            FaultKind::Fail(ServiceError::Throttled) => "throttled",
            FaultKind::Fail(ServiceError::AccessDenied) => "access denied",
            FaultKind::Fail(ServiceError::ResourceDoesNotExist) => "resource does not exist",
            FaultKind::Fail(ServiceError::KmsDisabled) => "kms disabled",
            FaultKind::Fail(ServiceError::Other { .. }) => "error",
            FaultKind::DropUnread => "dropped before the body",
            FaultKind::Drop => "dropped",
            FaultKind::Hang => "hung",
            FaultKind::CommitThenDrop => "committed, then dropped",
            FaultKind::CommitThenHang => "committed, then hung",
            FaultKind::CommitThenTruncate => "committed, then truncated",
            FaultKind::CommitThenStall => "committed, then stalled",
            FaultKind::CommitThenGarble => "committed, then garbled",
            FaultKind::CommitThenRespond { .. } => "committed, then responded otherwise",
            FaultKind::DelayResponse(_) => "response delayed",
            FaultKind::DelayCommit(_, None) => "commit delayed",
            FaultKind::DelayCommit(_, Some(_)) => "entries delayed",
        }
    }
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        Self { kind }
    }
}
