//! Properties of all notifications: the generator also returns the expected fragments.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Entry, Webhook};
use fake_aws::event::base64;
use oracle::fragments;
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde::{
    Deserialize,
    de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor},
};
use whatsapp_webhook::{message::event_id, notification::split};

const ROUTES: [(&str, &str); 3] = [("messages", "messages"), ("messages.statuses", "receipts.fifo"), ("a.b", "x")];

/// A generated part of a body, and its expected fragments.
#[derive(Debug, Clone)]
struct Generated {
    text: String,
    fragments: Vec<Expected>,
}

#[derive(Debug, Clone)]
struct Expected {
    /// The text of the change, entry, element or body.
    text: String,
    /// The id and time of the entry of a change, which its event id depends on.
    entry_members: Option<[Option<String>; 2]>,
}

fn space() -> impl Strategy<Value = &'static str> {
    select(vec!["", "", "", " ", "\n\t "])
}

/// Generates a JSON string with escapes, characters that SQS rejects, and JSON syntax.
fn string() -> impl Strategy<Value = String> {
    let parts = vec![
        "a",
        "ä",
        "\\u00e4",
        "\\/",
        "\\\"",
        "\\\\",
        "😀",
        "\u{fffe}",
        "\u{ffff}",
        "\u{fffd}",
        "\u{7f}",
        "\\u0000",
        "\\ud800",
        "\\uffff",
        "}]",
        "{\\\"field\\\":",
        ",",
        " ",
        "messages",
    ];
    vec(select(parts), 0..6).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

/// Generates JSON that is neither a notification nor an entry.
fn json() -> impl Strategy<Value = String> {
    let scalars = vec!["null", "true", "0", "-1.50e+300", "123456789012345678901234567890", "1E400"];
    let leaf = prop_oneof![select(scalars).prop_map(str::to_owned), string()];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let keys =
            select(vec!["\"k\"", "\"\\ud800\"", "\"\"", "\"messages\"", "\"statuses\"", "\"metadata\"", "\"k\""]);
        prop_oneof![
            (vec(inner.clone(), 0..4), space()).prop_map(|(all, space)| format!("[{space}{}{space}]", all.join(","))),
            (vec((keys, inner), 0..4), space()).prop_map(|(members, space)| object(&members, space)),
        ]
    })
}

fn object<K: AsRef<str>>(members: &[(K, String)], space: &str) -> String {
    let members: Vec<_> =
        members.iter().map(|(name, value)| format!("{}{space}:{space}{value}", name.as_ref())).collect();
    format!("{{{space}{}{space}}}", members.join(&format!("{space},{space}")))
}

/// Adds unknown members and shuffles all members.
fn with_others(members: Vec<(&'static str, String)>) -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let others = (option::of(json()), option::of(json()));
    others
        .prop_map(move |(one, other)| {
            let others = [("\"object\"", one), ("\"\\u0078\"", other)];
            let others = others.into_iter().filter_map(|(name, value)| Some((name, value?)));
            members.iter().cloned().chain(others).collect::<Vec<_>>()
        })
        .prop_shuffle()
}

fn change() -> impl Strategy<Value = String> {
    let fields =
        vec!["\"messages\"", "\"new\"", "\"\"", "\"a.b\"", "\"*\"", "null", "\"\\ud800\"", "\"m\\u0065ssages\""];
    let filler = prop_oneof![150 => Just(0), 4 => 1_000..50_000_usize, 1 => 200_000..500_000_usize];
    let known = (option::of(select(fields)), option::of(json()), filler, space());
    let known = known.prop_flat_map(|(field, value, filler, space)| {
        let field = field.map(|field| ("\"field\"", field.to_owned()));
        let value = value.map(|value| ("\"value\"", value));
        let filler = (filler > 0).then(|| ("\"filler\"", format!("\"{}\"", "ä".repeat(filler))));
        let members = field.into_iter().chain(value).chain(filler).collect();
        with_others(members).prop_map(move |members| object(&members, space))
    });
    prop_oneof![9 => known, 1 => json()]
}

fn entry() -> impl Strategy<Value = Generated> {
    let ids = vec!["\"1029\"", "7", "null", "\"\\u0031\"", "\"two words\"", "[]"];
    let valid = (vec(change(), 1..14), option::of(select(ids)), option::of(json()), space());
    let valid = valid.prop_flat_map(|(changes, id, time, space)| {
        let list = format!("[{space}{}{space}]", changes.join(&format!("{space},")));
        let id = id.map(|id| ("\"id\"", id.to_owned()));
        let time = time.map(|time| ("\"time\"", time));
        let entry_members = [&id, &time].map(|member| member.as_ref().map(|(_, value)| value.clone()));
        let fragments =
            changes.into_iter().map(move |text| Expected { text, entry_members: Some(entry_members.clone()) });
        let fragments: Vec<_> = fragments.collect();
        let members = [("\"changes\"", list)].into_iter().chain(id).chain(time).collect();
        with_others(members)
            .prop_map(move |members| Generated { text: object(&members, space), fragments: fragments.clone() })
    });
    let unusual = vec![r#"{"messaging":[1]}"#, r#"{"changes":[]}"#, r#"{"changes":{}}"#];
    let unusual = prop_oneof![select(unusual).prop_map(str::to_owned), json()].prop_map(|text| Generated::whole(&text));
    prop_oneof![5 => valid, 1 => unusual]
}

fn envelope() -> impl Strategy<Value = Generated> {
    let valid = (vec(entry(), 1..4), space()).prop_flat_map(|(entries, space)| {
        let texts: Vec<_> = entries.iter().map(|entry| entry.text.as_str()).collect();
        let list = format!("[{}]", texts.join(&format!(",{space}")));
        let fragments: Vec<_> = entries.iter().flat_map(|entry| entry.fragments.clone()).collect();
        let members = with_others(vec![("\"entry\"", list)]);
        members.prop_map(move |members| Generated { text: object(&members, space), fragments: fragments.clone() })
    });
    let unusual = select(vec!["{}", r#"{"entry":[]}"#, r#"{"field":"messages","value":1}"#]);
    let unusual = prop_oneof![unusual.prop_map(str::to_owned), json()].prop_map(|text| Generated::whole(&text));
    prop_oneof![9 => valid, 1 => unusual]
}

fn body() -> impl Strategy<Value = Generated> {
    let list = vec(envelope(), 1..3).prop_map(|envelopes| {
        let texts: Vec<_> = envelopes.iter().map(|envelope| envelope.text.as_str()).collect();
        let fragments = envelopes.iter().flat_map(|envelope| envelope.fragments.clone()).collect();
        Generated { text: format!(" [{}]\n", texts.join(" ,")), fragments }
    });
    // The function would unwrap another array.
    let single = envelope().prop_filter("one object", |envelope| !envelope.text.starts_with('['));
    prop_oneof![4 => single, 1 => list]
}

impl Generated {
    fn whole(text: &str) -> Self {
        Self { text: text.to_owned(), fragments: vec![Expected { text: text.to_owned(), entry_members: None }] }
    }
}

/// Escapes the two characters that SQS rejects.
fn escaped(text: &str) -> String {
    text.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
}

fn check_limits(entries: &[Entry]) {
    let mut calls = BTreeMap::<_, Vec<&Entry>>::new();
    for entry in entries {
        calls.entry(entry.call).or_default().push(entry);
    }
    for call in calls.values() {
        let bytes: usize = call.iter().map(|entry| entry.bytes()).sum();
        assert!(call.len() <= 10 && bytes <= 1_048_576, "{} entries of {bytes} bytes", call.len());
        assert_eq!(call.iter().map(|entry| &entry.queue).collect::<BTreeSet<_>>().len(), 1);
    }
    let is_allowed = |character: char| matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}');
    for entry in entries {
        let texts = entry.attributes.values().chain([&entry.body]);
        assert!(texts.clone().all(|text| !text.is_empty() && text.chars().all(is_allowed)), "{entry:?}");
        assert!(entry.attributes.len() <= 9, "{entry:?}");
        let group = &entry.group;
        assert!((1..=128).contains(&group.len()) && group.bytes().all(|byte| byte.is_ascii_graphic()), "{group}");
        assert_eq!(entry.deduplication.is_some(), entry.queue.strip_suffix(".fifo").is_some());
    }
}

/// JSON without duplicate members. Parsing into a `Value` would hide duplicates.
struct WithoutDuplicates;

impl<'j> Deserialize<'j> for WithoutDuplicates {
    fn deserialize<D: Deserializer<'j>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(Self)
    }
}

impl<'j> Visitor<'j> for WithoutDuplicates {
    type Value = Self;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON with each member once")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'j>>(self, mut object: A) -> Result<Self, A::Error> {
        let mut names = BTreeSet::new();
        while let Some((name, Self)) = object.next_entry::<String, Self>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("a member is there twice"));
            }
        }
        Ok(self)
    }
}

/// Checks the messages against the schema, except those with duplicate members.
fn check_schema(entries: &[Entry]) {
    for entry in entries {
        let is_json = !entry.attributes.contains_key("encoding");
        if is_json
            && entry.body.starts_with(['{', '['])
            && serde_json::from_str::<WithoutDuplicates>(&entry.body).is_err()
        {
            continue;
        }
        let Ok(message) = crate::support::schema::consumer_view(&entry.body, &entry.attributes) else { continue };
        assert!(crate::support::schema::validator().is_valid(&message), "{message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fragment_is_stored_once_within_the_limits(generated in body()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let entries = runtime.block_on(async {
            let webhook = Webhook::new(&ROUTES[..2]).await;
            assert_eq!(webhook.deliver(&generated.text).await, 200);
            webhook.entries()
        });
        check_limits(&entries);
        check_schema(&entries);
        let mut stored: Vec<_> = entries
            .iter()
            .map(|entry| {
                if entry.body.starts_with('[') {
                    // The body is an array itself, which would be split again.
                    return entry.body.clone();
                }
                let [fragment] = &fragments(entry.body.as_bytes())[..] else { panic!("{}", entry.body) };
                String::from_utf8(fragment.inner().to_vec()).unwrap()
            })
            .collect();
        let mut expected: Vec<_> = generated.fragments.iter().map(|fragment| escaped(&fragment.text)).collect();
        stored.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(stored, expected);
    }

    #[test]
    fn event_id_does_not_depend_on_the_batch(generated in body()) {
        let found: Vec<_> = split(generated.text.as_bytes()).iter().map(event_id).collect();
        prop_assert_eq!(found.len(), generated.fragments.len());
        for (found, expected) in found.iter().zip(&generated.fragments) {
            let Some([id, time]) = &expected.entry_members else { continue };
            let id = id.as_ref().map(|id| format!(r#""id":{id},"#)).unwrap_or_default();
            let time = time.as_ref().map(|time| format!(r#","time":{time}"#)).unwrap_or_default();
            let alone = format!(r#"{{"entry":[{{{id}"changes":[{}]{time}}}]}}"#, expected.text);
            let alone: Vec<_> = split(alone.as_bytes()).iter().map(event_id).collect();
            prop_assert_eq!(&alone[..], std::slice::from_ref(found));
        }
    }

    #[test]
    fn truncated_notification_is_not_json(generated in body(), index in any::<prop::sample::Index>()) {
        let text = generated.text.trim_end();
        let index = index.index(text.len());
        let cut = text.as_bytes()[..index].to_vec();
        let fragments = split(&cut);
        // A number is the only JSON text whose prefix can be JSON, too.
        prop_assume!(!text.starts_with(|first: char| first == '-' || first.is_ascii_digit()));
        let is_whole = matches!(fragments[..], [whatsapp_webhook::notification::Fragment::NotJson(stored_entry)] if stored_entry == cut);
        prop_assert!(is_whole || cut.is_empty());
    }

    #[test]
    fn arbitrary_bytes_are_stored(bytes in vec(any::<u8>(), 1..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let entries = runtime.block_on(async {
            let webhook = Webhook::new(&ROUTES[..2]).await;
            assert_eq!(webhook.deliver(&bytes).await, 200);
            webhook.entries()
        });
        check_limits(&entries);
        check_schema(&entries);
        let [entry] = &entries[..] else { panic!("{entries:?}") };
        let encoded = entry.attributes.contains_key("encoding");
        prop_assert_eq!(&entry.body, &if encoded { base64(&bytes) } else { String::from_utf8(bytes).unwrap() });
    }
}
