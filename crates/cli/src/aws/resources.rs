//! Reads the resources of a stack and its nested stacks, with the properties that their templates declare.

use std::collections::BTreeMap;

use futures_util::{
    future::try_join3,
    stream::{self, StreamExt, TryStreamExt},
};
use serde_json::{Value, json};
use thiserror::Error;

use super::{
    cli::{AwsCli, AwsCliError},
    template::{Scope, Template, TemplateError, parse},
};

const NESTED_STACK: &str = "AWS::CloudFormation::Stack";
/// Each resource type with the property to resolve (empty: all). Only one is resolved of alarms and nested stacks, because others may
/// use unsupported functions.
const TYPES: [(&str, &str); 4] = [
    ("AWS::SQS::Queue", ""),
    ("AWS::SQS::QueuePolicy", ""),
    ("AWS::CloudWatch::Alarm", "AlarmActions"),
    (NESTED_STACK, "TemplateURL"),
];

/// A resource of a stack.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// The type, such as `AWS::SQS::Queue`.
    pub(crate) kind: String,
    /// The id in AWS, such as a queue's URL.
    pub(crate) physical_id: String,
    /// The properties of the template, with all functions resolved.
    pub(crate) properties: Value,
    /// The tags of the stack, which `CloudFormation` adds to each resource.
    pub(crate) stack_tags: BTreeMap<String, String>,
}

/// Resources that cannot be read.
#[derive(Debug, Error)]
pub enum ResourcesError {
    /// A call of AWS failed.
    #[error(transparent)]
    Aws(#[from] AwsCliError),
    /// The template of a stack cannot be read.
    #[error("stack {stack}: {source}")]
    Template {
        /// The stack's name or id.
        stack: String,
        /// The error.
        source: TemplateError,
    },
}

/// Logical id, physical id, type, status.
type ListedResource = (String, Option<String>, String, String);

/// The members of a stack's description that are read.
const DESCRIPTION: &str = "{id: StackId, name: StackName, parameters: Parameters, tags: Tags}";
/// Each call is a process of its own.
const MAX_PARALLEL_CALLS: usize = 8;

/// Reads the queues, queue policies and alarms of a stack and its nested stacks.
pub(crate) async fn read(aws: &AwsCli, region: &str, stack: &str) -> Result<Vec<Resource>, ResourcesError> {
    let call = ["cloudformation", "describe-stacks", "--stack-name", stack];
    let query = format!("Stacks[0].{DESCRIPTION}");
    let (root, listed, document): (Value, _, _) =
        try_join3(aws.call(region, &call, &query), list(aws, region, stack), template(aws, region, stack)).await?;
    let (mut resources, mut nested) = resources_of(&root, &listed, document, region)?;
    // One call describes all nested stacks. Without the permission for all stacks, each is described by its own call.
    let query = format!("Stacks[?RootId=='{}'].{DESCRIPTION}", root["id"].as_str().unwrap_or_default());
    let mut described: Vec<Value> = Vec::new();
    if !nested.is_empty() {
        described = aws.call(region, &["cloudformation", "describe-stacks"], &query).await.unwrap_or_default();
    }
    let mut templates = BTreeMap::<String, Value>::new();
    while !nested.is_empty() {
        let read = nested.iter().map(async |stack| {
            let call = ["cloudformation", "describe-stacks", "--stack-name", &stack.id];
            let description = match described.iter().find(|other| other["id"] == stack.id.as_str()) {
                Some(description) => description.clone(),
                None => aws.call(region, &call, &format!("Stacks[0].{DESCRIPTION}")).await?,
            };
            Ok::<_, ResourcesError>((description, list(aws, region, &stack.id).await?))
        });
        let read: Vec<_> = stream::iter(read).buffered(MAX_PARALLEL_CALLS).try_collect().await?;
        let mut next = Vec::new();
        for (stack, (description, listed)) in nested.iter().zip(read) {
            // The stacks that a loop of `Fn::ForEach` creates have the same template.
            let document = match templates.get(&stack.template_url) {
                Some(document) => document.clone(),
                None => template(aws, region, &stack.id).await?,
            };
            templates.insert(stack.template_url.clone(), document.clone());
            let (stack_resources, stack_nested) = resources_of(&description, &listed, document, region)?;
            resources.extend(stack_resources);
            next.extend(stack_nested);
        }
        nested = next;
    }
    Ok(resources)
}

/// A stack that is a resource of another.
struct NestedStack {
    id: String,
    template_url: String,
}

async fn list(aws: &AwsCli, region: &str, stack: &str) -> Result<Vec<ListedResource>, AwsCliError> {
    let call = ["cloudformation", "list-stack-resources", "--stack-name", stack];
    let query = "StackResourceSummaries[].[LogicalResourceId, PhysicalResourceId, ResourceType, ResourceStatus]";
    let listed: Vec<ListedResource> = aws.call(region, &call, query).await?;
    Ok(listed.into_iter().filter(|(.., status)| status != "DELETE_COMPLETE").collect())
}

async fn template(aws: &AwsCli, region: &str, stack: &str) -> Result<Value, AwsCliError> {
    let call = ["cloudformation", "get-template", "--stack-name", stack, "--template-stage", "Processed"];
    aws.call(region, &call, "TemplateBody").await
}

/// Returns the resources of one stack, and its nested stacks.
fn resources_of(
    described: &Value,
    listed: &[ListedResource],
    template_body: Value,
    region: &str,
) -> Result<(Vec<Resource>, Vec<NestedStack>), ResourcesError> {
    let in_stack = |source| {
        let stack = described["name"].as_str().unwrap_or_default().to_owned();
        ResourcesError::Template { stack, source }
    };
    let stack_tags: BTreeMap<_, _> = pairs(&described["tags"], "Key", "Value").collect();
    let template = Template::new(parse(template_body).map_err(in_stack)?, scope(described, listed, region));
    let (mut resources, mut nested) = (Vec::new(), Vec::new());
    for (logical_id, physical_id, kind, _) in listed {
        let Some((_, property)) = TYPES.into_iter().find(|(name, _)| name == kind) else { continue };
        let properties = template.properties(logical_id, property).map_err(in_stack)?;
        let physical_id = physical_id.clone().unwrap_or_default();
        if kind == NESTED_STACK {
            let template_url = properties[property].as_str().unwrap_or(&physical_id).to_owned();
            nested.push(NestedStack { id: physical_id, template_url });
        } else {
            let stack_tags = stack_tags.clone();
            resources.push(Resource { kind: kind.clone(), physical_id, properties, stack_tags });
        }
    }
    Ok((resources, nested))
}

/// Returns the values that references of a stack resolve to.
fn scope(described: &Value, listed: &[ListedResource], region: &str) -> Scope {
    let id = described["id"].as_str().unwrap_or_default();
    let mut arn = id.split(':');
    let (partition, account) = (arn.nth(1).unwrap_or("aws"), arn.nth(2).unwrap_or_default());
    let suffix = if partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
    let mut scope = Scope::default();
    let pseudo_parameters = [
        ("AccountId", account),
        ("Partition", partition),
        ("Region", region),
        ("StackId", id),
        ("StackName", described["name"].as_str().unwrap_or_default()),
        ("URLSuffix", suffix),
    ];
    scope.references.extend(pseudo_parameters.map(|(name, value)| (format!("AWS::{name}"), json!(value))));
    for parameter in described["parameters"].as_array().into_iter().flatten() {
        let value =
            [&parameter["ResolvedValue"], &parameter["ParameterValue"]].into_iter().find(|value| !value.is_null());
        if let (Some(name), Some(value)) = (parameter["ParameterKey"].as_str(), value) {
            scope.references.insert(name.to_owned(), value.clone());
        }
    }
    for (logical_id, physical_id, kind, _) in listed {
        let Some(physical_id) = physical_id else { continue };
        scope.references.insert(logical_id.clone(), json!(physical_id));
        let name = physical_id.rsplit('/').next().unwrap_or(physical_id);
        let arn =
            |service: &str, resource: &str| json!(format!("arn:{partition}:{service}:{region}:{account}:{resource}"));
        let attributes = match kind.as_str() {
            "AWS::SQS::Queue" => {
                vec![("Arn", arn("sqs", name)), ("QueueName", json!(name)), ("QueueUrl", json!(physical_id))]
            }
            "AWS::KMS::Key" => vec![("Arn", arn("kms", &format!("key/{name}"))), ("KeyId", json!(physical_id))],
            _ => continue,
        };
        let attributes = attributes.into_iter().map(|(name, value)| (format!("{logical_id}.{name}"), value));
        scope.attributes.extend(attributes);
    }
    scope
}

/// Returns names and values of a list such as `[{"Key": "a", "Value": "b"}]`.
pub(crate) fn pairs<'v>(
    list: &'v Value,
    name: &'static str,
    value: &'static str,
) -> impl Iterator<Item = (String, String)> + use<'v> {
    let text = |item: &Value, member: &str| super::template::scalar_text(&item[member]);
    list.as_array().into_iter().flatten().filter_map(move |item| text(item, name).zip(text(item, value)))
}
