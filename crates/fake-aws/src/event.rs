//! The events that API Gateway sends to a function.

use std::{collections::BTreeMap, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// The `requestId` of every event.
pub const REQUEST_ID: &str = "Xf3a2jKlliAEJ1A=";

/// Builds an event of an HTTP API in [payload format 2.0]. A body that is not UTF-8 is base64-encoded. An empty body is left
/// out.
///
/// [payload format 2.0]: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
#[must_use]
pub fn event(method: &str, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Value {
    let default_headers = [
        ("accept", "*/*"),
        ("accept-encoding", "deflate, gzip"),
        ("content-type", "application/json"),
        ("host", "r3pmxmplak.execute-api.eu-central-1.amazonaws.com"),
        ("user-agent", "facebookexternalua"),
        ("x-forwarded-for", "192.0.2.44"),
    ];
    let headers: BTreeMap<_, _> = default_headers.iter().chain(headers).copied().collect();
    let text = std::str::from_utf8(body);
    let milliseconds = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let mut event = json!({
        "version": "2.0",
        "routeKey": format!("{method} /webhook"),
        "rawPath": "/webhook",
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "r3pmxmplak",
            "domainName": "r3pmxmplak.execute-api.eu-central-1.amazonaws.com",
            "domainPrefix": "r3pmxmplak",
            "http": {
                "method": method,
                "path": "/webhook",
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.44",
                "userAgent": "facebookexternalua",
            },
            "requestId": REQUEST_ID,
            "routeKey": format!("{method} /webhook"),
            "stage": "$default",
            // Unlike `timeEpoch`, nothing reads it.
            "time": "12/Feb/2025:00:43:44 +0000",
            "timeEpoch": u64::try_from(milliseconds).unwrap_or_default(),
        },
        "isBase64Encoded": text.is_err(),
    });
    if !body.is_empty() {
        event["body"] = text.map_or_else(|_| base64(body), str::to_owned).into();
    }
    event
}

/// Encodes a body as API Gateway does if it is not text.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
