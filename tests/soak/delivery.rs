//! Notifications of every size that Meta sends. No two changes are equal.

use sha2::{Digest, Sha256};

/// A body with its expected fragments.
pub(crate) struct Delivery {
    pub(crate) body: Vec<u8>,
    pub(crate) fragments: Vec<Fragment>,
}

pub(crate) struct Fragment {
    pub(crate) event_id: String,
    pub(crate) text: Vec<u8>,
}

impl Delivery {
    /// Generates the notification with this number. Equal numbers give equal notifications.
    pub(crate) fn new(number: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(number as u64);
        let (changes, max_length) = match random.usize(..1000) {
            0..690 => (1, 500),
            690..880 => (random.usize(2..=10), 500),
            880..890 | 988..991 => (random.usize(1..=3), 1_100_000),
            890..970 => (random.usize(11..=100), 300),
            970..985 => (random.usize(101..=400), 300),
            985..988 => (1000, 2_500),
            991..996 => return Self::whole(format!("not JSON: {number}").into_bytes()),
            _ => return Self::whole([b"\xff\xfe", number.to_string().as_bytes()].concat()),
        };
        Self::changes((0..changes).map(|index| change(&mut random, &format!("{number}.{index}"), max_length)))
    }

    /// Generates a similar notification with other changes.
    pub(crate) fn forged(&self) -> Self {
        let number = self.fragments.len().min(50);
        let mut random = fastrand::Rng::with_seed(number as u64);
        Self::changes((0..number).map(|_| {
            let id = format!("forged.{}", fastrand::u64(..));
            change(&mut random, &id, 500)
        }))
    }

    fn changes(changes: impl Iterator<Item = String>) -> Self {
        let (head, tail) = (r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":["#, "]}]}");
        let changes: Vec<_> = changes.collect();
        let body = format!("{head}{}{tail}", changes.join(",")).into_bytes();
        let fragment = |change: &String| Fragment {
            event_id: event_id(&[b"\"1\"", b"", change.as_bytes()]),
            text: format!("{head}{change}{tail}").into_bytes(),
        };
        Self { body, fragments: changes.iter().map(fragment).collect() }
    }

    fn whole(body: Vec<u8>) -> Self {
        let fragment = Fragment { event_id: event_id(&[&body]), text: body.clone() };
        Self { body, fragments: vec![fragment] }
    }
}

fn change(random: &mut fastrand::Rng, id: &str, max_length: usize) -> String {
    let text = ["x", "\\u00e4", "ß"][random.usize(..3)].repeat(random.usize(max_length / 20..=max_length) / 3);
    let from = random.u64(16_505_550_000..16_505_550_100);
    match random.usize(..10) {
        0..6 => format!(
            r#"{{"field":"messages","value":{{"metadata":{{"phone_number_id":"106540352242922"}},"statuses":[{{"id":"{id}","recipient_id":"{from}","text":"{text}"}}]}}}}"#
        ),
        6..8 => format!(
            r#"{{"field":"messages","value":{{"metadata":{{"phone_number_id":"106540352242922"}},"messages":[{{"id":"{id}","from":"{from}","text":"{text}"}}]}}}}"#
        ),
        8 => format!(r#"{{"value":{{"id":"{id}","from":"{from}","text":"{text}"}},"field":"security"}}"#),
        _ => format!(r#"{{"value":{{"id":"{id}","text":"{text}"}},"field":"calls"}}"#),
    }
}

fn event_id(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}
