//! Routes with several queues, and routes that are narrowed to an id.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{
    CATCH_ALL_URL, Entry, Reply, Webhook,
    schema::{consumer_view, validator},
};
use oracle::fragments;
use proptest::{
    collection::{btree_set, vec},
    option,
    prelude::*,
    sample::{select, subsequence},
};
use serde_json::Value;
use whatsapp_ingress::config::Config;

/// Routes beside the catch-all route, as JSON text.
fn queue_urls(others: &str) -> String {
    format!(r#"{{"*":"{CATCH_ALL_URL}",{others}}}"#)
}

async fn webhook(others: &str, script: impl Fn(&[Entry]) -> Reply + Send + Sync + 'static) -> Webhook {
    Webhook::configured(&queue_urls(others), script).await
}

fn body(changes: &[&str]) -> String {
    format!(r#"{{"object":"o","entry":[{{"id":"20","changes":[{}]}}]}}"#, changes.join(","))
}

const MESSAGE: &str =
    r#"{"field":"messages","value":{"metadata":{"phone_number_id":"10"},"messages":[{"from":"12025550134"}]}}"#;
const STATUS: &str = r#"{"field":"messages","value":{"metadata":{"phone_number_id":"10"},"statuses":[{}]}}"#;

fn is_to(queue: &str, entries: &[Entry]) -> bool {
    entries[0].queue == queue
}

/// The queue of each stored message, with the queue that a diverted one is for.
fn places(stored: &[Entry]) -> Vec<(&str, Option<&str>)> {
    let mut places = Vec::new();
    for entry in stored {
        places.push((entry.queue.as_str(), entry.attributes.get("diverted_from").map(String::as_str)));
    }
    places.sort_unstable();
    places
}

#[tokio::test]
async fn every_queue_of_a_list_gets_the_change() {
    for others in [
        r#""messages":["crm","archive.fifo","bot"]"#,
        r#""messages":"crm","messages":["archive.fifo","bot"]"#,
        r#""messages":"crm","messages":"archive.fifo","messages":"bot""#,
    ] {
        let webhook = webhook(others, |_| Reply::Stored).await;
        assert_eq!(webhook.deliver(body(&[MESSAGE, STATUS])).await, 200);
        let stored = webhook.stored_entries();
        for change in [MESSAGE, STATUS] {
            let copies: Vec<_> = stored.iter().filter(|entry| entry.body == body(&[change])).collect();
            let queues: BTreeSet<_> = copies.iter().map(|entry| entry.queue.as_str()).collect();
            assert_eq!((copies.len(), queues), (3, ["archive.fifo", "bot", "crm"].into()));
            assert!(copies.iter().all(|entry| entry.attributes == copies[0].attributes), "{copies:?}");
            assert!(!copies[0].attributes.contains_key("diverted_from"));
        }
        for entry in &stored {
            let is_fifo = entry.queue == "archive.fifo";
            let event_id = entry.attributes["event_id"].as_str();
            assert_eq!(entry.deduplication.as_deref(), is_fifo.then_some(event_id));
            assert_eq!(entry.group == "10", !(is_fifo && entry.body == body(&[MESSAGE])), "{entry:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failed_queue_of_a_list_is_diverted_alone() {
    for reply in [Reply::CallRejected(400, "QueueDoesNotExist"), Reply::CallRejected(503, "ServiceUnavailable")] {
        for failed in ["crm", "archive.fifo"] {
            let reply = reply.clone();
            let script = move |entries: &[Entry]| if is_to(failed, entries) { reply.clone() } else { Reply::Stored };
            let webhook = webhook(r#""messages":["crm","archive.fifo"],"security":"security""#, script).await;
            assert_eq!(webhook.deliver(body(&[MESSAGE, r#"{"field":"security"}"#])).await, 200);
            let other = if failed == "crm" { "archive.fifo" } else { "crm" };
            let mut expected = [(other, None), ("security", None), ("unrouted", Some(failed))];
            expected.sort_unstable();
            let stored = webhook.stored_entries();
            assert_eq!(places(&stored), expected);
            let diverted = stored.iter().find(|entry| entry.queue == "unrouted").unwrap();
            let own = stored.iter().find(|entry| entry.queue == other).unwrap();
            assert_eq!((&diverted.body, &diverted.attributes["event_id"]), (&own.body, &own.attributes["event_id"]));
            assert_eq!(diverted.attributes["unrouted_reason"], "queue-unavailable");
            assert!(validator().is_valid(&consumer_view(&diverted.body, &diverted.attributes).unwrap()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_failed_queue_has_its_own_diverted_copy() {
    let script = |entries: &[Entry]| {
        if is_to("unrouted", entries) { Reply::Stored } else { Reply::CallRejected(403, "AccessDenied") }
    };
    let webhook = webhook(r#""messages":["crm","archive.fifo"]"#, script).await;
    assert_eq!(webhook.deliver(body(&[MESSAGE])).await, 200);
    let stored = webhook.stored_entries();
    assert_eq!(places(&stored), [("unrouted", Some("archive.fifo")), ("unrouted", Some("crm"))]);
    assert_eq!(stored[0].attributes["event_id"], stored[1].attributes["event_id"]);
}

/// A FIFO queue drops a message with the deduplication id of another one.
#[tokio::test(start_paused = true)]
async fn fifo_catch_all_keeps_every_copy() {
    let script = |entries: &[Entry]| {
        if is_to("rest.fifo", entries) { Reply::Stored } else { Reply::CallRejected(403, "AccessDenied") }
    };
    let routes =
        r#"{"*":"https://sqs.eu-west-1.amazonaws.com/123456789012/rest.fifo","messages":["a","b","rest.fifo"]}"#;
    let webhook = Webhook::configured(routes, script).await;
    assert_eq!(webhook.deliver(body(&[MESSAGE])).await, 200);
    let stored = webhook.stored_entries();
    assert_eq!(places(&stored), [("rest.fifo", None), ("rest.fifo", Some("a")), ("rest.fifo", Some("b"))]);
    let ids: BTreeSet<_> = stored.iter().map(|entry| entry.deduplication.as_deref().unwrap()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[tokio::test(start_paused = true)]
async fn catch_all_queue_in_a_list_gets_a_routed_copy() {
    let script = |entries: &[Entry]| {
        if is_to("crm", entries) { Reply::CallRejected(403, "AccessDenied") } else { Reply::Stored }
    };
    let webhook = webhook(r#""messages":["crm","unrouted"]"#, script).await;
    assert_eq!(webhook.deliver(body(&[MESSAGE])).await, 200);
    let stored = webhook.stored_entries();
    assert_eq!(places(&stored), [("unrouted", None), ("unrouted", Some("crm"))]);
    for entry in &stored {
        let is_diverted = entry.attributes.contains_key("diverted_from");
        assert_eq!(entry.attributes.contains_key("unrouted_reason"), is_diverted);
        assert!(validator().is_valid(&consumer_view(&entry.body, &entry.attributes).unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn message_that_no_queue_stores_makes_503() {
    for failed in ["crm", "archive"] {
        let script = move |entries: &[Entry]| {
            if is_to(failed, entries) || is_to("unrouted", entries) {
                Reply::CallRejected(403, "AccessDenied")
            } else {
                Reply::Stored
            }
        };
        let webhook = webhook(r#""messages":["crm","archive"]"#, script).await;
        assert_eq!(webhook.deliver(body(&[MESSAGE])).await, 503);
        assert_eq!(places(&webhook.stored_entries()), [(if failed == "crm" { "archive" } else { "crm" }, None)]);
    }
}

#[tokio::test(start_paused = true)]
async fn raw_copy_names_the_queue_that_it_is_for() {
    let script = |entries: &[Entry]| {
        let has_request_id = |at: &usize| entries[*at].attributes.contains_key("request_id");
        Reply::EntriesRejected((0..entries.len()).filter(has_request_id).collect(), "InvalidMessageContents", true)
    };
    let webhook = webhook(r#""messages":["crm","archive"]"#, script).await;
    assert_eq!(webhook.deliver(body(&[MESSAGE, r#"{"field":"new"}"#])).await, 200);
    let stored = webhook.stored_entries();
    assert_eq!(places(&stored), [("unrouted", None), ("unrouted", Some("archive")), ("unrouted", Some("crm"))]);
    for entry in &stored {
        let mut names: Vec<_> = entry.attributes.keys().map(String::as_str).collect();
        names.retain(|name| *name != "diverted_from");
        assert_eq!(names, ["encoding", "event_id"]);
        assert!(validator().is_valid(&consumer_view(&entry.body, &entry.attributes).unwrap()));
    }
}

/// Another queue of the list does not wait for one that throttles.
#[tokio::test(start_paused = true)]
async fn throttled_queue_is_retried_alone() {
    let script = |entries: &[Entry]| {
        if is_to("crm", entries) { Reply::CallRejected(400, "ThrottlingException") } else { Reply::Stored }
    };
    let webhook = webhook(r#""messages":["crm","archive"]"#, script).await;
    assert_eq!(webhook.deliver(body(&[MESSAGE])).await, 200);
    let calls = |queue: &str| webhook.entries().iter().filter(|entry| entry.queue == queue).count();
    assert!(calls("crm") > 2);
    assert_eq!((calls("archive"), calls("unrouted")), (1, 1));
}

/// A message of the largest size that its own queue accepts, on a queue with the longest name.
#[tokio::test(start_paused = true)]
async fn largest_message_fits_when_it_is_diverted() {
    let name = "q".repeat(80);
    let of = |filler: usize| body(&[&MESSAGE.replace("120255501", &"0".repeat(filler))]);
    let own = webhook(&format!(r#""messages":"{name}""#), |_| Reply::Stored).await;
    own.deliver(of(0)).await;
    let reserve = "unrouted_reasonStringqueue-unavailable".len() + "diverted_fromString".len() + 80;
    let room = 1_048_576 - own.stored_entries()[0].bytes() - reserve;
    assert_eq!((own.deliver(of(room)).await, own.deliver(of(room + 1)).await), (200, 503));

    let script = |entries: &[Entry]| {
        if is_to("unrouted", entries) { Reply::Stored } else { Reply::CallRejected(403, "AccessDenied") }
    };
    let diverted = webhook(&format!(r#""messages":"{name}""#), script).await;
    assert_eq!(diverted.deliver(of(room)).await, 200);
    let stored = diverted.stored_entries();
    assert_eq!((&stored[0].attributes["diverted_from"], stored[0].bytes()), (&name, 1_048_576));
}

#[tokio::test]
async fn narrowed_route_gets_the_changes_of_its_id() {
    let others = r#""messages":"messages","messages@10":["brand","archive"],"messages.statuses@20":"receipts""#;
    let webhook = webhook(others, |_| Reply::Stored).await;
    let other = MESSAGE.replace("\"10\"", "\"11\"");
    assert_eq!(webhook.deliver(body(&[MESSAGE, STATUS, &other])).await, 200);
    for (queue, change) in [("brand", MESSAGE), ("archive", MESSAGE), ("receipts", STATUS), ("messages", &other)] {
        assert_eq!(webhook.bodies(queue), [body(&[change])], "{queue}");
    }
    assert!(webhook.bodies("unrouted").is_empty());
}

/// The fields that Meta documents.
const FIELDS: &str = include_str!("../../docs/fields.json");

/// Lambda's limit counts the names and values of all variables.
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const MAX_ENVIRONMENT_BYTES: usize = 4096;

#[test]
fn environment_of_many_routes_fits_into_lambda() {
    const STACK: &str = "whatsapp-ingress";
    let queue = |name: &str| format!(r#""{STACK}-{name}""#);
    let mut routes = vec![format!(r#""*":"https://sqs.ap-southeast-1.amazonaws.com/123456789012/{STACK}-unrouted""#)];
    let documented: Value = serde_json::from_str(FIELDS).unwrap();
    let fields = documented["fields"].as_array().unwrap().iter().map(|field| field["field"].as_str().unwrap());
    routes.extend(fields.map(|field| format!(r#""{field}":{}"#, queue(field))));
    let count = routes.len();
    // The second queue of a route is a second member, as the template writes it.
    for field in ["messages", "calls", "account_update"] {
        routes.push(format!(r#""{field}":{}"#, queue(&format!("{field}-crm"))));
    }
    for number in 0..10 {
        routes.push(format!(r#""messages@10654035224292{number}":{}"#, queue(&format!("brand-{number}.fifo"))));
    }
    let variables = [
        (
            "SECRET_ID",
            format!("arn:aws:secretsmanager:ap-southeast-1:123456789012:secret:{STACK}-Secret-a1b2c3d4e5f6-AbCdEf"),
        ),
        ("QUEUE_URLS", format!("{{{}}}", routes.join(","))),
        ("PAYLOAD_BUCKET", format!("{STACK}-payloadbucket-a1b2c3d4e5f6")),
        ("CLIENT_CERTIFICATE_CN", "client.webhooks.fbclientcerts.com".to_owned()),
        ("AWS_LC_SYS_NO_JITTER_ENTROPY", "1".to_owned()),
    ];
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(bytes <= MAX_ENVIRONMENT_BYTES, "{bytes}");
    let lookup = |name: &str| variables.iter().find(|(of, _)| *of == name).map(|(_, value)| value.clone());
    let routes = Config::from_lookup(lookup).unwrap().routes;
    assert_eq!((routes.queues().len(), routes.iter().count()), (count + 3 + 10, count + 10));
}

const QUEUES: [&str; 6] = ["q1", "q2", "q3.fifo", "q4", "q5.fifo", "unrouted"];

/// The JSON text of routes with lists, duplicates and narrowed ones.
fn any_routes() -> impl Strategy<Value = String> {
    let field = select(vec!["messages", "calls", "account_update"]);
    let kind = option::of(select(vec!["messages", "statuses", "errors"]));
    let id = option::of(select(vec!["1", "2", "3"]));
    let name = (field, kind, id).prop_map(|(field, kind, id)| {
        let kind = kind.map(|kind| format!(".{kind}")).unwrap_or_default();
        format!("{field}{kind}{}", id.map(|id| format!("@{id}")).unwrap_or_default())
    });
    let members = |(name, queues, first): (String, Vec<&str>, usize)| {
        // Some are single queues, and the others one list.
        let (single, list) = queues.split_at(first.min(queues.len()));
        let mut members: Vec<_> = single.iter().map(|queue| format!(r#""{name}":"{queue}""#)).collect();
        if !list.is_empty() {
            members.push(format!(r#""{name}":["{}"]"#, list.join(r#"",""#)));
        }
        members
    };
    btree_set(name, 0..12)
        .prop_flat_map(move |names| {
            let route = |name| (Just(name), subsequence(QUEUES.to_vec(), 1..4).prop_shuffle(), 0..3_usize);
            names.into_iter().map(route).collect::<Vec<_>>()
        })
        .prop_map(move |routes| {
            let mut all: Vec<_> = routes.into_iter().flat_map(members).collect();
            all.push(format!(r#""*":"{CATCH_ALL_URL}""#));
            all
        })
        .prop_shuffle()
        .prop_map(|members| format!("{{{}}}", members.join(",")))
}

fn any_body() -> impl Strategy<Value = String> {
    let field =
        option::of(select(vec!["messages", "calls", "account_update", "new", "messages@1", "calls.statuses", "*"]));
    let array = option::of(select(vec!["messages", "statuses", "errors"]));
    let number = option::of(select(vec![r#""1""#, "2", r#""\u0033""#, r#""4""#, "null"]));
    let change = (field, array, number).prop_map(|(field, array, number)| {
        let field = field.map(|field| format!(r#","field":"{field}""#)).unwrap_or_default();
        let array = array.map(|array| format!(r#""{array}":[{{}}],"#)).unwrap_or_default();
        let number = number.map_or("{}".to_owned(), |number| format!(r#"{{"phone_number_id":{number}}}"#));
        (format!(r#"{{{array}"metadata":{number}}}"#), field)
    });
    let entry = (option::of(select(vec![r#""1""#, r#""2""#, "3", r#""""#])), vec(change, 1..8));
    vec(entry, 1..4).prop_map(|entries| {
        let mut serial = 0;
        let entries = entries.into_iter().map(|(id, changes)| {
            let changes = changes.into_iter().map(|(value, field)| {
                serial += 1;
                format!(r#"{{"n":{serial},"value":{value}{field}}}"#)
            });
            let changes = changes.collect::<Vec<_>>().join(",");
            format!(r#"{{{}"changes":[{changes}]}}"#, id.map(|id| format!(r#""id":{id},"#)).unwrap_or_default())
        });
        format!(r#"{{"entry":[{}]}}"#, entries.collect::<Vec<_>>().join(","))
    })
}

/// The messages that belong on each queue: the body, and the queue that it was diverted from.
type Expected<'q> = BTreeMap<&'q str, Vec<(String, Option<String>)>>;

fn expected<'q>(routes: &str, body: &str, failed: &BTreeSet<&'q str>) -> Expected<'q> {
    let mut expected = Expected::new();
    for fragment in fragments(body.as_bytes()) {
        let text = String::from_utf8(fragment.bytes().to_vec()).unwrap();
        for queue in fragment.queues(routes) {
            let name = queue.rsplit('/').next().unwrap();
            let queue = QUEUES.into_iter().find(|queue| *queue == name).unwrap();
            let message = (text.clone(), failed.contains(queue).then(|| queue.to_owned()));
            expected.entry(if message.1.is_some() { "unrouted" } else { queue }).or_default().push(message);
        }
    }
    for messages in expected.values_mut() {
        messages.sort();
    }
    expected
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_queue_of_the_most_specific_route_has_it(
        routes in any_routes(),
        body in any_body(),
        failed in subsequence(QUEUES[..5].to_vec(), 0..3),
    ) {
        let failed: BTreeSet<_> = failed.into_iter().collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let dead = failed.clone();
        let entries = runtime.block_on(async {
            let script = move |entries: &[Entry]| {
                if dead.contains(entries[0].queue.as_str()) { Reply::CallRejected(400, "QueueDoesNotExist") } else { Reply::Stored }
            };
            let webhook = Webhook::configured(&routes, script).await;
            assert_eq!(webhook.deliver(&body).await, 200);
            webhook.stored_entries()
        });
        let mut found = BTreeMap::<_, Vec<_>>::new();
        let mut event_ids = BTreeMap::new();
        for entry in &entries {
            let diverted_from = entry.attributes.get("diverted_from").cloned();
            found.entry(entry.queue.as_str()).or_default().push((entry.body.clone(), diverted_from));
            let event_id = entry.attributes["event_id"].as_str();
            prop_assert_eq!(*event_ids.entry(entry.body.as_str()).or_insert(event_id), event_id);
        }
        for messages in found.values_mut() {
            messages.sort();
        }
        prop_assert_eq!(found, expected(&routes, &body, &failed));
    }
}
