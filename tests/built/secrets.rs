//! A secret that changes or becomes unreadable while the function runs.

use fake_aws::{Fault, Frequency};
use futures_util::future::join_all;
use serde_json::json;
use whatsapp_webhook::signature::sign;

use crate::{
    notification::Notification,
    stored::Placement::Own,
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, SECRET_ID, VERIFY_TOKEN, Webhook, event, secret, signed},
};

/// Delivers a notification signed with this app secret, and checks that it is stored exactly if the status is 200.
async fn deliver_signed_with(webhook: &Webhook, app_secret: &str) -> u64 {
    let sent = Notification::of(&["messages"]);
    webhook.reset();
    let status = webhook.send(signed(app_secret, sent.body.as_bytes())).await.status;
    assert_eq!(webhook.copies(&sent), [if status == 200 { vec![Own] } else { vec![] }]);
    status
}

#[tokio::test]
async fn rotated_secret_is_used_immediately() {
    let webhook = Webhook::start();
    assert_eq!(deliver_signed_with(&webhook, APP_SECRET).await, 200);
    webhook.aws.set_secret(SECRET_ID, secret(&json!("the-new-one")));
    assert_eq!(deliver_signed_with(&webhook, "the-new-one").await, 200);
    assert_eq!(deliver_signed_with(&webhook, APP_SECRET).await, 401);
    assert_eq!(webhook.secret_reads(), 2);
}

#[tokio::test]
async fn added_secret_is_used_with_the_old_one() {
    let webhook = Webhook::start();
    webhook.aws.set_secret(SECRET_ID, secret(&json!(["the-new-one", APP_SECRET])));
    for app_secret in ["the-new-one", APP_SECRET, "the-new-one"] {
        assert_eq!(deliver_signed_with(&webhook, app_secret).await, 200);
    }
    assert_eq!((deliver_signed_with(&webhook, "another").await, webhook.secret_reads()), (401, 2));

    let webhook = Webhook::with_variables(&[]);
    webhook.aws.set_secret(SECRET_ID, secret(&json!(["the-new-one"])));
    assert_eq!(deliver_signed_with(&webhook, "forged").await, 401);
    assert_eq!(deliver_signed_with(&webhook, APP_SECRET).await, 401);
    assert_eq!(deliver_signed_with(&webhook, "the-new-one").await, 200);
}

#[tokio::test]
async fn new_verify_token_is_used_immediately() {
    let webhook = Webhook::start();
    assert_eq!(webhook.challenge(VERIFY_TOKEN).await.status, 200);
    let text = json!({"app_secret": APP_SECRET, "verify_token": "the-new-token"}).to_string();
    webhook.aws.set_secret(SECRET_ID, text);
    assert_eq!(webhook.challenge("the-new-token").await.status, 200);
    assert_eq!(webhook.challenge(VERIFY_TOKEN).await.status, 403);
    assert_eq!(webhook.secret_reads(), 2);
}

#[tokio::test]
async fn failed_refresh_leaves_the_cached_secret_in_use() {
    let faults = [
        Fault::access_denied(),
        Fault::kms_disabled(),
        Fault::internal_error(),
        Fault::throttled(),
        Fault::drop_connection(),
        Fault::drop_unread(),
        Fault::hang(),
        Fault::commit_then_stall(),
        Fault::commit_then_truncate(),
        Fault::commit_then_respond(200, r#"{"SecretString":"{\"app_secret\":\"the-new-one"#),
        Fault::commit_then_respond(200, r#"{"SecretString":7}"#),
    ];
    join_all(faults.map(async |fault| {
        let webhook = Webhook::start();
        assert_eq!(deliver_signed_with(&webhook, APP_SECRET).await, 200);
        webhook.aws.set_secret(SECRET_ID, secret(&json!("the-new-one")));
        webhook.aws.secrets().inject_fault(fault.clone(), Frequency::Always);
        expect_cached_secret_in_use(&webhook, fault.name()).await;
    }))
    .await;
    for unusable in ["", "the-new-one", "{}", r#"{"app_secret":"REPLACE_ME","verify_token":"the-new-one"}"#] {
        let webhook = Webhook::start();
        assert_eq!(deliver_signed_with(&webhook, APP_SECRET).await, 200);
        webhook.aws.set_secret(SECRET_ID, unusable);
        expect_cached_secret_in_use(&webhook, unusable).await;
    }
}

async fn expect_cached_secret_in_use(webhook: &Webhook, case: &str) {
    let sent = Notification::of(&["messages"]);
    let forged = webhook.send(signed("the-new-one", sent.body.as_bytes())).await;
    assert_eq!(forged.status, 401, "{case}");
    for _ in 0..3 {
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{case}");
    }
    assert_eq!(webhook.challenge(VERIFY_TOKEN).await.status, 200, "{case}");
    let line = webhook.function.wait_for_log_line("the cached secret stays in use", LAMBDA_TIMEOUT).await.unwrap();
    assert!(line.contains("ERROR") && !line.contains("the-new-one"), "{case}: {line}");
    assert_eq!(webhook.copies(&sent)[0].len(), 4, "{case}");
}

#[tokio::test]
async fn many_forgeries_read_the_secret_once() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages"]);
    for index in 0..150 {
        let body = sent.body.as_bytes();
        let forged = match index % 5 {
            0 => signed(&format!("forger-{index}"), body),
            1 => event("POST", "", &[("x-hub-signature-256", &sign(APP_SECRET, b"another body"))], body),
            2 => event("POST", "", &[("x-hub-signature", &sign(APP_SECRET, body).replace("sha256", "sha1"))], body),
            3 => event("POST", "", &[("x-hub-signature-256", &sign(APP_SECRET, body).to_uppercase())], body),
            _ => event("GET", &format!("hub.mode=subscribe&hub.challenge=1&hub.verify_token={index}"), &[], b""),
        };
        let response = webhook.send(forged).await;
        assert_eq!(response.status, if index % 5 == 4 { 403 } else { 401 });
        assert_eq!(response.body, "");
    }
    assert_eq!((webhook.secret_reads(), webhook.stored_messages().len()), (2, 0));
    assert_eq!(webhook.send_calls().len(), 0);
    let response = webhook.deliver(&sent.body).await;
    assert_eq!((response.status, webhook.copies(&sent)), (200, vec![vec![Own]]));
}
