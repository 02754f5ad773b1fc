//! `ingress verify` against endpoints with one fault each in how they accept and store notifications.

use std::{
    collections::BTreeMap,
    fs,
    process::{Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingress_tools::{
    aws::stack_info::StackInfo,
    meta::deliver::Endpoint,
    queues::verify_queue::VerifyQueue,
    verify::{self, Check, Finding, LATENCY_SAMPLES, ODD_NOTIFICATIONS, Target},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};
use whatsapp_webhook::{challenge, signature};
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

use crate::sqs::{Fault, Sqs, Stored, VERIFY_TOKEN, now};

const SECRETS: [&str; 2] = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
/// The first notification checks acceptance, the next ones are unusual, and the last ones measure the latency. Only these
/// have content.
const SENT: usize = 1 + ODD_NOTIFICATIONS + LATENCY_SAMPLES;

const ACCEPTED: &str = "signed notification accepted";
const LATENCY: &str = "latency within Meta's limits";
const STORED: &str = "accepted notifications stored, rejected ones not";

const ODD_CHECKS: [&str; 4] = [
    "challenge with an unusual query answered",
    "unusual header accepted",
    "unusual query accepted",
    "x-forwarded-proto with two schemes accepted",
];

/// Returns the reaction to a notification by its number and its body.
///
/// Genuine notifications have the numbers from 1, forged ones have 0.
type Handler = fn(usize, &str) -> Reaction;

/// The reaction to a notification: a response after a delay, and the stored messages.
struct Reaction {
    status: u16,
    delay: Duration,
    stored: Vec<Stored>,
}

/// Reacts as the function does.
fn correct_reaction(number: usize, body: &str) -> Reaction {
    let stored = (number > 0 && !body.is_empty()).then(|| message(body)).into_iter().collect();
    Reaction { status: if number == 0 { 401 } else { 200 }, delay: Duration::ZERO, stored }
}

fn message(body: &str) -> Stored {
    message_with(body, &[("field", "ingress_verify")])
}

fn message_with(body: &str, attributes: &[(&str, &str)]) -> Stored {
    let attributes: serde_json::Map<String, Value> = attributes
        .iter()
        .map(|&(name, value)| (name.to_owned(), json!({ "DataType": "String", "StringValue": value })))
        .collect();
    Stored { body: body.to_owned(), attributes: attributes.into(), ..Stored::default() }
}

/// An endpoint and the queue of `verify`.
struct TestEndpoint {
    server: MockServer,
    sqs: Arc<Sqs>,
    /// The number of genuine notifications.
    genuine: Arc<AtomicUsize>,
}

impl TestEndpoint {
    async fn new(handler: impl Fn(usize, &str) -> Reaction + Send + Sync + 'static) -> Self {
        Self::with_secrets(&SECRETS[..1], handler).await
    }

    /// Starts an endpoint that accepts the signatures of these secrets.
    async fn with_secrets(
        secrets: &'static [&'static str],
        handler: impl Fn(usize, &str) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let sqs = Arc::new(Sqs::start(&["unrouted", "verify"]).await);
        let genuine = Arc::new(AtomicUsize::new(0));
        let server = MockServer::start().await;
        let (queue, count) = (Arc::clone(&sqs), Arc::clone(&genuine));
        let respond = move |request: &Request| {
            if request.method == "GET" {
                return challenge::answer(request.url.query().unwrap_or_default(), VERIFY_TOKEN)
                    .map_or(ResponseTemplate::new(403), |text| ResponseTemplate::new(200).set_body_string(text));
            }
            let header = request.headers.get(signature::HEADER).map(|value| value.as_bytes().to_vec());
            let is_genuine = signature::verify(secrets.iter().copied(), &request.body, header.as_deref()).is_ok();
            let number = if is_genuine { 1 + count.fetch_add(1, Ordering::Relaxed) } else { 0 };
            let reaction = handler(number, std::str::from_utf8(&request.body).unwrap());
            for message in reaction.stored {
                queue.put("verify", message);
            }
            ResponseTemplate::new(reaction.status).set_delay(reaction.delay)
        };
        Mock::given(any()).respond_with(respond).mount(&server).await;
        Self { server, sqs, genuine }
    }

    fn info(&self) -> StackInfo {
        let secret = json!({ "verify_token": VERIFY_TOKEN, "app_secret": SECRETS[0] }).to_string();
        StackInfo {
            callback_url: self.server.uri(),
            secret: Some(secret),
            ..self.sqs.info(&[("*", "unrouted"), ("ingress_verify", "verify")])
        }
    }

    async fn verify(&self) -> BTreeMap<&'static str, Finding> {
        self.verify_with(&SECRETS[..1]).await
    }

    async fn verify_with(&self, secrets: &[&str]) -> BTreeMap<&'static str, Finding> {
        let target = Target {
            endpoint: Endpoint::new(&self.server.uri()).unwrap(),
            secret: json!({ "verify_token": VERIFY_TOKEN, "app_secret": secrets }).to_string(),
            verify_queue: VerifyQueue::of(&self.info()),
            stack: None,
        };
        let checks = verify::verify(&target, &AtomicBool::new(false), |_| ()).await.into_iter();
        checks.map(|Check { name, finding }| (name, finding)).collect()
    }

    fn left(&self) -> Vec<Stored> {
        self.sqs.on("verify")
    }
}

#[track_caller]
fn passed(finding: &Finding) -> &str {
    let Finding::Passed { detail } = finding else { panic!("{finding:?}") };
    detail
}

/// Returns the detail of a failed check, which must have a cause and a fix.
#[track_caller]
fn failed(finding: &Finding) -> &str {
    let Finding::Failed { detail, diagnosis } = finding else { panic!("{finding:?}") };
    assert!(!diagnosis.cause.is_empty() && !diagnosis.fix.is_empty());
    detail
}

#[tokio::test]
async fn own_messages_are_deleted_and_others_released() {
    let endpoint = TestEndpoint::new(correct_reaction).await;
    for index in 0..15 {
        put_other(&endpoint, index, now());
        endpoint.sqs.put("unrouted", message_with("a customer's", &[("field", "flows")]));
    }
    put_other(&endpoint, 15, now() - 3_600_000);

    let found = endpoint.verify().await;

    assert_eq!(passed(&found[STORED]), "20 of 20 found and deleted");
    assert_eq!(endpoint.genuine.load(Ordering::Relaxed), SENT);
    let left = endpoint.left();
    assert_eq!(left.len(), 15);
    assert!(
        left.iter()
            .all(|one| one.body.starts_with("another message") && one.receives == 1 && one.hidden_until <= now()),
        "messages of other runs are released, and those of killed runs deleted"
    );
    let waiting = endpoint.sqs.on("unrouted");
    assert_eq!(waiting.len(), 15);
    assert!(waiting.iter().all(|one| one.receives == 0), "no message of another queue is received");
}

fn put_other(endpoint: &TestEndpoint, index: usize, sent: u64) {
    let message = message_with(&format!("another message {index}"), &[("field", "ingress_verify")]);
    endpoint.sqs.put("verify", Stored { sent, ..message });
}

#[tokio::test]
async fn nothing_is_stored_without_a_verify_queue() {
    let endpoint = TestEndpoint::new(correct_reaction).await;
    let target = Target {
        endpoint: Endpoint::new(&endpoint.server.uri()).unwrap(),
        secret: endpoint.info().secret.unwrap(),
        verify_queue: Err("a reason"),
        stack: None,
    };

    let checks = verify::verify(&target, &AtomicBool::new(false), |_| ()).await;

    let Finding::Skipped { detail } = &checks.last().unwrap().finding else { panic!("{checks:?}") };
    assert_eq!(detail, "a reason");
    assert!(!checks.iter().any(Check::is_failed), "{checks:?}");
    assert_eq!((endpoint.genuine.load(Ordering::Relaxed), endpoint.left().len()), (1 + ODD_NOTIFICATIONS, 0));
}

#[tokio::test]
async fn route_with_several_queues_is_not_used() {
    let sqs = Sqs::start(&["unrouted", "verify", "copy"]).await;
    let routes = [("*", "unrouted"), ("ingress_verify", "verify"), ("ingress_verify", "copy")];

    let reason = VerifyQueue::of(&sqs.info(&routes)).unwrap_err();

    assert!(reason.starts_with("the route ingress_verify has several queues"), "{reason}");
    assert!(VerifyQueue::of(&sqs.info(&routes[..1])).unwrap_err().contains("has no queue"));
}

/// The function would store the notifications on the catch-all queue, and report them as unrouted.
#[tokio::test]
async fn nothing_is_stored_if_the_queue_is_gone() {
    let endpoint = TestEndpoint::new(correct_reaction).await;
    endpoint.sqs.account().queues.remove("a-stack-verify");

    let found = endpoint.verify().await;

    let Finding::Skipped { detail } = &found[STORED] else { panic!("{:?}", found[STORED]) };
    assert!(detail.contains("QueueDoesNotExist"), "{detail}");
    assert_eq!(endpoint.genuine.load(Ordering::Relaxed), 1 + ODD_NOTIFICATIONS);
}

#[tokio::test]
async fn lost_notification_is_reported() {
    let endpoint = TestEndpoint::new(|number, body| match number {
        12 => Reaction { stored: Vec::new(), ..correct_reaction(number, body) },
        _ => correct_reaction(number, body),
    })
    .await;

    let found = endpoint.verify().await;

    assert_eq!(failed(&found[STORED]), "1 of 20 not found among 19 messages");
}

/// As if API Gateway timed out while the function stored the notification.
#[tokio::test]
async fn stored_notification_without_response_is_expected() {
    let endpoint = TestEndpoint::new(|number, body| match number {
        12 => Reaction { status: 503, ..correct_reaction(number, body) },
        _ => correct_reaction(number, body),
    })
    .await;

    let found = endpoint.verify().await;

    assert_eq!(failed(&found[LATENCY]), "503, not 200");
    assert_eq!(passed(&found[STORED]), "3 of 3 found and deleted, 1 more: duplicates, or without the response 200");
    assert!(endpoint.left().is_empty());
}

#[tokio::test]
async fn rejected_but_stored_forgeries_are_found() {
    let forgeries = Mutex::new(Vec::new());
    let endpoint = TestEndpoint::new(move |number, body| {
        let mut reaction = correct_reaction(number, body);
        match number {
            0 => forgeries.lock().unwrap().push(message(body)),
            SENT => reaction.stored.append(&mut forgeries.lock().unwrap()),
            _ => (),
        }
        reaction
    })
    .await;
    for index in 0..9 {
        put_other(&endpoint, index, now());
    }

    let found = endpoint.verify().await;

    assert_eq!(failed(&found[STORED]), "4 unexpected: forged, rejected or with other bytes");
    assert_eq!(endpoint.left().len(), 9, "they are deleted too");
}

#[tokio::test]
async fn accepted_forgeries_are_found_and_deleted() {
    let endpoint = TestEndpoint::new(|number, body| correct_reaction(number.max(1), body)).await;

    let found = endpoint.verify().await;

    assert_eq!(failed(&found[STORED]), "3 unexpected: forged, rejected or with other bytes");
    assert_eq!(failed(&found["forged notification rejected"]), "200, not 401");
    assert!(endpoint.left().is_empty());
}

#[tokio::test]
async fn forgeries_are_deleted_if_only_they_are_accepted() {
    let endpoint = TestEndpoint::new(|number, body| Reaction {
        status: if number == 0 { 200 } else { 401 },
        ..correct_reaction(usize::from(number == 0), body)
    })
    .await;

    let found = endpoint.verify().await;

    assert_eq!(failed(&found[STORED]), "3 unexpected: forged, rejected or with other bytes");
    assert!(endpoint.left().is_empty());
}

#[tokio::test]
async fn changed_bytes_are_reported() {
    let endpoint = TestEndpoint::new(|number, body| match number {
        11 => {
            let same: Value = serde_json::from_str(body).unwrap();
            Reaction { stored: vec![message(&same.to_string())], ..correct_reaction(number, body) }
        }
        _ => correct_reaction(number, body),
    })
    .await;

    let found = endpoint.verify().await;

    assert_eq!(
        failed(&found[STORED]),
        "1 of 20 not found among 20 messages; 1 unexpected: forged, rejected or with other bytes"
    );
    assert!(endpoint.left().is_empty());
}

#[tokio::test]
async fn wrong_attribute_is_reported() {
    let wrong: [(Handler, &str); 2] = [
        (
            |number, body| match number {
                15 => Reaction {
                    stored: vec![message_with(body, &[("field", "messages")])],
                    ..correct_reaction(number, body)
                },
                _ => correct_reaction(number, body),
            },
            "the attribute field is not ingress_verify",
        ),
        (
            |number, body| match number {
                15 => Reaction {
                    stored: vec![message_with(
                        body,
                        &[("field", "ingress_verify"), ("unrouted_reason", "queue-unavailable")],
                    )],
                    ..correct_reaction(number, body)
                },
                _ => correct_reaction(number, body),
            },
            "the attribute unrouted_reason is queue-unavailable",
        ),
    ];
    for (handler, detail) in wrong {
        let found = TestEndpoint::new(handler).await.verify().await;

        assert_eq!(failed(&found[STORED]), detail);
    }
}

#[tokio::test]
async fn failed_deletion_is_reported() {
    for fault in [Fault::Rejected(vec![0], "InternalError", false), Fault::Error(403, "AccessDenied")] {
        let endpoint = TestEndpoint::new(correct_reaction).await;
        let mut deletions = 0;
        endpoint.sqs.script(move |_, call, _| {
            deletions += usize::from(call == "DeleteMessageBatch");
            (call == "DeleteMessageBatch" && deletions <= 2).then(|| fault.clone())
        });

        let found = endpoint.verify().await;

        assert_eq!(failed(&found[STORED]), "2 not deleted");
        assert_eq!(endpoint.left().len(), 2);
    }
}

#[tokio::test]
async fn failed_receive_releases_other_messages() {
    let endpoint = TestEndpoint::new(correct_reaction).await;
    for index in 0..15 {
        put_other(&endpoint, index, now());
    }
    endpoint.sqs.script(|number, call, _| {
        (number > 0 && call == "ReceiveMessage").then_some(Fault::Error(403, "AccessDenied"))
    });

    let found = endpoint.verify().await;

    assert_eq!(failed(&found[STORED]), "cannot receive from a-stack-verify: AccessDenied: scripted");
    assert!(endpoint.left().iter().all(|one| one.hidden_until <= now()), "{:#?}", endpoint.left());
}

#[tokio::test]
async fn unreachable_queue_is_reported_with_root_cause() {
    let endpoint = TestEndpoint::new(correct_reaction).await;
    let unreachable = StackInfo { aws_endpoint: "http://127.0.0.1:1".to_owned(), ..endpoint.info() };

    let error = VerifyQueue::of(&unreachable).unwrap().find_and_delete("a marker", 1).await.unwrap_err();

    assert_eq!(error.to_string(), "cannot receive from a-stack-verify: Connection refused (os error 111)");
}

#[tokio::test]
async fn slow_endpoint_fails_the_latency_check() {
    let always_slow: Handler =
        |number, body| Reaction { delay: Duration::from_millis(270), ..correct_reaction(number, body) };
    let slow_once: Handler = |number, body| match number {
        20 => Reaction { delay: Duration::from_millis(1050), ..correct_reaction(number, body) },
        _ => correct_reaction(number, body),
    };
    for handler in [always_slow, slow_once] {
        let found = TestEndpoint::new(handler).await.verify().await;

        let detail = failed(&found[LATENCY]);
        assert!(detail.starts_with("median ") && detail.ends_with(" ms of 20"), "{detail}");
        assert_eq!(passed(&found[STORED]), "20 of 20 found and deleted", "all slow notifications are stored");
    }
}

#[tokio::test]
async fn endpoint_must_accept_every_app_secret() {
    let both = TestEndpoint::with_secrets(&SECRETS, correct_reaction).await.verify_with(&SECRETS).await;
    assert_eq!(passed(&both[ACCEPTED]), "200, with each of 2 app secrets");
    assert_eq!(passed(&both[STORED]), "20 of 20 found and deleted");

    let endpoint = TestEndpoint::with_secrets(&SECRETS[..1], correct_reaction).await;
    let first = endpoint.verify_with(&SECRETS).await;
    assert_eq!(failed(&first[ACCEPTED]), "401, not 200 with app secret 2 of 2");
    assert!(matches!(first[STORED], Finding::Skipped { .. }));
    assert!(endpoint.left().is_empty());
}

#[tokio::test]
async fn unusual_requests_arrive_unchanged() {
    let endpoint = TestEndpoint::new(correct_reaction).await;

    let found = endpoint.verify().await;

    for check in ODD_CHECKS {
        assert_eq!(passed(&found[check]), "200");
    }
    let requests = endpoint.server.received_requests().await.unwrap();
    let (gets, posts): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.method == "GET");
    let query = |request: &Request| request.url.query().unwrap_or_default().to_owned();
    // Three forgeries, one of which is sent again, and the check of acceptance precede them.
    let odd_posts = &posts[5..][..ODD_NOTIFICATIONS];
    assert!(odd_posts.iter().all(|post| post.body.is_empty()), "the function stores nothing of them");
    for odd in [r"odd=[a]{b}|c\d^e`f", "odd=%zz%ff%&%=%", "odd=%00%09%0A%0D%20%22%3C%3E%23%7F"] {
        let odd = odd.replace(r"\\", r"\");
        assert!(gets.iter().any(|get| query(get).starts_with(&format!("{odd}&hub.mode=subscribe&"))), "{odd}");
        assert_eq!(odd_posts.iter().filter(|post| query(post) == odd).count(), 1, "{odd}");
    }
    let values = |name: &str| -> Vec<Vec<Vec<u8>>> {
        let of = |post: &Request| post.headers.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect();
        posts.iter().map(|post| of(post)).filter(|values: &Vec<_>| !values.is_empty()).collect()
    };
    let header = |value: &[u8]| value.to_vec();
    let unusual = header("\"a\\b\"\tä € {%}".as_bytes());
    assert_eq!(values("x-ingress-verify"), [vec![unusual], vec![header(b"1"), header(b"2")], vec![header(b"")]]);
    assert_eq!(values("x-forwarded-proto"), [[header(b"https,http")]]);
}

#[tokio::test]
async fn failed_unusual_request_has_a_cause_and_a_fix() {
    const FIRST: usize = 2;
    for (status, number, check, detail, cause, fix) in [
        (500, FIRST, 0, "a tab, quotes and non-ASCII characters in a header", "the deployed function fails", "deploy"),
        (400, FIRST + 1, 0, "a duplicate header", "the deployed function fails", "deploy"),
        (431, FIRST + 2, 0, "an empty header", "in front of it, rejects", "Meta sends no such request"),
        (401, FIRST + 3, 1, "raw characters in the query", "changes the request", "unchanged"),
        (414, FIRST + 5, 1, "encoded control characters in the query", "in front of it, rejects", "exempt the path"),
        (429, FIRST + 5, 1, "encoded control characters in the query", "throttled", "limits"),
        (502, FIRST + 6, 2, "x-forwarded-proto: https,http", "the deployed function fails", "log group"),
        (413, FIRST + 6, 2, "x-forwarded-proto: https,http", "in front of it, rejects", "replace x-forwarded-proto"),
    ] {
        let endpoint = TestEndpoint::new(move |at, body| match at {
            _ if at == number => Reaction { status, stored: Vec::new(), ..correct_reaction(at, body) },
            _ => correct_reaction(at, body),
        })
        .await;

        let found = endpoint.verify().await;

        for (at, odd_check) in ODD_CHECKS[1..].iter().enumerate() {
            let Finding::Failed { detail: seen, diagnosis } = &found[odd_check] else {
                assert_ne!(at, check, "{odd_check} passed with {status}");
                continue;
            };
            assert_eq!((at, seen), (check, &format!("{status}, not 200 with {detail}")));
            assert!(diagnosis.cause.contains(cause) && diagnosis.fix.contains(fix), "{status}: {diagnosis:?}");
        }
        assert_eq!(passed(&found[STORED]), "20 of 20 found and deleted");
        assert!(endpoint.left().is_empty());
    }
}

/// A process of `ingress verify` against a running stack.
struct VerifyProcess {
    child: Child,
    _folder: TempDir,
}

impl VerifyProcess {
    fn start(endpoint: &TestEndpoint) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".local")).unwrap();
        fs::write(folder.path().join(".local/running.json"), serde_json::to_vec(&endpoint.info()).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ingress"));
        command.arg("verify").current_dir(folder.path()).env_remove("APP_SECRET").env_remove("VERIFY_TOKEN");
        for name in ["AWS_ENDPOINT_URL", "AWS_PROFILE", "STACK"] {
            command.env_remove(name);
        }
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        Self { child, _folder: folder }
    }

    /// Sends SIGINT.
    async fn interrupt(&self) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    }

    async fn output(self) -> Output {
        timeout(Duration::from_secs(15), self.child.wait_with_output()).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn interrupted_run_deletes_its_messages() {
    let slow: Handler = |number, body| Reaction { delay: Duration::from_millis(200), ..correct_reaction(number, body) };
    let endpoint = TestEndpoint::new(slow).await;
    for index in 0..15 {
        put_other(&endpoint, index, now());
    }
    let process = VerifyProcess::start(&endpoint);
    while endpoint.genuine.load(Ordering::Relaxed) < 12 {
        sleep(Duration::from_millis(10)).await;
    }
    process.interrupt().await;
    let output = process.output().await;

    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
    let sent = endpoint.genuine.load(Ordering::Relaxed);
    assert!((12..SENT).contains(&sent), "{sent}");
    let sent = sent - 1 - ODD_NOTIFICATIONS;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("{sent} of {sent} found and deleted")), "{text}");
    assert!(text.contains(" failed, interrupted"), "{text}");
    let left = endpoint.left();
    assert_eq!(left.len(), 15);
    assert!(left.iter().all(|one| one.body.starts_with("another message") && one.hidden_until <= now()), "{left:#?}");
}

#[tokio::test]
async fn second_interrupt_skips_the_cleanup() {
    let endpoint = TestEndpoint::new(correct_reaction).await;
    endpoint.sqs.script(|_, call, _| (call == "ReceiveMessage").then_some(Fault::KilledBefore));
    let mut process = VerifyProcess::start(&endpoint);
    let mut lines = BufReader::new(process.child.stderr.take().unwrap()).lines();
    endpoint.sqs.kills.notified().await;
    process.interrupt().await;
    let first = lines.next_line().await.unwrap().unwrap();
    assert!(first.contains("interrupted: cleaning up"), "{first}");
    process.interrupt().await;

    // Shorter than the timeout of the call that the run waits for.
    let output = timeout(Duration::from_secs(10), process.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "ingress: interrupted");
}
