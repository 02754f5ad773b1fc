//! Message counts of a stack's queues, and the age of the oldest message.

use std::collections::BTreeMap;

use aws_sdk_sqs::Client;
use futures_util::future::{join_all, try_join_all};
use serde::Serialize;

use super::{
    error::QueueError,
    queue::{Counts, Queue, sqs_client},
    stack_queues::StackQueues,
};
use crate::aws::{
    cli::{AwsCli, AwsCliError},
    message_age::oldest_message_seconds,
    stack_info::StackInfo,
};

/// The maximum page size of SQS.
const MAX_LISTED: i32 = 1000;

/// The messages of one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueDepth {
    /// The queue's name.
    pub queue: String,
    /// The message counts.
    #[serde(flatten)]
    pub counts: Counts,
    /// The age of the oldest message, if `CloudWatch` has it.
    pub oldest_seconds: Option<u64>,
}

/// The messages of a queue and of its dead-letter queue.
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

/// The messages of all queues of a stack.
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
}

impl Backlogs {
    /// Reads the message counts from SQS and the ages from `CloudWatch`, without receiving a message.
    pub async fn of(stack: &StackInfo, aws: &AwsCli) -> Result<Self, QueueError> {
        let counted = StackQueues::of(stack).all.into_iter().map(async |routed| {
            let (counts, dead_letter_queue) = routed.queue.counts().await?;
            let dead_letter_queue = match dead_letter_queue.map(|name| routed.queue.sibling(&name)) {
                Some(queue) => Some(QueueDepth::new(&queue, queue.counts().await?.0)),
                None => None,
            };
            Ok(Backlog { routes: routed.routes, depth: QueueDepth::new(&routed.queue, counts), dead_letter_queue })
        });
        let mut queues = try_join_all(counted).await?;
        let all: Vec<String> = queues.iter().flat_map(Backlog::depths).map(|depth| depth.queue.clone()).collect();
        let (ages, ages_error) = match read_ages(stack, aws, &all).await {
            Ok(ages) => (ages, None),
            Err(error) => (BTreeMap::new(), Some(error.to_string())),
        };
        for backlog in &mut queues {
            for depth in [Some(&mut backlog.depth), backlog.dead_letter_queue.as_mut()].into_iter().flatten() {
                depth.oldest_seconds = ages.get(&depth.queue).copied();
            }
        }
        let (other_queues, other_queues_error) = match OtherQueue::list(stack, &sqs_client(stack), &all).await {
            Ok(others) => (others, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Ok(Self { stack: stack.stack.clone(), queues, other_queues, other_queues_error, ages_error })
    }

    /// Whether the age of a queue with messages is unknown.
    #[must_use]
    pub fn has_unknown_age(&self) -> bool {
        let mut depths = self.queues.iter().flat_map(Backlog::depths);
        depths.any(|depth| depth.counts.total() > 0 && depth.oldest_seconds.is_none())
    }
}

impl QueueDepth {
    /// Creates the depth of a queue without an age.
    pub(crate) fn new(queue: &Queue, counts: Counts) -> Self {
        Self { queue: queue.name.clone(), counts, oldest_seconds: None }
    }
}

impl Backlog {
    fn depths(&self) -> impl Iterator<Item = &QueueDepth> {
        [Some(&self.depth), self.dead_letter_queue.as_ref()].into_iter().flatten()
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
    if stack.log.is_some() { Ok(BTreeMap::new()) } else { oldest_message_seconds(aws, &stack.region, queues).await }
}
