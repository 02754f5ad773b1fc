"""Generates the files that are derived from the contract. `make contract` writes them, and tests/contract compares them.

docs/message.schema.json  ->  docs/attributes.schema.json, docs/types/contract.py, docs/types/contract.d.ts
docs/fields.json          ->  the table of fields in docs/contract.md, docs/asyncapi.json
docs/contract.md          ->  docs/assistants.md, docs/llms.txt
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
JSON_TO_TYPESCRIPT = ROOT / "tests/contract/node_modules/.bin/json2ts"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
FIELDS = re.compile(r"(<!-- fields: .* -->\n).*(<!-- end of fields -->\n)", re.DOTALL)
PART = re.compile(r"<!-- part: (.*?) -->\n(.*?)<!-- end of part -->\n", re.DOTALL)

DAY = 24 * 60 * 60
RETENTION = 14 * DAY
VISIBILITY_TIMEOUT = 180
MAX_RECEIVE_COUNT = 5


def message_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((DOCS / "message.schema.json").read_text())
    return schema


def attributes_schema() -> str:
    """The definition of the attributes as a schema of its own."""
    head = {"$schema": DRAFT, "$id": "urn:whatsapp-ingress:attributes:1"}
    return to_json(head | message_schema()["$defs"]["attributes"])


def types_schema() -> dict[str, Any]:
    """The types of the schema without its conditions, in the older form of tuples, which more tools read."""
    schema = message_schema()
    names = ("attributes", "notification", "pointer")
    definitions = {name: copy.deepcopy(schema["$defs"][name]) for name in names}
    pointer = definitions["pointer"]
    pointer["items"], pointer["additionalItems"] = pointer.pop("prefixItems"), False
    del definitions["attributes"]["propertyNames"]
    del pointer["items"][1]["additionalProperties"]
    change = definitions["notification"]["properties"]["entry"]["items"]["properties"]["changes"]["items"]
    change["properties"]["value"]["additionalProperties"] = True
    bodies = [{"$ref": f"#/$defs/{name}"} for name in ("notification", "pointer")]
    anything: list[dict[str, Any]] = [
        {"type": "string"},
        {"type": "object", "additionalProperties": True},
        {"type": "array", "items": {}},
    ]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": schema["title"],
        "description": "What a consumer received. The attributes decide what the body is, see docs/contract.md.",
        "type": "object",
        "properties": {"attributes": {"$ref": "#/$defs/attributes"}, "body": {"anyOf": bodies + anything}},
        "required": schema["required"],
        "$defs": definitions,
    }


def types_header(mark: str) -> str:
    lines = (
        "Generated from message.schema.json by `make contract`.",
        "The types describe what Meta documents. The function checks only the attributes, `entry` and `changes`, and on the queue of a",
        "route that `field` is a text. Check the type of every other member before you use it: `value` can be null, a list or a text.",
    )
    return "".join(f"{mark} {line}\n" for line in lines)


def python_types() -> str:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "message.schema.json"), Path(folder, "contract.py")
        source.write_text(json.dumps(types_schema()))
        options = (
            "--input-file-type=jsonschema --output-model-type=typing.TypedDict --target-python-version=3.11"
            " --enum-field-as-literal=all --use-title-as-name --use-schema-description --use-standard-collections"
            " --use-union-operator --disable-timestamp --formatters=builtin"
        )
        command: list[str | Path] = [sys.executable, "-m", "datamodel_code_generator", *options.split()]
        subprocess.run([*command, "--input", source, "--output", target], check=True)
        ruff: list[str | Path] = [
            sys.executable,
            "-m",
            "ruff",
            "format",
            "--quiet",
            "--config",
            ROOT / "pyproject.toml",
            target,
        ]
        subprocess.run(ruff, check=True)
        return types_header("#") + after_comments(target.read_text(), "#")


def typescript_types() -> str:
    command: list[str | Path] = [JSON_TO_TYPESCRIPT, "--additionalProperties=false", "--bannerComment="]
    done = subprocess.run(command, check=True, capture_output=True, input=json.dumps(types_schema()), text=True)
    lines = [line for line in done.stdout.splitlines() if "via the `definition`" not in line]
    text = "\n".join(line for line in lines if "This interface was referenced by" not in line)
    return f"{types_header('//')}\n{text.strip()}\n".replace(" *\n */", " */")


def after_comments(text: str, mark: str) -> str:
    lines = text.splitlines(keepends=True)
    while lines and lines[0].startswith(mark):
        del lines[0]
    return "".join(lines)


@dataclass(frozen=True)
class Queue:
    """A queue that a stack has by default."""

    route: str
    description: str

    @property
    def name(self) -> str:
        return "{stack}-" + self.route.replace(".", "-")


def fields() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((DOCS / "fields.json").read_text())["fields"]
    return rows


def queues() -> list[Queue]:
    """The queues that exist by default, except the catch-all queue. A test compares them with the template."""
    return [Queue(route, row["description"]) for row in fields() for route in row["queues"]]


def fields_table() -> str:
    lines = ["| field | content | queue by default, after the stack's name | kinds | sample |", "|---|---|---|---|---|"]
    for row in fields():
        names = [f"`-{route.replace('.', '-')}`" for route in row["queues"]]
        kinds = [f"`{kind}`" for kind in row["kinds"]]
        sample = f"[{row['sample']}](../events/{row['sample']}.json)" if row["sample"] else ""
        cells = [f"[`{row['field']}`]({row['page']})", row["description"], ", ".join(names), ", ".join(kinds), sample]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def contract_page() -> str:
    page = (DOCS / "contract.md").read_text()
    return FIELDS.sub(lambda found: found[1] + fields_table() + found[2], page)


def asyncapi() -> str:
    """AsyncAPI 3. One channel for each queue that exists by default, and one for the catch-all queue."""
    schemas = {definition["title"]: definition for definition in types_schema()["$defs"].values()}
    components = {
        "messages": {
            "Change": {
                "title": "One change",
                "summary": "A notification with one change, or the pointer to it in S3 if ExtendedPayloadSize is present.",
                "contentType": "application/json",
                "headers": reference("schemas", "Attributes"),
                "payload": {"anyOf": [reference("schemas", "Notification"), reference("schemas", "Pointer")]},
            },
            "Unrouted": {
                "title": "Everything else",
                "summary": "A change that no other queue got, other JSON, text, or base64. The attributes decide which.",
                "headers": reference("schemas", "Attributes"),
                "payload": {"description": "Any JSON, or text."},
            },
        },
        "schemas": schemas,
    }
    channels, operations = {}, {}
    catch_all = Queue("unrouted", "The catch-all queue: everything that no other queue got.")
    for queue in [*queues(), catch_all]:
        message = "Unrouted" if queue == catch_all else "Change"
        key = queue.name.removeprefix("{stack}-").replace("-", "_")
        channels[key] = {
            "address": queue.name,
            "description": queue.description,
            "messages": {message: reference("messages", message)},
            "parameters": {"stack": {"description": "The name of the stack.", "default": "whatsapp-ingress"}},
            "bindings": {"sqs": sqs_binding(queue.name, dead_letters=queue != catch_all)},
        }
        operations[f"receive_{key}"] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{key}"},
            "summary": f"Receive from the queue of the route {queue.route}."
            if queue != catch_all
            else "Receive from the catch-all queue.",
            "messages": [{"$ref": f"#/channels/{key}/messages/{message}"}],
        }
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "whatsapp-ingress",
            "version": "1",
            "description": "The queues that exist by default and their messages, as a consumer receives them. Headers are SQS message "
            "attributes. The operator can add queues, narrow them to a phone number, and make them FIFO; docs/contract.md "
            "is the whole contract.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": components,
    }
    return to_json(document)


def sqs_binding(name: str, *, dead_letters: bool) -> dict[str, Any]:
    queue: dict[str, Any] = {
        "name": name,
        "fifoQueue": False,
        "visibilityTimeout": VISIBILITY_TIMEOUT,
        "messageRetentionPeriod": RETENTION,
    }
    binding: dict[str, Any] = {"queue": queue, "bindingVersion": "0.2.0"}
    if dead_letters:
        dead = f"{name}-dead"
        queue["redrivePolicy"] = {"deadLetterQueue": {"name": dead}, "maxReceiveCount": MAX_RECEIVE_COUNT}
        binding["deadLetterQueue"] = {"name": dead, "fifoQueue": False, "messageRetentionPeriod": RETENTION}
    return binding


def reference(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def parts() -> dict[str, str]:
    """The parts of the contract that an assistant needs, by name. Their links lead back to the page."""
    page = (DOCS / "contract.md").read_text()
    return {name: text.replace("](#", "](contract.md#") for name, text in PART.findall(page)}


def assistants_page() -> str:
    sections = "".join(f"\n## {title(name)}\n\n{text}" for name, text in parts().items())
    contents = "".join(f"- [{title(name)}](#{name.lower().replace(' ', '-').replace(',', '')})\n" for name in parts())
    return (
        "# For assistants that write consumers\n\n"
        "Cut from [the contract](contract.md) by `make contract`: the parts that a consumer's code depends on. Write code that follows "
        "each rule of the quick start. Test it with the files of [examples/messages](../examples/messages/): every item of every file is "
        "handled once, and `messages-without-kind` is not deleted unless the whole change is stored. "
        "End the consumer in the middle of an item, and start it again: the item is handled. For a strict check use [message.schema.json](message.schema.json), "
        f"for types [types/](types/).\n\n{contents}" + sections
    )


def title(name: str) -> str:
    return name[0].upper() + name[1:]


def llms() -> str:
    rules = re.search(r"### Rules\n\n(.*)", parts()["quick start"], re.DOTALL)
    assert rules, "the quick start has rules"
    return (
        "# whatsapp-ingress\n\n"
        "> Receives the WhatsApp webhooks of a Meta app and stores each change on an SQS queue per field. A consumer reads a queue: the body "
        "is a notification with one entry and one change, the message attributes describe it.\n\n"
        f"{rules[1].strip()}\n\n"
        "## Write a consumer\n\n"
        "- [For assistants](assistants.md): code in Python and TypeScript, attributes, identity, large bodies, copies\n"
        "- [Message files](../examples/messages/): one for each case, with what a consumer receives\n"
        "- [Consumers to copy](../examples/README.md)\n\n"
        "## Reference\n\n"
        "- [The contract](contract.md): everything that a consumer relies on\n"
        "- [message.schema.json](message.schema.json), [attributes.schema.json](attributes.schema.json): JSON Schema 2020-12\n"
        "- [types/contract.d.ts](types/contract.d.ts), [types/contract.py](types/contract.py): types\n"
        "- [asyncapi.json](asyncapi.json): queues and messages, AsyncAPI 3\n"
        "- [fields.json](fields.json): Meta's fields and their queues\n"
    )


def to_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


GENERATED = {
    "contract.md": contract_page,
    "attributes.schema.json": attributes_schema,
    "asyncapi.json": asyncapi,
    "assistants.md": assistants_page,
    "llms.txt": llms,
    "types/contract.py": python_types,
    "types/contract.d.ts": typescript_types,
}


def main() -> None:
    for name, generate in GENERATED.items():
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(generate())


if __name__ == "__main__":
    main()
