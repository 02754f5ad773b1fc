"""What the template deploys, compared with the files that were reviewed. `make snapshots` writes them anew."""

from __future__ import annotations

import pytest

import snapshots
from parameters import SETS


@pytest.mark.parametrize("name", SETS)
def test_template_deploys_what_snapshot_shows(name: str) -> None:
    kept = (snapshots.FOLDER / f"{name}.yaml").read_text()
    # pytest shows the difference by lines.
    assert snapshots.snapshot(name).splitlines() == kept.splitlines(), "see `make snapshots` and `git diff`"


def test_every_snapshot_file_has_its_parameters() -> None:
    assert {file.stem for file in snapshots.FOLDER.iterdir()} == set(SETS)
