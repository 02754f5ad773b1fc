//! Describes a deployed stack.

use std::collections::BTreeMap;

use whatsapp_webhook::routes::Routes;

use super::{
    cli::{AwsCli, Credentials},
    stack_choice::DeployedStack,
    stack_info::{StackInfo, StackInfoError},
};
use crate::endpoint_secrets::variable;

impl StackInfo {
    /// Describes a stack with the credentials, profile and region of the environment, without its secret.
    pub async fn describe_deployed(aws: &AwsCli, stack: &DeployedStack) -> Result<Self, StackInfoError> {
        let region = aws.region().await?;
        stack.check_region(&region)?;
        let stack = stack.name.as_str();
        let Credentials { access_key_id, secret_access_key, session_token } = aws.credentials().await?;
        let call = ["cloudformation", "describe-stacks", "--stack-name", stack];
        let outputs: Option<Vec<(String, String)>> =
            aws.call(&region, &call, "Stacks[0].Outputs[].[OutputKey, OutputValue]").await?;
        let outputs: BTreeMap<_, _> = outputs.into_iter().flatten().collect();
        let incomplete = |missing: String| StackInfoError::OtherTemplate { stack: stack.to_owned(), missing };
        let output = |name: &str| outputs.get(name).cloned().ok_or_else(|| incomplete(format!("the output {name}")));
        let function = output("FunctionName")?;
        output("SecretArn")?;

        let call = ["lambda", "get-function-configuration", "--function-name", &function];
        let routes = aws.call::<Option<String>>(&region, &call, "Environment.Variables.QUEUE_URLS").await?;
        let routes = routes.and_then(|routes| Routes::parse(&routes).ok());
        let routes = routes.ok_or_else(|| incomplete("the function's QUEUE_URLS".to_owned()))?;
        let endpoint = endpoint(&routes.catch_all().url).to_owned();
        Ok(Self {
            aws_endpoint: variable("AWS_ENDPOINT_URL_SQS").or_else(|| variable("AWS_ENDPOINT_URL")).unwrap_or(endpoint),
            region,
            access_key_id,
            secret_access_key,
            session_token,
            callback_url: output("CallbackUrl")?,
            secret: None,
            stack: stack.to_owned(),
            routes,
            log_group: output("LogGroupName")?,
            outputs,
            log: None,
        })
    }
}

/// Returns the URL of a queue without account and name.
fn endpoint(url: &str) -> &str {
    url.rsplitn(3, '/').nth(2).unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_the_url_without_account_and_name() {
        let url = "https://sqs.eu-west-1.amazonaws.com/123456789012/in-unrouted";
        assert_eq!(endpoint(url), "https://sqs.eu-west-1.amazonaws.com");
    }
}
