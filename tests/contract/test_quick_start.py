"""Runs the quick start of docs/contract.md, as it is on the page, on queues of a local AWS."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import types
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from contract_page import code, examples
from test_schema import FOLDER, TOOLS, needs_node

PYTHON_HANDLE = """
import json
def handle(key, kind, item, value):
    assert item in value[kind]
    if item.get("type") == "text" and item["text"]["body"] == "fail":
        raise ValueError(item)
    print(json.dumps([key, kind]), flush=True)
"""
TYPESCRIPT_HANDLE = """
export async function handle(key: string, kind: string, item: any, value: any): Promise<void> {
  if (!value[kind].includes(item)) throw new Error("not the value of the item");
  if (item.type === "text" && item.text.body === "fail") throw new Error(JSON.stringify(item));
  console.log(JSON.stringify([key, kind]));
}
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0"}
    command = [sys.executable, "-c", "from ministack.app import main; main()"]
    server = subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while server.poll() is None:
            with suppress(OSError):
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                opener.open(f"http://127.0.0.1:{port}/_ministack/ready", timeout=5).close()
                break
            time.sleep(0.1)
        assert server.poll() is None, "ministack ended"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def python_program(folder: Path) -> list[str]:
    (folder / "handled.py").write_text(PYTHON_HANDLE)
    (folder / "consumer.py").write_text(code("python"))
    return [sys.executable, "-u", "consumer.py"]


def typescript_program(folder: Path) -> list[str]:
    (folder / "handled.ts").write_text(TYPESCRIPT_HANDLE)
    (folder / "consumer.ts").write_text(code("typescript"))
    (folder / "package.json").write_text('{ "type": "module" }')
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    options = "--strict --skipLibCheck --target es2022 --module nodenext --types node consumer.ts"
    done = subprocess.run([TOOLS / "tsc", *options.split()], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return ["node", "consumer.js"]


# A queue, the clients of its local AWS, and the environment of a consumer.
Aws = tuple[str, dict[str, Any], dict[str, str]]


def new_queue(endpoint: str, name: str, visibility_timeout: int) -> Aws:
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    config = Config(proxies={}, s3={"addressing_style": "path"})
    clients = {
        service: boto3.client(service, endpoint_url=endpoint, config=config, **credentials)
        for service in ("sqs", "s3", "dynamodb")
    }
    attributes = {"VisibilityTimeout": str(visibility_timeout)} | (
        {"FifoQueue": "true"} if name.endswith(".fifo") else {}
    )
    url = clients["sqs"].create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    key = {"AttributeName": "id"}
    clients["dynamodb"].create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[key | {"AttributeType": "S"}],
        KeySchema=[key | {"KeyType": "HASH"}],
    )
    environment = {"AWS_ENDPOINT_URL": endpoint, "QUEUE_URL": url, "HANDLED_TABLE": name, "NO_PROXY": "127.0.0.1"}
    environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    environment |= {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
    return url, clients, os.environ | environment


@pytest.mark.parametrize("program", [python_program, pytest.param(typescript_program, marks=needs_node)])
def test_quick_start_handles_every_item(program: Any, endpoint: str, tmp_path: Path) -> None:
    command = program(tmp_path)
    url, clients, environment = new_queue(endpoint, f"queue-{command[0].rpartition('/')[2]}", 600)
    sqs, s3 = clients["sqs"], clients["s3"]

    sent = examples()
    text_attributes, text = sent["messages-text"]
    notification = json.loads(text)
    value = notification["entry"][0]["changes"][0]["value"]
    message = value["messages"][0]
    value["messages"] = [message] * 3
    value["statuses"] = [{"id": "1", "status": "read"}] * 2
    sent["several"] = ({**text_attributes, "event_id": "several"}, json.dumps(notification))
    value["messages"] = [message, {**message, "text": {"body": "fail"}}, message]
    sent["failing"] = ({**text_attributes, "event_id": "failing"}, json.dumps(notification))
    notification["object"] = "instagram"
    sent["other product"] = ({**text_attributes, "event_id": "other"}, json.dumps(notification))
    del notification["object"]
    value["messages"] = None
    sent["null"] = ({**text_attributes, "event_id": "null"}, json.dumps(notification))
    pointer = json.loads(sent["messages-text, of more than 1 MiB"][1])[1]
    s3.create_bucket(Bucket=pointer["s3BucketName"])
    s3.put_object(Bucket=pointer["s3BucketName"], Key=pointer["s3Key"], Body=text.encode())
    for at in range(2):  # without an event id, the keys of two messages would be the same
        sqs.send_message(QueueUrl=url, MessageBody=text.replace("wamid", f"wamid{at}"))
    for name in (
        "failing",
        "messages-text",
        "messages-errors",
        "statuses-delivered",
        "several",
        "null",
        "other product",
    ):
        send(sqs, url, *sent[name])
    send(sqs, url, *sent["message-template-status-update"])
    send(sqs, url, *sent["messages-text, of more than 1 MiB"])

    names = {"messages-text": "messages", "messages-errors": "errors", "statuses-delivered": "statuses"}
    names["messages-text, of more than 1 MiB"] = "messages"
    expected = [[f"{sent[name][0]['event_id']}/{kind}/0", kind] for name, kind in names.items()]
    expected += [[f"several/messages/{at}", "messages"] for at in range(3)]
    expected += [[f"failing/messages/{at}", "messages"] for at in (0, 2)]
    expected += [[f"{name}/statuses/{at}", "statuses"] for at in range(2) for name in ("several", "failing", "null")]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as consumer:
        remaining = wait_for_deletions(sqs, url, 5)
        consumer.terminate()
        output, _ = consumer.communicate()
    lines = output.splitlines()
    handled = [json.loads(line) for line in lines if line.startswith("[")]
    assert sorted(handled) == sorted(expected), lines
    assert remaining == 5, (
        "the failing message, and those of another product, without items and without attributes stay"
    )
    assert [line for line in lines if line.startswith("failed failing/messages/1 ")], lines
    assert "447700900317" not in "".join(lines), "an error is logged without the body"


@pytest.mark.parametrize("program", [python_program, pytest.param(typescript_program, marks=needs_node)])
def test_quick_start_keeps_order_of_fifo_queue(program: Any, endpoint: str, tmp_path: Path) -> None:
    command = program(tmp_path)
    url, clients, environment = new_queue(endpoint, f"order-{command[0].rpartition('/')[2]}.fifo", 600)
    attributes, text = examples()["messages-text"]
    notification = json.loads(text)
    [message] = notification["entry"][0]["changes"][0]["value"]["messages"]
    failing = [message, {**message, "text": {"body": "fail"}}, message]
    for group, event_id, messages in (("a", "first", failing), ("a", "second", [message]), ("b", "third", [message])):
        notification["entry"][0]["changes"][0]["value"]["messages"] = messages
        ids = {"MessageGroupId": group, "MessageDeduplicationId": event_id}
        send(clients["sqs"], url, {**attributes, "event_id": event_id}, json.dumps(notification), **ids)
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as consumer:
        remaining = wait_for_deletions(clients["sqs"], url, 2)
        consumer.terminate()
        output, _ = consumer.communicate()
    handled = [json.loads(line)[0] for line in output.splitlines() if line.startswith("[")]
    assert handled == ["first/messages/0", "third/messages/0"], output
    assert remaining == 2, "the failing message and the one behind it stay"


# Appends the key of each item, and ends the process in the middle of the first work on a key that ends in "/1".
ENDING_WORK = """
import os
from pathlib import Path
def work(key, kind, item, value):
    started = Path("started").read_text().splitlines() if Path("started").exists() else []
    with open("started", "a") as file:
        print(key, file=file)
    if key.endswith("/1") and key not in started:
        os._exit(9)
    with open("worked", "a") as file:
        print(key, file=file)
"""


def test_item_of_a_killed_process_is_handled(endpoint: str, tmp_path: Path) -> None:
    url, clients, environment = new_queue(endpoint, "killed", 4)
    (tmp_path / "handled.py").write_text(code("python", 1).replace("LEASE = 60", "LEASE = 2"))
    (tmp_path / "consumer.py").write_text(code("python"))
    (tmp_path / "work.py").write_text(ENDING_WORK)
    attributes, text = examples()["messages-text"]
    notification = json.loads(text)
    notification["entry"][0]["changes"][0]["value"]["messages"] *= 3
    for _ in range(2):
        send(clients["sqs"], url, attributes, json.dumps(notification))
    command = [sys.executable, "-u", "consumer.py"]
    assert subprocess.run(command, cwd=tmp_path, env=environment, timeout=60).returncode == 9
    assert wait_for_deletions(clients["sqs"], url, 2) == 2
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as consumer:
        remaining = wait_for_deletions(clients["sqs"], url, 0)
        consumer.terminate()
    assert remaining == 0
    worked = (tmp_path / "worked").read_text().split()
    assert sorted(worked) == [f"{attributes['event_id']}/messages/{at}" for at in range(3)]


def test_claim_of_another_process_is_an_error(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, clients, environment = new_queue(endpoint, "claims", 60)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    worked: list[str] = []

    def work(key: str, kind: str, item: str, value: None) -> None:
        if item == "copy":
            # A copy arrives during the work.
            with pytest.raises(clients["dynamodb"].exceptions.ClientError, match="ConditionalCheckFailed"):
                handle(key, kind, "", value)
        if item == "fail":
            raise RuntimeError("fail")
        worked.append(key)
        if item == "lose the answer":
            # As a transaction with the outcome, whose response is lost.
            done = {"UpdateExpression": "REMOVE claimed_until"}
            clients["dynamodb"].update_item(TableName="claims", Key={"id": {"S": key}}, **done)
            raise RuntimeError("lost")

    module = types.ModuleType("work")
    module.__dict__["work"] = work
    monkeypatch.setitem(sys.modules, "work", module)
    namespace: dict[str, Any] = {}
    exec(code("python", 1), namespace)
    handle = namespace["handle"]
    handle("a", "messages", "copy", None)
    handle("a", "messages", "", None)
    with pytest.raises(RuntimeError, match="fail"):
        handle("b", "messages", "fail", None)
    assert worked == ["a"]
    handle("b", "messages", "", None)
    assert worked == ["a", "b"]
    with pytest.raises(clients["dynamodb"].exceptions.ClientError, match="ConditionalCheckFailed"):
        handle("c", "messages", "lose the answer", None)
    handle("c", "messages", "", None)
    assert worked == ["a", "b", "c"]
    items = clients["dynamodb"].scan(TableName="claims")["Items"]
    assert [sorted(item) for item in items] == [["claimed_by", "expires", "id"]] * 3


def send(sqs: Any, url: str, attributes: dict[str, str], body: str, **ids: str) -> None:
    values = {
        name: {"DataType": "Number" if name == "ExtendedPayloadSize" else "String", "StringValue": value}
        for name, value in attributes.items()
    }
    sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=values, **ids)


def wait_for_deletions(sqs: Any, url: str, expected: int) -> int:
    """The number of messages on the queue once it is the expected one, or after a while."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    count = -1
    for _ in range(300):
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        count = sum(int(attributes[name]) for name in names)
        if count == expected:
            break
        time.sleep(0.1)
    return count
