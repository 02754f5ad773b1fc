//! Moves messages with a scripted SQS that fails in various ways, and that kills the run between any two calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit, Mac};
use ingress_tools::{
    aws::{cli::AwsCli, stack_info::StackInfo},
    queues::{
        backlog::Backlogs,
        queue::Counts,
        redrive::{self, Moves, RedriveError},
        selection::Field,
        transfer::{Transfer, TransferLimits, TransferReport},
    },
};
use serde_json::{Value, json};

use crate::sqs::{Fault, SECRET_ARN, Sqs, Stored, now, text};

const UNLIMITED: TransferLimits = TransferLimits { rate: 1_000_000, max_messages: usize::MAX };
static NOT_STOPPED: AtomicBool = AtomicBool::new(false);
const ROUTES: [(&str, &str); 4] =
    [("*", "unrouted"), ("calls", "calls"), ("messages", "messages"), ("messages.statuses", "messages-statuses")];

async fn sqs() -> Sqs {
    Sqs::start(&["unrouted", "calls", "calls-dead", "messages", "messages-dead", "messages-statuses"]).await
}

fn field(text: &str) -> Field {
    text.parse().unwrap()
}

async fn run(transfer: &Transfer) -> TransferReport {
    transfer.run(UNLIMITED, &NOT_STOPPED, |_| ()).await
}

/// Returns the only move.
fn only(moves: Moves) -> Transfer {
    let Moves { transfers, skipped } = moves;
    assert!(skipped.is_empty(), "{skipped:?}");
    let [transfer] = transfers.try_into().unwrap();
    transfer
}

async fn redriven(stack: &StackInfo, name: &str) -> TransferReport {
    run(&only(redrive::redrive(stack, &field(name)).await.unwrap())).await
}

async fn rerouted(stack: &StackInfo, name: &str) -> TransferReport {
    run(&only(redrive::reroute(stack, &field(name)).await.unwrap())).await
}

/// A message with these attributes.
fn message(event_id: &str, attributes: &[(&str, &str)]) -> Stored {
    let named = attributes.iter().copied().chain([("event_id", event_id)]).filter(|(_, value)| !value.is_empty());
    let attributes: serde_json::Map<String, Value> =
        named.map(|(name, value)| (name.to_owned(), json!({ "DataType": "String", "StringValue": value }))).collect();
    Stored { body: format!("body of {event_id}"), attributes: attributes.into(), ..Stored::default() }
}

fn misplaced(event_id: &str, field: &str, kind: &str) -> Stored {
    message(event_id, &[("field", field), ("kind", kind), ("unrouted_reason", "no-route")])
}

fn dead(event_id: &str) -> Stored {
    message(event_id, &[("field", "calls")])
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number:03}")).collect()
}

#[tokio::test]
async fn only_unrouted_reason_is_removed() {
    let sqs = sqs().await;
    let mut sent = misplaced("e", "calls", "");
    sent.attributes["own"] = json!({ "DataType": "Binary.own", "BinaryValue": "AAH/" });
    sent.attributes["ExtendedPayloadSize"] = json!({ "DataType": "Number", "StringValue": "2000000" });
    sent.group = Some("106540352242922".to_owned());
    sent.trace = Some("Root=1-5759e988-bd862e3fe1be46a994272793".to_owned());
    sqs.put("unrouted", sent.clone());

    let report = rerouted(&sqs.info(&ROUTES), "calls").await;

    assert_eq!((report.moved, report.claim_checks, report.is_success()), (1, 1, true), "{report:?}");
    let [found] = sqs.on("calls").try_into().unwrap();
    assert_eq!((&found.body, &found.group, &found.trace), (&sent.body, &sent.group, &sent.trace));
    sent.attributes.as_object_mut().unwrap().remove("unrouted_reason").unwrap();
    assert_eq!(found.attributes, sent.attributes);
    assert!(sqs.on("unrouted").is_empty());
}

#[tokio::test]
async fn other_messages_are_received_once_and_released() {
    let sqs = sqs().await;
    for event in numbered("other-", 45) {
        sqs.put("unrouted", misplaced(&event, "flows", ""));
    }
    sqs.put("unrouted", misplaced("wanted", "calls", ""));
    sqs.put("unrouted", message("diverted", &[("field", "calls"), ("unrouted_reason", "queue-unavailable")]));
    sqs.put("unrouted", message("no-field", &[("unrouted_reason", "no-field")]));
    sqs.put("unrouted", message("bare", &[("encoding", "base64"), ("unrouted_reason", "not-json")]));
    sqs.put("unrouted", message("no-reason", &[("field", "calls")]));

    let report = rerouted(&sqs.info(&ROUTES), "calls").await;

    assert_eq!((report.moved, report.not_selected, report.is_success()), (2, 48, true), "{report:?}");
    assert_eq!(sorted(sqs.events("calls")), ["diverted", "wanted"]);
    let left = sqs.on("unrouted");
    assert_eq!(left.len(), 48);
    assert!(left.iter().all(|message| message.receives == 1 && message.hidden_until <= now()), "{left:#?}");
    assert!(
        left.iter().all(|message| message.longest_timeout > 120),
        "hidden until the deadline of the pass: {left:#?}"
    );
}

#[tokio::test]
async fn kind_determines_the_queue() {
    let sqs = sqs().await;
    let stack = sqs.info(&ROUTES);
    sqs.put("unrouted", misplaced("written", "messages", "messages"));
    sqs.put("unrouted", misplaced("read", "messages", "statuses"));
    sqs.put("unrouted", misplaced("failed", "messages", "errors"));

    let receipts = rerouted(&stack, "messages.statuses").await;
    assert_eq!((receipts.moved, receipts.not_selected), (1, 2));
    let rest = rerouted(&stack, "messages").await;
    assert_eq!((rest.moved, rest.not_selected), (2, 0));
    assert_eq!(sqs.events("messages-statuses"), ["read"]);
    assert_eq!(sqs.events("messages"), ["written", "failed"]);
}

/// Two queues of one route, one of them FIFO, and a route that is narrowed to a phone number id.
const LIST: [(&str, &str); 4] =
    [("*", "unrouted"), ("calls", "calls"), ("calls", "archive.fifo"), ("calls@106540352242922", "brand")];

async fn sqs_with_list() -> Sqs {
    Sqs::start(&["unrouted", "calls", "archive.fifo", "brand"]).await
}

fn diverted(event_id: &str, queue: &str) -> Stored {
    let queue = format!("a-stack-{queue}");
    message(event_id, &[("field", "calls"), ("unrouted_reason", "queue-unavailable"), ("diverted_from", &queue)])
}

#[tokio::test]
async fn diverted_message_returns_to_its_queue_alone() {
    let sqs = sqs_with_list().await;
    sqs.put("unrouted", diverted("one", "calls"));
    sqs.put("unrouted", diverted("two", "archive.fifo"));
    sqs.put("unrouted", diverted("both", "calls"));
    sqs.put("unrouted", diverted("both", "archive.fifo"));

    let report = rerouted(&sqs.info(&LIST), "calls").await;

    assert_eq!((report.moved, report.is_success()), (4, true), "{report:?}");
    assert_eq!(sorted(sqs.events("calls")), ["both", "one"]);
    assert_eq!(sorted(sqs.events("archive.fifo")), ["both", "two"]);
    for message in sqs.on("calls").iter().chain(&sqs.on("archive.fifo")) {
        let names: Vec<_> = message.attributes.as_object().unwrap().keys().cloned().collect();
        assert_eq!(sorted(names), ["event_id", "field"]);
    }
    assert!(sqs.on("unrouted").is_empty() && sqs.on("brand").is_empty());
}

#[tokio::test]
async fn message_without_a_queue_goes_to_all_of_its_route() {
    let sqs = sqs_with_list().await;
    sqs.put("unrouted", misplaced("new", "calls", ""));
    sqs.put("unrouted", diverted("replaced", "calls-old"));
    let mut narrowed = diverted("narrowed", "calls");
    narrowed.attributes["phone_number_id"] = json!({ "DataType": "String", "StringValue": "106540352242922" });
    sqs.put("unrouted", narrowed);

    let report = rerouted(&sqs.info(&LIST), "calls").await;

    assert_eq!((report.moved, report.is_success()), (3, true), "{report:?}");
    assert_eq!(sorted(sqs.events("calls")), ["new", "replaced"]);
    assert_eq!(sorted(sqs.events("archive.fifo")), ["new", "replaced"]);
    assert_eq!(sqs.events("brand"), ["narrowed"]);
    let fifo = sqs.on("archive.fifo");
    assert!(fifo.iter().all(|message| message.deduplication.is_some()) && fifo[0].group.as_deref() == Some("-"));
    assert!(sqs.on("calls").iter().all(|message| message.deduplication.is_none()));
    assert!(sqs.on("unrouted").is_empty());
}

/// The first consumer would delete the body of the other one's message.
#[tokio::test]
async fn pointer_for_several_queues_stays() {
    let sqs = sqs_with_list().await;
    for mut message in [misplaced("new", "calls", ""), diverted("own", "calls")] {
        message.attributes["ExtendedPayloadSize"] = json!({ "DataType": "Number", "StringValue": "2000000" });
        sqs.put("unrouted", message);
    }

    let report = rerouted(&sqs.info(&LIST), "calls").await;

    assert_eq!((report.moved, report.shared_object, report.is_success()), (1, 1, false), "{report:?}");
    assert_eq!((sqs.events("calls"), sqs.events("unrouted")), (vec!["own".to_owned()], vec!["new".to_owned()]));
    assert!(sqs.on("archive.fifo").is_empty());
}

#[tokio::test]
async fn message_stays_until_all_its_queues_have_it() {
    let sqs = sqs_with_list().await;
    sqs.put("unrouted", misplaced("new", "calls", ""));
    let mut sends = 0;
    sqs.script(move |_, call, _| {
        sends += usize::from(call == "SendMessageBatch");
        // The second queue fails twice.
        (call == "SendMessageBatch" && (2..4).contains(&sends)).then_some(Fault::Error(503, "ServiceUnavailable"))
    });

    let report = rerouted(&sqs.info(&LIST), "calls").await;

    assert_eq!((report.moved, report.is_success()), (1, true), "{report:?}");
    assert_eq!((sqs.events("calls"), sqs.events("archive.fifo")), (vec!["new".to_owned()], vec!["new".to_owned()]));

    let sqs = sqs_with_list().await;
    sqs.put("unrouted", misplaced("new", "calls", ""));
    let mut sends = 0;
    sqs.script(move |_, call, _| {
        sends += usize::from(call == "SendMessageBatch");
        (call == "SendMessageBatch" && sends == 2).then(|| Fault::Rejected(vec![0], "InvalidMessageContents", true))
    });

    let report = rerouted(&sqs.info(&LIST), "calls").await;

    assert_eq!((report.moved, report.is_success()), (0, false), "{report:?}");
    assert_eq!(sqs.events("unrouted"), ["new"]);
}

#[tokio::test]
async fn dead_letter_returns_to_its_queue() {
    let sqs = sqs().await;
    let stack = sqs.info(&[("*", "unrouted"), ("calls", "calls"), ("flows", "calls")]);
    sqs.put("calls-dead", dead("ours"));
    sqs.put("calls-dead", message("theirs", &[("field", "flows")]));
    sqs.put("calls-dead", message("by-hand", &[]));

    let report = redriven(&stack, "calls").await;

    assert_eq!((report.moved, report.not_selected), (2, 1), "{report:?}");
    assert_eq!(sqs.events("calls"), ["ours", "by-hand"]);
    let kind = redriven(&stack, "flows.messages").await;
    assert_eq!((kind.moved, kind.not_selected), (0, 1), "messages of no kind stay");
}

#[tokio::test]
async fn field_without_a_queue_is_an_error() {
    let sqs = sqs().await;
    let stack = sqs.info(&ROUTES);

    assert!(matches!(redrive::reroute(&stack, &field("flows")).await, Err(RedriveError::NoRoute(_))));
    assert!(matches!(redrive::redrive(&stack, &field("flows")).await, Err(RedriveError::NoRoute(_))));
    let receipts = redrive::redrive(&stack, &field("messages.statuses")).await.unwrap();
    assert_eq!((receipts.transfers.len(), receipts.skipped[0].queue.as_str()), (0, "a-stack-messages-statuses"));
    assert_eq!(receipts.skipped[0].reason, "it has no dead-letter queue");
    assert!(sqs.account().calls.iter().all(|(call, _)| call == "GetQueueAttributes"));
}

#[tokio::test]
async fn count_receives_no_message() {
    let sqs = sqs().await;
    sqs.put("calls-dead", dead("e"));

    let counts = only(redrive::redrive(&sqs.info(&ROUTES), &field("calls")).await.unwrap()).counts().await;
    assert_eq!((counts.from.counts.unwrap().visible, counts.to[0].queue.as_str()), (1, "a-stack-calls"));

    assert!(sqs.account().calls.iter().all(|(call, _)| call == "GetQueueAttributes"));
    assert_eq!(sqs.on("calls-dead")[0].receives, 0);
}

#[tokio::test]
async fn counts_remain_without_the_aws_cli() {
    let sqs = Sqs::start(&["unrouted", "calls", "calls-dead"]).await;
    let stack = sqs.info(&[("*", "unrouted"), ("calls", "calls"), ("flows", "calls")]);
    sqs.put("calls", dead("waiting"));
    sqs.put("calls", Stored { hidden_until: now() + 60_000, ..dead("in-flight") });
    sqs.put("calls-dead", dead("dead"));

    let backlogs = backlogs(&stack).await;

    let [calls, unrouted] = backlogs.queues.as_slice() else { panic!("{backlogs:?}") };
    let counts = |visible, in_flight| Some(Counts { visible, in_flight, delayed: 0 });
    assert_eq!((calls.depth.queue.as_str(), calls.depth.counts), ("a-stack-calls", counts(1, 1)));
    assert_eq!(calls.routes, ["calls", "flows"]);
    let dead = calls.dead_letter_queue.as_ref().unwrap();
    assert_eq!((dead.queue.as_str(), dead.counts), ("a-stack-calls-dead", counts(1, 0)));
    assert_eq!((unrouted.depth.counts.unwrap().total(), &unrouted.dead_letter_queue), (0, &None));
    assert!(backlogs.has_unknown_age() && backlogs.ages_error.unwrap().starts_with("the AWS CLI is not installed"));
    assert!(backlogs.other_queues.is_empty() && backlogs.other_queues_error.is_none());
    let is_count = |call: &str| call == "GetQueueAttributes" || call == "ListQueues";
    assert!(sqs.account().calls.iter().all(|(call, _)| is_count(call)));
}

async fn backlogs(stack: &StackInfo) -> Backlogs {
    Backlogs::of(stack, &AwsCli { program: "no/such/aws".into(), ..AwsCli::default() }).await
}

#[tokio::test]
async fn queues_without_a_route_are_listed() {
    let names = ["unrouted", "calls", "calls-dead", "flows", "flows-dead", "staging-calls", "security.fifo"];
    let sqs = Sqs::start(&names).await;
    sqs.account().queues.insert("a-stacked-calls".to_owned(), Vec::new());
    let stack = sqs.info(&[("*", "unrouted"), ("calls", "calls")]);
    sqs.put("flows", dead("left"));
    sqs.put("flows", Stored { hidden_until: now() + 60_000, ..dead("in-flight") });

    let backlogs = backlogs(&stack).await;

    let others: Vec<_> = backlogs.other_queues.iter().map(|other| other.queue.trim_start_matches("a-stack-")).collect();
    assert_eq!(others, ["flows", "flows-dead", "security.fifo", "staging-calls"]);
    assert_eq!(backlogs.other_queues[0].counts, Some(Counts { visible: 1, in_flight: 1, delayed: 0 }));
    let json = json!(backlogs);
    let counts = json!({ "queue": "a-stack-flows", "url": json["other_queues"][0]["url"], "visible": 1, "in_flight": 1, "delayed": 0 });
    assert_eq!((&json["stack"], &json["other_queues"][0]), (&json!("a-stack"), &counts));
    assert!(counts["url"].as_str().unwrap().ends_with("/123456789012/a-stack-flows"));
    let lists = sqs.account().calls.iter().filter(|(call, _)| call == "ListQueues").count();
    assert!(lists > 1, "several pages");
}

#[tokio::test]
async fn counts_remain_if_queues_cannot_be_listed() {
    let sqs = sqs().await;
    sqs.put("calls", dead("waiting"));
    sqs.script(|_, name, _| (name == "ListQueues").then_some(Fault::Error(403, "AccessDenied")));

    let backlogs = backlogs(&sqs.info(&ROUTES)).await;

    assert_eq!(backlogs.queues[0].depth.counts.unwrap().visible, 1);
    let reason = backlogs.other_queues_error.unwrap();
    assert_eq!(reason, "cannot list the queues with the prefix a-stack-: AccessDenied: scripted");
}

#[tokio::test]
async fn other_queue_without_permission_has_no_counts() {
    let sqs = Sqs::start(&["unrouted", "staging-calls"]).await;
    sqs.script(|number, name, _| {
        (number > 1 && name == "GetQueueAttributes").then_some(Fault::Error(403, "AccessDenied"))
    });

    let backlogs = backlogs(&sqs.info(&[("*", "unrouted")])).await;

    let [other] = backlogs.other_queues.as_slice() else { panic!("{backlogs:?}") };
    assert_eq!((other.queue.as_str(), &other.counts), ("a-stack-staging-calls", &None));
}

/// Kills the run at each of its calls, before and after the call takes effect.
#[tokio::test]
async fn kill_between_any_two_calls_loses_nothing() {
    const MESSAGES: usize = 23;
    for takes_effect in [true, false] {
        for last in 0.. {
            let sqs = sqs().await;
            let stack = sqs.info(&ROUTES);
            for (number, event) in numbered("e-", MESSAGES).iter().enumerate() {
                let field = if number % 4 == 3 { "flows" } else { "calls" };
                sqs.put("unrouted", misplaced(event, field, ""));
            }
            let before = sqs.events("unrouted");
            let fault = if takes_effect { Fault::KilledAfter } else { Fault::KilledBefore };
            sqs.script(move |number, _, _| (number == last).then(|| fault.clone()));
            let one = only(redrive::reroute(&stack, &field("calls")).await.unwrap());
            let finished = tokio::select! {
                report = run(&one) => Some(report),
                () = sqs.kills.notified() => None,
            };
            sqs.clear_script();
            let all = sorted([sqs.events("unrouted"), sqs.events("calls")].concat());
            assert!(before.iter().all(|event| all.contains(event)), "lost at call {last}: {all:?}");
            if let Some(report) = finished {
                assert_eq!((report.moved, report.not_selected, last > 12), (18, 5, true), "{report:?}");
                break;
            }
            sqs.show_all();
            assert!(rerouted(&stack, "calls").await.is_success());
            let mut arrived = sorted(sqs.events("calls"));
            assert!(arrived.len() <= 18 + 10, "at most one batch is duplicated: {arrived:?}");
            arrived.dedup();
            assert_eq!((arrived.len(), sqs.on("unrouted").len()), (18, 5));
        }
    }
}

#[tokio::test]
async fn rejected_message_stays_and_others_are_moved() {
    let sqs = sqs().await;
    for event in numbered("e-", 12) {
        sqs.put("calls-dead", dead(&event));
    }
    sqs.script(|_, name, entries| {
        let place = entries.iter().position(|entry| entry["MessageBody"] == "body of e-004")?;
        (name == "SendMessageBatch").then_some(Fault::Rejected(vec![place], "InvalidMessageContents", true))
    });

    let report = redriven(&sqs.info(&ROUTES), "calls").await;

    assert_eq!((report.moved, report.is_success()), (11, false));
    assert_eq!(report.rejected.get("InvalidMessageContents"), Some(&1));
    let [left] = sqs.on("calls-dead").try_into().unwrap();
    assert_eq!((text(&left.attributes, "event_id").as_str(), left.receives), ("e-004", 1));
    assert!(left.hidden_until <= now());
}

#[tokio::test]
async fn transient_errors_are_retried() {
    let sqs = sqs().await;
    for event in numbered("e-", 12) {
        sqs.put("calls-dead", dead(&event));
    }
    let mut sends = 0;
    let mut deletions = 0;
    sqs.script(move |_, name, _| match name {
        "SendMessageBatch" => {
            sends += 1;
            // The client itself makes three attempts of a throttled call.
            [Fault::Rejected(vec![2, 7], "InternalError", false), Fault::Omitted(vec![0])]
                .into_iter()
                .chain((0..3).map(|_| Fault::Error(400, "RequestThrottled")))
                .nth(sends - 1)
        }
        "DeleteMessageBatch" => {
            deletions += 1;
            [Fault::Rejected(vec![0, 1], "InternalError", false), Fault::Error(500, "InternalError")]
                .get(deletions - 1)
                .cloned()
        }
        _ => None,
    });

    let report = redriven(&sqs.info(&ROUTES), "calls").await;

    assert_eq!((report.moved, report.not_deleted, report.is_success()), (12, 0, true), "{report:?}");
    assert_eq!(sorted(sqs.events("calls")), numbered("e-", 12), "each once");
    assert!(sqs.on("calls-dead").is_empty());
}

#[tokio::test]
async fn failed_send_releases_other_messages() {
    let sqs = sqs().await;
    for event in numbered("e-", 10) {
        let kind = if event.as_bytes()[4] % 2 == 0 { "messages" } else { "statuses" };
        sqs.put("unrouted", misplaced(&event, "messages", kind));
    }
    let released = Arc::new(AtomicUsize::new(0));
    let (mut sends, count) = (0, Arc::clone(&released));
    sqs.script(move |_, name, entries| {
        if name == "ChangeMessageVisibilityBatch" {
            count.fetch_add(entries.len(), Ordering::Relaxed);
        }
        sends += usize::from(name == "SendMessageBatch");
        // The client itself makes three attempts of a throttled call.
        (name == "SendMessageBatch" && sends <= 3).then_some(Fault::Error(400, "RequestThrottled"))
    });

    let report = rerouted(&sqs.info(&ROUTES), "messages").await;

    assert_eq!((report.moved, report.is_success()), (10, true), "{report:?}");
    assert_eq!((sqs.on("messages").len(), sqs.on("messages-statuses").len()), (5, 5));
    assert_eq!(released.load(Ordering::Relaxed), 10, "also those of the queue that was not sent to");
}

/// As after a run that was killed.
#[tokio::test]
async fn messages_in_flight_are_waited_for() {
    let sqs = sqs().await;
    sqs.put("calls-dead", dead("visible"));
    sqs.put("calls-dead", Stored { hidden_until: now() + 8_000, ..dead("in-flight") });

    let report = redriven(&sqs.info(&ROUTES), "calls").await;

    assert_eq!((report.moved, report.unseen.in_flight, report.is_success()), (2, Some(0), true), "{report:?}");
    assert!(sqs.on("calls-dead").is_empty());
}

#[tokio::test]
async fn messages_of_consumers_are_not_waited_for() {
    let sqs = sqs().await;
    sqs.put("messages", message("read", &[("field", "messages"), ("kind", "statuses")]));
    sqs.put("messages", Stored { hidden_until: now() + 600_000, ..message("consumed", &[("field", "messages")]) });

    let drain = redrive::drain(&sqs.info(&ROUTES), &field("messages"), "a-stack-messages", None).await.unwrap();
    let report = run(&only(drain)).await;

    assert_eq!((report.moved, report.unseen.in_flight, report.is_success()), (1, Some(1), true), "{report:?}");
}

#[tokio::test]
async fn lost_receive_is_counted_and_its_messages_moved() {
    let sqs = sqs().await;
    for event in numbered("e-", 12) {
        sqs.put("calls-dead", dead(&event));
    }
    let mut receives = 0;
    sqs.script(move |_, name, _| {
        receives += usize::from(name == "ReceiveMessage");
        (name == "ReceiveMessage" && receives == 1).then_some(Fault::KilledAfter)
    });

    let report = redriven(&sqs.info(&ROUTES), "calls").await;

    let lost_receives = report.unseen.lost_receives;
    assert_eq!((report.moved, lost_receives, report.is_success()), (12, 1, true), "{report:?}");
}

/// SQS flags such entries as the sender's fault, although a retry may succeed.
#[tokio::test]
async fn throttled_entry_is_retried() {
    for code in ["ThrottlingException", "RequestThrottled", "KMS.ThrottlingException", "ServiceUnavailable"] {
        let sqs = sqs().await;
        for event in numbered("e-", 12) {
            sqs.put("calls-dead", dead(&event));
        }
        let mut throttled = 2;
        sqs.script(move |_, name, _| {
            throttled -= i32::from(name == "SendMessageBatch");
            (name == "SendMessageBatch" && throttled >= 0).then(|| Fault::Rejected(vec![1, 4], code, true))
        });

        let report = redriven(&sqs.info(&ROUTES), "calls").await;

        assert_eq!((report.moved, &report.rejected, report.is_success()), (12, &[].into(), true), "{code}: {report:?}");
        assert_eq!(sorted(sqs.events("calls")), numbered("e-", 12), "each once");
        assert!(sqs.on("calls-dead").is_empty());
    }
}

#[tokio::test]
async fn entry_error_of_the_queue_ends_the_run() {
    for code in ["KMS.DisabledException", "AccessDeniedException"] {
        let sqs = sqs().await;
        for event in numbered("e-", 25) {
            sqs.put("calls-dead", dead(&event));
        }
        sqs.script(move |_, name, _| {
            (name == "SendMessageBatch").then(|| Fault::Rejected((1..10).collect(), code, true))
        });

        let report = redriven(&sqs.info(&ROUTES), "calls").await;

        assert_eq!((report.moved, &report.rejected), (1, &[].into()), "{code}: {report:?}");
        assert_eq!(report.stop_reason.unwrap(), format!("cannot send to a-stack-calls: {code}"));
        let sends = sqs.account().calls.iter().filter(|(call, _)| call == "SendMessageBatch").count();
        assert_eq!((sends, sqs.on("calls").len()), (1, 1));
        let left = sqs.on("calls-dead");
        assert!(left.len() == 24 && left.iter().all(|one| one.hidden_until <= now()), "{left:#?}");
    }
}

#[tokio::test]
async fn server_error_of_a_call_is_retried() {
    let sqs = sqs().await;
    sqs.put("calls-dead", dead("e"));
    let mut sends = 0;
    sqs.script(move |_, name, _| {
        sends += usize::from(name == "SendMessageBatch");
        // The client itself makes three attempts.
        (name == "SendMessageBatch" && sends <= 3).then_some(Fault::Error(500, "BrandNewError"))
    });

    let report = redriven(&sqs.info(&ROUTES), "calls").await;

    assert_eq!((report.moved, report.stop_reason), (1, None));
}

#[tokio::test]
async fn failed_deletion_ends_the_run() {
    let sqs = sqs().await;
    for event in numbered("e-", 25) {
        sqs.put("calls-dead", dead(&event));
    }
    sqs.script(|_, name, _| (name == "DeleteMessageBatch").then_some(Fault::Error(403, "AccessDenied")));

    let report = redriven(&sqs.info(&ROUTES), "calls").await;

    assert_eq!((report.moved, report.not_deleted), (0, 10));
    assert!(report.stop_reason.unwrap().contains("cannot delete from a-stack-calls-dead"));
    assert_eq!((sqs.on("calls").len(), sqs.on("calls-dead").len()), (10, 25));
}

#[tokio::test]
async fn missing_queue_ends_the_run() {
    let sqs = sqs().await;
    sqs.put("calls-dead", dead("e"));
    sqs.script(|_, name, _| (name == "SendMessageBatch").then_some(Fault::Error(400, "QueueDoesNotExist")));

    let report = redriven(&sqs.info(&ROUTES), "calls").await;

    assert!(report.stop_reason.unwrap().contains("cannot send to a-stack-calls: "));
    let sends = sqs.account().calls.iter().filter(|(call, _)| call == "SendMessageBatch").count();
    assert_eq!((sends, sqs.on("calls-dead")[0].hidden_until <= now()), (1, true), "visible again");
}

#[tokio::test]
async fn batches_stay_below_the_size_limit() {
    let sqs = sqs().await;
    for event in numbered("e-", 10) {
        sqs.put("calls-dead", Stored { body: "x".repeat(400_000), ..dead(&event) });
    }

    let report = redriven(&sqs.info(&ROUTES), "calls").await;

    assert_eq!(report.moved, 10);
    let account = sqs.account();
    let sends: Vec<_> = account.calls.iter().filter(|(call, _)| call == "SendMessageBatch").collect();
    assert_eq!(sends.len(), 5);
    assert!(sends.iter().all(|(_, bytes)| *bytes < 1_048_576), "{sends:?}");
}

#[tokio::test]
async fn message_that_arrives_during_the_run_stays() {
    let sqs = sqs().await;
    for event in numbered("e-", 3) {
        sqs.put("calls-dead", dead(&event));
    }
    sqs.put("calls-dead", Stored { sent: now() + 60_000, ..dead("back") });

    let report = redriven(&sqs.info(&ROUTES), "calls").await;

    assert_eq!((report.moved, report.arrived_during_run, report.is_success()), (3, 1, false));
    assert_eq!(sqs.events("calls-dead"), ["back"]);
}

#[tokio::test]
async fn rate_and_max_messages_are_limits() {
    let sqs = sqs().await;
    for event in numbered("e-", 40) {
        sqs.put("calls-dead", dead(&event));
    }
    let transfer = only(redrive::redrive(&sqs.info(&ROUTES), &field("calls")).await.unwrap());
    let started = Instant::now();

    let report = transfer.run(TransferLimits { rate: 20, max_messages: 25 }, &NOT_STOPPED, |_| ()).await;

    assert_eq!((report.moved, sqs.on("calls").len(), sqs.on("calls-dead").len()), (25, 25, 15));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn interrupted_run_releases_all_messages() {
    let sqs = sqs().await;
    for event in numbered("e-", 30) {
        sqs.put("unrouted", misplaced(&event, if event.ends_with('5') { "calls" } else { "flows" }, ""));
    }
    let stop = AtomicBool::new(false);
    let one = only(redrive::reroute(&sqs.info(&ROUTES), &field("calls")).await.unwrap());

    let report = one.run(UNLIMITED, &stop, |report| stop.store(report.moved > 0, Ordering::Relaxed)).await;

    assert_eq!((report.moved, report.stop_reason.as_deref()), (1, Some("interrupted")));
    assert!(sqs.on("unrouted").iter().all(|message| message.hidden_until <= now()));
}

fn conversation(number: &str, contact: &str) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET_ARN.as_bytes()).unwrap();
    mac.update(format!("{number}\0{contact}").as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

#[tokio::test]
async fn fifo_message_has_the_group_of_its_conversation() {
    const NUMBER: &str = "106540352242922";
    let sqs = Sqs::start(&["unrouted", "messages.fifo"]).await;
    let stack = sqs.info(&[("*", "unrouted"), ("messages", "messages.fifo")]);
    let known = |event| {
        let mut message = misplaced(event, "messages", "messages");
        message.attributes["phone_number_id"] = json!({ "DataType": "String", "StringValue": NUMBER });
        message.group = Some(NUMBER.to_owned());
        message
    };
    let written = json!({ "object": "whatsapp_business_account", "entry": [{ "id": "1", "changes": [{
        "field": "messages",
        "value": { "metadata": { "phone_number_id": NUMBER }, "messages": [{ "from": "12025550101", "id": "wamid.1" }] },
    }] }] });
    sqs.put("unrouted", Stored { body: written.to_string(), ..known("in-sight") });
    sqs.put("unrouted", known("in-s3"));

    let report = rerouted(&stack, "messages").await;

    assert!(report.is_success(), "{report:?}");
    let found: Vec<_> = sqs.on("messages.fifo").into_iter().map(|one| (one.group, one.deduplication)).collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(found, [(Some(conversation(NUMBER, "12025550101")), text("in-sight")), (text(NUMBER), text("in-s3"))]);
}

#[tokio::test]
async fn replaced_fifo_queue_drains_into_standard_queue() {
    let sqs = Sqs::start(&["unrouted", "messages", "messages.fifo"]).await;
    let stack = sqs.info(&[("*", "unrouted"), ("messages", "messages")]);
    for event in numbered("e-", 15) {
        let one = message(&event, &[("field", "messages"), ("phone_number_id", "106540352242922")]);
        sqs.put("messages.fifo", Stored { group: Some("a-conversation".to_owned()), ..one });
    }

    let report =
        run(&only(redrive::drain(&stack, &field("messages"), "a-stack-messages.fifo", None).await.unwrap())).await;

    assert_eq!((report.moved, report.is_success()), (15, true), "{report:?}");
    assert_eq!(sqs.events("messages"), numbered("e-", 15));
    assert!(sqs.on("messages").iter().all(|one| one.group.as_deref() == Some("106540352242922")));
    assert!(sqs.on("messages.fifo").is_empty());
    let itself = redrive::drain(&stack, &field("messages"), "a-stack-messages", None).await;
    assert!(matches!(itself, Err(RedriveError::OnlyQueue { .. })), "a queue cannot be drained into itself");
}

#[tokio::test]
async fn retry_keeps_the_order_of_a_group() {
    let sqs = Sqs::start(&["unrouted", "calls.fifo", "calls-dead.fifo"]).await;
    let stack = sqs.info(&[("*", "unrouted"), ("calls", "calls.fifo")]);
    for event in numbered("e-", 12) {
        let group = if event.as_bytes()[4] % 2 == 0 { "even" } else { "odd" };
        sqs.put("calls-dead.fifo", Stored { group: Some(group.to_owned()), ..dead(&event) });
    }
    let mut failures = 2;
    sqs.script(move |_, name, entries| {
        let place = entries.iter().position(|entry| entry["MessageBody"] == "body of e-003")?;
        failures -= i32::from(name == "SendMessageBatch");
        (name == "SendMessageBatch" && failures >= 0).then_some(Fault::Rejected(vec![place], "InternalError", false))
    });

    let report = redriven(&stack, "calls").await;

    assert_eq!((report.moved, report.is_success()), (12, true), "{report:?}");
    for group in ["even", "odd"] {
        let arrived = sqs.on("calls.fifo").into_iter().filter(|one| one.group.as_deref() == Some(group));
        let arrived: Vec<_> = arrived.map(|one| text(&one.attributes, "event_id")).collect();
        assert_eq!((arrived.len(), arrived.is_sorted()), (6, true), "{group}: {arrived:?}");
    }
}

#[tokio::test]
async fn rejected_message_blocks_its_group() {
    let sqs = Sqs::start(&["unrouted", "calls.fifo", "calls-dead.fifo"]).await;
    let stack = sqs.info(&[("*", "unrouted"), ("calls", "calls.fifo")]);
    for event in numbered("e-", 6) {
        let group = if event.as_bytes()[4] % 2 == 0 { "even" } else { "odd" };
        sqs.put("calls-dead.fifo", Stored { group: Some(group.to_owned()), ..dead(&event) });
    }
    sqs.script(|_, name, entries| {
        let place = entries.iter().position(|entry| entry["MessageBody"] == "body of e-001")?;
        (name == "SendMessageBatch").then_some(Fault::Rejected(vec![place], "InvalidMessageContents", true))
    });

    let report = redriven(&stack, "calls").await;

    assert_eq!((report.moved, report.is_success()), (3, false), "{report:?}");
    assert_eq!(sqs.events("calls.fifo"), ["e-000", "e-002", "e-004"]);
    assert_eq!(sqs.events("calls-dead.fifo"), ["e-001", "e-003", "e-005"]);
}

#[tokio::test]
async fn drain_after_split_moves_only_the_kind() {
    let sqs = sqs().await;
    let stack = sqs.info(&ROUTES);
    sqs.put("messages", message("written", &[("field", "messages"), ("kind", "messages")]));
    sqs.put("messages", message("read", &[("field", "messages"), ("kind", "statuses")]));

    let report = run(&only(redrive::drain(&stack, &field("messages"), "a-stack-messages", None).await.unwrap())).await;

    assert_eq!((report.moved, report.not_selected), (1, 1), "{report:?}");
    assert_eq!(
        (sqs.events("messages"), sqs.events("messages-statuses")),
        (vec!["written".into()], vec!["read".into()])
    );
}

/// SQS would confirm the message and drop it as a duplicate, so that its deletion would lose it.
#[tokio::test]
async fn recent_dead_letter_of_fifo_queue_stays() {
    let sqs = Sqs::start(&["unrouted", "calls.fifo", "calls-dead.fifo"]).await;
    let stack = sqs.info(&[("*", "unrouted"), ("calls", "calls.fifo")]);
    sqs.put("calls-dead.fifo", Stored { group: Some("one".to_owned()), ..dead("old") });
    let young = Stored { group: Some("two".to_owned()), sent: now() - 240_000, ..dead("young") };
    sqs.put("calls-dead.fifo", young);

    let report = redriven(&stack, "calls").await;

    assert_eq!((report.moved, report.too_recent, report.is_success()), (1, 1, false));
    assert_eq!((sqs.events("calls.fifo"), sqs.events("calls-dead.fifo")), (vec!["old".into()], vec!["young".into()]));
}
