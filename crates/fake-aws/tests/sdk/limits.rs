//! The limits of SQS: the exact value of each, and whether a violation fails the call or rejects one entry.

use crate::{attribute, code, entries, entry, send, sqs};
use aws_sdk_sqs::types::{MessageAttributeValue, MessageSystemAttributeValue, SendMessageBatchRequestEntry};
use fake_aws::FakeAws;

const LIMIT: usize = 1_048_576;

#[tokio::test]
async fn batch_limits_entry_count_and_ids() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    let batch = |ids: &[&str]| ids.iter().map(|id| entry(id, "b")).collect::<Vec<_>>();
    let error = send(&client, &queue, vec![]).await.expect_err("the batch is empty").into_service_error();
    assert!(error.is_empty_batch_request(), "{error:?}");
    let error = send(&client, &queue, entries(11)).await.expect_err("there are too many entries").into_service_error();
    assert!(error.is_too_many_entries_in_batch_request(), "{error:?}");
    let error =
        send(&client, &queue, batch(&["a", "b", "a"])).await.expect_err("the id is used twice").into_service_error();
    assert!(error.is_batch_entry_ids_not_distinct(), "{error:?}");
    for id in ["", "a b", "a.b", "ä", &"a".repeat(81)] {
        let error =
            send(&client, &queue, batch(&["ok", id])).await.expect_err("the id is invalid").into_service_error();
        assert!(error.is_invalid_batch_entry_id(), "{id}: {error:?}");
    }
    assert!(queue.messages().is_empty(), "a failed call stores nothing");
    let output = send(&client, &queue, batch(&["a-Z_9", &"a".repeat(80)])).await.expect("both ids are allowed");
    assert_eq!(output.successful().len(), 2);
}

#[tokio::test]
async fn batch_over_one_mebibyte_is_rejected() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    // The attribute counts 4 + 6 + 5 bytes; "ü" counts two.
    let batch = |bytes: usize| {
        let mut with_attribute = entry("a", &"ü".repeat(LIMIT / 4));
        with_attribute.message_attributes = Some([("name".to_owned(), attribute("String", "välu"))].into());
        vec![with_attribute, entry("b", &"x".repeat(bytes - LIMIT / 2 - 4 - 6 - 5))]
    };
    let output = send(&client, &queue, batch(LIMIT)).await.expect("the size is exactly the limit");
    assert_eq!(output.successful().len(), 2);
    let error = send(&client, &queue, batch(LIMIT + 1))
        .await
        .expect_err("the size is one byte over the limit")
        .into_service_error();
    assert!(error.is_batch_request_too_long(), "{error:?}");
    let message = error.meta().message().unwrap_or_default();
    assert_eq!(message, "Batch requests cannot be longer than 1048576 bytes. You have sent 1048577 bytes.");
    assert_eq!(queue.messages().len(), 2);
}

#[tokio::test]
async fn missing_queue_is_reported_before_batch_errors() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    queue.delete();
    for batch in [entries(1), vec![]] {
        let error = send(&client, &queue, batch).await.expect_err("the queue was deleted").into_service_error();
        assert!(error.is_queue_does_not_exist(), "{error:?}");
    }
}

#[tokio::test]
async fn entry_without_fifo_ids_fails_the_call() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages.fifo"), sqs(&aws).await);
    let mut good = entry("good", "b");
    good.message_group_id = Some("g".to_owned());
    good.message_deduplication_id = Some("d1".to_owned());
    let mut no_group = entry("other", "b");
    no_group.message_deduplication_id = Some("d2".to_owned());
    let mut no_id = entry("other", "b");
    no_id.message_group_id = Some("g".to_owned());
    for bad in [no_group, no_id] {
        assert_eq!(code(send(&client, &queue, vec![good.clone(), bad]).await), "InvalidParameterValue");
    }
    let single = client.send_message().queue_url(queue.url()).message_body("b").message_deduplication_id("d3");
    assert_eq!(code(single.send().await), "MissingParameter");
    assert!(queue.messages().is_empty());
}

/// Sends an invalid entry between two valid ones, and expects that only the invalid one is rejected.
async fn expect_rejected(case: &str, bad: SendMessageBatchRequestEntry, expected: &str) {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    let output = send(&client, &queue, vec![entry("before", "b"), bad, entry("after", "b")]).await;
    let output = output.unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let [failed] = output.failed() else { panic!("{case}: {output:?}") };
    assert_eq!((failed.id(), failed.code(), failed.sender_fault()), ("bad", expected, true), "{case}");
    assert_eq!(queue.messages().iter().map(|message| message.id.as_str()).collect::<Vec<_>>(), ["before", "after"]);
}

async fn expect_accepted(case: &str, entry: SendMessageBatchRequestEntry) {
    let aws = FakeAws::start();
    let output = send(&sqs(&aws).await, &aws.queue("messages"), vec![entry]).await.expect("the call succeeds");
    assert!(output.failed().is_empty(), "{case}: {output:?}");
}

fn with_attribute(name: &str, value: MessageAttributeValue) -> SendMessageBatchRequestEntry {
    let mut entry = entry("bad", "b");
    entry.message_attributes = Some([(name.to_owned(), value)].into());
    entry
}

#[tokio::test]
async fn empty_body_or_forbidden_character_is_rejected() {
    expect_rejected("empty", entry("bad", ""), "MissingParameter").await;
    for body in ["a\u{0}", "\u{1b}", "\u{fffe}", "x\u{ffff}"] {
        expect_rejected(&body.escape_unicode().to_string(), entry("bad", body), "InvalidMessageContents").await;
    }
    expect_accepted("edges", entry("e", "\t\r\n \u{7f}\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}")).await;
}

#[tokio::test]
async fn body_over_the_queue_limit_is_rejected() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    queue.set_maximum_message_size(1024);
    let batch = vec![entry("long", &"x".repeat(1025)), entry("fits", &"x".repeat(1024))];
    let output = send(&client, &queue, batch).await.expect("the call succeeds");
    assert_eq!((output.failed()[0].id(), output.failed()[0].code()), ("long", "InvalidParameterValue"));
    assert_eq!(output.successful()[0].id(), "fits");
}

#[tokio::test]
async fn attribute_count_name_type_and_value_are_checked() {
    let many = |count: usize| {
        let mut entry = entry("bad", "b");
        entry.message_attributes = Some((0..count).map(|n| (format!("a{n}"), attribute("String", "v"))).collect());
        entry
    };
    expect_accepted("ten attributes", many(10)).await;
    expect_rejected("eleven attributes", many(11), "InvalidParameterValue").await;

    let good = || attribute("String", "v");
    for name in ["a", "A-z_0.9", &"n".repeat(256)] {
        expect_accepted(name, with_attribute(name, good())).await;
    }
    for name in ["", "a b", "ä", ".a", "a.", "a..b", "AWS.a", "amazon.a", &"n".repeat(257)] {
        expect_rejected(name, with_attribute(name, good()), "InvalidParameterValue").await;
    }
    for (data_type, value) in [("String", "v"), ("String.json", "{}"), ("Number", "-1.5e3"), ("Number.int", "7")] {
        expect_accepted(data_type, with_attribute("a", attribute(data_type, value))).await;
    }
    let bad = [
        ("", "v"),
        ("Text", "v"),
        ("string", "v"),
        ("String", ""),
        ("String", "\u{b}"),
        ("String", "\u{ffff}"),
        ("Number", "seven"),
        ("Number", ""),
        ("Binary", "v"),
    ];
    for (data_type, value) in bad {
        let case = format!("{data_type} {}", value.escape_unicode());
        expect_rejected(&case, with_attribute("a", attribute(data_type, value)), "InvalidParameterValue").await;
    }
}

#[tokio::test]
async fn standard_queue_rejects_deduplication_id() {
    let group = |group: &str| {
        let mut entry = entry("bad", "b");
        entry.message_group_id = Some(group.to_owned());
        entry
    };
    for id in ["-", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~aZ9", &"g".repeat(128)] {
        expect_accepted(id, group(id)).await;
    }
    for id in ["", "a b", "ä", "\t", &"g".repeat(129)] {
        expect_rejected(id, group(id), "InvalidParameterValue").await;
    }
    let mut deduplicated = entry("bad", "b");
    deduplicated.message_deduplication_id = Some("d".to_owned());
    expect_rejected("deduplication id", deduplicated, "InvalidParameterValue").await;
}

fn with_system_attribute(name: &str, data_type: &str, value: &str) -> SendMessageBatchRequestEntry {
    let mut entry = entry("bad", "b");
    let value = MessageSystemAttributeValue::builder().data_type(data_type).string_value(value).build();
    entry.message_system_attributes = Some([(name.into(), value.expect("a type is there"))].into());
    entry
}

#[tokio::test]
async fn only_system_attribute_is_a_valid_trace_header() {
    const ROOT: &str = "Root=1-5759e988-bd862e3fe1be46a994272793";
    for rest in ["", ";Sampled=1", ";Parent=53995c3f42cd8ad8;Sampled=0;Lineage=1:a87bd80c:0"] {
        expect_accepted(rest, with_system_attribute("AWSTraceHeader", "String", &format!("{ROOT}{rest}"))).await;
    }
    for header in ["", "1-5759e988-bd862e3fe1be46a994272793", "Root=dummy;Sampled=1", &format!("{ROOT};Sampled=2")] {
        let bad = with_system_attribute("AWSTraceHeader", "String", header);
        expect_rejected(header, bad, "InvalidParameterValue").await;
    }
    for (name, data_type) in [("AWSTraceHeader", "Number"), ("Other", "String")] {
        expect_rejected(name, with_system_attribute(name, data_type, ROOT), "InvalidParameterValue").await;
    }
    let mut full = with_system_attribute("AWSTraceHeader", "String", ROOT);
    full.message_body = "x".repeat(LIMIT);
    expect_accepted("a full message", full).await;
}
