"""Handles each message, receipt and error of a change once. A change with an item that fails comes back, alone."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.typing import LambdaContext

WHATSAPP = "whatsapp_business_account"

# Meta retries for 7 days, a queue keeps a message for 14, and for 14 more if the operator moves it once.
MAX_COPY_AGE_SECONDS = 35 * 24 * 3600

logger = Logger()
s3 = boto3.client("s3")
processor = BatchProcessor(event_type=EventType.SQS)
handled = DynamoDBPersistenceLayer(table_name=os.environ["HANDLED_TABLE"])
by_key = IdempotencyConfig(event_key_jmespath="key", expires_after_seconds=MAX_COPY_AGE_SECONDS)


def handler(event: dict[str, Any], context: LambdaContext) -> Any:
    # A claim ends when the invocation must end. Without the context, it would end with the record, after 35 days.
    by_key.register_lambda_context(context)
    return process_partial_response(event=event, record_handler=on_record, processor=processor, context=context)


def on_record(record: SQSRecord) -> None:
    attributes = {name: attribute.string_value or "" for name, attribute in record.message_attributes.items()}
    notification = json.loads(body_of(record, attributes))
    change = notification["entry"][0]["changes"][0]
    # All three lists, whatever the attribute `kind`: it names only the first that is not empty.
    lists = {kind: change["value"].get(kind) for kind in ("messages", "statuses", "errors")}
    lists = {kind: items for kind, items in lists.items() if isinstance(items, list)}
    if notification.get("object", WHATSAPP) != WHATSAPP or change.get("field") != "messages" or not any(lists.values()):
        # SQS deletes messages that are not reported as failed. This one becomes a dead letter, and its alarm goes off.
        raise ValueError("neither a message nor a receipt nor an error")
    failures = []
    for kind, items in lists.items():
        for position, content in enumerate(items):
            key = f"{attributes['event_id']}/{kind}/{position}"
            try:
                once(item={"key": key, "kind": kind, "content": content}, value=change["value"])
            except Exception as error:
                failures.append(error)
    # An item that fails does not hold up the others. They are skipped when the message comes back.
    if failures:
        raise failures[0]


def body_of(record: SQSRecord, attributes: dict[str, str]) -> str | bytes:
    body: str | bytes = record.body
    if "ExtendedPayloadSize" in attributes:
        _, where = json.loads(body)
        body = s3.get_object(Bucket=where["s3BucketName"], Key=where["s3Key"])["Body"].read()
    return base64.b64decode(body, validate=True) if attributes.get("encoding") == "base64" else body


# Claims the key by a conditional write before the work, until the time limit of the invocation. Stores that the item is done
# after the work. If the work fails, it deletes the claim. If another invocation has the claim, it raises an exception, so the
# message comes back.
@idempotent_function(data_keyword_argument="item", persistence_store=handled, config=by_key)
def once(item: dict[str, Any], value: dict[str, Any]) -> None:
    work(item["key"], item["kind"], item["content"], value)


def work(key: str, kind: str, content: dict[str, Any], value: dict[str, Any]) -> None:
    """The place for your own code: a message, a receipt (`statuses`) or an error, and the value that contains it."""
    what = {"messages": "type", "statuses": "status", "errors": "title"}[kind]
    logger.info("handled", extra={"key": key, "what": content[what]})
