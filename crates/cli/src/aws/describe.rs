//! Describes a deployed stack.

use std::collections::BTreeMap;

use futures_util::future::try_join;
use whatsapp_webhook::routes::CATCH_ALL;

use super::{
    cli::{AwsCli, Credentials},
    stack_info::{StackInfo, StackInfoError},
};
use crate::endpoint_secrets::variable;

impl StackInfo {
    /// Describes a stack with the credentials, profile and region of the environment.
    pub async fn deployed(aws: &AwsCli, stack: &str) -> Result<Self, StackInfoError> {
        let region = aws.region().await?;
        let Credentials { access_key_id, secret_access_key, session_token } = aws.credentials().await?;
        let call = ["cloudformation", "describe-stacks", "--stack-name", stack];
        let outputs: Option<Vec<(String, String)>> =
            aws.call(&region, &call, "Stacks[0].Outputs[].[OutputKey, OutputValue]").await?;
        let outputs: BTreeMap<_, _> = outputs.into_iter().flatten().collect();
        let incomplete = |missing: String| StackInfoError::OtherTemplate { stack: stack.to_owned(), missing };
        let output = |name: &str| outputs.get(name).cloned().ok_or_else(|| incomplete(format!("the output {name}")));
        let (function, secret) = (output("FunctionName")?, output("SecretArn")?);

        let call = ["lambda", "get-function-configuration", "--function-name", &function];
        let routes = aws.call::<Option<String>>(&region, &call, "Environment.Variables.QUEUE_URLS");
        let call = ["secretsmanager", "get-secret-value", "--secret-id", &secret];
        let (routes, secret) = try_join(routes, aws.call(&region, &call, "SecretString")).await?;
        let routes = routes.and_then(|routes| serde_json::from_str(&routes).ok());
        let (queue_urls, endpoint) =
            routes.and_then(queue_urls).ok_or_else(|| incomplete("the function's QUEUE_URLS".to_owned()))?;
        Ok(Self {
            aws_endpoint: variable("AWS_ENDPOINT_URL_SQS").or_else(|| variable("AWS_ENDPOINT_URL")).unwrap_or(endpoint),
            region,
            access_key_id,
            secret_access_key,
            session_token,
            callback_url: output("CallbackUrl")?,
            secret,
            stack: stack.to_owned(),
            queue_urls,
            log_group: output("LogGroupName")?,
            outputs,
            log: None,
        })
    }
}

/// Completes the URL of each queue that is only named. Returns the URLs and their common endpoint.
fn queue_urls(mut routes: BTreeMap<String, String>) -> Option<(BTreeMap<String, String>, String)> {
    let (account, _) = routes.get(CATCH_ALL)?.rsplit_once('/')?;
    let (endpoint, account) = (account.rsplit_once('/')?.0.to_owned(), account.to_owned());
    for queue in routes.values_mut().filter(|queue| !queue.contains('/')) {
        *queue = format!("{account}/{queue}");
    }
    Some((routes, endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_name_is_completed_by_the_catch_all_url() {
        let catch_all = "https://sqs.eu-west-1.amazonaws.com/123456789012/in-unrouted";
        let other = "https://sqs.eu-west-1.amazonaws.com/210987654321/theirs";
        let routes = [("*", catch_all), ("messages", "in-messages"), ("security", other)];
        let routes = routes.map(|(route, queue)| (route.to_owned(), queue.to_owned())).into();

        let (urls, endpoint) = queue_urls(routes).unwrap();

        assert_eq!(endpoint, "https://sqs.eu-west-1.amazonaws.com");
        assert_eq!(urls["messages"], "https://sqs.eu-west-1.amazonaws.com/123456789012/in-messages");
        assert_eq!((urls["*"].as_str(), urls["security"].as_str()), (catch_all, other));
    }

    #[test]
    fn routes_without_catch_all_have_no_endpoint() {
        assert_eq!(queue_urls([("messages".to_owned(), "in-messages".to_owned())].into()), None);
    }
}
