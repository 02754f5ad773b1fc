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

/// The attributes that a message has on the catch-all queue only.
const CATCH_ALL_ATTRIBUTES: [&str; 2] = ["unrouted_reason", "diverted_from"];

/// The inputs of the group id and the deduplication id of a moved message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MoveContext<'c> {
    pub(crate) from_fifo: bool,
    pub(crate) to_fifo: bool,
    /// The function's key for the group ids of conversations.
    pub(crate) group_key: &'c str,
}

/// Returns the value of a message attribute if it is a string or a number.
pub(crate) fn attribute<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    message.message_attributes.as_ref()?.get(name)?.string_value.as_deref()
}

/// Returns an attribute that SQS itself sets on a message.
pub(crate) fn system_attribute<'m>(message: &'m Message, name: &MessageSystemAttributeName) -> Option<&'m str> {
    message.attributes.as_ref()?.get(name).map(String::as_str)
}

/// Returns the system attribute that passes on a trace.
pub(crate) fn trace_header(trace: &str) -> HashMap<MessageSystemAttributeNameForSends, MessageSystemAttributeValue> {
    let value = MessageSystemAttributeValue::builder().data_type("String").string_value(trace).build();
    HashMap::from([(MessageSystemAttributeNameForSends::AwsTraceHeader, value.expect("has a data type"))])
}

/// Builds the entry: body, attributes and trace header are the same, without the attributes of the catch-all queue.
///
/// Group and deduplication id are those that the new queue requires.
pub(crate) fn entry(id: usize, message: &Message, context: MoveContext<'_>) -> SendMessageBatchRequestEntry {
    let trace = system_attribute(message, &MessageSystemAttributeName::AwsTraceHeader).map(trace_header);
    SendMessageBatchRequestEntry::builder()
        .id(id.to_string())
        .message_body(message.body.as_deref().unwrap_or_default())
        .set_message_attributes(Some(attributes(message)))
        .set_message_system_attributes(trace)
        .set_message_group_id(group_id(message, context))
        .set_message_deduplication_id(context.to_fifo.then(|| deduplication_id(message)))
        .build()
        .expect("has an id and a body")
}

/// Returns the bytes of the entry that count towards SQS's limit. The trace header does not count.
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
    for name in CATCH_ALL_ATTRIBUTES {
        attributes.remove(name);
    }
    attributes
}

/// Determines the message group as the contract states it.
///
/// If the body is not a change, for example a pointer to S3, the conversation is unknown. The group is then the
/// business phone number or the account.
pub(crate) fn group_id(message: &Message, context: MoveContext<'_>) -> Option<String> {
    if context.from_fifo == context.to_fifo {
        return system_attribute(message, &MessageSystemAttributeName::MessageGroupId).map(str::to_owned);
    }
    let request = RequestContext { request_id: "", trace: None, group_key: context.group_key };
    if let [change @ Fragment::Change(_)] = split(message.body.as_deref().unwrap_or_default().as_bytes()).as_slice() {
        return Some(message::group_id(change, request, context.to_fifo));
    }
    let attributes = ["phone_number_id", "entry_id"].into_iter().filter_map(|name| attribute(message, name));
    Some(attributes.into_iter().find(|group| is_group_id(group)).unwrap_or(DEFAULT_GROUP_ID).to_owned())
}

/// Returns the event id. A message that the function did not send has none: returns its message id, which is the same in
/// each receive.
fn deduplication_id(message: &Message) -> String {
    attribute(message, "event_id").or(message.message_id.as_deref()).unwrap_or_default().to_owned()
}
