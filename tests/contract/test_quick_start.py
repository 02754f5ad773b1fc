"""Runs the quick start of docs/contract.md, as it is on the page, on queues of a local AWS."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
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

PYTHON_WORK = """
import json
def handle(key, kind, item):
    if item.get("type") == "text" and item["text"]["body"] == "fail":
        raise ValueError(item)
    print(json.dumps([key, kind]), flush=True)
"""
TYPESCRIPT_WORK = """
export async function handle(key: string, kind: string, item: any): Promise<void> {
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
    (folder / "work.py").write_text(PYTHON_WORK)
    (folder / "consumer.py").write_text(code("python"))
    return [sys.executable, "-u", "consumer.py"]


def typescript_program(folder: Path) -> list[str]:
    (folder / "work.ts").write_text(TYPESCRIPT_WORK)
    (folder / "consumer.ts").write_text(code("typescript"))
    (folder / "package.json").write_text('{ "type": "module" }')
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    options = "--strict --skipLibCheck --target es2022 --module nodenext --types node consumer.ts"
    done = subprocess.run([TOOLS / "tsc", *options.split()], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return ["node", "consumer.js"]


@pytest.mark.parametrize("program", [python_program, pytest.param(typescript_program, marks=needs_node)])
def test_quick_start_handles_every_item(program: Any, endpoint: str, tmp_path: Path) -> None:
    command = program(tmp_path)
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    config = Config(proxies={}, s3={"addressing_style": "path"})
    sqs, s3 = (boto3.client(name, endpoint_url=endpoint, config=config, **credentials) for name in ("sqs", "s3"))
    attributes = {"VisibilityTimeout": "600"}
    url = sqs.create_queue(QueueName=f"queue-{command[0].rpartition('/')[2]}", Attributes=attributes)["QueueUrl"]

    sent = examples()
    text_attributes, text = sent["messages-text"]
    notification = json.loads(text)
    value = notification["entry"][0]["changes"][0]["value"]
    message = value["messages"][0]
    value["messages"] = [message] * 3
    value["statuses"] = [{"id": "1", "status": "read"}] * 2
    sent["several"] = ({**text_attributes, "event_id": "several"}, json.dumps(notification))
    value["messages"] = [{**message, "text": {"body": "fail"}}]
    sent["failing"] = ({**text_attributes, "event_id": "failing"}, json.dumps(notification))
    pointer = json.loads(sent["messages-text, of more than 1 MiB"][1])[1]
    s3.create_bucket(Bucket=pointer["s3BucketName"])
    s3.put_object(Bucket=pointer["s3BucketName"], Key=pointer["s3Key"], Body=text.encode())
    for name in ("failing", "messages-text", "messages-errors", "statuses-delivered", "several"):
        send(sqs, url, *sent[name])
    send(sqs, url, *sent["message-template-status-update"])
    send(sqs, url, *sent["messages-text, of more than 1 MiB"])

    names = {"messages-text": "messages", "messages-errors": "errors", "statuses-delivered": "statuses"}
    names["messages-text, of more than 1 MiB"] = "messages"
    expected = [[f"{sent[name][0]['event_id']}/{kind}/0", kind] for name, kind in names.items()]
    expected += [[f"several/messages/{at}", "messages"] for at in range(3)]
    expected += [[f"several/statuses/{at}", "statuses"] for at in range(2)]
    environment = {"AWS_ENDPOINT_URL": endpoint, "QUEUE_URL": url, "NO_PROXY": "127.0.0.1"}
    environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    environment |= {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as consumer:
        remaining = wait_for_deletions(sqs, url, 2)
        consumer.terminate()
        output, _ = consumer.communicate()
    lines = output.splitlines()
    handled = [json.loads(line) for line in lines if line.startswith("[")]
    assert sorted(handled) == sorted(expected), lines
    assert remaining == 2, "the failing message and the one without items stay"
    assert [line for line in lines if line.startswith("failed failing ")], lines
    assert "447700900317" not in "".join(lines), "an error is logged without the body"


def send(sqs: Any, url: str, attributes: dict[str, str], body: str) -> None:
    values = {
        name: {"DataType": "Number" if name == "ExtendedPayloadSize" else "String", "StringValue": value}
        for name, value in attributes.items()
    }
    sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=values)


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
