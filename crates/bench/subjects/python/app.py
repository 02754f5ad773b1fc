"""A typical implementation of the function in Python, with boto3, a thread pool for the calls and the standard library."""

import base64
import functools
import hashlib
import hmac
import json
import os
import uuid
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

CALLS = 16
ENTRIES = 10
BYTES = 1_048_576
KINDS = ("messages", "statuses", "errors")

config = Config(
    connect_timeout=1,
    read_timeout=2,
    max_pool_connections=CALLS,
    retries={"mode": "standard", "total_max_attempts": 3},
    s3={"addressing_style": "path"} if os.environ.get("AWS_ENDPOINT_URL") else None,
)
session = boto3.Session()
sqs = session.client("sqs", config=config)
calls = ThreadPoolExecutor(CALLS)

answer = session.client("secretsmanager", config=config).get_secret_value(SecretId=os.environ["SECRET_ID"])
secret = json.loads(answer["SecretString"])
queues = json.loads(os.environ["QUEUE_URLS"])


@functools.cache
def s3():
    return session.client("s3", config=config)


def handler(event, context):
    method = event["requestContext"]["http"]["method"]
    if method == "GET":
        return challenge(event.get("queryStringParameters") or {})
    if method != "POST":
        return {"statusCode": 405}
    body = event.get("body") or ""
    body = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    if not is_signed(body, event["headers"].get("x-hub-signature-256", "")):
        return {"statusCode": 401}
    request_id = event["requestContext"]["requestId"]
    return {"statusCode": 200 if store(body, request_id) else 503}


def challenge(query):
    token = query.get("hub.verify_token", "")
    if query.get("hub.mode") != "subscribe" or not hmac.compare_digest(token.encode(), secret["verify_token"].encode()):
        return {"statusCode": 403}
    headers = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}
    return {"statusCode": 200, "headers": headers, "body": query.get("hub.challenge", "")}


def is_signed(body, header):
    expected = hmac.new(secret["app_secret"].encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(f"sha256={expected}".encode(), header.encode())


def store(body, request_id):
    by_queue = {}
    for entry in messages(body, request_id):
        by_queue.setdefault(entry.pop("queue"), []).append(entry)
    batches = [(queue, batch) for queue, entries in by_queue.items() for batch in in_batches(entries)]
    if len(batches) == 1:
        return send(batches[0])
    return all(list(calls.map(send, batches)))


def messages(body, request_id):
    try:
        envelope = json.loads(body)
        entries = envelope["entry"]
    except (ValueError, TypeError, KeyError):
        yield {"queue": queues["*"], "MessageBody": body.decode(errors="replace"), "MessageAttributes": {}}
        return
    for entry in entries:
        for change in entry["changes"]:
            yield message(envelope, entry, change, request_id)


def message(envelope, entry, change, request_id):
    value = change.get("value", {})
    kind = next((kind for kind in KINDS if value.get(kind)), None)
    text = json.dumps({**envelope, "entry": [{**entry, "changes": [change]}]}, separators=(",", ":"))
    attributes = {
        "field": change.get("field"),
        "entry_id": entry.get("id"),
        "kind": kind,
        "phone_number_id": value.get("metadata", {}).get("phone_number_id"),
        "event_id": hashlib.sha256(text.encode()).hexdigest(),
        "request_id": request_id,
    }
    queue = queues.get(f"{change.get('field')}.{kind}") or queues.get(change.get("field")) or queues["*"]
    return {
        "queue": queue if "/" in queue else queues["*"].rsplit("/", 1)[0] + "/" + queue,
        "MessageBody": text,
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": str(value)} for name, value in attributes.items() if value
        },
        "MessageGroupId": attributes["phone_number_id"] or attributes["entry_id"] or "-",
    }


def in_batches(entries):
    batch, size = [], 0
    for entry in entries:
        length = size_of(entry)
        if length > BYTES:
            entry = claim_check(entry)
            length = size_of(entry)
        if batch and (len(batch) == ENTRIES or size + length > BYTES):
            yield batch
            batch, size = [], 0
        batch.append({**entry, "Id": str(len(batch))})
        size += length
    if batch:
        yield batch


def size_of(entry):
    attributes = entry["MessageAttributes"].items()
    of_attributes = sum(len(name) + len("String") + len(value["StringValue"].encode()) for name, value in attributes)
    return len(entry["MessageBody"].encode()) + of_attributes


def claim_check(entry):
    body = entry["MessageBody"].encode()
    bucket, key = os.environ["PAYLOAD_BUCKET"], str(uuid.uuid4())
    s3().put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json")
    pointer = ["software.amazon.payloadoffloading.PayloadS3Pointer", {"s3BucketName": bucket, "s3Key": key}]
    size = {"DataType": "Number", "StringValue": str(len(body))}
    return {
        **entry,
        "MessageBody": json.dumps(pointer),
        "MessageAttributes": {**entry["MessageAttributes"], "ExtendedPayloadSize": size},
    }


def send(queue_and_batch):
    """Sends a batch, and what SQS refused of it once more; says whether all is stored."""
    queue, batch = queue_and_batch
    for _ in range(2):
        failed = {entry["Id"] for entry in sqs.send_message_batch(QueueUrl=queue, Entries=batch).get("Failed", [])}
        batch = [entry for entry in batch if entry["Id"] in failed]
        if not batch:
            return True
    return False
