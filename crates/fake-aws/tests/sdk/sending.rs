//! Stored messages, and the responses of SQS.

use crate::{attribute, entries, entry, send, sqs};
use aws_sdk_sqs::primitives::Blob;
use aws_sdk_sqs::types::{MessageAttributeValue, MessageSystemAttributeNameForSends, MessageSystemAttributeValue};
use fake_aws::FakeAws;

#[tokio::test]
async fn batch_is_stored_completely_and_in_order() {
    let aws = FakeAws::start();
    let queue = aws.queue("messages");
    let mut batch = entries(9);
    let mut full = entry("full", "käse \u{1f9c0} \"\\ \r\n\t");
    full.message_group_id = Some("1029384756".to_owned());
    let binary = MessageAttributeValue::builder().data_type("Binary").binary_value(Blob::new([0, 255])).build();
    full.message_attributes = Some(
        [
            ("field".to_owned(), attribute("String", "messages")),
            ("ExtendedPayloadSize".to_owned(), attribute("Number", "1048577")),
            ("raw".to_owned(), binary.expect("a type is there")),
        ]
        .into(),
    );
    batch.push(full);

    let output = send(&sqs(&aws).await, &queue, batch).await.expect("the batch is within the limits");
    assert!(output.failed().is_empty());
    let stored = queue.messages();
    let ids = |ids: Vec<&str>| ids.join(" ");
    assert_eq!(
        ids(output.successful().iter().map(aws_sdk_sqs::types::SendMessageBatchResultEntry::message_id).collect()),
        ids(stored.iter().map(|message| message.message_id.as_str()).collect())
    );
    assert_eq!(ids(stored.iter().map(|message| message.id.as_str()).collect()), "e0 e1 e2 e3 e4 e5 e6 e7 e8 full");
    let full = &stored[9];
    assert_eq!(full.body, "käse \u{1f9c0} \"\\ \r\n\t");
    assert_eq!(full.group_id.as_deref(), Some("1029384756"));
    assert_eq!(full.attribute("field"), Some("messages"));
    assert_eq!(full.attribute("ExtendedPayloadSize"), Some("1048577"));
    assert_eq!(full.attributes["raw"].bytes.as_deref(), Some([0, 255].as_slice()));

    let calls = aws.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!((full.call, calls[0].entries, calls[0].connection, calls[0].status), (0, 10, 1, Some(200)));
    assert_eq!((calls[0].operation.as_str(), calls[0].queue.as_deref()), ("SendMessageBatch", Some("messages")));
    assert!(calls[0].bytes > 500 && calls[0].duration.is_some());
}

#[tokio::test]
async fn response_has_digests_of_sqs() {
    let aws = FakeAws::start();
    let queue = aws.queue("messages");
    let mut entry = entry("e", "msg");
    entry.message_attributes = Some([("Foo".to_owned(), attribute("String", "Bar"))].into());
    let trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1";
    let trace = MessageSystemAttributeValue::builder().data_type("String").string_value(trace).build();
    let trace = trace.expect("a type is there");
    entry.message_system_attributes = Some([(MessageSystemAttributeNameForSends::AwsTraceHeader, trace)].into());
    let output = send(&sqs(&aws).await, &queue, vec![entry]).await.expect("the batch is within the limits");
    assert_eq!(output.successful()[0].md5_of_message_body(), "6e2baaf3b97dbeef01c0043275f9a0e7");
    assert_eq!(output.successful()[0].md5_of_message_attributes(), Some("ae7155c6026991b6d54b11589678bf9c"));
    // Computed with another implementation, from `AWSTraceHeader`, `String` and the value.
    let digest = output.successful()[0].md5_of_message_system_attributes();
    assert_eq!(digest, Some("5f48eef650c1d0207456969c85af2fdd"));
}

#[tokio::test]
async fn duplicate_on_fifo_queue_gets_same_receipt() {
    let aws = FakeAws::start();
    let queue = aws.queue("messages.fifo");
    let mut entry = entry("e", "first");
    entry.message_group_id = Some("g".to_owned());
    entry.message_deduplication_id = Some("d".to_owned());
    let mut duplicate = entry.clone();
    duplicate.message_body = "second".to_owned();
    let client = sqs(&aws).await;
    let first = send(&client, &queue, vec![entry]).await.expect("the batch is within the limits");
    let second = send(&client, &queue, vec![duplicate]).await.expect("a duplicate is accepted");
    assert_eq!(first.successful()[0].message_id(), second.successful()[0].message_id());
    assert!(first.successful()[0].sequence_number().is_some());
    assert_eq!(queue.messages().iter().map(|message| message.body.as_str()).collect::<Vec<_>>(), ["first"]);
}

#[tokio::test]
async fn single_message_is_stored() {
    let aws = FakeAws::start();
    let queue = aws.queue("messages");
    let client = sqs(&aws).await;
    let sent =
        client.send_message().queue_url(queue.url()).message_body("b").send().await.expect("the message is valid");
    let stored = queue.take_messages();
    assert_eq!(sent.message_id(), Some(stored[0].message_id.as_str()));
    assert_eq!(stored[0].body, "b");
    assert!(queue.messages().is_empty());
    let result = client.send_message().queue_url(queue.url()).message_body("\u{1}").send().await;
    assert!(result.expect_err("the character is not allowed").into_service_error().is_invalid_message_contents());
}
