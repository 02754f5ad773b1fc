//! Splits a notification into fragments a second time: from the brackets, quotes and commas of the text.
//!
//! Tests, fuzzing and `ingress run` compare its result with that of `whatsapp-webhook`, with which it shares no code.
#![allow(clippy::missing_panics_doc, reason = "a panic is a fault of the oracle, which a test should show")]

use serde::de::IgnoredAny;

/// The limits beyond which a body stays whole.
const MAX_FRAGMENTS: usize = 10_000;
const MAX_SPLIT_BYTES: usize = 64 << 20;

/// The route of a fragment without a route of its own.
const CATCH_ALL: &str = "*";

/// The smallest part of a notification that is stored alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fragment {
    /// A change in its entry and its envelope.
    Change(Change),
    /// JSON without a readable change.
    Other {
        /// The whole fragment, with entry and envelope.
        text: String,
        /// The same without entry and envelope around it.
        inner: String,
    },
    /// A body that is not JSON.
    NotJson(Vec<u8>),
}

/// A change, and the values that select its queue and identify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The whole fragment, with entry and envelope.
    pub text: String,
    /// The change alone.
    pub inner: String,
    /// The entry's id, as JSON text.
    pub entry_id: Option<String>,
    /// The entry's time, as JSON text.
    pub entry_time: Option<String>,
    /// The field, decoded.
    pub field: Option<String>,
    /// The first of `messages`, `statuses` and `errors` that is a nonempty array in the value.
    pub kind: Option<&'static str>,
    /// The id of the business phone number in the value's metadata, decoded.
    pub phone_number_id: Option<String>,
}

impl Fragment {
    /// The bytes that are stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Change(Change { text, .. }) | Self::Other { text, .. } => text.as_bytes(),
            Self::NotJson(body) => body,
        }
    }

    /// The bytes without entry and envelope around them.
    #[must_use]
    pub fn inner(&self) -> &[u8] {
        match self {
            Self::Change(Change { inner, .. }) | Self::Other { inner, .. } => inner.as_bytes(),
            Self::NotJson(body) => body,
        }
    }

    /// The field of a change.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        if let Self::Change(change) = self { change.field.as_deref() } else { None }
    }

    /// The kind of a change.
    #[must_use]
    pub fn kind(&self) -> Option<&'static str> {
        if let Self::Change(change) = self { change.kind } else { None }
    }

    /// The phone number id and the entry id of a change.
    fn ids(&self) -> Vec<String> {
        let Self::Change(change) = self else { return Vec::new() };
        let entry_id = change.entry_id.as_deref().and_then(scalar);
        [change.phone_number_id.clone(), entry_id].into_iter().flatten().collect()
    }

    /// The first of these routes that exists: of field, kind and an id, of field and an id, of field and kind, of the field, the
    /// catch-all.
    #[must_use]
    pub fn route(&self, exists: impl Fn(&str) -> bool) -> String {
        // A field with a dot, an at sign or the name of the catch-all route is not a field that a route can have.
        let field = self.field().filter(|field| !field.contains(['.', '@']) && *field != CATCH_ALL);
        let Some(field) = field else { return CATCH_ALL.to_owned() };
        let of_kind = self.kind().map(|kind| format!("{field}.{kind}"));
        let most_specific_first = [of_kind, Some(field.to_owned())].into_iter().flatten();
        let narrowed =
            most_specific_first.clone().flat_map(|route| self.ids().into_iter().map(move |id| format!("{route}@{id}")));
        narrowed.chain(most_specific_first).find(|route| exists(route)).unwrap_or_else(|| CATCH_ALL.to_owned())
    }

    /// The queues of the fragment as the JSON text of the routes has them: names or URLs.
    #[must_use]
    pub fn queues(&self, routes: &str) -> Vec<String> {
        let route = self.route(|route| !named(routes, route).is_empty());
        let queues = named(routes, &route).into_iter().flat_map(|value| array(value).unwrap_or_else(|| vec![value]));
        queues.map(|queue| string(queue).expect("a queue is a string")).collect()
    }

    /// The attribute `unrouted_reason` of a message on this route.
    #[must_use]
    pub fn unrouted_reason(&self, route: &str) -> Option<&'static str> {
        match self {
            Self::NotJson(_) => Some("not-json"),
            Self::Other { .. } => Some("not-a-notification"),
            Self::Change(Change { field: None, .. }) => Some("no-field"),
            Self::Change(_) => (route == CATCH_ALL).then_some("no-route"),
        }
    }
}

/// The fragments of a body, in order.
#[must_use]
pub fn fragments(body: &[u8]) -> Vec<Fragment> {
    if body.is_empty() {
        return Vec::new();
    }
    let Some(text) = std::str::from_utf8(body).ok().filter(|text| is_json(text)) else {
        return vec![Fragment::NotJson(body.to_vec())];
    };
    let envelopes = array(text).filter(|elements| !elements.is_empty()).unwrap_or_else(|| vec![text]);
    let fragments: Vec<_> = envelopes.into_iter().flat_map(of_envelope).collect();
    let bytes: usize = fragments.iter().map(|fragment| fragment.bytes().len()).sum();
    if fragments.len() > MAX_FRAGMENTS || bytes > MAX_SPLIT_BYTES { vec![other(text, text)] } else { fragments }
}

fn other(text: impl Into<String>, inner: &str) -> Fragment {
    Fragment::Other { text: text.into(), inner: inner.to_owned() }
}

/// Whether a text is JSON of any depth.
#[must_use]
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn of_envelope(envelope: &str) -> Vec<Fragment> {
    let Some(entries) = only(envelope, "entry").and_then(array).filter(|entries| !entries.is_empty()) else {
        return vec![other(envelope, envelope)];
    };
    let [head, tail] = frame(envelope, &entries);
    entries.into_iter().flat_map(|entry| of_entry([head, tail], entry)).collect()
}

fn of_entry([head, tail]: [&str; 2], entry: &str) -> Vec<Fragment> {
    let is_unambiguous = ["id", "time"].iter().all(|name| named(entry, name).len() <= 1);
    let changes = only(entry, "changes").and_then(array).filter(|changes| is_unambiguous && !changes.is_empty());
    let Some(changes) = changes else { return vec![other([head, entry, tail].concat(), entry)] };
    let [before, after] = frame(entry, &changes);
    let [id, time] = ["id", "time"].map(|name| only(entry, name).map(ToOwned::to_owned));
    let of_change = |change: &str| {
        let text = [head, before, change, after, tail].concat();
        if ["field", "value"].iter().any(|name| named(change, name).len() > 1) {
            return other(text, change);
        }
        let value = only(change, "value").unwrap_or_default();
        let filled = |name: &&str| only(value, name).and_then(array).is_some_and(|items| !items.is_empty());
        let number = only(value, "metadata").and_then(|metadata| only(metadata, "phone_number_id"));
        Fragment::Change(Change {
            text,
            inner: change.to_owned(),
            entry_id: id.clone(),
            entry_time: time.clone(),
            field: only(change, "field").and_then(string).filter(|field| !field.is_empty()),
            kind: ["messages", "statuses", "errors"].into_iter().find(filled),
            phone_number_id: number.and_then(scalar),
        })
    };
    changes.into_iter().map(of_change).collect()
}

/// A JSON number as it stands, or a string that is not empty, decoded.
#[must_use]
pub fn scalar(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'-' | b'0'..=b'9' => Some(json.to_owned()),
        _ => string(json).filter(|text| !text.is_empty()),
    }
}

/// Decodes a JSON string. `None` if it contains a lone surrogate.
fn string(json: &str) -> Option<String> {
    let mut units = Vec::new();
    let mut characters = json.strip_prefix('"')?.strip_suffix('"')?.chars();
    while let Some(character) = characters.next() {
        let decoded = match character {
            '\\' => match characters.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let digits: String = characters.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&digits, 16).ok()?);
                    continue;
                }
                same => same,
            },
            same => same,
        };
        units.extend_from_slice(decoded.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).ok()
}

/// The value of the only member with this name.
fn only<'j>(object: &'j str, name: &str) -> Option<&'j str> {
    match named(object, name)[..] {
        [value] => Some(value),
        _ => None,
    }
}

/// The values of all members with this name.
fn named<'j>(object: &'j str, name: &str) -> Vec<&'j str> {
    let members = parts(object.trim_matches(WHITE), '{', '}').unwrap_or_default();
    let pairs = members.into_iter().map(|member| {
        let colon = top_level(member, ':').next().expect("a member has a colon");
        (member[..colon].trim_matches(WHITE), member[colon + 1..].trim_matches(WHITE))
    });
    pairs.filter(|(key, _)| string(key).as_deref() == Some(name)).map(|(_, value)| value).collect()
}

fn array(json: &str) -> Option<Vec<&str>> {
    parts(json.trim_matches(WHITE), '[', ']')
}

const WHITE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Splits an array or object at its top-level commas.
fn parts(json: &str, open: char, close: char) -> Option<Vec<&str>> {
    let within = json.strip_prefix(open)?.strip_suffix(close)?;
    if within.trim_matches(WHITE).is_empty() {
        return Some(Vec::new());
    }
    let mut from = 0;
    let mut parts = Vec::new();
    for at in top_level(within, ',').chain([within.len()]) {
        parts.push(within[from..at].trim_matches(WHITE));
        from = at + 1;
    }
    Some(parts)
}

/// The positions of a character outside strings and nested brackets.
fn top_level(json: &str, wanted: char) -> impl Iterator<Item = usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    json.char_indices().filter_map(move |(at, character)| {
        if quoted {
            quoted = escaped || character != '"';
            escaped = !escaped && character == '\\';
            return None;
        }
        match character {
            '"' => quoted = true,
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            _ => {}
        }
        (depth == 0 && character == wanted).then_some(at)
    })
}

/// The text of a whole before the first and after the last of its parts.
fn frame<'w>(whole: &'w str, parts: &[&'w str]) -> [&'w str; 2] {
    let range = whole.as_bytes().as_ptr_range();
    let start = parts[0].as_ptr().addr() - range.start.addr();
    let last = parts[parts.len() - 1].as_bytes().as_ptr_range();
    [&whole[..start], &whole[last.end.addr() - range.start.addr()..]]
}
