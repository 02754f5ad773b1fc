//! Requests of every kind, with a scripted SQS and Secrets Manager.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{APP_SECRET, Entry, Reply, VERIFY_TOKEN, Webhook, secret, status};
use fake_aws::event::{REQUEST_ID, base64, event};
use lambda_http::{Body, aws_lambda_events::apigw::ApiGatewayV2httpResponse};
use tokio::time::Instant;
use whatsapp_webhook::signature::sign;

/// The room that a message always leaves for the attributes of a diverted one.
const DIVERTED_BYTES: usize = "unrouted_reasonStringqueue-unavailable".len() + "diverted_fromString".len() + 80;

const ROUTES: [(&str, &str); 3] =
    [("messages", "messages"), ("messages.statuses", "receipts"), ("security", "security")];

/// Makes a notification with a change for each field. The value of a change is its index.
fn notification(fields: &[&str]) -> String {
    let changes: Vec<_> =
        fields.iter().enumerate().map(|(index, field)| format!(r#"{{"field":"{field}","value":{index}}}"#)).collect();
    format!(r#"{{"object":"o","entry":[{{"id":"1","changes":[{}]}}]}}"#, changes.join(","))
}

/// Makes the expected body of one change.
fn expected_body(index: usize, field: &str) -> String {
    format!(r#"{{"object":"o","entry":[{{"id":"1","changes":[{{"field":"{field}","value":{index}}}]}}]}}"#)
}

fn text(response: &ApiGatewayV2httpResponse) -> &str {
    // The body is always a string, as in earlier versions.
    match &response.body {
        Some(Body::Text(text)) => text,
        body => panic!("{body:?}"),
    }
}

mod certificates {
    use serde_json::json;

    use super::*;

    const META: &str = "client.webhooks.fbclientcerts.com";

    /// Delivers a signed notification with a client certificate for this subject, or without one. Returns the status and the
    /// number of stored messages.
    async fn deliver_with_certificate(subject: Option<&str>) -> (u16, usize) {
        let webhook = Webhook::new(&ROUTES).await.require_client_cn(META);
        let body = notification(&["messages"]);
        let signature = sign(APP_SECRET, body.as_bytes());
        let mut event = event("POST", "", &[("X-Hub-Signature-256", &signature)], body.as_bytes());
        if let Some(subject) = subject {
            let certificate = json!({
                "clientCertPem": "",
                "subjectDN": subject,
                "issuerDN": format!("CN={META}"),
                "serialNumber": "1",
                "validity": { "notBefore": "Jan 1 00:00:00 2026 GMT", "notAfter": "Jan 1 00:00:00 2027 GMT" },
            });
            event["requestContext"]["authentication"] = json!({ "clientCert": certificate });
        }
        let status = status(&webhook.send(event).await);
        (status, webhook.stored_entries().len())
    }

    #[tokio::test]
    async fn common_name_is_accepted_at_any_position() {
        for subject in [
            "CN={}",
            "C=US, ST=California, O=Meta, CN={}",
            "cn={},O=Meta",
            "O=Meta+CN={}",
            r"CN={},O=Meta Platforms\, Inc.,L=Menlo Park,C=US",
            r#"C = US, O = "Meta Platforms, Inc.", CN = {}"#,
        ] {
            assert_eq!(deliver_with_certificate(Some(&subject.replace("{}", META))).await, (200, 1), "{subject}");
        }
    }

    #[tokio::test]
    async fn other_or_missing_certificate_is_rejected() {
        let others = ["", "CN=", "O={}", "CN={}.example", "CN=x{}", "CN=a,CN={}", "O=a\\,CN={}", r#"O="a,CN={}""#];
        for subject in others.map(|subject| subject.replace("{}", META)) {
            assert_eq!(deliver_with_certificate(Some(&subject)).await, (403, 0), "{subject}");
        }
        assert_eq!(deliver_with_certificate(None).await, (403, 0));
    }

    #[tokio::test]
    async fn challenge_requires_a_certificate() {
        let query = format!("hub.mode=subscribe&hub.challenge=1158&hub.verify_token={VERIFY_TOKEN}");
        let webhook = Webhook::new(&ROUTES).await.require_client_cn(META);
        assert_eq!(status(&webhook.send(event("GET", &query, &[], b"")).await), 403);
    }
}

mod responses {
    use super::*;

    #[tokio::test]
    async fn challenge_is_returned_as_plain_text() {
        let webhook = Webhook::new(&ROUTES).await;
        let query = format!("hub.mode=subscribe&hub.challenge=%3Cb%3E1158+%C3%A4&hub.verify_token={VERIFY_TOKEN}");
        let response = webhook.send(event("GET", &query, &[], b"")).await;
        assert_eq!((status(&response), text(&response)), (200, "<b>1158 ä"));
        let headers: BTreeMap<_, _> =
            response.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(
            headers.into_iter().collect::<Vec<_>>(),
            [
                ("cache-control", "no-store"),
                ("content-type", "text/plain; charset=utf-8"),
                ("x-content-type-options", "nosniff")
            ]
        );
    }

    #[tokio::test]
    async fn other_requests_are_rejected_without_a_body() {
        let webhook = Webhook::new(&ROUTES).await;
        let right = format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}");
        for (method, query, expected) in [
            ("GET", "", 403),
            ("GET", "hub.mode=subscribe&hub.challenge=1&hub.verify_token=wrong", 403),
            ("GET", "hub.mode=subscribe&hub.challenge=1&hub.verify_token=", 403),
            ("GET", &right, 400),
            ("PUT", &right, 405),
            ("DELETE", "", 405),
            ("HEAD", "", 405),
            ("OPTIONS", "", 405),
        ] {
            let response = webhook.send(event(method, query, &[], b"")).await;
            assert_eq!((status(&response), text(&response)), (expected, ""), "{method} {query}");
            let allowed = response.headers.get("allow").map(|value| value.to_str().unwrap());
            assert_eq!(allowed, (expected == 405).then_some("GET, POST"), "{method} {query}");
        }
        assert_eq!(webhook.entries().len(), 0);
    }

    #[tokio::test]
    async fn unsigned_notification_is_not_stored() {
        let webhook = Webhook::new(&ROUTES).await;
        let body = notification(&["messages"]);
        let signature = sign(APP_SECRET, body.as_bytes());
        let altered = body.replace("messages", "messageS");
        let reserialised = body.replace(',', ", ");
        for (sent, header) in [
            (&altered, Some(signature.clone())),
            (&reserialised, Some(signature.clone())),
            (&body, Some(sign("another", body.as_bytes()))),
            (&body, Some(sign("", body.as_bytes()))),
            (&body, Some(signature.replace("sha256=", "sha1="))),
            (&body, Some(signature.replace("sha256=", ""))),
            (&body, Some(String::new())),
            (&body, None),
        ] {
            let headers: Vec<_> = header.iter().map(|header| ("x-hub-signature-256", header.as_str())).collect();
            let response = webhook.send(event("POST", "", &headers, sent.as_bytes())).await;
            assert_eq!((status(&response), text(&response)), (401, ""), "{header:?} {sent}");
        }
        assert_eq!(webhook.entries().len(), 0);
        assert_eq!(webhook.deliver(&body).await, 200);
    }

    #[tokio::test]
    async fn base64_event_gives_the_same_message() {
        let webhook = Webhook::new(&ROUTES).await;
        let body = notification(&["messages"]);
        let signature = sign(APP_SECRET, body.as_bytes());
        let mut encoded = event("POST", "", &[("X-HUB-Signature-256", &signature)], body.as_bytes());
        encoded["body"] = base64(body.as_bytes()).into();
        encoded["isBase64Encoded"] = true.into();
        assert_eq!(status(&webhook.send(encoded).await), 200);
        assert_eq!(webhook.deliver(&body).await, 200);
        let [encoded, plain] = &webhook.stored_entries()[..] else { panic!() };
        assert_eq!((&encoded.body, &encoded.attributes), (&plain.body, &plain.attributes));
    }

    #[tokio::test]
    async fn empty_signed_body_is_accepted_without_a_message() {
        let webhook = Webhook::new(&ROUTES).await;
        assert_eq!(webhook.deliver("").await, 200);
        let mut without = event("POST", "", &[("x-hub-signature-256", &sign(APP_SECRET, b""))], b"");
        without.as_object_mut().unwrap().remove("body");
        assert_eq!(status(&webhook.send(without).await), 200);
        assert_eq!(webhook.entries().len(), 0);
    }
}

mod routing {
    use super::*;

    #[tokio::test]
    async fn fragments_are_stored_on_their_queue_with_reason() {
        let webhook = Webhook::new(&ROUTES).await;
        let body = r#"{"object":"o","entry":[{"id":"1","changes":[{"field":"messages","value":{"messages":[1]}},{"field":"messages","value":{"statuses":[1]}},{"field":"new"}]},{"changes":[{"field":"security"},{"value":1}]},{"messaging":[]}]}"#;
        assert_eq!(webhook.deliver(body).await, 200);
        let mut messages: Vec<_> = webhook
            .stored_entries()
            .into_iter()
            .map(|entry| {
                (entry.queue, entry.attributes.get("unrouted_reason").cloned().unwrap_or_default(), entry.body)
            })
            .collect();
        messages.sort_unstable();
        let expected = [
            ("messages", "", r#"[{"id":"1","changes":[{"field":"messages","value":{"messages":[1]}}]}]"#),
            ("receipts", "", r#"[{"id":"1","changes":[{"field":"messages","value":{"statuses":[1]}}]}]"#),
            ("security", "", r#"[{"changes":[{"field":"security"}]}]"#),
            ("unrouted", "no-field", r#"[{"changes":[{"value":1}]}]"#),
            ("unrouted", "no-route", r#"[{"id":"1","changes":[{"field":"new"}]}]"#),
            ("unrouted", "not-a-notification", r#"[{"messaging":[]}]"#),
        ];
        let expected = expected.map(|(queue, reason, entry)| {
            (queue.to_owned(), reason.to_owned(), format!(r#"{{"object":"o","entry":{entry}}}"#))
        });
        assert_eq!(messages, expected);
    }

    #[tokio::test]
    async fn body_that_is_not_json_is_stored_unchanged() {
        let webhook = Webhook::new(&ROUTES).await;
        assert_eq!(webhook.deliver("hello").await, 200);
        assert_eq!(webhook.deliver(b"\xff\xfe").await, 200);
        let messages: Vec<_> = webhook
            .stored_entries()
            .into_iter()
            .map(|entry| {
                (entry.body, entry.attributes["unrouted_reason"].clone(), entry.attributes.get("encoding").cloned())
            })
            .collect();
        let reason = || "not-json".to_owned();
        assert_eq!(
            messages,
            [("hello".to_owned(), reason(), None), ("//4=".to_owned(), reason(), Some("base64".to_owned()))]
        );
    }

    #[tokio::test]
    async fn request_id_is_that_of_api_gateway() {
        let webhook = Webhook::new(&ROUTES).await;
        webhook.deliver("{}").await;
        assert_eq!(webhook.stored_entries()[0].attributes["request_id"], REQUEST_ID);
    }
}

mod batches {
    use super::*;

    fn fields(count: usize) -> Vec<&'static str> {
        vec!["messages"; count]
    }

    fn calls(entries: &[Entry]) -> Vec<usize> {
        let mut sizes = BTreeMap::<_, usize>::new();
        for entry in entries {
            *sizes.entry(entry.call).or_default() += 1;
        }
        sizes.into_values().collect()
    }

    #[tokio::test]
    async fn call_has_at_most_ten_entries() {
        let webhook = Webhook::new(&ROUTES).await;
        assert_eq!(webhook.deliver(notification(&fields(25))).await, 200);
        assert_eq!(calls(&webhook.entries()), [10, 10, 5]);
        let mut bodies = webhook.bodies("messages");
        bodies.sort_unstable();
        let mut expected: Vec<_> = (0..25).map(|index| expected_body(index, "messages")).collect();
        expected.sort_unstable();
        assert_eq!(bodies, expected);
    }

    #[tokio::test]
    async fn call_has_at_most_one_mebibyte() {
        let webhook = Webhook::new(&ROUTES).await;
        // Counted in characters two of these fit into a call, counted in bytes only one.
        let text = "ä".repeat(300_000);
        let changes: Vec<_> =
            (0..4).map(|index| format!(r#"{{"field":"messages","value":["{text}",{index}]}}"#)).collect();
        let body = format!(r#"{{"entry":[{{"changes":[{}]}}]}}"#, changes.join(","));
        assert_eq!(webhook.deliver(body).await, 200);
        assert_eq!(calls(&webhook.entries()), [1, 1, 1, 1]);
    }

    #[tokio::test]
    async fn message_of_exactly_the_limit_is_sent() {
        let webhook = Webhook::new(&ROUTES).await;
        let notification = |filler: usize| {
            format!(r#"{{"entry":[{{"changes":[{{"field":"security","value":"{}"}}]}}]}}"#, "x".repeat(filler))
        };
        webhook.deliver(notification(0)).await;
        let small = webhook.stored_entries().remove(0);
        let room = 1_048_576 - small.bytes() - DIVERTED_BYTES;
        assert_eq!(webhook.deliver(notification(room)).await, 200);
        assert_eq!(webhook.bodies("security")[1], notification(room));
        assert_eq!(webhook.deliver(notification(room + 1)).await, 503);
        assert_eq!(webhook.entries().len(), 2);
    }

    #[tokio::test]
    async fn messages_of_exactly_the_limit_share_a_call() {
        let webhook = Webhook::new(&ROUTES).await;
        let change = |filler: usize| format!(r#"{{"field":"security","value":"{}"}}"#, "x".repeat(filler));
        let notification = |changes: &str| format!(r#"{{"entry":[{{"changes":[{changes}]}}]}}"#);
        webhook.deliver(notification(&change(0))).await;
        let room = 1_048_576 - 2 * (webhook.stored_entries()[0].bytes() + DIVERTED_BYTES);
        for more in [0, 1] {
            let changes = [change(room / 2), change(room - room / 2 + more)].join(",");
            assert_eq!(webhook.deliver(notification(&changes)).await, 200);
        }
        assert_eq!(calls(&webhook.entries()), [1, 2, 1, 1]);
    }

    #[tokio::test]
    async fn body_that_is_too_large_fails_alone() {
        let webhook = Webhook::new(&ROUTES).await;
        let large = "x".repeat(1_100_000);
        let body = format!(
            r#"{{"entry":[{{"changes":[{{"field":"messages","value":1}},{{"field":"messages","value":"{large}"}},{{"field":"messages","value":2}}]}}]}}"#
        );
        assert_eq!(webhook.deliver(body).await, 503);
        assert_eq!(webhook.bodies("messages").len(), 2);
    }
}

mod failures {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rejected_entry_is_retried_alone() {
        let webhook = Webhook::with_script(&ROUTES, |entries| {
            if entries[0].call == 1 { Reply::EntriesRejected(vec![1], "InternalError", false) } else { Reply::Stored }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 3])).await, 200);
        let sent: Vec<_> =
            webhook.entries().into_iter().map(|entry| (entry.call, entry.body, entry.is_stored)).collect();
        let body = |index| expected_body(index, "messages");
        assert_eq!(sent, [(1, body(0), true), (1, body(1), false), (1, body(2), true), (2, body(1), true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn transient_errors_are_retried() {
        for (status, code) in [
            (500, "InternalFailure"),
            (503, "ServiceUnavailable"),
            (400, "RequestThrottled"),
            (429, "TooMany"),
            (403, "AWS.SimpleQueueService.OverLimit"),
            (400, "RequestTimeout"),
            (400, "RequestTimeoutException"),
        ] {
            let webhook = Webhook::with_script(&ROUTES, move |entries| {
                if entries[0].call <= 5 { Reply::CallRejected(status, code) } else { Reply::Stored }
            })
            .await;
            assert_eq!(webhook.deliver(notification(&["messages"; 2])).await, 200, "{code}");
            assert_eq!(webhook.bodies("messages").len(), 2);
            assert_eq!(webhook.entries().len(), 12);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unavailable_queue_is_diverted_immediately() {
        for (status, code) in
            [(400, "QueueDoesNotExist"), (403, "AccessDenied"), (400, "KmsDisabled"), (400, "KmsInvalidState")]
        {
            let webhook = Webhook::with_script(&ROUTES, move |entries| {
                if entries[0].queue == "messages" { Reply::CallRejected(status, code) } else { Reply::Stored }
            })
            .await;
            let started = Instant::now();
            assert_eq!(
                webhook.deliver(notification(&["messages", "security", "new", "messages"])).await,
                200,
                "{code}"
            );
            assert_eq!(started.elapsed(), Duration::ZERO);
            assert_eq!(webhook.bodies("security"), [expected_body(1, "security")]);
            let mut diverted: Vec<_> = webhook
                .stored_entries()
                .into_iter()
                .filter(|entry| entry.queue == "unrouted")
                .map(|entry| {
                    (entry.attributes["unrouted_reason"].clone(), entry.attributes["field"].clone(), entry.body)
                })
                .collect();
            diverted.sort_unstable();
            let expected = [
                ("no-route", "new", expected_body(2, "new")),
                ("queue-unavailable", "messages", expected_body(0, "messages")),
                ("queue-unavailable", "messages", expected_body(3, "messages")),
            ];
            assert_eq!(diverted, expected.map(|(reason, field, body)| (reason.to_owned(), field.to_owned(), body)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failing_queue_is_diverted_at_half_of_the_time() {
        let webhook = Webhook::with_script(&ROUTES, |entries| {
            if entries[0].queue == "messages" { Reply::CallRejected(500, "InternalFailure") } else { Reply::Stored }
        })
        .await;
        let started = Instant::now();
        assert_eq!(webhook.deliver(notification(&["messages"; 200])).await, 200);
        let elapsed = started.elapsed();
        assert!(elapsed > Duration::from_secs(3) && elapsed < Duration::from_secs(5), "{elapsed:?}");
        assert_eq!(webhook.bodies("unrouted").len(), 200);
        assert_eq!(webhook.bodies("messages").len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_attempt_starts_too_late_for_the_response() {
        let last = Arc::new(Mutex::new(Instant::now()));
        let recorded = Arc::clone(&last);
        let webhook = Webhook::with_script(&ROUTES, move |_| {
            *recorded.lock().unwrap() = Instant::now();
            Reply::CallRejected(500, "InternalFailure")
        })
        .await;
        // The backoff is random. Without the check, the last attempt would be too late in one of three deliveries.
        for _ in 0..30 {
            let started = Instant::now();
            assert_eq!(webhook.deliver(notification(&["new"])).await, 503);
            let last = *last.lock().unwrap() - started;
            assert!(last > Duration::from_secs(7) && last < Duration::from_millis(8_810), "{last:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_is_reset_for_the_next_batch() {
        let webhook = Webhook::with_script(&[("messages", "messages.fifo")], |entries| {
            if entries[0].call.is_multiple_of(4) { Reply::Stored } else { Reply::CallRejected(500, "InternalFailure") }
        })
        .await;
        let started = Instant::now();
        assert_eq!(webhook.deliver(notification(&["messages"; 100])).await, 200);
        // Each of the ten batches of the message group waits three times: at most 25, 50 and 100 ms.
        assert_eq!(webhook.bodies("messages.fifo").len(), 100);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn failing_catch_all_leads_to_503() {
        for (status, code, max_seconds) in [(500, "InternalFailure", 9), (400, "QueueDoesNotExist", 0)] {
            let webhook = Webhook::with_script(&ROUTES, move |entries| {
                if entries[0].queue == "security" { Reply::Stored } else { Reply::CallRejected(status, code) }
            })
            .await;
            let started = Instant::now();
            assert_eq!(webhook.deliver(notification(&["messages", "security"])).await, 503);
            assert!(started.elapsed() <= Duration::from_secs(max_seconds), "{:?}", started.elapsed());
            assert_eq!(webhook.bodies("security"), [expected_body(1, "security")]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_message_is_diverted_immediately() {
        let webhook = Webhook::with_script(&ROUTES, |entries| {
            if entries[0].queue == "messages" {
                Reply::EntriesRejected(vec![1], "InvalidMessageContents", true)
            } else {
                Reply::Stored
            }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 3])).await, 200);
        assert_eq!(webhook.bodies("messages"), [expected_body(0, "messages"), expected_body(2, "messages")]);
        assert_eq!(webhook.bodies("unrouted"), [expected_body(1, "messages")]);
        assert_eq!(webhook.entries().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn message_rejected_by_both_queues_becomes_base64() {
        let webhook = Webhook::with_script(&ROUTES, |entries| {
            if entries[0].body.contains("object") {
                Reply::EntriesRejected(vec![0], "InvalidMessageContents", true)
            } else {
                Reply::Stored
            }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"])).await, 200);
        let [stored_entry] = &webhook.stored_entries()[..] else { panic!() };
        assert_eq!(
            (stored_entry.queue.as_str(), &stored_entry.body),
            ("unrouted", &base64(expected_body(0, "messages").as_bytes()))
        );
        assert_eq!(stored_entry.attributes.keys().collect::<Vec<_>>(), ["diverted_from", "encoding", "event_id"]);
        assert_eq!(webhook.entries().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn message_rejected_in_every_form_leads_to_503() {
        let webhook =
            Webhook::with_script(&ROUTES, |_| Reply::EntriesRejected(vec![0], "InvalidMessageContents", true)).await;
        assert_eq!(webhook.deliver(notification(&["messages"])).await, 503);
        assert_eq!(webhook.entries().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn messages_of_a_rejected_batch_are_sent_one_by_one() {
        let rejected_body = expected_body(1, "messages");
        let webhook = Webhook::with_script(&ROUTES, move |entries| {
            let is_rejected = entries.iter().any(|entry| entry.body == rejected_body) && entries[0].queue == "messages";
            if is_rejected { Reply::CallRejected(400, "InvalidParameterValue") } else { Reply::Stored }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 3])).await, 200);
        assert_eq!(webhook.bodies("messages"), [expected_body(0, "messages"), expected_body(2, "messages")]);
        assert_eq!(webhook.bodies("unrouted"), [expected_body(1, "messages")]);
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_error_affects_only_its_message() {
        // Both queues reject the message, so it is stored as base64.
        let webhook = Webhook::with_script(&ROUTES, |entries| {
            let is_rejected = entries.iter().any(|entry| entry.body.contains(r#""value":17"#));
            if is_rejected { Reply::CallRejected(400, "SerializationException") } else { Reply::Stored }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 50])).await, 200);
        assert_eq!(webhook.bodies("messages").len(), 49);
        assert_eq!(webhook.bodies("unrouted"), [base64(expected_body(17, "messages").as_bytes())]);
    }

    #[tokio::test(start_paused = true)]
    async fn queue_rejecting_everything_gets_few_calls() {
        let webhook = Webhook::with_script(&ROUTES, |entries| {
            if entries[0].queue == "messages" {
                Reply::CallRejected(400, "InvalidParameterValue")
            } else {
                Reply::Stored
            }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 1000])).await, 200);
        assert_eq!(webhook.bodies("unrouted").len(), 1000);
        let calls: BTreeSet<_> =
            webhook.entries().into_iter().filter(|entry| entry.queue == "messages").map(|entry| entry.call).collect();
        assert!(calls.len() < 60, "{}", calls.len());
    }

    #[tokio::test(start_paused = true)]
    async fn both_queues_rejecting_everything_get_few_calls() {
        let webhook = Webhook::with_script(&ROUTES, |entries| {
            let is_original = entries[0].attributes.contains_key("request_id");
            if is_original { Reply::CallRejected(400, "InvalidParameterValue") } else { Reply::Stored }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 1000])).await, 200);
        let mut stored_entry = webhook.bodies("unrouted");
        stored_entry.sort_unstable();
        let mut sent: Vec<_> = (0..1000).map(|index| base64(expected_body(index, "messages").as_bytes())).collect();
        sent.sort_unstable();
        assert_eq!(stored_entry, sent);
        let calls = webhook.entries().last().unwrap().call;
        assert!(calls < 60 + 60 + 100 + 1, "{calls}");
    }

    #[tokio::test(start_paused = true)]
    async fn queue_accepting_some_gets_every_message() {
        let webhook = Webhook::with_script(&ROUTES, |entries| {
            let is_rejected = entries.iter().any(|entry| !entry.body.contains("0}]}]}"));
            if is_rejected && entries[0].queue == "messages" {
                Reply::CallRejected(400, "InvalidParameterValue")
            } else {
                Reply::Stored
            }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 200])).await, 200);
        assert_eq!((webhook.bodies("messages").len(), webhook.bodies("unrouted").len()), (20, 180));
    }

    #[tokio::test(start_paused = true)]
    async fn omitted_entry_is_retried() {
        let webhook = Webhook::with_script(&ROUTES, |entries| {
            if entries[0].call == 1 { Reply::EntriesOmitted(vec![1]) } else { Reply::Stored }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 2])).await, 200);
        assert_eq!(webhook.bodies("messages"), [expected_body(0, "messages"), expected_body(1, "messages")]);
    }
}

mod fifo {
    use super::*;

    const FIFO: [(&str, &str); 1] = [("messages", "messages.fifo")];

    fn messages_from(contacts: &[u32]) -> String {
        let changes: Vec<_> = contacts
            .iter()
            .enumerate()
            .map(|(index, contact)| {
                format!(
                    r#"{{"field":"messages","value":{{"metadata":{{"phone_number_id":"1"}},"messages":[{{"from":"{contact}","id":"{index}"}}]}}}}"#
                )
            })
            .collect();
        format!(r#"{{"entry":[{{"changes":[{}]}}]}}"#, changes.join(","))
    }

    fn order(webhook: &Webhook) -> BTreeMap<String, Vec<usize>> {
        let mut order = BTreeMap::<_, Vec<_>>::new();
        for entry in webhook.stored_entries() {
            let id = entry.body.split(r#""id":""#).nth(1).unwrap().split('"').next().unwrap();
            order.entry(entry.group).or_default().push(id.parse().unwrap());
        }
        order
    }

    #[tokio::test(start_paused = true)]
    async fn retries_keep_the_order_of_a_conversation() {
        let webhook = Webhook::with_script(&FIFO, |entries| {
            // After the last entry of a call there is no later one of its group in that call.
            let last = entries.len() - 1;
            if entries[0].call % 3 == 1 {
                Reply::EntriesRejected(vec![last], "InternalError", false)
            } else {
                Reply::Stored
            }
        })
        .await;
        let contacts: Vec<u32> = (0..200).map(|index| index % 7).collect();
        assert_eq!(webhook.deliver(messages_from(&contacts)).await, 200);
        let order = order(&webhook);
        assert_eq!(order.len(), 7);
        for ids in order.values() {
            assert!(ids.is_sorted(), "{ids:?}");
        }
        assert_eq!(order.values().map(Vec::len).sum::<usize>(), 200);
    }

    #[tokio::test]
    async fn only_fifo_messages_have_a_deduplication_id() {
        let webhook = Webhook::new(&FIFO).await;
        webhook.deliver(messages_from(&[1])).await;
        webhook.deliver("{}").await;
        let [fifo, standard] = &webhook.stored_entries()[..] else { panic!() };
        assert_eq!(fifo.deduplication.as_ref(), Some(&fifo.attributes["event_id"]));
        assert_eq!((fifo.group.len(), standard.group.as_str(), &standard.deduplication), (64, "-", &None));
    }

    #[tokio::test(start_paused = true)]
    async fn diverted_fifo_message_fits_a_standard_catch_all() {
        let webhook = Webhook::with_script(&FIFO, |entries| {
            if entries[0].queue == "messages.fifo" {
                Reply::CallRejected(400, "QueueDoesNotExist")
            } else {
                Reply::Stored
            }
        })
        .await;
        assert_eq!(webhook.deliver(messages_from(&[1])).await, 200);
        let [diverted] = &webhook.stored_entries()[..] else { panic!() };
        assert_eq!((diverted.group.as_str(), &diverted.deduplication), ("1", &None));
    }
}

mod secrets {
    use super::*;

    async fn challenge(webhook: &Webhook, token: &str) -> u16 {
        let query = format!("hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}");
        status(&webhook.send(event("GET", &query, &[], b"")).await)
    }

    async fn deliver_signed_with(webhook: &Webhook, app_secret: &str) -> u16 {
        webhook.deliver_signed(b"{}", &sign(app_secret, b"{}")).await
    }

    #[tokio::test(start_paused = true)]
    async fn rotated_secret_is_used_immediately() {
        let webhook = Webhook::new(&ROUTES).await;
        webhook.set_secret(Ok(secret("new", "new-token")));
        assert_eq!(deliver_signed_with(&webhook, "new").await, 200);
        assert_eq!(deliver_signed_with(&webhook, APP_SECRET).await, 401);
        assert_eq!(webhook.secret_reads(), 2);
        assert_eq!(challenge(&webhook, "new-token").await, 200);
        assert_eq!(challenge(&webhook, VERIFY_TOKEN).await, 403);
    }

    #[tokio::test(start_paused = true)]
    async fn new_verify_token_is_used_immediately() {
        let webhook = Webhook::new(&ROUTES).await;
        webhook.set_secret(Ok(secret(APP_SECRET, "new-token")));
        assert_eq!(challenge(&webhook, "new-token").await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn forgeries_read_the_secret_every_thirty_seconds() {
        let webhook = Webhook::new(&ROUTES).await;
        for (seconds, reads) in [(0, 2), (1, 2), (28, 2), (1, 3), (29, 3), (1, 4)] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(deliver_signed_with(&webhook, "forged").await, 401);
            assert_eq!(challenge(&webhook, "forged").await, 403);
            assert_eq!(webhook.secret_reads(), reads);
        }
        // A request without a valid form of signature or token does not cause a refresh.
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(webhook.deliver_signed(b"{}", "sha256=00").await, 401);
        assert_eq!(challenge(&webhook, "").await, 403);
        assert_eq!(webhook.secret_reads(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_mismatches_share_one_read() {
        let webhook = Webhook::new(&ROUTES).await;
        webhook.set_secret(Ok(secret("new", VERIFY_TOKEN)));
        let statuses = futures_util::future::join_all((0..20).map(|_| deliver_signed_with(&webhook, "new"))).await;
        assert_eq!(statuses, [200; 20]);
        assert_eq!(webhook.secret_reads(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_refresh_leaves_the_cached_secret_in_use() {
        for invalid in [Err(500), Err(400), Ok("{}".to_owned()), Ok(secret("REPLACE_ME", "t"))] {
            let webhook = Webhook::new(&ROUTES).await;
            webhook.set_secret(invalid);
            tokio::time::advance(Duration::from_mins(10)).await;
            assert_eq!(challenge(&webhook, VERIFY_TOKEN).await, 200);
            assert_eq!(webhook.secret_reads(), 2);
            assert_eq!(deliver_signed_with(&webhook, APP_SECRET).await, 200);
            assert_eq!(deliver_signed_with(&webhook, "forged").await, 401);
            assert_eq!(deliver_signed_with(&webhook, APP_SECRET).await, 200);
            assert_eq!(challenge(&webhook, VERIFY_TOKEN).await, 200);
        }
    }
}
