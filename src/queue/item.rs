//! A fragment of a notification on its way to a queue.

use std::sync::OnceLock;

use whatsapp_webhook::{
    message::{DEFAULT_GROUP_ID, MAX_MESSAGE_BYTES, Message, RequestContext, UnroutedReason, event_id, group_id},
    notification::Fragment,
    routes::Queue,
};

/// A fragment on its way to one of its queues.
pub(super) struct Item<'p> {
    pub(super) fragment: &'p Fragment<'p>,
    /// Shared by the items of a fragment. Computed on first use, while calls for other items are under way.
    event_id: &'p OnceLock<String>,
    /// The route of the fragment, even after it was diverted. `None`: no route matches.
    pub(super) route: Option<&'p str>,
    unrouted_reason: Option<UnroutedReason<'p>>,
    /// The message, if it has been built already.
    message: Option<Message>,
    /// Sent in a batch of its own, because SQS rejected a batch without naming an entry.
    pub(super) is_isolated: bool,
    encoding: Encoding,
}

/// How the body of a message is sent. Each form is the fallback for the one before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As the contract describes it.
    Contract,
    /// Base64 with few attributes, which leaves SQS nothing to reject but the size.
    RawBase64,
    /// The same in S3, because a queue can have a lower size limit than SQS.
    RawBase64InS3,
}

impl<'p> Item<'p> {
    pub(super) fn new(fragment: &'p Fragment<'p>, event_id: &'p OnceLock<String>, route: Option<&'p str>) -> Self {
        Self {
            fragment,
            event_id,
            route,
            unrouted_reason: route.is_none().then(|| UnroutedReason::of_fragment(fragment)),
            message: None,
            is_isolated: false,
            encoding: Encoding::Contract,
        }
    }

    /// The same fragment for the catch-all queue, because a queue of its route did not store it.
    pub(super) fn diverted(&self, queue: &'p Queue) -> Self {
        let unrouted_reason = Some(UnroutedReason::QueueUnavailable { queue: &queue.name });
        Self { unrouted_reason, ..Self::new(self.fragment, self.event_id, self.route) }
    }

    pub(super) fn isolated(self) -> Self {
        Self { is_isolated: true, ..self }
    }

    pub(super) fn with_encoding(self, encoding: Encoding) -> Self {
        Self { encoding, message: None, is_isolated: false, ..self }
    }

    pub(super) fn event_id(&self) -> &str {
        self.event_id.get_or_init(|| event_id(self.fragment))
    }

    /// The message group on a FIFO queue.
    pub(super) fn group_id(&self, request: RequestContext<'_>) -> String {
        if self.encoding == Encoding::Contract {
            group_id(self.fragment, request, true)
        } else {
            DEFAULT_GROUP_ID.to_owned()
        }
    }

    /// Whether the body goes to S3 and the message points there.
    pub(super) fn is_claim_check(&self, size: usize) -> bool {
        self.encoding == Encoding::RawBase64InS3 || size > MAX_MESSAGE_BYTES
    }

    /// The message, built on first use.
    pub(super) fn message(&mut self, request: RequestContext<'_>, fifo: bool) -> &Message {
        if self.message.is_none() {
            self.message = Some(self.build(request, fifo));
        }
        self.message.as_ref().expect("built above")
    }

    /// The message; the item builds it anew if it is needed again.
    pub(super) fn take_message(&mut self, request: RequestContext<'_>, fifo: bool) -> Message {
        self.message.take().unwrap_or_else(|| self.build(request, fifo))
    }

    fn build(&self, request: RequestContext<'_>, fifo: bool) -> Message {
        if self.encoding == Encoding::Contract {
            Message::new(self.fragment, self.event_id(), request, self.unrouted_reason, fifo)
        } else {
            let diverted_from = self.unrouted_reason.and_then(UnroutedReason::diverted_from);
            Message::raw_base64(self.fragment, self.event_id(), diverted_from, fifo)
        }
    }
}
