//! The queues that the template of a stack declares: compares them with the queues in SQS, and creates missing ones again.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use aws_sdk_sqs::{
    Client,
    types::QueueAttributeName::{self, FifoQueue, Policy, RedriveAllowPolicy, RedrivePolicy},
};
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    backlog::QueueDepth,
    error::QueueError,
    queue::{Queue, QueueState, is_fifo, queue_name, sqs_client},
};
use crate::aws::{
    cli::AwsCli,
    resources::{self, Resource, ResourcesError, pairs},
    stack_info::StackInfo,
    template::scalar_text,
};

/// The properties of a queue that are attributes of the same name in SQS.
const ATTRIBUTES: [QueueAttributeName; 14] = [
    QueueAttributeName::ContentBasedDeduplication,
    QueueAttributeName::DeduplicationScope,
    QueueAttributeName::DelaySeconds,
    FifoQueue,
    QueueAttributeName::FifoThroughputLimit,
    QueueAttributeName::KmsDataKeyReusePeriodSeconds,
    QueueAttributeName::KmsMasterKeyId,
    QueueAttributeName::MaximumMessageSize,
    QueueAttributeName::MessageRetentionPeriod,
    QueueAttributeName::ReceiveMessageWaitTimeSeconds,
    RedriveAllowPolicy,
    RedrivePolicy,
    QueueAttributeName::SqsManagedSseEnabled,
    QueueAttributeName::VisibilityTimeout,
];
/// The attributes that the templates of the project may leave out, with the values that `CloudFormation` then gives them. An empty
/// value is that of an attribute that is not set.
///
/// Source: <https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-sqs-queue.html>
const DEFAULTS: [(QueueAttributeName, &str); 7] = [
    (QueueAttributeName::DelaySeconds, "0"),
    (QueueAttributeName::KmsMasterKeyId, ""),
    (Policy, ""),
    (QueueAttributeName::ReceiveMessageWaitTimeSeconds, "0"),
    (RedriveAllowPolicy, ""),
    (RedrivePolicy, ""),
    (QueueAttributeName::VisibilityTimeout, "30"),
];
/// The same for FIFO queues alone. Standard queues lack these attributes.
const FIFO_DEFAULTS: [(QueueAttributeName, &str); 3] = [
    (QueueAttributeName::ContentBasedDeduplication, "false"),
    (QueueAttributeName::DeduplicationScope, "queue"),
    (QueueAttributeName::FifoThroughputLimit, "perQueue"),
];
/// SQS accepts the name of a deleted queue again
/// [after 60 seconds](https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html).
const MAX_CREATE_ATTEMPTS: u32 = 10;
const CREATE_INTERVAL: Duration = Duration::from_secs(10);

/// The queues and alarm topics of a stack, as its templates declare them.
#[derive(Debug)]
pub struct DeclaredResources {
    /// The queues, with the dead-letter queues.
    pub(crate) queues: Vec<DeclaredQueue>,
    /// The ARNs of the topics that alarms are sent to.
    pub(crate) alarm_topics: Vec<String>,
}

/// A queue, as a template declares it.
#[derive(Debug, Clone)]
pub struct DeclaredQueue {
    pub(crate) name: String,
    url: String,
    attributes: BTreeMap<String, String>,
    tags: BTreeMap<String, String>,
    /// Whether the endpoint has no TLS. Statements about TLS are then left out of the comparison.
    without_tls: bool,
}

/// A change that makes a queue equal to the template.
#[derive(Debug, Serialize)]
pub struct Restoration {
    /// The queue's name.
    pub queue: String,
    /// Whether the queue is created. Otherwise its attributes are changed.
    pub create: bool,
    /// The differences to the template.
    pub differences: Vec<String>,
}

impl DeclaredResources {
    /// Reads the templates of a stack and its nested stacks.
    pub async fn of(stack: &StackInfo, aws: &AwsCli) -> Result<Self, ResourcesError> {
        let resources = resources::read(aws, &stack.region, &stack.stack).await?;
        Ok(Self::from_resources(&resources, stack.is_plain_http()))
    }

    /// `without_tls`: the endpoint has no TLS, so that a statement that requires it would deny every call.
    fn from_resources(resources: &[Resource], without_tls: bool) -> Self {
        let of_kind = |kind: &'static str| resources.iter().filter(move |resource| resource.kind == kind);
        let policies: Vec<_> = of_kind("AWS::SQS::QueuePolicy").map(|policy| &policy.properties).collect();
        let queues = of_kind("AWS::SQS::Queue").map(|queue| {
            let policy = policies.iter().find(|policy| {
                let mut urls = policy["Queues"].as_array().into_iter().flatten().filter_map(Value::as_str);
                urls.any(|url| url == queue.physical_id)
            });
            DeclaredQueue::new(queue, policy.map(|policy| &policy["PolicyDocument"]), without_tls)
        });
        let topics = of_kind("AWS::CloudWatch::Alarm").flat_map(|alarm| {
            alarm.properties["AlarmActions"].as_array().into_iter().flatten().filter_map(Value::as_str)
        });
        let mut alarm_topics: Vec<_> = topics.filter(|arn| arn.contains(":sns:")).map(str::to_owned).collect();
        alarm_topics.sort_unstable();
        alarm_topics.dedup();
        Self { queues: queues.collect(), alarm_topics }
    }

    /// Returns the queue with this name.
    pub(crate) fn queue(&self, name: &str) -> Option<&DeclaredQueue> {
        self.queues.iter().find(|queue| queue.name == name)
    }

    /// Returns the queue with this URL. A queue of the same name in another account is another queue.
    #[must_use]
    pub fn queue_at(&self, url: &str) -> Option<&DeclaredQueue> {
        self.queues.iter().find(|queue| path(&queue.url) == path(url))
    }
}

impl DeclaredQueue {
    fn new(resource: &Resource, policy: Option<&Value>, without_tls: bool) -> Self {
        let properties = &resource.properties;
        let value = |name: &QueueAttributeName| match &properties[name.as_str()] {
            Value::Null => None,
            value => Some((name.as_str().to_owned(), scalar_text(value).unwrap_or_else(|| value.to_string()))),
        };
        let mut attributes: BTreeMap<_, _> = ATTRIBUTES.iter().filter_map(value).collect();
        if let Some(policy) = policy.cloned() {
            let policy = if without_tls { without_tls_statements(policy) } else { policy };
            if policy["Statement"].as_array().is_some_and(|statements| !statements.is_empty()) {
                attributes.insert(Policy.as_str().to_owned(), policy.to_string());
            }
        }
        let mut tags = resource.stack_tags.clone();
        tags.extend(pairs(&properties["Tags"], "Key", "Value"));
        let url = resource.physical_id.clone();
        Self { name: queue_name(&url).to_owned(), url, attributes, tags, without_tls }
    }

    /// Returns the name of the dead-letter queue.
    pub(crate) fn dead_letter_queue(&self) -> Option<String> {
        let policy: Value = serde_json::from_str(self.attributes.get(RedrivePolicy.as_str())?).ok()?;
        policy["deadLetterTargetArn"].as_str()?.rsplit(':').next().map(str::to_owned)
    }

    /// Returns the KMS key that encrypts the messages.
    pub(crate) fn kms_key(&self) -> Option<&String> {
        self.attributes.get(QueueAttributeName::KmsMasterKeyId.as_str())
    }

    /// Compares the attributes and tags of the queue in SQS with the template. Returns a text for each difference.
    ///
    /// Tags that the template does not declare are ignored.
    pub(crate) async fn differences(&self, queue: &Queue) -> Result<Vec<String>, QueueError> {
        let actual = queue.attributes(&[QueueAttributeName::All], "read the attributes of").await?;
        let mut differences = self.attribute_differences(&actual);
        if !self.tags.is_empty() {
            let tags = queue.tags().await?;
            let missing = self.tags.iter().filter(|(name, value)| tags.get(*name) != Some(*value));
            differences.extend(missing.map(|(name, value)| {
                format!("tag {name} is {}, not {value}", tags.get(name).map_or("unset", String::as_str))
            }));
        }
        Ok(differences)
    }

    fn attribute_differences(&self, actual: &HashMap<QueueAttributeName, String>) -> Vec<String> {
        let mut differences = Vec::new();
        for (name, expected) in &self.attributes_with_defaults() {
            let actual = actual.get(&QueueAttributeName::from(name.as_str())).map_or("", String::as_str);
            if name == Policy.as_str() {
                let actual = if self.without_tls { without_tls_statements(parse(actual)) } else { parse(actual) };
                differences.extend(policy_differences(&parse(expected), &actual));
            } else if !is_equal(expected, actual) {
                let [actual, expected] = [actual, expected].map(|value| if value.is_empty() { "unset" } else { value });
                differences.push(format!("{name} is {actual}, not {expected}"));
            }
        }
        differences
    }

    /// Returns the attributes of the template, and the default of each that the template leaves out.
    fn attributes_with_defaults(&self) -> BTreeMap<String, String> {
        let fifo_defaults = FIFO_DEFAULTS.into_iter().filter(|_| is_fifo(&self.name));
        let defaults = DEFAULTS.into_iter().chain(fifo_defaults);
        let mut attributes: BTreeMap<_, _> =
            defaults.map(|(name, value)| (name.as_str().to_owned(), value.to_owned())).collect();
        attributes.extend(self.attributes.clone());
        attributes
    }

    /// Finds the change that makes the queue equal to the template, if it needs one.
    pub(crate) async fn plan(&self, queue: &Queue) -> Result<Option<Restoration>, QueueError> {
        let restoration = |create, differences| Restoration { queue: self.name.clone(), create, differences };
        match self.differences(queue).await {
            Ok(differences) if differences.is_empty() => Ok(None),
            Ok(differences) => Ok(Some(restoration(false, differences))),
            Err(error) if QueueState::of_error(&error) == QueueState::Gone => {
                Ok(Some(restoration(true, vec!["gone".to_owned()])))
            }
            Err(error) => Err(error),
        }
    }

    /// Creates the queue, or changes its attributes. Calls `on_wait` while SQS does not accept the name yet.
    pub(crate) async fn restore(
        &self,
        queue: &Queue,
        create: bool,
        mut on_wait: impl FnMut(&str),
    ) -> Result<(), QueueError> {
        for attempt in 1.. {
            let result = if create { self.create(&queue.client).await } else { self.set_attributes(queue).await };
            match result {
                Err(error) if error.is_deleted_recently() && attempt < MAX_CREATE_ATTEMPTS => {
                    on_wait(&self.name);
                    sleep(CREATE_INTERVAL).await;
                }
                result => return result,
            }
        }
        Ok(())
    }

    async fn create(&self, client: &Client) -> Result<(), QueueError> {
        let attributes = self.attributes.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect();
        let call = client.create_queue().queue_name(&self.name).set_attributes(Some(attributes));
        let tags = (!self.tags.is_empty()).then(|| self.tags.clone().into_iter().collect());
        call.set_tags(tags).send().await.map_err(QueueError::from_sdk("create", &self.name))?;
        Ok(())
    }

    async fn set_attributes(&self, queue: &Queue) -> Result<(), QueueError> {
        let actual = queue.attributes(&[QueueAttributeName::All], "read the attributes of").await?;
        let attributes = self.attributes_with_defaults().into_iter().map(|(name, value)| (name.as_str().into(), value));
        // SQS accepts `FifoQueue` only when it creates a queue. An attribute that is not set needs no removal.
        let is_settable = |(name, value): &(QueueAttributeName, String)| {
            *name != FifoQueue && (!value.is_empty() || actual.contains_key(name))
        };
        let attributes = attributes.filter(is_settable).collect();
        let call = queue.client.set_queue_attributes().queue_url(&queue.url).set_attributes(Some(attributes));
        call.send().await.map_err(QueueError::from_sdk("set the attributes of", &self.name))?;
        if !self.tags.is_empty() {
            let tags = self.tags.clone().into_iter().collect();
            let call = queue.client.tag_queue().queue_url(&queue.url).set_tags(Some(tags));
            call.send().await.map_err(QueueError::from_sdk("tag", &self.name))?;
        }
        Ok(())
    }
}

/// Plans the changes that make queues and their dead-letter queues equal to the template, in the order of their application.
/// Queues that the template does not declare are left out.
pub async fn plan_restoration(
    stack: &StackInfo,
    declared: &DeclaredResources,
    urls: &[&str],
) -> Result<Vec<Restoration>, QueueError> {
    let client = sqs_client(stack);
    let mut plan = Vec::new();
    for url in urls {
        let queue = Queue::new(&client, url);
        let Some(declared_queue) = declared.queue_at(url) else { continue };
        if let Some(dead) = declared_queue.dead_letter_queue().and_then(|name| declared.queue(&name)) {
            plan.extend(dead.plan(&queue.sibling(&dead.name)).await?);
        }
        plan.extend(declared_queue.plan(&queue).await?);
    }
    Ok(plan)
}

/// Returns the states of the queues that the template does not declare: those of another stack or account.
pub async fn other_queues(stack: &StackInfo, declared: &DeclaredResources, urls: &[&str]) -> Vec<QueueDepth> {
    let client = sqs_client(stack);
    let others = urls.iter().filter(|url| declared.queue_at(url).is_none());
    join_all(others.map(async |url| QueueDepth::read(&Queue::new(&client, url)).await)).await
}

/// Applies a plan of [`plan_restoration`]. Calls `on_wait` while SQS does not accept a name yet.
pub async fn restore(
    stack: &StackInfo,
    declared: &DeclaredResources,
    plan: &[Restoration],
    mut on_wait: impl FnMut(&str),
) -> Result<(), QueueError> {
    // The queues of a stack are in one account.
    let catch_all = Queue::new(&sqs_client(stack), &stack.routes.catch_all().url);
    for Restoration { queue: name, create, .. } in plan {
        if let Some(declared_queue) = declared.queue(name) {
            declared_queue.restore(&catch_all.sibling(name), *create, &mut on_wait).await?;
        }
    }
    Ok(())
}

/// Returns account and name of a queue's URL. The host differs, because `AWS_ENDPOINT_URL` may replace it.
fn path(url: &str) -> Option<(&str, &str)> {
    let (rest, name) = url.rsplit_once('/')?;
    Some((queue_name(rest), name))
}

/// Compares attributes as JSON if they are JSON.
fn is_equal(expected: &str, actual: &str) -> bool {
    let parse = |text| serde_json::from_str::<Value>(text).ok().map(|json| normalize(&json));
    expected == actual || parse(expected).is_some_and(|expected| Some(expected) == parse(actual))
}

/// Parses a policy. Returns `null` if there is none.
fn parse(policy: &str) -> Value {
    serde_json::from_str(policy).unwrap_or_default()
}

fn policy_differences(expected: &Value, actual: &Value) -> Vec<String> {
    let statements = |policy: &Value| -> Vec<(String, Value)> {
        let statements = match &policy["Statement"] {
            Value::Array(statements) => statements.clone(),
            Value::Null => Vec::new(),
            statement => vec![statement.clone()],
        };
        let name = |statement: &Value| statement["Sid"].as_str().unwrap_or("without Sid").to_owned();
        statements.iter().map(|statement| (name(statement), normalize(statement))).collect()
    };
    let (expected, actual) = (statements(expected), statements(actual));
    let names_of = |list: &[(String, Value)], other: &[(String, Value)], text: &str| -> Vec<String> {
        let missing = list.iter().filter(|statement| !other.contains(statement));
        missing.map(|(name, _)| format!("Policy {text} statement {name} of the template")).collect()
    };
    let mut differences = names_of(&expected, &actual, "lacks the");
    let foreign = actual.iter().filter(|statement| !expected.contains(statement));
    differences.extend(foreign.map(|(name, _)| format!("Policy has the statement {name}, unlike the template")));
    differences
}

/// Returns JSON in the form in which SQS and the template are comparable: scalars as text, lists of one element as this
/// element, other lists sorted, and the ARN of an account's root as the account's id.
///
/// Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html>
fn normalize(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, member)| {
                let member = normalize(member);
                (name.clone(), if name == "AWS" { normalize_principals(member) } else { member })
            });
            Value::Object(members.collect())
        }
        Value::Array(items) => {
            let mut items: Vec<_> = items.iter().map(normalize).collect();
            items.sort_by_key(Value::to_string);
            items.dedup();
            if let [item] = items.as_slice() { item.clone() } else { Value::Array(items) }
        }
        scalar => scalar_text(scalar).map_or(Value::Null, Value::String),
    }
}

fn normalize_principals(value: Value) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix("arn:").and_then(|arn| arn.strip_suffix(":root")) {
            Some(arn) => json!(arn.rsplit(':').next()),
            None => json!(text),
        },
        Value::Array(items) => normalize(&Value::Array(items.into_iter().map(normalize_principals).collect())),
        other => other,
    }
}

/// Removes the statements about [TLS](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-securetransport).
fn without_tls_statements(mut policy: Value) -> Value {
    if let Some(statements) = policy["Statement"].as_array_mut() {
        statements.retain(|statement| !statement["Condition"].to_string().contains("aws:SecureTransport"));
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: &str = r#"{"Version":"2012-10-17","Statement":[
        {"Sid":"OnlyTls","Effect":"Deny","Principal":"*","Action":"sqs:*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":false}}},
        {"Sid":"Consume","Effect":"Allow","Principal":{"AWS":["111122223333"]},"Action":["sqs:ReceiveMessage","sqs:DeleteMessage"],"Resource":"*"}]}"#;

    #[test]
    fn equal_policies_may_differ_in_form() {
        let actual = r#"{"Version":"2012-10-17","Statement":[
            {"Resource":"*","Sid":"Consume","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":["sqs:DeleteMessage","sqs:ReceiveMessage"]},
            {"Sid":"OnlyTls","Effect":"Deny","Principal":"*","Action":"sqs:*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}]}"#;

        assert_eq!(policy_differences(&parse(EXPECTED), &parse(actual)), [""; 0]);
        assert!(is_equal(
            r#"{"deadLetterTargetArn":"a","maxReceiveCount":5}"#,
            r#"{"maxReceiveCount":"5","deadLetterTargetArn":"a"}"#
        ));
        assert!(!is_equal("1048576", "262144"));
    }

    #[test]
    fn lost_and_foreign_statements_are_named() {
        let foreign = r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"sqs:*","Resource":"*"}}"#;

        assert_eq!(
            policy_differences(&parse(EXPECTED), &parse(foreign)),
            [
                "Policy lacks the statement OnlyTls of the template",
                "Policy lacks the statement Consume of the template",
                "Policy has the statement without Sid, unlike the template"
            ]
        );
        assert_eq!(policy_differences(&parse(EXPECTED), &Value::Null).len(), 2);
    }

    #[test]
    fn fifo_defaults_apply_to_fifo_queues_only() {
        let differences = |name: &str, changed: &[(QueueAttributeName, &str)]| {
            let properties = json!({ "QueueName": name, "DeduplicationScope": "messageGroup" });
            let queue = resource("AWS::SQS::Queue", &format!("https://sqs/1/{name}"), properties);
            let declared = DeclaredResources::from_resources(&[queue], false);
            let defaults = DEFAULTS.into_iter().chain(changed.iter().cloned());
            let actual = defaults.map(|(name, value)| (name, value.to_owned())).collect();
            declared.queue(name).unwrap().attribute_differences(&actual)
        };
        let by_hand = [
            (QueueAttributeName::ContentBasedDeduplication, "true"),
            (QueueAttributeName::DeduplicationScope, "messageGroup"),
            (QueueAttributeName::FifoThroughputLimit, "perQueue"),
        ];

        assert_eq!(differences("a-queue.fifo", &by_hand), ["ContentBasedDeduplication is true, not false"]);
        let scope_alone = ["DeduplicationScope is unset, not messageGroup"];
        assert_eq!(differences("a-queue", &[]), scope_alone, "a standard queue has no default of a FIFO queue");
    }

    #[test]
    fn attribute_unlike_its_default_is_a_difference() {
        let queue = resource("AWS::SQS::Queue", "https://sqs/1/a-queue", json!({ "QueueName": "a-queue" }));
        let policy = r#"{"Statement":{"Sid":"Anybody","Effect":"Allow","Principal":"*","Action":"sqs:*"}}"#;
        let attributes = |pairs: &[(QueueAttributeName, &str)]| -> HashMap<_, _> {
            pairs.iter().map(|(name, value)| (name.clone(), (*value).to_owned())).collect()
        };
        let defaults = attributes(&[
            (QueueAttributeName::DelaySeconds, "0"),
            (QueueAttributeName::ReceiveMessageWaitTimeSeconds, "0"),
            (QueueAttributeName::VisibilityTimeout, "30"),
            (QueueAttributeName::MessageRetentionPeriod, "345600"),
        ]);
        let changed = attributes(&[
            (QueueAttributeName::DelaySeconds, "900"),
            (QueueAttributeName::KmsMasterKeyId, "alias/other"),
            (Policy, policy),
        ]);

        let declared = DeclaredResources::from_resources(&[queue], false);
        let queue = declared.queue("a-queue").unwrap();
        assert_eq!(queue.attribute_differences(&defaults), [""; 0]);
        assert_eq!(
            queue.attribute_differences(&defaults.into_iter().chain(changed).collect()),
            [
                "DelaySeconds is 900, not 0",
                "KmsMasterKeyId is alias/other, not unset",
                "Policy has the statement Anybody, unlike the template",
            ]
        );
    }

    fn resource(kind: &str, physical_id: &str, properties: Value) -> Resource {
        let stack_tags = [("application".to_owned(), "whatsapp-ingress".to_owned())].into();
        Resource { kind: kind.to_owned(), physical_id: physical_id.to_owned(), properties, stack_tags }
    }

    #[test]
    fn queue_has_attributes_policy_and_tags() {
        let policy: Value = serde_json::from_str(EXPECTED).unwrap();
        let resources = [
            resource(
                "AWS::SQS::Queue",
                "https://sqs/1/a-queue",
                json!({
                    "QueueName": "a-queue", "MaximumMessageSize": 1_048_576, "SqsManagedSseEnabled": true,
                    "RedrivePolicy": { "deadLetterTargetArn": "arn:aws:sqs:r:1:a-queue-dead", "maxReceiveCount": 5 },
                    "Tags": [{ "Key": "route", "Value": "messages" }],
                }),
            ),
            resource(
                "AWS::SQS::QueuePolicy",
                "",
                json!({ "Queues": ["https://sqs/1/a-queue"], "PolicyDocument": policy }),
            ),
            resource("AWS::CloudWatch::Alarm", "", json!({ "AlarmActions": ["arn:aws:sns:r:1:t"] })),
            resource("AWS::CloudWatch::Alarm", "", json!({ "AlarmActions": ["arn:aws:sns:r:1:t"] })),
        ];

        let declared = DeclaredResources::from_resources(&resources, false);
        let queue = declared.queue("a-queue").unwrap();

        assert_eq!(
            queue.attributes.keys().collect::<Vec<_>>(),
            ["MaximumMessageSize", "Policy", "RedrivePolicy", "SqsManagedSseEnabled"]
        );
        assert_eq!(
            (queue.attributes["MaximumMessageSize"].as_str(), queue.attributes["SqsManagedSseEnabled"].as_str()),
            ("1048576", "true")
        );
        assert_eq!(queue.tags.len(), 2);
        assert_eq!((queue.dead_letter_queue().as_deref(), declared.alarm_topics.len()), (Some("a-queue-dead"), 1));
        assert!(declared.queue_at("http://127.0.0.1:1/1/a-queue").is_some());
        assert!(declared.queue_at("https://sqs/2/a-queue").is_none(), "a queue of another account");
        let without_tls = DeclaredResources::from_resources(&resources, true);
        let policy = &without_tls.queue("a-queue").unwrap().attributes["Policy"];
        assert!(policy.contains("Consume") && !policy.contains("OnlyTls"), "{policy}");
    }
}
