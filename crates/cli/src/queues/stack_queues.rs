//! What is on the queues of a stack.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use aws_sdk_sqs::{
    Client,
    config::{BehaviorVersion, Config, Credentials, Region, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
    types::{Message, QueueAttributeName},
};
use futures_util::future::try_join_all;
use thiserror::Error;
use whatsapp_webhook::sqs_error::{ErrorClass, classify};

use crate::{aws::stack_info::StackInfo, error::root_cause};

const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
/// The most that SQS gives out at once.
pub(crate) const MOST_AT_ONCE: i32 = 10;
/// Far longer than a run takes: a message is received once, and so never nears its queue's dead-letter queue.
const HIDDEN_SECONDS: i32 = 3600;

/// The queues of a stack, and the messages that were taken from them and have to go back.
#[derive(Debug)]
pub struct Queues {
    pub(crate) client: Client,
    pub(crate) all: Vec<Queue>,
    taken: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    name: String,
    pub(crate) url: String,
    pub(crate) routes: Vec<String>,
}

/// A message on a queue.
#[derive(Debug, Clone)]
pub struct Landed {
    /// The queue's name without the stack's.
    pub queue: String,
    /// The body as it is on the queue.
    pub body: String,
    /// The attributes that are strings.
    pub attributes: BTreeMap<String, String>,
}

/// How much a queue holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    /// The queue's name without the stack's.
    pub queue: String,
    /// The routes that lead there.
    pub routes: Vec<String>,
    /// The messages that a consumer would get.
    pub messages: usize,
}

/// Why the queues cannot be looked at.
#[derive(Debug, Error)]
#[error("cannot {doing} {queue}: {reason}")]
pub struct QueueError {
    doing: &'static str,
    queue: String,
    reason: String,
    /// Whether the same call may succeed in a moment.
    pub(crate) passing: bool,
}

impl QueueError {
    /// Of an answer that is no error in itself.
    pub(crate) fn new(doing: &'static str, queue: &str, reason: String) -> Self {
        Self { doing, queue: queue.to_owned(), reason, passing: true }
    }

    /// The same, where no later try is of use.
    pub(crate) fn for_good(self) -> Self {
        Self { passing: false, ..self }
    }
}

impl Queues {
    /// The queues that a stack's function writes to.
    #[must_use]
    pub fn of(stack: &StackInfo) -> Self {
        let prefix = format!("{}-", stack.stack);
        let mut queues: Vec<Queue> = Vec::new();
        for (route, url) in &stack.queue_urls {
            if let Some(queue) = queues.iter_mut().find(|queue| queue.url == *url) {
                queue.routes.push(route.clone());
                continue;
            }
            let name = url.rsplit('/').next().unwrap_or(url);
            let name = name.strip_prefix(&prefix).unwrap_or(name).to_owned();
            queues.push(Queue { name, url: url.clone(), routes: vec![route.clone()] });
        }
        queues.sort_by(|one, other| one.name.cmp(&other.name));
        Self { client: client(stack), all: queues, taken: Vec::new() }
    }

    /// Whether there is a route of this name.
    #[must_use]
    pub fn has_route(&self, route: &str) -> bool {
        self.queue_of(route).is_some()
    }

    /// The name of the queue that a route leads to, without the stack's.
    #[must_use]
    pub fn queue_of(&self, route: &str) -> Option<&str> {
        let leads = |queue: &&Queue| queue.routes.iter().any(|name| name == route);
        self.all.iter().find(leads).map(|queue| queue.name.as_str())
    }

    /// Receives what has come since the last time, on all queues, and keeps it hidden until [`Self::release`].
    ///
    /// On a FIFO queue this blocks the groups of the messages for so long; the template makes standard queues.
    pub async fn receive_all(&mut self) -> Result<Vec<Landed>, QueueError> {
        let found = try_join_all(self.all.iter().map(|queue| received(&self.client, queue))).await?;
        let mut landed = Vec::new();
        for (queue, messages) in self.all.iter().zip(found) {
            for message in messages {
                self.taken.push((queue.url.clone(), message.receipt_handle.clone().unwrap_or_default()));
                landed.push(Landed::new(&queue.name, message));
            }
        }
        Ok(landed)
    }

    /// Puts every message that was taken back in sight of consumers.
    pub async fn release(&mut self) -> Result<(), QueueError> {
        for (url, receipt) in self.taken.drain(..) {
            let change = self.client.change_message_visibility().queue_url(&url).receipt_handle(receipt);
            change.visibility_timeout(0).send().await.map_err(failed("give back a message to", &url))?;
        }
        Ok(())
    }

    /// Counts what each queue holds, in the order of their names.
    pub async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        try_join_all(self.all.iter().map(|queue| depth(&self.client, queue))).await
    }
}

impl Landed {
    pub(crate) fn new(queue: &str, message: Message) -> Self {
        let attributes = message.message_attributes.unwrap_or_default().into_iter();
        Self {
            queue: queue.to_owned(),
            body: message.body.unwrap_or_default(),
            attributes: attributes.filter_map(|(name, value)| Some((name, value.string_value?))).collect(),
        }
    }
}

async fn received(client: &Client, queue: &Queue) -> Result<Vec<Message>, QueueError> {
    let mut all = Vec::new();
    loop {
        let receive = client.receive_message().queue_url(&queue.url).message_attribute_names("All");
        let receive = receive.max_number_of_messages(MOST_AT_ONCE).visibility_timeout(HIDDEN_SECONDS);
        let some = receive.send().await.map_err(failed("receive from", &queue.name))?.messages.unwrap_or_default();
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}

async fn depth(client: &Client, queue: &Queue) -> Result<Depth, QueueError> {
    const COUNT: QueueAttributeName = QueueAttributeName::ApproximateNumberOfMessages;
    let asked = client.get_queue_attributes().queue_url(&queue.url).attribute_names(COUNT);
    let told = asked.send().await.map_err(failed("count what is on", &queue.name))?.attributes.unwrap_or_default();
    let messages = told.get(&COUNT).and_then(|count| count.parse().ok()).unwrap_or_default();
    Ok(Depth { queue: queue.name.clone(), routes: queue.routes.clone(), messages })
}

/// Describes a failed call of SQS. `doing` completes "cannot … the queue".
pub(crate) fn failed<E: std::error::Error + ProvideErrorMetadata + 'static>(
    doing: &'static str,
    queue: &str,
) -> impl Fn(SdkError<E>) -> QueueError {
    move |error| QueueError {
        doing,
        queue: queue.to_owned(),
        // An error without a code has no readable answer of SQS, such as a timeout.
        passing: error.code().is_none_or(|code| {
            let is_client_error = error.raw_response().is_some_and(|answer| answer.status().is_client_error());
            classify(code, is_client_error) == ErrorClass::Transient
        }),
        reason: match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            (None, _) => root_cause(&error),
        },
    }
}

pub(crate) fn client(stack: &StackInfo) -> Client {
    let key =
        Credentials::new(&stack.access_key_id, &stack.secret_access_key, stack.session_token.clone(), None, "stack");
    let timeouts =
        TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).operation_timeout(OPERATION_TIMEOUT);
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(stack.region.clone()))
        .endpoint_url(&stack.aws_endpoint)
        .credentials_provider(key)
        .timeout_config(timeouts.build());
    Client::from_conf(config.build())
}
