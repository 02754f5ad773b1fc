//! A notification's text, cut into the pieces that are stored: one for each change, and what is no change.
//!
//! Nothing here writes JSON. A piece is made of slices of the text that Meta sent, so what a consumer reads
//! is what was signed, whatever members Meta adds to it.

use std::borrow::Cow;

use serde::{Deserialize, de::Deserializer};
use serde_json::value::RawValue;

mod json;
pub use json::scalar;
use json::{
    Elements, MAX_PIECES, Member, Members, Object, Raw, around, early_member_of_first, elements, inside, inside_first,
    is_filled_array, is_json, members, string, usual,
};

/// A body whose pieces together have more bytes than this stays whole: each repeats its envelope and its entry.
///
/// Meta's notifications have at most 3 MB.
const MAX_SPLIT_BYTES: usize = 64 << 20;

/// The smallest part of a body that makes sense alone.
#[derive(Debug)]
pub enum Piece<'b> {
    /// A change item in its entry in its envelope.
    Change(Change<'b>),
    /// JSON without a change that can be told: an entry in its envelope, an element of a top-level array, a
    /// whole body; also a change whose field or value is there twice.
    Other(Framed<'b>),
    /// A body that is no JSON text, or not even UTF-8.
    NotJson(&'b [u8]),
}

/// One change item, and what of it routing and the contract need.
#[derive(Debug)]
pub struct Change<'b> {
    /// The change in its entry in its envelope.
    pub framed: Framed<'b>,
    /// The entry's id, as JSON text.
    pub entry_id: Option<&'b str>,
    /// The entry's time, as JSON text.
    pub entry_time: Option<&'b str>,
    /// The field, decoded, if it is a string and not empty.
    pub field: Option<Cow<'b, str>>,
    /// What the value carries, by its first array that is not empty.
    pub kind: Option<Kind>,
    /// The id of the business number that the value is about.
    pub phone_number_id: Option<Cow<'b, str>>,
    /// Whom the value is about.
    contacts: Option<&'b RawValue>,
    /// Messages, statuses or echoes, whichever there are.
    items: Option<&'b RawValue>,
}

/// What the value of a change carries; Meta sends all three under the field `messages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What people wrote.
    Messages,
    /// Receipts of what was sent to them.
    Statuses,
    /// Errors of the account.
    Errors,
}

impl Kind {
    /// All kinds, in the order in which they are looked for.
    pub const ALL: [Self; 3] = [Self::Messages, Self::Statuses, Self::Errors];

    /// The name of the array in the value, which is the name in routes and attributes too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Statuses => "statuses",
            Self::Errors => "errors",
        }
    }
}

/// A part of a body with the text around it that makes it a notification again.
#[derive(Debug, Clone, Copy)]
pub struct Framed<'b> {
    before: [&'b str; 2],
    inner: &'b str,
    after: [&'b str; 2],
}

impl<'b> Framed<'b> {
    const fn bare(inner: &'b str) -> Self {
        Self { before: ["", ""], inner, after: ["", ""] }
    }

    /// The part itself, as it came.
    #[must_use]
    pub const fn inner(&self) -> &'b str {
        self.inner
    }

    /// The slices that make up the piece, in order.
    #[must_use]
    pub const fn slices(&self) -> [&'b str; 5] {
        let ([a, b], [d, e]) = (self.before, self.after);
        [a, b, self.inner, d, e]
    }

    /// Bytes of the whole piece.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slices().iter().map(|slice| slice.len()).sum()
    }

    /// Whether the piece has no text at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Cuts a body into pieces that hold every change exactly once and lose nothing that is not one.
///
/// No body is an error: what is not understood is a piece too. Only an empty body has none. A body that would
/// grow beyond reason when cut stays whole.
#[must_use]
pub fn split(body: &[u8]) -> Vec<Piece<'_>> {
    if body.is_empty() {
        return Vec::new();
    }
    let Ok(text) = std::str::from_utf8(body) else { return vec![Piece::NotJson(body)] };
    let mut pieces = Vec::new();
    if let Some(UsualEnvelope { entry: [Object(entry)] }) = usual(text)
        && let Some(entry) = Entry::around(text, entry)
    {
        split_changes(["", ""], entry, &mut pieces);
    } else if is_json(text) {
        // One of Meta's pages prints the envelope inside an array.
        match elements(text).filter(|envelopes| !envelopes.is_empty()) {
            Some(envelopes) => {
                for envelope in envelopes {
                    if pieces.len() > MAX_PIECES {
                        break;
                    }
                    split_envelope(envelope.get(), &mut pieces);
                }
            }
            None => split_envelope(text, &mut pieces),
        }
    } else {
        return vec![Piece::NotJson(body)];
    }
    let bytes: usize = pieces.iter().map(Piece::size).sum();
    if pieces.len() > MAX_PIECES || bytes > MAX_SPLIT_BYTES {
        return vec![Piece::Other(Framed::bare(text))];
    }
    pieces
}

impl Piece<'_> {
    /// The size of the piece in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Change(change) => change.framed.len(),
            Self::Other(framed) => framed.len(),
            Self::NotJson(body) => body.len(),
        }
    }
}

fn split_envelope<'b>(envelope: &'b str, pieces: &mut Vec<Piece<'b>>) {
    let entries = members(envelope, ["entry"]).and_then(|[entry]| elements(entry.once()?.get()));
    let Some((head, entries, tail)) = entries.and_then(|entries| around(envelope, entries)) else {
        pieces.push(Piece::Other(Framed::bare(envelope)));
        return;
    };
    for entry in entries {
        if pieces.len() > MAX_PIECES {
            return;
        }
        split_entry([head, tail], entry.get(), pieces);
    }
}

fn split_entry<'b>(envelope: [&'b str; 2], entry: &'b str, pieces: &mut Vec<Piece<'b>>) {
    if let Some(entry) = Entry::read(entry) {
        return split_changes(envelope, entry, pieces);
    }
    let [before, after] = envelope;
    pieces.push(Piece::Other(Framed { before: [before, ""], inner: entry, after: ["", after] }));
}

fn split_changes<'b>([before, after]: [&'b str; 2], found: Entry<'b>, pieces: &mut Vec<Piece<'b>>) {
    pieces.extend(found.changes.into_iter().map(|change| {
        let framed = Framed { before: [before, found.head], inner: change.get(), after: [found.tail, after] };
        Change::read(framed, found.id, found.time).map_or(Piece::Other(framed), Piece::Change)
    }));
}

/// An entry that has changes, and each member that is read only once.
struct Entry<'b> {
    id: Option<&'b str>,
    time: Option<&'b str>,
    head: &'b str,
    changes: Vec<&'b RawValue>,
    tail: &'b str,
}

impl<'b> Entry<'b> {
    fn read(entry: &'b str) -> Option<Self> {
        let found = usual(entry).or_else(|| {
            let [id, time, changes] = members(entry, ["id", "time", "changes"])?;
            let changes = elements(changes.once()?.get())?;
            Some(UsualEntry { id: Raw(id.optional()?), time: Raw(time.optional()?), changes: Elements(changes) })
        })?;
        Self::around(entry, found)
    }

    /// Takes an entry, or the envelope of an only entry, for all that is around its changes.
    fn around(whole: &'b str, entry: UsualEntry<'b>) -> Option<Self> {
        let UsualEntry { id: Raw(id), time: Raw(time), changes: Elements(changes) } = entry;
        let (head, changes, tail) = around(whole, changes)?;
        Some(Self { id: id.map(RawValue::get), time: time.map(RawValue::get), head, changes, tail })
    }
}

impl<'b> Change<'b> {
    fn read(framed: Framed<'b>, entry_id: Option<&'b str>, entry_time: Option<&'b str>) -> Option<Self> {
        let (field, [metadata, contacts, echoes, kinds @ ..]) =
            if let Some(UsualChange { field, value }) = usual(framed.inner) {
                (Some(field), value.0)
            } else {
                let [field, value] = members(framed.inner, ["field", "value"]).unwrap_or_default();
                (field.optional()?, inside(value.optional()?, VALUE))
            };
        let [messages, statuses, _] = kinds;
        let kind = Kind::ALL.into_iter().zip(kinds).find(|(_, array)| array.is_some_and(is_filled_array));
        let [phone_number_id] = inside(metadata, ["phone_number_id"]);
        Some(Self {
            framed,
            entry_id,
            entry_time,
            field: field.and_then(string).filter(|field| !field.is_empty()),
            kind: kind.map(|(kind, _)| kind),
            phone_number_id: phone_number_id.and_then(scalar),
            contacts,
            items: [messages, statuses, echoes].into_iter().flatten().find(|array| is_filled_array(array)),
        })
    }

    /// When the change was sent or happened, in seconds since 1970: the time of its entry, else the timestamp of its
    /// first message or status.
    #[must_use]
    pub fn time(&self) -> Option<u64> {
        let seconds = |json: &str| json.trim_matches('"').parse().ok();
        self.entry_time.and_then(seconds).or_else(|| seconds(early_member_of_first(self.items?, "timestamp")?.get()))
    }

    /// Who the business talks to in this change, by whatever the first message or status names them with.
    ///
    /// An echo of what the business sent has the business as `from`, so `to` goes first. Since 2026 the phone
    /// number can be missing; then a business-scoped user id is all there is.
    #[must_use]
    pub fn contact(&self) -> Option<Cow<'b, str>> {
        let [wa_id, contact_user_id] = inside_first(self.contacts, ["wa_id", "user_id"]);
        let [to, from, recipient_id, from_user_id, to_user_id, recipient_user_id] =
            inside_first(self.items, ["to", "from", "recipient_id", "from_user_id", "to_user_id", "recipient_user_id"]);
        [wa_id, to, from, recipient_id, from_user_id, to_user_id, recipient_user_id, contact_user_id]
            .into_iter()
            .flatten()
            .find_map(scalar)
    }
}

/// An envelope as Meta writes it: mostly with a single entry.
#[derive(Deserialize)]
struct UsualEnvelope<'b> {
    #[serde(borrow)]
    entry: [Object<UsualEntry<'b>>; 1],
}

/// An entry as Meta writes it.
#[derive(Deserialize)]
struct UsualEntry<'b> {
    #[serde(borrow, default)]
    id: Raw<'b>,
    #[serde(borrow, default)]
    time: Raw<'b>,
    #[serde(borrow)]
    changes: Elements<'b>,
}

/// A change as Meta writes it, and what is looked for in its value.
#[derive(Deserialize)]
struct UsualChange<'b> {
    #[serde(borrow)]
    field: &'b RawValue,
    #[serde(borrow)]
    value: Inside<'b>,
}

/// What is looked for in the value of a change.
const VALUE: [&str; 6] =
    ["metadata", "contacts", "message_echoes", Kind::ALL[0].name(), Kind::ALL[1].name(), Kind::ALL[2].name()];

/// The members of an object named in [`VALUE`], where each is there once.
struct Inside<'b>([Option<&'b RawValue>; VALUE.len()]);

impl<'de: 'b, 'b> Deserialize<'de> for Inside<'b> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_map(Members(VALUE)).map(|found| Self(found.map(Member::once)))
    }
}

#[cfg(test)]
mod tests;
