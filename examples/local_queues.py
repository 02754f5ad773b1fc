"""Starts a local AWS with the queues of a stack, sends the messages of `messages/` to them, and runs until Ctrl-C.

    pip install ministack boto3
    python local_queues.py [--stack whatsapp-ingress] [--fifo] [FILE...]

Without files it sends every message of the folder. It creates the table of handled items, and prints the environment variables of
a consumer and the URL of each queue. QUEUE_URL is that of `messages`. With AWS_ENDPOINT_URL it uses the local AWS that runs there, and ends.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

MESSAGES = Path(__file__).resolve().parent / "messages"
BUCKET = "whatsapp-ingress-payloads-1x2y3z"  # the one in the files
FIELDS = [
    "account_review_update", "account_update", "business_capability_update", "message_template_status_update", "messages",
    "messages-statuses", "phone_number_name_update", "phone_number_quality_update", "security",
]  # fmt: skip
DAY = 24 * 60 * 60
KEYS = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "test")
ENVIRONMENT = KEYS | dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), "us-east-1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stack", default="whatsapp-ingress", help="the first part of the names of the queues")
    parser.add_argument("--fifo", action="store_true", help="make the queue of messages a FIFO queue")
    parser.add_argument("files", nargs="*", type=Path, help="in the form of `aws sqs receive-message`")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    endpoint, server = os.environ.get("AWS_ENDPOINT_URL"), None
    try:
        if not endpoint:
            endpoint, server = start_aws()
        table = f"{arguments.stack}-handled"
        for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": endpoint, "HANDLED_TABLE": table}).items():
            print(f"export {name}={value}")
        config = Config(proxies={}, s3={"addressing_style": "path"})
        sqs, s3, dynamodb = (
            boto3.Session("test", "test", region_name="us-east-1").client(name, endpoint_url=endpoint, config=config)
            for name in ("sqs", "s3", "dynamodb")
        )
        create_table(dynamodb, table)
        names = {route: f"{arguments.stack}-{route}" for route in [*FIELDS, "unrouted"]}
        if arguments.fifo:
            names["messages"] += ".fifo"
        urls = {route: create_queue(sqs, name) for route, name in names.items()}
        print(f"export QUEUE_URL={urls['messages']}")
        s3.create_bucket(Bucket=BUCKET)
        for file in arguments.files or sorted(MESSAGES.glob("*.json")):
            for message in json.loads(file.read_text())["Messages"]:
                send(sqs, s3, urls, message)
        for route, url in urls.items():
            found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
            print(f"# {found['Attributes']['ApproximateNumberOfMessages']} on {route}: {url}", flush=True)
        if server:
            server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        if server:
            server.terminate()


def start_aws() -> tuple[str, subprocess.Popen[bytes]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "IOT_MTLS_ENABLED": "0", "SFTP_ENABLED": "0"}
    command = [sys.executable, "-c", "from ministack.app import main; main()"]
    server = subprocess.Popen(command, env=os.environ | settings | ENVIRONMENT, stdout=sys.stderr)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None:
        with suppress(OSError):
            opener.open(f"http://127.0.0.1:{port}/_ministack/ready", timeout=5).close()
            return f"http://127.0.0.1:{port}", server
        time.sleep(0.1)
    sys.exit(f"ministack ended with status {server.returncode}")


def create_queue(sqs: Any, name: str) -> str:
    """Creates a queue as the template does. The catch-all queue has no dead-letter queue."""
    attributes = {"MessageRetentionPeriod": str(14 * DAY)}
    if name.endswith(".fifo"):
        attributes |= {
            "FifoQueue": "true",
            "DeduplicationScope": "messageGroup",
            "FifoThroughputLimit": "perMessageGroupId",
        }
    if not name.endswith("-unrouted"):
        stem, dot, fifo = name.partition(".")
        dead = sqs.create_queue(QueueName=f"{stem}-dead{dot}{fifo}", Attributes=attributes)
        found = sqs.get_queue_attributes(QueueUrl=dead["QueueUrl"], AttributeNames=["QueueArn"])
        policy = {"deadLetterTargetArn": found["Attributes"]["QueueArn"], "maxReceiveCount": 5}
        attributes["RedrivePolicy"] = json.dumps(policy)
    return str(sqs.create_queue(QueueName=name, Attributes=attributes | {"VisibilityTimeout": "180"})["QueueUrl"])


def create_table(dynamodb: Any, name: str) -> None:
    """Creates a table of handled items as in docs/contract.md, if it does not exist."""
    key: dict[str, Any] = {"AttributeName": "id"}
    with suppress(dynamodb.exceptions.ResourceInUseException):
        dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[key | {"AttributeType": "S"}],
            KeySchema=[key | {"KeyType": "HASH"}],
        )


def send(sqs: Any, s3: Any, urls: dict[str, str], message: dict[str, Any]) -> None:
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    route = attributes.get("field", "unrouted")
    if f"{route}-{attributes.get('kind')}" in urls:
        route += f"-{attributes['kind']}"
    if "unrouted_reason" in attributes:
        route = "unrouted"
    if "ExtendedPayloadSize" in attributes:
        # The body is that of messages-text with a long text.
        [text] = json.loads((MESSAGES / "messages-text.json").read_text())["Messages"]
        body = text["Body"].replace("in stock?", "in stock? " * 110_000)
        assert len(body) == int(attributes["ExtendedPayloadSize"])
        _, where = json.loads(message["Body"])
        s3.put_object(Bucket=where["s3BucketName"], Key=where["s3Key"], Body=body.encode())
    ids = {}
    if urls[route].endswith(".fifo"):
        # The function makes a group of each conversation, with a keyed hash.
        person = re.search(r'"(?:wa_id|user_id|recipient_id)":"([^"]+)"', message["Body"])
        group = person[1] if person else attributes["phone_number_id"]
        ids = {
            "MessageGroupId": group,
            "MessageDeduplicationId": attributes["event_id"] + attributes.get("replayed", ""),
        }
    sqs.send_message(
        QueueUrl=urls[route], MessageBody=message["Body"], MessageAttributes=message["MessageAttributes"], **ids
    )


if __name__ == "__main__":
    main()
