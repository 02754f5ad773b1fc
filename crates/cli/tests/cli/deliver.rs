//! Delivers samples to a server on loopback and looks at what it was sent.

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

async fn sent(name: &str) -> Request {
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
async fn a_notification_is_signed_anew_over_the_bytes_of_the_sample() {
    let request = sent("escaped-unicode").await;

    assert_eq!(request.method.as_str(), "POST");
    assert_eq!(request.url.path(), "/webhook");
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["user-agent"], "facebookexternalua");
    assert_eq!(request.body, sample("escaped-unicode").body);
    assert!(is_signed_with("an app secret", &request));
    assert!(!is_signed_with(samples::APP_SECRET, &request));
}

#[tokio::test]
async fn a_body_in_base64_is_sent_decoded() {
    let request = sent("base64").await;

    assert!(request.body.starts_with(br#"{"object":"whatsapp_business_account""#));
    assert!(is_signed_with("an app secret", &request));
}

#[tokio::test]
async fn a_forged_notification_stays_forged() {
    let request = sent("forged").await;

    assert!(is_signed_with(samples::FORGER_APP_SECRET, &request));
}

#[tokio::test]
async fn an_unsigned_notification_stays_unsigned() {
    let request = sent("unsigned").await;

    assert_eq!(request.headers.get(signature::HEADER), None);
    assert_eq!(request.headers.get("x-hub-signature"), None);
}

#[tokio::test]
async fn the_challenge_carries_the_token_of_the_endpoint() {
    let request = sent("challenge").await;

    assert_eq!(request.method.as_str(), "GET");
    assert_eq!(query(&request, "hub.mode"), "subscribe");
    assert_eq!(query(&request, "hub.challenge"), "1650933274");
    assert_eq!(query(&request, "hub.verify_token"), secrets().verify_token);
}

#[tokio::test]
async fn a_wrong_token_stays_wrong() {
    let request = sent("challenge-wrong-token").await;

    assert_eq!(query(&request, "hub.verify_token"), "some-token-that-nobody-set");
}

#[tokio::test]
async fn the_answer_is_handed_back_whole() {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(302).insert_header("location", "/elsewhere").set_body_string("over there");
    Mock::given(any()).respond_with(answer).mount(&server).await;

    let response = Endpoint::new(&server.uri()).unwrap().deliver(&sample("security"), &secrets()).await.unwrap();

    assert_eq!((response.status, response.body.as_slice()), (302, b"over there".as_slice()));
    assert_eq!(response.headers["location"], "/elsewhere");
}

#[tokio::test]
async fn a_host_under_localhost_is_this_computer() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(200)).mount(&server).await;
    let host = format!("an-api.execute-api.localhost:{}", server.address().port());

    let endpoint = Endpoint::new(&format!("http://{host}/webhook")).unwrap();
    endpoint.deliver(&sample("security"), &secrets()).await.unwrap();

    assert_eq!(server.received_requests().await.unwrap()[0].headers["host"], host.as_str());
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_named_with_the_cause() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhook", listener.local_addr().unwrap());
    drop(listener);

    let error = Endpoint::new(&url).unwrap().deliver(&sample("security"), &secrets()).await.unwrap_err();

    assert_eq!(error.to_string(), format!("no response from {url}: Connection refused (os error 111)"));
}

#[test]
fn what_is_no_url_is_refused() {
    for url in ["", "webhook", "ftp://example.com/", "http://"] {
        assert!(matches!(Endpoint::new(url), Err(DeliverError::InvalidUrl { .. })), "{url}");
    }
}
