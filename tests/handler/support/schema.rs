//! `docs/message.schema.json`, and messages in the form that it describes.

use std::{collections::BTreeMap, fs, path::Path, sync::LazyLock};

use jsonschema::Validator;
use serde_json::{Value, json};

pub(crate) type Attributes = BTreeMap<String, String>;

pub(crate) fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/message.schema.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn validator() -> &'static Validator {
    static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| jsonschema::draft202012::new(&schema()).unwrap());
    &VALIDATOR
}

/// Makes the document that a consumer validates: the attributes, and the body, parsed unless it is text.
pub(crate) fn consumer_view(body: &str, attributes: &Attributes) -> serde_json::Result<Value> {
    let is_text = attributes.contains_key("encoding")
        || attributes.get("unrouted_reason").is_some_and(|reason| reason == "not-json");
    let is_text = is_text && !attributes.contains_key("ExtendedPayloadSize");
    let body = if is_text { body.into() } else { serde_json::from_str::<Value>(body)? };
    Ok(json!({"attributes": attributes, "body": body}))
}
