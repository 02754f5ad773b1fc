//! The pure path of a notification, in its three steps.

use whatsapp_webhook::{
    message::{Message, RequestContext, event_id},
    notification::{Fragment, split},
    signature,
};

/// The secret that the notifications of the steps are signed with.
pub const APP_SECRET: &str = "the-app-secret-of-the-bench";

/// Proves that Meta sent the body.
///
/// # Panics
/// When it did not.
pub fn hash(body: &str, header: &str) {
    let verdict = signature::verify([APP_SECRET], body.as_bytes(), Some(header.as_bytes()));
    assert_eq!(verdict, Ok(()), "the body is signed");
}

/// Cuts the body into its changes.
#[must_use]
pub fn cut(body: &str) -> Vec<Fragment<'_>> {
    split(body.as_bytes())
}

/// Makes a message of every change, with its id; gives the bytes that SQS counts.
#[must_use]
pub fn build(fragments: &[Fragment<'_>]) -> usize {
    let request =
        RequestContext { request_id: "Xf3a2jKlliAEJ1A=", trace: None, group_key: "the-verify-token-of-the-bench" };
    fragments.iter().map(|fragment| Message::new(fragment, &event_id(fragment), request, None, false).size()).sum()
}
