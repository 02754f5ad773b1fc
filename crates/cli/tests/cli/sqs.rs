//! SQS as a mover sees it, over HTTP: hides what was received, keeps FIFO groups together, and fails when told to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ingress_tools::aws::stack_info::StackInfo;
use serde_json::{Value, json};
use tokio::sync::Notify;
use wiremock::{Mock, MockServer, Request, ResponseTemplate, matchers::any};

pub(crate) const STACK: &str = "a-stack";
pub(crate) const VERIFY_TOKEN: &str = "a-verify-token";

/// A message on a queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) attributes: Value,
    pub(crate) group: Option<String>,
    pub(crate) deduplication: Option<String>,
    pub(crate) trace: Option<String>,
    pub(crate) sent: u64,
    pub(crate) hidden: u64,
    pub(crate) receives: usize,
    /// The longest time, in seconds, that somebody asked it to be hidden for.
    pub(crate) longest: u64,
}

/// What goes wrong with a call.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The whole call, before it takes effect.
    Error(u16, &'static str),
    /// The entries at these places, with a code and `SenderFault`.
    Refused(Vec<usize>, &'static str, bool),
    /// The entries at these places, of which the answer says nothing.
    Unmentioned(Vec<usize>),
    /// The call takes effect, and its caller is killed before it hears of it.
    Killed,
    /// The caller is killed before the call takes effect.
    KilledBefore,
}

/// Places of entries that are not stored, with code and `SenderFault` if the answer mentions them.
type Refused = (Vec<usize>, Option<(&'static str, bool)>);

/// When something goes wrong: by the number of the call, its name and its entries.
type Script = Box<dyn FnMut(usize, &str, &[Value]) -> Option<Fault> + Send>;

/// Everything there is.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) queues: BTreeMap<String, Vec<Stored>>,
    /// Name and bytes of every call.
    pub(crate) calls: Vec<(String, usize)>,
    dead: BTreeMap<String, String>,
    seen: BTreeSet<(String, String)>,
    script: Option<Script>,
    ids: usize,
}

/// The server, which ends with this.
pub(crate) struct Sqs {
    server: MockServer,
    account: Arc<Mutex<Account>>,
    /// Told when a fault kills the caller.
    pub(crate) kills: Arc<Notify>,
}

pub(crate) fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

impl Sqs {
    /// With these queues; one named `…-dead` is the dead-letter queue of the other.
    pub(crate) async fn start(queues: &[&str]) -> Self {
        let server = MockServer::start().await;
        let account = Arc::new(Mutex::new(Account::default()));
        let kills = Arc::new(Notify::new());
        for name in queues {
            let name = format!("{STACK}-{name}");
            let mut account = account.lock().unwrap();
            if let Some(of) = name.strip_suffix("-dead") {
                account.dead.insert(of.to_owned(), name.clone());
            } else if let Some(of) = name.strip_suffix("-dead.fifo") {
                account.dead.insert(format!("{of}.fifo"), name.clone());
            }
            account.queues.insert(name, Vec::new());
        }
        let (at, told) = (Arc::clone(&account), Arc::clone(&kills));
        let answer = move |request: &Request| {
            let killed = || {
                told.notify_one();
                ResponseTemplate::new(200).set_delay(Duration::from_hours(1))
            };
            match at.lock().unwrap().answer(request) {
                Ok(answer) => ResponseTemplate::new(200).set_body_json(answer),
                Err(Fault::Error(status, code)) => ResponseTemplate::new(status)
                    .set_body_json(json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": "as told" })),
                Err(_) => killed(),
            }
        };
        Mock::given(any()).respond_with(answer).mount(&server).await;
        Self { server, account, kills }
    }

    pub(crate) fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap()
    }

    pub(crate) fn script(&self, script: impl FnMut(usize, &str, &[Value]) -> Option<Fault> + Send + 'static) {
        let mut account = self.account();
        account.calls.clear();
        account.script = Some(Box::new(script));
    }

    pub(crate) fn mend(&self) {
        self.account().script = None;
    }

    /// A stack with these routes.
    pub(crate) fn info(&self, routes: &[(&str, &str)]) -> StackInfo {
        let url = |name: &str| format!("{}/123456789012/{STACK}-{name}", self.server.uri());
        let routes: BTreeMap<_, _> = routes.iter().map(|(route, queue)| (*route, url(queue))).collect();
        let secret = json!({ "verify_token": VERIFY_TOKEN, "app_secret": "an-app-secret" });
        serde_json::from_value(json!({
            "aws_endpoint": self.server.uri(), "region": "us-east-1", "access_key_id": "id", "secret_access_key": "key",
            "callback_url": "http://127.0.0.1:1/webhook", "secret": secret.to_string(), "stack": STACK,
            "queue_urls": routes, "outputs": {}, "log_group": "/aws/lambda/a-stack",
        }))
        .unwrap()
    }

    /// Puts a message on a queue, as sent a while ago.
    pub(crate) fn put(&self, queue: &str, message: Stored) {
        let mut account = self.account();
        account.ids += 1;
        let id = format!("id-{}", account.ids);
        let sent = if message.sent == 0 { now() - 3_600_000 } else { message.sent };
        account.queue(queue).push(Stored { id, sent, ..message });
    }

    pub(crate) fn on(&self, queue: &str) -> Vec<Stored> {
        self.account().queue(queue).clone()
    }

    /// The event ids on a queue, in order.
    pub(crate) fn events(&self, queue: &str) -> Vec<String> {
        self.on(queue).iter().map(|message| text(&message.attributes, "event_id")).collect()
    }

    /// Lets so much time go by that everything is in sight again.
    pub(crate) fn show_all(&self) {
        self.account().queues.values_mut().flatten().for_each(|message| message.hidden = 0);
    }
}

/// The text of a message attribute.
pub(crate) fn text(attributes: &Value, name: &str) -> String {
    attributes[name]["StringValue"].as_str().unwrap_or_default().to_owned()
}

impl Account {
    pub(crate) fn queue(&mut self, name: &str) -> &mut Vec<Stored> {
        self.queues.get_mut(&format!("{STACK}-{name}")).unwrap()
    }

    fn answer(&mut self, request: &Request) -> Result<Value, Fault> {
        let target = request.headers["x-amz-target"].to_str().unwrap().trim_start_matches("AmazonSQS.").to_owned();
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let number = self.calls.len();
        self.calls.push((target.clone(), request.body.len()));
        let entries = asked["Entries"].as_array().cloned().unwrap_or_default();
        let fault = self.script.as_mut().and_then(|script| script(number, &target, &entries));
        let refused = match &fault {
            Some(Fault::Refused(places, code, sender)) => (places.clone(), Some((*code, *sender))),
            Some(Fault::Unmentioned(places)) => (places.clone(), None),
            Some(Fault::Error(..) | Fault::KilledBefore) => return Err(fault.unwrap()),
            _ => (Vec::new(), None),
        };
        if target == "ListQueues" {
            return Ok(self.page(&asked, &format!("http://{}/123456789012", request.headers["host"].to_str().unwrap())));
        }
        let queue = asked["QueueUrl"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let answer = match target.as_str() {
            "GetQueueAttributes" => self.attributes(&queue),
            "ReceiveMessage" => self.receive(&queue, &asked),
            name => self.batch(name, &queue, &entries, &refused),
        };
        if matches!(fault, Some(Fault::Killed)) { Err(Fault::Killed) } else { Ok(answer) }
    }

    /// Lists at most two queues, so that a caller has to follow the token. SQS gives none without `MaxResults`.
    fn page(&self, asked: &Value, account_url: &str) -> Value {
        assert!((1..=1000).contains(&asked["MaxResults"].as_u64().expect("SQS lists 1,000 queues without MaxResults")));
        let (prefix, after) = (asked["QueueNamePrefix"].as_str().unwrap(), asked["NextToken"].as_str().unwrap_or(""));
        let mut names = self.queues.keys().filter(|name| name.starts_with(prefix) && name.as_str() > after);
        let page: Vec<_> = names.by_ref().take(2).collect();
        let urls: Vec<_> = page.iter().map(|name| format!("{account_url}/{name}")).collect();
        let token = names.next().and(page.last());
        json!({ "QueueUrls": urls, "NextToken": token })
    }

    fn attributes(&self, queue: &str) -> Value {
        let hidden = self.queues[queue].iter().filter(|message| message.hidden > now()).count();
        let mut attributes = json!({
            "ApproximateNumberOfMessages": (self.queues[queue].len() - hidden).to_string(),
            "ApproximateNumberOfMessagesNotVisible": hidden.to_string(),
            "ApproximateNumberOfMessagesDelayed": "0",
        });
        if let Some(dead) = self.dead.get(queue) {
            let arn = format!("arn:aws:sqs:us-east-1:123456789012:{dead}");
            attributes["RedrivePolicy"] =
                json!({ "deadLetterTargetArn": arn, "maxReceiveCount": 5 }).to_string().into();
        }
        json!({ "Attributes": attributes })
    }

    fn receive(&mut self, queue: &str, asked: &Value) -> Value {
        let most = usize::try_from(asked["MaxNumberOfMessages"].as_u64().unwrap()).unwrap();
        assert!((1..=10).contains(&most), "SQS gives out 1 to 10 messages, not {most}");
        let hidden = now() + asked["VisibilityTimeout"].as_u64().unwrap() * 1000;
        let fifo = is_fifo(queue);
        let messages = self.queues.get_mut(queue).unwrap();
        let blocked: BTreeSet<_> =
            messages.iter().filter(|one| fifo && one.hidden > now()).map(|one| one.group.clone()).collect();
        let free = messages.iter_mut().filter(|one| one.hidden <= now() && !blocked.contains(&one.group)).take(most);
        let received: Vec<_> = free
            .map(|message| {
                message.hidden = hidden;
                message.receives += 1;
                let mut system = json!({ "SentTimestamp": message.sent.to_string() });
                for (name, value) in [("MessageGroupId", &message.group), ("AWSTraceHeader", &message.trace)] {
                    if let Some(value) = value {
                        system[name] = json!(value);
                    }
                }
                json!({
                    "MessageId": message.id, "ReceiptHandle": format!("{}/{}", message.id, message.receives),
                    "Body": message.body, "MessageAttributes": message.attributes, "Attributes": system,
                })
            })
            .collect();
        json!({ "Messages": received })
    }

    fn batch(&mut self, name: &str, queue: &str, entries: &[Value], refused: &Refused) -> Value {
        assert!((1..=10).contains(&entries.len()), "{name} with {} entries", entries.len());
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for (place, entry) in entries.iter().enumerate() {
            if refused.0.contains(&place) {
                let error = |(code, sender)| json!({ "Id": entry["Id"], "Code": code, "SenderFault": sender });
                failed.extend(refused.1.map(error));
                continue;
            }
            match name {
                "SendMessageBatch" => self.store(queue, entry),
                "DeleteMessageBatch" => self.queues.get_mut(queue).unwrap().retain(|one| !is_receipt(one, entry)),
                "ChangeMessageVisibilityBatch" => {
                    let seconds = entry["VisibilityTimeout"].as_u64().unwrap();
                    let messages = self.queues.get_mut(queue).unwrap().iter_mut();
                    for one in messages.filter(|one| is_receipt(one, entry)) {
                        (one.hidden, one.longest) = (now() + seconds * 1000, one.longest.max(seconds));
                    }
                }
                _ => panic!("{name} is not done here"),
            }
            successful.push(json!({ "Id": entry["Id"], "MessageId": "sent", "MD5OfMessageBody": "" }));
        }
        json!({ "Successful": successful, "Failed": failed })
    }

    fn store(&mut self, queue: &str, entry: &Value) {
        let text = |name: &str| entry[name].as_str().map(str::to_owned);
        let message = Stored {
            body: text("MessageBody").unwrap(),
            attributes: entry["MessageAttributes"].clone(),
            group: text("MessageGroupId"),
            deduplication: text("MessageDeduplicationId"),
            trace: entry["MessageSystemAttributes"]["AWSTraceHeader"]["StringValue"].as_str().map(str::to_owned),
            sent: now(),
            ..Stored::default()
        };
        if is_fifo(queue) {
            assert!(message.group.is_some(), "a FIFO queue wants a group");
            let id = message.deduplication.clone().expect("a FIFO queue wants a deduplication id");
            if !self.seen.insert((queue.to_owned(), id)) {
                return;
            }
        } else {
            assert_eq!(message.deduplication, None, "a standard queue refuses a deduplication id");
        }
        self.ids += 1;
        let id = format!("id-{}", self.ids);
        self.queues.get_mut(queue).unwrap().push(Stored { id, ..message });
    }
}

fn is_fifo(queue: &str) -> bool {
    queue.strip_suffix(".fifo").is_some()
}

fn is_receipt(message: &Stored, entry: &Value) -> bool {
    entry["ReceiptHandle"] == format!("{}/{}", message.id, message.receives)
}
