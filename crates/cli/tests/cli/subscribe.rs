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

/// A Graph API with one subscription, and the requests that changed it.
struct Meta {
    server: MockServer,
    posted: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
    folder: TempDir,
}

impl Meta {
    async fn with_fields(fields: &[&str], active: bool) -> Self {
        let fields: Vec<_> = fields.iter().map(|name| json!({ "name": name, "version": "v25.0" })).collect();
        let subscription = json!({
            "object": "whatsapp_business_account", "callback_url": CALLBACK_URL, "active": active, "fields": fields,
        });
        let posted = Arc::new(Mutex::new(Vec::<BTreeMap<String, String>>::new()));
        let requests = Arc::clone(&posted);
        let respond = move |request: &Request| {
            let mut posted = requests.lock().unwrap();
            if request.method == "POST" {
                posted.push(form_urlencoded::parse(&request.body).into_owned().collect());
                return ResponseTemplate::new(200).set_body_json(json!({ "success": true }));
            }
            let mut current = subscription.clone();
            if let Some(last) = posted.last() {
                current["active"] = json!(true);
                current["fields"] = last["fields"].split(',').map(|name| json!({ "name": name })).collect();
            }
            ResponseTemplate::new(200).set_body_json(json!({ "data": [current] }))
        };
        let server = MockServer::start().await;
        Mock::given(any()).respond_with(respond).mount(&server).await;
        Self { server, posted, folder: folder_with_aws_cli() }
    }

    async fn subscribe(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ingress"));
        command.current_dir(self.folder.path()).env("PATH", path_with(self.folder.path()));
        command.envs([("AWS_REGION", "eu-west-1"), ("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key")]);
        command.env_remove("AWS_PROFILE").args(["subscribe", "--app", "1", "--stack", "a-stack"]);
        for name in ["APP_SECRET", "VERIFY_TOKEN", "META_ACCESS_TOKEN"] {
            command.env_remove(name);
        }
        command.args(["--graph-url", &self.server.uri()]).args(arguments).output().await.unwrap()
    }

    /// Returns the fields of each change.
    fn posted(&self) -> Vec<String> {
        self.posted.lock().unwrap().iter().map(|form| form["fields"].clone()).collect()
    }
}

/// Creates a folder with an AWS CLI that describes a stack with queues for two fields.
fn folder_with_aws_cli() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let queues = r#"{"*":"https://sqs.example/123456789012/a-stack-unrouted","messages":"a-stack-messages","security":"a-stack-security"}"#;
    write_aws(
        folder.path(),
        &DescribedStack { callback_url: CALLBACK_URL, queues, ..DescribedStack::default() }.script(),
    );
    folder
}

fn text(output: &Output) -> String {
    String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap()
}

#[tokio::test]
async fn inactive_subscription_is_activated() {
    let meta = Meta::with_fields(&["calls", "flows", "messages", "security"], false).await;

    let dry = text(&meta.subscribe(&[]).await);
    assert!(dry.contains(CALLBACK_URL) && dry.contains("not active") && dry.contains("nothing was changed"), "{dry}");
    assert_eq!(meta.posted(), [""; 0]);

    let applied = meta.subscribe(&["--apply"]).await;
    assert!(applied.status.success() && text(&applied).contains("done"), "{applied:?}");
    assert!(!text(&applied).contains("not active"), "{applied:?}");
    assert_eq!(meta.posted(), ["calls,flows,messages,security"]);
    assert!(text(&meta.subscribe(&["--apply"]).await).contains("nothing to do"));
}

#[tokio::test]
async fn spaces_around_field_names_are_ignored() {
    let meta = Meta::with_fields(&["calls"], true).await;

    let applied = meta.subscribe(&["--fields", "messages , security", "--apply", "--json"]).await;

    assert!(applied.status.success(), "{applied:?}");
    assert_eq!(meta.posted(), ["calls,messages,security"]);
    let plan: Value = serde_json::from_slice(&applied.stdout).unwrap();
    assert_eq!((&plan["plan"]["is_active"], &plan["done"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn invalid_arguments_are_rejected_without_a_call() {
    let meta = Meta::with_fields(&["calls"], true).await;
    for invalid in [
        &["--fields", "messages,"][..],
        &["--fields", "", "--replace"],
        &["--fields", "messages, ,security"],
        &["--fields", "messages security"],
        &["--url", "not a url"],
        &["--url", "http://api.example/webhook"],
        &["--url", ""],
    ] {
        let output = meta.subscribe(&[invalid, &["--apply"]].concat()).await;

        assert_eq!(output.status.code(), Some(2), "{invalid:?}: {output:?}");
    }
    assert_eq!(meta.server.received_requests().await.unwrap().len(), 0);
    // A local stack has no certificate.
    let local = meta.subscribe(&["--url", "http://an-api.execute-api.localhost:1/webhook"]).await;
    assert!(local.status.success(), "{local:?}");
}
