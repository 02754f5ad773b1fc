//! `ingress queues` and the choice of its stack, with a scripted SQS and a scripted AWS CLI.

use std::{fs, process::Output};

use ingress_tools::{aws::stack_info::StackInfo, queues::queue::QueueState};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    aws::{DescribedStack, backlogs, path_with, write_aws},
    sqs::{Fault, STACK, Sqs},
};

const QUEUES: [&str; 5] = ["unrouted", "calls", "calls-dead", "flows", "flows-dead"];
const ROUTES: [(&str, &str); 3] = [("*", "unrouted"), ("calls", "calls"), ("flows", "flows")];

/// Writes the description of the running local stack into a new folder.
pub(crate) fn folder_of(info: &StackInfo) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".local")).unwrap();
    let info = StackInfo { log: Some("a.log".into()), ..info.clone() };
    fs::write(folder.path().join(".local/running.json"), serde_json::to_vec(&info).unwrap()).unwrap();
    folder
}

/// Runs a command of [`command`].
pub(crate) async fn ingress(folder: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(folder, arguments, environment).output().await.unwrap()
}

/// Returns a command in a folder, without variables of AWS except those of `environment`.
pub(crate) fn command(folder: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingress"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.current_dir(folder.path()).env_remove("STACK").env("PATH", path_with(folder.path()));
    command.args(arguments).envs(environment.iter().copied());
    command
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn row(table: &str, queue: &str) -> String {
    let queue = format!("{STACK}-{queue} ");
    let line = table.lines().find(|line| line.starts_with(&queue)).unwrap_or_else(|| panic!("{table}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn missing_queue_is_a_row_of_the_table() {
    let sqs = Sqs::start(&QUEUES).await;
    let folder = folder_of(&sqs.info(&ROUTES));
    let all = ingress(&folder, &["queues"], &[]).await;
    assert!(all.status.success(), "{all:?}");
    assert_eq!(row(&stdout(&all), "calls"), "a-stack-calls usable 0 0 0 - 0 - calls");

    sqs.account().queues.remove("a-stack-calls");
    sqs.account().queues.remove("a-stack-flows-dead");
    let output = ingress(&folder, &["queues"], &[]).await;

    assert_eq!(output.status.code(), Some(1));
    let table = stdout(&output);
    assert_eq!(row(&table, "calls"), "a-stack-calls gone - - - - 0 - calls");
    assert_eq!(row(&table, "flows"), "a-stack-flows usable 0 0 0 - gone - flows");
    assert_eq!(row(&table, "unrouted"), "a-stack-unrouted usable 0 0 0 - - - *");
    assert!(table.contains("`ingress restore-queue 'calls'`"), "{table}");
    assert!(!table.contains("other queues"), "the dead-letter queue of a missing queue is known: {table}");
}

#[tokio::test]
async fn denied_queue_has_a_state() {
    let sqs = Sqs::start(&QUEUES).await;
    sqs.script(|number, call, _| {
        (number == 1 && call == "GetQueueAttributes").then_some(Fault::Error(403, "AccessDenied"))
    });
    let folder = folder_of(&sqs.info(&ROUTES));

    let output = ingress(&folder, &["queues", "--json"], &[]).await;

    assert_eq!(output.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut states: Vec<_> = json["queues"].as_array().unwrap().iter().map(|queue| &queue["state"]).collect();
    states.sort_by_key(ToString::to_string);
    assert_eq!(states, ["access_denied", "usable", "usable"]);
    assert!(stderr(&output).contains("account 123456789012  region us-east-1  stack a-stack"), "{output:?}");
}

#[tokio::test]
async fn disabled_key_has_a_state() {
    let sqs = Sqs::start(&QUEUES).await;
    for queue in ["a-stack-calls", "a-stack-flows"] {
        sqs.account().keys.insert(queue.to_owned(), format!("key-of-{queue}"));
    }
    let script = r#"[ "$1 $2 $4" = "kms describe-key key-of-a-stack-calls" ] && echo '"PendingDeletion"' && exit
[ "$1" = kms ] && echo '"Enabled"' && exit
echo '[]'; exit"#;
    let folder = tempfile::tempdir().unwrap();

    let backlogs = backlogs(&sqs.info(&ROUTES), &folder, script).await;

    let states: Vec<_> = backlogs.queues.iter().map(|backlog| backlog.depth.state.clone()).collect();
    let disabled = QueueState::KeyDisabled("key-of-a-stack-calls is PendingDeletion".to_owned());
    assert_eq!(states, [disabled, QueueState::Usable, QueueState::Usable]);
    assert_eq!((backlogs.all_usable(), backlogs.keys_error), (false, None));
}

#[tokio::test]
async fn banner_precedes_the_table() {
    let sqs = Sqs::start(&QUEUES).await;
    let folder = folder_of(&sqs.info(&ROUTES));

    for arguments in [&["queues"][..], &["reroute", "--field", "calls"], &["redrive", "--field", "calls", "--apply"]] {
        let text = stdout(&ingress(&folder, arguments, &[]).await);
        assert!(text.starts_with("account 123456789012  region us-east-1  stack a-stack  endpoint http://"), "{text}");
    }
}

#[tokio::test]
async fn local_stack_is_not_used_if_the_environment_leads_elsewhere() {
    let sqs = Sqs::start(&QUEUES).await;
    let info = sqs.info(&ROUTES);
    let folder = folder_of(&info);
    for variable in ["AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"] {
        let elsewhere = [(variable, "http://elsewhere.example")];
        let error = stderr(&ingress(&folder, &["queues"], &elsewhere).await);
        assert!(error.contains(&format!("a local stack is running, but {variable} leads elsewhere")), "{error}");
        assert!(ingress(&folder, &["queues", "--local"], &elsewhere).await.status.success(), "{variable}");
    }
    let own = [("AWS_ENDPOINT_URL", info.aws_endpoint.as_str()), ("AWS_PROFILE", "any")];
    assert!(ingress(&folder, &["queues"], &own).await.status.success());
}

#[tokio::test]
async fn stack_name_comes_from_option_variable_or_samconfig() {
    let folder = tempfile::tempdir().unwrap();
    write_aws(folder.path(), "");
    let keys = [("AWS_REGION", "eu-west-1"), ("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key")];
    let variable = [&keys[..], &[("STACK", "of-variable")]].concat();

    let none = stderr(&ingress(&folder, &["queues"], &keys).await);
    assert!(none.contains("no stack is named, and no local stack is used: name one with --stack"), "{none}");
    ingress(&folder, &["queues", "--stack", "of-option"], &variable).await;
    fs::write(folder.path().join("samconfig.toml"), "[default.deploy.parameters]\nstack_name = \"saved\"").unwrap();
    ingress(&folder, &["queues"], &variable).await;
    ingress(&folder, &["queues"], &keys).await;
    ingress(&folder, &["subscribe", "--app", "1"], &keys).await;

    let calls = fs::read_to_string(folder.path().join("calls")).unwrap();
    let names: Vec<_> = calls.lines().map(|call| call.split_whitespace().nth(3).unwrap()).collect();
    assert_eq!(names, ["of-option", "of-variable", "saved", "saved"], "{calls}");
}

/// A stack of the same name may exist in another account or region.
#[tokio::test]
async fn samconfig_of_another_account_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    write_aws(folder.path(), "");
    let saved = "[default.deploy.parameters]\nstack_name = \"a\"\nregion = \"eu-central-1\"\nprofile = \"prod\"";
    fs::write(folder.path().join("samconfig.toml"), saved).unwrap();
    let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key")];
    let (region, profile) = (("AWS_REGION", "eu-central-1"), ("AWS_PROFILE", "prod"));
    let other_region = ("AWS_REGION", "us-east-1");

    for (variables, arguments, expected) in [
        (
            [region, ("AWS_PROFILE", "")],
            &["queues"][..],
            "the profile prod, but the environment has none: set AWS_PROFILE=prod",
        ),
        ([region, ("AWS_PROFILE", "test")], &["queues"], "the profile prod, but the environment has test"),
        (
            [other_region, profile],
            &["queues"],
            "the region eu-central-1, but the environment has us-east-1: set AWS_REGION=",
        ),
        ([other_region, profile], &["subscribe", "--app", "1"], "the region eu-central-1, but"),
        ([region, profile], &["queues"], "`aws cloudformation describe-stacks` failed"),
        ([other_region, profile], &["queues", "--stack", "a"], "`aws cloudformation describe-stacks` failed"),
    ] {
        let output = ingress(&folder, arguments, &[&keys[..], &variables].concat()).await;
        assert!(stderr(&output).contains(expected), "{variables:?} {arguments:?}: {output:?}");
    }
}

#[tokio::test]
async fn queue_of_another_stack_is_not_restored() {
    let sqs = Sqs::start(&["unrouted", "calls", "other"]).await;
    let info = sqs.info(&[("*", "unrouted"), ("calls", "calls"), ("calls", "other")]);
    let folder = folder_of(&info);
    let url = format!("{}/123456789012/a-stack-calls", info.aws_endpoint);
    let id = "arn:aws:cloudformation:us-east-1:123456789012:stack/a-stack/1";
    let responses = [
        ("describe-stacks", json!({ "id": id, "name": "a-stack", "parameters": [], "tags": [] })),
        ("list-stack-resources", json!([["Queue", url, "AWS::SQS::Queue", "CREATE_COMPLETE"]])),
        (
            "get-template",
            json!({ "Resources": { "Queue": { "Type": "AWS::SQS::Queue", "Properties": { "QueueName": "a-stack-calls" } } } }),
        ),
    ];
    let lines = responses.map(|(call, response)| format!("[ \"$2\" = {call} ] && echo '{response}' && exit\n"));
    write_aws(folder.path(), &lines.concat());

    let usable = ingress(&folder, &["restore-queue", "calls"], &[]).await;
    assert!(usable.status.success(), "{usable:?}");
    assert!(stdout(&usable).contains("a-stack-other: usable: another stack or account owns it"), "{usable:?}");
    sqs.account().queues.remove("a-stack-other");
    for arguments in [&["restore-queue", "calls"][..], &["restore-queue", "calls", "--apply"]] {
        let gone = ingress(&folder, arguments, &[]).await;
        assert_eq!(gone.status.code(), Some(1), "{gone:?}");
        assert!(stdout(&gone).contains("a-stack-other: gone: another stack or account owns it"), "{gone:?}");
    }
    let json: Value =
        serde_json::from_slice(&ingress(&folder, &["restore-queue", "calls", "--json"], &[]).await.stdout).unwrap();
    assert_eq!((&json["done"], &json["queues_of_others"][0]["state"]), (&json!(false), &json!("gone")), "{json}");
}

#[tokio::test]
async fn queue_commands_do_not_read_the_secret() {
    let sqs = Sqs::start(&[&QUEUES[..], &["jobs.fifo", "jobs-dead.fifo"]].concat()).await;
    let info = sqs.info(&[&ROUTES[..], &[("jobs", "jobs.fifo")]].concat());
    let folder = tempfile::tempdir().unwrap();
    let queues = serde_json::to_value(&info).unwrap()["queue_urls"].to_string();
    let script = DescribedStack { queues: &queues, ..DescribedStack::default() }.script();
    let denied = "[ \"$1\" = secretsmanager ] && echo 'An error occurred (AccessDenied)' >&2 && exit 254\n";
    write_aws(folder.path(), &format!("{denied}{script}[ \"$1\" = cloudwatch ] && echo '[]' && exit"));
    let environment = [
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "key"),
        ("AWS_ENDPOINT_URL_SQS", &info.aws_endpoint),
        ("STACK", STACK),
    ];

    for arguments in [
        &["queues"][..],
        &["peek"],
        &["drop", "--field", "calls", "--apply"],
        &["export", "--to", "copies", "--apply"],
        &["reroute", "--field", "calls", "--apply"],
        &["redrive", "--field", "calls", "--apply"],
        // Both queues are FIFO, so that each message keeps its group.
        &["redrive", "--field", "jobs", "--apply"],
    ] {
        let output = ingress(&folder, arguments, &environment).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    assert!(!fs::read_to_string(folder.path().join("calls")).unwrap().contains("get-secret-value"));
    for arguments in [&["reroute", "--field", "jobs", "--apply"][..], &["verify"], &["subscribe", "--app", "1"]] {
        let error = stderr(&ingress(&folder, arguments, &environment).await);
        assert!(error.contains("`aws secretsmanager get-secret-value` failed"), "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn subscribe_uses_the_local_stack_if_told_so() {
    let sqs = Sqs::start(&QUEUES).await;
    let folder = folder_of(&sqs.info(&ROUTES));
    write_aws(folder.path(), "");
    let subscribe = ["subscribe", "--app", "1", "--graph-url", "http://127.0.0.1:1"];

    let local = ingress(&folder, &[&subscribe[..], &["--local"]].concat(), &[]).await;
    assert!(stdout(&local).contains("stack a-stack  endpoint http://"), "{local:?}");
    let deployed = ingress(&folder, &subscribe, &[]).await;
    assert!(stderr(&deployed).contains("no stack is named"), "{deployed:?}");
}

#[tokio::test]
async fn moves_go_on_past_a_missing_queue() {
    let sqs = Sqs::start(&["unrouted", "m", "m-dead", "s", "s-dead"]).await;
    let routes = [("*", "unrouted"), ("messages", "m"), ("messages.statuses", "s")];
    let folder = folder_of(&sqs.info(&routes));
    let put = |queue: &str, kind: &str| {
        let text = |value: &str| json!({ "DataType": "String", "StringValue": value });
        let attributes = json!({ "field": text("messages"), "kind": text(kind), "unrouted_reason": text("no-route") });
        sqs.put(queue, crate::sqs::Stored { attributes, ..crate::sqs::Stored::default() });
    };
    for queue in ["unrouted", "m-dead"] {
        put(queue, "messages");
        put(queue, "statuses");
    }
    sqs.account().queues.remove("a-stack-s");

    let dry = ingress(&folder, &["redrive", "--field", "messages"], &[]).await;
    assert_eq!(dry.status.code(), Some(1));
    assert!(
        stdout(&dry).contains("a-stack-s: skipped") && stdout(&dry).contains("a-stack-m-dead: 2 visible"),
        "{dry:?}"
    );
    let redrive = ingress(&folder, &["redrive", "--field", "messages", "--apply"], &[]).await;
    assert!(stdout(&redrive).contains("2 moved"), "{redrive:?}");
    let reroute = ingress(&folder, &["reroute", "--field", "messages", "--apply"], &[]).await;
    assert_eq!(reroute.status.code(), Some(1));
    assert!(stdout(&reroute).contains("1 not moved: their queue is gone"), "{reroute:?}");
    assert_eq!((sqs.on("m").len(), sqs.on("unrouted").len()), (3, 1), "{reroute:?}");
    let needed = ingress(&folder, &["reroute", "--field", "messages.messages"], &[]).await;
    assert!(needed.status.success(), "a queue that the move does not need may be missing: {needed:?}");
}

#[tokio::test]
async fn dry_run_fails_without_its_source() {
    let sqs = Sqs::start(&QUEUES).await;
    let folder = folder_of(&sqs.info(&ROUTES));

    let typo = ingress(&folder, &["redrive", "--field", "calls", "--from", "a-stack-cals"], &[]).await;
    assert_eq!(typo.status.code(), Some(1));
    assert!(stdout(&typo).contains("a-stack-cals: gone"), "{typo:?}");
    sqs.account().queues.remove("a-stack-unrouted");
    assert_eq!(ingress(&folder, &["reroute", "--field", "calls"], &[]).await.status.code(), Some(1));
}

#[tokio::test]
async fn unknown_kind_is_an_error() {
    let sqs = Sqs::start(&QUEUES).await;
    let folder = folder_of(&sqs.info(&ROUTES));
    for command in ["drop", "redrive", "reroute"] {
        let output = ingress(&folder, &[command, "--field", "messages.status"], &[]).await;
        assert_eq!(output.status.code(), Some(2));
        let expected = "status is not a kind: the kinds of a field are messages, statuses, errors";
        assert!(stderr(&output).contains(expected), "{output:?}");
    }
}

#[tokio::test]
async fn only_queue_of_a_field_is_no_source() {
    let sqs = Sqs::start(&QUEUES).await;
    let folder = folder_of(&sqs.info(&ROUTES));

    let output = ingress(&folder, &["redrive", "--field", "calls", "--from", "a-stack-calls"], &[]).await;

    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(
        error.contains("a-stack-calls is the only queue of calls: there is no queue to move its messages to"),
        "{error}"
    );
}

#[tokio::test]
async fn replaced_queue_is_moved_to_its_successor() {
    let sqs = Sqs::start(&["unrouted", "calls", "archive", "calls-old"]).await;
    let folder = folder_of(&sqs.info(&[("*", "unrouted"), ("calls", "calls"), ("calls", "archive")]));
    let attributes = json!({ "field": { "DataType": "String", "StringValue": "calls" } });
    sqs.put("calls-old", crate::sqs::Stored { attributes, ..crate::sqs::Stored::default() });
    let redrive =
        |to: &'static str| ["redrive", "--field", "calls", "--from", "a-stack-calls-old", "--to", to, "--apply"];

    let other = ingress(&folder, &redrive("a-stack-unrouted"), &[]).await;
    assert_eq!(other.status.code(), Some(1));
    let expected = "a-stack-unrouted is not a queue of calls: its queues are a-stack-archive, a-stack-calls";
    assert!(stderr(&other).contains(expected), "{other:?}");
    let moved = ingress(&folder, &redrive("a-stack-calls"), &[]).await;
    assert!(moved.status.success() && stdout(&moved).contains("1 moved"), "{moved:?}");
    assert_eq!((sqs.on("calls").len(), sqs.on("archive").len(), sqs.on("calls-old").len()), (1, 0, 0));
}

#[tokio::test]
async fn description_of_an_ended_stack_is_ignored() {
    let sqs = Sqs::start(&QUEUES).await;
    let info = StackInfo { aws_endpoint: "http://127.0.0.1:1".to_owned(), ..sqs.info(&ROUTES) };
    let folder = folder_of(&info);

    for (arguments, expected) in [
        (&["queues"][..], "no stack is named, and no local stack is used"),
        (&["queues", "--local"], "no local stack is running"),
        (&["deliver", "--body", "/dev/null"], "no local stack is running"),
    ] {
        let output = ingress(&folder, arguments, &[]).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains(expected), "{output:?}");
    }
}
