//! Delivers webhook payloads of public projects to the handler.

use std::fs;

use crate::support::{Webhook, corpus};
use oracle::fragments;
use serde::Deserialize;
use whatsapp_webhook::signature::{SignatureError, sign, verify};

#[test]
fn published_signatures_are_reproduced_and_verified() {
    #[derive(Deserialize)]
    struct Vector {
        app_secret: String,
        body: String,
        header: String,
    }

    let Some(folder) = corpus::folder() else { return };
    let vectors = fs::read_to_string(folder.join("signatures.json")).unwrap();
    let vectors: Vec<Vector> = serde_json::from_str(&vectors).unwrap();
    assert!(vectors.len() >= 13, "only {}", vectors.len());
    for Vector { app_secret, body, header } in vectors {
        let check = |body: &[u8]| verify([app_secret.as_str()], body, Some(header.as_bytes()));
        assert_eq!(check(body.as_bytes()), Ok(()), "{body}");
        assert_eq!(check(&[body.as_bytes(), b" "].concat()), Err(SignatureError::Mismatch), "{body}");
        assert_eq!(sign(&app_secret, body.as_bytes()), header);
    }
}

#[tokio::test]
async fn public_payloads_are_stored_on_their_queues() {
    let Some(folder) = corpus::folder() else { return };
    let queues = [("messages", "messages"), ("messages.statuses", "receipts"), ("account_update", "accounts")];
    let queue_of = |route: &str| queues.iter().find(|(key, _)| *key == route).map(|(_, queue)| *queue);
    for (name, body) in corpus::payloads(&folder) {
        let webhook = Webhook::new(&queues).await;
        assert_eq!(webhook.deliver(&body).await, 200, "{name}");
        let mut stored = webhook.stored_entries();
        for fragment in fragments(body.as_bytes()) {
            let index = stored.iter().position(|entry| entry.body.as_bytes() == fragment.bytes());
            let entry = stored.remove(index.unwrap_or_else(|| panic!("{name}: {fragment:?} is not stored")));
            let route = fragment.route(|route| queue_of(route).is_some());
            assert_eq!(entry.queue, queue_of(&route).unwrap_or("unrouted"), "{name}");
            let attribute = |name: &str| entry.attributes.get(name).map(String::as_str);
            assert_eq!(attribute("unrouted_reason"), fragment.unrouted_reason(&route), "{name}");
            assert_eq!(attribute("field"), fragment.field(), "{name}");
            assert_eq!(attribute("kind"), fragment.kind(), "{name}");
        }
        assert!(stored.is_empty(), "{name}: unexpected messages: {stored:?}");
    }
}
