//! Distinguished names and members of an event that the function reads, at the edges of their syntax.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use fake_aws::event::event;
use support::{APP_SECRET, Webhook, status};
use whatsapp_ingress::{client_certificate::has_common_name, signature::sign};

const META: &str = "client.webhooks.fbclientcerts.com";

/// RFC 4514 does not escape tabs and line feeds, so they are a part of the value.
#[test]
fn control_character_is_a_part_of_a_name() {
    for name in ["CN=\t{}", "CN=\n{}", "CN=\r{}", "CN=\u{c}{}", "O=a,CN=\n{}"] {
        assert!(!has_common_name(&name.replace("{}", META), META), "{name:?}");
    }
}

#[tokio::test]
async fn odd_member_costs_no_signed_notification() {
    let webhook = Webhook::new(&[("messages", "messages")]).await;
    let body = r#"{"object":"o","entry":[{"id":"1","changes":[{"field":"messages","value":1}]}]}"#;
    let signature = sign(APP_SECRET, body.as_bytes());
    let text = event("POST", "QUERY", &[("X-Hub-Signature-256", &signature)], body.as_bytes()).to_string();
    let id = r#""requestId":""#;
    for (from, to) in [
        ("QUERY", &b"\xff"[..]),
        (id, b"\"requestId\":\"\xff"),
        (id, b"\"authentication\":\"\\ud800\",\"requestId\":\""),
        (id, b"\"authentication\":1e999,\"requestId\":\""),
        (r#""headers":{"#, b"\"headers\":{\"x-hub-signature-256\":\"\xff\","),
    ] {
        let at = text.find(from).unwrap();
        let event = [&text.as_bytes()[..at], to, &text.as_bytes()[at + from.len()..]].concat();
        let answer = webhook.send_bytes(&event, Duration::from_secs(10)).await;
        assert_eq!(status(&answer), 200, "{}", String::from_utf8_lossy(to));
    }
    assert_eq!(webhook.stored().len(), 5);
}
