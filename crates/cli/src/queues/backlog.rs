//! How much waits on a stack's queues, and for how long.

use std::collections::BTreeMap;

use aws_sdk_sqs::{
    Client,
    types::QueueAttributeName::{
        self, ApproximateNumberOfMessages, ApproximateNumberOfMessagesDelayed, ApproximateNumberOfMessagesNotVisible,
        RedrivePolicy,
    },
};
use futures_util::future::{join_all, try_join_all};
use serde::Serialize;
use serde_json::Value;

use crate::{
    aws::{
        cli::{AwsCli, AwsCliError},
        message_age::oldest_message_seconds,
        stack_info::StackInfo,
    },
    queues::{
        source::{beside, name},
        stack_queues::{QueueError, Queues, failed},
    },
};

/// The maximum of SQS.
const MAX_LISTED: i32 = 1000;

/// What SQS counts, approximately.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// What a consumer would get.
    pub visible: usize,
    /// What a consumer has got and not deleted yet.
    pub in_flight: usize,
    /// What is not to be received yet.
    pub delayed: usize,
}

/// What waits on one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The queue's name.
    pub queue: String,
    /// How much.
    #[serde(flatten)]
    pub counts: Counts,
    /// How old the oldest message is, where `CloudWatch` tells.
    pub oldest_seconds: Option<u64>,
}

/// What waits on a queue, and what was given up there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backlog {
    /// The routes that lead there.
    pub routes: Vec<String>,
    /// The queue.
    #[serde(flatten)]
    pub waiting: Waiting,
    /// Its dead-letter queue, if it has one.
    pub dead: Option<Waiting>,
}

/// A queue with the stack's prefix that is neither a route's queue nor the dead-letter queue of one.
///
/// An update that was rolled back leaves such queues behind, and so does a replaced or removed queue. Another stack
/// may own it as well: the queues of a stack `a-b` have the prefix of the stack `a`.
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

/// What waits on all queues of a stack.
#[derive(Debug, Serialize)]
pub struct Backlogs {
    /// The name of the stack.
    pub stack: String,
    /// Each queue that the function writes to, in the order of their names.
    pub queues: Vec<Backlog>,
    /// Queues with the stack's prefix that no route leads to, in the order of their names.
    pub other_queues: Vec<OtherQueue>,
    /// The reason why `other_queues` is empty, if SQS did not list the queues.
    pub other_queues_unknown: Option<String>,
    /// Why no age is known, where `CloudWatch` could not be asked.
    pub ages_unknown: Option<String>,
}

impl Counts {
    /// Asks for a queue's counts, and for the name of its dead-letter queue.
    pub(crate) async fn of(client: &Client, url: &str) -> Result<(Self, Option<String>), QueueError> {
        const NAMES: [QueueAttributeName; 4] = [
            ApproximateNumberOfMessages,
            ApproximateNumberOfMessagesNotVisible,
            ApproximateNumberOfMessagesDelayed,
            RedrivePolicy,
        ];
        let asked = client.get_queue_attributes().queue_url(url).set_attribute_names(Some(NAMES.to_vec()));
        let told = asked.send().await.map_err(failed("count what is on", name(url)))?.attributes.unwrap_or_default();
        let count = |name| told.get(&name).and_then(|count: &String| count.parse().ok()).unwrap_or_default();
        let counts = Self {
            visible: count(ApproximateNumberOfMessages),
            in_flight: count(ApproximateNumberOfMessagesNotVisible),
            delayed: count(ApproximateNumberOfMessagesDelayed),
        };
        let policy = told.get(&RedrivePolicy).and_then(|policy| serde_json::from_str::<Value>(policy).ok());
        let dead =
            policy.and_then(|policy| Some(policy["deadLetterTargetArn"].as_str()?.rsplit(':').next()?.to_owned()));
        Ok((counts, dead))
    }

    /// Everything that is there.
    #[must_use]
    pub fn all(&self) -> usize {
        self.visible + self.in_flight + self.delayed
    }
}

impl Backlogs {
    /// Reads the message counts from SQS and the ages from `CloudWatch`, without receiving a message.
    pub async fn of(stack: &StackInfo, aws: &AwsCli) -> Result<Self, QueueError> {
        let Queues { client, all: routed, .. } = Queues::of(stack);
        let asked = routed.iter().map(async |queue| {
            let (counts, dead) = Counts::of(&client, &queue.url).await?;
            let waiting = |url: &str, counts| Waiting { queue: name(url).to_owned(), counts, oldest_seconds: None };
            let dead = match dead.map(|dead| beside(&queue.url, &dead)) {
                Some(url) => Some(waiting(&url, Counts::of(&client, &url).await?.0)),
                None => None,
            };
            Ok(Backlog { routes: queue.routes.clone(), waiting: waiting(&queue.url, counts), dead })
        });
        let mut queues = try_join_all(asked).await?;
        let all: Vec<String> = queues.iter().flat_map(Backlog::both).map(|waiting| waiting.queue.clone()).collect();
        let (ages, ages_unknown) = match ages(stack, aws, &all).await {
            Ok(ages) => (ages, None),
            Err(error) => (BTreeMap::new(), Some(error.to_string())),
        };
        for backlog in &mut queues {
            for waiting in [Some(&mut backlog.waiting), backlog.dead.as_mut()].into_iter().flatten() {
                waiting.oldest_seconds = ages.get(&waiting.queue).copied();
            }
        }
        let (other_queues, other_queues_unknown) = match OtherQueue::list(stack, &client, &all).await {
            Ok(others) => (others, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Ok(Self { stack: stack.stack.clone(), queues, other_queues, other_queues_unknown, ages_unknown })
    }

    /// Whether there is a queue with messages whose age nobody tells.
    #[must_use]
    pub fn lack_ages(&self) -> bool {
        let mut all = self.queues.iter().flat_map(Backlog::both);
        all.any(|waiting| waiting.counts.all() > 0 && waiting.oldest_seconds.is_none())
    }
}

impl Backlog {
    fn both(&self) -> impl Iterator<Item = &Waiting> {
        [Some(&self.waiting), self.dead.as_ref()].into_iter().flatten()
    }
}

impl OtherQueue {
    /// Lists the queues with the stack's prefix, except those with a name in `known`.
    async fn list(stack: &StackInfo, client: &Client, known: &[String]) -> Result<Vec<Self>, QueueError> {
        let prefix = format!("{}-", stack.stack);
        // Without `MaxResults`, SQS lists 1,000 queues and no token for the next page.
        let pages = client.list_queues().queue_name_prefix(&prefix).max_results(MAX_LISTED).into_paginator();
        let urls = pages.items().send().collect::<Result<Vec<String>, _>>().await;
        let urls = urls.map_err(failed("list the queues with the prefix", &prefix))?;
        let others = urls.into_iter().filter(|url| !known.iter().any(|known| known == name(url)));
        let counted = others.map(async |url| {
            // The queue may belong to another stack that does not permit the call, or be deleted meanwhile.
            let counts = Counts::of(client, &url).await.ok().map(|(counts, _)| counts);
            Self { queue: name(&url).to_owned(), url, counts }
        });
        let mut others = join_all(counted).await;
        others.sort_by(|one, other| one.queue.cmp(&other.queue));
        Ok(others)
    }
}

/// The ages by the queue's name. A local AWS computes none.
async fn ages(stack: &StackInfo, aws: &AwsCli, queues: &[String]) -> Result<BTreeMap<String, u64>, AwsCliError> {
    if stack.log.is_some() { Ok(BTreeMap::new()) } else { oldest_message_seconds(aws, &stack.region, queues).await }
}
