//! Delivers samples to a server on loopback, and checks the requests that it received.

use std::path::Path;

use ingress_tools::{
    endpoint_secrets::EndpointSecrets,
    meta::{
        deliver::{DeliverError, Endpoint},
        samples::{self, Sample},
    },
};
use whatsapp_webhook::signature;
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

fn sample(name: &str) -> Sample {
    let events = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events");
    Sample::load(&events.join(name).with_extension("json")).unwrap()
}

fn secrets() -> EndpointSecrets {
    EndpointSecrets { app_secret: "an app secret".to_owned(), verify_token: "a verify token: 50 % & more".to_owned() }
}

/// Delivers a sample, and returns the request that the server received.
async fn deliver(name: &str) -> Request {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let endpoint = Endpoint::new(&format!("{}/webhook", server.uri())).unwrap();

    endpoint.deliver(&sample(name), &secrets()).await.unwrap();

    server.received_requests().await.unwrap().pop().unwrap()
}

fn is_signed_with(secret: &str, request: &Request) -> bool {
    let header = request.headers.get(signature::HEADER).map(wiremock::http::HeaderValue::as_bytes);
    signature::verify([secret], &request.body, header).is_ok()
}

fn query(request: &Request, name: &str) -> String {
    request.url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned()
}

#[tokio::test]
async fn notification_is_signed_with_the_given_secret() {
    let request = deliver("escaped-unicode").await;

    assert_eq!(request.method.as_str(), "POST");
    assert_eq!(request.url.path(), "/webhook");
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["user-agent"], "facebookexternalua");
    assert_eq!(request.body, sample("escaped-unicode").body);
    assert!(is_signed_with("an app secret", &request));
    assert!(!is_signed_with(samples::APP_SECRET, &request));
}

#[tokio::test]
async fn base64_body_is_sent_decoded() {
    let request = deliver("base64").await;

    assert!(request.body.starts_with(br#"{"object":"whatsapp_business_account""#));
    assert!(is_signed_with("an app secret", &request));
}

#[tokio::test]
async fn forged_notification_remains_forged() {
    let request = deliver("forged").await;

    assert!(is_signed_with(samples::FORGER_APP_SECRET, &request));
}

#[tokio::test]
async fn unsigned_notification_remains_unsigned() {
    let request = deliver("unsigned").await;

    assert_eq!(request.headers.get(signature::HEADER), None);
    assert_eq!(request.headers.get("x-hub-signature"), None);
}

#[tokio::test]
async fn challenge_has_the_token_of_the_endpoint() {
    let request = deliver("challenge").await;

    assert_eq!(request.method.as_str(), "GET");
    assert_eq!(query(&request, "hub.mode"), "subscribe");
    assert_eq!(query(&request, "hub.challenge"), "1650933274");
    assert_eq!(query(&request, "hub.verify_token"), secrets().verify_token);
}

#[tokio::test]
async fn wrong_token_remains_wrong() {
    let request = deliver("challenge-wrong-token").await;

    assert_eq!(query(&request, "hub.verify_token"), "some-token-that-nobody-set");
}

#[tokio::test]
async fn response_is_returned_unchanged() {
    let server = MockServer::start().await;
    let template = ResponseTemplate::new(302).insert_header("location", "/elsewhere").set_body_string("over there");
    Mock::given(any()).respond_with(template).mount(&server).await;

    let response = Endpoint::new(&server.uri()).unwrap().deliver(&sample("security"), &secrets()).await.unwrap();

    assert_eq!((response.status, response.body.as_slice()), (302, b"over there".as_slice()));
    assert_eq!(response.headers["location"], "/elsewhere");
}

#[tokio::test]
async fn localhost_subdomain_resolves_to_loopback() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let host = format!("an-api.execute-api.localhost:{}", server.address().port());

    let endpoint = Endpoint::new(&format!("http://{host}/webhook")).unwrap();
    endpoint.deliver(&sample("security"), &secrets()).await.unwrap();

    assert_eq!(server.received_requests().await.unwrap()[0].headers["host"], host.as_str());
}

#[tokio::test]
async fn refused_connection_is_reported_with_url() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhook", listener.local_addr().unwrap());
    drop(listener);

    let error = Endpoint::new(&url).unwrap().deliver(&sample("security"), &secrets()).await.unwrap_err();

    assert_eq!(error.to_string(), format!("no response from {url}: Connection refused (os error 111)"));
}

#[test]
fn invalid_url_is_rejected() {
    for url in ["", "webhook", "ftp://example.com/", "http://"] {
        assert!(matches!(Endpoint::new(url), Err(DeliverError::InvalidUrl { .. })), "{url}");
    }
}

#[tokio::test]
async fn own_body_is_signed_and_sent_unchanged() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let body = b"{\"entry\": [\"\\u00e4 \\/ \xff\"]}\n";
    std::fs::write(folder.path().join("forged.json"), body).unwrap();
    let ingress = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_ingress"));
        command.current_dir(folder.path()).env("APP_SECRET", "an app secret");
        command.args(["deliver", "--url", &server.uri()]).args(arguments).output().await.unwrap()
    };

    let output = ingress(&["--body", "forged.json"]).await;

    assert!(output.status.success(), "{output:?}");
    let [request] = server.received_requests().await.unwrap().try_into().unwrap();
    assert_eq!((request.method.as_str(), request.body.as_slice()), ("POST", body.as_slice()));
    assert!(is_signed_with("an app secret", &request));
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(ingress(&["a-sample.json", "--body", "forged.json"]).await.status.code(), Some(2));
    assert_eq!(ingress(&[]).await.status.code(), Some(2));
}

#[test]
fn version_is_printed() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ingress")).arg("--version").output().unwrap();

    assert_eq!(String::from_utf8(output.stdout).unwrap(), concat!("ingress ", env!("CARGO_PKG_VERSION"), "\n"));
}
