//! A secret that changes, or cannot be read again, while the function runs.

use fake_aws::{Fault, Times};
use futures_util::future::join_all;
use serde_json::json;
use whatsapp_webhook::signature::sign;

use crate::{
    notification::Notification,
    stored::Copy::Own,
    webhook::{APP_SECRET, LAMBDA_TIMEOUT, SECRET_ID, VERIFY_TOKEN, Webhook, event, secret, signed},
};

/// Delivers a notification signed with a secret; what is stored must agree with the answer.
async fn status(webhook: &Webhook, app_secret: &str) -> u64 {
    let sent = Notification::of(&["messages"]);
    webhook.reset();
    let status = webhook.send(signed(app_secret, sent.body.as_bytes())).await.status;
    assert_eq!(webhook.copies(&sent), [if status == 200 { vec![Own] } else { vec![] }]);
    status
}

#[tokio::test]
async fn a_rotated_secret_works_at_once_and_the_old_one_no_longer() {
    let webhook = Webhook::start();
    assert_eq!(status(&webhook, APP_SECRET).await, 200);
    webhook.aws.set_secret(SECRET_ID, secret(&json!("the-new-one")));
    assert_eq!(status(&webhook, "the-new-one").await, 200);
    assert_eq!(status(&webhook, APP_SECRET).await, 401);
    assert_eq!(webhook.readings(), 2);
}

#[tokio::test]
async fn an_added_secret_works_at_once_beside_the_old_one_until_that_is_removed() {
    let webhook = Webhook::start();
    webhook.aws.set_secret(SECRET_ID, secret(&json!(["the-new-one", APP_SECRET])));
    for app_secret in ["the-new-one", APP_SECRET, "the-new-one"] {
        assert_eq!(status(&webhook, app_secret).await, 200);
    }
    assert_eq!((status(&webhook, "another").await, webhook.readings()), (401, 2));

    let webhook = Webhook::with(&[]);
    webhook.aws.set_secret(SECRET_ID, secret(&json!(["the-new-one"])));
    assert_eq!(status(&webhook, "forged").await, 401);
    assert_eq!(status(&webhook, APP_SECRET).await, 401);
    assert_eq!(status(&webhook, "the-new-one").await, 200);
}

#[tokio::test]
async fn a_new_verify_token_works_at_once_and_the_old_one_no_longer() {
    let webhook = Webhook::start();
    assert_eq!(webhook.challenge(VERIFY_TOKEN).await.status, 200);
    let text = json!({"app_secret": APP_SECRET, "verify_token": "the-new-token"}).to_string();
    webhook.aws.set_secret(SECRET_ID, text);
    assert_eq!(webhook.challenge("the-new-token").await.status, 200);
    assert_eq!(webhook.challenge(VERIFY_TOKEN).await.status, 403);
    assert_eq!(webhook.readings(), 2);
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_again_leaves_the_old_one_in_use() {
    let faults = [
        Fault::access_denied(),
        Fault::kms_disabled(),
        Fault::internal_error(),
        Fault::throttled(),
        Fault::drop_connection(),
        Fault::drop_unread(),
        Fault::hang(),
        Fault::store_and_stall(),
        Fault::store_and_truncate(),
        Fault::store_and_answer(200, r#"{"SecretString":"{\"app_secret\":\"the-new-one"#),
        Fault::store_and_answer(200, r#"{"SecretString":7}"#),
    ];
    join_all(faults.map(async |fault| {
        let webhook = Webhook::start();
        assert_eq!(status(&webhook, APP_SECRET).await, 200);
        webhook.aws.set_secret(SECRET_ID, secret(&json!("the-new-one")));
        webhook.aws.secrets().fault(fault.clone(), Times::Always);
        old_one_serves_on(&webhook, fault.name()).await;
    }))
    .await;
    for unusable in ["", "the-new-one", "{}", r#"{"app_secret":"REPLACE_ME","verify_token":"the-new-one"}"#] {
        let webhook = Webhook::start();
        assert_eq!(status(&webhook, APP_SECRET).await, 200);
        webhook.aws.set_secret(SECRET_ID, unusable);
        old_one_serves_on(&webhook, unusable).await;
    }
}

async fn old_one_serves_on(webhook: &Webhook, why: &str) {
    let sent = Notification::of(&["messages"]);
    let forged = webhook.send(signed("the-new-one", sent.body.as_bytes())).await;
    assert_eq!(forged.status, 401, "{why}");
    for _ in 0..3 {
        assert_eq!(webhook.deliver(&sent.body).await.status, 200, "{why}");
    }
    assert_eq!(webhook.challenge(VERIFY_TOKEN).await.status, 200, "{why}");
    let line = webhook.function.log_line("the cached secret stays in use", LAMBDA_TIMEOUT).await.unwrap();
    assert!(line.contains("ERROR") && !line.contains("the-new-one"), "{why}: {line}");
    assert_eq!(webhook.copies(&sent)[0].len(), 4, "{why}");
}

#[tokio::test]
async fn a_flood_of_forgeries_reads_the_secret_once_more_and_delays_nobody() {
    let webhook = Webhook::start();
    let sent = Notification::of(&["messages"]);
    for at in 0..150 {
        let body = sent.body.as_bytes();
        let forged = match at % 5 {
            0 => signed(&format!("forger-{at}"), body),
            1 => event("POST", "", &[("x-hub-signature-256", &sign(APP_SECRET, b"another body"))], body),
            2 => event("POST", "", &[("x-hub-signature", &sign(APP_SECRET, body).replace("sha256", "sha1"))], body),
            3 => event("POST", "", &[("x-hub-signature-256", &sign(APP_SECRET, body).to_uppercase())], body),
            _ => event("GET", &format!("hub.mode=subscribe&hub.challenge=1&hub.verify_token={at}"), &[], b""),
        };
        let answer = webhook.send(forged).await;
        assert_eq!(answer.status, if at % 5 == 4 { 403 } else { 401 });
        assert_eq!(answer.body, "");
    }
    assert_eq!((webhook.readings(), webhook.stored().len()), (2, 0));
    assert_eq!(webhook.sends().len(), 0);
    let answer = webhook.deliver(&sent.body).await;
    assert_eq!((answer.status, webhook.copies(&sent)), (200, vec![vec![Own]]));
}
