//! What was sent, what was answered, and what is stored.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use fake_aws::{FakeAws, Message};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    causes::{Attempt, Causes},
    delivery::Delivery,
    webhook::Webhook,
};

#[derive(Default)]
pub(crate) struct Ledger {
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    fragments: HashMap<String, Account>,
    bytes: usize,
    forged: usize,
    accepted: usize,
    refused: usize,
    diverted: usize,
    bare: usize,
    in_s3: usize,
    took: Vec<Duration>,
    deliveries: HashMap<usize, Record>,
    pointed_to: HashSet<String>,
}

struct Account {
    text: [u8; 32],
    accepted: bool,
    /// The number of the notification.
    delivery: usize,
    /// The call that stored each copy.
    copies: Vec<usize>,
}

/// The invocations for one notification.
#[derive(Default)]
struct Record {
    fragments: usize,
    attempts: Vec<Attempt>,
}

impl Record {
    fn refused(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.status != 200).count()
    }
}

impl Ledger {
    /// Opens an account for each fragment, before it can be stored.
    pub(crate) fn expect(&self, number: usize, delivery: &Delivery) {
        let mut accounts = self.accounts();
        accounts.bytes += delivery.body.len();
        accounts.deliveries.insert(number, Record { fragments: delivery.fragments.len(), attempts: Vec::new() });
        for fragment in &delivery.fragments {
            let account =
                Account { text: digest(&fragment.text), accepted: false, delivery: number, copies: Vec::new() };
            assert!(accounts.fragments.insert(fragment.event_id.clone(), account).is_none(), "two fragments are alike");
        }
    }

    pub(crate) fn answered(&self, number: usize, delivery: &Delivery, attempt: Attempt) {
        let mut accounts = self.accounts();
        let status = attempt.status;
        accounts.took.push(attempt.ended - attempt.started);
        accounts.deliveries.get_mut(&number).unwrap().attempts.push(attempt);
        if status != 200 {
            accounts.refused += 1;
            return;
        }
        accounts.accepted += 1;
        for fragment in &delivery.fragments {
            accounts.fragments.get_mut(&fragment.event_id).unwrap().accepted = true;
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
                let account = accounts.fragments.get_mut(event_id).expect("nothing is stored that was not signed");
                assert!(account.text == text, "what is stored is not what was sent");
                account.copies.push(message.call);
            }
        }
    }

    fn text(&self, webhook: &Webhook, message: &Message) -> Vec<u8> {
        let mut text = message.body.clone().into_bytes();
        if message.attribute("ExtendedPayloadSize").is_some() {
            let pointer: Value = serde_json::from_slice(&text).unwrap();
            let key = pointer[1]["s3Key"].as_str().unwrap();
            text = webhook.bucket.object(key).unwrap().body.to_vec();
            let mut accounts = self.accounts();
            accounts.in_s3 += 1;
            assert!(accounts.pointed_to.insert(key.to_owned()), "two messages point to one object");
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
        let stored = accounts.fragments.values().filter(|account| !account.copies.is_empty()).count();
        let copies: usize = accounts.fragments.values().map(|account| account.copies.len()).sum();
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
        eprintln!("{} changes and other fragments sent, {} MB", accounts.fragments.len(), accounts.bytes / 1_000_000);
        eprintln!(
            "answered 200: {}, 503: {}; forged and refused: {}",
            accounts.accepted, accounts.refused, accounts.forged
        );
        eprintln!("fragments stored: {stored}; further copies: {}", copies - stored);
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
        let lost = accounts.fragments.values().filter(|account| account.accepted && account.copies.is_empty()).count();
        let open = accounts.fragments.values().filter(|account| !account.accepted).count();
        assert_eq!((lost, open), (0, 0));
    }

    /// Every copy, every 503 and every orphaned object has a cause in the record of calls.
    pub(crate) fn check_causes(&self, aws: &FakeAws, bucket: &fake_aws::Bucket) {
        let (accounts, causes) = (self.accounts(), Causes::new(aws.calls()));
        check_copies(&accounts, &causes);
        let attempts = || accounts.deliveries.values().flat_map(|record| &record.attempts);
        let refused: Vec<_> = attempts().filter(|attempt| attempt.status != 200).collect();
        let needless: Vec<_> = refused.iter().filter(|attempt| causes.could_store(attempt)).collect();
        eprintln!("503 where everything could be stored in time: {} of {}", needless.len(), refused.len());
        for attempt in needless.iter().take(10) {
            eprintln!("  {:?}", causes.troubled(attempt).collect::<Vec<_>>());
        }
        let orphans = causes.orphans(&bucket.objects(), &accounts.pointed_to, &attempts());
        eprintln!("objects without a message: {}", orphans.values().sum::<usize>());
        for record in accounts.deliveries.values() {
            let found: usize = record.attempts.iter().filter_map(|attempt| orphans.get(&attempt.started)).sum();
            if found > 0 {
                let troubled: usize = record.attempts.iter().map(|attempt| causes.troubled(attempt).count()).sum();
                // A FIFO queue stores only the first copy of a message that is delivered again.
                let bound = troubled + record.refused() * record.fragments;
                assert!(found <= bound, "{found} orphaned objects, but {bound} causes");
            }
        }
        assert!(needless.is_empty(), "503 where everything could be stored in time");
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap()
    }
}

/// A fragment has one copy for each delivery, and one for each call whose answer was lost or late; it has at most two
/// while AWS only is slow.
fn check_copies(accounts: &Accounts, causes: &Causes) {
    let mut further = BTreeMap::new();
    for account in accounts.fragments.values().filter(|account| account.copies.len() > 1) {
        let uncertain: Vec<_> = account.copies.iter().filter_map(|call| causes.of_uncertainty(*call)).collect();
        let bound = uncertain.len() + 1 + accounts.deliveries[&account.delivery].refused();
        let copies = account.copies.len();
        for cause in uncertain {
            *further.entry(cause).or_insert(0) += 1;
        }
        assert!(copies <= bound, "{copies} copies, but {bound} causes");
        let attempts = &accounts.deliveries[&account.delivery].attempts;
        assert!(copies <= 2 || !causes.is_only_slow(attempts), "{copies} copies while AWS was slow only");
    }
    eprintln!("copies of calls with a lost or late answer, where there are several: {further:?}");
    let most = accounts.fragments.values().map(|account| account.copies.len()).max();
    eprintln!("most copies of one fragment: {}", most.unwrap_or_default());
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}
