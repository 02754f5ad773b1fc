//! `ingress subscribe` with a scripted AWS CLI and a scripted Graph API.

use std::{
    collections::BTreeMap,
    process::Output,
    sync::{Arc, Mutex},
};

use ingress_tools::subscribe::graph::{Graph, Token};
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

const APP: &str = "670843887433847";
const ACCOUNT: &str = "102290129340398";
const ELSEWHERE: &str = "https://elsewhere.example/hook";

/// A Graph API with a callback URL for each level: the app, one account, and two phone numbers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Levels {
    app: String,
    account: Option<String>,
    numbers: BTreeMap<String, Option<String>>,
    fields: Vec<String>,
}

impl Levels {
    fn respond(&mut self, request: &Request) -> Value {
        let form: BTreeMap<String, String> = form_urlencoded::parse(&request.body).into_owned().collect();
        let path = request.url.path().trim_start_matches('/').to_owned();
        let is_get = request.method == "GET";
        if path == format!("{APP}/subscriptions") {
            let fields: Vec<_> = self.fields.iter().map(|name| json!({ "name": name })).collect();
            if !is_get {
                self.app.clone_from(&form["callback_url"]);
                self.fields = form["fields"].split(',').map(str::to_owned).collect();
            }
            let object = "whatsapp_business_account";
            return json!({ "success": true, "data": [
                { "object": object, "callback_url": self.app, "active": true, "fields": fields },
            ] });
        }
        if path == format!("{ACCOUNT}/subscribed_apps") {
            if !is_get {
                assert_eq!(
                    form.contains_key("override_callback_uri"),
                    form.get("verify_token").is_some_and(|it| it == "a-token")
                );
                self.account = form.get("override_callback_uri").cloned();
            }
            let mut app = json!({ "whatsapp_business_api_data": { "id": APP, "name": "n" } });
            if let Some(url) = &self.account {
                app["override_callback_uri"] = json!(url);
            }
            return json!({ "success": true, "data": [app] });
        }
        if path == format!("{ACCOUNT}/phone_numbers") {
            let numbers = self.numbers.iter().map(|(id, url)| {
                let mut configuration = json!({ "application": self.app });
                for (level, url) in [("phone_number", url), ("whatsapp_business_account", &self.account)] {
                    if let Some(url) = url {
                        configuration[level] = json!(url);
                    }
                }
                json!({ "id": id, "webhook_configuration": configuration })
            });
            return json!({ "data": numbers.collect::<Vec<_>>() });
        }
        let configuration: Value = serde_json::from_str(&form["webhook_configuration"]).unwrap();
        let url = configuration["override_callback_uri"].as_str().unwrap();
        assert!(!is_get && url.is_empty(), "a number's override is only cleared");
        *self.numbers.get_mut(&path).unwrap() = None;
        json!({ "success": true })
    }
}

/// Runs `ingress subscribe` for the account at this Graph API. Returns the output and the state afterwards.
async fn subscribe_account(levels: Levels, arguments: &[&str]) -> (String, Levels) {
    let state = Arc::new(Mutex::new(levels));
    let server = MockServer::start().await;
    let of_server = Arc::clone(&state);
    let respond =
        move |request: &Request| ResponseTemplate::new(200).set_body_json(of_server.lock().unwrap().respond(request));
    Mock::given(any()).respond_with(respond).mount(&server).await;
    let folder = folder_with_aws_cli();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingress"));
    command.current_dir(folder.path()).env("PATH", path_with(folder.path())).env_remove("AWS_PROFILE");
    command.envs([("AWS_REGION", "eu-west-1"), ("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key")]);
    command.env("META_ACCESS_TOKEN", "a-token-of-a-user").env_remove("APP_SECRET").env_remove("VERIFY_TOKEN");
    command.args(["subscribe", "--stack", "a-stack", "--app", APP, "--account", ACCOUNT, "--graph-url", &server.uri()]);
    let output = command.args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let state = state.lock().unwrap().clone();
    (text(&output), state)
}

/// The account's URL and the first number's lead elsewhere.
fn overridden() -> Levels {
    Levels {
        app: CALLBACK_URL.to_owned(),
        account: Some(ELSEWHERE.to_owned()),
        numbers: [("1001".to_owned(), Some("https://of-number.example".to_owned())), ("1002".to_owned(), None)].into(),
        fields: ["messages", "security"].map(str::to_owned).into(),
    }
}

#[tokio::test]
async fn overrides_are_shown_in_metas_precedence() {
    let (output, after) = subscribe_account(overridden(), &["--apply"]).await;

    for part in [
        "override      https://elsewhere.example/hook, which leads elsewhere",
        "phone number  1001  events go to https://of-number.example: the stack receives no events",
        "phone number  1002  events go to https://elsewhere.example/hook: the stack receives no events",
        "nothing to do",
    ] {
        assert!(output.contains(part), "{part}\n{output}");
    }
    assert_eq!(after, overridden(), "an override is only changed on request");
    let (own, _) = subscribe_account(Levels { account: None, ..overridden() }, &[]).await;
    assert!(own.contains("1002  events go to https://api.example/webhook\n"), "{own}");
}

#[tokio::test]
async fn overrides_are_cleared_on_request() {
    let (dry, after) = subscribe_account(overridden(), &["--overrides", "clear"]).await;
    assert!(dry.contains("which leads elsewhere, to be cleared") && dry.contains("nothing was changed"), "{dry}");
    assert_eq!(after, overridden());

    let (applied, after) = subscribe_account(overridden(), &["--overrides", "clear", "--apply"]).await;
    assert!(applied.contains("done") && !applied.contains("elsewhere"), "{applied}");
    let none = [("1001".to_owned(), None), ("1002".to_owned(), None)].into();
    assert_eq!(after, Levels { account: None, numbers: none, ..overridden() });
}

#[tokio::test]
async fn override_of_the_account_is_set_on_request() {
    let (applied, after) = subscribe_account(overridden(), &["--overrides", "set", "--apply"]).await;

    assert!(applied.contains("override      https://api.example/webhook\n"), "{applied}");
    let none = [("1001".to_owned(), None), ("1002".to_owned(), None)].into();
    assert_eq!(after, Levels { account: Some(CALLBACK_URL.to_owned()), numbers: none, ..overridden() });
}

#[tokio::test]
async fn fields_without_a_queue_and_standby_are_named() {
    let fields = ["calls", "flows", "messages"].map(str::to_owned).into();
    let (output, _) = subscribe_account(Levels { fields, ..overridden() }, &[]).await;

    assert!(output.contains("stored on the catch-all queue: calls, flows\n"), "{output}");
    assert!(output.contains("standby: while Meta Business Agent answers a chat"), "{output}");
    let fields = ["security"].map(str::to_owned).into();
    let (json, _) = subscribe_account(Levels { fields, ..overridden() }, &["--fields", "security", "--json"]).await;
    let json: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&json["fields_without_queue"], &json["lacks_standby"]), (&json!([]), &json!(false)));
}

#[tokio::test]
async fn list_without_an_end_is_an_error() {
    let server = MockServer::start().await;
    let page = json!({ "data": [], "paging": { "cursors": { "after": "Mg" }, "next": "https://example.com" } });
    Mock::given(any()).respond_with(ResponseTemplate::new(200).set_body_json(page)).mount(&server).await;
    let (graph, account) = (Graph::new(&server.uri()).unwrap(), "1".parse().unwrap());

    let error = graph.phone_numbers(&account, &Token::of_user("a-token", "a-secret")).await.unwrap_err();

    assert_eq!(error.to_string(), "GET /1/phone_numbers: the list has more than 100 pages");
}
