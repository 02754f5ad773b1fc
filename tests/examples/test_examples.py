"""The consumers of `examples/`, on the message files and on the queues that `local_queues.py` creates. No build of the function."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

import generate_contract
import local_queues
from expanded import CATCH_ALL, expand

EXAMPLES = Path(local_queues.__file__).parent
MESSAGES = EXAMPLES / "messages"
LAMBDA = EXAMPLES / "python-lambda/.aws-sam/build/Consumer"
# Each item of these is to be handled once; and a change without any, which must stay.
FILES = ["messages-three", "messages-with-receipts", "copies", "messages-text-of-more-than-1-mib", "messages-errors"]
ITEMS, WITHOUT_ITEMS = 3 + 3 + 1 + 1 + 1, "messages-without-kind"

# The event id of a change with an unreadable item.
UNREADABLE = 64 * "f"

Environment = dict[str, str]


@pytest.fixture(scope="module")
def aws() -> Iterator[Environment]:
    """The environment that a consumer needs for the local AWS of the script."""
    command = [sys.executable, str(EXAMPLES / "local_queues.py"), "--stack", "first", str(MESSAGES / "copies.json")]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout
        try:
            lines = iter(script.stdout.readline, "")
            exports: list[list[str]] = []
            for line in lines:
                if "on unrouted:" in line:
                    break
                if line.startswith("export "):
                    exports.append(line.removeprefix("export ").strip().split("=", 1))
            yield variables | dict(exports)
        finally:
            script.send_signal(signal.SIGTERM)


def sent(aws: Environment, stack: str, *files: str | Path, options: tuple[str, ...] = ()) -> dict[str, str]:
    """Creates the queues of a stack and sends files to them; returns the URLs by route."""
    paths = [str(file if isinstance(file, Path) else MESSAGES / f"{file}.json") for file in files]
    command = [sys.executable, str(EXAMPLES / "local_queues.py"), "--stack", stack, *options, *paths]
    output = subprocess.run(command, env=aws, check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in output.splitlines() if line.startswith("# ")]
    return {route.rstrip(":"): url for _, _, _, route, url in rows}


def client(aws: Environment, service: str) -> Any:
    session = boto3.Session("test", "test", region_name="us-east-1")
    return session.client(service, endpoint_url=aws["AWS_ENDPOINT_URL"], config=Config(proxies={}))


def depth(aws: Environment, url: str) -> tuple[int, int]:
    """The messages that wait, and those that were received and not deleted."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = client(aws, "sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return int(found[names[0]]), int(found[names[1]])


def test_script_sends_every_message_to_its_queue(aws: Environment) -> None:
    names = [file.stem for file in MESSAGES.glob("*.json")]
    urls = sent(aws, "all", *names)
    expected: dict[str, list[str]] = {route: [] for route in urls}
    for record in records(*names):
        expected[record["eventSourceARN"].rpartition("whatsapp-ingress-")[2]].append(record["body"])
    assert {route: sorted(received(aws, url)) for route, url in urls.items()} == {
        route: sorted(bodies) for route, bodies in expected.items()
    }
    assert sum(map(bool, expected.values())) > 3


def received(aws: Environment, url: str) -> list[str]:
    sqs, bodies = client(aws, "sqs"), []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        bodies += [message["Body"] for message in messages]
    return bodies


def test_script_creates_the_queues_of_the_template(aws: Environment) -> None:
    urls, sqs = sent(aws, "stack", "copies"), client(aws, "sqs")
    template = expand()
    queues = template.of_type("AWS::SQS::Queue")
    of_template = {
        queues[id]["QueueName"]: queues[template.dead_letter_queues()[id]]["QueueName"]
        for route, ids in template.routes().items()
        if route != CATCH_ALL
        for id in ids
    }
    found = {}
    for url in urls.values():
        names = ["RedrivePolicy", "VisibilityTimeout", "MessageRetentionPeriod"]
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        name = url.rpartition("/")[2]
        [queue] = [queue for queue in queues.values() if queue["QueueName"] == name]
        assert attributes["MessageRetentionPeriod"] == str(queue["MessageRetentionPeriod"]), name
        assert attributes["VisibilityTimeout"] == str(generate_contract.VISIBILITY_TIMEOUT), name
        if "RedrivePolicy" in attributes:
            policy = json.loads(attributes["RedrivePolicy"])
            assert int(policy["maxReceiveCount"]) == queue["RedrivePolicy"]["maxReceiveCount"]
            assert attributes["VisibilityTimeout"] == str(queue["VisibilityTimeout"])
            found[name] = policy["deadLetterTargetArn"].rpartition(":")[2]
    assert found == of_template
    assert len(urls) == len(found) + 1


def test_script_creates_a_fifo_queue(aws: Environment) -> None:
    files = ["copies", "messages-text-replayed", "messages-user-id", "messages-without-kind", "statuses-delivered"]
    urls, sqs = sent(aws, "fifo", *files, options=("--fifo",)), client(aws, "sqs")
    url = urls["messages"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    dead_letters = json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"].rpartition(":")[2]
    assert (url.rpartition("/")[2], dead_letters) == ("fifo-messages.fifo", "fifo-messages-dead.fifo")
    assert attributes["DeduplicationScope"] == "messageGroup"
    request = {"MessageSystemAttributeNames": ["MessageGroupId"], "MaxNumberOfMessages": 10}
    messages = sqs.receive_message(QueueUrl=url, **request)["Messages"]
    groups = [message["Attributes"]["MessageGroupId"] for message in messages]
    # SQS drops the copy, and not the replayed message.
    assert sorted(groups) == ["447700900317"] * 3 + ["GB.20708508982563780034"]
    assert depth(aws, urls["messages-statuses"]) == (1, 0)


# Seconds. The node-poller claims an item for a third of it.
VISIBILITY_TIMEOUT = 6

# Kills the node-poller when its work begins, which is after the claim.
KILLED_AT_WORK = """data:text/javascript,
let items = 0;
const log = console.log;
console.log = (line) => { if (++items === 2) process.kill(process.pid, "SIGKILL"); log(line); };
"""


def node_poller(aws: Environment, url: str, *options: str) -> subprocess.Popen[str]:
    if not shutil.which("node"):
        pytest.skip("Node.js is not installed")
    poller = EXAMPLES / "node-poller/poller.js"
    assert poller.is_file(), "run `make consumers` first"
    table = f"{url.rpartition('/')[2].partition('-')[0]}-handled"
    environment = aws | {"QUEUE_URL": url, "HANDLED_TABLE": table, "VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT)}
    return subprocess.Popen(["node", *options, str(poller)], env=environment, stdout=subprocess.PIPE, text=True)


def poll(aws: Environment, url: str, items: int, not_deleted: int) -> set[str]:
    """Runs the poller until it has handled the items and deleted their messages; returns the keys of the items."""
    dead_letters = client(aws, "sqs").get_queue_url(QueueName=f"{url.rpartition('/')[2]}-dead")["QueueUrl"]
    with node_poller(aws, url) as process:
        # A poller that hangs ends, and the test fails.
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        try:
            assert process.stdout
            keys = [json.loads(process.stdout.readline())["key"] for _ in range(items)]
            while (remaining := sum(depth(aws, url)) + sum(depth(aws, dead_letters))) != not_deleted:
                assert process.poll() is None
                assert remaining > not_deleted, "it deleted what it did not handle"
                time.sleep(0.2)
            process.kill()
            assert process.stdout.read() == ""
        finally:
            watchdog.cancel()
            process.kill()
    assert len(keys) == len(set(keys))
    return set(keys)


def test_node_poller_handles_every_item_once(aws: Environment, tmp_path: Path) -> None:
    url = sent(aws, "node", *FILES, WITHOUT_ITEMS, of_other_product(tmp_path), with_failing_item(tmp_path))["messages"]
    keys = poll(aws, url, ITEMS + 2, not_deleted=3)
    assert {key for key in keys if key.startswith(UNREADABLE)} == {f"{UNREADABLE}/messages/{at}" for at in (0, 2)}


def test_node_poller_handles_every_receipt(aws: Environment) -> None:
    url = sent(aws, "receipts", "statuses-200", "statuses-delivered")["messages-statuses"]
    assert len(poll(aws, url, 201, not_deleted=0)) == 201


def test_node_poller_handles_items_of_killed_one(aws: Environment) -> None:
    url = sent(aws, "killed", "messages-three")["messages"]
    with node_poller(aws, url, "--import", KILLED_AT_WORK) as process:
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, len(output.splitlines())) == (-signal.SIGKILL, 1)
    assert sum(depth(aws, url)) == 1
    assert {key.split("/")[2] for key in poll(aws, url, 2, not_deleted=0)} == {"1", "2"}


def test_node_poller_fails_without_event_id(aws: Environment) -> None:
    url = sent(aws, "ids", "messages-errors")["messages"]
    [text] = json.loads((MESSAGES / "messages-text.json").read_text())["Messages"]
    for _ in range(2):
        client(aws, "sqs").send_message(QueueUrl=url, MessageBody=text["Body"])
    assert len(poll(aws, url, 1, not_deleted=2)) == 1


def with_failing_item(folder: Path) -> Path:
    """A file with three messages in one change. No consumer can read the second."""
    content = json.loads((MESSAGES / "messages-three.json").read_text())
    [message] = content["Messages"]
    body = json.loads(message["Body"])
    body["entry"][0]["changes"][0]["value"]["messages"][1] = None
    message["Body"] = json.dumps(body)
    message["MessageAttributes"]["event_id"]["StringValue"] = UNREADABLE
    file = folder / "failing.json"
    file.write_text(json.dumps(content))
    return file


def of_other_product(folder: Path) -> Path:
    """A file with a message that is not of WhatsApp. Its field has the same name."""
    content = json.loads((MESSAGES / "messages-text.json").read_text())
    [message] = content["Messages"]
    message["Body"] = message["Body"].replace("whatsapp_business_account", "instagram")
    message["MessageAttributes"]["event_id"]["StringValue"] = 64 * "e"
    file = folder / "other.json"
    file.write_text(json.dumps(content))
    return file


def test_python_reader_handles_every_item_once(aws: Environment, tmp_path: Path) -> None:
    url = sent(aws, "reader", *FILES, WITHOUT_ITEMS, of_other_product(tmp_path))["messages"]
    command = [sys.executable, str(EXAMPLES / "python-extended-client/reader.py"), url, "--until-empty"]
    lines = subprocess.run(command, env=aws, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == len({json.loads(line)["key"] for line in lines}) == ITEMS
    assert depth(aws, url) == (0, 2)


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="curl and jq are not both installed")
def test_shell_script_handles_every_change_once(aws: Environment, tmp_path: Path) -> None:
    files = [*FILES, WITHOUT_ITEMS, "messages-text-refused", "not-json-in-utf-16", "not-json"]
    urls = sent(aws, "shell", *files, of_other_product(tmp_path))
    done = tmp_path / "done"

    def run(url: str) -> tuple[int, list[dict[str, Any]]]:
        command = [str(EXAMPLES / "shell/consume.sh"), url, str(done)]
        ended = subprocess.run(command, env=aws, check=False, capture_output=True, text=True)
        return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()]

    status, lines = run(urls["messages"])
    assert (status, sum(line["items"] for line in lines)) == (1, ITEMS)
    assert depth(aws, urls["messages"]) == (0, 2)
    status, lines = run(urls["unrouted"])
    # The message of a queue that did not store it is no copy of the message on another queue.
    assert (status, sorted("bytes" in line for line in lines)) == (0, [False, True, True])
    assert depth(aws, urls["unrouted"]) == (0, 0)


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="curl and jq are not both installed")
def test_shell_script_on_messages_of_two_queues(aws: Environment, tmp_path: Path) -> None:
    """On the catch-all queue are the messages of two queues that did not store the same change."""
    files = []
    for name in ("messages-text-refused", "messages-text-its-queue-deleted"):
        content = json.loads((MESSAGES / f"{name}.json").read_text())
        for queue in ("whatsapp-ingress-messages", "whatsapp-ingress-messages-crm"):
            content["Messages"][0]["MessageAttributes"]["diverted_from"]["StringValue"] = queue
            files.append(tmp_path / f"{name}-{queue}.json")
            files[-1].write_text(json.dumps(content))
    url = sent(aws, "teams", *files, files[0])["unrouted"]
    command = [str(EXAMPLES / "shell/consume.sh"), url, str(tmp_path / "done")]
    ended = subprocess.run(command, env=aws, check=True, capture_output=True, text=True)
    assert len(ended.stdout.splitlines()) == 2, "the copy of the first is skipped"
    assert depth(aws, url) == (0, 2), "`reroute` moves the others"


# Handles events and prints for each the keys that were worked on and the ids of the failed messages.
DRIVER = """
import json, os, sys
import app
class Context:
    function_name, aws_request_id = "consumer", "1"
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:consumer"
    def get_remaining_time_in_millis(self): return 30000
worked, work = [], app.work
def watched(key, kind, content, value):
    if key in failing: raise RuntimeError(key)
    if key in killing: os._exit(9)
    work(key, kind, content, value)
    worked.append(key)
app.work = watched
killing, events = json.load(sys.stdin)
for failing, event in events:
    worked.clear()
    try:
        failures = app.handler(event, Context())["batchItemFailures"]
    except Exception:
        # With every message failed, Powertools raises an exception, and Lambda deletes no message.
        failures = [{"itemIdentifier": record["messageId"]} for record in event["Records"]]
    print("RESULT", json.dumps([worked, [failure["itemIdentifier"] for failure in failures]]))
"""

Records = list[dict[str, Any]]


def records(*files: str) -> Records:
    return [each for file in files for each in json.loads((MESSAGES / f"lambda/{file}.json").read_text())["Records"]]


def handle(
    aws: Environment, table: str, *events: tuple[list[str], Records], killing: str | None = None
) -> list[tuple[list[str], list[str]]]:
    """The keys and the ids of failed messages for each event, which has keys whose work fails. `killing` ends the process."""
    assert LAMBDA.is_dir(), "run `make consumers` first"
    local_queues.create_table(client(aws, "dynamodb"), table)
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps([[killing], [(failing, {"Records": records}) for failing, records in events]]),
        env=aws | {"PYTHONPATH": str(LAMBDA), "HANDLED_TABLE": table, "POWERTOOLS_LOG_LEVEL": "ERROR"},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == (9 if killing else 0), ended.stderr
    lines = [line.removeprefix("RESULT ") for line in ended.stdout.splitlines() if line.startswith("RESULT ")]
    return [(keys, failures) for keys, failures in map(json.loads, lines)]


def test_lambda_handles_every_item_of_a_change(aws: Environment) -> None:
    sent(aws, "lambda", "messages-text-of-more-than-1-mib")
    batch = records(*FILES, "statuses-200", "messages-text-refused", "messages-text-its-queue-deleted")
    [(keys, failures)] = handle(aws, "every", ([], batch))
    assert (len(keys), len(set(keys)), failures) == (ITEMS + 200, ITEMS + 200, [])


def test_lambda_reports_what_it_does_not_handle(aws: Environment) -> None:
    batch = records(WITHOUT_ITEMS, "unknown-field", "messages-text", "not-json", "not-json-in-utf-16", "other-product")
    [of_instagram] = records("statuses-delivered")
    of_instagram["body"] = of_instagram["body"].replace("whatsapp_business_account", "instagram")
    batch.append(of_instagram)
    [(keys, failures)] = handle(aws, "reports", ([], batch))
    assert len(keys) == 1
    assert failures == [record["messageId"] for record in batch if record not in records("messages-text")]


def test_lambda_retries_only_the_failed_item(aws: Environment) -> None:
    batch = records("messages-three", "messages-text")
    key = batch[0]["messageAttributes"]["event_id"]["stringValue"] + "/messages/1"
    first, second, third = handle(aws, "retries", ([key], batch), ([], batch[:1]), ([], batch))
    assert (len(first[0]), first[1]) == (3, [batch[0]["messageId"]])
    assert second == ([key], [])
    assert third == ([], [])


def test_lambda_handles_copies_of_a_batch_once(aws: Environment) -> None:
    assert len(records("copies")) == 2
    [(keys, failures)] = handle(aws, "copies", ([], records("copies")))
    assert (len(keys), failures) == (1, [])


def test_lambda_handles_item_of_killed_invocation(aws: Environment) -> None:
    batch = records("messages-three")
    event_id = batch[0]["messageAttributes"]["event_id"]["stringValue"]
    key = f"{event_id}/messages/1"
    handle(aws, "killed", ([], batch), killing=key)

    [(keys, failures)] = handle(aws, "killed", ([], batch))
    assert keys == [f"{event_id}/messages/2"], "the first is done, and the invocation that was killed has the claim"
    assert failures == [batch[0]["messageId"]], "the message is not deleted"

    # The time until the claim ends has passed.
    dynamodb = client(aws, "dynamodb")
    [item] = [each for each in dynamodb.scan(TableName="killed")["Items"] if each["status"]["S"] == "INPROGRESS"]
    claimed_until = int(item["in_progress_expiration"]["N"])
    assert time.time() * 1000 < claimed_until < (time.time() + generate_contract.VISIBILITY_TIMEOUT) * 1000
    item["in_progress_expiration"]["N"] = str(int(time.time() * 1000) - 1)
    dynamodb.put_item(TableName="killed", Item=item)
    assert handle(aws, "killed", ([], batch)) == [([key], [])]
