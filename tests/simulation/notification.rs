//! Generates notifications together with the messages that consumers must receive for them.

use fastrand::Rng;
use sha2::{Digest, Sha256};

const ENVELOPE: [&str; 2] = [r#"{"object":"whatsapp_business_account","entry":["#, "]}"];

/// The entry ids of a plan are this number and the two after it.
const FIRST_ENTRY_ID: u64 = 477_984_957_095_891;

/// SQS accepts messages up to this size.
const MAX_MESSAGE_BYTES: usize = 1_048_576;

/// The attributes of a message take fewer bytes than this.
const MAX_ATTRIBUTE_BYTES: usize = 1000;

/// One signed body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notification {
    pub(crate) body: Vec<u8>,
    pub(crate) fragments: Vec<Fragment>,
}

/// The smallest part of a notification that is stored alone.
#[derive(Debug, Clone)]
pub(crate) struct Fragment {
    pub(crate) event_id: String,
    /// The signed bytes, with their envelope and entry.
    pub(crate) bytes: Vec<u8>,
    /// The keys of the possible routes, most specific first.
    pub(crate) routes: Vec<String>,
    /// Business number and contact. Order holds within a conversation.
    pub(crate) conversation: Option<u32>,
}

impl Fragment {
    /// Stands for a message that no notification explains.
    pub(crate) fn unknown(event_id: &str) -> Self {
        Self { event_id: event_id.to_owned(), bytes: Vec::new(), routes: Vec::new(), conversation: None }
    }

    /// Returns whether the body can be too large for a message, so that it needs the bucket.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes.len() > MAX_MESSAGE_BYTES - MAX_ATTRIBUTE_BYTES
    }

    /// Returns whether `body` is the expected body of this fragment.
    pub(crate) fn is_equal_to(&self, body: &[u8]) -> bool {
        // SQS rejects U+FFFE, so the message has its JSON escape instead.
        self.bytes == body || {
            let escaped = String::from_utf8_lossy(&self.bytes).replace('\u{fffe}', "\\ufffe");
            escaped.as_bytes() == body
        }
    }
}

/// A change before it is part of an entry.
struct Change {
    text: String,
    routes: &'static [&'static str],
    conversation: Option<u32>,
}

/// Draws a notification. `serial` numbers all changes of a seed, so that no two have the same event id.
pub(crate) fn draw(rng: &mut Rng, serial: &mut u32) -> Notification {
    match rng.u16(..1000) {
        0..600 => envelope(rng, serial, &[1], 0),
        600..680 => envelope(rng, serial, &[10], 0),
        680..850 => {
            let entries: Vec<_> = (0..rng.usize(1..=3)).map(|_| rng.usize(1..=6)).collect();
            envelope(rng, serial, &entries, 0)
        }
        850..865 => {
            let changes = rng.usize(100..300);
            envelope(rng, serial, &[changes], 0)
        }
        865..872 => {
            let bytes = rng.usize(100_000..400_000);
            let changes = rng.usize(2..=5);
            envelope(rng, serial, &[changes], bytes)
        }
        872..895 => {
            // Near the limit, where the size of the attributes matters.
            let bytes = MAX_MESSAGE_BYTES - 2000 + rng.usize(0..4000);
            envelope(rng, serial, &[1], bytes)
        }
        895..930 => not_json(rng, serial),
        930..970 => not_a_notification(serial),
        _ => entry_without_changes(serial),
    }
}

fn envelope(rng: &mut Rng, serial: &mut u32, changes: &[usize], filler: usize) -> Notification {
    let mut notification = Notification { body: ENVELOPE[0].into(), fragments: Vec::new() };
    for (index, changes) in changes.iter().enumerate() {
        let entry_id = FIRST_ENTRY_ID + rng.u64(..3);
        let id = format!("\"{entry_id}\"");
        let time = rng.bool().then(|| rng.u32(1_767_000_000..1_768_000_000).to_string());
        let time_member = time.as_ref().map(|time| format!(r#""time":{time},"#)).unwrap_or_default();
        let entry = [format!(r#"{{"id":{id},{time_member}"changes":["#), "]}".to_owned()];
        let changes: Vec<_> = (0..*changes).map(|_| change(rng, serial, filler)).collect();
        let texts: Vec<_> = changes.iter().map(|change| change.text.as_str()).collect();
        let separator = if index > 0 { "," } else { "" };
        let parts = [separator, &entry[0], &texts.join(","), &entry[1]];
        notification.body.extend(parts.concat().into_bytes());
        notification.fragments.extend(changes.iter().map(|change| Fragment {
            event_id: event_id(&[&id, time.as_deref().unwrap_or_default(), &change.text]),
            bytes: [ENVELOPE[0], &entry[0], &change.text, &entry[1], ENVELOPE[1]].concat().into_bytes(),
            routes: routes(change.routes, entry_id),
            conversation: change.conversation,
        }));
    }
    notification.body.extend(ENVELOPE[1].bytes());
    notification
}

/// The routes of a change, after those that are narrowed to its entry id.
fn routes(routes: &[&str], entry_id: u64) -> Vec<String> {
    let narrowed = routes.iter().map(|route| format!("{route}@{entry_id}"));
    narrowed.chain(routes.iter().map(|route| (*route).to_owned())).collect()
}

fn change(rng: &mut Rng, serial: &mut u32, filler: usize) -> Change {
    let number = next(serial);
    let contact = rng.u32(..4);
    let text = match rng.u8(..20) {
        0 => "\u{fffe}".to_owned(),
        1 => "\\u0000 \\ud800 \\\"}]".to_owned(),
        _ => "x".repeat(filler.max(rng.usize(..40))),
    };
    let metadata = r#""messaging_product":"whatsapp","metadata":{"phone_number_id":"580221187905911"}"#;
    let message = format!(
        r#"{metadata},"contacts":[{{"wa_id":"44770090{contact}"}}],"messages":[{{"from":"44770090{contact}","id":"wamid.{number}","text":{{"body":"{text}"}}}}]"#
    );
    let (field, value, routes, conversation): (_, _, &[_], _) = match rng.u8(..10) {
        0..5 => (r#","field":"messages""#, message, &["messages.messages", "messages"], Some(contact)),
        5..8 => {
            let status =
                format!(r#"{metadata},"statuses":[{{"id":"wamid.{number}","recipient_id":"44770090{contact}"}}]"#);
            (r#","field":"messages""#, status, &["messages.statuses", "messages"], Some(contact))
        }
        8 => {
            let event = format!(r#""event":"{text}","number":{number}"#);
            (r#","field":"account_update""#, event, &["account_update"], None)
        }
        _ if rng.bool() => (r#","field":"brand_new""#, message, &[], None),
        _ => ("", message, &[], None),
    };
    Change { text: format!(r#"{{"value":{{{value}}}{field}}}"#), routes, conversation }
}

fn not_json(rng: &mut Rng, serial: &mut u32) -> Notification {
    let mut body = format!("not JSON, number {}", next(serial)).into_bytes();
    if rng.bool() {
        body.push(*rng.choice(&[0xff, 0x00]).unwrap_or(&0));
    }
    let parts = [body.as_slice()];
    Notification { fragments: vec![unrouted(&parts)], body }
}

fn not_a_notification(serial: &mut u32) -> Notification {
    let body = format!(r#"{{"number":{}}}"#, next(serial)).into_bytes();
    Notification { fragments: vec![unrouted(&[&body])], body }
}

fn entry_without_changes(serial: &mut u32) -> Notification {
    let entry = format!(r#"{{"id":"1","messaging":[{}]}}"#, next(serial));
    let body = [ENVELOPE[0], &entry, ENVELOPE[1]].concat().into_bytes();
    Notification { fragments: vec![unrouted(&[&body])], body }
}

fn unrouted(parts: &[&[u8]]) -> Fragment {
    let bytes = parts.concat();
    Fragment { event_id: event_id(&[&bytes]), bytes, routes: Vec::new(), conversation: None }
}

fn next(serial: &mut u32) -> u32 {
    *serial += 1;
    *serial
}

/// Computes the consumers' idempotency key from its definition in `docs/contract.md`.
fn event_id(parts: &[impl AsRef<[u8]>]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.as_ref().len() as u64).to_be_bytes());
        hash.update(part.as_ref());
    }
    hex::encode(hash.finalize())
}
