//! The MD5 digests in the responses of SQS.

use super::entry::Attribute;
use md5::{Digest, Md5};
use std::collections::BTreeMap;

pub(super) fn md5_of_body(body: &str) -> String {
    hex::encode(Md5::digest(body))
}

/// Computes the digest of attributes as the developer guide specifies in [Calculating the MD5 message digest].
///
/// [Calculating the MD5 message digest]: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html#sqs-attributes-md5-message-digest-calculation
pub(super) fn md5_of_attributes(attributes: &BTreeMap<String, Attribute>) -> String {
    let mut digest = Md5::new();
    for (name, attribute) in attributes {
        update_with_length(&mut digest, name.as_bytes());
        update_with_length(&mut digest, attribute.data_type.as_bytes());
        digest.update([if attribute.text.is_some() { 1 } else { 2 }]);
        update_with_length(&mut digest, attribute.value());
    }
    hex::encode(digest.finalize())
}

fn update_with_length(digest: &mut Md5, part: &[u8]) {
    digest.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
    digest.update(part);
}

#[cfg(test)]
mod tests {
    use super::md5_of_attributes;

    // SQS computed both digests. The tests of a public emulator record them.
    #[test]
    fn digests_match_those_of_sqs() {
        let text = serde_json::json!({ "Foo": { "DataType": "String", "StringValue": "Bar" } });
        let text = serde_json::from_value(text).expect("an attribute");
        assert_eq!(md5_of_attributes(&text), "ae7155c6026991b6d54b11589678bf9c");

        let value = "dHJhY2VwYXJlbnQeMDAtNzc0MDYyZDZjMzcwODFhNWEwYjliNWI4OGUzMDYyN2MtMmQyNDgyMjExZjY0ODlkYS0wMQ==";
        let bytes = serde_json::json!({ "attr1": { "DataType": "Binary", "BinaryValue": value } });
        let bytes = serde_json::from_value(bytes).expect("an attribute");
        assert_eq!(md5_of_attributes(&bytes), "8cbe4db156db8a94db8b801b7addb984");
    }
}
