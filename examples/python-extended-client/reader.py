"""Reads a queue whose bodies may be too large for SQS: prints a line of JSON for each item, then deletes the message.

The Amazon SQS Extended Client Library fetches from S3 what is there; nothing here has to know of it.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import time
from typing import Any

import boto3
from sqs_extended_client.client import S3_KEY_MARKER  # and boto3's client for SQS has the library's methods

WHATSAPP = "whatsapp_business_account"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("queue_url")
    parser.add_argument("--until-empty", action="store_true", help="ends when the queue gives nothing more")
    arguments = parser.parse_args()
    sqs = boto3.client("sqs")
    while True:
        try:
            # One at a time: each can be 3 MB, and the library fetches all bodies before it gives out the first.
            messages = sqs.receive_message(
                QueueUrl=arguments.queue_url,
                MaxNumberOfMessages=1,
                WaitTimeSeconds=1 if arguments.until_empty else 20,
                MessageAttributeNames=["All"],
            ).get("Messages", [])
            if arguments.until_empty and not messages:
                return
            for message in messages:
                handle(message["Body"], attributes_of(message))
                sqs.delete_message(QueueUrl=arguments.queue_url, ReceiptHandle=handle_of(message))
        except Exception as error:
            # The message comes back, and in the end is a dead letter.
            print(f"not handled: {error!r}", file=sys.stderr, flush=True)
            time.sleep(1)


def handle_of(message: dict[str, Any]) -> str:
    # The library has put the object's name before the handle. On deleting it takes off what is before the last `-`, which
    # is right for AWS, whose handles have none, and wrong for a local AWS, whose handles have some.
    return str(message["ReceiptHandle"]).rpartition(S3_KEY_MARKER)[2]


def attributes_of(message: dict[str, Any]) -> dict[str, str]:
    return {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()}


# The items that are done, by keys that copies share. This reader works on one item at a time. Several readers need a table
# with claims instead, as in ../python-lambda.
handled: dict[str, None] = {}


def handle(body: str, attributes: dict[str, str]) -> None:
    text = base64.b64decode(body, validate=True) if attributes.get("encoding") == "base64" else body
    notification = json.loads(text)
    change = notification["entry"][0]["changes"][0]
    # All three lists, whatever the attribute `kind`: it names only the first that is not empty.
    lists = {kind: change["value"].get(kind) for kind in ("messages", "statuses", "errors")}
    lists = {kind: items for kind, items in lists.items() if isinstance(items, list)}
    if notification.get("object", WHATSAPP) != WHATSAPP or change.get("field") != "messages" or not any(lists.values()):
        raise ValueError("neither a message nor a receipt nor an error")
    failures = []
    for kind, items in lists.items():
        for position, content in enumerate(items):
            key = f"{attributes['event_id']}/{kind}/{position}"
            if key in handled:
                continue
            try:
                work(key, kind, content, change["value"])
            except Exception as error:
                failures.append(error)
            else:
                handled[key] = None
    while len(handled) > 100_000:
        del handled[next(iter(handled))]
    # An item that fails does not hold up the others. They are skipped when the message comes back.
    if failures:
        raise failures[0]


def work(key: str, kind: str, content: dict[str, Any], value: dict[str, Any]) -> None:
    """The place for your own code: a message, a receipt (`statuses`) or an error, and the value that contains it."""
    print(json.dumps({"key": key, "kind": kind, "content": content}), flush=True)


if __name__ == "__main__":
    main()
