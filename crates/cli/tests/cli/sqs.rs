//! A minimal SQS over HTTP: hides received messages, blocks the groups of FIFO queues, and fails by script.

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
pub(crate) const SECRET_ARN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:a-secret-AbCdEf";

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
    /// The time until which the message is hidden, in milliseconds since 1970.
    pub(crate) hidden_until: u64,
    pub(crate) receives: usize,
    /// The longest visibility timeout of a `ChangeMessageVisibility` call, in seconds.
    pub(crate) longest_timeout: u64,
}

/// A fault of a call.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The call fails with a status and a code, without effect.
    Error(u16, &'static str),
    /// The entries at these indices fail with a code and `SenderFault`.
    Rejected(Vec<usize>, &'static str, bool),
    /// The entries at these indices fail, and the response omits them.
    Omitted(Vec<usize>),
    /// The call takes effect, and the caller is killed before it receives the response.
    KilledAfter,
    /// The caller is killed before the call takes effect.
    KilledBefore,
}

/// The indices of failed entries, with code and `SenderFault` unless the response omits them.
type FailedEntries = (Vec<usize>, Option<(&'static str, bool)>);

/// Returns the fault of a call by its number, its name and its entries.
type Script = Box<dyn FnMut(usize, &str, &[Value]) -> Option<Fault> + Send>;

/// The state of the account.
#[derive(Default)]
pub(crate) struct Account {
    pub(crate) queues: BTreeMap<String, Vec<Stored>>,
    /// The name and the bytes of every call.
    pub(crate) calls: Vec<(String, usize)>,
    /// The KMS key of each queue that has one.
    pub(crate) keys: BTreeMap<String, String>,
    /// The dead-letter queue of each queue that has one.
    dead_letter_queues: BTreeMap<String, String>,
    /// The queue and the deduplication id of each message on a FIFO queue.
    deduplicated: BTreeSet<(String, String)>,
    script: Option<Script>,
    last_id: usize,
}

/// The server. It ends when this is dropped.
pub(crate) struct Sqs {
    server: MockServer,
    account: Arc<Mutex<Account>>,
    /// Notified when a fault kills the caller.
    pub(crate) kills: Arc<Notify>,
}

pub(crate) fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

impl Sqs {
    /// Starts a server with these queues. `x-dead` is the dead-letter queue of `x`.
    pub(crate) async fn start(queues: &[&str]) -> Self {
        let server = MockServer::start().await;
        let account = Arc::new(Mutex::new(Account::default()));
        let kills = Arc::new(Notify::new());
        for name in queues {
            let name = format!("{STACK}-{name}");
            let mut account = account.lock().unwrap();
            if let Some(of) = name.strip_suffix("-dead") {
                account.dead_letter_queues.insert(of.to_owned(), name.clone());
            } else if let Some(of) = name.strip_suffix("-dead.fifo") {
                account.dead_letter_queues.insert(format!("{of}.fifo"), name.clone());
            }
            account.queues.insert(name, Vec::new());
        }
        let (state, kills_of_server) = (Arc::clone(&account), Arc::clone(&kills));
        let response = move |request: &Request| {
            let killed = || {
                kills_of_server.notify_one();
                ResponseTemplate::new(200).set_delay(Duration::from_hours(1))
            };
            match state.lock().unwrap().respond(request) {
                Ok(response) => ResponseTemplate::new(200).set_body_json(response),
                Err(Fault::Error(status, code)) => ResponseTemplate::new(status)
                    .set_body_json(json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": "scripted" })),
                Err(_) => killed(),
            }
        };
        Mock::given(any()).respond_with(response).mount(&server).await;
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

    pub(crate) fn clear_script(&self) {
        self.account().script = None;
    }

    /// Returns the description of a stack with these routes, of which one may occur twice.
    pub(crate) fn info(&self, routes: &[(&str, &str)]) -> StackInfo {
        let url = |name: &str| format!("{}/123456789012/{STACK}-{name}", self.server.uri());
        let routes: Vec<_> = routes.iter().map(|(route, queue)| format!(r#""{route}":"{}""#, url(queue))).collect();
        let secret = json!({ "verify_token": VERIFY_TOKEN, "app_secret": "an-app-secret" });
        let info = json!({
            "aws_endpoint": self.server.uri(), "region": "us-east-1", "access_key_id": "id", "secret_access_key": "key",
            "callback_url": "http://127.0.0.1:1/webhook", "secret": secret.to_string(), "stack": STACK,
            "queue_urls": "ROUTES", "outputs": { "SecretArn": SECRET_ARN }, "log_group": "/aws/lambda/a-stack",
        });
        let routes = format!("{{{}}}", routes.join(","));
        serde_json::from_str(&info.to_string().replace(r#""ROUTES""#, &routes)).unwrap()
    }

    /// Puts a message on a queue, by default as sent an hour ago.
    pub(crate) fn put(&self, queue: &str, message: Stored) {
        let mut account = self.account();
        account.last_id += 1;
        let id = format!("id-{}", account.last_id);
        let sent = if message.sent == 0 { now() - 3_600_000 } else { message.sent };
        account.queue(queue).push(Stored { id, sent, ..message });
    }

    /// Returns the messages on a queue.
    pub(crate) fn on(&self, queue: &str) -> Vec<Stored> {
        self.account().queue(queue).clone()
    }

    /// Returns the event ids of the messages on a queue, in order.
    pub(crate) fn events(&self, queue: &str) -> Vec<String> {
        self.on(queue).iter().map(|message| text(&message.attributes, "event_id")).collect()
    }

    /// Makes all messages visible, as after the longest visibility timeout.
    pub(crate) fn show_all(&self) {
        self.account().queues.values_mut().flatten().for_each(|message| message.hidden_until = 0);
    }
}

/// Returns the value of a string attribute.
pub(crate) fn text(attributes: &Value, name: &str) -> String {
    attributes[name]["StringValue"].as_str().unwrap_or_default().to_owned()
}

impl Account {
    pub(crate) fn queue(&mut self, name: &str) -> &mut Vec<Stored> {
        self.queues.get_mut(&format!("{STACK}-{name}")).unwrap()
    }

    fn respond(&mut self, request: &Request) -> Result<Value, Fault> {
        let target = request.headers["x-amz-target"].to_str().unwrap().trim_start_matches("AmazonSQS.").to_owned();
        let request_body: Value = serde_json::from_slice(&request.body).unwrap();
        let number = self.calls.len();
        self.calls.push((target.clone(), request.body.len()));
        let entries = request_body["Entries"].as_array().cloned().unwrap_or_default();
        let fault = self.script.as_mut().and_then(|script| script(number, &target, &entries));
        let failed_entries = match &fault {
            Some(Fault::Rejected(indices, code, sender)) => (indices.clone(), Some((*code, *sender))),
            Some(Fault::Omitted(indices)) => (indices.clone(), None),
            Some(Fault::Error(..) | Fault::KilledBefore) => return Err(fault.unwrap()),
            _ => (Vec::new(), None),
        };
        if target == "ListQueues" {
            return Ok(
                self.page(&request_body, &format!("http://{}/123456789012", request.headers["host"].to_str().unwrap()))
            );
        }
        let queue = request_body["QueueUrl"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        if !self.queues.contains_key(&queue) {
            return Err(Fault::Error(400, "QueueDoesNotExist"));
        }
        let response = match target.as_str() {
            "GetQueueAttributes" => self.attributes(&queue),
            "ReceiveMessage" => self.receive(&queue, &request_body),
            name => self.batch(name, &queue, &entries, &failed_entries),
        };
        if matches!(fault, Some(Fault::KilledAfter)) { Err(Fault::KilledAfter) } else { Ok(response) }
    }

    /// Lists at most two queues, so that the caller must request the next page. SQS returns no token without
    /// `MaxResults`.
    fn page(&self, request_body: &Value, account_url: &str) -> Value {
        assert!(
            (1..=1000)
                .contains(&request_body["MaxResults"].as_u64().expect("SQS lists 1,000 queues without MaxResults"))
        );
        let (prefix, after) =
            (request_body["QueueNamePrefix"].as_str().unwrap(), request_body["NextToken"].as_str().unwrap_or(""));
        let mut names = self.queues.keys().filter(|name| name.starts_with(prefix) && name.as_str() > after);
        let page: Vec<_> = names.by_ref().take(2).collect();
        let urls: Vec<_> = page.iter().map(|name| format!("{account_url}/{name}")).collect();
        let token = names.next().and(page.last());
        json!({ "QueueUrls": urls, "NextToken": token })
    }

    fn attributes(&self, queue: &str) -> Value {
        let hidden = self.queues[queue].iter().filter(|message| message.hidden_until > now()).count();
        let mut attributes = json!({
            "ApproximateNumberOfMessages": (self.queues[queue].len() - hidden).to_string(),
            "ApproximateNumberOfMessagesNotVisible": hidden.to_string(),
            "ApproximateNumberOfMessagesDelayed": "0",
            "DelaySeconds": "0", "ReceiveMessageWaitTimeSeconds": "0", "VisibilityTimeout": "30",
        });
        if let Some(dead) = self.dead_letter_queues.get(queue) {
            let arn = format!("arn:aws:sqs:us-east-1:123456789012:{dead}");
            attributes["RedrivePolicy"] =
                json!({ "deadLetterTargetArn": arn, "maxReceiveCount": 5 }).to_string().into();
        }
        if let Some(key) = self.keys.get(queue) {
            attributes["KmsMasterKeyId"] = json!(key);
        }
        json!({ "Attributes": attributes })
    }

    fn receive(&mut self, queue: &str, request_body: &Value) -> Value {
        let max = usize::try_from(request_body["MaxNumberOfMessages"].as_u64().unwrap()).unwrap();
        assert!((1..=10).contains(&max), "SQS returns 1 to 10 messages, not {max}");
        let hidden_until = now() + request_body["VisibilityTimeout"].as_u64().unwrap() * 1000;
        let fifo = is_fifo(queue);
        let messages = self.queues.get_mut(queue).unwrap();
        let blocked: BTreeSet<_> =
            messages.iter().filter(|one| fifo && one.hidden_until > now()).map(|one| one.group.clone()).collect();
        let available =
            messages.iter_mut().filter(|one| one.hidden_until <= now() && !blocked.contains(&one.group)).take(max);
        let received: Vec<_> = available
            .map(|message| {
                message.hidden_until = hidden_until;
                message.receives += 1;
                let mut system =
                    json!({ "SentTimestamp": message.sent.to_string(), "ApproximateReceiveCount": message.receives.to_string() });
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

    fn batch(&mut self, name: &str, queue: &str, entries: &[Value], failed_entries: &FailedEntries) -> Value {
        assert!((1..=10).contains(&entries.len()), "{name} with {} entries", entries.len());
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            if failed_entries.0.contains(&index) {
                let error = |(code, sender)| json!({ "Id": entry["Id"], "Code": code, "SenderFault": sender });
                failed.extend(failed_entries.1.map(error));
                continue;
            }
            match name {
                "SendMessageBatch" => self.store(queue, entry),
                "DeleteMessageBatch" => self.queues.get_mut(queue).unwrap().retain(|one| !is_receipt(one, entry)),
                "ChangeMessageVisibilityBatch" => {
                    let seconds = entry["VisibilityTimeout"].as_u64().unwrap();
                    let messages = self.queues.get_mut(queue).unwrap().iter_mut();
                    for one in messages.filter(|one| is_receipt(one, entry)) {
                        (one.hidden_until, one.longest_timeout) =
                            (now() + seconds * 1000, one.longest_timeout.max(seconds));
                    }
                }
                _ => panic!("{name} is not supported"),
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
            assert!(message.group.is_some(), "a FIFO queue requires a group");
            let id = message.deduplication.clone().expect("a FIFO queue requires a deduplication id");
            if !self.deduplicated.insert((queue.to_owned(), id)) {
                return;
            }
        } else {
            assert_eq!(message.deduplication, None, "a standard queue rejects a deduplication id");
        }
        self.last_id += 1;
        let id = format!("id-{}", self.last_id);
        self.queues.get_mut(queue).unwrap().push(Stored { id, ..message });
    }
}

fn is_fifo(queue: &str) -> bool {
    queue.strip_suffix(".fifo").is_some()
}

fn is_receipt(message: &Stored, entry: &Value) -> bool {
    entry["ReceiptHandle"] == format!("{}/{}", message.id, message.receives)
}
