//! A notification's text, cut into the pieces that are stored: one for each change, and what is no change.
//!
//! Nothing here writes JSON. A piece is made of slices of the text that Meta sent, so what a consumer reads
//! is what was signed, whatever members Meta adds to it.

use std::{borrow::Cow, marker::PhantomData};

use serde::{
    Deserialize,
    de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

/// A body with more elements than this stays whole. Meta puts at most 1000 changes in a notification.
///
/// Source: <https://developers.facebook.com/docs/graph-api/webhooks/getting-started>
const MAX_PIECES: usize = 10_000;

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
    let bytes: usize = pieces.iter().map(Piece::len).sum();
    if pieces.len() > MAX_PIECES || bytes > MAX_SPLIT_BYTES {
        return vec![Piece::Other(Framed::bare(text))];
    }
    pieces
}

impl Piece<'_> {
    /// Bytes of the piece.
    pub(crate) fn len(&self) -> usize {
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

/// A member that may be missing; `null` is not missing.
#[derive(Default)]
struct Raw<'b>(Option<&'b RawValue>);

impl<'de: 'b, 'b> Deserialize<'de> for Raw<'b> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(value).map(|value| Self(Some(value)))
    }
}

/// The members of an object named in [`VALUE`], where each is there once.
struct Inside<'b>([Option<&'b RawValue>; VALUE.len()]);

impl<'de: 'b, 'b> Deserialize<'de> for Inside<'b> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_map(Members(VALUE)).map(|found| Self(found.map(Member::once)))
    }
}

/// An object that is as Meta writes it, read in one go; of any other nothing is told, and it has to be looked at
/// member by member.
fn usual<'b, T: Deserialize<'b>>(json: &'b str) -> Option<T> {
    serde_json::from_str(json).ok().map(|Object(object)| object)
}

/// What is read of an object alone: what is derived for a struct would take an array of its members too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(object))
            }
        }

        value.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// The text of a JSON string or number, if it is one and not empty.
#[must_use]
pub fn scalar(json: &RawValue) -> Option<Cow<'_, str>> {
    let text = json.get();
    let number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if number { Some(Cow::Borrowed(text)) } else { string(json).filter(|text| !text.is_empty()) }
}

/// The text of a JSON string; none if it is something else, or has a lone surrogate, which no text can hold.
fn string(json: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'j>(#[serde(borrow)] Cow<'j, str>);

    serde_json::from_str(json.get()).ok().map(|Text(text)| text)
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn is_filled_array(json: &RawValue) -> bool {
    json.get().strip_prefix('[').is_some_and(|rest| !rest.trim_start().starts_with(']'))
}

fn elements(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok().map(|Elements(elements)| elements)
}

/// The elements of an array. More than [`MAX_PIECES`] are skipped, because their body stays whole: keeping millions of them
/// would need a hundred times the memory of their text.
struct Elements<'b>(Vec<&'b RawValue>);

impl<'de: 'b, 'b> Deserialize<'de> for Elements<'b> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct ElementsVisitor;

        impl<'de> Visitor<'de> for ElementsVisitor {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while elements.len() <= MAX_PIECES
                    && let Some(element) = array.next_element()?
                {
                    elements.push(element);
                }
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(elements)
            }
        }

        value.deserialize_seq(ElementsVisitor).map(Self)
    }
}

/// A reader of an array's first element; what follows it stays unread. Of anything else there is nothing to read.
fn first(array: &RawValue) -> serde_json::Deserializer<serde_json::de::StrRead<'_>> {
    serde_json::Deserializer::from_str(array.get().strip_prefix('[').unwrap_or_default())
}

/// The members with the given names of an array's first element, where each is there once.
fn inside_first<'j, const N: usize>(array: Option<&'j RawValue>, names: [&str; N]) -> [Option<&'j RawValue>; N] {
    let found = array.and_then(|array| first(array).deserialize_map(Members(names)).ok());
    found.map_or([None; N], |found| found.map(Member::once))
}

/// The first member of that name of an array's first element; what follows it, which may be megabytes, stays unread, and so
/// whether the name is there once more: this is for what is measured, not for what is stored.
fn early_member_of_first<'j>(array: &'j RawValue, name: &str) -> Option<&'j RawValue> {
    struct Early<'n, 'f, 'j>(&'n str, &'f mut Option<&'j RawValue>);

    impl<'j> Visitor<'j> for Early<'_, '_, 'j> {
        type Value = ();

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'j>>(self, mut object: A) -> Result<(), A::Error> {
            while let Some(index) = object.next_key_seed(Index(&[self.0]))? {
                if index.is_some() {
                    *self.1 = Some(object.next_value()?);
                    return Ok(());
                }
                object.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    let mut found = None;
    // An object that was left before its end is an error, and of no interest.
    let _ = first(array).deserialize_map(Early(name, &mut found));
    found
}

/// The text before the first and after the last of some parts of a text, and the parts; none if there are none.
fn around<'b>(whole: &'b str, parts: Vec<&'b RawValue>) -> Option<(&'b str, Vec<&'b RawValue>, &'b str)> {
    let offset = |part: &str| part.as_ptr().addr() - whole.as_ptr().addr();
    let head = &whole[..offset(parts.first()?.get())];
    let last = parts.last()?.get();
    let tail = &whole[offset(last) + last.len()..];
    Some((head, parts, tail))
}

/// What an object has under a name that is looked for.
#[derive(Clone, Copy, Default)]
enum Member<'j> {
    #[default]
    Absent,
    Once(&'j RawValue),
    /// Twice or more: readers of JSON differ in which one counts, so none does.
    Doubled,
}

impl<'j> Member<'j> {
    fn once(self) -> Option<&'j RawValue> {
        if let Self::Once(value) = self { Some(value) } else { None }
    }

    /// The value, if there is one; none at all if there are more.
    #[allow(clippy::option_option, reason = "absent and ambiguous are two things")]
    fn optional(self) -> Option<Option<&'j RawValue>> {
        match self {
            Self::Absent => Some(None),
            Self::Once(value) => Some(Some(value)),
            Self::Doubled => None,
        }
    }
}

/// The members with the given names of what may be an object, where each is there once.
fn inside<'j, const N: usize>(json: Option<&'j RawValue>, names: [&str; N]) -> [Option<&'j RawValue>; N] {
    json.and_then(|json| members(json.get(), names)).map_or([None; N], |found| found.map(Member::once))
}

/// The members with the given names of a JSON object; none if the text is none.
fn members<'j, const N: usize>(json: &'j str, names: [&str; N]) -> Option<[Member<'j>; N]> {
    serde_json::Deserializer::from_str(json).deserialize_map(Members(names)).ok()
}

/// Reads the members with the given names of an object.
struct Members<'n, const N: usize>([&'n str; N]);

impl<'j, const N: usize> Visitor<'j> for Members<'_, N> {
    type Value = [Member<'j>; N];

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = [Member::Absent; N];
        while let Some(index) = object.next_key_seed(Index(&self.0))? {
            let Some(index) = index else {
                object.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = object.next_value()?;
            found[index] = match found[index] {
                Member::Absent => Member::Once(value),
                Member::Once(_) | Member::Doubled => Member::Doubled,
            };
        }
        Ok(found)
    }
}

/// The index of an object's key among some names.
///
/// Read as bytes: a key may have a lone surrogate, which is valid in JSON and not in a string.
struct Index<'n>(&'n [&'n str]);

impl<'j> serde::de::DeserializeSeed<'j> for Index<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'j>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Index<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| name.as_bytes() == key))
    }
}

#[cfg(test)]
mod tests;
