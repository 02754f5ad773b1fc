"""The table of queues: its rows, the two lists, and what the function depends on."""

from __future__ import annotations

import re

import pytest
from samcli.yamlhelper import yaml_parse

import rows
import runbook
from expand_template import expand_root
from expanded import CATCH_ALL, QUEUE_TEMPLATE, TEMPLATE, expand
from parameters import ROWS
from test_queues import FIELDS, OTHER_FIELDS

# The lines of the template and of the template of a queue, without those of the rows of queues.
MAX_LINES = 697


def template() -> str:
    return TEMPLATE.read_text()


def test_rows_of_the_runbook_are_valid() -> None:
    examples = re.findall(r"`(\w+): ({ Route: [^`]+ })`", runbook.section("Adding a field"))
    assert len(examples) == 4
    for key, row in examples:
        text = template() if f"    {key}: {{" in template() else rows.add(template(), key, row)
        assert rows.problems(text) == [], key


@pytest.mark.parametrize("edit", [str, *ROWS.values()])
def test_rows_are_in_every_place(edit: type[str]) -> None:
    assert rows.problems(edit(template())) == []


@pytest.mark.parametrize(
    "row",
    [("BicycleBell", "{ Route: bicycle_bell }"), rows.SECOND_QUEUE, rows.NARROWED_ROUTE],
    ids=lambda row: str(row[0]),
)
def test_row_and_two_words_make_a_queue(row: tuple[str, str]) -> None:
    before, text = expand(), rows.add(template(), *row)
    assert rows.problems(text) == []
    after = expand(text)
    # The function gets a new version, and SAM a new id for it.
    removed, added = before.resources.keys() - after.resources.keys(), after.resources.keys() - before.resources.keys()
    assert all(id.startswith("IngressVersion") for id in removed)
    assert {id.removeprefix(f"Queue{row[0]}") for id in added if not id.startswith("IngressVersion")} == {
        "Queue", "DeadLetterQueue", "QueuePolicy", "SendPolicy", "ConsumerLagAlarm", "DeadLetterQueueAlarm",
    }  # fmt: skip
    [route] = [(route, queue) for route, queue in after.route_queues() if (route, queue) not in before.route_queues()]
    assert route == (yaml_parse(row[1])["Route"], f"Queue{row[0]}Queue")


@pytest.mark.parametrize("places", [1, 2])
def test_forgotten_list_is_found(places: int) -> None:
    text = rows.add(template(), *rows.SECOND_QUEUE, places=places)
    # Without its keys a row is one that is not enabled.
    assert (rows.problems(text) == []) == (places == 1)
    assert rows.problems(rows.add(template(), "Unknown")) == ["Unknown has no row"]
    [problem] = rows.problems(template().replace("      - Security\n", ""))
    assert "Security is in only one" in problem


@pytest.mark.parametrize("forgotten", [rows.open_bodies, rows.open_key])
def test_forgotten_policy_of_consumers_is_found(forgotten: object) -> None:
    key, row = rows.SECOND_QUEUE
    text = rows.add(template(), key, row.replace(" }", ', Consumers: "111122223333" }'))
    assert len(rows.problems(text)) == 2
    edits = {rows.open_bodies: (key, "messages"), rows.open_key: (key,)}
    for edit, arguments in edits.items():
        text = text if edit is forgotten else edit(text, *arguments)  # type: ignore[operator]
    assert len(rows.problems(text)) == 1


def test_examples_of_the_policies_are_valid() -> None:
    key, route = rows.EXAMPLE
    text = rows.open_key(rows.open_bodies(template(), key, route), key)
    lines = [line.strip() for line in text.splitlines() if f"[Queues, {key}, Consumers]" in line]
    # Each example is the line that was added.
    assert len({line.removeprefix("# ") for line in lines}) == 2


@pytest.mark.parametrize(
    "row",
    [
        '{ Route: messages, Fifo: "true" }',
        "{ Route: messages.messages }",
        "{ Route: messages, Name: messages-crm }",
        "{ Route: messages, Name: security }",
        "{ Route: messages.replies, Name: messages-replies }",
    ],
)
def test_key_that_does_not_follow_its_row_is_found(row: str) -> None:
    # The function would keep its version, and so the old queue.
    assert rows.problems(rows.replace(template(), "Messages", "Messages", row))


def test_function_depends_on_queues_and_permissions() -> None:
    resources = expand_root(TEMPLATE)["Resources"]
    # The API and its permission come after the function. The places where it stores come before.
    needed = closure("Ingress", resources)
    types = {id: resources[id]["Type"] for id in needed}
    stacks = {id for id, each in resources.items() if each["Type"] == "AWS::CloudFormation::Stack"}
    assert {"QueueMessages", "QueueMessagesStatuses"} <= stacks
    assert needed >= stacks | {"CatchAllQueue", "PayloadBucket", "Secret", "LogGroup", "FunctionRole"}
    assert "AWS::Lambda::Permission" not in types.values()
    # A nested stack is complete when all of its resources are: queues, their policy, the permission to send.
    child = {each["Type"] for each in yaml_parse(QUEUE_TEMPLATE.read_text())["Resources"].values()}
    assert child >= {"AWS::SQS::Queue", "AWS::SQS::QueuePolicy", "AWS::IAM::Policy"}
    # What the version and the alias of the function depend on is complete before requests reach it.
    [alias] = [id for id, each in resources.items() if each["Type"] == "AWS::Lambda::Alias"]
    assert closure(alias, resources) >= needed


def closure(id: str, resources: dict[str, dict[str, object]]) -> set[str]:
    """The ids of all resources that exist before this one."""
    found: set[str] = set()
    waiting = [id]
    while waiting:
        resource = resources[waiting.pop()]
        text = repr(resource.get("Properties", {})) + repr(resource.get("DependsOn", ""))
        named = set(re.findall(r"'(\w+)'|\$\{(\w+)[.}]", text))
        new = {one or other for one, other in named} & resources.keys() - found
        found |= new
        waiting += new
    return found


def test_files_stay_short() -> None:
    lengths = [len(path.read_text().splitlines()) for path in (TEMPLATE, QUEUE_TEMPLATE)]
    # The rows of the table of queues do not count. Each has a line there, one in each of two lists if it has a queue, and one in each of
    # two policies if it has consumers.
    parsed = yaml_parse(template())
    queue_rows, with_queue = parsed["Mappings"]["Queues"].values(), parsed["Resources"]["Fn::ForEach::Queues"][1]
    lines = len(queue_rows) + 2 * len(with_queue) + 2 * sum("Consumers" in row for row in queue_rows)
    assert sum(lengths) - lines <= MAX_LINES
    assert lengths[1] <= 130
    assert "Fn::ForEach" not in QUEUE_TEMPLATE.read_text()


def test_catch_all_queue_is_the_last_resort() -> None:
    assert expand().routes()[CATCH_ALL] == ["CatchAllQueue"]


def test_every_field_of_meta_has_a_row() -> None:
    routes = {row["Route"] for row in yaml_parse(template())["Mappings"]["Queues"].values()}
    assert routes >= {*FIELDS, *OTHER_FIELDS}
