//! `ingress verify` against endpoints that take notifications and do one thing wrong with them, over an SQS of its own.

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
    queues::catch_all::CatchAllQueue,
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
/// One shows that notifications are accepted; the next ones measure, the last ones are odd.
const SENT: usize = 1 + LATENCY_SAMPLES + ODD_NOTIFICATIONS;

const ACCEPTED: &str = "signed notification accepted";
const LATENCY: &str = "latency within Meta's limits";
const STORED: &str = "stored on the catch-all queue, nothing else";

const ODD_CHECKS: [&str; 4] = [
    "challenge with an unusual query answered",
    "unusual header accepted",
    "unusual query accepted",
    "duplicate x-forwarded-proto accepted",
];

type Fate = fn(usize, &str) -> Becomes;

/// What becomes of a notification: an answer, after a while, and what is stored.
struct Becomes {
    status: u16,
    after: Duration,
    stored: Vec<Stored>,
}

/// As the function does it.
fn as_it_should(place: usize, body: &str) -> Becomes {
    let (status, stored) = if place == 0 { (401, Vec::new()) } else { (200, vec![message(body)]) };
    Becomes { status, after: Duration::ZERO, stored }
}

fn message(body: &str) -> Stored {
    with(body, &[("field", "ingress_verify"), ("unrouted_reason", "no-route")])
}

fn with(body: &str, attributes: &[(&str, &str)]) -> Stored {
    let attributes: serde_json::Map<String, Value> = attributes
        .iter()
        .map(|&(name, value)| (name.to_owned(), json!({ "DataType": "String", "StringValue": value })))
        .collect();
    Stored { body: body.to_owned(), attributes: attributes.into(), ..Stored::default() }
}

/// An endpoint, with the queue behind it.
struct World {
    server: MockServer,
    sqs: Arc<Sqs>,
    genuine: Arc<AtomicUsize>,
}

impl World {
    async fn new(fate: impl Fn(usize, &str) -> Becomes + Send + Sync + 'static) -> Self {
        Self::that_knows(&SECRETS[..1], fate).await
    }

    /// The fate of a notification: by its place among the genuine ones from 1, or 0 for a forgery.
    async fn that_knows(
        secrets: &'static [&'static str],
        fate: impl Fn(usize, &str) -> Becomes + Send + Sync + 'static,
    ) -> Self {
        let sqs = Arc::new(Sqs::start(&["unrouted"]).await);
        let genuine = Arc::new(AtomicUsize::new(0));
        let server = MockServer::start().await;
        let (queue, count) = (Arc::clone(&sqs), Arc::clone(&genuine));
        let answer = move |request: &Request| {
            if request.method == "GET" {
                return challenge::answer(request.url.query().unwrap_or_default(), VERIFY_TOKEN)
                    .map_or(ResponseTemplate::new(403), |text| ResponseTemplate::new(200).set_body_string(text));
            }
            let header = request.headers.get(signature::HEADER).map(|value| value.as_bytes().to_vec());
            let is_genuine = signature::verify(secrets.iter().copied(), &request.body, header.as_deref()).is_ok();
            let place = if is_genuine { 1 + count.fetch_add(1, Ordering::Relaxed) } else { 0 };
            let becomes = fate(place, std::str::from_utf8(&request.body).unwrap());
            for message in becomes.stored {
                queue.put("unrouted", message);
            }
            ResponseTemplate::new(becomes.status).set_delay(becomes.after)
        };
        Mock::given(any()).respond_with(answer).mount(&server).await;
        Self { server, sqs, genuine }
    }

    fn info(&self) -> StackInfo {
        let secret = json!({ "verify_token": VERIFY_TOKEN, "app_secret": SECRETS[0] }).to_string();
        StackInfo { callback_url: self.server.uri(), secret, ..self.sqs.info(&[("*", "unrouted")]) }
    }

    async fn verified(&self) -> BTreeMap<&'static str, Finding> {
        self.verified_with(&SECRETS[..1]).await
    }

    async fn verified_with(&self, secrets: &[&str]) -> BTreeMap<&'static str, Finding> {
        let target = Target {
            endpoint: Endpoint::new(&self.server.uri()).unwrap(),
            secret: json!({ "verify_token": VERIFY_TOKEN, "app_secret": secrets }).to_string(),
            catch_all: CatchAllQueue::of(&self.info()),
        };
        let checks = verify::verify(&target, &AtomicBool::new(false), |_| ()).await.into_iter();
        checks.map(|Check { check, finding }| (check, finding)).collect()
    }

    fn left(&self) -> Vec<Stored> {
        self.sqs.on("unrouted")
    }
}

#[track_caller]
fn holds(finding: &Finding) -> &str {
    let Finding::Passed { detail } = finding else { panic!("{finding:?}") };
    detail
}

/// What was seen, of what does not hold; with words on what to do.
#[track_caller]
fn fails(finding: &Finding) -> &str {
    let Finding::Failed { detail, diagnosis } = finding else { panic!("{finding:?}") };
    assert!(!diagnosis.cause.is_empty() && !diagnosis.fix.is_empty());
    detail
}

#[tokio::test]
async fn what_was_sent_is_found_and_deleted_and_strangers_are_shown_again() {
    let world = World::new(as_it_should).await;
    for stranger in 0..15 {
        world.sqs.put("unrouted", with(&format!("a stranger {stranger}"), &[("field", "flows")]));
    }

    let found = world.verified().await;

    assert_eq!(holds(&found[STORED]), "28 of 28 found and deleted");
    assert_eq!(world.genuine.load(Ordering::Relaxed), SENT);
    let left = world.left();
    assert_eq!(left.len(), 15);
    assert!(left.iter().all(|one| one.body.starts_with("a stranger") && one.receives == 1 && one.hidden <= now()));
}

#[tokio::test]
async fn a_notification_that_is_lost_is_missed() {
    let world = World::new(|place, body| match place {
        7 => Becomes { stored: Vec::new(), ..as_it_should(place, body) },
        _ => as_it_should(place, body),
    })
    .await;

    let found = world.verified().await;

    assert_eq!(fails(&found[STORED]), "1 of 28 not found among 27 messages");
}

#[tokio::test]
async fn forgeries_that_are_refused_and_stored_are_found_behind_all_others() {
    let forgeries = Mutex::new(Vec::new());
    let world = World::new(move |place, body| {
        let mut becomes = as_it_should(place, body);
        match place {
            0 => forgeries.lock().unwrap().push(message(body)),
            SENT => becomes.stored.append(&mut forgeries.lock().unwrap()),
            _ => (),
        }
        becomes
    })
    .await;
    for stranger in 0..9 {
        world.sqs.put("unrouted", with(&format!("a stranger {stranger}"), &[]));
    }

    let found = world.verified().await;

    assert_eq!(fails(&found[STORED]), "4 unexpected: forged, rejected or with other bytes");
    assert_eq!(world.left().len(), 9, "they are deleted too");
}

#[tokio::test]
async fn forgeries_that_are_taken_are_found_and_deleted() {
    let world = World::new(|place, body| as_it_should(place.max(1), body)).await;

    let found = world.verified().await;

    assert_eq!(fails(&found[STORED]), "3 unexpected: forged, rejected or with other bytes");
    assert_eq!(fails(&found["forged notification rejected"]), "200, not 401");
    assert!(world.left().is_empty());
}

#[tokio::test]
async fn forgeries_are_deleted_where_they_alone_are_taken() {
    let world = World::new(|place, body| Becomes {
        status: if place == 0 { 200 } else { 401 },
        ..as_it_should(usize::from(place == 0), body)
    })
    .await;

    let found = world.verified().await;

    assert_eq!(fails(&found[STORED]), "3 unexpected: forged, rejected or with other bytes");
    assert!(world.left().is_empty());
}

#[tokio::test]
async fn other_bytes_than_those_sent_are_not_what_was_sent() {
    let world = World::new(|place, body| match place {
        3 => {
            let same: Value = serde_json::from_str(body).unwrap();
            Becomes { stored: vec![message(&same.to_string())], ..as_it_should(place, body) }
        }
        _ => as_it_should(place, body),
    })
    .await;

    let found = world.verified().await;

    assert_eq!(
        fails(&found[STORED]),
        "1 of 28 not found among 28 messages; 1 unexpected: forged, rejected or with other bytes"
    );
    assert!(world.left().is_empty());
}

#[tokio::test]
async fn each_message_says_what_it_is_and_why_it_is_there() {
    let wrong: [(Fate, &str); 2] = [
        (
            |place, body| match place {
                5 => Becomes {
                    stored: vec![with(body, &[("field", "messages"), ("unrouted_reason", "no-route")])],
                    ..as_it_should(place, body)
                },
                _ => as_it_should(place, body),
            },
            r#"the attribute field is not "ingress_verify""#,
        ),
        (
            |place, body| match place {
                5 => Becomes { stored: vec![with(body, &[("field", "ingress_verify")])], ..as_it_should(place, body) },
                _ => as_it_should(place, body),
            },
            r#"the attribute unrouted_reason is not "no-route""#,
        ),
    ];
    for (fate, detail) in wrong {
        let found = World::new(fate).await.verified().await;

        assert_eq!(fails(&found[STORED]), detail);
    }
}

#[tokio::test]
async fn what_cannot_be_deleted_is_told() {
    for fault in [Fault::Refused(vec![0], "InternalError", false), Fault::Error(403, "AccessDenied")] {
        let world = World::new(as_it_should).await;
        let mut deletions = 0;
        world.sqs.script(move |_, call, _| {
            deletions += usize::from(call == "DeleteMessageBatch");
            (call == "DeleteMessageBatch" && deletions <= 2).then(|| fault.clone())
        });

        let found = world.verified().await;

        assert_eq!(fails(&found[STORED]), "2 not deleted");
        assert_eq!(world.left().len(), 2);
    }
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_on_is_told_and_strangers_are_shown_again() {
    let world = World::new(as_it_should).await;
    for stranger in 0..15 {
        world.sqs.put("unrouted", with(&format!("a stranger {stranger}"), &[]));
    }
    world.sqs.script(|number, call, _| {
        (number > 0 && call == "ReceiveMessage").then_some(Fault::Error(403, "AccessDenied"))
    });

    let found = world.verified().await;

    assert_eq!(fails(&found[STORED]), "cannot receive from a-stack-unrouted: AccessDenied: as told");
    assert!(world.left().iter().all(|one| one.hidden <= now()), "{:#?}", world.left());
}

#[tokio::test]
async fn a_queue_that_is_not_there_is_named_with_the_innermost_cause() {
    let world = World::new(as_it_should).await;
    let elsewhere = StackInfo { aws_endpoint: "http://127.0.0.1:1".to_owned(), ..world.info() };

    let error = CatchAllQueue::of(&elsewhere).unwrap().find_and_delete("a marker", 1).await.unwrap_err();

    assert_eq!(error.to_string(), "cannot receive from a-stack-unrouted: Connection refused (os error 111)");
}

#[tokio::test]
async fn a_slow_endpoint_is_too_slow_for_meta() {
    let usually: Fate = |place, body| Becomes { after: Duration::from_millis(270), ..as_it_should(place, body) };
    let once: Fate = |place, body| match place {
        9 => Becomes { after: Duration::from_millis(1050), ..as_it_should(place, body) },
        _ => as_it_should(place, body),
    };
    for fate in [usually, once] {
        let found = World::new(fate).await.verified().await;

        let detail = fails(&found[LATENCY]);
        assert!(detail.starts_with("median ") && detail.ends_with(" ms of 20"), "{detail}");
        assert_eq!(holds(&found[STORED]), "28 of 28 found and deleted", "slow is not lost");
    }
}

#[tokio::test]
async fn every_app_secret_has_to_be_known() {
    let both = World::that_knows(&SECRETS, as_it_should).await.verified_with(&SECRETS).await;
    assert_eq!(holds(&both[ACCEPTED]), "200, with each of 2 app secrets");
    assert_eq!(holds(&both[STORED]), "29 of 29 found and deleted");

    let world = World::that_knows(&SECRETS[..1], as_it_should).await;
    let first = world.verified_with(&SECRETS).await;
    assert_eq!(fails(&first[ACCEPTED]), "401, not 200 with app secret 2 of 2");
    assert_eq!(holds(&first[STORED]), "1 of 1 found and deleted");
    assert!(world.left().is_empty());
}

#[tokio::test]
async fn odd_requests_arrive_unchanged() {
    let world = World::new(as_it_should).await;

    let found = world.verified().await;

    for check in ODD_CHECKS {
        assert_eq!(holds(&found[check]), "200");
    }
    let requests = world.server.received_requests().await.unwrap();
    let (gets, posts): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.method == "GET");
    let query = |request: &Request| request.url.query().unwrap_or_default().to_owned();
    let odd_posts = &posts[posts.len() - ODD_NOTIFICATIONS..];
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
async fn odd_request_that_fails_has_a_cause_and_a_fix() {
    const FIRST: usize = SENT - ODD_NOTIFICATIONS + 1;
    for (status, place, check, detail, cause, fix) in [
        (500, FIRST, 0, "a tab, quotes and non-ASCII characters in a header", "the deployed function fails", "deploy"),
        (400, FIRST + 1, 0, "a duplicate header", "the deployed function fails", "deploy"),
        (431, FIRST + 2, 0, "an empty header", "in front of it, rejects", "Meta sends no such request"),
        (401, FIRST + 3, 1, "raw characters in the query", "changes the request", "unchanged"),
        (414, FIRST + 5, 1, "encoded control characters in the query", "in front of it, rejects", "exempt the path"),
        (429, FIRST + 5, 1, "encoded control characters in the query", "throttled", "limits"),
        (502, FIRST + 6, 2, "x-forwarded-proto: https,http", "the deployed function fails", "log group"),
        (413, FIRST + 6, 2, "x-forwarded-proto: https,http", "in front of it, rejects", "replace x-forwarded-proto"),
    ] {
        let world = World::new(move |at, body| match at {
            _ if at == place => Becomes { status, stored: Vec::new(), ..as_it_should(at, body) },
            _ => as_it_should(at, body),
        })
        .await;

        let found = world.verified().await;

        for (at, odd_check) in ODD_CHECKS[1..].iter().enumerate() {
            let Finding::Failed { detail: seen, diagnosis } = &found[odd_check] else {
                assert_ne!(at, check, "{odd_check} holds with {status}");
                continue;
            };
            assert_eq!((at, seen), (check, &format!("{status}, not 200 with {detail}")));
            assert!(diagnosis.cause.contains(cause) && diagnosis.fix.contains(fix), "{status}: {diagnosis:?}");
        }
        assert_eq!(holds(&found[STORED]), "27 of 27 found and deleted");
        assert!(world.left().is_empty());
    }
}

#[tokio::test]
async fn odd_notification_that_is_lost_is_missed() {
    let world = World::new(|place, body| match place {
        SENT => Becomes { stored: Vec::new(), ..as_it_should(place, body) },
        _ => as_it_should(place, body),
    })
    .await;

    assert_eq!(fails(&world.verified().await[STORED]), "1 of 28 not found among 27 messages");
}

/// The command itself, where this stack is the one that is up.
struct Verifying {
    child: Child,
    _folder: TempDir,
}

impl Verifying {
    fn start(world: &World) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".local")).unwrap();
        fs::write(folder.path().join(".local/running.json"), serde_json::to_vec(&world.info()).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ingress"));
        command.arg("verify").current_dir(folder.path()).env_remove("APP_SECRET").env_remove("VERIFY_TOKEN");
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        Self { child, _folder: folder }
    }

    /// Ctrl-C.
    async fn interrupt(&self) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    }

    async fn ended(self) -> Output {
        timeout(Duration::from_secs(15), self.child.wait_with_output()).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn an_interrupted_run_cleans_up_what_it_sent() {
    let slowly: Fate = |place, body| Becomes { after: Duration::from_millis(200), ..as_it_should(place, body) };
    let world = World::new(slowly).await;
    for stranger in 0..15 {
        world.sqs.put("unrouted", with(&format!("a stranger {stranger}"), &[]));
    }
    let verifying = Verifying::start(&world);
    while world.genuine.load(Ordering::Relaxed) < 5 {
        sleep(Duration::from_millis(10)).await;
    }
    verifying.interrupt().await;
    let output = verifying.ended().await;

    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
    let sent = world.genuine.load(Ordering::Relaxed);
    assert!((5..SENT).contains(&sent), "{sent}");
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("{sent} of {sent} found and deleted")));
    let left = world.left();
    assert_eq!(left.len(), 15);
    assert!(left.iter().all(|one| one.body.starts_with("a stranger") && one.hidden <= now()), "{left:#?}");
}

#[tokio::test]
async fn a_second_interrupt_ends_a_run_that_cannot_clean_up() {
    let world = World::new(as_it_should).await;
    world.sqs.script(|_, call, _| (call == "ReceiveMessage").then_some(Fault::KilledBefore));
    let mut verifying = Verifying::start(&world);
    let mut told = BufReader::new(verifying.child.stderr.take().unwrap()).lines();
    world.sqs.kills.notified().await;
    verifying.interrupt().await;
    let first = told.next_line().await.unwrap().unwrap();
    assert!(first.contains("interrupted: cleaning up"), "{first}");
    verifying.interrupt().await;

    // The queue is waited for a little longer than this.
    let output = timeout(Duration::from_secs(10), verifying.ended()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(told.next_line().await.unwrap().unwrap(), "ingress: interrupted");
}
