# Generated from message.schema.json by `make contract`.
# The types describe what Meta documents. The function checks only the attributes, `entry` and `changes`, and on the queue of a
# route that `field` is a text. Check the type of every other member before you use it: `value` can be null, a list or a text.

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict


class Attributes(TypedDict):
    """
    The message attributes by name. Ignore a name that is not here: a later release added it.
    """

    event_id: str
    request_id: NotRequired[str]
    field: NotRequired[str]
    kind: NotRequired[Literal["messages", "statuses", "errors"]]
    entry_id: NotRequired[str]
    phone_number_id: NotRequired[str]
    unrouted_reason: NotRequired[Literal["no-route", "no-field", "not-json", "not-a-notification", "queue-unavailable"]]
    diverted_from: NotRequired[str]
    encoding: NotRequired[Literal["base64"]]
    replayed: NotRequired[str]
    ExtendedPayloadSize: NotRequired[str]


class Change(TypedDict):
    field: NotRequired[str]
    value: NotRequired[dict[str, Any]]


class Entry(TypedDict):
    id: NotRequired[str]
    time: NotRequired[float]
    changes: list[Change]


class Notification(TypedDict):
    """
    The usual body: what Meta sent, with one entry and in it one change. Meta's documentation describes the value.
    """

    object: NotRequired[str]
    entry: list[Entry]


class S3Object(TypedDict):
    s3BucketName: str
    s3Key: str


Pointer: TypeAlias = list[Literal["software.amazon.payloadoffloading.PayloadS3Pointer"] | S3Object]
"""
What the Amazon SQS Extended Client Library writes in place of a body that is in S3.
"""


class Message(TypedDict):
    """
    What a consumer received. The attributes decide what the body is, see docs/contract.md.
    """

    attributes: Attributes
    body: Notification | Pointer | str | dict[str, Any] | list[Any]
