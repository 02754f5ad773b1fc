//! Faults: what can go wrong with a call.

use crate::failure::Failure;
use crate::sqs::{Entry, Refusal, Selection};
use std::time::Duration;

/// One way in which a call goes wrong.
///
/// The name tells whether the call takes effect. After `store_and_…`, `store_late…` and `slow` it does: a message is
/// stored, and a retry stores it twice. After all others it does not.
#[derive(Debug, Clone)]
pub struct Fault {
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Refuse(Refusal),
    Fail(Failure),
    DropUnread,
    Drop,
    Hang,
    StoreAndDrop,
    StoreAndHang,
    StoreAndTruncate,
    StoreAndStall,
    StoreAndGarble,
    StoreAndAnswer { status: u16, body: String },
    Slow(Duration),
    StoreLate(Duration, Option<Selection>),
}

impl Fault {
    /// The entry at this place of the batch is refused with `InternalError`, not as the sender's fault.
    #[must_use]
    pub fn refuse_entry(index: usize) -> Self {
        Self::refuse(move |place, _| place == index)
    }

    /// Every entry is refused with `InternalError`, not as the sender's fault, in a call that succeeds.
    #[must_use]
    pub fn refuse_all_entries() -> Self {
        Self::refuse(|_, _| true)
    }

    /// The entries that `hit` chooses are refused with `InternalError`; a batch without such an entry is left alone.
    #[must_use]
    pub fn refuse_entries(hit: impl Fn(&Entry) -> bool + Send + Sync + 'static) -> Self {
        Self::refuse(move |_, entry| hit(entry))
    }

    fn refuse(choose: impl Fn(usize, &Entry) -> bool + Send + Sync + 'static) -> Self {
        let code = "InternalError".to_owned();
        Kind::Refuse(Refusal { entries: Selection::new(choose), code, sender_fault: false }).into()
    }

    /// Refuses entries with this code instead. Of use on refused entries only.
    #[must_use]
    pub fn code(mut self, code: &str) -> Self {
        if let Kind::Refuse(refusal) = &mut self.kind {
            code.clone_into(&mut refusal.code);
        }
        self
    }

    /// Refuses entries as the sender's fault, which no retry mends. Of use on refused entries only.
    #[must_use]
    pub fn senders_fault(mut self) -> Self {
        if let Kind::Refuse(refusal) = &mut self.kind {
            refusal.sender_fault = true;
        }
        self
    }

    /// The call fails with 500.
    #[must_use]
    pub fn internal_error() -> Self {
        Kind::Fail(Failure::InternalError).into()
    }

    /// The call fails with 503.
    #[must_use]
    pub fn unavailable() -> Self {
        Kind::Fail(Failure::Unavailable).into()
    }

    /// The call is throttled, in the way of the service: 400 `RequestThrottled` or `ThrottlingException`, 503 `SlowDown`.
    #[must_use]
    pub fn throttled() -> Self {
        Kind::Fail(Failure::Throttled).into()
    }

    /// The caller has no permission.
    #[must_use]
    pub fn access_denied() -> Self {
        Kind::Fail(Failure::AccessDenied).into()
    }

    /// The queue has been deleted.
    #[must_use]
    pub fn queue_does_not_exist() -> Self {
        Kind::Fail(Failure::QueueDoesNotExist).into()
    }

    /// The key that encrypts the queue (the secret, the object) is disabled.
    #[must_use]
    pub fn kms_disabled() -> Self {
        Kind::Fail(Failure::KmsDisabled).into()
    }

    /// The call fails with this status and code; below 500 it is the sender's fault.
    #[must_use]
    pub fn error(status: u16, code: &str) -> Self {
        Kind::Fail(Failure::Other { status, code: code.to_owned() }).into()
    }

    /// The connection closes as soon as the headers have arrived, the body unread. Of use on a service only: which queue
    /// a call is for is in its body.
    #[must_use]
    pub fn drop_unread() -> Self {
        Kind::DropUnread.into()
    }

    /// The connection closes when the call has been read, and nothing was done.
    #[must_use]
    pub fn drop_connection() -> Self {
        Kind::Drop.into()
    }

    /// The call is read and never answered, and nothing was done.
    #[must_use]
    pub fn hang() -> Self {
        Kind::Hang.into()
    }

    /// The call takes effect, and its connection closes without an answer.
    #[must_use]
    pub fn store_and_drop() -> Self {
        Kind::StoreAndDrop.into()
    }

    /// The call takes effect and is never answered.
    #[must_use]
    pub fn store_and_hang() -> Self {
        Kind::StoreAndHang.into()
    }

    /// The call takes effect, and its connection closes after the headers and half of the body of the answer.
    #[must_use]
    pub fn store_and_truncate() -> Self {
        Kind::StoreAndTruncate.into()
    }

    /// The call takes effect; the headers of the answer come, and then nothing, on an open connection.
    #[must_use]
    pub fn store_and_stall() -> Self {
        Kind::StoreAndStall.into()
    }

    /// The call takes effect and is answered with 200 and a body that is no document.
    #[must_use]
    pub fn store_and_garble() -> Self {
        Kind::StoreAndGarble.into()
    }

    /// The call takes effect, and the answer has this status and this body instead of its own.
    #[must_use]
    pub fn store_and_answer(status: u16, body: &str) -> Self {
        Kind::StoreAndAnswer { status, body: body.to_owned() }.into()
    }

    /// The call takes effect at once and is answered this much later than usual.
    #[must_use]
    pub fn slow(by: Duration) -> Self {
        Kind::Slow(by).into()
    }

    /// The call takes effect only when its answer is due, this much later than usual. It takes effect even if the client
    /// has closed the connection by then, as a service does that has queued the call.
    #[must_use]
    pub fn store_late(by: Duration) -> Self {
        Kind::StoreLate(by, None).into()
    }

    /// The entries that `choose` selects are stored this much later than usual, the others at once; the answer comes when
    /// all are stored. A batch without such an entry is left alone.
    ///
    /// In a batch for a FIFO queue, entries behind a late one of their group are late too, because SQS keeps their order.
    #[must_use]
    pub fn store_entries_late(by: Duration, choose: impl Fn(&Entry) -> bool + Send + Sync + 'static) -> Self {
        Kind::StoreLate(by, Some(Selection::new(move |_, entry| choose(entry)))).into()
    }

    /// The name under which it shows in the record of a call.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Refuse(refusal) if refusal.sender_fault => "entries refused as the sender's fault",
            Kind::Refuse(_) => "entries refused",
            Kind::Fail(Failure::InternalError) => "internal error",
            Kind::Fail(Failure::Unavailable) => "unavailable",
            Kind::Fail(Failure::Throttled) => "throttled",
            Kind::Fail(Failure::AccessDenied) => "access denied",
            Kind::Fail(Failure::QueueDoesNotExist) => "queue does not exist",
            Kind::Fail(Failure::KmsDisabled) => "kms disabled",
            Kind::Fail(Failure::Other { .. }) => "error",
            Kind::DropUnread => "dropped unread",
            Kind::Drop => "dropped",
            Kind::Hang => "hung",
            Kind::StoreAndDrop => "stored and dropped",
            Kind::StoreAndHang => "stored and hung",
            Kind::StoreAndTruncate => "stored and truncated",
            Kind::StoreAndStall => "stored and stalled",
            Kind::StoreAndGarble => "stored and garbled",
            Kind::StoreAndAnswer { .. } => "stored and answered otherwise",
            Kind::Slow(_) => "slow",
            Kind::StoreLate(_, None) => "stored late",
            Kind::StoreLate(_, Some(_)) => "entries stored late",
        }
    }
}

impl From<Kind> for Fault {
    fn from(kind: Kind) -> Self {
        Self { kind }
    }
}
