//! Many requests in one execution environment, as on Lambda Managed Instances.

use std::time::Duration;

use fake_aws::{Call, FakeAws, Fault, Frequency};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::select;

use crate::{
    log_line,
    notification::{Change, Notification, message},
    stored::Placement::Own,
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, Response, SECRET_ID, Webhook, secret, signed},
};

const MAX_CONCURRENCY: usize = 8;

fn start_concurrent() -> Webhook {
    start_with(&[])
}

fn start_with(variables: &[(&str, &str)]) -> Webhook {
    let max_concurrency = MAX_CONCURRENCY.to_string();
    let concurrency = [("AWS_LAMBDA_MAX_CONCURRENCY", &*max_concurrency)];
    Webhook::with_aws(FakeAws::start(), &[&concurrency, variables].concat())
}

/// Makes a notification whose changes no other one has.
fn notification(name: &str, changes: usize) -> Notification {
    Notification::new((0..changes).map(|index| ("messages", message(index, &format!("{name}-{index}")))))
}

/// Delivers a notification in a request with this id.
async fn deliver(webhook: &Webhook, sent: &Notification, request_id: &str) -> Response {
    let mut event = signed(APP_SECRET, sent.body.as_bytes());
    event["requestContext"]["requestId"] = json!(request_id);
    // Without optimization, several large notifications take long.
    webhook.send_within(event, 3 * LAMBDA_TIMEOUT).await
}

/// Returns the highest sum of a figure over the calls that ran at the same time.
fn peak(calls: &[Call], figure: impl Fn(&Call) -> usize) -> usize {
    let end = |call: &Call| call.started + call.duration.unwrap();
    let sum_at = |time| calls.iter().filter(|call| call.started <= time && time < end(call)).map(&figure).sum();
    calls.iter().map(|call| sum_at(call.started)).max().unwrap()
}

#[tokio::test]
async fn as_many_requests_run_as_lambda_allows() {
    for (max_concurrency, expected) in [("", 1), ("1", 1), ("8", 8)] {
        let webhook = Webhook::with_variables(&[("AWS_LAMBDA_MAX_CONCURRENCY", max_concurrency)]);
        webhook.aws.sqs().set_latency(Duration::from_millis(150));
        let sent: Vec<_> = (0..10).map(|index| notification(&format!("n{index}"), 1)).collect();
        let responses = join_all(sent.iter().map(|sent| webhook.deliver(&sent.body))).await;
        assert!(responses.iter().all(|response| response.status == 200));
        assert_eq!(webhook.stored_messages().len(), 10);
        assert_eq!(peak(&webhook.send_calls(), |_| 1), expected, "{max_concurrency}");
    }
}

#[tokio::test]
async fn ids_traces_and_metrics_do_not_mix() {
    let webhook = start_concurrent();
    webhook.queue("security").inject_fault(Fault::access_denied(), Frequency::Always);
    webhook.queue("messages").inject_fault(Fault::reject_entry(2), Frequency::Always);
    webhook.aws.sqs().set_latency(Duration::from_millis(30));
    // Each request has another number of changes, and each third one a change for the queue that is denied.
    let requests: Vec<_> = (0..32_usize)
        .map(|index| {
            let mut sent: Vec<_> =
                (0..=index % 12).map(|change| ("messages", message(change, &format!("r{index}-{change}")))).collect();
            sent.extend((index % 3 == 0).then(|| ("security", format!(r#"{{"request":{index}}}"#))));
            let trace = format!("Root=1-5759e988-bd862e3fe1be46a9942{index:05};Sampled=1");
            (format!("request-{index}"), trace, Notification::new(sent))
        })
        .collect();
    let responses = join_all(requests.iter().map(|(id, trace, sent)| {
        // The header counts when the invocation begins, and the futures begin in order.
        let webhook = &webhook;
        async move {
            webhook.function.set_trace_header(trace);
            deliver(webhook, sent, id).await
        }
    }))
    .await;
    assert!(responses.iter().all(|response| response.status == 200));

    let stored = webhook.stored_messages();
    assert_eq!(stored.len(), requests.iter().map(|(_, _, sent)| sent.changes.len()).sum::<usize>());
    let lines: Vec<_> = webhook.function.stop().iter().map(|line| log_line::parse(line)).collect();
    for (id, trace, sent) in &requests {
        for change in &sent.changes {
            let copies: Vec<_> =
                stored.iter().filter(|(_, stored)| stored.attribute("event_id") == Some(&change.event_id)).collect();
            let [(_, copy)] = copies[..] else { panic!("{id}: {copies:?}") };
            // A diverted message has no trace header, in case SQS rejected it.
            let trace = (change.field == "messages").then_some(&**trace);
            assert_eq!((copy.attribute("request_id"), copy.trace()), (Some(&**id), trace));
        }
        let lines: Vec<_> = lines.iter().filter(|line| line["request.id"] == **id).collect();
        let (metrics, others): (Vec<&Value>, Vec<_>) = lines.iter().partition(|line| line.get("_aws").is_some());
        let [metrics] = metrics[..] else { panic!("{id}: {lines:?}") };
        let diverted = sent.changes.iter().filter(|change| change.field == "security").count();
        let messages = sent.changes.len() - diverted;
        // The fault rejects the third entry of a batch.
        let has_retries = u64::from(messages >= 3);
        let count = |name: &str| metrics.get(name).map_or(0, |count| count.as_u64().unwrap());
        let figures = ["Changes", "Stored", "Changes.messages", "Diverted"].map(count);
        let expected = [sent.changes.len(), sent.changes.len(), messages, diverted];
        assert_eq!(figures, expected.map(|count| count as u64), "{id}: {metrics}");
        assert_eq!(count("QueueRetries").min(1), has_retries, "{id}: {metrics}");
        assert_eq!(others.len(), diverted, "one error for the queue: {others:?}");
        assert!(others.iter().all(|line| line["queue.name"] == "security"));
    }
    let errors = lines.iter().filter(|line| line["level"] != "INFO").count();
    assert_eq!(errors, requests.iter().step_by(3).count(), "each error line names its request");
}

#[tokio::test]
async fn limit_of_calls_holds_for_all_requests() {
    let webhook = start_concurrent();
    webhook.aws.sqs().set_latency(Duration::from_millis(50));
    let sent: Vec<_> = (0..MAX_CONCURRENCY).map(|index| notification(&format!("n{index}"), 300)).collect();
    let responses = join_all(sent.iter().map(|sent| deliver(&webhook, sent, "r"))).await;
    assert!(responses.iter().all(|response| response.status == 200));
    assert_eq!(webhook.stored_messages().len(), MAX_CONCURRENCY * 300);
    let sends = webhook.send_calls();
    assert_eq!(sends.len(), MAX_CONCURRENCY * 30);
    // The first batch of a request never waits.
    let peak = webhook.aws.peak_calls();
    assert!((17..32 + MAX_CONCURRENCY).contains(&peak), "{peak}");
}

#[tokio::test]
async fn limit_of_bytes_holds_for_all_requests() {
    let webhook = start_concurrent();
    // Long enough for all calls to run at the same time without a limit, and shorter than the interval of a second call.
    webhook.aws.sqs().set_latency(Duration::from_millis(700));
    let text = "x".repeat(700_000);
    let large = |name: usize| Notification::new((0..4).map(|at| ("messages", message(at, &format!("{name}{text}")))));
    let sent: Vec<_> = (0..MAX_CONCURRENCY).map(large).collect();
    let responses = join_all(sent.iter().map(|sent| deliver(&webhook, sent, "r"))).await;
    assert!(responses.iter().all(|response| response.status == 200));
    let sends = webhook.send_calls();
    assert_eq!(sends.len(), MAX_CONCURRENCY * 4);
    let peak = peak(&sends, |call| call.bytes);
    // A batch may start while there is room for a part of it.
    assert!(peak < 17 << 20, "{peak}");
}

#[tokio::test]
async fn hanging_queue_delays_no_other_request() {
    let webhook = start_concurrent();
    webhook.queue("security").inject_fault(Fault::hang(), Frequency::Always);
    let hanging = Notification::new((0..300).map(|at| ("security", format!(r#"["hanging",{at}]"#))));
    let others = async {
        // The hanging calls have begun.
        while webhook.aws.peak_calls() < 16 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for round in 0..10 {
            let sent = [(1, "a"), (100, "b"), (1, "c")];
            let sent = sent.map(|(changes, name)| notification(&format!("{name}{round}"), changes));
            let responses = join_all(sent.iter().map(|sent| webhook.deliver(&sent.body))).await;
            assert!(responses.iter().all(|response| response.status == 200));
        }
    };
    let (mut hanging, mut others) = (std::pin::pin!(webhook.deliver(&hanging.body)), std::pin::pin!(others));
    select! {
        response = &mut hanging => panic!("the other requests waited for {response:?}"),
        () = &mut others => {}
    }
    assert_eq!(webhook.queue("messages").messages().len(), 10 * 102);
    assert_eq!(hanging.await.status, 200);
    assert_eq!(webhook.queue("unrouted").messages().len(), 300);
}

/// Three requests to a hanging queue hold the whole budget, and the first batch of another request hangs.
#[tokio::test]
async fn batch_without_a_permit_is_sent_at_half_time() {
    let webhook = start_concurrent();
    webhook.queue("security").inject_fault(Fault::hang(), Frequency::Always);
    let sent = Notification::new((0..20).map(|at| ("calls", format!(r#"["unrouted",{at}]"#))));
    let first = sent.changes[0].event_id.clone();
    let hang_first = Fault::delay_entries(LAMBDA_TIMEOUT, move |entry| entry.attribute("event_id") == Some(&first));
    webhook.queue("unrouted").inject_fault(hang_first, Frequency::Always);
    let deliver_after = async |calls, sent: &Notification, deadline| {
        while webhook.aws.peak_calls() < calls {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        webhook.deliver_within(&sent.body, deadline).await.status
    };
    let hanging =
        ["a", "b", "c"].map(|name| Notification::new((0..300).map(|at| ("security", format!(r#"["{name}",{at}]"#)))));
    let statuses = tokio::join!(
        deliver_after(0, &hanging[0], LAMBDA_TIMEOUT),
        deliver_after(24, &hanging[1], LAMBDA_TIMEOUT),
        deliver_after(30, &hanging[2], LAMBDA_TIMEOUT),
        deliver_after(32, &sent, Duration::from_secs(4))
    );
    assert_eq!(statuses, (200, 200, 200, 503));
    let stored = webhook.stored_messages();
    let is_stored = |change: &Change| {
        stored.iter().any(|(_, message)| message.attribute("event_id") == Some(change.event_id.as_str()))
    };
    assert!(sent.changes[10..].iter().all(is_stored), "the second batch was not sent");
}

#[tokio::test]
async fn one_reading_of_the_secret_serves_all_requests() {
    let webhook = start_concurrent();
    assert_eq!(webhook.deliver(notification("first", 1).body).await.status, 200);
    webhook.aws.set_secret(SECRET_ID, secret(&json!("the-new-one")));
    webhook.aws.secrets().set_latency(Duration::from_millis(200));
    let sent: Vec<_> = (0..MAX_CONCURRENCY).map(|index| notification(&format!("n{index}"), 1)).collect();
    let deliver = |sent: &Notification| webhook.send(signed("the-new-one", sent.body.as_bytes()));
    let responses = join_all(sent.iter().map(deliver)).await;
    assert!(responses.iter().all(|response| response.status == 200));
    assert_eq!((webhook.secret_reads(), webhook.stored_messages().len()), (2, 1 + MAX_CONCURRENCY));
}

#[tokio::test]
async fn expired_credentials_cut_off_no_answer() {
    let webhook = start_concurrent();
    webhook.function.wait_for_init(LAMBDA_TIMEOUT).await.unwrap();
    webhook.aws.secrets().inject_fault(Fault::error(400, "ExpiredTokenException"), Frequency::Always);
    webhook.aws.sqs().set_latency(Duration::from_secs(1));
    let sent: Vec<_> = (1..MAX_CONCURRENCY).map(|index| notification(&format!("n{index}"), 1)).collect();
    let unknown = notification("unknown", 1);
    let (responses, unknown) = tokio::join!(
        join_all(sent.iter().map(|sent| webhook.deliver(&sent.body))),
        webhook.send(signed("the-new-one", unknown.body.as_bytes()))
    );
    assert!(responses.iter().all(|response| response.status == 200));
    assert_eq!((unknown.status, webhook.stored_messages().len()), (503, MAX_CONCURRENCY - 1));
    for _ in 0..500 {
        if webhook.function.has_exited() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(webhook.function.has_exited());
}

#[tokio::test]
async fn copies_are_as_with_one_request_at_a_time() {
    let webhook = start_concurrent();
    let faults = [Fault::internal_error(), Fault::throttled(), Fault::drop_connection(), Fault::drop_unread()];
    for (seed, fault) in (0..).zip(faults) {
        webhook.aws.sqs().inject_fault(fault, Frequency::Random { probability: 0.05, seed });
    }
    let sent: Vec<_> = (0..40).map(|index| notification(&format!("n{index}"), 1 + 7 * index % 60)).collect();
    let responses = join_all(sent.iter().map(|sent| webhook.deliver(&sent.body))).await;
    assert!(responses.iter().all(|response| response.status == 200));
    let all = Notification { body: String::new(), changes: sent.into_iter().flat_map(|sent| sent.changes).collect() };
    assert_eq!(webhook.copies(&all), vec![vec![Own]; all.changes.len()]);
}
