//! Compares the stored messages with the changes that were sent.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use fake_aws::{Message, event::REQUEST_ID};
use oracle::fragments;
use serde_json::json;

use crate::{
    notification::{Change, Notification},
    webhook::Webhook,
};

/// The queue and form of a stored change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Placement {
    /// On the queue of its route.
    Own,
    /// On the catch-all queue, because it has no route.
    Unrouted,
    /// On the catch-all queue, because its queue is unavailable or rejected it.
    Diverted,
    /// On the catch-all queue, as base64 with two attributes.
    Base64,
}

impl Webhook {
    /// Returns the placements of each change, one for each stored copy. Panics if a message differs from its change or matches
    /// no change.
    pub(crate) fn copies(&self, sent: &Notification) -> Vec<Vec<Placement>> {
        let mut copies = vec![Vec::new(); sent.changes.len()];
        for (queue, message) in self.stored_messages() {
            let event_id = message.attribute("event_id").unwrap();
            let index = sent.changes.iter().position(|change| change.event_id == event_id);
            let index = index.unwrap_or_else(|| panic!("unknown message on {queue}: {message:?}"));
            copies[index].push(self.check(&queue, &message, &sent.changes[index]));
        }
        for copies in &mut copies {
            copies.sort_unstable();
        }
        copies
    }

    /// Returns all messages of all queues.
    pub(crate) fn stored_messages(&self) -> Vec<(String, Message)> {
        let messages = |(name, queue): (&String, &fake_aws::Queue)| {
            queue.messages().into_iter().map(|message| (name.clone(), message)).collect::<Vec<_>>()
        };
        self.queues.iter().flat_map(messages).collect()
    }

    fn check(&self, queue: &str, message: &Message, change: &Change) -> Placement {
        let mut attributes: BTreeMap<_, _> =
            message.attributes.iter().map(|(name, value)| (name.as_str(), value.text.as_deref().unwrap())).collect();
        let diverted_from = attributes.remove("diverted_from");
        let own_queues = self.own_queues(change);
        if let Some(name) = diverted_from {
            assert!(own_queues.iter().any(|queue| queue == name) && queue == "unrouted", "{name} {queue}");
        }
        if attributes.remove("encoding").is_some() {
            let base64 = match attributes.remove("ExtendedPayloadSize") {
                None => message.body.clone(),
                Some(size) => String::from_utf8(self.payload(&message.body, size)).unwrap(),
            };
            assert_eq!(BASE64.decode(base64).unwrap(), change.text.as_bytes());
            assert_eq!(attributes, [("event_id", change.event_id.as_str())].into());
            return Placement::Base64;
        }
        match attributes.remove("ExtendedPayloadSize") {
            None => assert_eq!(message.body, change.text),
            Some(size) => assert_eq!(self.payload(&message.body, size), change.text.as_bytes()),
        }
        let copy = match attributes.remove("unrouted_reason") {
            None => Placement::Own,
            Some("no-route") => Placement::Unrouted,
            Some("queue-unavailable") => Placement::Diverted,
            Some(reason) => panic!("{reason}"),
        };
        assert_eq!(diverted_from.is_some(), copy == Placement::Diverted);
        let is_own_queue = own_queues.iter().any(|own| own == queue);
        assert!(if copy == Placement::Own { is_own_queue } else { queue == "unrouted" }, "{copy:?} on {queue}");
        let expected = [
            ("field", Some(change.field.as_str())),
            ("entry_id", Some("102290129340398")),
            ("event_id", Some(&change.event_id)),
            ("kind", change.kind),
            ("phone_number_id", change.number),
            ("request_id", Some(REQUEST_ID)),
        ];
        assert_eq!(attributes, expected.into_iter().filter_map(|(name, value)| Some((name, value?))).collect());
        assert!(message.attributes.iter().all(|(name, value)| match name.as_str() {
            "ExtendedPayloadSize" => value.data_type == "Number",
            _ => value.data_type == "String",
        }));
        if !queue.contains(".fifo") {
            assert_eq!(message.group_id.as_deref(), Some(change.number.unwrap_or("102290129340398")));
        }
        copy
    }

    /// Returns the object of a pointer. The pointer has the format of the [Amazon SQS Extended Client Library].
    ///
    /// [Amazon SQS Extended Client Library]: https://github.com/awslabs/amazon-sqs-java-extended-client-lib
    fn payload(&self, pointer: &str, size: &str) -> Vec<u8> {
        let location: serde_json::Value = serde_json::from_str(pointer).unwrap();
        let key = location[1]["s3Key"].as_str().unwrap();
        let class = "software.amazon.payloadoffloading.PayloadS3Pointer";
        assert_eq!(pointer, json!([class, {"s3BucketName": "payloads", "s3Key": key}]).to_string());
        let object = self.bucket.object(key).unwrap();
        assert_eq!(object.content_type.as_deref(), Some("application/json"));
        assert_eq!(size, object.body.len().to_string());
        object.body.to_vec()
    }

    /// Returns the names of the queues of a change's route.
    fn own_queues(&self, change: &Change) -> Vec<String> {
        let queues = fragments(change.text.as_bytes())[0].queues(&self.routes);
        queues.iter().map(|queue| queue.rsplit('/').next().unwrap().to_owned()).collect()
    }
}
