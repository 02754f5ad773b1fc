//! Moves messages over an SQS that fails in the ways that SQS does, and that kills the mover between any two calls.

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit, Mac};
use ingress_tools::{
    aws::{cli::AwsCli, stack_info::StackInfo},
    queues::{
        backlog::Backlogs,
        queue::Counts,
        redrive::{self, RedriveError},
        selection::Field,
        transfer::{Transfer, TransferLimits, TransferReport},
    },
};
use serde_json::{Value, json};

use crate::sqs::{Fault, Sqs, Stored, VERIFY_TOKEN, now, text};

const FAST: TransferLimits = TransferLimits { rate: 1_000_000, max_messages: usize::MAX };
static GOING_ON: AtomicBool = AtomicBool::new(false);
const ROUTES: [(&str, &str); 4] =
    [("*", "unrouted"), ("calls", "calls"), ("messages", "messages"), ("messages.statuses", "messages-statuses")];

async fn sqs() -> Sqs {
    Sqs::start(&["unrouted", "calls", "calls-dead", "messages", "messages-dead", "messages-statuses"]).await
}

fn field(text: &str) -> Field {
    text.parse().unwrap()
}

async fn run(one: &Transfer) -> TransferReport {
    one.run(FAST, &GOING_ON, |_| ()).await
}

async fn redriven(stack: &StackInfo, name: &str) -> TransferReport {
    let moves = redrive::redrive(stack, &field(name)).await.unwrap();
    assert_eq!(moves.len(), 1);
    run(&moves[0]).await
}

async fn rerouted(stack: &StackInfo, name: &str) -> TransferReport {
    run(&redrive::reroute(stack, &field(name)).unwrap()).await
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
async fn only_the_reason_is_dropped() {
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
async fn what_is_not_for_the_field_is_received_once_and_shown_again() {
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
    assert!(left.iter().all(|message| message.receives == 1 && message.hidden <= now()), "{left:#?}");
    assert!(left.iter().all(|message| message.longest > 120), "for as long as the pass may take: {left:#?}");
}

#[tokio::test]
async fn a_field_with_two_queues_is_told_apart_by_kind() {
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

#[tokio::test]
async fn a_dead_letter_goes_back_to_the_queue_that_gave_it_up() {
    let sqs = sqs().await;
    let stack = sqs.info(&[("*", "unrouted"), ("calls", "calls"), ("flows", "calls")]);
    sqs.put("calls-dead", dead("ours"));
    sqs.put("calls-dead", message("theirs", &[("field", "flows")]));
    sqs.put("calls-dead", message("by-hand", &[]));

    let report = redriven(&stack, "calls").await;

    assert_eq!((report.moved, report.not_selected), (2, 1), "{report:?}");
    assert_eq!(sqs.events("calls"), ["ours", "by-hand"]);
    let kind = redriven(&stack, "flows.messages").await;
    assert_eq!((kind.moved, kind.not_selected), (0, 1), "a kind leaves what is not of it");
}

#[tokio::test]
async fn what_has_no_queue_is_not_touched() {
    let sqs = sqs().await;
    let stack = sqs.info(&ROUTES);

    assert!(matches!(redrive::reroute(&stack, &field("flows")), Err(RedriveError::NoRoute(_))));
    assert!(matches!(redrive::redrive(&stack, &field("flows")).await, Err(RedriveError::NoRoute(_))));
    let receipts = redrive::redrive(&stack, &field("messages.statuses")).await;
    assert!(matches!(receipts, Err(RedriveError::NoDeadLetterQueue(name)) if name == "a-stack-messages-statuses"));
    assert!(sqs.account().calls.iter().all(|(call, _)| call == "GetQueueAttributes"));
}

#[tokio::test]
async fn a_count_receives_nothing() {
    let sqs = sqs().await;
    sqs.put("calls-dead", dead("e"));

    let moves = redrive::redrive(&sqs.info(&ROUTES), &field("calls")).await.unwrap();
    let waits = moves[0].counts().await.unwrap();
    assert_eq!((waits.from.counts.visible, waits.to[0].queue.as_str()), (1, "a-stack-calls"));

    assert!(sqs.account().calls.iter().all(|(call, _)| call == "GetQueueAttributes"));
    assert_eq!(sqs.on("calls-dead")[0].receives, 0);
}

#[tokio::test]
async fn queues_are_counted_even_where_no_age_is_told() {
    let sqs = Sqs::start(&["unrouted", "calls", "calls-dead"]).await;
    let stack = sqs.info(&[("*", "unrouted"), ("calls", "calls"), ("flows", "calls")]);
    sqs.put("calls", dead("waiting"));
    sqs.put("calls", Stored { hidden: now() + 60_000, ..dead("in-flight") });
    sqs.put("calls-dead", dead("dead"));

    let told = backlogs(&stack).await;

    let [calls, unrouted] = told.queues.as_slice() else { panic!("{told:?}") };
    let counts = |visible, in_flight| Counts { visible, in_flight, delayed: 0 };
    assert_eq!((calls.depth.queue.as_str(), calls.depth.counts), ("a-stack-calls", counts(1, 1)));
    assert_eq!(calls.routes, ["calls", "flows"]);
    let dead = calls.dead_letter_queue.as_ref().unwrap();
    assert_eq!((dead.queue.as_str(), dead.counts), ("a-stack-calls-dead", counts(1, 0)));
    assert_eq!((unrouted.depth.counts.total(), &unrouted.dead_letter_queue), (0, &None));
    assert!(told.has_unknown_age() && told.ages_error.unwrap().starts_with("the AWS CLI is not installed"));
    assert!(told.other_queues.is_empty() && told.other_queues_error.is_none());
    let is_count = |call: &str| call == "GetQueueAttributes" || call == "ListQueues";
    assert!(sqs.account().calls.iter().all(|(call, _)| is_count(call)));
}

async fn backlogs(stack: &StackInfo) -> Backlogs {
    Backlogs::of(stack, &AwsCli { program: "no/such/aws".into() }).await.unwrap()
}

#[tokio::test]
async fn queues_without_a_route_are_listed() {
    let names = ["unrouted", "calls", "calls-dead", "flows", "flows-dead", "staging-calls", "security.fifo"];
    let sqs = Sqs::start(&names).await;
    sqs.account().queues.insert("a-stacked-calls".to_owned(), Vec::new());
    let stack = sqs.info(&[("*", "unrouted"), ("calls", "calls")]);
    sqs.put("flows", dead("left"));
    sqs.put("flows", Stored { hidden: now() + 60_000, ..dead("in-flight") });

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

    assert_eq!(backlogs.queues[0].depth.counts.visible, 1);
    let reason = backlogs.other_queues_error.unwrap();
    assert_eq!(reason, "cannot list the queues with the prefix a-stack-: AccessDenied: as told");
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

/// Whatever call is the last one, done or not, and however often.
#[tokio::test]
async fn killed_between_any_two_calls_it_loses_nothing() {
    const MESSAGES: usize = 23;
    for done in [true, false] {
        for last in 0.. {
            let sqs = sqs().await;
            let stack = sqs.info(&ROUTES);
            for (number, event) in numbered("e-", MESSAGES).iter().enumerate() {
                let field = if number % 4 == 3 { "flows" } else { "calls" };
                sqs.put("unrouted", misplaced(event, field, ""));
            }
            let before = sqs.events("unrouted");
            let fault = if done { Fault::Killed } else { Fault::KilledBefore };
            sqs.script(move |number, _, _| (number == last).then(|| fault.clone()));
            let one = redrive::reroute(&stack, &field("calls")).unwrap();
            let finished = tokio::select! {
                report = run(&one) => Some(report),
                () = sqs.kills.notified() => None,
            };
            sqs.mend();
            let everywhere = sorted([sqs.events("unrouted"), sqs.events("calls")].concat());
            assert!(before.iter().all(|event| everywhere.contains(event)), "lost at call {last}: {everywhere:?}");
            if let Some(report) = finished {
                assert_eq!((report.moved, report.not_selected, last > 12), (18, 5, true), "{report:?}");
                break;
            }
            sqs.show_all();
            assert!(rerouted(&stack, "calls").await.is_success());
            let mut arrived = sorted(sqs.events("calls"));
            assert!(arrived.len() <= 18 + 10, "at max_messages one batch is doubled: {arrived:?}");
            arrived.dedup();
            assert_eq!((arrived.len(), sqs.on("unrouted").len()), (18, 5));
        }
    }
}

#[tokio::test]
async fn a_message_that_its_queue_refuses_stays_and_the_others_go() {
    let sqs = sqs().await;
    for event in numbered("e-", 12) {
        sqs.put("calls-dead", dead(&event));
    }
    sqs.script(|_, name, entries| {
        let place = entries.iter().position(|entry| entry["MessageBody"] == "body of e-004")?;
        (name == "SendMessageBatch").then_some(Fault::Refused(vec![place], "InvalidMessageContents", true))
    });

    let report = redriven(&sqs.info(&ROUTES), "calls").await;

    assert_eq!((report.moved, report.is_success()), (11, false));
    assert_eq!(report.rejected.get("InvalidMessageContents"), Some(&1));
    let [left] = sqs.on("calls-dead").try_into().unwrap();
    assert_eq!((text(&left.attributes, "event_id").as_str(), left.receives), ("e-004", 1));
    assert!(left.hidden <= now());
}

#[tokio::test]
async fn what_fails_for_the_moment_is_tried_again() {
    let sqs = sqs().await;
    for event in numbered("e-", 12) {
        sqs.put("calls-dead", dead(&event));
    }
    let mut sends = 0;
    let mut deletions = 0;
    sqs.script(move |_, name, _| match name {
        "SendMessageBatch" => {
            sends += 1;
            // The client itself tries a throttled call three times.
            [Fault::Refused(vec![2, 7], "InternalError", false), Fault::Unmentioned(vec![0])]
                .into_iter()
                .chain((0..3).map(|_| Fault::Error(400, "RequestThrottled")))
                .nth(sends - 1)
        }
        "DeleteMessageBatch" => {
            deletions += 1;
            [Fault::Refused(vec![0, 1], "InternalError", false), Fault::Error(500, "InternalError")]
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

/// SQS flags such entries as the sender's fault, although the same message may be stored a moment later.
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
            (name == "SendMessageBatch" && throttled >= 0).then(|| Fault::Refused(vec![1, 4], code, true))
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
            (name == "SendMessageBatch").then(|| Fault::Refused((1..10).collect(), code, true))
        });

        let report = redriven(&sqs.info(&ROUTES), "calls").await;

        assert_eq!((report.moved, &report.rejected), (1, &[].into()), "{code}: {report:?}");
        assert_eq!(report.stop_reason.unwrap(), format!("cannot send to a-stack-calls: {code}"));
        let sends = sqs.account().calls.iter().filter(|(call, _)| call == "SendMessageBatch").count();
        assert_eq!((sends, sqs.on("calls").len()), (1, 1));
        let left = sqs.on("calls-dead");
        assert!(left.len() == 24 && left.iter().all(|one| one.hidden <= now()), "{left:#?}");
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
async fn what_cannot_be_deleted_ends_the_run_before_more_is_doubled() {
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
async fn a_queue_that_is_not_there_ends_the_run_at_once() {
    let sqs = sqs().await;
    sqs.put("calls-dead", dead("e"));
    sqs.script(|_, name, _| (name == "SendMessageBatch").then_some(Fault::Error(400, "QueueDoesNotExist")));

    let report = redriven(&sqs.info(&ROUTES), "calls").await;

    assert!(report.stop_reason.unwrap().contains("cannot send to a-stack-calls: "));
    let sends = sqs.account().calls.iter().filter(|(call, _)| call == "SendMessageBatch").count();
    assert_eq!((sends, sqs.on("calls-dead")[0].hidden <= now()), (1, true), "shown again");
}

#[tokio::test]
async fn large_messages_go_in_calls_that_sqs_takes() {
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
async fn what_fails_again_meanwhile_does_not_go_round() {
    let sqs = sqs().await;
    for event in numbered("e-", 3) {
        sqs.put("calls-dead", dead(&event));
    }
    sqs.put("calls-dead", Stored { sent: now() + 60_000, ..dead("back") });

    let report = redriven(&sqs.info(&ROUTES), "calls").await;

    assert_eq!((report.moved, report.arrived_during_run, report.is_success()), (3, 1, true));
    assert_eq!(sqs.events("calls-dead"), ["back"]);
}

#[tokio::test]
async fn no_more_go_than_are_asked_for_nor_faster() {
    let sqs = sqs().await;
    for event in numbered("e-", 40) {
        sqs.put("calls-dead", dead(&event));
    }
    let all = redrive::redrive(&sqs.info(&ROUTES), &field("calls")).await.unwrap();
    let began = Instant::now();

    let report = all[0].run(TransferLimits { rate: 20, max_messages: 25 }, &GOING_ON, |_| ()).await;

    assert_eq!((report.moved, sqs.on("calls").len(), sqs.on("calls-dead").len()), (25, 25, 15));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn who_stops_it_finds_everything_in_sight() {
    let sqs = sqs().await;
    for event in numbered("e-", 30) {
        sqs.put("unrouted", misplaced(&event, if event.ends_with('5') { "calls" } else { "flows" }, ""));
    }
    let stop = AtomicBool::new(false);
    let one = redrive::reroute(&sqs.info(&ROUTES), &field("calls")).unwrap();

    let report =
        one.run(FAST, &stop, |report| stop.store(report.moved > 0, std::sync::atomic::Ordering::Relaxed)).await;

    assert_eq!((report.moved, report.stop_reason.as_deref()), (1, Some("interrupted")));
    assert!(sqs.on("unrouted").iter().all(|message| message.hidden <= now()));
}

fn conversation(number: &str, contact: &str) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(VERIFY_TOKEN.as_bytes()).unwrap();
    mac.update(format!("{number}\0{contact}").as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

#[tokio::test]
async fn on_a_fifo_queue_a_message_is_in_its_conversation() {
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
async fn what_a_replaced_fifo_queue_holds_is_drained_into_a_standard_one() {
    let sqs = Sqs::start(&["unrouted", "messages", "messages.fifo"]).await;
    let stack = sqs.info(&[("*", "unrouted"), ("messages", "messages")]);
    for event in numbered("e-", 15) {
        let one = message(&event, &[("field", "messages"), ("phone_number_id", "106540352242922")]);
        sqs.put("messages.fifo", Stored { group: Some("a-conversation".to_owned()), ..one });
    }

    let report = run(&redrive::drain(&stack, &field("messages"), "a-stack-messages.fifo").unwrap()).await;

    assert_eq!((report.moved, report.is_success()), (15, true), "{report:?}");
    assert_eq!(sqs.events("messages"), numbered("e-", 15));
    assert!(sqs.on("messages").iter().all(|one| one.group.as_deref() == Some("106540352242922")));
    assert!(sqs.on("messages.fifo").is_empty());
    let itself = redrive::drain(&stack, &field("messages"), "a-stack-messages");
    assert!(matches!(itself, Err(RedriveError::NoRoute(_))), "a queue is not drained into itself");
}

#[tokio::test]
async fn order_in_a_conversation_is_kept_when_one_of_it_fails() {
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
        (name == "SendMessageBatch" && failures >= 0).then_some(Fault::Refused(vec![place], "InternalError", false))
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
async fn nothing_overtakes_a_message_of_its_conversation_that_is_refused() {
    let sqs = Sqs::start(&["unrouted", "calls.fifo", "calls-dead.fifo"]).await;
    let stack = sqs.info(&[("*", "unrouted"), ("calls", "calls.fifo")]);
    for event in numbered("e-", 6) {
        let group = if event.as_bytes()[4] % 2 == 0 { "even" } else { "odd" };
        sqs.put("calls-dead.fifo", Stored { group: Some(group.to_owned()), ..dead(&event) });
    }
    sqs.script(|_, name, entries| {
        let place = entries.iter().position(|entry| entry["MessageBody"] == "body of e-001")?;
        (name == "SendMessageBatch").then_some(Fault::Refused(vec![place], "InvalidMessageContents", true))
    });

    let report = redriven(&stack, "calls").await;

    assert_eq!((report.moved, report.is_success()), (3, false), "{report:?}");
    assert_eq!(sqs.events("calls.fifo"), ["e-000", "e-002", "e-004"]);
    assert_eq!(sqs.events("calls-dead.fifo"), ["e-001", "e-003", "e-005"]);
}

#[tokio::test]
async fn what_a_queue_still_has_from_before_a_split_goes_to_the_new_one() {
    let sqs = sqs().await;
    let stack = sqs.info(&ROUTES);
    sqs.put("messages", message("written", &[("field", "messages"), ("kind", "messages")]));
    sqs.put("messages", message("read", &[("field", "messages"), ("kind", "statuses")]));

    let report = run(&redrive::drain(&stack, &field("messages"), "a-stack-messages").unwrap()).await;

    assert_eq!((report.moved, report.not_selected), (1, 1), "{report:?}");
    assert_eq!(
        (sqs.events("messages"), sqs.events("messages-statuses")),
        (vec!["written".into()], vec!["read".into()])
    );
}

/// SQS would answer that it has stored it, and drop it: what was deleted then would be lost.
#[tokio::test]
async fn a_dead_letter_whose_id_a_fifo_queue_still_remembers_stays() {
    let sqs = Sqs::start(&["unrouted", "calls.fifo", "calls-dead.fifo"]).await;
    let stack = sqs.info(&[("*", "unrouted"), ("calls", "calls.fifo")]);
    sqs.put("calls-dead.fifo", Stored { group: Some("one".to_owned()), ..dead("old") });
    let young = Stored { group: Some("two".to_owned()), sent: now() - 240_000, ..dead("young") };
    sqs.put("calls-dead.fifo", young);

    let report = redriven(&stack, "calls").await;

    assert_eq!((report.moved, report.too_recent), (1, 1));
    assert_eq!((sqs.events("calls.fifo"), sqs.events("calls-dead.fifo")), (vec!["old".into()], vec!["young".into()]));
}
