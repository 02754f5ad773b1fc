"""Handles what customers write: each message once, and one that cannot be handled alone comes back."""

from __future__ import annotations

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
from pywa import WhatsApp

# Meta sends again for 7 days, and a copy may lie on the queue for 4.
COPIES_COME_FOR = 11 * 24 * 3600

logger = Logger()
s3 = boto3.client("s3")
processor = BatchProcessor(event_type=EventType.SQS)
handled = DynamoDBPersistenceLayer(table_name=os.environ["HANDLED_TABLE"])
by_event_id = IdempotencyConfig(event_key_jmespath="event_id", expires_after_seconds=COPIES_COME_FOR)

# Nothing is filtered, checked or dropped here: the ingress has verified the signature, the table knows copies, and a
# message that failed must be read again when it comes back.
whatsapp = WhatsApp(filter_updates=False, validate_updates=False, skip_duplicate_updates=False)
parsed: list[Any] = []


# pywa swallows what its handlers raise, so they only keep what it has made of the body.
@whatsapp.on_message
@whatsapp.on_callback_button
@whatsapp.on_callback_selection
@whatsapp.on_flow_completion
@whatsapp.on_edited_message
@whatsapp.on_deleted_message
@whatsapp.on_phone_number_change
@whatsapp.on_identity_change
def keep(_: WhatsApp, update: Any) -> None:
    parsed.append(update)


def handler(event: dict[str, Any], context: LambdaContext) -> Any:
    by_event_id.register_lambda_context(context)
    return process_partial_response(event=event, record_handler=on_record, processor=processor, context=context)


def on_record(record: SQSRecord) -> None:
    attributes = {name: attribute.string_value for name, attribute in record.message_attributes.items()}
    if attributes.get("kind") == "messages":
        on_message(message={**attributes, "body": body_of(record, attributes)})


def body_of(record: SQSRecord, attributes: dict[str, str | None]) -> str:
    if "ExtendedPayloadSize" not in attributes:
        return record.body
    _, where = json.loads(record.body)
    return s3.get_object(Bucket=where["s3BucketName"], Key=where["s3Key"])["Body"].read().decode()


@idempotent_function(data_keyword_argument="message", persistence_store=handled, config=by_event_id)
def on_message(message: dict[str, str]) -> dict[str, str]:
    parsed.clear()
    whatsapp.webhook_update_handler(message["body"].encode())
    if not parsed:
        raise ValueError("pywa cannot read the message")
    return work(parsed[0], message)


def work(update: Any, message: dict[str, str]) -> dict[str, str]:
    """The place for your own code. What it returns is kept with the event_id."""
    logger.info("handled", extra={"event_id": message["event_id"], "type": type(update).__name__})
    return {"type": type(update).__name__, "id": update.id, "request_id": message["request_id"]}
