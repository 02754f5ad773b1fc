//! Fills the archive of a stack on the local AWS, and lists, verifies, replays and erases its notifications.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Read as _,
    path::Path,
    process::Stdio,
    time::Duration,
};

use aws_sdk_sqs::{Client, types::MessageSystemAttributeName};
use flate2::read::GzDecoder;
use ingress_tools::{
    archive::notification::encode,
    local::stack::StackOptions,
    meta::{
        deliver::Endpoint,
        samples::{Sample, Signer},
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{process::Command, time::sleep};
use whatsapp_webhook::{archive::ArchiveHeader, message::event_id, notification::split, signature};

use crate::{
    assert_output, ingress,
    messages::{client, depth, url},
    stack::{TestStack, root},
};

/// The customer of most samples.
const CONTACT: &str = "+44 7700 900317";

/// A sample, and its object in the archive.
struct Archived {
    name: String,
    key: String,
    body: Vec<u8>,
    header: ArchiveHeader,
}

fn find<'a>(archived: &'a [Archived], name: &str) -> &'a Archived {
    archived.iter().find(|archived| archived.name == name).unwrap()
}

/// A stack whose function has an archive, and a folder for the state of replays.
struct Fixture {
    stack: TestStack,
    sqs: Client,
    folder: TempDir,
}

impl Fixture {
    async fn start() -> Self {
        let options = StackOptions { archive_days: 30, ..StackOptions::default() };
        let stack = TestStack::start_with(&options).await;
        Self { sqs: client(&stack.info), stack, folder: tempfile::tempdir().unwrap() }
    }

    fn bucket(&self) -> &str {
        &self.stack.info.outputs["ArchiveBucket"]
    }

    async fn aws(&self, arguments: &[&str]) -> Vec<u8> {
        let info = &self.stack.info;
        let mut aws = Command::new(root().join(".local/aws-cli/bin/aws"));
        aws.args(arguments).env("AWS_ENDPOINT_URL", &info.aws_endpoint).env("AWS_DEFAULT_REGION", &info.region);
        aws.env("AWS_ACCESS_KEY_ID", &info.access_key_id).env("AWS_SECRET_ACCESS_KEY", &info.secret_access_key);
        let output = aws.output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Delivers every sample to the function. Returns the objects that the function archived, in the order of the samples.
    async fn archive_samples(&self) -> Vec<Archived> {
        let endpoint = Endpoint::new(&self.stack.info.callback_url).unwrap();
        let mut signed = Vec::new();
        for sample in Sample::load_all(&root().join("events")).unwrap() {
            endpoint.deliver(&sample, &self.stack.secrets()).await.unwrap();
            if sample.method == "POST" && sample.signer() == Signer::Meta && !sample.body.is_empty() {
                signed.push(sample);
            }
        }
        let archived: Vec<_> = self.objects().await.into_iter().collect();
        assert_eq!(archived.len(), signed.len());
        let app_secret = self.stack.secrets().app_secret;
        let archived = signed.into_iter().zip(archived).map(|(sample, (key, object))| {
            let mut content = Vec::new();
            GzDecoder::new(&*object).read_to_end(&mut content).unwrap();
            let (header, body) = ArchiveHeader::decode(&content).unwrap();
            assert_eq!((body, header.key().unwrap()), (&*sample.body, key.clone()), "{}", sample.name);
            assert_eq!(header.signature, signature::sign(&app_secret, body));
            Archived { name: sample.name, key, body: body.to_vec(), header }
        });
        archived.collect()
    }

    fn header(&self, minute: usize, request_id: &str, body: &[u8]) -> ArchiveHeader {
        ArchiveHeader {
            received: format!("2026-01-02T{:02}:{:02}:00.000Z", minute / 60, minute % 60),
            request_id: request_id.to_owned(),
            trace: Some("Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1".to_owned()),
            signature: signature::sign(&self.stack.secrets().app_secret, body),
            rewritten: None,
        }
    }

    async fn put(&self, objects: impl IntoIterator<Item = (String, Vec<u8>)>) {
        let folder = tempfile::tempdir().unwrap();
        for (key, object) in objects {
            let path = folder.path().join(key);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, object).unwrap();
        }
        let target = format!("s3://{}/", self.bucket());
        self.aws(&["s3", "cp", "--recursive", "--quiet", &folder.path().display().to_string(), &target]).await;
    }

    /// All objects of the archive, by key.
    async fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let source = format!("s3://{}/", self.bucket());
        self.aws(&["s3", "cp", "--recursive", "--quiet", &source, &folder.path().display().to_string()]).await;
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.path().to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let key = path.strip_prefix(folder.path()).unwrap().display().to_string();
                    found.insert(key, fs::read(path).unwrap());
                }
            }
        }
        found
    }

    async fn run(&self, arguments: &[&str]) -> (String, bool) {
        let state = self.folder.path().display().to_string();
        let arguments = [&["archive"], arguments].concat();
        let output = ingress(&self.stack, &arguments, &[("XDG_STATE_HOME", &state)]).await;
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8(text).unwrap(), output.status.success())
    }

    /// Receives and deletes all messages of a queue, as a broken consumer does.
    async fn consume(&self, queue: &str) -> Vec<Consumed> {
        let mut consumed = Vec::new();
        let queue = url(&self.stack.info, queue);
        loop {
            let receive = self.sqs.receive_message().queue_url(&queue).max_number_of_messages(10);
            let receive = receive.message_attribute_names("All");
            let receive = receive.message_system_attribute_names(MessageSystemAttributeName::All);
            let messages = receive.send().await.unwrap().messages.unwrap_or_default();
            if messages.is_empty() {
                return consumed;
            }
            for message in messages {
                let attributes = message.message_attributes.unwrap_or_default().into_iter();
                let attributes = attributes.map(|(name, value)| (name, value.string_value.unwrap_or_default()));
                let group = message.attributes.unwrap_or_default().remove(&MessageSystemAttributeName::MessageGroupId);
                consumed.push(Consumed { body: message.body.unwrap(), attributes: attributes.collect(), group });
                let delete = self.sqs.delete_message().queue_url(&queue);
                delete.receipt_handle(message.receipt_handle.unwrap()).send().await.unwrap();
            }
        }
    }

    /// Returns the names of the queues that samples are stored on.
    fn queues(&self) -> Vec<String> {
        let urls = self.stack.info.routes.queues().iter();
        urls.map(|queue| queue.name.trim_start_matches("whatsapp-ingress-").to_owned()).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Consumed {
    body: String,
    attributes: BTreeMap<String, String>,
    group: Option<String>,
}

impl Consumed {
    fn event_id(&self) -> String {
        self.attributes["event_id"].clone()
    }

    /// The message without what a replay adds.
    fn original(mut self) -> Self {
        self.attributes.remove("replayed");
        self
    }
}

fn sorted(messages: impl IntoIterator<Item = Consumed>) -> Vec<Consumed> {
    let mut messages: Vec<_> = messages.into_iter().map(Consumed::original).collect();
    messages.sort();
    messages
}

/// One deployment serves all of it, because it takes longer than the commands.
#[tokio::test]
async fn archive_is_replayed_verified_and_erased() {
    let fixture = Fixture::start().await;
    let samples = fixture.archive_samples().await;

    // Consumers delete all messages.
    let mut stored = BTreeMap::new();
    for queue in fixture.queues() {
        stored.insert(queue.clone(), fixture.consume(&queue).await);
    }
    assert!(!stored["messages"].is_empty() && !stored["unrouted"].is_empty(), "{stored:?}");

    let count = format!("{} notifications", samples.len());
    assert_output(fixture.run(&["list"]).await, true, &[&samples[0].header.request_id, "messages.messages", &count]);
    let [from, to] = [1, 3].map(|sample: usize| samples[sample].header.received.as_str());
    let (list, _) = fixture.run(&["list", "--from", from, "--to", to, "--json"]).await;
    let rows: Vec<Value> =
        list.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        rows.iter().map(|row| row["key"].as_str().unwrap()).collect::<Vec<_>>(),
        [&*samples[1].key, &*samples[2].key]
    );
    assert_output(fixture.run(&["verify"]).await, true, &["verified"]);
    let text = find(&samples, "messages-text");
    let (shown, _) = fixture.run(&["show", "--request-id", &text.header.request_id]).await;
    assert!(shown.starts_with(std::str::from_utf8(&text.body).unwrap()), "{shown}");
    assert_output(fixture.run(&["show", "--event-id", "none"]).await, false, &["no notification is selected"]);

    // Each route comes back once, byte for byte, and nothing else.
    for route in ["messages", "messages.statuses", "security", "*"] {
        let queue = if route == "*" { "unrouted".to_owned() } else { route.replace('.', "-") };
        let dry = fixture.run(&["replay", "--to-queue", route]).await;
        assert_output(dry, true, &["nothing was sent", &format!("{} message", stored[&queue].len())]);
        assert!(fixture.consume(&queue).await.is_empty());

        let replay = fixture.run(&["replay", "--to-queue", route, "--apply"]).await;
        assert_output(replay, true, &["replayed", &format!("{} message", stored[&queue].len())]);

        let replayed = fixture.consume(&queue).await;
        assert!(replayed.iter().all(|message| message.attributes["replayed"].len() == "2026-01-02T03:04:05Z".len()));
        assert_eq!(sorted(replayed), sorted(stored[&queue].clone()), "{route}");
    }
    for queue in fixture.queues() {
        assert!(fixture.consume(&queue).await.is_empty(), "{queue}");
    }

    // One contact, on a queue of the operator.
    let own = "whatsapp-ingress-own";
    fixture.sqs.create_queue().queue_name(own).send().await.unwrap();
    let contact = ["replay", "--queue", own, "--contact", CONTACT, "--apply"];
    assert_output(fixture.run(&contact).await, true, &["replayed"]);
    let replayed = fixture.consume("own").await;
    let is_of_contact = |message: &&Consumed| message.body.contains("\"447700900317\"");
    let expected = stored.values().flatten().filter(is_of_contact).cloned();
    assert_eq!(sorted(replayed), sorted(expected));

    // Whole requests, to the function.
    let replay = ["replay", "--to-endpoint", "--request-id", &text.header.request_id, "--apply"];
    assert_output(fixture.run(&replay).await, true, &["1 notifications replayed, 1 request sent"]);
    let delivered = fixture.consume("messages").await;
    let [delivered] = delivered.as_slice() else { panic!("{delivered:?}") };
    assert!(!delivered.attributes.contains_key("replayed"));
    assert_eq!(delivered.body.as_bytes(), text.body);
    // Since the samples, the function archived the one notification that the replay delivered.
    assert_eq!(fixture.objects().await.len(), samples.len() + 1);

    assert_output(fixture.run(&["list", "--route", "nowhere"]).await, false, &["the stack has no route nowhere"]);
    assert_output(fixture.run(&["replay", "--apply"]).await, false, &["--to-endpoint"]);
    assert_tampered_object_stays(&fixture, &samples).await;
    assert_person_is_erased(&fixture, &samples).await;
}

/// An object with another body is found, and no replay sends it.
async fn assert_tampered_object_stays(fixture: &Fixture, samples: &[Archived]) {
    let Archived { key, body, header, .. } = find(samples, "security");
    let mut tampered = body.clone();
    *tampered.iter_mut().find(|byte| byte.is_ascii_digit()).unwrap() ^= 1;
    fixture.put([(key.clone(), encode(header, &tampered))]).await;

    assert_output(fixture.run(&["verify"]).await, false, &["DOES NOT VERIFY", key]);
    for destination in [&["--to-queue", "security"][..], &["--to-endpoint", "--route", "security"]] {
        let replay = fixture.run(&[&["replay", "--apply"], destination].concat()).await;
        assert_output(replay, false, &["1 not replayed: DOES NOT VERIFY", "0 notifications replayed", key]);
    }
    assert!(fixture.consume("security").await.is_empty());
    assert_output(fixture.run(&["show", "--request-id", &header.request_id]).await, false, &["DOES NOT VERIFY"]);
    fixture.put([(key.clone(), encode(header, body))]).await;
}

/// A person is in no notification any more, and the others did not change.
async fn assert_person_is_erased(fixture: &Fixture, samples: &[Archived]) {
    let before = fixture.objects().await;

    let dry = fixture.run(&["erase", "--contact", CONTACT]).await;
    assert_output(dry, true, &["to delete", "to rewrite", "nothing was changed"]);
    assert_eq!(fixture.objects().await, before);
    assert_output(fixture.run(&["erase", "--contact", CONTACT, "--apply"]).await, true, &["deleted", "rewritten"]);

    let after = fixture.objects().await;
    assert_output(fixture.run(&["verify"]).await, true, &["verified, rewritten"]);
    let (listed, _) = fixture.run(&["list", "--contact", CONTACT]).await;
    assert!(listed.contains("\n0 notifications"), "{listed}");
    let (mut rewritten, mut deleted) = (0, 0);
    for Archived { name, key, body, header } in samples {
        let Some(object) = after.get(key) else {
            deleted += 1;
            assert!(String::from_utf8_lossy(body).contains("447700900317"), "{key}");
            continue;
        };
        if object == &before[key] {
            continue;
        }
        rewritten += 1;
        let (shown, _) = fixture.run(&["show", "--request-id", &header.request_id]).await;
        assert!(shown.contains("a person was erased from it at 20") && !shown.contains("447700900317"), "{shown}");
        let new = shown.split_once("account 000000000000").unwrap().0;
        let ids = |body: &[u8]| split(body).iter().map(event_id).collect::<BTreeSet<_>>();
        // The change of these samples has items of several people; all others lost whole changes.
        let is_shared_change = ["messages-three", "messages-with-receipts"].contains(&name.as_str());
        assert!(is_shared_change || ids(new.as_bytes()).is_subset(&ids(body)), "{key}");
    }
    assert!(rewritten > 0 && deleted > 0 && after.len() < before.len(), "{rewritten} {deleted}");
    assert_output(fixture.run(&["erase", "--contact", CONTACT, "--apply"]).await, true, &["0 notifications deleted"]);
    assert_output(fixture.run(&["erase", "--contact", "Ada"]).await, false, &["neither a phone number"]);
}

/// After each kill, the next run goes on. No message is missing, and each kill repeats at most one batch.
#[tokio::test]
async fn killed_replay_loses_nothing() {
    const KILLS: usize = 4;
    // More than S3 lists at once.
    const NOTIFICATIONS: usize = 1100;
    let fixture = Fixture::start().await;
    let body = |number: usize| {
        let changes = json!([{ "field": "security", "value": { "number": number } }]);
        json!({ "entry": [{ "id": "1", "changes": changes }] }).to_string().into_bytes()
    };
    fixture
        .put((0..NOTIFICATIONS).map(|number| {
            let header = fixture.header(number, &format!("request-{number}"), &body(number));
            (header.key().unwrap(), encode(&header, &body(number)))
        }))
        .await;

    let mut arrived = Vec::new();
    for _ in 0..KILLS {
        let mut replay = Command::new(env!("CARGO_BIN_EXE_ingress"));
        replay.args(["archive", "replay", "--to-queue", "security", "--apply", "--rate", "100000"]);
        replay.current_dir(fixture.stack.folder()).env("XDG_STATE_HOME", fixture.folder.path());
        let path = env::var("PATH").unwrap();
        replay.env("PATH", format!("{}:{path}", root().join(".local/aws-cli/bin").display()));
        let mut replay = replay.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Kills the run some calls after its first message arrived.
        let queue = url(&fixture.stack.info, "security");
        while depth(&fixture.sqs, &queue).await == 0 && replay.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(fastrand::u64(0..80))).await;
        replay.kill().await.unwrap();
        arrived.extend(fixture.consume("security").await);
    }
    let replayed_by_killed = arrived.len();
    assert!((1..NOTIFICATIONS).contains(&replayed_by_killed), "no run was killed while it sent: {replayed_by_killed}");
    let state = state_files(fixture.folder.path());
    assert_eq!(state.len(), 1, "{state:?}");

    let last = ["replay", "--to-queue", "security", "--apply", "--rate", "100000"];
    assert_output(fixture.run(&last).await, true, &["an earlier run was interrupted: continued after archive/2026/"]);
    arrived.extend(fixture.consume("security").await);
    assert!(state_files(fixture.folder.path()).is_empty(), "a complete replay leaves no state");

    let events: BTreeSet<_> = arrived.iter().map(Consumed::event_id).collect();
    let expected: BTreeSet<_> =
        (0..NOTIFICATIONS).flat_map(|number| split(&body(number)).iter().map(event_id).collect::<Vec<_>>()).collect();
    assert_eq!(events, expected);
    let copies = arrived.len() - events.len();
    assert!(copies <= KILLS * 10, "{copies} copies");
    let times: BTreeSet<_> = arrived.iter().map(|message| &message.attributes["replayed"]).collect();
    assert_eq!(times.len(), 1, "all runs of one replay have its time");
    eprintln!("{replayed_by_killed} replayed by killed runs, {copies} copies");
}

/// A lock of a killed run may remain. It locks nothing.
fn state_files(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder.join("whatsapp-ingress")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.ends_with("lock")).collect()
}
