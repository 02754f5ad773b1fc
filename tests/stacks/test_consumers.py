"""The permissions of principals of other accounts for queues and objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import rows
from harness import OWNER, TOO_LARGE, LocalAws, Stack, assert_denied, change, receive_all

EVERY_FIELD, MESSAGES, STATUSES, STRANGER = "111111111111", "222222222222", "333333333333", "444444444444"
# The name of each field in the outputs, and its route.
ROUTES = {"Messages": "messages", "MessagesStatuses": "messages.statuses", "Security": "security"}
ALLOWED = {EVERY_FIELD: set(ROUTES), MESSAGES: {"Messages"}, STATUSES: {"MessagesStatuses"}, STRANGER: set()}
PARAMETERS = {"Consumers": f"arn:aws:iam::{EVERY_FIELD}:root"}
LARGE = "x" * TOO_LARGE


def with_consumers(template: str) -> str:
    messages = f'{{ Route: messages, Consumers: "arn:aws:iam::{MESSAGES}:root" }}'
    statuses = (
        "{ Route: messages.statuses, Name: messages-statuses, "
        f'Consumers: "arn:aws:iam::{STATUSES}:root,555555555555" }}'
    )
    template = rows.replace(template, "Messages", "Messages", messages)
    template = rows.replace(template, "MessagesStatuses", "MessagesStatuses", statuses)
    for key in ("Messages", "MessagesStatuses"):
        template = rows.open_key(rows.open_bodies(template, key, ROUTES[key]), key)
    return template


@pytest.fixture(scope="module")
def stack(aws: LocalAws) -> Stack:
    """A stack with a large message on each route, and a small one on `messages`."""
    stack = Stack(aws, "shared", PARAMETERS, edit=with_consumers)
    for body in (
        change("messages", "small"),
        change("messages", LARGE),
        change("messages", {"statuses": [{"id": LARGE}]}),
        change("security", LARGE),
        change("unheard_of", LARGE),
    ):
        assert stack.deliver(body) == 200
    assert set(stack.prefixes()) == {*ROUTES.values(), "unrouted"}
    return stack


# tests/template checks the encryption key for other accounts, which the local AWS does not support.
def test_call_without_tls_is_denied(aws: LocalAws, deploy: Callable[..., Stack]) -> None:
    stack = deploy(requires_tls=True, edit=with_consumers, **PARAMETERS)
    # The policies also deny the calls of the function, so it stores nothing.
    assert stack.deliver(change("messages", "small")) == 503
    for account in ALLOWED:
        user = aws.user(account)
        assert_denied(user("sqs").receive_message, QueueUrl=stack.outputs["QueueMessagesQueueUrl"])
        assert_denied(user("s3").get_object, Bucket=stack.outputs["PayloadBucket"], Key="messages/x")


@pytest.mark.parametrize("account", ALLOWED)
def test_consumer_reads_no_other_queue(aws: LocalAws, stack: Stack, account: str) -> None:
    sqs = aws.user(account)("sqs")
    for key in ROUTES:
        for kind in ("Queue", "DeadLetterQueue"):
            url = stack.outputs[f"Queue{key}{kind}Url"]
            if key in ALLOWED[account]:
                assert_may_only_receive(sqs, url)
            else:
                assert_may_do_nothing(sqs, url)
    assert_may_do_nothing(sqs, stack.outputs["CatchAllQueueUrl"])


def assert_may_only_receive(sqs: Any, url: str) -> None:
    name = url.rsplit("/", 1)[1]
    assert sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=OWNER)["QueueUrl"].endswith(f"/{OWNER}/{name}")
    assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    for received in sqs.receive_message(QueueUrl=url).get("Messages", []):
        receipt = received["ReceiptHandle"]
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=0)
    assert_denied(sqs.send_message, QueueUrl=url, MessageBody="forged")
    assert_denied(sqs.send_message_batch, QueueUrl=url, Entries=[{"Id": "1", "MessageBody": "forged"}])
    assert_denied(sqs.purge_queue, QueueUrl=url)
    assert_denied(sqs.delete_queue, QueueUrl=url)
    assert_denied(sqs.set_queue_attributes, QueueUrl=url, Attributes={"VisibilityTimeout": "1"})


def assert_may_do_nothing(sqs: Any, url: str) -> None:
    assert_denied(sqs.receive_message, QueueUrl=url)
    assert_denied(sqs.get_queue_attributes, QueueUrl=url, AttributeNames=["QueueArn"])
    assert_denied(sqs.send_message, QueueUrl=url, MessageBody="forged")
    assert_denied(sqs.delete_message, QueueUrl=url, ReceiptHandle="any")
    assert_denied(sqs.purge_queue, QueueUrl=url)


@pytest.mark.parametrize("account", ALLOWED)
def test_consumer_reads_no_other_bodies(aws: LocalAws, stack: Stack, account: str) -> None:
    s3, bucket = aws.user(account)("s3"), stack.outputs["PayloadBucket"]
    prefixes = stack.prefixes()
    for key, route in ROUTES.items():
        # A later test deletes the object of `messages`.
        body = {"Bucket": bucket, "Key": prefixes.get(route, f"{route}/x")}
        if key not in ALLOWED[account]:
            assert_denied(s3.get_object, **body)
            assert_denied(s3.delete_object, **body)
        elif route in prefixes:
            assert LARGE.encode() in s3.get_object(**body)["Body"].read()
        assert_denied(s3.put_object, Bucket=bucket, Key=f"{route}/x", Body=b"")
    assert_denied(s3.get_object, Bucket=bucket, Key=prefixes["unrouted"])
    assert_denied(s3.list_objects_v2, Bucket=bucket)


def test_consumer_deletes_body_with_its_message(aws: LocalAws, stack: Stack) -> None:
    """A library for large messages receives the message, reads the object and deletes both."""
    sqs, s3 = aws.user(MESSAGES)("sqs"), aws.user(MESSAGES)("s3")
    url = stack.outputs["QueueMessagesQueueUrl"]
    received = receive_all(sqs, url)
    assert len(received) == 2
    [pointer] = [body[1] for body in (json.loads(each["Body"]) for each in received) if isinstance(body, list)]
    assert pointer["s3BucketName"] == stack.outputs["PayloadBucket"]
    body = {"Bucket": pointer["s3BucketName"], "Key": pointer["s3Key"]}
    assert len(s3.get_object(**body)["Body"].read()) > TOO_LARGE
    s3.delete_object(**body)
    for each in received:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])
    assert receive_all(sqs, url) == []
