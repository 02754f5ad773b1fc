//! What pieces a body has, found a second time and by other means: from the brackets, quotes and commas of the text.

use serde::de::IgnoredAny;

/// The limits beyond which a body stays whole.
const MAX_PIECES: usize = 10_000;
const MAX_SPLIT_BYTES: usize = 64 << 20;

/// A piece as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// A change in its frame.
    Change {
        /// The whole piece.
        text: String,
        /// The change alone.
        inner: String,
        /// The entry's id, as JSON text.
        entry_id: Option<String>,
        /// The entry's time, as JSON text.
        entry_time: Option<String>,
        /// The field, decoded.
        field: Option<String>,
        /// The first array of the value that is not empty.
        kind: Option<&'static str>,
        /// The number in the value's metadata, decoded.
        phone_number_id: Option<String>,
    },
    /// JSON without a change.
    Other(String),
    /// The body.
    NotJson,
}

impl Expected {
    fn len(&self) -> usize {
        match self {
            Self::Change { text, .. } | Self::Other(text) => text.len(),
            Self::NotJson => 0,
        }
    }
}

/// The pieces of a body, in order.
#[must_use]
pub fn pieces(body: &[u8]) -> Vec<Expected> {
    if body.is_empty() {
        return Vec::new();
    }
    let Some(text) = std::str::from_utf8(body).ok().filter(|text| is_json(text)) else {
        return vec![Expected::NotJson];
    };
    let envelopes = array(text).filter(|elements| !elements.is_empty()).unwrap_or_else(|| vec![text]);
    let pieces: Vec<_> = envelopes.into_iter().flat_map(of_envelope).collect();
    if pieces.len() > MAX_PIECES || pieces.iter().map(Expected::len).sum::<usize>() > MAX_SPLIT_BYTES {
        return vec![Expected::Other(text.to_owned())];
    }
    pieces
}

/// Whether a text is JSON, to whatever depth.
#[must_use]
pub fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn of_envelope(envelope: &str) -> Vec<Expected> {
    let Some(entries) = only(envelope, "entry").and_then(array).filter(|entries| !entries.is_empty()) else {
        return vec![Expected::Other(envelope.to_owned())];
    };
    let [head, tail] = frame(envelope, &entries);
    entries.into_iter().flat_map(|entry| of_entry([head, tail], entry)).collect()
}

fn of_entry([head, tail]: [&str; 2], entry: &str) -> Vec<Expected> {
    let clear = ["id", "time"].iter().all(|name| named(entry, name).len() <= 1);
    let changes = only(entry, "changes").and_then(array).filter(|changes| clear && !changes.is_empty());
    let Some(changes) = changes else { return vec![Expected::Other([head, entry, tail].concat())] };
    let [before, after] = frame(entry, &changes);
    let [id, time] = ["id", "time"].map(|name| only(entry, name).map(ToOwned::to_owned));
    let of_change = |change: &str| {
        let text = [head, before, change, after, tail].concat();
        if ["field", "value"].iter().any(|name| named(change, name).len() > 1) {
            return Expected::Other(text);
        }
        let value = only(change, "value").unwrap_or_default();
        let filled = |name: &&str| only(value, name).and_then(array).is_some_and(|items| !items.is_empty());
        let number = only(value, "metadata").and_then(|metadata| only(metadata, "phone_number_id"));
        Expected::Change {
            text,
            inner: change.to_owned(),
            entry_id: id.clone(),
            entry_time: time.clone(),
            field: only(change, "field").and_then(string).filter(|field| !field.is_empty()),
            kind: ["messages", "statuses", "errors"].into_iter().find(filled),
            phone_number_id: number.and_then(scalar),
        }
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

/// The text of a JSON string without lone surrogates.
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

/// What stands between the commas within a pair of brackets.
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

/// Where a character stands outside strings and brackets.
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
