"""Facts that documents repeat from other files."""

from __future__ import annotations

import re

import pytest

from repository import REPOSITORY, text

DAY = 24 * 60 * 60
TEMPLATES = [REPOSITORY / "template.yaml", *sorted((REPOSITORY / "infra").glob("*.yaml"))]
# In the unit of the property.
SECONDS_OR_DAYS = {"MessageRetentionPeriod": DAY, "ExpirationInDays": 1, "RetentionInDays": 1}


@pytest.mark.parametrize("setting", SECONDS_OR_DAYS)
def test_privacy_page_has_retention_of_template(setting: str) -> None:
    template = "\n".join(path.read_text(encoding="utf-8") for path in TEMPLATES)
    deployed = {int(value) / SECONDS_OR_DAYS[setting] for value in re.findall(rf"\b{setting}: (\d+)", template)}
    documented = {int(days) for days in re.findall(rf"`{setting}`: (\d+) days", text("docs/privacy.md"))}
    assert documented
    assert documented == deployed


def test_capacity_page_counts_the_alarms() -> None:
    deployed = len(
        re.findall(r"Type: AWS::CloudWatch::Alarm$", text("tests/template/snapshots/default.yaml"), re.MULTILINE)
    )
    [(each, price, number, dollars)] = re.findall(
        r"^\| alarms: (\d+), and two for each queue \| \[([\d.]+)\]\S* \| (\d+) \| ([\d.]+) \|$",
        text("docs/capacity.md"),
        re.MULTILINE,
    )
    assert int(number) == deployed
    # The page says that the stack has nine queues.
    assert int(number) == int(each) + 2 * 9
    assert float(dollars) == pytest.approx(deployed * float(price))


def test_documents_name_the_declared_rust_version() -> None:
    [declared] = re.findall(r'^rust-version = "(.+)"$', text("Cargo.toml"), re.MULTILINE)
    paths = [REPOSITORY / "README.md", REPOSITORY / ".github/CONTRIBUTING.md", *(REPOSITORY / "docs").glob("*.md")]
    named = {
        version
        for path in paths
        for version in re.findall(r"Rust (\d+\.\d+(?:\.\d+)?)", path.read_text(encoding="utf-8"))
    }
    assert named == {declared}
    # It would make rustup download a toolchain on computers that have a working one.
    assert not list(REPOSITORY.glob("rust-toolchain*"))
