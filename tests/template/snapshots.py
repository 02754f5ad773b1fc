"""Writes what the template deploys, for some sets of parameters, into files that `git diff` shows: `make snapshots`.

`default.yaml` has all resources and outputs. Each other file has what its parameters change, as a JSON merge patch
(https://www.rfc-editor.org/rfc/rfc7396): `null` stands for what is no longer there, and a list is replaced as a whole.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from expanded import Expanded, expand

FOLDER = Path(__file__).parent / "snapshots"
DOMAIN = {
    "DomainName": "hooks.example.com",
    "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/c",
    "TruststoreUri": "s3://truststore/meta.pem",
}
SETS: dict[str, dict[str, str]] = {
    "default": {},
    # Consumers that are not of this account, or that need messages in order.
    "consumers": {
        "Consumers": "arn:aws:iam::111122223333:root",
        "FieldConsumers1": "Messages=444455556666,777788889999",
        "FieldConsumers5": "MessagesStatuses=444455556666",
        "FifoField1": "Messages",
        "FifoField2": "Security",
    },
    "customer-key": {"CustomerKey": "true", "Consumers": "111122223333"},
    # What changes API, function and alarms.
    "production": DOMAIN
    | {
        "Architecture": "arm64",
        "LogLevel": "WARN",
        "AlarmTopic": "arn:aws:sns:us-east-1:123456789012:operators",
        "OldestMessageSeconds": "600",
        "SilenceSeconds": "900",
        "Canary": "true",
        "ReservedConcurrency": "50",
        "RouteRateLimit": "9000",
    },
}


class Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes text of several lines as such."""


def represent_text(dumper: Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, represent_text)


def snapshot(name: str) -> str:
    """The text of a file."""
    default = normal_form(expand())
    made = default if name == "default" else merge_patch(default, normal_form(expand(**SETS[name])))
    text: str = yaml.dump(made, Dumper=Dumper, width=120)
    return text


def normal_form(template: Expanded) -> dict[str, Any]:
    # SAM adds a hash of the function's properties to the logical id of its version.
    text = json.dumps({"Resources": template.resources, "Outputs": template.outputs})
    normal: dict[str, Any] = json.loads(re.sub(r"\b(\w+Version)[0-9a-f]{10}\b", r"\1", text))
    return normal


def merge_patch(before: Any, after: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    patch: dict[str, Any] = dict.fromkeys(before.keys() - after.keys())
    return patch | {key: merge_patch(before.get(key), after[key]) for key in after if before.get(key) != after[key]}


def main() -> None:
    for name in SETS:
        (FOLDER / f"{name}.yaml").write_text(snapshot(name))


if __name__ == "__main__":
    main()
