//! Unusual events, and events of other services: the function responds to each, and no invocation fails.

use serde_json::{Value, json};

use crate::{
    log_line,
    notification::Notification,
    stored::Placement::Own,
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, VERIFY_TOKEN, Webhook, event, signed},
};

/// A word in each of these events. The log must not contain it.
const WORD: &str = "Sesame";

/// Modifies an event.
type Modification = Box<dyn Fn(&mut Value)>;

fn header(name: &'static str, value: Value) -> Modification {
    Box::new(move |event| event["headers"][name] = value.clone())
}

fn member(pointer: &'static str, value: Value) -> Modification {
    Box::new(move |event| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        event.pointer_mut(parent).unwrap()[name] = value.clone();
    })
}

/// Modifications of everything in an event except the notification.
fn unusual_metadata() -> Vec<Modification> {
    let long = format!("{WORD}{}", "x".repeat(70_000));
    let mut modifications: Vec<Modification> =
        ["https,http", "", "https, https", WORD, "\u{1}"].map(|proto| header("x-forwarded-proto", json!(proto))).into();
    modifications.extend(
        ["", "Sesame b", "[::1Sesame", "Sesame:99999", "é", "\u{0}", "a,b"].map(|host| header("host", json!(host))),
    );
    modifications.extend(
        ["a b", "a=\"<Sesame>\"", "\t", "a=\u{1}", "a=b\u{7f}\n", "%%%=%&&&==;", "a=ä", &long]
            .map(|query| member("/rawQueryString", json!(query))),
    );
    modifications.extend(
        [json!(null), json!(7), json!([WORD]), json!({}), json!(true), json!("a\r\nb: c"), json!("\u{0}"), json!(long)]
            .into_iter()
            .flat_map(|value| [header("x-odd", value.clone()), header("bad name", value)]),
    );
    modifications.extend([
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
    modifications
}

#[tokio::test]
async fn notification_with_unusual_metadata_is_stored() {
    let (webhook, sent) = (Webhook::start(), Notification::of(&["messages"]));
    for (number, modify) in unusual_metadata().into_iter().enumerate() {
        let mut event = signed(APP_SECRET, sent.body.as_bytes());
        modify(&mut event);
        let invocation = webhook.invoke(&event, LAMBDA_TIMEOUT).await;
        assert_eq!(invocation.status_code(), Some(200), "{number}: {:?}", invocation.outcome);
        // `copies` would expect the usual request id, which some of these events do not have.
        let stored = webhook.stored_messages();
        assert!(
            matches!(&stored[..], [(queue, message)] if queue == "messages" && message.body.as_bytes() == sent.changes[0].text.as_bytes())
        );
        webhook.reset();
    }
    check_log(webhook);
}

#[tokio::test]
async fn event_with_lone_surrogates_is_accepted() {
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
async fn challenge_in_an_unusual_query_is_returned() {
    let webhook = Webhook::start();
    for (query, challenge) in [
        ("hub.challenge=a b", "a b"),
        ("hub.challenge=<b>\"1\"\t\u{1}", "<b>\"1\"\t\u{1}"),
        ("a=ä&%%%=%&&&==;&hub.challenge=1", "1"),
        ("a=%ff%fe&hub.challenge=1#2", "1#2"),
    ] {
        let query = format!("{query}&hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}");
        let response = webhook.send(event("GET", &query, &[], b"")).await;
        assert_eq!((response.status, response.body.as_str()), (200, challenge), "{query}");
    }
}

#[tokio::test]
async fn forged_request_with_unusual_metadata_gets_401() {
    let webhook = Webhook::start();
    for modify in unusual_metadata() {
        let mut event = signed("a-forger", WORD.as_bytes());
        modify(&mut event);
        assert_eq!(webhook.invoke(&event, LAMBDA_TIMEOUT).await.status_code(), Some(401), "{event}");
    }
    for signature in [json!(null), json!(7), json!([WORD]), json!({}), json!("sha256=é\u{1}"), json!("")] {
        let mut event = signed(APP_SECRET, WORD.as_bytes());
        event["headers"]["x-hub-signature-256"] = signature;
        assert_eq!(webhook.invoke(&event, LAMBDA_TIMEOUT).await.status_code(), Some(401), "{event}");
    }
    assert_eq!(webhook.stored_messages().len(), 0);
    check_log(webhook);
}

#[tokio::test]
async fn unsupported_events_get_400() {
    let webhook = Webhook::start();
    let post = |modify: Modification| {
        let mut event = signed(APP_SECRET, WORD.as_bytes());
        modify(&mut event);
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
    assert_eq!(webhook.stored_messages().len(), 0);
    assert_eq!(webhook.deliver(Notification::of(&["messages"]).body).await.status, 200);
    check_log(webhook);
}

/// Checks that the log quotes no event and reports no panic.
fn check_log(webhook: Webhook) {
    let lines = webhook.function.stop();
    assert!(lines.len() > 3);
    for line in &lines {
        assert!(!line.contains(WORD) && !line.contains("panic"), "{line}");
        log_line::parse(line);
    }
}
