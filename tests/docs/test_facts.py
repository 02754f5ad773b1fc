"""Facts that documents repeat from other files."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase

import pytest
from samcli.yamlhelper import yaml_parse

from repository import REPOSITORY, text

HOUR = 60 * 60
DAY = 24 * HOUR
TEMPLATES = [REPOSITORY / "template.yaml", *sorted((REPOSITORY / "infra").glob("*.yaml"))]
# The unit of each property, in seconds.
UNITS = {"MessageRetentionPeriod": 1, "ExpirationInDays": DAY, "RetentionInDays": DAY}


@pytest.mark.parametrize("setting", UNITS)
def test_privacy_page_has_retention_of_template(setting: str) -> None:
    template = "\n".join(path.read_text(encoding="utf-8") for path in TEMPLATES)
    deployed = {int(value) * UNITS[setting] for value in re.findall(rf"\b{setting}: (\d+)", template)}
    documented = {
        int(number) * (HOUR if unit == "hour" else DAY)
        for number, unit in re.findall(rf"`{setting}`: (\d+) (hour|day)s? ", text("docs/privacy.md"))
    }
    assert documented
    assert documented == deployed


def test_local_queues_of_the_examples_are_those_of_the_template() -> None:
    fields = json.loads(text("docs/fields.json"))["fields"]
    [names] = re.findall(r"^FIELDS = \[(.*?)\]", text("examples/local_queues.py"), re.MULTILINE | re.DOTALL)
    assert sorted(re.findall(r'"(.+?)"', names)) == sorted(
        route.replace(".", "-") for field in fields for route in field["queues"]
    )


def test_capacity_page_sums_up_the_monthly_base() -> None:
    [section] = re.findall(r"^### The monthly base\n(.*?)^##", text("docs/capacity.md"), re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (.+) \| \[?([\d.]+)\S* \| (\d+) \| ([\d.]+) \|$", section, re.MULTILINE)
    for item, price, number, dollars in rows:
        assert float(dollars) == pytest.approx(float(price) * int(number)), item
    [total] = re.findall(r"^\| \*\*sum\*\* \| \| \| \*\*([\d.]+)\*\* \|$", section, re.MULTILINE)
    assert float(total) == pytest.approx(sum(float(dollars) for *_, dollars in rows))
    snapshot = text("tests/template/snapshots/default.yaml")
    alarms = len(re.findall(r"Type: AWS::CloudWatch::Alarm$", snapshot, re.MULTILINE))
    queues = len(yaml_parse(text("template.yaml"))["Resources"]["Fn::ForEach::Queues"][1])
    numbers = {item.partition(" ")[0].rstrip(",:"): int(number) for item, _, number, _ in rows}
    assert (numbers["alarms"], numbers["metrics"], numbers["consumers"]) == (alarms, 6 + queues, queues)
    assert f"| alarms: {alarms - 2 * queues}, and two for each queue |" in section


def test_configuration_page_lists_the_parameters() -> None:
    parameters = yaml_parse(text("template.yaml"))["Parameters"]
    deployed = {name: str(parameter["Default"]) for name, parameter in parameters.items()}
    [section] = re.findall(r"^## Parameters\n(.*?)^## ", text("docs/configuration.md"), re.MULTILINE | re.DOTALL)
    documented = dict(re.findall(r"^\| `(\w+)` \| (?:`([^`]+)` )?\|", section, re.MULTILINE))
    assert documented == deployed


def test_configuration_page_lists_the_environment_variables() -> None:
    function = yaml_parse(text("template.yaml"))["Resources"]["Ingress"]["Properties"]
    [section] = re.findall(
        r"^## Environment variables\n(.*?)^## ", text("docs/configuration.md"), re.MULTILINE | re.DOTALL
    )
    rows = re.findall(r"^\| (`[^|]+`) \| \w+ \| (?!set by Lambda)", section, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert documented == function["Environment"]["Variables"].keys()


def test_badges_name_licence_rust_and_edition() -> None:
    package = text("Cargo.toml")
    [licence] = re.findall(r'^license = "(.+)"$', package, re.MULTILINE)
    [rust] = re.findall(r'^rust-version = "(.+)"$', package, re.MULTILINE)
    [edition] = re.findall(r"It is edition (\d+)\.", text("docs/contract.md"))
    badges = re.findall(r"/badge/(\S+)-blue\)", text("README.md"))
    # `-` separates the parts of a badge, and `_` is a space.
    escaped = licence.replace("-", "--").replace(" ", "_")
    assert badges == [f"licence-{escaped}", f"rust-{rust}+", f"contract-edition_{edition}"]


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


def test_template_outputs_the_version_of_the_function() -> None:
    [version] = re.findall(r'^version = "(.+)"$', text("Cargo.toml"), re.MULTILINE)
    # The output is a block or a line.
    outputs = text("template.yaml").partition("\nOutputs:\n")[2]
    [deployed] = re.findall(r"^  Version:(?:(?!\n  \w)[\s\S])*?\bValue: ([\w.-]+)", outputs, re.MULTILINE)
    assert deployed == version


def test_commands_and_queries_name_messages_of_the_log() -> None:
    page = text("docs/operations.md")
    commands, log = page.split("\n## The log\n")
    messages = re.findall(r"^\| `([^`]+)` \| [A-Z, ]+ \|", log, re.MULTILINE)
    filters = re.findall(r'\$\.message = "([^"]+)"', commands + text("docs/tasks.md"))
    queries = [query["Query"] for query in yaml_parse(text("template.yaml"))["Mappings"]["LogQueries"].values()]
    parts = [part for query in queries for part in re.findall(r"\bmessage like /([^/]+)/", query)]
    lists = [names for query in queries for names in re.findall(r"\bmessage in \[([^]]+)]", query)]
    filters += [name for names in lists for name in re.findall(r'"([^"]+)"', names)]
    assert messages
    assert filters
    assert parts
    # A query compares messages in no other way.
    assert sum(len(re.findall(r"\bmessage [^|]", query)) for query in queries) == len(parts) + len(lists)
    unknown = [each for each in filters if not any(fnmatchcase(message, each) for message in messages)]
    unknown += [part for part in parts if not any(part in message for message in messages)]
    assert unknown == []
