//! Message counts of a stack's queues, and the age of the oldest message.

use std::collections::BTreeMap;

use aws_sdk_sqs::Client;
use futures_util::future::join_all;
use serde::Serialize;

use super::{
    error::QueueError,
    queue::{Counts, Queue, QueueState, dead_letter_queue_name, sqs_client},
    stack_queues::StackQueues,
};
use crate::aws::{
    cli::{AwsCli, AwsCliError},
    kms::{ENABLED, key_states},
    message_age::oldest_message_seconds,
    stack_info::StackInfo,
};

/// The maximum page size of SQS.
const MAX_LISTED: i32 = 1000;

/// The message counts and the state of one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueDepth {
    /// The queue's name.
    pub queue: String,
    /// Whether the queue can be used.
    #[serde(flatten)]
    pub state: QueueState,
    /// The message counts, unless the queue is gone or cannot be read.
    #[serde(flatten)]
    pub counts: Option<Counts>,
    /// The age of the oldest message, if `CloudWatch` has it.
    pub oldest_seconds: Option<u64>,
}

/// The message counts and the states of a queue and of its dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// The routes that lead to the queue.
    pub routes: Vec<String>,
    /// The queue.
    #[serde(flatten)]
    pub depth: QueueDepth,
    /// Its dead-letter queue, if it has one.
    pub dead_letter_queue: Option<QueueDepth>,
}

/// A queue with the stack's prefix that is neither a route's queue nor the dead-letter queue of one.
///
/// An update that was rolled back leaves such queues behind, and so does a replaced or removed queue. Another stack
/// may also own such a queue: the queues of a stack `a-b` have the prefix of the stack `a`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherQueue {
    /// The queue's name.
    pub queue: String,
    /// The queue's URL.
    pub url: String,
    /// The message counts; `None` if SQS does not return them to this caller.
    #[serde(flatten)]
    pub counts: Option<Counts>,
}

/// The message counts and the states of all queues of a stack.
#[derive(Debug, Serialize)]
pub struct Backlogs {
    /// The name of the stack.
    pub stack: String,
    /// Each queue that the function writes to, in the order of their names.
    pub queues: Vec<Backlog>,
    /// Queues with the stack's prefix that no route leads to, in the order of their names.
    pub other_queues: Vec<OtherQueue>,
    /// The reason why `other_queues` is empty, if SQS did not list the queues.
    pub other_queues_error: Option<String>,
    /// The reason why there are no ages, if `CloudWatch` returned none.
    pub ages_error: Option<String>,
    /// The reason why the state of a key is unknown, if KMS did not return it.
    pub keys_error: Option<String>,
}

impl Backlogs {
    /// Reads the message counts from SQS, the ages from `CloudWatch` and the states of keys from KMS, without receiving a
    /// message. A queue that cannot be read is part of the result.
    pub async fn of(stack: &StackInfo, aws: &AwsCli) -> Self {
        let read = StackQueues::of(stack).all.into_iter().map(async |routed| {
            let (depth, key, dead_letter_queue) = read_depth(&routed.queue).await;
            // If the queue is gone, so is its redrive policy. Its dead-letter queue is then found by the name that the template gives.
            let by_name = || (depth.state == QueueState::Gone).then(|| dead_letter_queue_name(&routed.queue.name));
            let is_in_policy = dead_letter_queue.is_some();
            let dead_letter_queue = match dead_letter_queue.or_else(by_name).map(|name| routed.queue.sibling(&name)) {
                Some(queue) => {
                    Some(read_depth(&queue).await).filter(|(depth, ..)| is_in_policy || depth.counts.is_some())
                }
                None => None,
            };
            let (dead_letter_queue, dead_key) = dead_letter_queue.map(|(depth, key, _)| (depth, key)).unzip();
            (Backlog { routes: routed.routes, depth, dead_letter_queue }, [key, dead_key.flatten()])
        });
        let (mut queues, keys): (Vec<_>, Vec<_>) = join_all(read).await.into_iter().unzip();
        let states = key_states(aws, &stack.region, keys.iter().flatten().flatten().cloned().collect()).await;
        for (backlog, keys) in queues.iter_mut().zip(&keys) {
            for (depth, key) in backlog.depths_mut().zip(keys) {
                depth.add_key_state(key.as_ref(), &states);
            }
        }
        let known: Vec<String> = queues.iter().flat_map(Backlog::depths).map(|depth| depth.queue.clone()).collect();
        let (ages, ages_error) = match read_ages(stack, aws, &known).await {
            Ok(ages) => (ages, None),
            Err(error) => (BTreeMap::new(), Some(error.to_string())),
        };
        for depth in queues.iter_mut().flat_map(Backlog::depths_mut) {
            depth.oldest_seconds = ages.get(&depth.queue).copied();
        }
        let (other_queues, other_queues_error) = match OtherQueue::list(stack, &sqs_client(stack), &known).await {
            Ok(others) => (others, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let keys_error = states.into_iter().find_map(|(key, state)| Some(format!("{key}: {}", state.err()?)));
        Self { stack: stack.stack.clone(), queues, other_queues, other_queues_error, ages_error, keys_error }
    }

    /// Whether every queue and dead-letter queue of the routes can be used.
    #[must_use]
    pub fn all_usable(&self) -> bool {
        self.queues.iter().flat_map(Backlog::depths).all(|depth| depth.state == QueueState::Usable)
    }

    /// Whether the age of a queue with messages is unknown.
    #[must_use]
    pub fn has_unknown_age(&self) -> bool {
        let has_messages = |depth: &QueueDepth| depth.counts.is_some_and(|counts| counts.total() > 0);
        let mut depths = self.queues.iter().flat_map(Backlog::depths);
        depths.any(|depth| has_messages(depth) && depth.oldest_seconds.is_none())
    }
}

/// Reads the depth of a queue, its key, and the name of its dead-letter queue.
async fn read_depth(queue: &Queue) -> (QueueDepth, Option<String>, Option<String>) {
    match queue.describe().await {
        Ok(description) => {
            let depth = QueueDepth::new(queue, Ok(description.counts));
            (depth, description.kms_key, description.dead_letter_queue)
        }
        Err(error) => (QueueDepth::new(queue, Err(&error)), None, None),
    }
}

impl QueueDepth {
    /// Creates the depth of a queue without an age.
    pub(crate) fn new(queue: &Queue, counts: Result<Counts, &QueueError>) -> Self {
        let state = counts.map_or_else(QueueState::of_error, |_| QueueState::Usable);
        Self { queue: queue.name.clone(), state, counts: counts.ok(), oldest_seconds: None }
    }

    /// Reads the message counts of a queue.
    pub(crate) async fn read(queue: &Queue) -> Self {
        read_depth(queue).await.0
    }

    fn add_key_state(&mut self, key: Option<&String>, states: &BTreeMap<String, Result<String, String>>) {
        if let Some((key, Ok(state))) = key.and_then(|key| Some((key, states.get(key)?)))
            && state != ENABLED
        {
            self.state = QueueState::KeyDisabled(format!("{key} is {state}"));
        }
    }
}

impl Backlog {
    fn depths(&self) -> impl Iterator<Item = &QueueDepth> {
        [Some(&self.depth), self.dead_letter_queue.as_ref()].into_iter().flatten()
    }

    fn depths_mut(&mut self) -> impl Iterator<Item = &mut QueueDepth> {
        [Some(&mut self.depth), self.dead_letter_queue.as_mut()].into_iter().flatten()
    }
}

impl OtherQueue {
    /// Lists the queues with the stack's prefix, except those whose names are in `known`.
    async fn list(stack: &StackInfo, client: &Client, known: &[String]) -> Result<Vec<Self>, QueueError> {
        let prefix = format!("{}-", stack.stack);
        // Without `MaxResults`, SQS lists 1,000 queues and no token for the next page.
        let pages = client.list_queues().queue_name_prefix(&prefix).max_results(MAX_LISTED).into_paginator();
        let urls = pages.items().send().collect::<Result<Vec<String>, _>>().await;
        let urls = urls.map_err(QueueError::from_sdk("list the queues with the prefix", &prefix))?;
        let queues = urls.iter().map(|url| Queue::new(client, url)).filter(|queue| !known.contains(&queue.name));
        let counted = queues.map(async |queue| {
            // The queue may belong to another stack that does not permit the call, or be deleted meanwhile.
            let counts = queue.counts().await.ok().map(|(counts, _)| counts);
            Self { queue: queue.name, url: queue.url, counts }
        });
        let mut others = join_all(counted).await;
        others.sort_by(|one, other| one.queue.cmp(&other.queue));
        Ok(others)
    }
}

/// Returns the ages by the queue's name. A local AWS computes none.
async fn read_ages(stack: &StackInfo, aws: &AwsCli, queues: &[String]) -> Result<BTreeMap<String, u64>, AwsCliError> {
    if stack.is_local() { Ok(BTreeMap::new()) } else { oldest_message_seconds(aws, &stack.region, queues).await }
}
