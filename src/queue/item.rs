//! A fragment of a notification that is sent to one queue.

use std::sync::OnceLock;

use whatsapp_webhook::{
    message::{CatchAllReason, DEFAULT_GROUP_ID, MAX_MESSAGE_BYTES, Message, RequestContext, event_id, group_id},
    notification::Fragment,
    routes::Queue,
};

/// A fragment that is sent to one queue, which is a queue of its route or the catch-all queue.
pub(super) struct Item<'p> {
    pub(super) fragment: &'p Fragment<'p>,
    /// Shared by all items of the fragment. Computed on first use, while calls for other items are under way.
    event_id: &'p OnceLock<String>,
    /// The route of the fragment, also after a diversion. `None` if no route matches.
    pub(super) route: Option<&'p str>,
    catch_all_reason: Option<CatchAllReason<'p>>,
    /// `None` until the message is needed.
    message: Option<Message>,
    /// Whether the item is sent in a batch of its own, because SQS rejected a batch without naming an entry.
    pub(super) is_isolated: bool,
    form: MessageForm,
}

/// The form of a message. Each one is the fallback for the previous one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageForm {
    /// The usual form of the contract.
    Usual,
    /// The raw form of the contract. SQS can reject only its size.
    Raw,
    /// The raw form with its body in S3, because the size limit of a queue can be lower than that of SQS.
    RawInS3,
}

impl<'p> Item<'p> {
    pub(super) fn new(fragment: &'p Fragment<'p>, event_id: &'p OnceLock<String>, route: Option<&'p str>) -> Self {
        Self {
            fragment,
            event_id,
            route,
            catch_all_reason: route.is_none().then(|| CatchAllReason::of_fragment(fragment)),
            message: None,
            is_isolated: false,
            form: MessageForm::Usual,
        }
    }

    /// Returns a new item for the catch-all queue with the same fragment, because `queue` did not store it.
    pub(super) fn copy_for_catch_all(&self, queue: &'p Queue) -> Self {
        let catch_all_reason = Some(CatchAllReason::QueueUnavailable { queue: &queue.name });
        Self { catch_all_reason, ..Self::new(self.fragment, self.event_id, self.route) }
    }

    pub(super) fn isolated(self) -> Self {
        Self { is_isolated: true, ..self }
    }

    pub(super) fn with_form(self, form: MessageForm) -> Self {
        Self { form, message: None, is_isolated: false, ..self }
    }

    pub(super) fn event_id(&self) -> &str {
        self.event_id.get_or_init(|| event_id(self.fragment))
    }

    /// The message group id on a FIFO queue.
    pub(super) fn group_id(&self, request: RequestContext<'_>) -> String {
        if self.form == MessageForm::Usual {
            group_id(self.fragment, request, true)
        } else {
            DEFAULT_GROUP_ID.to_owned()
        }
    }

    /// Whether the body is stored in S3 and the message has a pointer to it. `size` is the size of the message in bytes.
    pub(super) fn is_claim_check(&self, size: usize) -> bool {
        self.form == MessageForm::RawInS3 || size > MAX_MESSAGE_BYTES
    }

    /// The message, built on first use.
    pub(super) fn message(&mut self, request: RequestContext<'_>, fifo: bool) -> &Message {
        if self.message.is_none() {
            self.message = Some(self.build(request, fifo));
        }
        self.message.as_ref().expect("built above")
    }

    /// The message. If it is needed again, the item builds it again.
    pub(super) fn take_message(&mut self, request: RequestContext<'_>, fifo: bool) -> Message {
        self.message.take().unwrap_or_else(|| self.build(request, fifo))
    }

    fn build(&self, request: RequestContext<'_>, fifo: bool) -> Message {
        if self.form == MessageForm::Usual {
            Message::new(self.fragment, self.event_id(), request, self.catch_all_reason, fifo)
        } else {
            let diverted_from = self.catch_all_reason.and_then(CatchAllReason::diverted_from);
            Message::raw_base64(self.fragment, self.event_id(), diverted_from, fifo)
        }
    }
}
