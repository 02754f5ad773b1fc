"""The files that are generated from the contract, and the documents that link them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import generate_contract
from contract_page import DOCS, page
from test_schema import FOLDER, needs_node

LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")


@pytest.mark.parametrize("name", generate_contract.GENERATED)
def test_generated_file_is_current(name: str, request: pytest.FixtureRequest) -> None:
    if name.endswith(".ts") and not generate_contract.JSON_TO_TYPESCRIPT.exists():
        pytest.skip("Node.js is not installed, or make contract-tools did not run")
    generate: Callable[[], str] = generate_contract.GENERATED[name]
    assert (DOCS / name).read_text() == generate(), "`make contract` writes it anew"


def asyncapi_errors(document: dict[str, Any]) -> list[str]:
    command: list[str | Path] = ["node", FOLDER / "asyncapi.mjs"]
    done = subprocess.run(command, input=json.dumps(document), capture_output=True, text=True, check=True)
    errors: list[str] = json.loads(done.stdout)
    return errors


@needs_node
def test_asyncapi_parser_accepts_the_document() -> None:
    document = json.loads((DOCS / "asyncapi.json").read_text())
    assert asyncapi_errors(document) == []
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses == {queue.name for queue in generate_contract.queues()} | {"{stack}-unrouted"}
    document["channels"]["messages"]["bindings"]["sqs"]["queue"]["fifoQueue"] = "no"
    assert asyncapi_errors(document), "the parser checks the binding of SQS"


def test_fields_are_those_of_meta() -> None:
    fields = generate_contract.fields()
    names = [row["field"] for row in fields]
    assert len(set(names)) == len(names)
    for row in fields:
        assert not row["sample"] or (DOCS.parent / f"events/{row['sample']}.json").exists()
        assert all(route.split(".")[0] == row["field"] for route in row["queues"])


@pytest.mark.parametrize("name", ["contract.md", "assistants.md", "llms.txt"])
def test_links_lead_somewhere(name: str) -> None:
    text = (DOCS / name).read_text()
    found = [(path, anchor) for path, anchor in LINK.findall(text) if not path.startswith("http")]
    assert found
    for path, anchor in found:
        target = (DOCS / path).resolve() if path else DOCS / name
        assert target.exists() or path.startswith("../examples/messages"), path
        if anchor:
            assert anchor[1:] in anchors(target), f"{path}{anchor}"


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_parts_have_every_attribute() -> None:
    schema = json.loads((DOCS / "attributes.schema.json").read_text())
    for attribute in schema["properties"]:
        assert f"| `{attribute}` |" in page(), attribute
        assert f"`{attribute}`" in (DOCS / "assistants.md").read_text(), attribute


def test_queues_are_those_of_the_template() -> None:
    template = (DOCS.parent / "template.yaml").read_text()
    rows = dict(re.findall(r"^    (\w+): \{ Route: ([\w.@]+)", template, re.MULTILINE))
    enabled = re.findall(r"\$\{Queue(\w+)\.Outputs\.RouteEntry\}", template)
    assert {rows[key] for key in enabled} == {queue.route for queue in generate_contract.queues()}
    assert {route.partition(".")[0] for route in rows.values()} == {row["field"] for row in generate_contract.fields()}


def test_binding_has_the_properties_of_the_template() -> None:
    template = (DOCS.parent / "infra/field-queue.yaml").read_text()
    for name, value in (
        ("MessageRetentionPeriod", generate_contract.RETENTION),
        ("VisibilityTimeout", generate_contract.VISIBILITY_TIMEOUT),
        ("maxReceiveCount", generate_contract.MAX_RECEIVE_COUNT),
    ):
        assert set(re.findall(rf"\b{name}: (\d+)", template)) == {str(value)}, name
