"""What docs/operations.md says of alarms and of metrics that the template derives."""

from __future__ import annotations

import re

from expanded import CATCH_ALL, expand
from runbook import column, section


def test_every_alarm_has_its_section() -> None:
    template = expand(NoTrafficAlarmSeconds="3600")
    # One name can be the beginning of another.
    routes = sorted((route for route in template.routes() if route != CATCH_ALL), key=len, reverse=True)
    queue = re.compile("|".join(re.escape(route.replace(".", "-")) for route in routes))
    alarms = {queue.sub("QUEUE", name, count=1) if queue.match(name) else name for name in template.alarms()} | {"page"}
    _, *sections = section("A section for each alarm").split("\n### ")
    texts = dict(text.split("\n", 1) for text in sections)
    assert alarms == texts.keys()
    for name, text in texts.items():
        labels = re.findall(r"^- \*\*(.+?)\.\*\*", text, re.MULTILINE)
        assert labels in (["Means", "Look", "Do"], ["Means", "Look, do"]), name


def test_every_derived_metric_is_in_the_table() -> None:
    filters = expand().of_type("AWS::Logs::MetricFilter").values()
    names = {made["MetricName"] for each in filters for made in each["MetricTransformations"]}
    _, derived = section("The metrics").split("The template derives")
    table, _ = derived.split("\n\nThe metrics of the first table")
    assert names == set(re.findall(r"^\| `([^`]+)`", table, re.MULTILINE))
    assert names <= column("The metrics")
