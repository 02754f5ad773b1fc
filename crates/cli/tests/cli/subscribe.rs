//! `ingress subscribe` with a scripted AWS CLI and a scripted Graph API.

use std::{
    collections::BTreeMap,
    process::Output,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

use crate::aws::{DescribedStack, path_with, write_aws};

const CALLBACK_URL: &str = "https://api.example/webhook";

/// Meta, with what it sends for the app, and what was posted to change that.
struct Meta {
    server: MockServer,
    posted: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
    folder: TempDir,
}

impl Meta {
    async fn that_sends(fields: &[&str], active: bool) -> Self {
        let fields: Vec<_> = fields.iter().map(|name| json!({ "name": name, "version": "v25.0" })).collect();
        let subscription = json!({
            "object": "whatsapp_business_account", "callback_url": CALLBACK_URL, "active": active, "fields": fields,
        });
        let posted = Arc::new(Mutex::new(Vec::<BTreeMap<String, String>>::new()));
        let told = Arc::clone(&posted);
        let answer = move |request: &Request| {
            let mut posted = told.lock().unwrap();
            if request.method == "POST" {
                posted.push(form_urlencoded::parse(&request.body).into_owned().collect());
                return ResponseTemplate::new(200).set_body_json(json!({ "success": true }));
            }
            let mut now = subscription.clone();
            if let Some(last) = posted.last() {
                now["active"] = json!(true);
                now["fields"] = last["fields"].split(',').map(|name| json!({ "name": name })).collect();
            }
            ResponseTemplate::new(200).set_body_json(json!({ "data": [now] }))
        };
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(answer).mount(&server).await;
        Self { server, posted, folder: described() }
    }

    async fn subscribe(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ingress"));
        command.current_dir(self.folder.path()).env("PATH", path_with(self.folder.path()));
        command.envs([("AWS_REGION", "eu-west-1"), ("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key")]);
        command.env_remove("AWS_PROFILE").args(["subscribe", "--app", "1"]);
        for name in ["APP_SECRET", "VERIFY_TOKEN", "META_ACCESS_TOKEN"] {
            command.env_remove(name);
        }
        command.args(["--graph-url", &self.server.uri()]).args(arguments).output().await.unwrap()
    }

    /// The fields of each change that was posted.
    fn posted(&self) -> Vec<String> {
        self.posted.lock().unwrap().iter().map(|form| form["fields"].clone()).collect()
    }
}

/// A folder with an AWS CLI that describes a stack with queues for two fields.
fn described() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let queues = r#"{"*":"https://sqs.example/123456789012/a-stack-unrouted","messages":"a-stack-messages","security":"a-stack-security"}"#;
    write_aws(
        folder.path(),
        &DescribedStack { callback_url: CALLBACK_URL, queues, ..DescribedStack::default() }.script(),
    );
    folder
}

fn told(output: &Output) -> String {
    String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap()
}

#[tokio::test]
async fn a_subscription_that_is_not_active_keeps_its_fields_and_is_made_active() {
    let meta = Meta::that_sends(&["calls", "flows", "messages", "security"], false).await;

    let dry = told(&meta.subscribe(&[]).await);
    assert!(dry.contains(CALLBACK_URL) && dry.contains("not active") && dry.contains("nothing was changed"), "{dry}");
    assert_eq!(meta.posted(), [""; 0]);

    let applied = meta.subscribe(&["--apply"]).await;
    assert!(applied.status.success() && told(&applied).contains("done"), "{applied:?}");
    assert!(!told(&applied).contains("not active"), "{applied:?}");
    assert_eq!(meta.posted(), ["calls,flows,messages,security"]);
    assert!(told(&meta.subscribe(&["--apply"]).await).contains("nothing to do"));
}

#[tokio::test]
async fn names_of_fields_may_be_apart_from_their_commas() {
    let meta = Meta::that_sends(&["calls"], true).await;

    let applied = meta.subscribe(&["--fields", "messages , security", "--apply", "--json"]).await;

    assert!(applied.status.success(), "{applied:?}");
    assert_eq!(meta.posted(), ["calls,messages,security"]);
    let plan: Value = serde_json::from_slice(&applied.stdout).unwrap();
    assert_eq!((&plan["plan"]["is_active"], &plan["done"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn what_meta_could_not_mean_is_refused_before_it_is_asked() {
    let meta = Meta::that_sends(&["calls"], true).await;
    for wrong in [
        &["--fields", "messages,"][..],
        &["--fields", "", "--replace"],
        &["--fields", "messages, ,security"],
        &["--fields", "messages security"],
        &["--url", "not a url"],
        &["--url", "http://api.example/webhook"],
        &["--url", ""],
    ] {
        let refused = meta.subscribe(&[wrong, &["--apply"]].concat()).await;

        assert_eq!(refused.status.code(), Some(2), "{wrong:?}: {refused:?}");
    }
    assert_eq!(meta.server.received_requests().await.unwrap().len(), 0);
    // A local stack has no certificate.
    let local = meta.subscribe(&["--url", "http://an-api.execute-api.localhost:1/webhook"]).await;
    assert!(local.status.success(), "{local:?}");
}
