"""Edits of the table of queues in the template, as its comments and docs/tasks.md describe them, and a check of the table."""

from __future__ import annotations

import re
from typing import Any

from samcli.yamlhelper import yaml_parse

import runbook

# The key and the route of the examples in the template's comments.
EXAMPLE = ("MessagesCrm", "messages")
# A second queue for a route, and a narrowed route. The words are improbable, so that a template with more rows passes as well.
SECOND_QUEUE = ("MessagesBicycles", "{ Route: messages, Name: messages-bicycles }")
NARROWED_ROUTE = ("Messages106540352242999", "{ Route: messages@106540352242999, Name: messages-106540352242999 }")
KINDS = ("messages", "statuses", "errors")


def add(template: str, key: str, row: str | None = None, places: int = 3) -> str:
    """Adds a row and its key in the two lists, or the key of a row that is there, or as many of these edits as `places`."""
    lines = template.split("\n")
    for (shown, added), place in zip(runbook.edits("Adding a field"), range(places), strict=False):
        is_row = place == 0
        if is_row and row is None:
            continue
        line = f"    {key}: {row}" if is_row else added.replace(runbook.KEY, key)
        lines.insert(runbook.line_of(lines, shown) + 1, line)
    return "\n".join(lines)


def replace(template: str, old: str, key: str, row: str) -> str:
    """Replaces a row and its key in the two lists. Removes the key from the policies of consumers."""
    template = re.sub(rf"^ *- .*\[Queues, {old}, Consumers].*\n", "", template, flags=re.MULTILINE)
    template = re.sub(rf"^    {old}: {{ Route.*$", f"    {key}: {row}", template, flags=re.MULTILINE)
    template = re.sub(rf"^(  +- ){old}$", rf"\g<1>{key}", template, flags=re.MULTILINE)
    return template.replace(f"${{Queue{old}.", f"${{Queue{key}.")


def open_bodies(template: str, key: str, route: str) -> str:
    """Adds the line for this row with consumers to the policy of the bucket."""
    line = (
        f'- {{ Sid: {key}, Effect: Allow, Principal: {{ AWS: !Split [",", !FindInMap [Queues, {key}, Consumers]] }}, '
        f'Action: [s3:GetObject, s3:DeleteObject], Resource: !Sub "${{PayloadBucket.Arn}}/{route}/*" }}'
    )
    return _insert_below("# One line for each row with Consumers, because", template, line)


def open_key(template: str, key: str) -> str:
    """Adds the line for this row with consumers to the policy of the key."""
    return _insert_below(
        "# One line for each row with Consumers. For", template, f"- !FindInMap [Queues, {key}, Consumers]"
    )


def _insert_below(comment: str, template: str, line: str) -> str:
    [(found, indent)] = re.findall(rf"^(( *){re.escape(comment)}.*)$", template, re.MULTILINE)
    return template.replace(found, f"{found}\n{indent}{line}")


def deployed(template: str) -> dict[str, dict[str, str]]:
    """The rows whose key is in the loop, by key."""
    parsed = yaml_parse(template)
    rows = parsed["Mappings"]["Queues"]
    return {key: rows[key] for key in parsed["Resources"]["Fn::ForEach::Queues"][1]}


def consumers(row: dict[str, str]) -> list[str]:
    """The principals of other accounts that a row names."""
    return row["Consumers"].split(",") if "Consumers" in row else []


def problems(text: str) -> list[str]:
    """Returns the faults of the rows of a template: a forgotten place, or a key that does not follow its row."""
    template = yaml_parse(text)
    rows, resources = template["Mappings"]["Queues"], template["Resources"]
    looped = resources["Fn::ForEach::Queues"][1]
    urls = resources["Ingress"]["Properties"]["Environment"]["Variables"]["QUEUE_URLS"]["Fn::Sub"]
    routed = re.findall(r"\$\{Queue(\w+)\.Outputs\.RouteEntry}", urls)
    found = [f"{key} is in only one of Fn::ForEach::Queues and QUEUE_URLS" for key in {*looped} ^ {*routed}]
    found += [f"{key} is twice in a list" for key in looped if looped.count(key) + routed.count(key) > 2]
    for key in looped:
        found += _row_problems(key, rows[key], resources) if key in rows else [f"{key} has no row"]
    names = [(rows[key].get("Name", rows[key]["Route"]), rows[key].get("Fifo")) for key in looped if key in rows]
    return found + [f"two queues have the name {name[0]}" for name in names if names.count(name) > 1]


def _row_problems(key: str, row: dict[str, str], resources: dict[str, Any]) -> list[str]:
    route, fifo = row["Route"], row.get("Fifo") == "true"
    name, base = row.get("Name", route), re.sub("[.@]", "-", route)
    found = []
    if name != base and not re.fullmatch(rf"{base}-\w+", name):
        found.append(f"{key}: the name has to be {base}, or {base}- and a word")
    # The function gets a new version only if the text of its properties changes: see the comment at the table.
    camel = "".join(word[:1].upper() + word[1:] for word in re.split("[-_]", name)) + "Fifo" * fifo
    if key != camel:
        found.append(f"{key}: the key has to be {camel}")
    if "." in route and route.partition("@")[0].partition(".")[2] not in KINDS:
        found.append(f"{key}: {route} has no kind of {KINDS}")
    principals = {"Fn::FindInMap": ["Queues", key, "Consumers"]}
    [consume] = [each for each in _statements(resources["EncryptionKey"], "KeyPolicy") if each["Sid"] == "Consume"]
    [_, allowed] = consume["Principal"]["AWS"]["Fn::Split"][1]["Fn::Join"]
    if ("Consumers" in row) != (principals in allowed):
        found.append(f"{key}: Consumers and EncryptionKey differ")
    bodies = {
        "Sid": key,
        "Effect": "Allow",
        "Principal": {"AWS": {"Fn::Split": [",", principals]}},
        "Action": ["s3:GetObject", "s3:DeleteObject"],
        "Resource": {"Fn::Sub": f"${{PayloadBucket.Arn}}/{route}/*"},
    }
    own = [each for each in _statements(resources["PayloadBucketPolicy"], "PolicyDocument") if each.get("Sid") == key]
    if own != ([bodies] if "Consumers" in row else []):
        found.append(f"{key}: Consumers and PayloadBucketPolicy differ")
    return found


def _statements(resource: dict[str, Any], policy: str) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = resource["Properties"][policy]["Statement"]
    return statements
