//! Builds the batch entry that sends a received message to another queue.

use std::collections::HashMap;

use aws_sdk_sqs::types::{
    Message, MessageAttributeValue, MessageSystemAttributeName, MessageSystemAttributeNameForSends,
    MessageSystemAttributeValue, SendMessageBatchRequestEntry,
};
use whatsapp_webhook::{
    message::{self, DEFAULT_GROUP_ID, RequestContext, is_group_id},
    notification::{Fragment, split},
};

const UNROUTED_REASON: &str = "unrouted_reason";

/// What a message leaves and where it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'w> {
    pub(crate) from_fifo: bool,
    pub(crate) to_fifo: bool,
    /// The key of the conversations' group ids, which the function has too.
    pub(crate) group_key: &'w str,
}

/// The text of a message attribute, if it is one.
pub(crate) fn attribute<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    message.message_attributes.as_ref()?.get(name)?.string_value.as_deref()
}

/// What SQS tells of a message.
pub(crate) fn system_attribute<'m>(message: &'m Message, name: &MessageSystemAttributeName) -> Option<&'m str> {
    message.attributes.as_ref()?.get(name).map(String::as_str)
}

/// The entry that sends a message again: body, attributes and trace as they are, without the reason why it was where it
/// was, in the group and with the deduplication id that its new queue asks for.
pub(crate) fn entry(id: usize, message: &Message, way: Way<'_>) -> SendMessageBatchRequestEntry {
    let trace = system_attribute(message, &MessageSystemAttributeName::AwsTraceHeader).map(|trace| {
        let value = MessageSystemAttributeValue::builder().data_type("String").string_value(trace).build();
        HashMap::from([(MessageSystemAttributeNameForSends::AwsTraceHeader, value.expect("has a data type"))])
    });
    SendMessageBatchRequestEntry::builder()
        .id(id.to_string())
        .message_body(message.body.as_deref().unwrap_or_default())
        .set_message_attributes(Some(attributes(message)))
        .set_message_system_attributes(trace)
        .set_message_group_id(group_id(message, way))
        .set_message_deduplication_id(way.to_fifo.then(|| deduplication_id(message)))
        .build()
        .expect("has an id and a body")
}

/// Bytes that SQS counts for the message as it is sent again; the trace is not among them.
pub(crate) fn size(message: &Message) -> usize {
    let attributes = attributes(message);
    let attributes = attributes.iter().map(|(name, value)| {
        let text = value.string_value.as_ref().map_or(0, String::len);
        let binary = value.binary_value.as_ref().map_or(0, |bytes| bytes.as_ref().len());
        name.len() + value.data_type.len() + text + binary
    });
    message.body.as_ref().map_or(0, String::len) + attributes.sum::<usize>()
}

fn attributes(message: &Message) -> HashMap<String, MessageAttributeValue> {
    let mut attributes = message.message_attributes.clone().unwrap_or_default();
    attributes.remove(UNROUTED_REASON);
    attributes
}

/// The message group of the contract. The attributes decide if the body is not a change, for example a pointer to S3;
/// then the conversation is unknown, and a FIFO queue groups the message by its number or account.
pub(crate) fn group_id(message: &Message, way: Way<'_>) -> Option<String> {
    if way.from_fifo == way.to_fifo {
        return system_attribute(message, &MessageSystemAttributeName::MessageGroupId).map(str::to_owned);
    }
    let context = RequestContext { request_id: "", trace: None, group_key: way.group_key };
    if let [change @ Fragment::Change(_)] = split(message.body.as_deref().unwrap_or_default().as_bytes()).as_slice() {
        return Some(message::group_id(change, context, way.to_fifo));
    }
    let attributes = ["phone_number_id", "entry_id"].into_iter().filter_map(|name| attribute(message, name));
    Some(attributes.into_iter().find(|group| is_group_id(group)).unwrap_or(DEFAULT_GROUP_ID).to_owned())
}

/// The event id, or else the message id, which stays the same with each receive. Only messages of the function have an event id.
fn deduplication_id(message: &Message) -> String {
    attribute(message, "event_id").or(message.message_id.as_deref()).unwrap_or_default().to_owned()
}
