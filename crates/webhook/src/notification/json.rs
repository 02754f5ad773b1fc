//! Reads JSON text and returns unchanged slices of it.

use std::{borrow::Cow, marker::PhantomData};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

/// A body with more fragments than this stays whole. Meta puts at most 1000 changes in a notification.
///
/// Source: <https://developers.facebook.com/docs/graph-api/webhooks/getting-started>
pub(super) const MAX_FRAGMENTS: usize = 10_000;

/// A member that may be absent. A member with the value `null` is present.
#[derive(Default)]
pub(super) struct OptionalJson<'b>(pub(super) Option<&'b RawValue>);

impl<'de: 'b, 'b> Deserialize<'de> for OptionalJson<'b> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(value).map(|value| Self(Some(value)))
    }
}

/// Fast path: deserializes an object of the common shape in one pass. Returns `None` for any other input, which the
/// caller then reads with [`members`].
pub(super) fn parse_common_shape<'b, T: Deserialize<'b>>(json: &'b str) -> Option<T> {
    serde_json::from_str(json).ok().map(|Object(object)| object)
}

/// Deserializes `T` from a JSON object only. A derived `Deserialize` of a struct also accepts an array of its members' values.
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(object))
            }
        }

        value.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

/// The text of a JSON number or of a nonempty JSON string. `None` for any other JSON.
#[must_use]
pub fn string_or_number(json: &RawValue) -> Option<Cow<'_, str>> {
    let text = json.get();
    let number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if number { Some(Cow::Borrowed(text)) } else { string(json).filter(|text| !text.is_empty()) }
}

/// The text of a JSON string. `None` for any other JSON, and for a string with a lone surrogate, which is not valid Unicode.
pub(super) fn string(json: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'j>(#[serde(borrow)] Cow<'j, str>);

    serde_json::from_str(json.get()).ok().map(|Text(text)| text)
}

pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

pub(super) fn is_nonempty_array(json: &RawValue) -> bool {
    json.get().strip_prefix('[').is_some_and(|rest| !rest.trim_start().starts_with(']'))
}

/// The elements of a JSON array, see [`Elements`]. `None` for any other JSON.
pub(super) fn elements(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok().map(|Elements(elements)| elements)
}

/// The elements of an array, at most [`MAX_FRAGMENTS`] + 1.
///
/// A body with more elements stays whole, so further slices would be useless. A slice has 16 bytes, and the text of an
/// element can be as short as two.
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
                while elements.len() <= MAX_FRAGMENTS
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

/// A deserializer that starts at the first element of an array. For JSON that is not an array it has no input.
fn first_element(array: &RawValue) -> serde_json::Deserializer<serde_json::de::StrRead<'_>> {
    serde_json::Deserializer::from_str(array.get().strip_prefix('[').unwrap_or_default())
}

/// The members with these names in the first element of an array. An absent or duplicate member is `None`.
pub(super) fn unique_members_of_first_element<'j, const N: usize>(
    array: Option<&'j RawValue>,
    names: [&str; N],
) -> [Option<&'j RawValue>; N] {
    let found = array.and_then(|array| first_element(array).deserialize_map(MembersVisitor(names)).ok());
    found.map_or([None; N], |found| found.map(Member::unique))
}

/// Finds a member in the first element of an array. Of duplicates it returns the first, because it does not read the rest of
/// the element, which may have megabytes.
///
/// The result is therefore good enough for metrics, but not for stored data.
pub(super) fn find_in_first_element<'j>(array: &'j RawValue, name: &str) -> Option<&'j RawValue> {
    struct FirstMatchVisitor<'n, 'f, 'j>(&'n str, &'f mut Option<&'j RawValue>);

    impl<'j> Visitor<'j> for FirstMatchVisitor<'_, '_, 'j> {
        type Value = ();

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'j>>(self, mut object: A) -> Result<(), A::Error> {
            while let Some(index) = object.next_key_seed(NameIndex(&[self.0]))? {
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
    // The visitor stops before the end of the object, which serde_json reports as an error.
    let _ = first_element(array).deserialize_map(FirstMatchVisitor(name, &mut found));
    found
}

/// Returns the text before the first element, the elements, and the text after the last element. `None` if there are no
/// elements. The elements must be slices of `text`.
pub(super) fn surrounding_text<'b>(
    text: &'b str,
    elements: Vec<&'b RawValue>,
) -> Option<(&'b str, Vec<&'b RawValue>, &'b str)> {
    let offset = |element: &str| element.as_ptr().addr() - text.as_ptr().addr();
    let before = &text[..offset(elements.first()?.get())];
    let last = elements.last()?.get();
    let after = &text[offset(last) + last.len()..];
    Some((before, elements, after))
}

/// The occurrences of a name in an object.
#[derive(Clone, Copy, Default)]
pub(super) enum Member<'j> {
    #[default]
    Absent,
    Unique(&'j RawValue),
    /// The name occurs more than once. Some JSON parsers use the first value and others the last, so this crate uses none.
    Duplicate,
}

/// An object has several members of one name.
pub(super) struct DuplicateError;

impl<'j> Member<'j> {
    /// The value. `None` if the member is absent or a duplicate.
    pub(super) fn unique(self) -> Option<&'j RawValue> {
        if let Self::Unique(value) = self { Some(value) } else { None }
    }

    /// The value, or `None` if the member is absent.
    ///
    /// # Errors
    ///
    /// If the member is a duplicate.
    pub(super) fn reject_duplicate(self) -> Result<Option<&'j RawValue>, DuplicateError> {
        match self {
            Self::Absent => Ok(None),
            Self::Unique(value) => Ok(Some(value)),
            Self::Duplicate => Err(DuplicateError),
        }
    }
}

/// The members with these names, if the JSON is an object. An absent or duplicate member is `None`.
pub(super) fn unique_members<'j, const N: usize>(
    json: Option<&'j RawValue>,
    names: [&str; N],
) -> [Option<&'j RawValue>; N] {
    json.and_then(|json| members(json.get(), names)).map_or([None; N], |found| found.map(Member::unique))
}

/// The members with these names of a JSON object. `None` if the text is not a JSON object.
pub(super) fn members<'j, const N: usize>(json: &'j str, names: [&str; N]) -> Option<[Member<'j>; N]> {
    serde_json::Deserializer::from_str(json).deserialize_map(MembersVisitor(names)).ok()
}

/// Visits an object and collects the members with these names.
pub(super) struct MembersVisitor<'n, const N: usize>(pub(super) [&'n str; N]);

impl<'j, const N: usize> Visitor<'j> for MembersVisitor<'_, N> {
    type Value = [Member<'j>; N];

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = [Member::Absent; N];
        while let Some(index) = object.next_key_seed(NameIndex(&self.0))? {
            let Some(index) = index else {
                object.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = object.next_value()?;
            found[index] = match found[index] {
                Member::Absent => Member::Unique(value),
                Member::Unique(_) | Member::Duplicate => Member::Duplicate,
            };
        }
        Ok(found)
    }
}

/// Deserializes the key of a member to its index in a list of names.
///
/// The key is read as bytes, because a key with a lone surrogate is valid JSON and not valid Unicode.
struct NameIndex<'n>(&'n [&'n str]);

impl<'j> DeserializeSeed<'j> for NameIndex<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'j>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_bytes(self)
    }
}

impl Visitor<'_> for NameIndex<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| name.as_bytes() == key))
    }
}
