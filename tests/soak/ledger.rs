//! What was sent, what was answered, and what is stored.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use fake_aws::Message;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    delivery::Delivery,
    webhook::{Answer, Webhook},
};

#[derive(Default)]
pub(crate) struct Ledger {
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    pieces: HashMap<String, Account>,
    bytes: usize,
    forged: usize,
    accepted: usize,
    refused: usize,
    diverted: usize,
    bare: usize,
    in_s3: usize,
    took: Vec<Duration>,
}

struct Account {
    text: [u8; 32],
    accepted: bool,
    copies: usize,
}

impl Ledger {
    /// Opens an account for each piece, before it can be stored.
    pub(crate) fn expect(&self, delivery: &Delivery) {
        let mut accounts = self.accounts();
        accounts.bytes += delivery.body.len();
        for piece in &delivery.pieces {
            let account = Account { text: digest(&piece.text), accepted: false, copies: 0 };
            assert!(accounts.pieces.insert(piece.event_id.clone(), account).is_none(), "two pieces are alike");
        }
    }

    pub(crate) fn answered(&self, delivery: &Delivery, answer: &Answer) {
        let mut accounts = self.accounts();
        accounts.took.push(answer.took);
        if answer.status != 200 {
            accounts.refused += 1;
            return;
        }
        accounts.accepted += 1;
        for piece in &delivery.pieces {
            accounts.pieces.get_mut(&piece.event_id).unwrap().accepted = true;
        }
    }

    pub(crate) fn forged(&self) {
        self.accounts().forged += 1;
    }

    /// Empties the queues into the accounts.
    pub(crate) fn take_in(&self, webhook: &Webhook) {
        for queue in webhook.queues.values() {
            for message in queue.take_messages() {
                let text = digest(&self.text(webhook, &message));
                let event_id = message.attribute("event_id").unwrap();
                let mut accounts = self.accounts();
                accounts.diverted += usize::from(message.attribute("unrouted_reason") == Some("queue-unavailable"));
                let account = accounts.pieces.get_mut(event_id).expect("nothing is stored that was not signed");
                assert!(account.text == text, "what is stored is not what was sent");
                account.copies += 1;
            }
        }
    }

    fn text(&self, webhook: &Webhook, message: &Message) -> Vec<u8> {
        let mut text = message.body.clone().into_bytes();
        if message.attribute("ExtendedPayloadSize").is_some() {
            self.accounts().in_s3 += 1;
            let pointer: Value = serde_json::from_slice(&text).unwrap();
            text = webhook.bucket.object(pointer[1]["s3Key"].as_str().unwrap()).unwrap().body.to_vec();
        }
        if message.attribute("encoding").is_some() {
            self.accounts().bare += usize::from(message.attribute("request_id").is_none());
            text = BASE64.decode(text).unwrap();
        }
        text
    }

    pub(crate) fn report(&self) {
        let mut accounts = self.accounts();
        accounts.took.sort_unstable();
        let stored = accounts.pieces.values().filter(|account| account.copies > 0).count();
        let copies: usize = accounts.pieces.values().map(|account| account.copies).sum();
        let at = |share: f64| {
            let last = accounts.took.len() - 1;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "an index from 0 to the last"
            )]
            let index = (last as f64 * share) as usize;
            accounts.took[index].as_secs_f64() * 1e3
        };
        eprintln!("{} changes and other pieces sent, {} MB", accounts.pieces.len(), accounts.bytes / 1_000_000);
        eprintln!(
            "answered 200: {}, 503: {}; forged and refused: {}",
            accounts.accepted, accounts.refused, accounts.forged
        );
        eprintln!("pieces stored: {stored}; further copies: {}", copies - stored);
        eprintln!("diverted: {}, as bare base64: {}, in S3: {}", accounts.diverted, accounts.bare, accounts.in_s3);
        eprintln!(
            "answers in ms: median {:.1}, 99 % {:.1}, 99.9 % {:.1}, longest {:.1}",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }

    /// Everything that was accepted is stored. As each notification is accepted in the end, that is everything.
    pub(crate) fn check(&self) {
        let accounts = self.accounts();
        let lost = accounts.pieces.values().filter(|account| account.accepted && account.copies == 0).count();
        let open = accounts.pieces.values().filter(|account| !account.accepted).count();
        assert_eq!((lost, open), (0, 0));
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap()
    }
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}
