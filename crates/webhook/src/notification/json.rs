//! Readers of raw JSON text that keep every slice as it came.

use std::{borrow::Cow, marker::PhantomData};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

/// A body with more elements than this stays whole. Meta puts at most 1000 changes in a notification.
///
/// Source: <https://developers.facebook.com/docs/graph-api/webhooks/getting-started>
pub(super) const MAX_PIECES: usize = 10_000;

/// A member that may be missing; `null` is not missing.
#[derive(Default)]
pub(super) struct Raw<'b>(pub(super) Option<&'b RawValue>);

impl<'de: 'b, 'b> Deserialize<'de> for Raw<'b> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(value).map(|value| Self(Some(value)))
    }
}

/// An object that is as Meta writes it, read in one go; of any other nothing is told, and it has to be looked at
/// member by member.
pub(super) fn usual<'b, T: Deserialize<'b>>(json: &'b str) -> Option<T> {
    serde_json::from_str(json).ok().map(|Object(object)| object)
}

/// What is read of an object alone: what is derived for a struct would take an array of its members too.
pub(super) struct Object<T>(pub(super) T);

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
pub(super) fn string(json: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'j>(#[serde(borrow)] Cow<'j, str>);

    serde_json::from_str(json.get()).ok().map(|Text(text)| text)
}

pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

pub(super) fn is_filled_array(json: &RawValue) -> bool {
    json.get().strip_prefix('[').is_some_and(|rest| !rest.trim_start().starts_with(']'))
}

pub(super) fn elements(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok().map(|Elements(elements)| elements)
}

/// The elements of an array. More than [`MAX_PIECES`] are skipped, because their body stays whole: keeping millions of them
/// would need a hundred times the memory of their text.
pub(super) struct Elements<'b>(pub(super) Vec<&'b RawValue>);

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
pub(super) fn inside_first<'j, const N: usize>(
    array: Option<&'j RawValue>,
    names: [&str; N],
) -> [Option<&'j RawValue>; N] {
    let found = array.and_then(|array| first(array).deserialize_map(Members(names)).ok());
    found.map_or([None; N], |found| found.map(Member::once))
}

/// The first member of that name of an array's first element; what follows it, which may be megabytes, stays unread, and so
/// whether the name is there once more: this is for what is measured, not for what is stored.
pub(super) fn early_member_of_first<'j>(array: &'j RawValue, name: &str) -> Option<&'j RawValue> {
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
pub(super) fn around<'b>(whole: &'b str, parts: Vec<&'b RawValue>) -> Option<(&'b str, Vec<&'b RawValue>, &'b str)> {
    let offset = |part: &str| part.as_ptr().addr() - whole.as_ptr().addr();
    let head = &whole[..offset(parts.first()?.get())];
    let last = parts.last()?.get();
    let tail = &whole[offset(last) + last.len()..];
    Some((head, parts, tail))
}

/// What an object has under a name that is looked for.
#[derive(Clone, Copy, Default)]
pub(super) enum Member<'j> {
    #[default]
    Absent,
    Once(&'j RawValue),
    /// Twice or more: readers of JSON differ in which one counts, so none does.
    Doubled,
}

impl<'j> Member<'j> {
    pub(super) fn once(self) -> Option<&'j RawValue> {
        if let Self::Once(value) = self { Some(value) } else { None }
    }

    /// The value, if there is one; none at all if there are more.
    #[allow(clippy::option_option, reason = "absent and ambiguous are two things")]
    pub(super) fn optional(self) -> Option<Option<&'j RawValue>> {
        match self {
            Self::Absent => Some(None),
            Self::Once(value) => Some(Some(value)),
            Self::Doubled => None,
        }
    }
}

/// The members with the given names of what may be an object, where each is there once.
pub(super) fn inside<'j, const N: usize>(json: Option<&'j RawValue>, names: [&str; N]) -> [Option<&'j RawValue>; N] {
    json.and_then(|json| members(json.get(), names)).map_or([None; N], |found| found.map(Member::once))
}

/// The members with the given names of a JSON object; none if the text is none.
pub(super) fn members<'j, const N: usize>(json: &'j str, names: [&str; N]) -> Option<[Member<'j>; N]> {
    serde_json::Deserializer::from_str(json).deserialize_map(Members(names)).ok()
}

/// Reads the members with the given names of an object.
pub(super) struct Members<'n, const N: usize>(pub(super) [&'n str; N]);

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

impl<'j> DeserializeSeed<'j> for Index<'_> {
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
