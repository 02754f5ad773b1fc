"""The schemas and types: with the tools that consumers use, and with messages that are right and wrong."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from contract_page import DOCS, Json, examples, message_files, received, schema

FOLDER = Path(__file__).resolve().parent
TOOLS = FOLDER / "node_modules/.bin"
SECRET = "a body that no error may contain"

needs_node = pytest.mark.skipif(
    not TOOLS.exists(), reason="Node.js is not installed, or make contract-tools did not run"
)


def messages() -> dict[str, Json]:
    return {name: received(*example) for name, example in examples().items()}


def broken() -> Iterator[tuple[str, Json]]:
    """Messages with an attribute too few or too many, or with another body."""
    of_others = {name: message["attributes"] for name, message in messages().items()}
    bodies: list[Any] = [SECRET, [SECRET], {"entry": [SECRET]}, {"entry": [{"changes": [SECRET, SECRET]}]}, 7, None]
    for name, message in messages().items():
        for attribute in message["attributes"]:
            less = copy.deepcopy(message)
            del less["attributes"][attribute]
            yield f"{name} without {attribute}", less
        for other, attributes in of_others.items():
            yield f"{name} with attributes of {other}", {"attributes": attributes, "body": message["body"]}
        for body in bodies:
            yield f"{name} with body {body}", {"attributes": message["attributes"], "body": body}


def python_errors(message: Json) -> list[jsonschema.ValidationError]:
    return list(jsonschema.Draft202012Validator(schema()).iter_errors(message))


def run_node(script: str, value: object) -> Any:
    done = subprocess.run(
        ["node", FOLDER / script], input=json.dumps(value), capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_examples_are_valid() -> None:
    assert len(messages()) >= 12
    files = {name: received(*message) for name, message in message_files().items()}
    assert len(files) >= 18
    for name, message in (messages() | files).items():
        assert not python_errors(message), name


def test_errors_name_an_attribute_and_no_body() -> None:
    invalid = [(name, errors) for name, message in broken() if (errors := python_errors(message))]
    assert len(invalid) > 200
    for name, errors in invalid:
        for error in errors:
            assert error.absolute_path[0] == "attributes", name
            assert error.path != error.schema_path
            assert SECRET not in str(error), name
            assert "447700900317" not in str(error), name
            attributes = schema()["$defs"]["attributes"]["properties"]
            assert any(attribute in f"{error.message} {error.json_path}" for attribute in attributes), error.message


@needs_node
def test_ajv_in_strict_mode_agrees() -> None:
    cases = [*messages().items(), *broken()]
    found = run_node("validate.mjs", [schema(), [message for _, message in cases]])
    for (name, message), errors in zip(cases, found, strict=True):
        assert bool(errors) == bool(python_errors(message)), name
        assert SECRET not in json.dumps(errors), name
        assert all(error["instancePath"].startswith("/attributes") or error["keyword"] == "if" for error in errors), (
            errors
        )


@needs_node
def test_ajv_reads_the_attributes_alone() -> None:
    found = run_node("validate.mjs", [schema("attributes"), [message["attributes"] for message in messages().values()]])
    assert found == [[]] * len(found)
    [errors] = run_node("validate.mjs", [schema("attributes"), [{"event_id": "short", "kind": "calls"}]])
    assert {error["instancePath"] for error in errors} == {"/event_id", "/kind"}


@needs_node
@pytest.mark.parametrize("name", ["message", "attributes"])
def test_quicktype_reads_the_schemas(name: str, tmp_path: Path) -> None:
    source = DOCS / f"{name}.schema.json"
    command: list[str | Path] = [
        TOOLS / "quicktype",
        "--src-lang",
        "schema",
        "--lang",
        "python",
        "--python-version",
        "3.7",
        source,
    ]
    target = tmp_path / "quicktyped.py"
    subprocess.run([*command, "--out", target], check=True, timeout=120)
    assert "event_id: str" in target.read_text()
    compile(target.read_text(), target, "exec")


@pytest.mark.parametrize("name", ["message", "attributes"])
def test_datamodel_codegen_reads_the_schemas(name: str, tmp_path: Path) -> None:
    source, target = DOCS / f"{name}.schema.json", tmp_path / "models.py"
    options = "--input-file-type=jsonschema --output-model-type=pydantic_v2.BaseModel --use-title-as-name --formatters=builtin"
    command: list[str | Path] = [sys.executable, "-m", "datamodel_code_generator", *options.split()]
    subprocess.run([*command, "--input", source, "--output", target], check=True)
    spec = importlib.util.spec_from_file_location("models", target)
    assert spec
    assert spec.loader
    models = importlib.util.module_from_spec(spec)
    sys.modules["models"] = models
    spec.loader.exec_module(models)
    for message in messages().values():
        assert models.Attributes.model_validate(message["attributes"]).event_id == message["attributes"]["event_id"]
    with pytest.raises(ValueError, match="event_id"):
        models.Attributes.model_validate({"kind": "messages"})


CONSUMER = """
import type { Attributes, Message, Notification, Pointer } from "./contract.js";

const attributes: Attributes = { event_id: "0", kind: "statuses", unrouted_reason: "no-route" };
const message: Message = { attributes, body: { entry: [{ changes: [{ field: "messages", value: { messages: [] } }] }] } };
const { entry: [{ changes: [{ value }] }] } = message.body as Notification;
const [, { s3Key }] = message.body as Pointer;
console.log(value?.["messages"], s3Key.length);
"""


@needs_node
@pytest.mark.parametrize(
    ("change", "is_accepted"), [(("", ""), True), (('"statuses"', '"calls"'), False), (("s3Key", "s3key"), False)]
)
def test_typescript_types_are_checked(change: tuple[str, str], is_accepted: bool, tmp_path: Path) -> None:
    shutil.copy(DOCS / "types/contract.d.ts", tmp_path)
    (tmp_path / "consumer.ts").write_text(CONSUMER.replace(*change) if change[0] else CONSUMER)
    options = "--strict --noEmit --target es2022 --module nodenext --lib es2022,dom --types"
    done = subprocess.run(
        [TOOLS / "tsc", *options.split(), "", tmp_path / "consumer.ts"], capture_output=True, text=True
    )
    assert (done.returncode == 0) == is_accepted, done.stdout


def test_python_types_are_checked(tmp_path: Path) -> None:
    consumer = tmp_path / "consumer.py"
    shutil.copy(DOCS / "types/contract.py", tmp_path)
    good = 'from contract import Attributes\n\nattributes: Attributes = {"event_id": "0", "kind": "statuses"}\n'
    for text, is_accepted in ((good, True), (good.replace("statuses", "calls"), False)):
        consumer.write_text(text)
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            "--cache-dir",
            tmp_path / "cache",
            consumer,
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode == 0) == is_accepted, done.stdout
