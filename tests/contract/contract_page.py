"""Reads examples and code from docs/contract.md, and messages from examples/messages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLE = re.compile(r"<!-- example: (.*?) -->\n```text\n(.*?)\n\n(.*?)\n```\n", re.DOTALL)

Json = dict[str, Any]


def page() -> str:
    return (DOCS / "contract.md").read_text()


def schema(name: str = "message") -> Json:
    value: Json = json.loads((DOCS / f"{name}.schema.json").read_text())
    return value


def code(language: str, position: int = 0) -> str:
    """A block of code of the quick start in this language."""
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```\n", page(), re.DOTALL)
    return blocks[position]


def examples() -> dict[str, tuple[dict[str, str], str]]:
    """Attributes and body of each example, by its name."""
    found = {}
    for name, lines, body in EXAMPLE.findall(page()):
        found[name] = (dict(line.split(": ", 1) for line in lines.splitlines()), body)
    return found


def message_files() -> dict[str, tuple[dict[str, str], str]]:
    """Attributes and body of each message in examples/messages, by file and position."""
    found = {}
    for file in sorted((DOCS.parent / "examples/messages").glob("*.json")):
        for at, message in enumerate(json.loads(file.read_text())["Messages"]):
            attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
            found[f"{file.stem} {at}"] = (attributes, message["Body"])
    return found


def received(attributes: dict[str, str], body: str) -> Json:
    """A message in the form of the schema."""
    is_pointer = "ExtendedPayloadSize" in attributes
    is_text = "encoding" in attributes or attributes.get("unrouted_reason") == "not-json"
    return {"attributes": attributes, "body": body if is_text and not is_pointer else json.loads(body)}
