//! Records deliveries, responses and stored messages, and compares them.

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
    totals: Mutex<Totals>,
}

#[derive(Default)]
struct Totals {
    fragments: HashMap<String, FragmentRecord>,
    bytes: usize,
    forged: usize,
    accepted: usize,
    rejected: usize,
    diverted: usize,
    raw_base64: usize,
    in_s3: usize,
    response_times: Vec<Duration>,
    deliveries: HashMap<usize, DeliveryRecord>,
    pointer_keys: HashSet<String>,
}

struct FragmentRecord {
    text: [u8; 32],
    is_accepted: bool,
    /// The number of the notification.
    delivery: usize,
    /// The call that stored each copy.
    copies: Vec<usize>,
}

/// The attempts to deliver one notification.
#[derive(Default)]
struct DeliveryRecord {
    fragments: usize,
    attempts: Vec<Attempt>,
}

impl DeliveryRecord {
    fn rejected(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.status != 200).count()
    }
}

impl Ledger {
    /// Creates a record for each fragment before the notification is delivered.
    pub(crate) fn expect(&self, number: usize, delivery: &Delivery) {
        let mut totals = self.totals();
        totals.bytes += delivery.body.len();
        totals.deliveries.insert(number, DeliveryRecord { fragments: delivery.fragments.len(), attempts: Vec::new() });
        for fragment in &delivery.fragments {
            let record = FragmentRecord {
                text: digest(&fragment.text),
                is_accepted: false,
                delivery: number,
                copies: Vec::new(),
            };
            assert!(
                totals.fragments.insert(fragment.event_id.clone(), record).is_none(),
                "two fragments have the same event id"
            );
        }
    }

    pub(crate) fn record_attempt(&self, number: usize, delivery: &Delivery, attempt: Attempt) {
        let mut totals = self.totals();
        let status = attempt.status;
        totals.response_times.push(attempt.ended - attempt.started);
        totals.deliveries.get_mut(&number).unwrap().attempts.push(attempt);
        if status != 200 {
            totals.rejected += 1;
            return;
        }
        totals.accepted += 1;
        for fragment in &delivery.fragments {
            totals.fragments.get_mut(&fragment.event_id).unwrap().is_accepted = true;
        }
    }

    pub(crate) fn record_forgery(&self) {
        self.totals().forged += 1;
    }

    /// Removes the messages from the queues and records them.
    pub(crate) fn record_messages(&self, webhook: &Webhook) {
        for queue in webhook.queues.values() {
            for message in queue.take_messages() {
                let text = digest(&self.read_body(webhook, &message));
                let event_id = message.attribute("event_id").unwrap();
                let mut totals = self.totals();
                totals.diverted += usize::from(message.attribute("unrouted_reason") == Some("queue-unavailable"));
                let record = totals.fragments.get_mut(event_id).expect("only signed fragments are stored");
                assert!(record.text == text, "the message differs from the sent fragment");
                record.copies.push(message.call);
            }
        }
    }

    fn read_body(&self, webhook: &Webhook, message: &Message) -> Vec<u8> {
        let mut text = message.body.clone().into_bytes();
        if message.attribute("ExtendedPayloadSize").is_some() {
            let pointer: Value = serde_json::from_slice(&text).unwrap();
            let key = pointer[1]["s3Key"].as_str().unwrap();
            text = webhook.bucket.object(key).unwrap().body.to_vec();
            let mut totals = self.totals();
            totals.in_s3 += 1;
            assert!(totals.pointer_keys.insert(key.to_owned()), "two messages point to one object");
        }
        if message.attribute("encoding").is_some() {
            self.totals().raw_base64 += usize::from(message.attribute("request_id").is_none());
            text = BASE64.decode(text).unwrap();
        }
        text
    }

    pub(crate) fn report(&self) {
        let mut totals = self.totals();
        totals.response_times.sort_unstable();
        let stored = totals.fragments.values().filter(|record| !record.copies.is_empty()).count();
        let copies: usize = totals.fragments.values().map(|record| record.copies.len()).sum();
        let percentile = |fraction: f64| {
            let last = totals.response_times.len() - 1;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "an index from 0 to the last"
            )]
            let index = (last as f64 * fraction) as usize;
            totals.response_times[index].as_secs_f64() * 1e3
        };
        eprintln!("{} changes and other fragments sent, {} MB", totals.fragments.len(), totals.bytes / 1_000_000);
        eprintln!(
            "responses with 200: {}, with 503: {}; rejected forgeries: {}",
            totals.accepted, totals.rejected, totals.forged
        );
        eprintln!("fragments stored: {stored}; additional copies: {}", copies - stored);
        eprintln!("diverted: {}, as base64: {}, in S3: {}", totals.diverted, totals.raw_base64, totals.in_s3);
        eprintln!(
            "response time in ms: median {:.1}, 99 % {:.1}, 99.9 % {:.1}, maximum {:.1}",
            percentile(0.5),
            percentile(0.99),
            percentile(0.999),
            percentile(1.0)
        );
    }

    /// Asserts that all notifications were accepted in the end, and that all their fragments are stored.
    pub(crate) fn check(&self) {
        let totals = self.totals();
        let not_stored =
            totals.fragments.values().filter(|record| record.is_accepted && record.copies.is_empty()).count();
        let not_accepted = totals.fragments.values().filter(|record| !record.is_accepted).count();
        assert_eq!((not_stored, not_accepted), (0, 0));
    }

    /// Asserts that the recorded calls explain every copy, every 503 and every orphaned object.
    pub(crate) fn check_causes(&self, aws: &FakeAws, bucket: &fake_aws::Bucket) {
        let (totals, causes) = (self.totals(), Causes::new(aws.calls()));
        check_copies(&totals, &causes);
        let attempts = || totals.deliveries.values().flat_map(|record| &record.attempts);
        let rejected: Vec<_> = attempts().filter(|attempt| attempt.status != 200).collect();
        let avoidable: Vec<_> = rejected.iter().filter(|attempt| causes.could_store(attempt)).collect();
        eprintln!("503 although everything could be stored in time: {} of {}", avoidable.len(), rejected.len());
        for attempt in avoidable.iter().take(10) {
            eprintln!("  {:?}", causes.affected_calls(attempt).collect::<Vec<_>>());
        }
        let orphans = causes.orphans(&bucket.objects(), &totals.pointer_keys, &attempts());
        eprintln!("objects without a message: {}", orphans.values().sum::<usize>());
        for record in totals.deliveries.values() {
            let orphan_count: usize = record.attempts.iter().filter_map(|attempt| orphans.get(&attempt.started)).sum();
            if orphan_count > 0 {
                let affected_calls: usize =
                    record.attempts.iter().map(|attempt| causes.affected_calls(attempt).count()).sum();
                // A FIFO queue stores only the first copy of a message that is delivered again.
                let bound = affected_calls + record.rejected() * record.fragments;
                assert!(orphan_count <= bound, "{orphan_count} orphaned objects, but {bound} causes");
            }
        }
        assert!(avoidable.is_empty(), "503 although everything could be stored in time");
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap()
    }
}

/// Asserts that a fragment has at most one copy for each delivery and one for each call with a lost or late response. If AWS
/// was only slow, it has at most two.
fn check_copies(totals: &Totals, causes: &Causes) {
    let mut additional = BTreeMap::new();
    for record in totals.fragments.values().filter(|record| record.copies.len() > 1) {
        let unconfirmed: Vec<_> = record.copies.iter().filter_map(|call| causes.why_unconfirmed(*call)).collect();
        let bound = unconfirmed.len() + 1 + totals.deliveries[&record.delivery].rejected();
        let copies = record.copies.len();
        for cause in unconfirmed {
            *additional.entry(cause).or_insert(0) += 1;
        }
        assert!(copies <= bound, "{copies} copies, but {bound} causes");
        let attempts = &totals.deliveries[&record.delivery].attempts;
        assert!(copies <= 2 || !causes.is_only_slow(attempts), "{copies} copies although AWS was only slow");
    }
    eprintln!("copies from calls with a lost or late response: {additional:?}");
    let max_copies = totals.fragments.values().map(|record| record.copies.len()).max();
    eprintln!("maximum copies of one fragment: {}", max_copies.unwrap_or_default());
}

fn digest(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}
