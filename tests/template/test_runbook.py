"""What docs/operations.md says of alarms and of metrics that the template derives."""

from __future__ import annotations

import re

from expanded import CATCH_ALL, STACK, Expanded, expand
from runbook import column, section

PARTS = ["Meaning", "Look", "Decide", "Fix", "Over"]


def template() -> Expanded:
    return expand(NoTrafficAlarmSeconds="3600")


def alarms() -> set[str]:
    """The names of all alarms as in the runbook, where QUEUE is the name of any queue."""
    queues = template().of_type("AWS::SQS::Queue")
    routed = [id for route, ids in template().routes().items() if route != CATCH_ALL for id in ids]
    # One name can be the beginning of another.
    names = sorted((queues[id]["QueueName"].removeprefix(f"{STACK}-") for id in routed), key=len, reverse=True)
    queue = re.compile("|".join(map(re.escape, names)))
    return {queue.sub("QUEUE", name, count=1) if queue.match(name) else name for name in template().alarms()} | {"page"}


def test_every_alarm_has_its_section() -> None:
    _, *sections = section("A section for each alarm").split("\n### ")
    texts = dict(text.split("\n", 1) for text in sections)
    assert alarms() == texts.keys()
    for name, text in texts.items():
        assert re.findall(r"^\*\*(.+?)\.\*\*", text, re.MULTILINE) == PARTS, name
        [look] = re.findall(r"\*\*Look\.\*\*.*?```sh\n(.*?)```", text, re.DOTALL)
        assert len(re.findall(r"^(?!  |[A-Z]+=)\S", look, re.MULTILINE)) == 2, name


def test_table_says_which_alarms_page() -> None:
    rows = re.findall(r"^\| \[(\S+)\]\(#\S+\) \| (page|ticket) \|", section("The alarms"), re.MULTILINE)
    assert {name for name, _ in rows} == alarms()
    rule = template().one("AWS::CloudWatch::CompositeAlarm")["AlarmRule"]
    metric_alarms = template().of_type("AWS::CloudWatch::Alarm")
    paging = {metric_alarms[id]["AlarmName"].removeprefix("stack-") for id in re.findall(r"\$\{(\w+)}", rule)}
    assert {name for name, kind in rows if kind == "page"} == paging | {"page"}


def test_every_derived_metric_is_in_the_table() -> None:
    filters = expand().of_type("AWS::Logs::MetricFilter").values()
    names = {made["MetricName"] for each in filters for made in each["MetricTransformations"]}
    _, derived = section("The metrics").split("The template derives")
    table, _ = derived.split("\n\nThe metrics of the first table")
    assert names == set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE))
    assert names <= column("The metrics")
