//! Events that are unusual, or not of API Gateway: every one is answered, and none fails the invocation.

use serde_json::{Value, json};

use crate::{
    line,
    notification::Notification,
    stored::Copy::Own,
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, VERIFY_TOKEN, Webhook, event, signed},
};

/// A word in each of these events that must not appear in the log.
const WORD: &str = "Sesame";

/// A change to an event.
type Change = Box<dyn Fn(&mut Value)>;

fn header(name: &'static str, value: Value) -> Change {
    Box::new(move |event| event["headers"][name] = value.clone())
}

fn member(pointer: &'static str, value: Value) -> Change {
    Box::new(move |event| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        event.pointer_mut(parent).unwrap()[name] = value.clone();
    })
}

/// Surroundings that say nothing about the notification itself.
fn unusual_surroundings() -> Vec<Change> {
    let long = format!("{WORD}{}", "x".repeat(70_000));
    let mut changes: Vec<Change> =
        ["https,http", "", "https, https", WORD, "\u{1}"].map(|proto| header("x-forwarded-proto", json!(proto))).into();
    changes.extend(
        ["", "Sesame b", "[::1Sesame", "Sesame:99999", "é", "\u{0}", "a,b"].map(|host| header("host", json!(host))),
    );
    changes.extend(
        ["a b", "a=\"<Sesame>\"", "\t", "a=\u{1}", "a=b\u{7f}\n", "%%%=%&&&==;", "a=ä", &long]
            .map(|query| member("/rawQueryString", json!(query))),
    );
    changes.extend(
        [json!(null), json!(7), json!([WORD]), json!({}), json!(true), json!("a\r\nb: c"), json!("\u{0}"), json!(long)]
            .into_iter()
            .flat_map(|value| [header("x-odd", value.clone()), header("bad name", value)]),
    );
    changes.extend([
        member("/rawQueryString", json!(null)),
        member("/rawQueryString", json!([WORD])),
        member("/rawPath", json!(format!("/{WORD} /\u{1}"))),
        member("/rawPath", json!(format!("//{long}/../%zz"))),
        member("/rawPath", json!(5)),
        member("/cookies", json!([WORD, "a=b\n"])),
        member("/cookies", json!("a")),
        member("/version", json!(1.0)),
        member("/requestContext/http/path", json!(null)),
        member("/requestContext/http/sourceIp", json!(WORD)),
        member("/requestContext/requestId", json!(null)),
        member("/requestContext/domainName", json!([])),
        member("/requestContext/timeEpoch", json!("yesterday")),
        member("/requestContext/authentication", json!(7)),
        member("/queryStringParameters", json!(WORD)),
        member("/pathParameters", json!(1)),
        member("/stageVariables", json!([])),
        member("/isBase64Encoded", json!(null)),
    ]);
    changes
}

#[tokio::test]
async fn unusual_surroundings_cost_a_notification_nothing() {
    let (webhook, sent) = (Webhook::start(), Notification::of(&["messages"]));
    for (number, change) in unusual_surroundings().into_iter().enumerate() {
        let mut event = signed(APP_SECRET, sent.body.as_bytes());
        change(&mut event);
        let invocation = webhook.invoke(&event, LAMBDA_TIMEOUT).await;
        assert_eq!(invocation.status_code(), Some(200), "{number}: {:?}", invocation.outcome);
        // SQS accepts no attribute of another request id.
        let stored = webhook.stored();
        assert!(
            matches!(&stored[..], [(queue, message)] if queue == "messages" && message.body.as_bytes() == sent.changes[0].text.as_bytes())
        );
        webhook.reset();
    }
    check_log(webhook);
}

#[tokio::test]
async fn event_that_is_not_unicode_is_read() {
    let (webhook, sent) = (Webhook::start(), Notification::of(&["messages"]));
    let event = signed(APP_SECRET, sent.body.as_bytes()).to_string();
    for surrogate in [r#""\ud800""#, r#""\udfff x""#] {
        for name in ["user-agent", "odd\\ud800name"] {
            let text = event.replacen(r#""headers":{"#, &format!(r#""headers":{{"{name}":{surrogate},"#), 1);
            assert_eq!(webhook.invoke(text, LAMBDA_TIMEOUT).await.status_code(), Some(200), "{name} {surrogate}");
        }
        let text = event.replacen(r#""rawQueryString":"""#, &format!(r#""rawQueryString":{surrogate}"#), 1);
        assert_eq!(webhook.invoke(text, LAMBDA_TIMEOUT).await.status_code(), Some(200), "{surrogate}");
    }
    assert_eq!(webhook.copies(&sent), [vec![Own; 6]]);
}

#[tokio::test]
async fn challenge_in_an_unusual_query_is_answered() {
    let webhook = Webhook::start();
    for (query, challenge) in [
        ("hub.challenge=a b", "a b"),
        ("hub.challenge=<b>\"1\"\t\u{1}", "<b>\"1\"\t\u{1}"),
        ("a=ä&%%%=%&&&==;&hub.challenge=1", "1"),
        ("a=%ff%fe&hub.challenge=1#2", "1#2"),
    ] {
        let query = format!("{query}&hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}");
        let answer = webhook.send(event("GET", &query, &[], b"")).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, challenge), "{query}");
    }
}

#[tokio::test]
async fn forged_request_with_unusual_surroundings_is_refused() {
    let webhook = Webhook::start();
    for change in unusual_surroundings() {
        let mut event = signed("a-forger", WORD.as_bytes());
        change(&mut event);
        assert_eq!(webhook.invoke(&event, LAMBDA_TIMEOUT).await.status_code(), Some(401), "{event}");
    }
    for signature in [json!(null), json!(7), json!([WORD]), json!({}), json!("sha256=é\u{1}"), json!("")] {
        let mut event = signed(APP_SECRET, WORD.as_bytes());
        event["headers"]["x-hub-signature-256"] = signature;
        assert_eq!(webhook.invoke(&event, LAMBDA_TIMEOUT).await.status_code(), Some(401), "{event}");
    }
    assert_eq!(webhook.stored().len(), 0);
    check_log(webhook);
}

#[tokio::test]
async fn events_without_another_answer_get_400() {
    let webhook = Webhook::start();
    let post = |change: Change| {
        let mut event = signed(APP_SECRET, WORD.as_bytes());
        change(&mut event);
        event.to_string()
    };
    let truncated = post(member("/a", json!(1)));
    for (event, status) in [
        (post(member("/isBase64Encoded", json!(true))).replace(WORD, "Sesame!*"), 400),
        (post(member("/body", json!({ "a": WORD }))), 400),
        (post(member("/body", json!(7))), 400),
        (post(member("/requestContext", json!({ "requestId": WORD }))), 400),
        (post(member("/requestContext", json!(null))), 400),
        (post(member("/requestContext/http", json!([]))), 400),
        (post(member("/requestContext/http/method", json!(null))), 400),
        (post(member("/requestContext/http/method", json!("G E T"))), 405),
        (post(member("/requestContext/http/method", json!(""))), 405),
        (post(member("/requestContext/http/method", json!("post"))), 405),
        (post(member("/headers", json!(null))), 401),
        (post(member("/headers", json!([WORD]))), 401),
        (post(member("/body", json!(null))), 401),
        (json!({"Records": [{"eventSource": "aws:sqs", "body": WORD}]}).to_string(), 400),
        (json!({"httpMethod": "POST", "headers": {}, "body": WORD, "requestContext": {"stage": "a"}}).to_string(), 400),
        (json!({"source": "aws.events", "detail": {}}).to_string(), 400),
        ("{}".to_owned(), 400),
        (format!("[\"{WORD}\"]"), 400),
        (format!("\"{WORD}\""), 400),
        ("null".to_owned(), 400),
        ("17".to_owned(), 400),
        (String::new(), 400),
        (WORD.to_owned(), 400),
        (truncated[..truncated.len() - 9].to_owned(), 400),
    ] {
        let invocation = webhook.invoke(&event, LAMBDA_TIMEOUT).await;
        assert_eq!(invocation.status_code(), Some(status), "{event}: {:?}", invocation.outcome);
    }
    assert_eq!(webhook.stored().len(), 0);
    assert_eq!(webhook.deliver(Notification::of(&["messages"]).body).await.status, 200);
    check_log(webhook);
}

/// No line of the log quotes an event, and nothing panicked.
fn check_log(webhook: Webhook) {
    let lines = webhook.function.stop();
    assert!(lines.len() > 3);
    for line in &lines {
        assert!(!line.contains(WORD) && !line.contains("panic"), "{line}");
        line::read(line);
    }
}
