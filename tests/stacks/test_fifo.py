"""A stack with FIFO queues for two fields."""

from __future__ import annotations

import pytest

import rows
from harness import LocalAws, Stack, change, message, message_ids, receive_all


@pytest.fixture(scope="module")
def stack(aws: LocalAws) -> Stack:
    def edit(template: str) -> str:
        template = rows.replace(template, "Messages", "MessagesFifo", '{ Route: messages, Fifo: "true" }')
        return rows.replace(template, "Security", "SecurityFifo", '{ Route: security, Fifo: "true" }')

    return Stack(aws, "ordered", {}, edit=edit)


def test_fifo_row_creates_queue_pair(stack: Stack) -> None:
    assert {route for route, queue in stack.routes.items() if queue.endswith(".fifo")} == {"messages", "security"}
    urls = [stack.outputs[f"QueueMessagesFifo{kind}Url"] for kind in ("Queue", "DeadLetterQueue")]
    assert [url.rpartition("/")[2] for url in urls] == ["ordered-messages.fifo", "ordered-messages-dead.fifo"]
    for url in urls:
        attributes = stack.attributes(url)
        assert attributes["FifoQueue"] == "true"
        assert attributes["DeduplicationScope"] == "messageGroup"
        assert attributes["FifoThroughputLimit"] == "perMessageGroupId"


def test_conversation_keeps_order_without_duplicates(stack: Stack) -> None:
    url = stack.queue_url("messages")
    # Delivers 2 twice, as Meta does without a response.
    assert [stack.deliver(message(number)) for number in (1, 2, 3, 2, 4, 5)] == [200] * 6
    first = stack.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=2)["Messages"]
    # SQS delivers a message group to one consumer at a time.
    assert receive_all(stack.sqs, url) == []
    for received in first:
        stack.sqs.delete_message(QueueUrl=url, ReceiptHandle=received["ReceiptHandle"])
    ids = message_ids(first + receive_all(stack.sqs, url))
    assert ids == [f"wamid.{number}" for number in (1, 2, 3, 4, 5)]


def test_standard_queue_keeps_both_copies(stack: Stack) -> None:
    assert [stack.deliver(change("account_update", {})) for _ in range(2)] == [200, 200]
    assert len(receive_all(stack.sqs, stack.queue_url("account_update"))) == 2
