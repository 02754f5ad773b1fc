"""Reads the pages for operators, and applies the steps of docs/tasks.md to the template."""

from __future__ import annotations

import re
import textwrap

import expand_template

PAGES = [expand_template.REPOSITORY / "docs" / name for name in ("operations.md", "tasks.md")]
# The field in the example of the section on adding one.
FIELD, KEY = "bicycle_bell_update", "BicycleBellUpdate"


def section(heading: str) -> str:
    """The text below a heading of the second level, on either page."""
    pages = "".join(page.read_text() for page in PAGES)
    [text] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", pages, re.DOTALL | re.MULTILINE)
    return str(text)


def column(heading: str) -> set[str]:
    """What is between backticks in the first column of the tables in a section."""
    return set(re.findall(r"^\| `([^`]+)`", section(heading), re.MULTILINE))


def edits(heading: str) -> list[tuple[str, str]]:
    """The lines that the example of a section adds, each with the line that it comes after."""
    [example] = re.findall(r"^ *```diff\n(.*?)^ *```$", section(heading), re.DOTALL | re.MULTILINE)
    return re.findall(r"^ (.*)\n\+(.*)$", textwrap.dedent(example), re.MULTILINE)


def add_field(template: str) -> str:
    """The text of a template with the example of the section on adding a field."""
    lines = template.split("\n")
    for shown, added in edits("Adding a field"):
        lines.insert(line_of(lines, shown) + 1, added)
    return "\n".join(lines)


def line_of(lines: list[str], shown: str) -> int:
    """The number of a line that an example shows. A row is found by its key, because its columns may differ."""
    key, separator, _ = shown.partition(": {")
    [number] = [
        number for number, line in enumerate(lines) if line == shown or (separator and line.startswith(key + ": {"))
    ]
    return number
