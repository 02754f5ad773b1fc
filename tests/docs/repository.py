"""Reads the documents and the files that they describe."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PAGES = sorted((REPOSITORY / "docs").glob("*.md"))


def text(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def recipe(target: str) -> str:
    """The commands of a target of the Makefile."""
    [lines] = re.findall(rf"^{re.escape(target)}:[^\n]*\n((?:\t[^\n]*\n)*)", text("Makefile"), re.MULTILINE)
    return str(lines)


def targets() -> set[str]:
    """The targets of the Makefile that have a name of their own."""
    return set(re.findall(r"^\.PHONY: (\S+)$", text("Makefile"), re.MULTILINE))


def make_calls(script: str) -> set[str]:
    """The targets that a script makes."""
    return set(re.findall(r"\bmake ([a-z0-9-]+)", re.sub(r"^\s*#.*$", "", script, flags=re.MULTILINE)))
