//! Reads the resources of a stack and its nested stacks, with the properties that their templates declare.

use std::collections::{BTreeMap, VecDeque};

use futures_util::future::try_join3;
use serde_json::{Value, json};
use thiserror::Error;

use super::{
    cli::{AwsCli, AwsCliError},
    template::{Scope, Template, TemplateError, parse},
};

const NESTED_STACK: &str = "AWS::CloudFormation::Stack";
/// The types that are read, each with the name of the only property that is resolved, or all if it is empty. Other
/// properties of alarms may use functions that are not supported.
const TYPES: [(&str, &str); 3] =
    [("AWS::SQS::Queue", ""), ("AWS::SQS::QueuePolicy", ""), ("AWS::CloudWatch::Alarm", "AlarmActions")];

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

/// Reads the queues, queue policies and alarms of a stack and its nested stacks.
pub(crate) async fn read(aws: &AwsCli, region: &str, stack: &str) -> Result<Vec<Resource>, ResourcesError> {
    let mut stacks = VecDeque::from([stack.to_owned()]);
    let mut resources = Vec::new();
    while let Some(stack) = stacks.pop_front() {
        let call = |operation| ["cloudformation", operation, "--stack-name", stack.as_str()];
        let description = "Stacks[0].{id: StackId, name: StackName, parameters: Parameters, tags: Tags}";
        let processed = [&call("get-template")[..], &["--template-stage", "Processed"]].concat();
        let (described, listed, body): (Value, Vec<ListedResource>, Value) = try_join3(
            aws.call(region, &call("describe-stacks"), description),
            aws.call(
                region,
                &call("list-stack-resources"),
                "StackResourceSummaries[].[LogicalResourceId, PhysicalResourceId, ResourceType, ResourceStatus]",
            ),
            aws.call(region, &processed, "TemplateBody"),
        )
        .await?;
        let in_stack = |source| ResourcesError::Template { stack: stack.clone(), source };
        let document = parse(body).map_err(in_stack)?;
        let listed: Vec<_> = listed.into_iter().filter(|(.., status)| status != "DELETE_COMPLETE").collect();
        stacks.extend(listed.iter().filter(|(_, _, kind, _)| kind == NESTED_STACK).filter_map(|each| each.1.clone()));
        let stack_tags = pairs(&described["tags"], "Key", "Value").collect();
        let template = Template::new(document, scope(&described, &listed, region));
        for (logical_id, physical_id, kind, _) in listed {
            let Some((_, property)) = TYPES.into_iter().find(|(name, _)| *name == kind) else { continue };
            let properties = template.properties(&logical_id, property).map_err(in_stack)?;
            let physical_id = physical_id.unwrap_or_default();
            resources.push(Resource { kind, physical_id, properties, stack_tags: BTreeMap::clone(&stack_tags) });
        }
    }
    Ok(resources)
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
