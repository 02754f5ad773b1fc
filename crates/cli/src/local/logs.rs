//! What the function on the local AWS said, and the local AWS itself.

use std::{fs, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{aws::stack_info::StackInfo, http};

const TIMEOUT: Duration = Duration::from_secs(5);

/// The last lines of both logs, the function's first, which is in `CloudWatch` Logs. What cannot be read is said so.
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
    let asked = serde_json::to_vec(&Query { log_group_name: &stack.log_group })?;
    // The local AWS judges by the name of the key and verifies no signature.
    let key = format!("{}/20260101/{}/logs/aws4_request", stack.access_key_id, stack.region);
    let answer = http::client_builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .build()?
        .post(&stack.aws_endpoint)
        .header("x-amz-target", "Logs_20140328.FilterLogEvents")
        .header("content-type", "application/x-amz-json-1.1")
        .header("authorization", format!("AWS4-HMAC-SHA256 Credential={key}, SignedHeaders=host, Signature=0"))
        .body(asked)
        .send()
        .await?
        .error_for_status()?;
    let found: Found = serde_json::from_slice(&answer.bytes().await?)?;
    // Lambda adds lines of its own at start and end of every invocation.
    let own = |line: &String| !["START ", "END ", "REPORT "].iter().any(|start| line.starts_with(start));
    Ok(found.events.into_iter().map(|event| event.message).filter(own).collect())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Query<'a> {
    log_group_name: &'a str,
}

#[derive(Deserialize)]
struct Found {
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    message: String,
}

#[cfg(test)]
mod tests {
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers::body_string};

    use super::*;

    #[tokio::test]
    async fn the_function_s_own_lines_are_told_the_last_ones_only() {
        let server = MockServer::start().await;
        let said = r#"{"events":[{"message":"START RequestId: 1"},{"message":"a"},{"message":"b"},{"message":"c"},{"message":"REPORT 1"}]}"#;
        let asked = body_string(r#"{"logGroupName":"/aws/lambda/a-stack"}"#);
        Mock::given(asked).respond_with(ResponseTemplate::new(200).set_body_string(said)).mount(&server).await;
        let stack = StackInfo { aws_endpoint: server.uri(), log: Some("no/such.log".into()), ..StackInfo::for_tests() };

        let tail = tail(&stack, 2).await;

        let missing = "No such file or directory (os error 2)";
        assert_eq!(tail, format!("--- /aws/lambda/a-stack\nb\nc\n--- no/such.log\n{missing}\n---"));
    }
}
