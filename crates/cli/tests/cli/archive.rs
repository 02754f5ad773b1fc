//! Replays and erases notifications with a minimal S3 and a scripted SQS that fails in various ways.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use ingress_tools::{
    archive::{
        app_secrets::AppSecrets,
        bucket::Buckets,
        erase::erase,
        error::ArchiveError,
        list,
        notification::{Archived, SignatureState, encode},
        print,
        replay::{Destination, Replay, ReplayReport},
        scan::Archive,
        selection::Selection,
    },
    aws::stack_info::StackInfo,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use whatsapp_webhook::{
    archive::ArchiveHeader,
    message::{Message, RequestContext, event_id},
    notification::split,
    signature,
};
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

use crate::sqs::{Fault, SECRET_ARN, Sqs, Stored, text};

const ROUTES: [(&str, &str); 4] =
    [("*", "unrouted"), ("messages", "messages.fifo"), ("messages", "copies"), ("security", "security")];
const QUEUES: [&str; 4] = ["unrouted", "messages.fifo", "copies", "security"];
const OLDER_SECRET: &str = "the function no longer accepts the app secret that signed it; use --to-queue";
const TRACE: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1";
static NOT_STOPPED: AtomicBool = AtomicBool::new(false);

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A bucket with notifications, and queues. S3 lists two keys a page.
struct Fixture {
    sqs: Sqs,
    info: StackInfo,
    archive: Archive,
    objects: Objects,
    state: TempDir,
    /// The size that S3 lists for each object.
    listed_size: Arc<AtomicU64>,
    s3: MockServer,
}

impl Fixture {
    async fn start() -> Self {
        let (sqs, s3, objects) = (Sqs::start(&QUEUES).await, MockServer::start().await, Objects::default());
        let (shared, listed_size) = (Arc::clone(&objects), Arc::new(AtomicU64::new(1)));
        let size = Arc::clone(&listed_size);
        let respond = move |request: &Request| respond(&shared, size.load(Ordering::Relaxed), request);
        Mock::given(any()).respond_with(respond).mount(&s3).await;
        let info = sqs.info(&ROUTES);
        // The endpoint of a local stack is that of all services.
        let local = StackInfo { aws_endpoint: s3.uri(), log: Some("a.log".into()), ..sqs.info(&ROUTES) };
        let archive = Archive {
            buckets: Buckets::new(&local, "archive".to_owned(), Some("payloads".to_owned())),
            secrets: AppSecrets::new(vec!["an-app-secret".to_owned()], vec!["an-older-one".to_owned()]),
            routes: info.routes.clone(),
        };
        Self { sqs, info, archive, objects, state: tempfile::tempdir().unwrap(), listed_size, s3 }
    }

    /// Archives a notification, one a second.
    fn put(&self, body: &Value) -> String {
        self.put_signed(body.to_string().as_bytes(), "an-app-secret")
    }

    fn put_signed(&self, body: &[u8], app_secret: &str) -> String {
        let mut objects = self.objects.lock().unwrap();
        let header = ArchiveHeader {
            received: format!("2026-01-02T03:04:{:02}.000Z", objects.len()),
            request_id: format!("request-{}", objects.len()),
            trace: Some(TRACE.to_owned()),
            signature: signature::sign(app_secret, body),
            rewritten: None,
        };
        let key = header.key().unwrap();
        objects.insert(format!("archive/{key}"), encode(&header, body));
        key
    }

    fn object(&self, key: &str) -> Option<Archived> {
        let object = self.objects.lock().unwrap().get(&format!("archive/{key}"))?.clone();
        Some(Archived::read(key.to_owned(), &object, &self.archive.secrets))
    }

    async fn replay(&self, destination: &Destination, selection: Selection) -> ReplayReport {
        self.prepare(destination, selection).run(1_000_000, false, &NOT_STOPPED, |_| ()).await.unwrap()
    }

    fn prepare(&self, destination: &Destination, selection: Selection) -> Replay<'_> {
        Replay::prepare(&self.archive, &self.info, selection, destination, self.state.path()).unwrap()
    }
}

/// Answers as S3 does, with the bucket in the path.
fn respond(objects: &Objects, size: u64, request: &Request) -> ResponseTemplate {
    let mut objects = objects.lock().unwrap();
    assert!(request.headers.contains_key("authorization"));
    let path = request.url.path().trim_start_matches('/').replace("%3D", "=").replace("%C3%A9", "\u{e9}");
    let parameter =
        |name: &str| request.url.query_pairs().find(|(of, _)| of == name).map(|(_, value)| value.into_owned());
    match request.method.as_str() {
        "GET" if request.url.query().is_some() => {
            let prefix = format!("{path}{}", parameter("prefix").unwrap());
            let after = parameter("start-after").map(|key| format!("{path}{key}")).unwrap_or_default();
            let mut keys = objects.keys().filter(|key| key.starts_with(&prefix) && **key > after);
            let contents: String = keys.by_ref().take(2).map(|key| contents(&key[path.len()..], size)).collect();
            let is_truncated = keys.next().is_some();
            let xml =
                format!("<ListBucketResult><IsTruncated>{is_truncated}</IsTruncated>{contents}</ListBucketResult>");
            ResponseTemplate::new(200).set_body_string(xml)
        }
        "GET" => objects.get(&path).map_or_else(
            || ResponseTemplate::new(404).set_body_string("<Error><Code>NoSuchKey</Code></Error>"),
            |object| ResponseTemplate::new(200).set_body_bytes(object.clone()),
        ),
        "PUT" => {
            objects.insert(path, request.body.clone());
            ResponseTemplate::new(200)
        }
        _ => {
            objects.remove(&path);
            ResponseTemplate::new(204)
        }
    }
}

fn contents(key: &str, size: u64) -> String {
    format!("<Contents><Key>{key}</Key><Size>{size}</Size></Contents>")
}

fn change(field: &str, value: &Value) -> Value {
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": "10", "changes": [{ "field": field, "value": value }] }] })
}

fn message(from: &str, words: &str) -> Value {
    let metadata = json!({ "display_phone_number": "15550100100", "phone_number_id": "20" });
    change("messages", &json!({ "metadata": metadata, "messages": [{ "from": from, "text": { "body": words } }] }))
}

fn route(route: &str) -> Destination {
    Destination::Route(route.to_owned())
}

/// What a replay left out, by reason.
fn counts(report: &ReplayReport) -> Vec<(&str, usize)> {
    report.not_replayed.iter().map(|(reason, left_out)| (reason.as_str(), left_out.count)).collect()
}

fn bodies(messages: &[Stored]) -> Vec<Value> {
    messages.iter().map(|message| serde_json::from_str(&message.body).unwrap()).collect()
}

#[tokio::test]
async fn replayed_message_is_that_of_the_function() {
    let fixture = Fixture::start().await;
    let notification = message("15550100123", "hi");
    fixture.put(&notification);
    let body = notification.to_string();
    let fragments = split(body.as_bytes());
    let request = RequestContext { request_id: "request-0", group_key: SECRET_ARN, trace: Some(TRACE) };

    let report = fixture.replay(&route("messages"), Selection::default()).await;

    assert_eq!((report.sent, report.is_success()), (2, true), "{report:?}");
    for (queue, is_fifo) in [("messages.fifo", true), ("copies", false)] {
        let [found] = fixture.sqs.on(queue).try_into().unwrap();
        let expected = Message::new(&fragments[0], &event_id(&fragments[0]), request, None, is_fifo);
        assert_eq!((&found.body, found.group, found.trace), (&expected.body, Some(expected.group_id), expected.trace));
        let mut attributes = found.attributes;
        let replayed = attributes.as_object_mut().unwrap().remove("replayed").unwrap();
        assert_eq!(replayed["StringValue"].as_str().unwrap().len(), "2026-01-02T03:04:05Z".len());
        let expected = expected.attributes.iter().map(|(name, value)| {
            ((*name).to_owned(), json!({ "DataType": value.data_type(), "StringValue": value.text() }))
        });
        assert_eq!(attributes, Value::from(expected.collect::<serde_json::Map<_, _>>()));
    }
    assert!(fixture.sqs.on("unrouted").is_empty() && fixture.sqs.on("security").is_empty());
}

#[tokio::test]
async fn fifo_replay_keeps_order_and_is_not_dropped() {
    let fixture = Fixture::start().await;
    let notifications: Vec<_> = (0..13).map(|number| message("15550100123", &format!("{number}"))).collect();
    for notification in &notifications {
        fixture.put(notification);
    }
    let fifo = Destination::Queue("a-stack-messages.fifo".to_owned());

    fixture.replay(&fifo, Selection::default()).await;
    assert_eq!(bodies(&fixture.sqs.on("messages.fifo")), notifications);

    // Another replay has another time, in seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    fixture.replay(&fifo, Selection::default()).await;
    assert_eq!(bodies(&fixture.sqs.on("messages.fifo")), [&notifications[..], &notifications].concat());
}

#[tokio::test]
async fn stopped_replay_goes_on_with_the_same_time() {
    let fixture = Fixture::start().await;
    for number in 0..35 {
        fixture.put(&message("15550100123", &format!("{number}")));
    }
    let mut sends = 0;
    fixture.sqs.script(move |_, _, entries| {
        sends += 1;
        // Within the second notification batch: one queue stored it, the other one did not.
        (sends == 14 && !entries.is_empty()).then_some(Fault::Error(403, "AccessDenied"))
    });

    let stopped = fixture.replay(&route("messages"), Selection::default()).await;

    assert!(stopped.stop_reason.as_ref().unwrap().contains("AccessDenied") && !stopped.is_success(), "{stopped:?}");
    let state = std::fs::read_to_string(stopped.state_file.unwrap()).unwrap();
    assert!(!state.contains("1555"), "{state}");
    fixture.sqs.clear_script();
    let dry = fixture.prepare(&route("messages"), Selection::default()).count(false, &NOT_STOPPED).await.unwrap();
    assert_eq!(dry.resumed_after, stopped.last_key);
    let rest = fixture.replay(&route("messages"), Selection::default()).await;

    assert!(rest.is_success() && rest.resumed_after.is_some(), "{rest:?}");
    // The FIFO queue drops the copies, because both runs have the same time.
    assert_eq!(fixture.sqs.on("messages.fifo").len(), 35);
    assert!((35..=45).contains(&fixture.sqs.on("copies").len()));
    let mut events = fixture.sqs.events("copies");
    events.sort();
    events.dedup();
    assert_eq!(events.len(), 35);
    let all = [fixture.sqs.on("copies"), fixture.sqs.on("messages.fifo")].concat();
    assert!(all.iter().all(|one| text(&one.attributes, "replayed") == text(&all[0].attributes, "replayed")));
    assert!(is_empty(fixture.state.path()), "a complete replay leaves no state");
}

/// Days later, the same command resumes a run that failed at its first call. It must not hide that it ends at the time of that run.
#[tokio::test]
async fn failed_run_is_resumed_with_its_time() {
    let fixture = Fixture::start().await;
    for number in 0..3 {
        fixture.put(&change("security", &json!({ "number": number })));
    }
    fixture.sqs.script(|_, _, _| Some(Fault::Error(403, "AccessDenied")));
    let failed = fixture.replay(&route("security"), Selection::default()).await;
    fixture.sqs.clear_script();
    let mut state: Value =
        serde_json::from_slice(&std::fs::read(failed.state_file.as_ref().unwrap()).unwrap()).unwrap();
    assert_eq!((failed.resumed_since, &state["last_key"]), (None, &Value::Null));
    state["started"] = "2026-01-02T03:04:01.000Z".into();
    std::fs::write(failed.state_file.unwrap(), state.to_string()).unwrap();

    let prepared = fixture.prepare(&route("security"), Selection::default());
    assert_eq!(prepared.count(true, &NOT_STOPPED).await.unwrap().notifications, 3);
    let dry = prepared.count(false, &NOT_STOPPED).await.unwrap();
    let rest = fixture.replay(&route("security"), Selection::default()).await;

    for report in [&dry, &rest] {
        let since = report.resumed_since.as_ref().unwrap().as_str();
        assert_eq!((since, report.notifications), ("2026-01-02T03:04:01.000Z", 1), "{report:?}");
    }
}

#[tokio::test]
async fn resumed_replay_reports_what_was_left_out() {
    let fixture = Fixture::start().await;
    let body = |number: usize| change("security", &json!({ "number": number }));
    let forged = fixture.put_signed(body(100).to_string().as_bytes(), "another");
    for number in 0..15 {
        fixture.put(&body(number));
    }
    let mut faults =
        [Fault::Rejected(vec![3], "InvalidMessageContents", true), Fault::Error(403, "AccessDenied")].into_iter();
    fixture.sqs.script(move |_, _, _| faults.next());

    let stopped = fixture.replay(&route("security"), Selection::default()).await;
    assert!(stopped.stop_reason.is_some());
    let prepared = fixture.prepare(&route("security"), Selection::default());
    let dry = prepared.count(false, &NOT_STOPPED).await.unwrap();
    let rest = fixture.replay(&route("security"), Selection::default()).await;

    assert_eq!(fixture.sqs.on("security").len(), 14);
    for report in [&stopped, &dry, &rest] {
        assert_eq!(counts(report), [("DOES NOT VERIFY", 1), ("rejected by the queue: InvalidMessageContents", 1)]);
        assert_eq!(
            (&report.not_replayed["DOES NOT VERIFY"].first, report.is_success()),
            (&vec![forged.clone()], false)
        );
    }
    assert!(is_empty(fixture.state.path()));
    assert!(
        counts(&prepared.count(true, &NOT_STOPPED).await.unwrap()).len() == 1,
        "a restart forgets the rejected one"
    );
}

#[tokio::test]
async fn empty_selection_is_no_success() {
    let fixture = Fixture::start().await;
    fixture.put(&change("security", &json!({})));
    let other = Selection { request_id: Some("another".to_owned()), ..Selection::default() };

    let verified = list::verify(&fixture.archive, &other, &NOT_STOPPED, |_| ()).await.unwrap();
    let dry = fixture.prepare(&route("security"), other.clone()).count(false, &NOT_STOPPED).await.unwrap();
    let replayed = fixture.replay(&route("security"), other).await;

    assert!(!verified.is_success() && !dry.is_success() && !replayed.is_success());
    let [from, to] = ["2026-02-01", "2026-01-01"].map(|time| time.parse().ok());
    let reversed = Selection { from, to, ..Selection::default() };
    let error = Replay::prepare(&fixture.archive, &fixture.info, reversed, &route("security"), fixture.state.path())
        .unwrap_err();
    assert!(error.to_string().contains("--from 2026-02-01T00:00:00.000Z is not before --to"), "{error}");
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[tokio::test]
async fn rejected_message_is_counted() {
    let fixture = Fixture::start().await;
    for number in 0..3 {
        fixture.put(&change("security", &json!({ "number": number })));
    }
    fixture.sqs.script(|_, _, _| Some(Fault::Rejected(vec![1], "InvalidMessageContents", true)));

    let report = fixture.replay(&route("security"), Selection::default()).await;

    let rejected = &report.not_replayed["rejected by the queue: InvalidMessageContents"];
    let body = change("security", &json!({ "number": 1 })).to_string();
    assert_eq!((report.sent, report.is_success()), (2, false));
    assert_eq!((rejected.count, &rejected.first), (1, &vec![event_id(&split(body.as_bytes())[0])]));
    assert_eq!(fixture.sqs.on("security").len(), 2);
}

/// SQS can reject a whole call because of one message, without naming it.
#[tokio::test]
async fn message_that_fails_its_batch_is_isolated() {
    let fixture = Fixture::start().await;
    for number in 0..25 {
        fixture.put(&change("security", &json!({ "number": number })));
    }
    let is_bad = |entry: &Value| entry["MessageBody"].as_str().unwrap().contains(r#""number":13}"#);
    fixture
        .sqs
        .script(move |_, _, entries| entries.iter().any(is_bad).then_some(Fault::Error(400, "InvalidParameterValue")));

    let report = fixture.replay(&route("security"), Selection::default()).await;

    assert_eq!((report.sent, report.stop_reason.as_deref()), (24, None));
    assert_eq!(counts(&report), [("rejected by the queue: InvalidParameterValue", 1)]);
    assert_eq!(fixture.sqs.on("security").len(), 24);
    // Three calls of ten, ten and five messages, and ten calls of one.
    assert_eq!(fixture.sqs.account().calls.len(), 3 + 10);

    // If SQS has stored none yet, every call may fail. Then the replay stops.
    fixture.sqs.script(|_, _, _| Some(Fault::Error(403, "SignatureDoesNotMatch")));
    let report = fixture.replay(&route("security"), Selection::default()).await;
    assert_eq!(report.sent, 0);
    assert!(report.stop_reason.unwrap().contains("SignatureDoesNotMatch") && report.not_replayed.is_empty());
}

#[tokio::test]
async fn transient_error_is_retried() {
    let fixture = Fixture::start().await;
    for number in 0..3 {
        fixture.put(&change("security", &json!({ "number": number })));
    }
    let mut faults = [
        Fault::Error(503, "ServiceUnavailable"),
        Fault::Rejected(vec![0, 2], "InternalError", false),
        Fault::Omitted(vec![1]),
    ]
    .into_iter();
    fixture.sqs.script(move |_, _, _| faults.next());

    let report = fixture.replay(&route("security"), Selection::default()).await;

    assert_eq!((report.sent, report.is_success()), (3, true), "{report:?}");
    let mut numbers: Vec<_> = bodies(&fixture.sqs.on("security"))
        .iter()
        .map(|body| body["entry"][0]["changes"][0]["value"].to_string())
        .collect();
    numbers.sort();
    assert_eq!(numbers.len(), 3);
    numbers.dedup();
    assert_eq!(numbers.len(), 3);
}

#[tokio::test]
async fn large_body_gets_an_object_of_its_own() {
    let fixture = Fixture::start().await;
    let notification = message("15550100123", &"x".repeat(1_100_000));
    fixture.put(&notification);

    let report = fixture.replay(&route("messages"), Selection::default()).await;

    assert_eq!((report.sent, report.claim_checks), (2, 2), "{report:?}");
    let mut keys = Vec::new();
    for queue in ["messages.fifo", "copies"] {
        let [found] = fixture.sqs.on(queue).try_into().unwrap();
        assert_eq!(text(&found.attributes, "ExtendedPayloadSize"), notification.to_string().len().to_string());
        assert_ne!(text(&found.attributes, "replayed"), "");
        let pointer: Value = serde_json::from_str(&found.body).unwrap();
        assert_eq!(pointer[1]["s3BucketName"], "payloads");
        keys.push(pointer[1]["s3Key"].as_str().unwrap().to_owned());
        let objects = fixture.objects.lock().unwrap();
        assert_eq!(objects[&format!("payloads/{}", keys.last().unwrap())], notification.to_string().into_bytes());
    }
    assert!(keys[0] != keys[1] && keys[0].starts_with("messages/2"), "{keys:?}");
}

#[tokio::test]
async fn only_authentic_notifications_are_replayed() {
    let fixture = Fixture::start().await;
    let body = change("security", &json!({ "number": 1 })).to_string();
    let forged = fixture.put_signed(body.as_bytes(), "another");
    fixture.put_signed(body.as_bytes(), "an-older-one");
    let unreadable = "archive/2026/01/02/03/20260102T030459.000Z-x".to_owned();
    fixture.objects.lock().unwrap().insert(format!("archive/{unreadable}"), b"{}".to_vec());

    let report = fixture.replay(&route("security"), Selection::default()).await;

    let failed = [(forged.clone(), SignatureState::Mismatch), (unreadable, SignatureState::Unreadable)];
    assert_eq!((report.sent, report.is_success()), (1, false));
    for (key, state) in &failed {
        assert_eq!(&report.not_replayed[state.text()].first, std::slice::from_ref(key));
    }
    let verified = list::verify(&fixture.archive, &Selection::default(), &NOT_STOPPED, |_| ()).await.unwrap();
    assert_eq!((&*verified.failed, verified.counts[&SignatureState::VerifiedByOlderSecret]), (&failed[..], 1));
    // The function would reject the older secret.
    let older = Selection { request_id: Some("request-1".to_owned()), ..Selection::default() };
    let report = fixture.replay(&Destination::Endpoint, older).await;
    assert_eq!((counts(&report), report.sent, report.is_success()), (vec![(OLDER_SECRET, 1)], 0, false));
}

/// The function archives the notifications that a replay delivers. A replay whose end is in the future must not replay these.
#[tokio::test]
async fn notification_of_the_replay_is_not_replayed() {
    let fixture = Fixture::start().await;
    let originals = [1, 2, 3].map(|number| change("security", &json!({ "number": number })));
    for notification in &originals {
        fixture.put(notification);
    }
    let (objects, server) = (Arc::clone(&fixture.objects), MockServer::start().await);
    let archive_again = move |request: &Request| {
        let mut objects = objects.lock().unwrap();
        // After some copies it ends, so that a failing test ends too.
        if objects.len() < 10 {
            let header = ArchiveHeader {
                received: format!("2099-01-02T03:04:{:02}.000Z", objects.len()),
                request_id: "replayed".to_owned(),
                trace: None,
                signature: request.headers["x-hub-signature-256"].to_str().unwrap().to_owned(),
                rewritten: None,
            };
            objects.insert(format!("archive/{}", header.key().unwrap()), encode(&header, &request.body));
        }
        ResponseTemplate::new(200)
    };
    Mock::given(any()).respond_with(archive_again).mount(&server).await;
    let info = StackInfo { callback_url: server.uri(), ..fixture.sqs.info(&ROUTES) };
    let selection = Selection { to: "2100-01-01".parse().ok(), ..Selection::default() };
    let prepared =
        Replay::prepare(&fixture.archive, &info, selection, &Destination::Endpoint, fixture.state.path()).unwrap();

    let report = prepared.run(1_000_000, false, &NOT_STOPPED, |_| ()).await.unwrap();

    assert_eq!((report.sent, report.is_success()), (3, true), "{report:?}");
    let received = server.received_requests().await.unwrap();
    let bodies: Vec<Value> = received.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect();
    assert_eq!(bodies, originals);
}

/// The operator's signature of a rewritten notification is of the app secret of that time, which can be an older one today.
#[tokio::test]
async fn rewritten_by_older_secret_is_not_posted() {
    let fixture = Fixture::start().await;
    let body = change("security", &json!({ "number": 1 })).to_string();
    let key = fixture.put_signed(body.as_bytes(), "an-older-one");
    let content = fixture.object(&key).unwrap().content.unwrap();
    let header = ArchiveHeader { rewritten: Some("2026-01-03T00:00:00.000Z".to_owned()), ..content.header };
    fixture.objects.lock().unwrap().insert(format!("archive/{key}"), encode(&header, body.as_bytes()));
    assert_eq!(fixture.object(&key).unwrap().signature(), SignatureState::Rewritten);
    fixture.put(&change("security", &json!({ "number": 2 })));
    let server = MockServer::start().await;
    // The function rejects the older secret, which would stop this replay and each further one.
    let answer = |request: &Request| {
        let is_current = signature::verify(
            ["an-app-secret"],
            &request.body,
            Some(request.headers["x-hub-signature-256"].as_bytes()),
        );
        ResponseTemplate::new(if is_current.is_ok() { 200 } else { 401 })
    };
    Mock::given(any()).respond_with(answer).mount(&server).await;
    let info = StackInfo { callback_url: server.uri(), ..fixture.sqs.info(&ROUTES) };
    let prepared =
        Replay::prepare(&fixture.archive, &info, Selection::default(), &Destination::Endpoint, fixture.state.path());

    let report = prepared.unwrap().run(1_000_000, false, &NOT_STOPPED, |_| ()).await.unwrap();

    assert_eq!((counts(&report), report.sent, &report.stop_reason), (vec![(OLDER_SECRET, 1)], 1, &None));
    assert_eq!(fixture.replay(&route("security"), Selection::default()).await.sent, 2);
}

#[tokio::test]
async fn dry_run_counts_what_the_run_would_send() {
    let fixture = Fixture::start().await;
    for number in 0..35 {
        fixture.put(&message("15550100123", &format!("{number}")));
    }
    let limited = Selection { limit: Some(30), ..Selection::default() };
    let mut sends = 0;
    fixture.sqs.script(move |_, _, _| {
        sends += 1;
        (sends == 14).then_some(Fault::Error(403, "AccessDenied"))
    });
    let stopped = fixture.replay(&route("messages"), limited.clone()).await;
    fixture.sqs.clear_script();
    // Only what both queues stored counts.
    assert_eq!((stopped.notifications, stopped.is_success()), (10, false), "{stopped:?}");
    let prepared = fixture.prepare(&route("messages"), limited.clone());

    let rest = prepared.count(false, &NOT_STOPPED).await.unwrap();
    assert_eq!((rest.notifications, rest.resumed_after), (20, stopped.last_key));
    let anew = prepared.count(true, &NOT_STOPPED).await.unwrap();
    assert_eq!((anew.notifications, anew.resumed_after), (30, None));

    std::fs::write(stopped.state_file.unwrap(), "damaged").unwrap();
    assert!(prepared.count(false, &NOT_STOPPED).await.unwrap_err().to_string().contains("--restart"));
    assert_eq!(prepared.count(true, &NOT_STOPPED).await.unwrap().notifications, 30);
}

/// A second run of the same command would send each message twice, and share the file with the first one.
#[tokio::test]
async fn same_replay_runs_once_at_a_time() {
    let fixture = Fixture::start().await;
    fixture.put(&change("security", &json!({ "number": 1 })));
    fixture.put(&message("15550100123", "hi"));
    let (security, messages) = (route("security"), route("messages"));
    let [first, second] = [0, 1].map(|_| fixture.prepare(&security, Selection::default()));
    let other = fixture.prepare(&messages, Selection::default());

    let run = async |replay: &Replay<'_>| replay.run(1_000_000, false, &NOT_STOPPED, |_| ()).await;
    let (first, second, other) = tokio::join!(run(&first), run(&second), run(&other));

    assert!(first.unwrap().is_success() && other.unwrap().is_success());
    assert!(second.unwrap_err().to_string().contains("runs already"));
    assert_eq!(fixture.sqs.on("security").len(), 1);
    assert!(is_empty(fixture.state.path()));
    assert_eq!(fixture.replay(&route("security"), Selection::default()).await.sent, 1);
}

/// Anyone who may write to the bucket chooses the keys.
#[tokio::test]
async fn key_does_not_control_the_terminal() {
    let fixture = Fixture::start().await;
    let key = "archive/2026/01/02/03/\u{1b}]0;title\u{7}";
    let row = list::Row {
        key: key.to_owned(),
        received: None,
        request_id: None,
        bytes: None,
        changes: BTreeMap::new(),
        signature: SignatureState::Unreadable,
        rewritten: None,
    };
    let report = ReplayReport { last_key: Some(key.to_owned()), ..ReplayReport::default() };
    let error = ArchiveError::S3 { action: "read", key: key.to_owned(), reason: String::new() };
    for line in [print::row(&row), print::replay_progress(&report), error.to_string()] {
        assert!(line.contains("03/?]0;title?"), "{line:?}");
    }
    // With --json it is the key.
    fixture.objects.lock().unwrap().insert("archive/archive/x\u{e9}".to_owned(), Vec::new());
    let verified = list::verify(&fixture.archive, &Selection::default(), &NOT_STOPPED, |_| ()).await.unwrap();
    assert_eq!(verified.failed[0].0, "archive/x\u{e9}");
}

/// `ingress archive list | head` must not read the rest of the archive.
#[tokio::test]
async fn list_ends_with_its_reader() {
    let fixture = Fixture::start().await;
    for number in 0..60 {
        fixture.put(&change("security", &json!({ "number": number })));
    }
    let mut rows = 0;
    let print = |_| {
        rows += 1;
        if rows == 3 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    };

    let ended = list::list(&fixture.archive, &Selection::default(), &NOT_STOPPED, print).await;

    assert!(matches!(ended, Err(ArchiveError::Output(_))));
    assert_eq!((rows, fixture.s3.received_requests().await.unwrap().len()), (3, 2 + 4));
}

#[tokio::test]
async fn unreadable_object_hides_no_notification() {
    let fixture = Fixture::start().await;
    let unreadable = ["0", "1"].map(|hour| format!("archive/2026/01/02/00/20260102T000000.00{hour}Z-x"));
    for key in &unreadable {
        fixture.objects.lock().unwrap().insert(format!("archive/{key}"), b"{}".to_vec());
    }
    let key = fixture.put(&change("security", &json!({})));
    let find =
        async |selection: Selection| list::find(&fixture.archive, &selection, &NOT_STOPPED).await.unwrap().unwrap().key;
    let of_route = |route: &str| Selection { route: Some(route.to_owned()), ..Selection::default() };

    assert_eq!(find(of_route("security")).await, key);
    assert_eq!(find(of_route("messages")).await, unreadable[1], "it may be the selected one");
    assert_eq!(find(Selection::default()).await, unreadable[0], "the first one");
}

#[tokio::test]
async fn oversized_object_is_not_downloaded() {
    let fixture = Fixture::start().await;
    let key = fixture.put(&change("security", &json!({ "number": 1 })));
    fixture.listed_size.store(33 << 20, Ordering::Relaxed);

    let verified = list::verify(&fixture.archive, &Selection::default(), &NOT_STOPPED, |_| ()).await.unwrap();

    assert_eq!(verified.failed, [(key, SignatureState::Unreadable)]);
    let requests = fixture.s3.received_requests().await.unwrap();
    assert!(requests.iter().all(|request| request.url.query().is_some()), "only lists");
}

#[tokio::test]
async fn unreachable_callback_url_stops_the_replay() {
    let fixture = Fixture::start().await;
    fixture.put(&change("security", &json!({})));
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(401)).mount(&server).await;
    let info = StackInfo { callback_url: server.uri(), ..fixture.sqs.info(&ROUTES) };
    let prepared =
        Replay::prepare(&fixture.archive, &info, Selection::default(), &Destination::Endpoint, fixture.state.path());

    let report = prepared.unwrap().run(1_000_000, false, &NOT_STOPPED, |_| ()).await.unwrap();

    assert!(report.stop_reason.unwrap().contains("answered 401"));
    let [request] = server.received_requests().await.unwrap().try_into().unwrap();
    let body = change("security", &json!({})).to_string();
    assert_eq!(request.body, body.as_bytes());
    assert_eq!(request.headers["x-hub-signature-256"], signature::sign("an-app-secret", body.as_bytes()));
}

#[tokio::test]
async fn forged_notification_is_not_rewritten() {
    let fixture = Fixture::start().await;
    let two = json!({ "entry": [{ "changes": [
        message("15550100123", "a")["entry"][0]["changes"][0], message("15550100124", "b")["entry"][0]["changes"][0],
    ] }] });
    let forged = fixture.put_signed(two.to_string().as_bytes(), "another");
    let shared = fixture.put(&two);
    let own = fixture.put(&message("15550100123", "a"));
    let others = fixture.put(&message("15550100124", "b"));
    let before = fixture.objects.lock().unwrap().clone();
    let person = "+1 555 010 0123".parse().ok().into_iter().collect();

    let dry = erase(&fixture.archive, &Selection::default(), &person, false, &NOT_STOPPED, |_| ()).await;
    assert_eq!((dry.deleted, dry.rewritten, fixture.objects.lock().unwrap().clone()), (1, 1, before.clone()));
    let report = erase(&fixture.archive, &Selection::default(), &person, true, &NOT_STOPPED, |_| ()).await;

    assert_eq!((report.deleted, report.rewritten), (1, 1));
    assert_eq!(report.not_erased, [(forged.clone(), "DOES NOT VERIFY")]);
    assert!(fixture.object(&own).is_none());
    assert_eq!(fixture.object(&shared).unwrap().signature(), SignatureState::Rewritten);
    let after = fixture.objects.lock().unwrap().clone();
    for key in [&forged, &others] {
        let key = format!("archive/{key}");
        assert_eq!(after[&key], before[&key]);
    }
}

/// A member of the envelope is about all changes. To remove them all would take the messages of others, too.
#[tokio::test]
async fn person_in_an_envelope_is_reported() {
    let fixture = Fixture::start().await;
    let mut body = message("15550100124", "b");
    body["entry"][0]["sender"] = json!({ "wa_id": "15550100123" });
    let enveloped = fixture.put(&body);
    fixture.put(&message("15550100124", "b"));
    let before = fixture.objects.lock().unwrap().clone();
    let person = "+1 555 010 0123".parse().ok().into_iter().collect();

    let report = erase(&fixture.archive, &Selection::default(), &person, true, &NOT_STOPPED, |_| ()).await;

    assert_eq!((report.deleted, report.rewritten, report.is_success()), (0, 0, false));
    assert_eq!(report.not_erased, [(enveloped, "verified, but names the person outside of its changes")]);
    assert_eq!(*fixture.objects.lock().unwrap(), before);
}

/// What an erasure deleted cannot name the other ids any more.
#[tokio::test]
async fn interrupted_erasure_reports_other_ids() {
    let fixture = Fixture::start().await;
    let of = |contact: &Value| change("messages", &json!({ "contacts": [contact] }));
    let both = json!({ "wa_id": "15550100123", "user_id": "US.ada" });
    let [first, _, last] = [&both, &json!({ "user_id": "US.ada" }), &both].map(|contact| fixture.put(&of(contact)));
    let person = |ids: &[&str]| ids.iter().map(|id| id.parse().unwrap()).collect();
    let stop = AtomicBool::new(false);
    let ada = person(&["15550100123"]);

    let interrupt = |_: &_| stop.store(true, Ordering::Relaxed);
    let report = erase(&fixture.archive, &Selection::default(), &ada, true, &stop, interrupt).await;

    assert_eq!((report.deleted, &*report.other_ids, report.is_success()), (1, &["US.ada".to_owned()][..], false));
    assert!(report.stop_reason.is_some() && fixture.object(&first).is_none());

    let report = erase(&fixture.archive, &Selection::default(), &ada, true, &NOT_STOPPED, |_| ()).await;
    assert!(report.stop_reason.is_none() && fixture.object(&last).is_none());
    assert!(!report.is_success(), "the person is still named by the other id");
    let all = person(&["15550100123", "US.ada"]);
    let report = erase(&fixture.archive, &Selection::default(), &all, true, &NOT_STOPPED, |_| ()).await;
    assert_eq!((report.deleted, report.is_success()), (1, true));
}

#[tokio::test]
async fn unknown_route_is_an_error() {
    let fixture = Fixture::start().await;
    let unknown =
        Replay::prepare(&fixture.archive, &fixture.info, Selection::default(), &route("nowhere"), fixture.state.path());
    assert!(matches!(unknown, Err(ArchiveError::UnknownRoute(_))));
}
