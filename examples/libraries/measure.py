"""Measures what WhatsApp libraries read of the bodies on the queue of `messages`, and writes the table of examples/README.md.

Each library gets one change at a time, as on a queue. A change is read if the library hands over each of its messages and
receipts. Usage: PAYLOAD_CORPUS=folder python measure.py
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import hmac
import importlib.metadata
import json
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
EVENTS = HERE.parent.parent / "events"
BEGIN, END = "<!-- libraries: written by libraries/measure.py -->\n", "<!-- end of libraries -->\n"
SEVERAL, ONE = ("messages-three", "messages-with-receipts", "statuses-200"), "messages-text"
# The consumer of a message with this id fails.
FAILING = "wamid.failing"

PYWA_UPDATES = [
    "message", "callback_button", "callback_selection", "message_status", "flow_completion", "edited_message",
    "deleted_message", "phone_number_change", "identity_change",
]  # fmt: skip

Ids = list[str]
# Takes bodies one after another, with the library's default settings, and returns the ids that it hands over of each.
Reader = Callable[[list[bytes]], Iterator[Ids]]


def pywa(bodies: list[bytes]) -> Iterator[Ids]:
    from pywa import WhatsApp

    whatsapp, ids = WhatsApp(validate_updates=False), Kept()
    for update in PYWA_UPDATES:
        getattr(whatsapp, f"on_{update}")(lambda _, update: ids.keep(update.id))
    for body in bodies:
        whatsapp.webhook_update_handler(body)
        yield ids.take()


def kapso_whatsapp_cloud_api(bodies: list[bytes]) -> Iterator[Ids]:
    from kapso_whatsapp.webhooks import normalize_webhook

    for body in bodies:
        found = normalize_webhook(body.decode())
        yield Kept(*(message.get("id") for message in found.messages), *(status.id for status in found.statuses)).take()


def waba_sdk(bodies: list[bytes]) -> Iterator[Ids]:
    from waba_sdk.webhook.handler import WebhookHandler

    ids = Kept()

    async def on_message(event: Any) -> None:
        ids.keep(event.message.id)

    async def on_status(event: Any) -> None:
        ids.keep(event.status.id)

    handler = WebhookHandler(verify_token="token", on_message=on_message, on_status=on_status)
    for body in bodies:
        asyncio.run(handler.handle(json.loads(body)))
        yield ids.take()


def whatsapp_cloud_api_py(bodies: list[bytes]) -> Iterator[Ids]:
    from whatsapp_cloud_api.webhooks.normalize import normalize_webhook

    for body in bodies:
        found = normalize_webhook(json.loads(body))
        yield Kept(*(item.id for item in [*found.messages, *found.statuses])).take()


def whatsapp_client(bodies: list[bytes]) -> Iterator[Ids]:
    from whatsapp_client import WebhookHandler

    ids = Kept()

    async def on_item(_: Any, __: Any, item: Any) -> None:
        ids.keep(item.id)

    client: Any = None
    handler = WebhookHandler(app_secret="secret", client=client, on_message=on_item, on_status=on_item)
    for body in bodies:
        signature = "sha256=" + hmac.new(b"secret", body, hashlib.sha256).hexdigest()
        asyncio.run(handler.handle(body=body, signature=signature))
        yield ids.take()


def plain_json(bodies: list[bytes]) -> Iterator[Ids]:
    for body in bodies:
        value = json.loads(body)["entry"][0]["changes"][0]["value"]
        yield Kept(*(item["id"] for kind in ("messages", "statuses") for item in value.get(kind, []))).take()


class Kept:
    """The work of a consumer: keeps ids, and fails for one of them."""

    def __init__(self, *ids: str) -> None:
        self.ids: Ids = []
        for id in ids:
            self.keep(id)

    def keep(self, id: str) -> None:
        if id == FAILING:
            raise ValueError(id)
        self.ids.append(id)

    def take(self) -> Ids:
        ids, self.ids = self.ids, []
        return ids


def in_node(library: str) -> Reader:
    def read(bodies: list[bytes]) -> Iterator[Ids]:
        given = json.dumps([body.decode() for body in bodies])
        node = ["node", str(HERE / "measure.mjs"), library]
        for ids in json.loads(subprocess.run(node, input=given, capture_output=True, text=True, check=True).stdout):
            if ids is None:
                raise ValueError(f"{library} has thrown an error")
            yield ids

    return read


READERS: dict[str, Reader] = {
    read.__name__.replace("_", "-"): read
    for read in (kapso_whatsapp_cloud_api, pywa, waba_sdk, whatsapp_client, whatsapp_cloud_api_py)
} | {library: in_node(library) for library in ("@kapso/whatsapp-cloud-api", "whatsapp-api-js")}


def changes_of(notification: Any) -> Iterator[bytes]:
    """Yields a notification for each change of the field `messages` that has a message or receipt."""
    for entry in notification.get("entry", []) if isinstance(notification, dict) else []:
        for change in entry.get("changes", []):
            value = change.get("value")
            if change.get("field") == "messages" and isinstance(value, dict) and ids_of(value):
                alone = {"object": notification.get("object"), "entry": [entry | {"changes": [change]}]}
                yield json.dumps(alone).encode()


def ids_of(value: dict[str, Any]) -> Ids:
    items = [item for kind in ("messages", "statuses") for item in value.get(kind) or []]
    return sorted(item["id"] for item in items if isinstance(item, dict) and "id" in item)


def result(read: Reader, *bodies: bytes) -> list[Ids] | None:
    """Returns the ids of each body, or none if the library raises."""
    try:
        return list(read(list(bodies)))
    except Exception:
        return None


def reads(read: Reader, body: bytes) -> bool:
    found = result(read, body)
    return found is not None and sorted(found[0]) == ids_of(json.loads(body)["entry"][0]["changes"][0]["value"])


def with_user_ids(body: bytes) -> bytes:
    """The body as Meta sends it since people have a user id, and receipts have contacts."""
    notification = json.loads(body)
    value = notification["entry"][0]["changes"][0]["value"]
    value.setdefault("contacts", [{"wa_id": "447700900317"}])
    for contact in value["contacts"]:
        contact["user_id"] = "GB.1020304050607080"
    return json.dumps(notification).encode()


def row(name: str, read: Reader, corpus: list[bytes], ours: dict[str, bytes]) -> str:
    share = round(100 * sum(reads(read, body) for body in corpus) / len(corpus))
    one = with_user_ids(ours[ONE])
    notification = json.loads(one)
    messages = notification["entry"][0]["changes"][0]["value"]["messages"]
    failing = one.replace(messages[0]["id"].encode(), FAILING.encode())
    messages[0] = 5
    columns = [
        all(reads(read, with_user_ids(ours[name])) for name in SEVERAL),
        [len(ids) for ids in result(read, one, one) or []] == [1, 0],
        any(result(read, body) is not None for body in (failing, json.dumps(notification).encode())),
    ]
    return f"| {name} | {share} % | {' | '.join('yes' if column else 'no' for column in columns)} |"


def version(name: str) -> str:
    if name == "plain-json":
        return "plain JSON"
    packages = json.loads((HERE / "package.json").read_text())["dependencies"]
    return f"{name} {packages.get(name) or importlib.metadata.version(name)} ({'npm' if name in packages else 'PyPI'})"


def main() -> None:
    logging.disable()
    files = sorted(Path(os.environ["PAYLOAD_CORPUS"]).glob("*/*.json"))
    corpus = [body for file in files for body in changes_of(json.loads(file.read_text()))]
    ours = {name: json.loads((EVENTS / f"{name}.json").read_text())["body"].encode() for name in (*SEVERAL, ONE)}
    rows = [row(version(name), read, corpus, ours) for name, read in {**READERS, "plain-json": plain_json}.items()]
    rows.sort(key=lambda line: -int(line.split("|")[2].split()[0]))
    head = ["library", "reads", "reads all items of a change", "removes duplicates by itself", "swallows exceptions"]
    table = [
        f"As of {datetime.date.today()}, on {len(corpus)} changes of {len(files)} public payloads.\n",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        *rows,
    ]
    before, rest = README.read_text().split(BEGIN)
    README.write_text(before + BEGIN + "\n".join(table) + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
