//! `ingress peek`, `drop` and `export` with a scripted SQS.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, process::Stdio};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::{
    aws::write_aws,
    queues::{command, folder_of, ingress, stderr, stdout},
    sqs::{Fault, Sqs, Stored, now},
};

const ROUTES: [(&str, &str); 2] = [("*", "unrouted"), ("calls", "calls")];
const PRIVATE: &str = "what a customer wrote";

/// Puts messages with these fields and reasons on the catch-all queue, 2026-11-25.
async fn sqs(messages: &[(&str, &str, usize)]) -> Sqs {
    let sqs = Sqs::start(&["unrouted", "calls", "calls-dead"]).await;
    for (field, reason, count) in messages {
        for _ in 0..*count {
            let text = |value: &str| json!({ "DataType": "String", "StringValue": value });
            let mut attributes = json!({ "unrouted_reason": text(reason) });
            if !field.is_empty() {
                attributes["field"] = text(field);
            }
            let sent = 1_795_608_000_000;
            sqs.put("unrouted", Stored { attributes, sent, body: PRIVATE.to_owned(), ..Stored::default() });
        }
    }
    sqs
}

fn reasons(sqs: &Sqs) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in sqs.on("unrouted") {
        assert!(message.hidden_until <= now(), "kept messages are visible at the end");
        *counts.entry(crate::sqs::text(&message.attributes, "unrouted_reason")).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn peek_counts_by_attributes_and_prints_no_body() {
    let sqs = sqs(&[("flows", "no-route", 12), ("flows", "queue-unavailable", 1), ("", "not-json", 3)]).await;
    let folder = folder_of(&sqs.info(&ROUTES));

    let output = ingress(&folder, &["peek"], &[]).await;

    let table = stdout(&output);
    let rows: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for row in [
        "- - not-json 2026-11-25 3 up to 1",
        "flows - no-route 2026-11-25 12 up to 1",
        "flows - queue-unavailable 2026-11-25 1 up to 1",
        "a-stack-unrouted: 16 received and visible again",
    ] {
        assert!(rows.iter().any(|other| other == row), "{row}\n{table}");
    }
    assert!(!table.contains(PRIVATE) && !stderr(&output).contains(PRIVATE));
    assert!(stderr(&output).contains("SQS counts this look as a receive"), "{output:?}");
    assert!(sqs.on("unrouted").iter().all(|one| one.receives == 1 && one.hidden_until <= now()));
    let dead_letters = stderr(&ingress(&folder, &["peek", "--queue", "calls"], &[]).await);
    assert!(dead_letters.contains("after 5 receives, SQS moves a message to the dead-letter queue"), "{dead_letters}");
}

#[tokio::test]
async fn drop_deletes_only_what_matches() {
    let sqs = sqs(&[("flows", "no-route", 14), ("flows", "queue-unavailable", 2), ("calls", "no-route", 13)]).await;
    let folder = folder_of(&sqs.info(&ROUTES));
    let arguments = ["drop", "--field", "flows", "--reason", "no-route"];

    let dry = ingress(&folder, &arguments, &[]).await;
    assert!(stdout(&dry).contains("a-stack-unrouted: 29 visible") && dry.status.success(), "{dry:?}");
    assert!(sqs.on("unrouted").iter().all(|one| one.receives == 0), "a dry run receives nothing");

    let applied = ingress(&folder, &[&arguments[..], &["--apply"]].concat(), &[]).await;
    assert!(stdout(&applied).contains("14 deleted, 15 kept") && applied.status.success(), "{applied:?}");
    assert_eq!(reasons(&sqs), [("no-route".to_owned(), 13), ("queue-unavailable".to_owned(), 2)].into());
    let unselective = ingress(&folder, &["drop", "--apply"], &[]).await;
    assert_eq!(unselective.status.code(), Some(2), "field or reason is required");
}

#[tokio::test]
async fn interrupted_drop_resumes() {
    let sqs = sqs(&[("flows", "no-route", 35)]).await;
    let folder = folder_of(&sqs.info(&ROUTES));
    let arguments = ["drop", "--field", "flows", "--apply"];
    sqs.script(|number, call, _| (number > 5 && call == "ReceiveMessage").then_some(Fault::Error(403, "AccessDenied")));

    let failed = ingress(&folder, &arguments, &[]).await;
    let left = sqs.on("unrouted").len();
    assert!((1..35).contains(&left), "{left}");
    assert_eq!(failed.status.code(), Some(1));
    assert!(stdout(&failed).contains("stopped"), "{failed:?}");
    sqs.clear_script();

    let resumed = ingress(&folder, &arguments, &[]).await;
    assert!(stdout(&resumed).contains(&format!("{left} deleted, 0 kept")), "{resumed:?}");
    assert!(sqs.on("unrouted").is_empty());
}

#[tokio::test]
async fn export_writes_each_message_once() {
    let sqs = sqs(&[("flows", "no-route", 12), ("calls", "no-route", 3)]).await;
    let folder = folder_of(&sqs.info(&ROUTES));
    let arguments = ["export", "--to", "copies", "--field", "flows", "--apply"];

    let dry = ingress(&folder, &["export", "--to", "copies"], &[]).await;
    assert!(dry.status.success() && !folder.path().join("copies").exists(), "{dry:?}");
    let first = ingress(&folder, &[&arguments[..], &["--max-messages", "8"]].concat(), &[]).await;
    assert!(stdout(&first).contains("8 copied"), "{first:?}");
    let second = ingress(&folder, &arguments, &[]).await;
    assert!(stdout(&second).contains("4 copied, 8 copied before, 3 not selected"), "{second:?}");

    let copies = folder.path().join("copies/a-stack-unrouted");
    let files: Vec<_> = fs::read_dir(&copies).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 12);
    for file in &files {
        let message: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        assert_eq!(
            (&message["Body"], &message["MessageAttributes"]["field"]["StringValue"]),
            (&json!(PRIVATE), &json!("flows"))
        );
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(reasons(&sqs), [("no-route".to_owned(), 15)].into(), "a copy deletes nothing");

    let moved = ingress(&folder, &[&arguments[..], &["--delete"]].concat(), &[]).await;
    assert!(stdout(&moved).contains("0 copied, 12 copied before, 3 not selected, 12 deleted"), "{moved:?}");
    assert_eq!(sqs.on("unrouted").len(), 3);
}

#[tokio::test]
async fn message_is_not_deleted_if_its_copy_fails() {
    let sqs = sqs(&[("flows", "no-route", 5)]).await;
    let folder = folder_of(&sqs.info(&ROUTES));
    fs::write(folder.path().join("copies"), "a file where the folder should be").unwrap();
    write_aws(folder.path(), "echo 'upload failed: AccessDenied' >&2; exit 1");

    for to in ["copies", "s3://a-bucket/prefix"] {
        let output = ingress(&folder, &["export", "--to", to, "--delete", "--apply"], &[]).await;

        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).contains("stopped"), "{output:?}");
        assert_eq!(reasons(&sqs), [("no-route".to_owned(), 5)].into());
    }
}

#[tokio::test]
async fn second_interrupt_ends_the_release() {
    let sqs = sqs(&[("flows", "no-route", 3)]).await;
    let folder = folder_of(&sqs.info(&ROUTES));
    sqs.script(|_, call, _| (call == "ChangeMessageVisibilityBatch").then_some(Fault::KilledBefore));
    for arguments in [
        &["peek"][..],
        &["drop", "--field", "calls", "--apply"],
        &["export", "--to", "copies", "--apply"],
        &["reroute", "--field", "calls", "--apply"],
    ] {
        let mut process = command(&folder, arguments, &[]);
        let mut child = process.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        sqs.kills.notified().await;
        for expected in ["ingress: interrupted: cleaning up", "ingress: interrupted"] {
            let id = child.id().unwrap().to_string();
            assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
            loop {
                let line = lines.next_line().await.unwrap().unwrap_or_else(|| panic!("{arguments:?}: no {expected}"));
                if line.starts_with(expected) {
                    break;
                }
            }
        }
        assert_eq!(child.wait().await.unwrap().code(), Some(1));
        sqs.show_all();
    }
}

/// As after a command that was killed.
#[tokio::test]
async fn command_fails_if_messages_stay_in_flight() {
    let sqs = sqs(&[("calls", "no-route", 2)]).await;
    let attributes = sqs.on("unrouted")[0].attributes.clone();
    for queue in ["calls", "calls-dead"] {
        sqs.put(queue, Stored { attributes: attributes.clone(), ..Stored::default() });
    }
    sqs.account().queues.values_mut().flatten().for_each(|one| one.hidden_until = now() + 600_000);
    // A run has it in flight itself, because it does not select it.
    let attributes = json!({ "field": { "DataType": "String", "StringValue": "flows" } });
    sqs.put("calls-dead", Stored { attributes, ..Stored::default() });
    let folder = folder_of(&sqs.info(&ROUTES));
    let commands: [&[&str]; 6] = [
        &["peek"],
        &["drop", "--reason", "no-route", "--apply"],
        &["drop", "--reason", "no-route", "--apply", "--json"],
        &["export", "--to", "copies", "--apply"],
        &["reroute", "--field", "calls", "--apply"],
        &["redrive", "--field", "calls", "--apply"],
    ];

    let outputs = join_all(commands.map(|arguments| ingress(&folder, arguments, &[]))).await;

    for (arguments, output) in commands.into_iter().zip(outputs) {
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let text = stdout(&output);
        if arguments.contains(&"--json") {
            let json: Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&json["done"], &json["scan"]["in_flight"]), (&json!(false), &json!(2)), "{json}");
        } else {
            let count = if arguments[0] == "redrive" { 1 } else { 2 };
            assert!(text.contains(&format!("{count} in flight, not seen by this run")), "{arguments:?}: {output:?}");
        }
    }
    let consumed = ingress(&folder, &["peek", "--queue", "calls"], &[]).await;
    assert!(consumed.status.success() && stdout(&consumed).contains("1 in flight: the consumers"), "{consumed:?}");
}

#[tokio::test]
async fn lost_response_to_a_receive_is_reported() {
    let sqs = sqs(&[]).await;
    for _ in 0..12 {
        sqs.put("calls", Stored { attributes: json!({}), ..Stored::default() });
    }
    let mut receives = 0;
    sqs.script(move |_, call, _| {
        receives += usize::from(call == "ReceiveMessage");
        (call == "ReceiveMessage" && receives == 1).then_some(Fault::KilledAfter)
    });
    let folder = folder_of(&sqs.info(&ROUTES));

    let output = ingress(&folder, &["peek", "--queue", "calls"], &[]).await;

    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = stdout(&output);
    assert!(text.contains("2 received") && text.contains("1 responses to receives were lost"), "{output:?}");
}

#[tokio::test]
async fn failed_release_is_reported() {
    let sqs = sqs(&[("flows", "no-route", 25)]).await;
    let folder = folder_of(&sqs.info(&ROUTES));
    for arguments in [&["peek"][..], &["export", "--to", "copies", "--apply"], &["drop", "--field", "calls", "--apply"]]
    {
        let mut releases = 0;
        sqs.script(move |_, call, _| {
            releases += usize::from(call == "ChangeMessageVisibilityBatch");
            (call == "ChangeMessageVisibilityBatch" && releases == 1).then_some(Fault::Error(403, "AccessDenied"))
        });

        let output = ingress(&folder, arguments, &[]).await;

        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let reason = "cannot release 10 of 25 messages of a-stack-unrouted: AccessDenied: scripted";
        assert!(stdout(&output).contains(reason) && !stdout(&output).contains("visible again"), "{output:?}");
        let hidden = sqs.on("unrouted").iter().filter(|one| one.hidden_until > now()).count();
        assert_eq!(hidden, 10, "the other batches are released");
        sqs.show_all();
    }
}

#[tokio::test]
async fn rejected_release_of_one_message_is_no_error() {
    let sqs = sqs(&[("flows", "no-route", 3)]).await;
    let folder = folder_of(&sqs.info(&ROUTES));
    for (code, sender_fault, succeeds) in
        [("InvalidParameterValue", true, true), ("MessageNotInflight", true, true), ("InternalError", false, false)]
    {
        sqs.script(move |_, call, _| {
            (call == "ChangeMessageVisibilityBatch").then_some(Fault::Rejected(vec![1], code, sender_fault))
        });

        let output = ingress(&folder, &["peek"], &[]).await;

        assert_eq!(output.status.success(), succeeds, "{code}: {output:?}");
        assert_eq!(stdout(&output).contains("cannot release 1 of 3 messages"), !succeeds, "{output:?}");
        sqs.show_all();
    }
}

/// Starts two queues whose first group has one message too many for a receive, and whose second group has one.
async fn fifo_queues() -> Sqs {
    let sqs = Sqs::start(&["unrouted", "calls.fifo", "calls-dead.fifo"]).await;
    for (group, field) in [("one", "flows"); 10].into_iter().chain([("one", "calls"), ("two", "calls")]) {
        let attributes = json!({ "field": { "DataType": "String", "StringValue": field } });
        for queue in ["calls.fifo", "calls-dead.fifo"] {
            let group = Some(group.to_owned());
            sqs.put(queue, Stored { attributes: attributes.clone(), group, ..Stored::default() });
        }
    }
    sqs
}

#[tokio::test]
async fn messages_behind_kept_ones_are_reported() {
    const BEHIND: &str = "about 1 not received: they follow messages of their group that remain";
    let sqs = fifo_queues().await;
    let folder = folder_of(&sqs.info(&[("*", "unrouted"), ("calls", "calls.fifo")]));

    let peek = ingress(&folder, &["peek", "--queue", "calls"], &[]).await;
    assert!(peek.status.success() && stdout(&peek).contains(BEHIND), "{peek:?}");
    for arguments in [
        &["export", "--queue", "calls", "--to", "copies", "--field", "calls", "--apply"][..],
        &["drop", "--queue", "calls", "--field", "calls", "--apply"],
        &["redrive", "--field", "calls", "--apply"],
    ] {
        let output = ingress(&folder, arguments, &[]).await;
        assert!(stdout(&output).contains(BEHIND), "{output:?}");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    assert_eq!((sqs.on("calls-dead.fifo").len(), sqs.on("calls.fifo").len()), (11, 12));
    let all = ingress(&folder, &["export", "--queue", "calls", "--to", "all", "--delete", "--apply"], &[]).await;
    assert!(all.status.success() && stdout(&all).contains("12 copied, 12 deleted"), "{all:?}");
}

#[tokio::test]
async fn peek_names_all_effects_of_a_receive() {
    const DEAD_LETTER: &str = "after 5 receives, SQS moves a message to the dead-letter queue";
    const AGE: &str = "after three, ApproximateAgeOfOldestMessage and the alarm consumer-lag ignore a message";
    const GROUPS: &str = "the command blocks the groups of the messages until its end";
    let standard = sqs(&[]).await;
    let folder = folder_of(&standard.info(&ROUTES));
    let fifo = fifo_queues().await;
    let folder_of_fifo = folder_of(&fifo.info(&[("*", "unrouted"), ("calls", "calls.fifo")]));
    for (folder, queue, expected) in [
        (&folder, "*", &[AGE][..]),
        (&folder, "calls", &[DEAD_LETTER, AGE]),
        (&folder_of_fifo, "calls", &[DEAD_LETTER, GROUPS]),
        (&folder_of_fifo, "a-stack-calls-dead.fifo", &[GROUPS]),
    ] {
        let text = stderr(&ingress(folder, &["peek", "--queue", queue], &[]).await);

        let found: Vec<_> = [DEAD_LETTER, AGE, GROUPS].into_iter().filter(|effect| text.contains(effect)).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[tokio::test]
async fn route_with_several_queues_requires_a_name() {
    let sqs = sqs(&[]).await;
    let folder = folder_of(&sqs.info(&[("*", "unrouted"), ("calls", "calls"), ("calls", "archive")]));

    let several = ingress(&folder, &["peek", "--queue", "calls"], &[]).await;

    assert_eq!(several.status.code(), Some(1));
    let error = stderr(&several);
    assert!(error.contains("calls has several queues: name one of a-stack-calls, a-stack-archive"), "{error}");
    assert!(ingress(&folder, &["peek", "--queue", "a-stack-calls"], &[]).await.status.success());
}
