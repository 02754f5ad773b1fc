//! Checks the queues and the alarm topic of a stack.

use std::collections::BTreeSet;

use super::{
    diagnosis,
    finding::{Finding, passed, skipped},
};
use crate::{
    aws::{
        cli::{AwsCli, AwsCliError},
        kms::{ENABLED, key_states},
        resources::ResourcesError,
        stack_info::StackInfo,
    },
    queues::{
        declared::DeclaredResources,
        error::QueueError,
        queue::{Queue, QueueState},
        stack_queues::StackQueues,
    },
};

/// Checks that the queues of all routes exist and match the template, and that the alarm topic exists and has a subscription.
pub(super) async fn check(stack: &StackInfo) -> [Finding; 2] {
    let aws = stack.aws_cli();
    match DeclaredResources::of(stack, &aws).await {
        Ok(declared) => [check_queues(stack, &declared, &aws).await, check_topics(&declared, &aws).await],
        Err(ResourcesError::Aws(AwsCliError::NotInstalled)) if stack.is_local() => {
            ["queues", "topics"].map(|_| skipped("the AWS CLI, which reads the template, is not installed"))
        }
        Err(error) => {
            let detail = error.to_string();
            [Finding::Failed { detail, diagnosis: diagnosis::of_template() }, skipped("the template cannot be read")]
        }
    }
}

async fn check_queues(stack: &StackInfo, declared: &DeclaredResources, aws: &AwsCli) -> Finding {
    let (mut problems, mut keys, mut count) = (Vec::new(), BTreeSet::new(), 0);
    for routed in StackQueues::of(stack).all {
        let declared_queue = declared.queue_at(&routed.queue.url);
        let dead = declared_queue.and_then(|queue| declared.queue(&queue.dead_letter_queue()?));
        let queues = [(routed.queue.clone(), declared_queue), (routed.queue, dead)];
        for (index, (queue, declared_queue)) in queues.into_iter().enumerate() {
            let Some(declared_queue) = declared_queue else {
                // The queue of another stack or account: only its existence can be checked.
                if index == 0 {
                    count += 1;
                    problems.extend(queue.describe().await.err().map(|error| describe(&queue, &error)));
                }
                continue;
            };
            let queue = queue.sibling(&declared_queue.name);
            count += 1;
            keys.extend(declared_queue.kms_key().cloned());
            match declared_queue.differences(&queue).await {
                Ok(found) => problems.extend(found.iter().map(|difference| format!("{}: {difference}", queue.name))),
                Err(error) => problems.push(describe(&queue, &error)),
            }
        }
    }
    for (key, state) in key_states(aws, &stack.region, keys).await {
        match state {
            Ok(state) if state == ENABLED => (),
            Ok(state) => problems.push(format!("key {key} is {state}")),
            Err(error) => problems.push(format!("the state of key {key} is unknown: {error}")),
        }
    }
    if problems.is_empty() {
        passed(format!("{count} queues, dead-letter queues included"))
    } else {
        Finding::Failed { detail: problems.join("; "), diagnosis: diagnosis::of_queues() }
    }
}

fn describe(queue: &Queue, error: &QueueError) -> String {
    match QueueState::of_error(error) {
        QueueState::Unknown(reason) => reason,
        state => format!("{}: {state}", queue.name),
    }
}

async fn check_topics(declared: &DeclaredResources, aws: &AwsCli) -> Finding {
    if declared.alarm_topics.is_empty() {
        return skipped("the stack has none: its alarms are only shown in CloudWatch");
    }
    let mut problems = Vec::new();
    for arn in &declared.alarm_topics {
        let region = arn.split(':').nth(3).unwrap_or_default();
        let call = ["sns", "get-topic-attributes", "--topic-arn", arn];
        match aws.call::<Option<String>>(region, &call, "Attributes.SubscriptionsConfirmed").await {
            Ok(count) if count.as_deref().unwrap_or("0") == "0" => {
                problems.push(format!("{arn} has no confirmed subscription"));
            }
            Ok(_) => (),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if problems.is_empty() {
        passed(declared.alarm_topics.join(", "))
    } else {
        Finding::Failed { detail: problems.join("; "), diagnosis: diagnosis::of_alarm_topic() }
    }
}
