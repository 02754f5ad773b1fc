"""What every page of docs/ has in common."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from repository import PAGES, REPOSITORY, text

MAX_LINES_WITHOUT_CONTENTS = 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_long_page_begins_with_links_to_its_sections(page: Path) -> None:
    # A `#` in a block of code is no heading.
    lines = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    introduction, *sections = re.split(r"^## (?=.)", lines, flags=re.MULTILINE)
    anchors = [anchor(section.partition("\n")[0]) for section in sections]
    # `rumdl check` finds links without a heading.
    links = dict.fromkeys(link for link in re.findall(r"\]\(#([^)]+)\)", introduction) if link in anchors)
    is_short = page.read_text(encoding="utf-8").count("\n") <= MAX_LINES_WITHOUT_CONTENTS
    assert list(links) == anchors or is_short


def test_every_page_is_linked_from_readme() -> None:
    readme = text("README.md")
    missing = [page.name for page in PAGES if f"({page.relative_to(REPOSITORY)}" not in readme]
    assert missing == []


def anchor(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
