//! The three steps of the pure path.

use whatsapp_webhook::{
    message::{Message, RequestContext, event_id},
    notification::{Fragment, split},
    signature,
};

/// The app secret of the notifications.
pub const APP_SECRET: &str = "the-app-secret-of-the-bench";

/// Verifies the signature of a body.
///
/// # Panics
/// If the signature does not match.
pub fn verify_signature(body: &str, header: &str) {
    let result = signature::verify([APP_SECRET], body.as_bytes(), Some(header.as_bytes()));
    assert_eq!(result, Ok(()), "the body is signed");
}

/// Splits a body into fragments.
#[must_use]
pub fn split_body(body: &str) -> Vec<Fragment<'_>> {
    split(body.as_bytes())
}

/// Builds the message of each fragment. Returns the sum of their sizes, as SQS counts them.
#[must_use]
pub fn build_messages(fragments: &[Fragment<'_>]) -> usize {
    let request =
        RequestContext { request_id: "Xf3a2jKlliAEJ1A=", trace: None, group_key: "the-verify-token-of-the-bench" };
    fragments.iter().map(|fragment| Message::new(fragment, &event_id(fragment), request, None, false).size()).sum()
}
