//! The fragments of bodies.

use super::*;

fn texts(body: &str) -> Vec<String> {
    split(body.as_bytes())
        .iter()
        .map(|fragment| match fragment {
            Fragment::Change(change) => format!("change {}", change.json.parts().concat()),
            Fragment::Other(json) => format!("other {}", json.parts().concat()),
            Fragment::NotJson(body) => format!("not json {}", String::from_utf8_lossy(body)),
        })
        .collect()
}

fn only_change(body: &str) -> Change<'_> {
    let mut fragments = split(body.as_bytes());
    match (fragments.pop(), fragments.len()) {
        (Some(Fragment::Change(change)), 0) => change,
        other => panic!("{other:?}"),
    }
}

/// The change with this text, in a notification without any other member.
fn change(change: &str) -> Change<'static> {
    only_change(Box::leak(format!(r#"{{"entry":[{{"changes":[{change}]}}]}}"#).into_boxed_str()))
}

#[test]
fn every_change_becomes_its_own_notification() {
    assert_eq!(
        texts(
            r#"{"object":"o","entry":[{"id":"1","time":2,"changes":[{"field":"a"},{"field":"b"}]},{"changes":[{"field":"c"}],"id":3}],"x":[]}"#
        ),
        [
            r#"change {"object":"o","entry":[{"id":"1","time":2,"changes":[{"field":"a"}]}],"x":[]}"#,
            r#"change {"object":"o","entry":[{"id":"1","time":2,"changes":[{"field":"b"}]}],"x":[]}"#,
            r#"change {"object":"o","entry":[{"changes":[{"field":"c"}],"id":3}],"x":[]}"#,
        ]
    );
}

#[test]
fn text_of_a_fragment_is_not_rewritten() {
    let body = "{ \"b\\u00e4d\\/\" :1e999, \"entry\" :\n[ { \"\\ud800\" : 12345678901234567890123, \"changes\"\t: [ {\"value\" : \"\\ud800\" , \"field\":\"x\"} ] } ] , \"a\" : 1.0 }\n";
    assert_eq!(texts(body), [format!("change {body}")]);
}

#[test]
fn escaped_keys_are_decoded_for_comparison() {
    let body = r#"{"\u0065ntry":[{"ch\u0061nges":[{"fi\u0065ld":"\u0061"}]}]}"#;
    assert_eq!(only_change(body).field.as_deref(), Some("a"));
}

#[test]
fn json_without_a_change_stays_in_smallest_fragments() {
    for (body, expected) in [
        ("{}", vec!["other {}"]),
        ("[]", vec!["other []"]),
        ("5", vec!["other 5"]),
        (r#"{"field":"messages","value":{}}"#, vec![r#"other {"field":"messages","value":{}}"#]),
        (r#"{"entry":{"changes":[{}]}}"#, vec![r#"other {"entry":{"changes":[{}]}}"#]),
        (r#"{"entry":[]}"#, vec![r#"other {"entry":[]}"#]),
        (r#"{"entry":[{"changes":[{}]}],"entry":[]}"#, vec![r#"other {"entry":[{"changes":[{}]}],"entry":[]}"#]),
        (
            r#"{"o":1,"entry":[5,{"changes":[]},{"messaging":[1]},{"changes":[{"field":"a"}]},{"id":1,"id":2,"changes":[{}]},{"changes":{}},{"changes":[{}],"changes":[{}]}],"p":2}"#,
            vec![
                r#"other {"o":1,"entry":[5],"p":2}"#,
                r#"other {"o":1,"entry":[{"changes":[]}],"p":2}"#,
                r#"other {"o":1,"entry":[{"messaging":[1]}],"p":2}"#,
                r#"change {"o":1,"entry":[{"changes":[{"field":"a"}]}],"p":2}"#,
                r#"other {"o":1,"entry":[{"id":1,"id":2,"changes":[{}]}],"p":2}"#,
                r#"other {"o":1,"entry":[{"changes":{}}],"p":2}"#,
                r#"other {"o":1,"entry":[{"changes":[{}],"changes":[{}]}],"p":2}"#,
            ],
        ),
        (
            r#"[{"entry":[{"changes":[{}]}]}, 5, {"x":1}, [{"entry":[{"changes":[{}]}]}]]"#,
            vec![
                r#"change {"entry":[{"changes":[{}]}]}"#,
                "other 5",
                r#"other {"x":1}"#,
                r#"other [{"entry":[{"changes":[{}]}]}]"#,
            ],
        ),
    ] {
        assert_eq!(texts(body), expected, "{body}");
    }
}

#[test]
fn array_in_place_of_an_object_is_not_read() {
    let entry = r#"{"entry":[["1",null,[{"field":"a","value":{}}]]]}"#;
    assert_eq!(texts(entry), [format!("other {entry}")]);
    let envelope = r#"[[{"changes":[{"field":"a","value":{}}]}]]"#;
    assert_eq!(texts(envelope), [r#"other [{"changes":[{"field":"a","value":{}}]}]"#]);
    assert_eq!(change(r#"["messages",{"messages":[1]}]"#).field, None);
    let value = change(r#"{"field":"messages","value":[{"phone_number_id":"1"},[1],[1],[1]]}"#);
    assert_eq!((value.field.as_deref(), value.kind, value.phone_number_id), (Some("messages"), None, None));
}

#[test]
fn body_with_trailing_characters_is_not_json() {
    for trailing in ["x", "{}", ",", "]"] {
        let body = format!(r#"{{"entry":[{{"changes":[{{"field":"a","value":{{}}}}]}}]}} {trailing}"#);
        assert_eq!(texts(&body), [format!("not json {body}")]);
    }
}

#[test]
fn duplicate_field_affects_one_change_only() {
    assert_eq!(
        texts(
            r#"{"entry":[{"changes":[{"field":"a","field":"b"},{"field":"a","value":1,"value":2},5,{"field":"c"}]}]}"#
        ),
        [
            r#"other {"entry":[{"changes":[{"field":"a","field":"b"}]}]}"#,
            r#"other {"entry":[{"changes":[{"field":"a","value":1,"value":2}]}]}"#,
            r#"change {"entry":[{"changes":[5]}]}"#,
            r#"change {"entry":[{"changes":[{"field":"c"}]}]}"#,
        ]
    );
}

#[test]
fn body_that_is_not_json_is_unchanged() {
    for body in [
        &b" "[..],
        b"x",
        b"{\"entry\":[{\"changes\":[{}]}]",
        b"{\"entry\":[{\"changes\":[{}]}]}x",
        b"{\"entry\":[{\"changes\":[{}]}]}{}",
        b"{\"a\":\"\x01\"}",
        b"{\"a\":\"\xff\"}",
        b"\xef\xbb\xbf{}",
        b"{\"a\":01}",
    ] {
        let fragments = split(body);
        assert!(matches!(fragments[..], [Fragment::NotJson(kept)] if kept == body), "{fragments:?}");
    }
    assert!(split(b"").is_empty());
}

#[test]
fn deeply_nested_body_is_split() {
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    let body = format!(r#"{{"entry":[{{"changes":[{{"field":"f","value":{deep}}}]}}]}}"#);
    assert_eq!(texts(&body), [format!("change {body}")]);
    assert_eq!(texts(&deep[..500_001]), [format!("not json {}", &deep[..500_001])]);
}

#[test]
fn body_over_split_limits_stays_whole() {
    let count = |entries: &str| split(format!(r#"{{"entry":[{entries}]}}"#).as_bytes()).len();
    assert_eq!(count(&vec!["0"; MAX_FRAGMENTS].join(",")), MAX_FRAGMENTS);
    assert_eq!(count(&vec!["0"; MAX_FRAGMENTS + 1].join(",")), 1);
    let heavy = |changes: usize| {
        let changes = vec!["0"; changes].join(",");
        count(&format!(r#"{{"x":"{}","changes":[{changes}]}}"#, "x".repeat(1 << 20)))
    };
    assert_eq!((heavy(63), heavy(65)), (63, 1));
}

#[test]
fn too_many_elements_in_any_array_stay_whole() {
    let zeros = |count: usize| vec!["0"; count].join(",");
    let entry = format!(r#"{{"changes":[{}]}}"#, zeros(MAX_FRAGMENTS / 2));
    for (body, fragments) in [
        (format!("[{}]", zeros(MAX_FRAGMENTS)), MAX_FRAGMENTS),
        (format!("[{}]", zeros(MAX_FRAGMENTS + 1)), 1),
        (format!(r#"{{"entry":[{{"changes":[{}]}}]}}"#, zeros(MAX_FRAGMENTS + 1)), 1),
        (format!(r#"{{"entry":[{{"changes":[{}]}},0]}}"#, zeros(MAX_FRAGMENTS)), 1),
        (format!(r#"{{"entry":[{entry},{entry}]}}"#), MAX_FRAGMENTS),
        (format!(r#"{{"entry":[{entry},{entry},{entry}]}}"#), 1),
        (format!(r#"[{{"entry":[{entry}]}},{{"entry":[{entry}]}},{{"entry":[0]}}]"#), 1),
        (format!(r#"{{"entry":[{}]}}"#, zeros(2_000_000)), 1),
    ] {
        let found = split(body.as_bytes());
        assert_eq!(found.len(), fragments);
        assert!(fragments > 1 || matches!(found[0], Fragment::Other(json) if json.element() == body));
    }
}

#[test]
fn body_of_maximum_size_is_split() {
    let frame = r#"{"entry":[{"x":"","changes":[0]}]}"#.len();
    let changes = vec!["0"; 64].join(",");
    let count = |bytes: usize| {
        let filler = "x".repeat(bytes - frame);
        split(format!(r#"{{"entry":[{{"x":"{filler}","changes":[{changes}]}}]}}"#).as_bytes()).len()
    };
    assert_eq!((count(MAX_SPLIT_BYTES / 64), count(MAX_SPLIT_BYTES / 64 + 1)), (64, 1));
}

#[test]
fn only_fragment_without_text_is_empty() {
    assert!(!change("{}").json.is_empty());
    assert!(EnvelopedJson::without_envelope("").is_empty());
}

#[test]
fn field_is_a_nonempty_string() {
    for (text, field) in [
        (r#"{"field":"messages"}"#, Some("messages")),
        (r#"{"field":"m\u00e4\/"}"#, Some("mä/")),
        (r#"{"field":""}"#, None),
        (r#"{"field":null}"#, None),
        (r#"{"field":5}"#, None),
        (r#"{"field":"\ud800"}"#, None),
        (r#"{"Field":"messages"}"#, None),
        ("{}", None),
        ("5", None),
    ] {
        assert_eq!(change(text).field.as_deref(), field, "{text}");
    }
}

#[test]
fn kind_is_the_first_nonempty_array() {
    for (value, kind) in [
        (r#"{"messages":[{}]}"#, Some(Kind::Messages)),
        (r#"{"statuses":[1],"messages":[ ]}"#, Some(Kind::Statuses)),
        (r#"{"errors":[0],"statuses":[0],"messages":[0]}"#, Some(Kind::Messages)),
        (r#"{"errors":[ 0]}"#, Some(Kind::Errors)),
        (r#"{"messages":{"0":1}}"#, None),
        (r#"{"messages":[1],"messages":[2]}"#, None),
        (r#"{"messages":[]}"#, None),
        ("{}", None),
        ("null", None),
        (r#"["messages"]"#, None),
    ] {
        assert_eq!(change(&format!(r#"{{"value":{value}}}"#)).kind, kind, "{value}");
    }
}

#[test]
fn ids_are_read_as_strings_or_numbers() {
    let body = r#"{"entry":[{"time":1.50,"id":"1","changes":[{"value":{"metadata":{"phone_number_id":"7"}}}]}]}"#;
    let read = only_change(body);
    assert_eq!((read.entry_id_json, read.entry_time_json), (Some(r#""1""#), Some("1.50")));
    for (metadata, id) in [
        (r#"{"phone_number_id":"106540352242922"}"#, Some("106540352242922")),
        (r#"{"phone_number_id":106540352242922000001}"#, Some("106540352242922000001")),
        (r#"{"phone_number_id":""}"#, None),
        (r#"{"phone_number_id":null}"#, None),
        (r#"{"phone_number_id":["1"]}"#, None),
        (r#"{"phone_number_id":"1","phone_number_id":"2"}"#, None),
        ("7", None),
    ] {
        let read = change(&format!(r#"{{"value":{{"metadata":{metadata}}}}}"#));
        assert_eq!(read.phone_number_id.as_deref(), id, "{metadata}");
    }
}

#[test]
fn conversation_is_read_from_first_item() {
    for (value, conversation) in [
        (r#"{"contacts":[{"wa_id":"1"}],"messages":[{"from":"3"}]}"#, Some("3")),
        (r#"{"contacts":[{"wa_id":"1"}],"statuses":[{}]}"#, Some("1")),
        (r#"{"messages":[{"from":"3","from_user_id":"US.5"},{"from":"9"}]}"#, Some("US.5")),
        (r#"{"contacts":[{"user_id":"US.6","wa_id":"3"}],"messages":[{"from":"3"}]}"#, Some("US.6")),
        (r#"{"statuses":[{"recipient_id":"4"}]}"#, Some("4")),
        (r#"{"statuses":[{"recipient_user_id":"US.7","recipient_id":"4"}]}"#, Some("US.7")),
        (r#"{"contacts":[{"user_id":"US.6"}],"messages":[{}]}"#, Some("US.6")),
        (r#"{"messages":[{"group_id":"g","from":"3","from_user_id":"US.5"}]}"#, Some("g")),
        (r#"{"contacts":[{"user_id":"US.6"}],"statuses":[{"recipient_type":"group","recipient_id":"g"}]}"#, Some("g")),
        (r#"{"statuses":[{"recipient_type":"individual","recipient_id":"4"}]}"#, Some("4")),
        (r#"{"groups":[{"group_id":"g","wa_id":"3"}]}"#, Some("g")),
        (r#"{"standby":{"contacts":[{"wa_id":"1"}],"messages":[{"from_user_id":"US.5"}]}}"#, Some("US.5")),
        (r#"{"standby":{"contacts":[{"wa_id":"1"}],"statuses":[{}]}}"#, Some("1")),
        (r#"{"standby":[{"messages":[{"from":"3"}]}]}"#, None),
        (
            r#"{"messages":[{"from_user_id":"US.5","system":{"user_id":"US.8","previous_user_id":"US.5"}}]}"#,
            Some("US.8"),
        ),
        (r#"{"messages":[{"from":"3","system":{"wa_id":"4"}}]}"#, Some("4")),
        (r#"{"user_preferences":[{"wa_id":"3"}]}"#, Some("3")),
        (r#"{"contacts":[],"messages":[]}"#, None),
        (r#"{"contacts":5,"messages":{"from":"3"}}"#, None),
        (r#"{"contacts":{"wa_id":"1"},"messages":[{"from":"3"}]}"#, Some("3")),
        (r#"{"contacts":[["wa_id","1"]],"messages":[{"from":"3"}]}"#, Some("3")),
        ("[]", None),
    ] {
        assert_eq!(change(&format!(r#"{{"value":{value}}}"#)).conversation().as_deref(), conversation, "{value}");
    }
}

#[test]
fn business_is_not_the_other_party_of_a_conversation() {
    for items in [
        r#""message_echoes":[{"from":"15550100100","to":"15550100101"}]"#,
        r#""calls":[{"from":"15550100101","to":"+15550100100"}]"#,
        r#""calls":[{"from":"15550100100","to":"15550100101"}]"#,
    ] {
        let json = format!(r#"{{"value":{{"metadata":{{"display_phone_number":"+1 555-010-0100"}},{items}}}}}"#);
        assert_eq!(change(&json).conversation().as_deref(), Some("15550100101"), "{items}");
    }
}

#[test]
fn time_is_that_of_entry_or_first_item() {
    let with = |entry: &str, value: &str| {
        let body = format!(r#"{{"entry":[{{{entry}"changes":[{{"value":{value}}}]}}]}}"#);
        only_change(&body).time()
    };
    for (value, time) in [
        (r#"{"messages":[{"id":"a","timestamp":"7","text":{"timestamp":"8"}},{"timestamp":"9"}]}"#, Some(7)),
        (r#"{"statuses":[{"pricing":{"timestamp":"8"},"timestamp":7}]}"#, Some(7)),
        (r#"{"messages":[],"message_echoes": [ {"timestamp" : "7"} ]}"#, Some(7)),
        (r#"{"messages":[{"id":"a"},{"timestamp":"9"}]}"#, None),
        (r#"{"messages":[{"timestamp":"7","timestamp":"8"}]}"#, Some(7)),
        (r#"{"messages":[{"timestamp":"soon"}]}"#, None),
        (r#"{"messages":["timestamp",7]}"#, None),
        (r#"{"calls":[{"timestamp":"7"}]}"#, Some(7)),
        (r#"{"standby":{"messages":[{"timestamp":"7"}]}}"#, Some(7)),
        (r#"{"errors":[{"timestamp":"7"}]}"#, None),
        (r#"{"timestamp":"7"}"#, None),
        ("5", None),
    ] {
        assert_eq!(with("", value), time, "{value}");
        assert_eq!(with(r#""time":3,"#, value), Some(3), "{value}");
        assert_eq!(with(r#""time":"never","#, value), time, "{value}");
    }
}
