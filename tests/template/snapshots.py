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

from expanded import Expanded, expand, expand_set
from parameters import SETS

FOLDER = Path(__file__).parent / "snapshots"


class Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Writes text of several lines as such."""


def represent_text(dumper: Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Dumper.add_representer(str, represent_text)


def snapshot(name: str) -> str:
    """The text of a file."""
    default = normal_form(expand())
    made = default if name == "default" else merge_patch(default, normal_form(expand_set(name)))
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
