//! `ingress verify` against endpoints with one fault each.

use std::{collections::BTreeMap, fs, io, net::SocketAddr, process::Output, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};
use whatsapp_webhook::{challenge, signature};
use wiremock::{Mock, MockServer, Request, ResponseTemplate, http::HeaderValue, matchers::any};

const APP_SECRET: &str = "0123456789abcdef0123456789abcdef";
const VERIFY_TOKEN: &str = "the-verify-token-of-this-test";

/// The fault of an endpoint.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    QuotesChallenge,
    AcceptsAnyToken,
    AcceptsEmptyToken,
    FailsOnPercentSequences,
    DecodesQuery,
    AcceptsAnything,
    AcceptsUnsigned,
    HashesParsedJson,
    Responds(u16, &'static str),
}

fn respond(fault: Fault, request: &Request) -> ResponseTemplate {
    let challenge = |token: &str| challenge::answer(request.url.query().unwrap_or_default(), token).ok();
    let header = request.headers.get(signature::HEADER).map(|value| value.as_bytes().to_vec());
    let is_signed = |body: &[u8]| signature::verify([APP_SECRET], body, header.as_deref()).is_ok();
    // A notification without content has no JSON to parse.
    let parsed = || serde_json::from_slice(&request.body).map_or(String::new(), |json: Value| json.to_string());
    let parameter =
        |name: &str| request.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    match (fault, request.method.as_str()) {
        (Fault::Responds(status, body), _) => ResponseTemplate::new(status).set_body_string(body),
        (Fault::AcceptsAnyToken, "GET") => {
            ResponseTemplate::new(200).set_body_string(parameter("hub.challenge").unwrap())
        }
        (Fault::AcceptsEmptyToken, "GET") if parameter("hub.verify_token").unwrap().is_empty() => {
            ResponseTemplate::new(200)
        }
        (Fault::FailsOnPercentSequences, "GET") if request.url.query().is_some_and(|query| query.contains("%zz")) => {
            ResponseTemplate::new(500).set_body_string(r#"{"message":"Internal Server Error"}"#)
        }
        // Cut off at the first `#` of the decoded query.
        (Fault::DecodesQuery, "GET") if request.url.query().is_some_and(|query| query.contains("%23")) => {
            ResponseTemplate::new(403)
        }
        (Fault::QuotesChallenge, "GET") => challenge(VERIFY_TOKEN)
            .map_or(ResponseTemplate::new(403), |text| ResponseTemplate::new(200).set_body_json(text)),
        (_, "GET") => challenge(VERIFY_TOKEN)
            .map_or(ResponseTemplate::new(403), |text| ResponseTemplate::new(200).set_body_string(text)),
        (Fault::AcceptsAnything, _) => ResponseTemplate::new(200),
        (Fault::AcceptsUnsigned, _) if header.is_none() => ResponseTemplate::new(200),
        (Fault::HashesParsedJson, _) if is_signed(parsed().as_bytes()) => ResponseTemplate::new(200),
        (Fault::HashesParsedJson, _) => ResponseTemplate::new(401),
        _ => ResponseTemplate::new(if is_signed(&request.body) { 200 } else { 401 }),
    }
}

async fn endpoint(fault: Fault) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(move |request: &Request| respond(fault, request)).mount(&server).await;
    server
}

/// Runs the command. Returns the checks by name, and whether all passed.
async fn verify(url: &str, environment: &[(&str, &str)]) -> (BTreeMap<String, Value>, bool) {
    let output = command(&["--url", url, "--no-stack", "--json"], environment).await;
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["passed"].as_bool().unwrap(), output.status.success());
    let checks = json["checks"].as_array().unwrap().iter();
    (
        checks.map(|check| (check["check"].as_str().unwrap().to_owned(), check.clone())).collect(),
        output.status.success(),
    )
}

async fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingress"));
    command.arg("verify").args(arguments).env("APP_SECRET", APP_SECRET).env("VERIFY_TOKEN", VERIFY_TOKEN);
    let output = command.envs(environment.iter().copied()).output().await.unwrap();
    for secret in [APP_SECRET, VERIFY_TOKEN] {
        assert!(!String::from_utf8_lossy(&output.stdout).contains(secret));
        assert!(!String::from_utf8_lossy(&output.stderr).contains(secret));
    }
    output
}

fn failed(checks: &BTreeMap<String, Value>) -> Vec<&str> {
    let failing = checks.iter().filter(|(_, check)| check["result"] == "failed");
    failing.map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn checks_without_a_stack_pass() {
    let server = endpoint(Fault::None).await;
    let (checks, holds) = verify(&server.uri(), &[]).await;

    assert!(holds);
    assert_eq!(checks["accepted notifications stored, rejected ones not"]["detail"], "no stack is named");
    let skipped = checks.values().filter(|check| check["result"] == "skipped").count();
    assert_eq!(
        (checks.len(), skipped),
        (17, 5),
        "the connection, because of plain HTTP, and the checks that need the stack"
    );
    let posts: Vec<_> =
        server.received_requests().await.unwrap().into_iter().filter(|sent| sent.method == "POST").collect();
    assert_eq!(posts.len(), 12);
    for post in posts.iter().filter(|post| !post.body.is_empty()) {
        let header = post.headers.get(signature::HEADER).map(HeaderValue::as_bytes);
        assert!(
            signature::verify([APP_SECRET], &post.body, header).is_err(),
            "a stored message would remain on the queue"
        );
    }
}

#[tokio::test]
async fn each_fault_fails_its_checks_with_a_cause() {
    const FORGERIES: [&str; 3] =
        ["forged notification rejected", "re-serialised notification rejected", "unsigned notification rejected"];
    const ODD_CHALLENGE: &str = "challenge with an unusual query answered";
    for (fault, expected, cause) in [
        (Fault::QuotesChallenge, &["challenge answered verbatim"][..], "quoted"),
        (
            Fault::AcceptsAnyToken,
            &["empty verify token rejected", "wrong verify token rejected"],
            "does not compare the verify token",
        ),
        (Fault::FailsOnPercentSequences, &[ODD_CHALLENGE], "the deployed function fails on such a request"),
        (Fault::DecodesQuery, &[ODD_CHALLENGE], "changes the request: its query"),
        (Fault::AcceptsEmptyToken, &["empty verify token rejected"], "does not compare the verify token"),
        (Fault::AcceptsAnything, &FORGERIES, "does not check signatures"),
        (Fault::AcceptsUnsigned, &FORGERIES[2..], "does not check signatures"),
        (Fault::HashesParsedJson, &FORGERIES[1..2], "parsed and serialized again"),
    ] {
        let (checks, holds) = verify(&endpoint(fault).await.uri(), &[]).await;

        assert_eq!((failed(&checks), holds), (expected.to_vec(), expected.is_empty()), "{fault:?}");
        if let Some(first) = expected.first() {
            assert!(checks[*first]["cause"].as_str().unwrap().contains(cause), "{fault:?}: {}", checks[*first]);
            assert!(!checks[*first]["fix"].as_str().unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn unexpected_status_has_a_likely_cause() {
    for (status, body, cause) in [
        (500, r#"{"message":"Internal Server Error"}"#, "placeholder"),
        (503, r#"{"message":"Service Unavailable"}"#, "timed out"),
        (404, r#"{"message":"Not Found"}"#, "no route"),
        (403, "", "another verify token"),
        (403, r#"{"message":"Forbidden"}"#, "something in front of the function"),
        (429, r#"{"message":"Too Many Requests"}"#, "throttled"),
        (301, "", "does not follow"),
        (202, "", "only 200"),
        (200, "<html>", "changed in the response"),
    ] {
        let (checks, holds) = verify(&endpoint(Fault::Responds(status, body)).await.uri(), &[]).await;
        let check = &checks["challenge answered verbatim"];

        assert!(!holds);
        assert!(check["cause"].as_str().unwrap().contains(cause), "{status}: {check}");
    }
}

#[tokio::test]
async fn table_shows_cause_and_fix() {
    let server = endpoint(Fault::AcceptsUnsigned).await;
    let output = command(&["--url", &server.uri(), "--no-stack"], &[]).await;
    let text = String::from_utf8(output.stdout).unwrap();

    assert!(!output.status.success());
    for part in
        ["unsigned notification rejected", "failed", "200, not 401", "cause", "fix", "11 of 17 passed, 1 failed"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colours are for terminals");
}

/// The function would not start with such a secret, so the command sends nothing.
#[tokio::test]
async fn unusable_secret_is_reported_by_member() {
    let server = endpoint(Fault::None).await;
    let (spaced, quoted) = (format!(" {APP_SECRET}"), format!("\"{VERIFY_TOKEN}\""));
    for (variable, value, detail) in [
        ("APP_SECRET", spaced.as_str(), "app_secret in the secret has white space around it"),
        ("VERIFY_TOKEN", &quoted, "verify_token in the secret is in quotes"),
        ("APP_SECRET", "REPLACE_ME", "app_secret in the secret is still the placeholder REPLACE_ME"),
    ] {
        let (checks, is_ok) = verify(&server.uri(), &[(variable, value)]).await;

        assert_eq!((failed(&checks), is_ok), (vec![SECRET], false));
        assert_eq!(checks[SECRET]["detail"], detail);
        assert!(checks[SECRET]["fix"].as_str().unwrap().contains("write the secret again"));
        assert_eq!(checks.values().filter(|check| check["result"] == "skipped").count(), 16);
    }
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn app_secret_of_another_form_is_reported() {
    let server = endpoint(Fault::None).await;

    let (checks, is_ok) = verify(&server.uri(), &[("APP_SECRET", "106540352242922")]).await;

    assert_eq!((failed(&checks), is_ok), (vec![SECRET, "signed notification accepted"], false));
    assert_eq!(checks[SECRET]["detail"], "app_secret in the secret is not 32 hexadecimal digits");
    assert!(checks[SECRET]["fix"].as_str().unwrap().contains("App settings > Basic"));
    assert_eq!(checks["challenge answered verbatim"]["result"], "passed");
}

#[tokio::test]
async fn missing_secret_without_stack_is_reported() {
    let output = command(&["--url", "http://127.0.0.1:1", "--no-stack"], &[("APP_SECRET", "")]).await;

    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("name a stack, or set APP_SECRET and VERIFY_TOKEN"), "{text}");
}

const SECRET: &str = "app secret and verify token well-formed";
const CONNECTION: &str = "certificate trusted, TLS 1.2 or later";

/// Starts a TLS proxy in front of `backend`, with a certificate for `name` of a new authority.
async fn tls(folder: &TempDir, name: &str, years: (i32, i32), backend: SocketAddr) -> io::Result<u16> {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A distinct name, so that certificates of other authorities are not accepted.
    authority.distinguished_name.push(DnType::CommonName, folder.path().to_str().unwrap());
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.path().join("ca.pem"), authority.pem())?;
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new([name.to_owned()]).unwrap();
    (leaf.not_before, leaf.not_after) = (rcgen::date_time_ymd(years.0, 1, 1), rcgen::date_time_ymd(years.1, 1, 1));
    let certificate = leaf.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(backend).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    Ok(port)
}

#[tokio::test]
async fn untrusted_or_invalid_certificate_fails() {
    let server = endpoint(Fault::None).await;
    for (name, years, is_trusted, cause) in [
        ("localhost", (2020, 2090), true, None),
        ("localhost", (2020, 2090), false, Some("self-signed")),
        ("example.com", (2020, 2090), true, Some("another name")),
        ("localhost", (2020, 2021), true, Some("expired")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let port = tls(&folder, name, years, *server.address()).await.unwrap();
        let other = tempfile::tempdir().unwrap();
        tls(&other, name, years, *server.address()).await.unwrap();
        let trusted = if is_trusted { &folder } else { &other }.path().join("ca.pem");
        let url = format!("https://localhost:{port}/webhook");
        let (checks, holds) = verify(&url, &[("SSL_CERT_FILE", trusted.to_str().unwrap())]).await;

        let Some(cause) = cause else {
            assert_eq!((checks[CONNECTION]["result"].as_str(), holds), (Some("passed"), true), "{checks:?}");
            continue;
        };
        assert_eq!((failed(&checks), holds), (vec![CONNECTION], false));
        assert!(checks[CONNECTION]["cause"].as_str().unwrap().contains(cause), "{}", checks[CONNECTION]);
        assert!(checks.values().filter(|check| check["result"] == "skipped").count() == 15);
    }
}

/// Starts a server that sends the same bytes to every client and closes the connection.
async fn start_raw_server(response: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.read(&mut [0; 4096]).await;
            let _ = client.write_all(response).await;
        }
    });
    format!("https://{address}/webhook")
}

#[tokio::test]
async fn connection_errors_have_distinct_causes() {
    // A fatal alert, protocol_version (70), as a server sends it that supports only older versions.
    let old = start_raw_server(b"\x15\x03\x01\x00\x02\x02\x46").await;
    let plain = start_raw_server(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let silent = start_raw_server(b"").await;
    for (url, cause) in [
        (old.as_str(), "does not support TLS 1.2"),
        (&plain, "does not use TLS"),
        (&silent, "closed or reset"),
        ("https://127.0.0.1:1/webhook", "no server listens"),
        ("https://name.invalid/webhook", "does not resolve"),
    ] {
        let (checks, holds) = verify(url, &[]).await;

        assert_eq!((failed(&checks), holds), (vec![CONNECTION], false), "{url}");
        assert!(checks[CONNECTION]["cause"].as_str().unwrap().contains(cause), "{url}: {}", checks[CONNECTION]);
    }
}
