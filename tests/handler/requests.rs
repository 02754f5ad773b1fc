//! Requests of every kind, over a scripted SQS and Secrets Manager.

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

const ROUTES: [(&str, &str); 3] =
    [("messages", "messages"), ("messages.statuses", "receipts"), ("security", "security")];

/// A notification with a change for each field, whose value tells it apart.
fn notification(fields: &[&str]) -> String {
    let changes: Vec<_> =
        fields.iter().enumerate().map(|(at, field)| format!(r#"{{"field":"{field}","value":{at}}}"#)).collect();
    format!(r#"{{"object":"o","entry":[{{"id":"1","changes":[{}]}}]}}"#, changes.join(","))
}

/// The same with one change, as it is stored.
fn stored_as(at: usize, field: &str) -> String {
    format!(r#"{{"object":"o","entry":[{{"id":"1","changes":[{{"field":"{field}","value":{at}}}]}}]}}"#)
}

fn text(response: &ApiGatewayV2httpResponse) -> &str {
    // Always a string, as with every earlier version.
    match &response.body {
        Some(Body::Text(text)) => text,
        body => panic!("{body:?}"),
    }
}

mod certificates {
    use serde_json::json;

    use super::*;

    const META: &str = "client.webhooks.fbclientcerts.com";

    /// The answer to a signed notification with a client certificate of this subject, or with none, and what is stored.
    async fn answer(subject: Option<&str>) -> (u16, usize) {
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
        let answered = status(&webhook.send(event).await);
        (answered, webhook.stored().len())
    }

    #[tokio::test]
    async fn metas_is_let_in_wherever_its_name_stands() {
        for subject in [
            "CN={}",
            "C=US, ST=California, O=Meta, CN={}",
            "cn={},O=Meta",
            "O=Meta+CN={}",
            r"CN={},O=Meta Platforms\, Inc.,L=Menlo Park,C=US",
            r#"C = US, O = "Meta Platforms, Inc.", CN = {}"#,
        ] {
            assert_eq!(answer(Some(&subject.replace("{}", META))).await, (200, 1), "{subject}");
        }
    }

    #[tokio::test]
    async fn another_or_none_is_refused_whatever_it_has_signed() {
        let others = ["", "CN=", "O={}", "CN={}.example", "CN=x{}", "CN=a,CN={}", "O=a\\,CN={}", r#"O="a,CN={}""#];
        for subject in others.map(|subject| subject.replace("{}", META)) {
            assert_eq!(answer(Some(&subject)).await, (403, 0), "{subject}");
        }
        assert_eq!(answer(None).await, (403, 0));
    }

    #[tokio::test]
    async fn a_challenge_needs_one_too() {
        let query = format!("hub.mode=subscribe&hub.challenge=1158&hub.verify_token={VERIFY_TOKEN}");
        let webhook = Webhook::new(&ROUTES).await.require_client_cn(META);
        assert_eq!(status(&webhook.send(event("GET", &query, &[], b"")).await), 403);
    }
}

mod answers {
    use super::*;

    #[tokio::test]
    async fn a_challenge_is_answered_verbatim_as_plain_text() {
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
    async fn whatever_else_is_refused_without_a_word() {
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
    async fn what_meta_did_not_sign_leaves_nothing_anywhere() {
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
    async fn the_bytes_are_the_same_whether_or_not_api_gateway_encoded_them() {
        let webhook = Webhook::new(&ROUTES).await;
        let body = notification(&["messages"]);
        let signature = sign(APP_SECRET, body.as_bytes());
        let mut encoded = event("POST", "", &[("X-HUB-Signature-256", &signature)], body.as_bytes());
        encoded["body"] = base64(body.as_bytes()).into();
        encoded["isBase64Encoded"] = true.into();
        assert_eq!(status(&webhook.send(encoded).await), 200);
        assert_eq!(webhook.deliver(&body).await, 200);
        let [one, other] = &webhook.stored()[..] else { panic!() };
        assert_eq!((&one.body, &one.attributes), (&other.body, &other.attributes));
    }

    #[tokio::test]
    async fn an_empty_signed_body_is_taken_and_stores_nothing() {
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
    async fn every_change_lands_on_the_queue_of_its_field_with_its_reason_where_it_has_none() {
        let webhook = Webhook::new(&ROUTES).await;
        let body = r#"{"object":"o","entry":[{"id":"1","changes":[{"field":"messages","value":{"messages":[1]}},{"field":"messages","value":{"statuses":[1]}},{"field":"new"}]},{"changes":[{"field":"security"},{"value":1}]},{"messaging":[]}]}"#;
        assert_eq!(webhook.deliver(body).await, 200);
        let mut landed: Vec<_> = webhook
            .stored()
            .into_iter()
            .map(|entry| {
                (entry.queue, entry.attributes.get("unrouted_reason").cloned().unwrap_or_default(), entry.body)
            })
            .collect();
        landed.sort_unstable();
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
        assert_eq!(landed, expected);
    }

    #[tokio::test]
    async fn what_is_no_json_is_kept_byte_for_byte() {
        let webhook = Webhook::new(&ROUTES).await;
        assert_eq!(webhook.deliver("hello").await, 200);
        assert_eq!(webhook.deliver(b"\xff\xfe").await, 200);
        let landed: Vec<_> = webhook
            .stored()
            .into_iter()
            .map(|entry| {
                (entry.body, entry.attributes["unrouted_reason"].clone(), entry.attributes.get("encoding").cloned())
            })
            .collect();
        let reason = || "not-json".to_owned();
        assert_eq!(
            landed,
            [("hello".to_owned(), reason(), None), ("//4=".to_owned(), reason(), Some("base64".to_owned()))]
        );
    }

    #[tokio::test]
    async fn the_request_id_is_api_gateways() {
        let webhook = Webhook::new(&ROUTES).await;
        webhook.deliver("{}").await;
        assert_eq!(webhook.stored()[0].attributes["request_id"], REQUEST_ID);
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
    async fn a_call_has_at_most_ten_entries() {
        let webhook = Webhook::new(&ROUTES).await;
        assert_eq!(webhook.deliver(notification(&fields(25))).await, 200);
        assert_eq!(calls(&webhook.entries()), [10, 10, 5]);
        let mut bodies = webhook.bodies("messages");
        bodies.sort_unstable();
        let mut expected: Vec<_> = (0..25).map(|at| stored_as(at, "messages")).collect();
        expected.sort_unstable();
        assert_eq!(bodies, expected);
    }

    #[tokio::test]
    async fn a_call_has_at_most_one_mebibyte_of_utf8_with_attributes() {
        let webhook = Webhook::new(&ROUTES).await;
        // In characters all of this would fit twice; in bytes no two do.
        let text = "ä".repeat(300_000);
        let changes: Vec<_> = (0..4).map(|at| format!(r#"{{"field":"messages","value":["{text}",{at}]}}"#)).collect();
        let body = format!(r#"{{"entry":[{{"changes":[{}]}}]}}"#, changes.join(","));
        assert_eq!(webhook.deliver(body).await, 200);
        assert_eq!(calls(&webhook.entries()), [1, 1, 1, 1]);
    }

    #[tokio::test]
    async fn a_message_of_exactly_the_limit_is_sent_and_one_byte_more_is_not() {
        let webhook = Webhook::new(&ROUTES).await;
        let of = |filler: usize| {
            format!(r#"{{"entry":[{{"changes":[{{"field":"security","value":"{}"}}]}}]}}"#, "x".repeat(filler))
        };
        webhook.deliver(of(0)).await;
        let small = webhook.stored().remove(0);
        // The room for a reason is always kept.
        let reason = "unrouted_reason".len() + "String".len() + "queue-unavailable".len();
        let room = 1_048_576 - small.bytes() - reason;
        assert_eq!(webhook.deliver(of(room)).await, 200);
        assert_eq!(webhook.bodies("security")[1], of(room));
        assert_eq!(webhook.deliver(of(room + 1)).await, 503);
        assert_eq!(webhook.entries().len(), 2);
    }

    #[tokio::test]
    async fn messages_of_exactly_the_limit_together_share_a_call() {
        let webhook = Webhook::new(&ROUTES).await;
        let change = |filler: usize| format!(r#"{{"field":"security","value":"{}"}}"#, "x".repeat(filler));
        let of = |changes: &str| format!(r#"{{"entry":[{{"changes":[{changes}]}}]}}"#);
        webhook.deliver(of(&change(0))).await;
        let reason = "unrouted_reason".len() + "String".len() + "queue-unavailable".len();
        let room = 1_048_576 - 2 * (webhook.stored()[0].bytes() + reason);
        for more in [0, 1] {
            let changes = [change(room / 2), change(room - room / 2 + more)].join(",");
            assert_eq!(webhook.deliver(of(&changes)).await, 200);
        }
        assert_eq!(calls(&webhook.entries()), [1, 2, 1, 1]);
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_does_not_cost_its_neighbours() {
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
    async fn one_refused_entry_is_retried_alone() {
        let webhook = Webhook::scripted(&ROUTES, |entries| {
            if entries[0].call == 1 { Reply::Refused(vec![1], "InternalError", false) } else { Reply::Stored }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 3])).await, 200);
        let tried: Vec<_> = webhook.entries().into_iter().map(|entry| (entry.call, entry.body, entry.stored)).collect();
        let body = |at| stored_as(at, "messages");
        assert_eq!(tried, [(1, body(0), true), (1, body(1), false), (1, body(2), true), (2, body(1), true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_waited_for() {
        for (status, code) in [
            (500, "InternalFailure"),
            (503, "ServiceUnavailable"),
            (400, "RequestThrottled"),
            (429, "TooMany"),
            (403, "AWS.SimpleQueueService.OverLimit"),
            (400, "RequestTimeout"),
            (400, "RequestTimeoutException"),
        ] {
            let webhook = Webhook::scripted(&ROUTES, move |entries| {
                if entries[0].call <= 5 { Reply::Error(status, code) } else { Reply::Stored }
            })
            .await;
            assert_eq!(webhook.deliver(notification(&["messages"; 2])).await, 200, "{code}");
            assert_eq!(webhook.bodies("messages").len(), 2);
            assert_eq!(webhook.entries().len(), 12);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_cannot_be_used_has_its_messages_diverted_at_once() {
        for (status, code) in
            [(400, "QueueDoesNotExist"), (403, "AccessDenied"), (400, "KmsDisabled"), (400, "KmsInvalidState")]
        {
            let webhook = Webhook::scripted(&ROUTES, move |entries| {
                if entries[0].queue == "messages" { Reply::Error(status, code) } else { Reply::Stored }
            })
            .await;
            let started = Instant::now();
            assert_eq!(
                webhook.deliver(notification(&["messages", "security", "new", "messages"])).await,
                200,
                "{code}"
            );
            assert_eq!(started.elapsed(), Duration::ZERO);
            assert_eq!(webhook.bodies("security"), [stored_as(1, "security")]);
            let mut diverted: Vec<_> = webhook
                .stored()
                .into_iter()
                .filter(|entry| entry.queue == "unrouted")
                .map(|entry| {
                    (entry.attributes["unrouted_reason"].clone(), entry.attributes["field"].clone(), entry.body)
                })
                .collect();
            diverted.sort_unstable();
            let expected = [
                ("no-route", "new", stored_as(2, "new")),
                ("queue-unavailable", "messages", stored_as(0, "messages")),
                ("queue-unavailable", "messages", stored_as(3, "messages")),
            ];
            assert_eq!(diverted, expected.map(|(reason, field, body)| (reason.to_owned(), field.to_owned(), body)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_fails_for_half_the_time_has_its_messages_diverted() {
        let webhook = Webhook::scripted(&ROUTES, |entries| {
            if entries[0].queue == "messages" { Reply::Error(500, "InternalFailure") } else { Reply::Stored }
        })
        .await;
        let started = Instant::now();
        assert_eq!(webhook.deliver(notification(&["messages"; 200])).await, 200);
        let took = started.elapsed();
        assert!(took > Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
        assert_eq!(webhook.bodies("unrouted").len(), 200);
        assert_eq!(webhook.bodies("messages").len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_tried_when_there_is_no_time_left_for_an_answer() {
        let last = Arc::new(Mutex::new(Instant::now()));
        let noted = Arc::clone(&last);
        let webhook = Webhook::scripted(&ROUTES, move |_| {
            *noted.lock().unwrap() = Instant::now();
            Reply::Error(500, "InternalFailure")
        })
        .await;
        // The pauses are random: the last try would be too late in one delivery of three.
        for _ in 0..30 {
            let started = Instant::now();
            assert_eq!(webhook.deliver(notification(&["new"])).await, 503);
            let last = *last.lock().unwrap() - started;
            assert!(last > Duration::from_secs(7) && last < Duration::from_millis(8_810), "{last:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_begin_anew_with_the_next_batch() {
        let webhook = Webhook::scripted(&[("messages", "messages.fifo")], |entries| {
            if entries[0].call.is_multiple_of(4) { Reply::Stored } else { Reply::Error(500, "InternalFailure") }
        })
        .await;
        let started = Instant::now();
        assert_eq!(webhook.deliver(notification(&["messages"; 100])).await, 200);
        // Three pauses before each of the ten batches of the one group: 25, 50 and 100 ms at most.
        assert_eq!(webhook.bodies("messages.fifo").len(), 100);
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn only_when_the_catch_all_fails_too_is_meta_told_to_come_back() {
        for (status, code, most) in [(500, "InternalFailure", 9), (400, "QueueDoesNotExist", 0)] {
            let webhook = Webhook::scripted(&ROUTES, move |entries| {
                if entries[0].queue == "security" { Reply::Stored } else { Reply::Error(status, code) }
            })
            .await;
            let started = Instant::now();
            assert_eq!(webhook.deliver(notification(&["messages", "security"])).await, 503);
            assert!(started.elapsed() <= Duration::from_secs(most), "{:?}", started.elapsed());
            assert_eq!(webhook.bodies("security"), [stored_as(1, "security")]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_poison_message_goes_to_the_catch_all_at_once() {
        let webhook = Webhook::scripted(&ROUTES, |entries| {
            if entries[0].queue == "messages" {
                Reply::Refused(vec![1], "InvalidMessageContents", true)
            } else {
                Reply::Stored
            }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 3])).await, 200);
        assert_eq!(webhook.bodies("messages"), [stored_as(0, "messages"), stored_as(2, "messages")]);
        assert_eq!(webhook.bodies("unrouted"), [stored_as(1, "messages")]);
        assert_eq!(webhook.entries().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_even_the_catch_all_refuses_is_kept_there_as_base64() {
        let webhook = Webhook::scripted(&ROUTES, |entries| {
            if entries[0].body.contains("object") {
                Reply::Refused(vec![0], "InvalidMessageContents", true)
            } else {
                Reply::Stored
            }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"])).await, 200);
        let [kept] = &webhook.stored()[..] else { panic!() };
        assert_eq!((kept.queue.as_str(), &kept.body), ("unrouted", &base64(stored_as(0, "messages").as_bytes())));
        assert_eq!(kept.attributes.keys().collect::<Vec<_>>(), ["encoding", "event_id"]);
        assert_eq!(webhook.entries().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn when_nothing_takes_a_message_meta_keeps_it() {
        let webhook = Webhook::scripted(&ROUTES, |_| Reply::Refused(vec![0], "InvalidMessageContents", true)).await;
        assert_eq!(webhook.deliver(notification(&["messages"])).await, 503);
        assert_eq!(webhook.entries().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_blamed_as_a_whole_is_sent_one_by_one() {
        let poison = stored_as(1, "messages");
        let webhook = Webhook::scripted(&ROUTES, move |entries| {
            let poisoned = entries.iter().any(|entry| entry.body == poison) && entries[0].queue == "messages";
            if poisoned { Reply::Error(400, "InvalidParameterValue") } else { Reply::Stored }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 3])).await, 200);
        assert_eq!(webhook.bodies("messages"), [stored_as(0, "messages"), stored_as(2, "messages")]);
        assert_eq!(webhook.bodies("unrouted"), [stored_as(1, "messages")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_nobody_has_heard_of_costs_at_most_the_one_it_is_for() {
        // On both queues: whatever SQS means by it, the bytes of the poison are kept in the end.
        let webhook = Webhook::scripted(&ROUTES, |entries| {
            let poisoned = entries.iter().any(|entry| entry.body.contains(r#""value":17"#));
            if poisoned { Reply::Error(400, "SerializationException") } else { Reply::Stored }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 50])).await, 200);
        assert_eq!(webhook.bodies("messages").len(), 49);
        assert_eq!(webhook.bodies("unrouted"), [base64(stored_as(17, "messages").as_bytes())]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_refuses_everything_for_an_unknown_reason_is_asked_about_a_few_messages_only() {
        let webhook = Webhook::scripted(&ROUTES, |entries| {
            if entries[0].queue == "messages" { Reply::Error(400, "InvalidParameterValue") } else { Reply::Stored }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 1000])).await, 200);
        assert_eq!(webhook.bodies("unrouted").len(), 1000);
        let asked: BTreeSet<_> =
            webhook.entries().into_iter().filter(|entry| entry.queue == "messages").map(|entry| entry.call).collect();
        assert!(asked.len() < 60, "{}", asked.len());
    }

    #[tokio::test(start_paused = true)]
    async fn what_both_queues_refuse_for_an_unknown_reason_is_kept_as_base64_in_a_few_calls() {
        let webhook = Webhook::scripted(&ROUTES, |entries| {
            let usual = entries[0].attributes.contains_key("request_id");
            if usual { Reply::Error(400, "InvalidParameterValue") } else { Reply::Stored }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 1000])).await, 200);
        let mut kept = webhook.bodies("unrouted");
        kept.sort_unstable();
        let mut sent: Vec<_> = (0..1000).map(|at| base64(stored_as(at, "messages").as_bytes())).collect();
        sent.sort_unstable();
        assert_eq!(kept, sent);
        let calls = webhook.entries().last().unwrap().call;
        assert!(calls < 60 + 60 + 100 + 1, "{calls}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_takes_some_is_asked_about_each_that_it_blames() {
        let webhook = Webhook::scripted(&ROUTES, |entries| {
            let poisoned = entries.iter().any(|entry| !entry.body.contains("0}]}]}"));
            if poisoned && entries[0].queue == "messages" {
                Reply::Error(400, "InvalidParameterValue")
            } else {
                Reply::Stored
            }
        })
        .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 200])).await, 200);
        assert_eq!((webhook.bodies("messages").len(), webhook.bodies("unrouted").len()), (20, 180));
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_that_sqs_does_not_mention_is_not_taken_for_stored() {
        let webhook =
            Webhook::scripted(
                &ROUTES,
                |entries| {
                    if entries[0].call == 1 { Reply::Unmentioned(vec![1]) } else { Reply::Stored }
                },
            )
            .await;
        assert_eq!(webhook.deliver(notification(&["messages"; 2])).await, 200);
        assert_eq!(webhook.bodies("messages"), [stored_as(0, "messages"), stored_as(1, "messages")]);
    }
}

mod fifo {
    use super::*;

    const FIFO: [(&str, &str); 1] = [("messages", "messages.fifo")];

    fn from(contacts: &[u32]) -> String {
        let changes: Vec<_> = contacts
            .iter()
            .enumerate()
            .map(|(at, contact)| {
                format!(
                    r#"{{"field":"messages","value":{{"metadata":{{"phone_number_id":"1"}},"messages":[{{"from":"{contact}","id":"{at}"}}]}}}}"#
                )
            })
            .collect();
        format!(r#"{{"entry":[{{"changes":[{}]}}]}}"#, changes.join(","))
    }

    fn order(webhook: &Webhook) -> BTreeMap<String, Vec<usize>> {
        let mut order = BTreeMap::<_, Vec<_>>::new();
        for entry in webhook.stored() {
            let id = entry.body.split(r#""id":""#).nth(1).unwrap().split('"').next().unwrap();
            order.entry(entry.group).or_default().push(id.parse().unwrap());
        }
        order
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_kept_within_a_conversation_even_when_entries_are_retried() {
        let webhook = Webhook::scripted(&FIFO, |entries| {
            // The last entry of a call may fail without a later one of its group beside it.
            let last = entries.len() - 1;
            if entries[0].call % 3 == 1 { Reply::Refused(vec![last], "InternalError", false) } else { Reply::Stored }
        })
        .await;
        let contacts: Vec<u32> = (0..200).map(|at| at % 7).collect();
        assert_eq!(webhook.deliver(from(&contacts)).await, 200);
        let order = order(&webhook);
        assert_eq!(order.len(), 7);
        for ids in order.values() {
            assert!(ids.is_sorted(), "{ids:?}");
        }
        assert_eq!(order.values().map(Vec::len).sum::<usize>(), 200);
    }

    #[tokio::test]
    async fn the_deduplication_id_is_the_event_id_and_only_on_fifo_queues() {
        let webhook = Webhook::new(&FIFO).await;
        webhook.deliver(from(&[1])).await;
        webhook.deliver("{}").await;
        let [fifo, standard] = &webhook.stored()[..] else { panic!() };
        assert_eq!(fifo.deduplication.as_ref(), Some(&fifo.attributes["event_id"]));
        assert_eq!((fifo.group.len(), standard.group.as_str(), &standard.deduplication), (64, "-", &None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_diverted_message_is_built_anew_for_the_catch_alls_type() {
        let webhook = Webhook::scripted(&FIFO, |entries| {
            if entries[0].queue == "messages.fifo" { Reply::Error(400, "QueueDoesNotExist") } else { Reply::Stored }
        })
        .await;
        assert_eq!(webhook.deliver(from(&[1])).await, 200);
        let [diverted] = &webhook.stored()[..] else { panic!() };
        assert_eq!((diverted.group.as_str(), &diverted.deduplication), ("1", &None));
    }
}

mod secrets {
    use super::*;

    async fn challenge(webhook: &Webhook, token: &str) -> u16 {
        let query = format!("hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}");
        status(&webhook.send(event("GET", &query, &[], b"")).await)
    }

    async fn signed_with(webhook: &Webhook, app_secret: &str) -> u16 {
        webhook.deliver_signed(b"{}", &sign(app_secret, b"{}")).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_secret_works_at_once_and_the_removed_one_no_longer() {
        let webhook = Webhook::new(&ROUTES).await;
        webhook.set_secret(Ok(secret("new", "new-token")));
        assert_eq!(signed_with(&webhook, "new").await, 200);
        assert_eq!(signed_with(&webhook, APP_SECRET).await, 401);
        assert_eq!(webhook.reads(), 2);
        assert_eq!(challenge(&webhook, "new-token").await, 200);
        assert_eq!(challenge(&webhook, VERIFY_TOKEN).await, 403);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_verify_token_works_at_once() {
        let webhook = Webhook::new(&ROUTES).await;
        webhook.set_secret(Ok(secret(APP_SECRET, "new-token")));
        assert_eq!(challenge(&webhook, "new-token").await, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn forgers_make_it_read_at_most_every_thirty_seconds() {
        let webhook = Webhook::new(&ROUTES).await;
        for (seconds, reads) in [(0, 2), (1, 2), (28, 2), (1, 3), (29, 3), (1, 4)] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(signed_with(&webhook, "forged").await, 401);
            assert_eq!(challenge(&webhook, "forged").await, 403);
            assert_eq!(webhook.reads(), reads);
        }
        // Neither a request without a signature nor one without a token asks for a reading.
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(webhook.deliver_signed(b"{}", "sha256=00").await, 401);
        assert_eq!(challenge(&webhook, "").await, 403);
        assert_eq!(webhook.reads(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn one_reading_serves_all_who_wait() {
        let webhook = Webhook::new(&ROUTES).await;
        webhook.set_secret(Ok(secret("new", VERIFY_TOKEN)));
        let all = futures_util::future::join_all((0..20).map(|_| signed_with(&webhook, "new"))).await;
        assert_eq!(all, [200; 20]);
        assert_eq!(webhook.reads(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_value_serves_on_when_the_new_one_cannot_be_had() {
        for bad in [Err(500), Err(400), Ok("{}".to_owned()), Ok(secret("REPLACE_ME", "t"))] {
            let webhook = Webhook::new(&ROUTES).await;
            webhook.set_secret(bad);
            tokio::time::advance(Duration::from_mins(10)).await;
            assert_eq!(challenge(&webhook, VERIFY_TOKEN).await, 200);
            assert_eq!(webhook.reads(), 2);
            assert_eq!(signed_with(&webhook, APP_SECRET).await, 200);
            assert_eq!(signed_with(&webhook, "forged").await, 401);
            assert_eq!(signed_with(&webhook, APP_SECRET).await, 200);
            assert_eq!(challenge(&webhook, VERIFY_TOKEN).await, 200);
        }
    }
}
