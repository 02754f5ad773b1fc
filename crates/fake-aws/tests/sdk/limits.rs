//! SQS's limits: which fail the call and which one entry, and the exact edge of each.

use crate::{attribute, code, entries, entry, send, sqs};
use aws_sdk_sqs::types::{MessageAttributeValue, MessageSystemAttributeValue, SendMessageBatchRequestEntry};
use fake_aws::FakeAws;

const LIMIT: usize = 1_048_576;

#[tokio::test]
async fn a_batch_has_one_to_ten_entries_with_distinct_ids_of_the_alphabet() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    let batch = |ids: &[&str]| ids.iter().map(|id| entry(id, "b")).collect::<Vec<_>>();
    let error = send(&client, &queue, vec![]).await.expect_err("it is empty").into_service_error();
    assert!(error.is_empty_batch_request(), "{error:?}");
    let error = send(&client, &queue, entries(11)).await.expect_err("it is too many").into_service_error();
    assert!(error.is_too_many_entries_in_batch_request(), "{error:?}");
    let error = send(&client, &queue, batch(&["a", "b", "a"])).await.expect_err("a is twice").into_service_error();
    assert!(error.is_batch_entry_ids_not_distinct(), "{error:?}");
    for id in ["", "a b", "a.b", "ä", &"a".repeat(81)] {
        let error = send(&client, &queue, batch(&["ok", id])).await.expect_err("id").into_service_error();
        assert!(error.is_invalid_batch_entry_id(), "{id}: {error:?}");
    }
    assert!(queue.messages().is_empty(), "a call that fails stores nothing");
    let output = send(&client, &queue, batch(&["a-Z_9", &"a".repeat(80)])).await.expect("both ids are allowed");
    assert_eq!(output.successful().len(), 2);
}

#[tokio::test]
async fn a_batch_has_at_most_one_mebibyte_of_bodies_and_attributes_in_bytes() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    // The attribute counts 4 + 6 + 5 bytes; "ü" counts two.
    let batch = |bytes: usize| {
        let mut with_attribute = entry("a", &"ü".repeat(LIMIT / 4));
        with_attribute.message_attributes = Some([("name".to_owned(), attribute("String", "välu"))].into());
        vec![with_attribute, entry("b", &"x".repeat(bytes - LIMIT / 2 - 4 - 6 - 5))]
    };
    let output = send(&client, &queue, batch(LIMIT)).await.expect("it is exactly the limit");
    assert_eq!(output.successful().len(), 2);
    let error = send(&client, &queue, batch(LIMIT + 1)).await.expect_err("it is a byte more").into_service_error();
    assert!(error.is_batch_request_too_long(), "{error:?}");
    let message = error.meta().message().unwrap_or_default();
    assert_eq!(message, "Batch requests cannot be longer than 1048576 bytes. You have sent 1048577 bytes.");
    assert_eq!(queue.messages().len(), 2);
}

#[tokio::test]
async fn a_queue_that_is_not_there_is_known_before_the_batch_is_looked_at() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    queue.delete();
    for batch in [entries(1), vec![]] {
        let error = send(&client, &queue, batch).await.expect_err("there is no queue").into_service_error();
        assert!(error.is_queue_does_not_exist(), "{error:?}");
    }
}

#[tokio::test]
async fn one_entry_without_group_or_deduplication_id_fails_the_whole_call_to_a_fifo_queue() {
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
    assert!(queue.messages().is_empty());
}

/// Sends a good entry on both sides of a bad one, and expects that only the bad one is refused.
async fn is_refused_alone(what: &str, bad: SendMessageBatchRequestEntry, expected: &str) {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    let output = send(&client, &queue, vec![entry("before", "b"), bad, entry("after", "b")]).await;
    let output = output.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let [failed] = output.failed() else { panic!("{what}: {output:?}") };
    assert_eq!((failed.id(), failed.code(), failed.sender_fault()), ("bad", expected, true), "{what}");
    assert_eq!(queue.messages().iter().map(|message| message.id.as_str()).collect::<Vec<_>>(), ["before", "after"]);
}

async fn is_accepted(what: &str, entry: SendMessageBatchRequestEntry) {
    let aws = FakeAws::start();
    let output = send(&sqs(&aws).await, &aws.queue("messages"), vec![entry]).await.expect("the call succeeds");
    assert!(output.failed().is_empty(), "{what}: {output:?}");
}

fn with_attribute(name: &str, value: MessageAttributeValue) -> SendMessageBatchRequestEntry {
    let mut entry = entry("bad", "b");
    entry.message_attributes = Some([(name.to_owned(), value)].into());
    entry
}

#[tokio::test]
async fn bodies_have_a_character_and_no_forbidden_one() {
    is_refused_alone("empty", entry("bad", ""), "MissingParameter").await;
    for body in ["a\u{0}", "\u{1b}", "\u{fffe}", "x\u{ffff}"] {
        is_refused_alone(&body.escape_unicode().to_string(), entry("bad", body), "InvalidMessageContents").await;
    }
    is_accepted("edges", entry("e", "\t\r\n \u{7f}\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}")).await;
}

#[tokio::test]
async fn a_body_longer_than_its_queue_allows_is_refused_alone() {
    let aws = FakeAws::start();
    let (queue, client) = (aws.queue("messages"), sqs(&aws).await);
    queue.set_maximum_message_size(1024);
    let batch = vec![entry("long", &"x".repeat(1025)), entry("fits", &"x".repeat(1024))];
    let output = send(&client, &queue, batch).await.expect("the call succeeds");
    assert_eq!((output.failed()[0].id(), output.failed()[0].code()), ("long", "InvalidParameterValue"));
    assert_eq!(output.successful()[0].id(), "fits");
}

#[tokio::test]
async fn attributes_are_ten_at_most_with_names_types_and_values_of_their_alphabets() {
    let many = |count: usize| {
        let mut entry = entry("bad", "b");
        entry.message_attributes = Some((0..count).map(|n| (format!("a{n}"), attribute("String", "v"))).collect());
        entry
    };
    is_accepted("ten attributes", many(10)).await;
    is_refused_alone("eleven attributes", many(11), "InvalidParameterValue").await;

    let good = || attribute("String", "v");
    for name in ["a", "A-z_0.9", &"n".repeat(256)] {
        is_accepted(name, with_attribute(name, good())).await;
    }
    for name in ["", "a b", "ä", ".a", "a.", "a..b", "AWS.a", "amazon.a", &"n".repeat(257)] {
        is_refused_alone(name, with_attribute(name, good()), "InvalidParameterValue").await;
    }
    for (data_type, value) in [("String", "v"), ("String.json", "{}"), ("Number", "-1.5e3"), ("Number.int", "7")] {
        is_accepted(data_type, with_attribute("a", attribute(data_type, value))).await;
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
        let what = format!("{data_type} {}", value.escape_unicode());
        is_refused_alone(&what, with_attribute("a", attribute(data_type, value)), "InvalidParameterValue").await;
    }
}

#[tokio::test]
async fn a_standard_queue_takes_group_ids_of_the_alphabet_and_no_deduplication_ids() {
    let group = |group: &str| {
        let mut entry = entry("bad", "b");
        entry.message_group_id = Some(group.to_owned());
        entry
    };
    for id in ["-", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~aZ9", &"g".repeat(128)] {
        is_accepted(id, group(id)).await;
    }
    for id in ["", "a b", "ä", "\t", &"g".repeat(129)] {
        is_refused_alone(id, group(id), "InvalidParameterValue").await;
    }
    let mut deduplicated = entry("bad", "b");
    deduplicated.message_deduplication_id = Some("d".to_owned());
    is_refused_alone("deduplication id", deduplicated, "InvalidParameterValue").await;
}

fn with_system_attribute(name: &str, data_type: &str, value: &str) -> SendMessageBatchRequestEntry {
    let mut entry = entry("bad", "b");
    let value = MessageSystemAttributeValue::builder().data_type(data_type).string_value(value).build();
    entry.message_system_attributes = Some([(name.into(), value.expect("a type is there"))].into());
    entry
}

#[tokio::test]
async fn the_only_system_attribute_is_a_well_formed_trace_header_that_counts_towards_no_limit() {
    const ROOT: &str = "Root=1-5759e988-bd862e3fe1be46a994272793";
    for rest in ["", ";Sampled=1", ";Parent=53995c3f42cd8ad8;Sampled=0;Lineage=1:a87bd80c:0"] {
        is_accepted(rest, with_system_attribute("AWSTraceHeader", "String", &format!("{ROOT}{rest}"))).await;
    }
    for header in ["", "1-5759e988-bd862e3fe1be46a994272793", "Root=dummy;Sampled=1", &format!("{ROOT};Sampled=2")] {
        let bad = with_system_attribute("AWSTraceHeader", "String", header);
        is_refused_alone(header, bad, "InvalidParameterValue").await;
    }
    for (name, data_type) in [("AWSTraceHeader", "Number"), ("Other", "String")] {
        is_refused_alone(name, with_system_attribute(name, data_type, ROOT), "InvalidParameterValue").await;
    }
    let mut full = with_system_attribute("AWSTraceHeader", "String", ROOT);
    full.message_body = "x".repeat(LIMIT);
    is_accepted("a full message", full).await;
}
