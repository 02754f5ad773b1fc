//! The logs of the function on the local AWS, and of the local AWS itself.

use std::{fs, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{aws::stack_info::StackInfo, http};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the last lines of the function's log, which is in `CloudWatch` Logs, and of the log of the local AWS.
///
/// If a log cannot be read, returns the error instead of its lines.
pub(crate) async fn tail(stack: &StackInfo, lines: usize) -> String {
    let function = function_lines(stack).await.unwrap_or_else(|error| vec![error.to_string()]);
    let path = stack.log.clone().unwrap_or_default();
    let server = fs::read(&path).map_or_else(
        |error| vec![error.to_string()],
        |log| String::from_utf8_lossy(&log).lines().map(str::to_owned).collect(),
    );
    let last = |lines_of: &[String]| lines_of[lines_of.len().saturating_sub(lines)..].join("\n");
    format!("--- {}\n{}\n--- {}\n{}\n---", stack.log_group, last(&function), path.display(), last(&server))
}

async fn function_lines(stack: &StackInfo) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let query = serde_json::to_vec(&FilterLogEvents { log_group_name: &stack.log_group })?;
    // The local AWS determines the permissions by the id of the access key, and verifies no signature.
    let credential = format!("{}/20260101/{}/logs/aws4_request", stack.access_key_id, stack.region);
    let response = http::client_builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .build()?
        .post(&stack.aws_endpoint)
        .header("x-amz-target", "Logs_20140328.FilterLogEvents")
        .header("content-type", "application/x-amz-json-1.1")
        .header("authorization", format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"))
        .body(query)
        .send()
        .await?
        .error_for_status()?;
    let events: LogEvents = serde_json::from_slice(&response.bytes().await?)?;
    // Lambda itself logs lines at the start and the end of every invocation.
    let is_of_function = |line: &String| !["START ", "END ", "REPORT "].iter().any(|start| line.starts_with(start));
    Ok(events.events.into_iter().map(|event| event.message).filter(is_of_function).collect())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FilterLogEvents<'a> {
    log_group_name: &'a str,
}

#[derive(Deserialize)]
struct LogEvents {
    events: Vec<LogEvent>,
}

#[derive(Deserialize)]
struct LogEvent {
    message: String,
}

#[cfg(test)]
mod tests {
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers::body_string};

    use super::*;

    #[tokio::test]
    async fn tail_has_last_lines_of_the_function() {
        let server = MockServer::start().await;
        let events = r#"{"events":[{"message":"START RequestId: 1"},{"message":"a"},{"message":"b"},{"message":"c"},{"message":"REPORT 1"}]}"#;
        let request = body_string(r#"{"logGroupName":"/aws/lambda/a-stack"}"#);
        Mock::given(request).respond_with(ResponseTemplate::new(200).set_body_string(events)).mount(&server).await;
        let stack = StackInfo { aws_endpoint: server.uri(), log: Some("no/such.log".into()), ..StackInfo::for_tests() };

        let tail = tail(&stack, 2).await;

        let missing = "No such file or directory (os error 2)";
        assert_eq!(tail, format!("--- /aws/lambda/a-stack\nb\nc\n--- no/such.log\n{missing}\n---"));
    }
}
