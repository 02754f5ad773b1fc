//! Splits a notification into the fragments that are stored: one for each change, and one for each entry or body without a
//! readable change.
//!
//! Nothing here writes JSON. A fragment consists of slices of the text that Meta signed, so consumers receive this text,
//! whatever members Meta adds.

use std::borrow::Cow;

use serde::{Deserialize, de::Deserializer};
use serde_json::value::RawValue;

mod json;
pub use json::string_or_number;
use json::{
    Elements, MAX_FRAGMENTS, Member, MembersVisitor, Object, OptionalJson, elements, find_in_first_element, is_json,
    is_nonempty_array, members, parse_common_shape, string, surrounding_text, unique_members,
    unique_members_of_first_element,
};

/// A body stays whole if its fragments together have more bytes than this.
///
/// Each fragment repeats its envelope and its entry. A body of 3 MB with 1000 changes, Meta's maximum, could otherwise become
/// fragments of 3 GB.
/// Source: <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/overview>
const MAX_SPLIT_BYTES: usize = 64 << 20;

/// The smallest part of a notification that is stored alone.
#[derive(Debug)]
pub enum Fragment<'b> {
    /// An element of an entry's array `changes`, in its entry and its envelope. It need not be an object.
    Change(Change<'b>),
    /// JSON without a readable change: an entry in its envelope, an element of a top-level array, or a whole body. Also an
    /// element of `changes` with a duplicate `field` or `value`, and a body over the limits of [`split`].
    Other(EnvelopedJson<'b>),
    /// A body that is not JSON, or not UTF-8.
    NotJson(&'b [u8]),
}

/// A change, and the values that select its queues and its group, or become attributes of its message.
#[derive(Debug)]
pub struct Change<'b> {
    /// The change in its entry and its envelope.
    pub json: EnvelopedJson<'b>,
    /// The entry's id, as JSON text.
    pub entry_id_json: Option<&'b str>,
    /// The entry's time, as JSON text.
    pub entry_time_json: Option<&'b str>,
    /// The decoded text of the field. `None` if the field is missing, empty or not a string.
    pub field: Option<Cow<'b, str>>,
    /// The first kind, in the order of [`Kind::ALL`], whose array in the value is not empty.
    pub kind: Option<Kind>,
    /// The id of the business phone number, from the object `metadata` of the value.
    pub phone_number_id: Option<Cow<'b, str>>,
    /// The object `metadata` of the value.
    metadata: Option<&'b RawValue>,
    /// The array `contacts` of the value, or of its `standby`.
    contacts: Option<&'b RawValue>,
    /// The first nonempty array of [`CONVERSATION_ARRAYS`] in the value, or in its `standby`.
    conversation_array: Option<&'b RawValue>,
}

/// The kind of a change. Meta sends changes of several kinds under the field `messages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Messages from people.
    Messages,
    /// Delivery receipts of messages to people.
    Statuses,
    /// Errors of the account.
    Errors,
}

impl Kind {
    /// All kinds. The first one with a nonempty array is the kind of a change.
    pub const ALL: [Self; 3] = [Self::Messages, Self::Statuses, Self::Errors];

    /// The name of the array in the value. Routes and the attribute `kind` use the same name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Statuses => "statuses",
            Self::Errors => "errors",
        }
    }
}

/// A part of a body, with the text of its envelope and entry around it. Together they are a notification with this part only.
#[derive(Debug, Clone, Copy)]
pub struct EnvelopedJson<'b> {
    /// The beginnings of the envelope and of the entry. For a body with one entry, the first may be empty, and the second then
    /// includes the envelope.
    before: [&'b str; 2],
    element: &'b str,
    /// The ends of the entry and of the envelope. For a body with one entry, the second may be empty, and the first then
    /// includes the envelope.
    after: [&'b str; 2],
}

impl<'b> EnvelopedJson<'b> {
    const fn without_envelope(element: &'b str) -> Self {
        Self { before: ["", ""], element, after: ["", ""] }
    }

    /// The change, entry, array element or body itself, as Meta sent it.
    #[must_use]
    pub const fn element(&self) -> &'b str {
        self.element
    }

    /// The slices whose concatenation is the fragment.
    #[must_use]
    pub const fn parts(&self) -> [&'b str; 5] {
        let ([envelope_start, entry_start], [entry_end, envelope_end]) = (self.before, self.after);
        [envelope_start, entry_start, self.element, entry_end, envelope_end]
    }

    /// The length of the whole fragment in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    /// Whether the fragment has no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Splits a body into fragments. Together they contain all of it, except the commas and the whitespace between changes, entries
/// and elements of a top-level array, and the brackets of that array.
///
/// Every body is accepted: JSON without a readable change, and bytes that are not JSON, become a fragment too. An empty body
/// has no fragments. A body with more than 10,000 fragments, or with fragments of more than 64 MiB together, stays whole.
#[must_use]
pub fn split(body: &[u8]) -> Vec<Fragment<'_>> {
    if body.is_empty() {
        return Vec::new();
    }
    let Ok(text) = std::str::from_utf8(body) else { return vec![Fragment::NotJson(body)] };
    let mut fragments = Vec::new();
    if let Some(CommonEnvelope { entry: [Object(entry)] }) = parse_common_shape(text)
        && let Some(entry) = Entry::new(text, entry)
    {
        split_changes(["", ""], entry, &mut fragments);
    } else if is_json(text) {
        // An example in Meta's documentation has the envelope inside an array.
        match elements(text).filter(|envelopes| !envelopes.is_empty()) {
            Some(envelopes) => {
                for envelope in envelopes {
                    if fragments.len() > MAX_FRAGMENTS {
                        break;
                    }
                    split_envelope(envelope.get(), &mut fragments);
                }
            }
            None => split_envelope(text, &mut fragments),
        }
    } else {
        return vec![Fragment::NotJson(body)];
    }
    let bytes: usize = fragments.iter().map(Fragment::size).sum();
    if fragments.len() > MAX_FRAGMENTS || bytes > MAX_SPLIT_BYTES {
        return vec![Fragment::Other(EnvelopedJson::without_envelope(text))];
    }
    fragments
}

impl Fragment<'_> {
    /// The length of the fragment in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Change(change) => change.json.len(),
            Self::Other(json) => json.len(),
            Self::NotJson(body) => body.len(),
        }
    }
}

fn split_envelope<'b>(envelope: &'b str, fragments: &mut Vec<Fragment<'b>>) {
    let entries = members(envelope, ["entry"]).and_then(|[entry]| elements(entry.unique()?.get()));
    let Some((before, entries, after)) = entries.and_then(|entries| surrounding_text(envelope, entries)) else {
        fragments.push(Fragment::Other(EnvelopedJson::without_envelope(envelope)));
        return;
    };
    for entry in entries {
        if fragments.len() > MAX_FRAGMENTS {
            return;
        }
        split_entry([before, after], entry.get(), fragments);
    }
}

fn split_entry<'b>(envelope: [&'b str; 2], entry: &'b str, fragments: &mut Vec<Fragment<'b>>) {
    if let Some(entry) = Entry::read(entry) {
        return split_changes(envelope, entry, fragments);
    }
    let [before, after] = envelope;
    fragments.push(Fragment::Other(EnvelopedJson { before: [before, ""], element: entry, after: ["", after] }));
}

fn split_changes<'b>([before, after]: [&'b str; 2], entry: Entry<'b>, fragments: &mut Vec<Fragment<'b>>) {
    fragments.extend(entry.changes.into_iter().map(|change| {
        let json = EnvelopedJson { before: [before, entry.before], element: change.get(), after: [entry.after, after] };
        Change::read(json, entry.id, entry.time).map_or(Fragment::Other(json), Fragment::Change)
    }));
}

/// An entry with at least one change.
struct Entry<'b> {
    id: Option<&'b str>,
    time: Option<&'b str>,
    /// The text before the first change, see [`Entry::new`].
    before: &'b str,
    changes: Vec<&'b RawValue>,
    /// The text after the last change, see [`Entry::new`].
    after: &'b str,
}

impl<'b> Entry<'b> {
    /// Reads an entry. `None` if it has no change, or if one of the members that are read is a duplicate.
    fn read(entry: &'b str) -> Option<Self> {
        let found = parse_common_shape(entry).or_else(|| {
            let [id, time, changes] = members(entry, ["id", "time", "changes"])?;
            let changes = elements(changes.unique()?.get())?;
            Some(CommonEntry {
                id: OptionalJson(id.reject_duplicate().ok()?),
                time: OptionalJson(time.reject_duplicate().ok()?),
                changes: Elements(changes),
            })
        })?;
        Self::new(entry, found)
    }

    /// `text` is the entry, or the whole body if it has one entry. In that case `before` and `after` include the envelope.
    fn new(text: &'b str, entry: CommonEntry<'b>) -> Option<Self> {
        let CommonEntry { id: OptionalJson(id), time: OptionalJson(time), changes: Elements(changes) } = entry;
        let (before, changes, after) = surrounding_text(text, changes)?;
        Some(Self { id: id.map(RawValue::get), time: time.map(RawValue::get), before, changes, after })
    }
}

impl<'b> Change<'b> {
    /// Reads a change. `None` if its `field` or its `value` is a duplicate.
    fn read(json: EnvelopedJson<'b>, entry_id_json: Option<&'b str>, entry_time_json: Option<&'b str>) -> Option<Self> {
        let (field, [metadata, standby, errors, contacts, conversation_arrays @ ..]) =
            if let Some(CommonChange { field, value }) = parse_common_shape(json.element) {
                (Some(field), value.0)
            } else {
                let [field, value] = members(json.element, ["field", "value"]).unwrap_or_default();
                (field.reject_duplicate().ok()?, unique_members(value.reject_duplicate().ok()?, VALUE_MEMBERS))
            };
        let [messages, statuses, ..] = conversation_arrays;
        let kinds = Kind::ALL.into_iter().zip([messages, statuses, errors]);
        let kind = kinds.into_iter().find(|(_, array)| array.is_some_and(is_nonempty_array));
        let (mut contacts, mut conversation_array) = (contacts, first_nonempty(conversation_arrays));
        if conversation_array.is_none() && standby.is_some() {
            // While Meta Business Agent handles the chat, contacts and messages are in the object `standby` of the value.
            let [standby_contacts, standby_arrays @ ..] = unique_members(standby, STANDBY_MEMBERS);
            (contacts, conversation_array) = (standby_contacts, first_nonempty(standby_arrays));
        }
        let [phone_number_id] = unique_members(metadata, ["phone_number_id"]);
        Some(Self {
            json,
            entry_id_json,
            entry_time_json,
            field: field.and_then(string).filter(|field| !field.is_empty()),
            kind: kind.map(|(kind, _)| kind),
            phone_number_id: phone_number_id.and_then(string_or_number),
            metadata,
            contacts,
            conversation_array,
        })
    }

    /// The time of the change in seconds since 1970: the time of its entry, or else the timestamp of the first element of
    /// its conversation array.
    #[must_use]
    pub fn time(&self) -> Option<u64> {
        let seconds = |json: &str| json.trim_matches('"').parse().ok();
        self.entry_time_json
            .and_then(seconds)
            .or_else(|| seconds(find_in_first_element(self.conversation_array?, "timestamp")?.get()))
    }

    /// The entry's id: the text of a string, or a number as Meta wrote it. `None` for an empty string and for any other JSON.
    #[must_use]
    pub fn entry_id(&self) -> Option<Cow<'b, str>> {
        string_or_number(serde_json::from_str(self.entry_id_json?).ok()?)
    }

    /// The conversation of the first element of the conversation array: the id of a group chat, or else the id of a person.
    ///
    /// A person's id is the business-scoped user id, because Meta hides the phone number of some people. Without a user
    /// id, it is the phone number. A message about a changed user id belongs to the conversation of the new id, so that
    /// it is stored before the first message from that id.
    ///
    /// Source: <https://developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids/>
    #[must_use]
    pub fn conversation(&self) -> Option<Cow<'b, str>> {
        let [group_id, recipient_type, recipient_id, to, from, wa_id, user_ids @ .., system] =
            unique_members_of_first_element(
                self.conversation_array,
                [
                    "group_id",
                    "recipient_type",
                    "recipient_id",
                    "to",
                    "from",
                    "wa_id",
                    "from_user_id",
                    "to_user_id",
                    "recipient_user_id",
                    "user_id",
                    "system",
                ],
            );
        let first_id = |ids: &[Option<&'b RawValue>]| ids.iter().copied().flatten().find_map(string_or_number);
        let is_group = recipient_type.and_then(string).is_some_and(|kind| kind == "group");
        let group = if is_group { first_id(&[group_id, recipient_id, to]) } else { first_id(&[group_id]) };
        if group.is_some() {
            return group;
        }
        let [new_user_id, new_wa_id] = unique_members(system, ["user_id", "wa_id"]);
        let [contact_user_id, contact_wa_id] = unique_members_of_first_element(self.contacts, ["user_id", "wa_id"]);
        let user_id = first_id(&[new_user_id]).or_else(|| first_id(&user_ids)).or_else(|| first_id(&[contact_user_id]));
        user_id.or_else(|| {
            // `from` of an echo and `to` of a call can be the number of the business, which is therefore the last choice.
            let [business] = unique_members(self.metadata, ["display_phone_number"]);
            let business = business.and_then(string_or_number).map(|number| digits(&number)).unwrap_or_default();
            let phone_numbers = [new_wa_id, recipient_id, to, from, wa_id, contact_wa_id].into_iter().flatten();
            let phone_numbers = phone_numbers.filter_map(string_or_number);
            phone_numbers.min_by_key(|number| !business.is_empty() && digits(number) == business)
        })
    }
}

fn first_nonempty<const N: usize>(arrays: [Option<&RawValue>; N]) -> Option<&RawValue> {
    arrays.into_iter().flatten().find(|array| is_nonempty_array(array))
}

fn digits(phone_number: &str) -> String {
    phone_number.chars().filter(char::is_ascii_digit).collect()
}

/// An envelope of the common shape: it has a single entry.
#[derive(Deserialize)]
struct CommonEnvelope<'b> {
    #[serde(borrow)]
    entry: [Object<CommonEntry<'b>>; 1],
}

/// An entry of the common shape.
#[derive(Deserialize)]
struct CommonEntry<'b> {
    #[serde(borrow, default)]
    id: OptionalJson<'b>,
    #[serde(borrow, default)]
    time: OptionalJson<'b>,
    #[serde(borrow)]
    changes: Elements<'b>,
}

/// A change of the common shape: an object with a field and a value, and the value is an object.
#[derive(Deserialize)]
struct CommonChange<'b> {
    #[serde(borrow)]
    field: &'b RawValue,
    #[serde(borrow)]
    value: ValueMembers<'b>,
}

/// The members of a value that are read. The last ones are [`CONVERSATION_ARRAYS`].
const VALUE_MEMBERS: [&str; 4 + CONVERSATION_ARRAYS.len()] = {
    let [messages, statuses, echoes, calls, groups, preferences] = CONVERSATION_ARRAYS;
    ["metadata", "standby", Kind::Errors.name(), "contacts", messages, statuses, echoes, calls, groups, preferences]
};

/// The members of the object `standby` that are read. The last ones are [`CONVERSATION_ARRAYS`].
const STANDBY_MEMBERS: [&str; 1 + CONVERSATION_ARRAYS.len()] = {
    let [messages, statuses, echoes, calls, groups, preferences] = CONVERSATION_ARRAYS;
    ["contacts", messages, statuses, echoes, calls, groups, preferences]
};

/// The arrays of a value whose elements belong to a conversation.
const CONVERSATION_ARRAYS: [&str; 6] =
    [Kind::Messages.name(), Kind::Statuses.name(), "message_echoes", "calls", "groups", "user_preferences"];

/// The members of a value, in the order of [`VALUE_MEMBERS`]. An absent or duplicate member is `None`.
struct ValueMembers<'b>([Option<&'b RawValue>; VALUE_MEMBERS.len()]);

impl<'de: 'b, 'b> Deserialize<'de> for ValueMembers<'b> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_map(MembersVisitor(VALUE_MEMBERS)).map(|found| Self(found.map(Member::unique)))
    }
}

#[cfg(test)]
mod tests;
