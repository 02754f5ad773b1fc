//! A Graph API with one app and one account. It sends a verification request before it accepts a callback URL.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    thread,
};

use ingress_tools::http::client_builder;
use ingress_tools::subscribe::graph::OBJECT;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::runtime::Builder;
use whatsapp_webhook::signature;
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

pub(crate) const APP: &str = "670843887433847";
pub(crate) const ACCOUNT: &str = "102290129340398";
pub(crate) const ACCESS_TOKEN: &str = "the-access-token-of-this-test";
const OTHER_APP: &str = "52565";
/// The fields that Meta documents.
const FIELDS: &str = include_str!("../../../../docs/fields.json");

/// The state of the Graph API.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    pub(crate) app_secret: String,
    pub(crate) callback_url: Option<String>,
    pub(crate) fields: BTreeSet<String>,
    pub(crate) account_is_subscribed: bool,
    pub(crate) changes: usize,
    /// The URL of every request.
    pub(crate) urls: Vec<String>,
    /// Whether another app issued the access token.
    pub(crate) is_token_of_other_app: bool,
}

pub(crate) async fn graph(meta: &Arc<Mutex<Meta>>) -> MockServer {
    let server = MockServer::start().await;
    let meta = Arc::clone(meta);
    let answer = move |request: &Request| {
        let mut meta = meta.lock().unwrap();
        meta.urls.push(request.url.to_string());
        match meta.answer(request) {
            Ok(body) => ResponseTemplate::new(200).set_body_json(body),
            Err((code, message)) => ResponseTemplate::new(400).set_body_json(
                json!({ "error": { "message": message, "type": "OAuthException", "code": code, "fbtrace_id": "A" } }),
            ),
        }
    };
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

impl Meta {
    fn answer(&mut self, request: &Request) -> Result<Value, (i64, String)> {
        let form: Vec<(String, String)> = form_urlencoded::parse(&request.body).into_owned().collect();
        let query = request.url.query_pairs().into_owned();
        let member = |name: &str| {
            form.iter().cloned().chain(query).find(|(key, _)| key == name).map(|(_, value)| value).unwrap_or_default()
        };
        let bearer = request.headers["authorization"].to_str().unwrap().trim_start_matches("Bearer ").to_owned();
        let apps = format!("/v25.0/{APP}/subscriptions");
        let accounts = format!("/v25.0/{ACCOUNT}/subscribed_apps");
        let numbers = format!("/v25.0/{ACCOUNT}/phone_numbers");
        match (request.method.as_str(), request.url.path()) {
            (_, path) if path == apps && bearer != format!("{APP}|{}", self.app_secret) => {
                // Meta quotes tokens in some errors.
                Err((190, format!("Invalid OAuth access token {bearer}")))
            }
            ("GET", path) if path == apps => Ok(json!({ "data": self.subscriptions() })),
            ("POST", path) if path == apps => {
                let member = |name: &str| form.iter().find(|(key, _)| key == name).unwrap().1.clone();
                assert_eq!((member("object").as_str(), member("include_values").as_str()), (OBJECT, "true"));
                let fields: BTreeSet<_> = member("fields").split(',').map(str::to_owned).collect();
                if let Some(unknown) = fields.iter().find(|field| !is_documented(field)) {
                    return Err((100, format!("(#100) Param fields must be one of the known, not {unknown}")));
                }
                verify_callback(&member("callback_url"), &member("verify_token")).map_err(|error| {
                    (2200, format!("(#2200) Callback verification failed with the following errors: {error}"))
                })?;
                self.callback_url = Some(member("callback_url"));
                self.fields = fields;
                self.changes += 1;
                Ok(json!({ "success": true }))
            }
            (_, path) if [&accounts, &numbers].iter().any(|known| *known == path) && bearer != ACCESS_TOKEN => {
                Err((190, format!("Error validating access token: {bearer}")))
            }
            ("GET", path) if path == numbers => {
                assert_eq!(member("fields"), "id,webhook_configuration");
                Ok(json!({ "data": [{ "id": "106540352242922" }] }))
            }
            (_, path) if path == accounts => {
                let secret = if self.is_token_of_other_app { "another app's" } else { &self.app_secret };
                let proof = signature::sign(secret, ACCESS_TOKEN.as_bytes());
                if format!("sha256={}", member("appsecret_proof")) != proof {
                    return Err((100, "Invalid appsecret_proof provided in the API argument".to_owned()));
                }
                if request.method == "POST" {
                    self.account_is_subscribed = true;
                    self.changes += 1;
                    return Ok(json!({ "success": true }));
                }
                Ok(self.apps_of_account(!request.url.query().unwrap_or_default().contains("after=")))
            }
            _ => Err((803, "Some of the aliases you requested do not exist".to_owned())),
        }
    }

    fn subscriptions(&self) -> Vec<Value> {
        let fields: Vec<_> = self.fields.iter().map(|name| json!({ "name": name, "version": "v25.0" })).collect();
        let ours = self
            .callback_url
            .iter()
            .map(|url| json!({ "object": OBJECT, "callback_url": url, "active": true, "fields": fields }));
        let page = json!({ "object": "page", "callback_url": "https://pages.example", "active": true, "fields": [] });
        [page].into_iter().chain(ours).collect()
    }

    /// Returns one of two pages. The app of the test is on the second.
    fn apps_of_account(&self, is_first: bool) -> Value {
        let app =
            |id| json!({ "whatsapp_business_api_data": { "id": id, "link": "https://example.com", "name": "n" } });
        if is_first {
            let next = "https://example.com/?access_token=never-followed";
            return json!({ "data": [app(OTHER_APP)], "paging": { "cursors": { "after": "Mg" }, "next": next } });
        }
        let ours: Vec<_> = self.account_is_subscribed.then(|| app(APP)).into_iter().collect();
        json!({ "data": ours, "paging": { "cursors": { "before": "Mg", "after": "Mg" } } })
    }
}

fn documented_fields() -> Vec<Value> {
    let documented: Value = serde_json::from_str(FIELDS).unwrap();
    documented["fields"].as_array().unwrap().clone()
}

fn is_documented(field: &str) -> bool {
    documented_fields().iter().any(|documented| documented["field"] == field)
}

/// Counts the fields that have a queue by default.
pub(crate) fn count_fields_with_queue() -> usize {
    documented_fields().iter().filter(|documented| documented["queues"] != Value::Array(vec![])).count()
}

/// Sends a verification request to a callback URL, as Meta does. Returns the error of the response.
fn verify_callback(callback_url: &str, verify_token: &str) -> Result<(), String> {
    let mut url = Url::parse(callback_url).map_err(|error| error.to_string())?;
    let challenge = "1158201444";
    let members = [("hub.mode", "subscribe"), ("hub.challenge", challenge), ("hub.verify_token", verify_token)];
    url.query_pairs_mut().extend_pairs(members);
    let request = async {
        let client = client_builder().no_proxy().resolve(url.host_str().unwrap(), ([127, 0, 0, 1], 0).into()).build();
        let response = client.unwrap().get(url.clone()).send().await.map_err(|_| "connection failed".to_owned())?;
        let status = response.status().as_u16();
        let body = response.text().await.unwrap_or_default();
        if status == 200 && body == challenge { Ok(()) } else { Err(format!("HTTP Status Code = {status}")) }
    };
    // The mock responds synchronously, so the request runs on another thread.
    let verification = || Builder::new_current_thread().enable_all().build().unwrap().block_on(request);
    thread::scope(|scope| scope.spawn(verification).join().unwrap())
}
