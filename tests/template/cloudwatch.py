"""A model of metric filters and alarms, by CloudWatch's documented rules.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html
"""

from __future__ import annotations

import json
import operator
from bisect import bisect_left
from collections.abc import Callable
from functools import cache
from typing import Any

# Lines of a log and values of a metric, each with its second.
Lines = list[tuple[int, dict[str, Any]]]
Samples = list[tuple[int, float]]

STATISTICS: dict[str, Callable[[list[float]], float]] = {"Sum": sum, "Minimum": min, "Maximum": max}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
}


def matches(pattern: str, line: dict[str, Any]) -> bool:
    """Evaluates a filter pattern for JSON, in the part of its syntax that the template uses."""
    tokens = pattern.removeprefix("{").removesuffix("}").replace("(", " ( ").replace(")", " ) ").split()
    result = _any(tokens, line)
    if tokens:
        raise ValueError(f"{pattern}: {tokens}")
    return result


def _any(tokens: list[str], line: dict[str, Any]) -> bool:
    result = _all(tokens, line)
    while tokens and tokens[0] == "||":
        tokens.pop(0)
        # Not a short circuit, which would leave tokens.
        result = _all(tokens, line) or result
    return result


def _all(tokens: list[str], line: dict[str, Any]) -> bool:
    result = _term(tokens, line)
    while tokens and tokens[0] == "&&":
        tokens.pop(0)
        result = _term(tokens, line) and result
    return result


def _term(tokens: list[str], line: dict[str, Any]) -> bool:
    first = tokens.pop(0)
    if first == "(":
        result = _any(tokens, line)
        _expect(tokens, ")")
        return result
    member = line.get(first.removeprefix("$."))
    _expect(tokens, "=")
    value = json.loads(tokens.pop(0))
    return isinstance(member, str) if value == "*" else bool(member == value)


def _expect(tokens: list[str], token: str) -> None:
    if tokens.pop(0) != token:
        raise ValueError(f"no {token} before {tokens}")


def apply_filter(filter: dict[str, Any], lines: Lines) -> Samples:
    """The values that a metric filter extracts."""
    value = filter["MetricTransformations"][0]["MetricValue"]
    matching = [(second, line) for second, line in lines if matches(filter["FilterPattern"], line)]
    if value.startswith("$."):
        return [(second, float(line[value.removeprefix("$.")])) for second, line in matching]
    return [(second, float(value)) for second, _ in matching]


def alarm_minutes(alarm: dict[str, Any], samples: Samples, end: int) -> list[int]:
    """The minutes at which an alarm is in the state ALARM, evaluated each minute over a sliding window."""
    samples = sorted(samples)
    seconds = [second for second, _ in samples]
    period, periods = int(alarm["Period"]), alarm["EvaluationPeriods"]
    needed = alarm.get("DatapointsToAlarm", periods)
    statistic, compare = STATISTICS[alarm["Statistic"]], COMPARISONS[alarm["ComparisonOperator"]]

    @cache
    def is_breaching(start: int) -> bool:
        values = [value for _, value in samples[bisect_left(seconds, start) : bisect_left(seconds, start + period)]]
        if not values:
            return bool(alarm["TreatMissingData"] == "breaching")
        return compare(statistic(values), float(alarm["Threshold"]))

    def is_alarm(now: int) -> bool:
        starts = [now - back * period for back in range(1, periods + 1)]
        return bool(sum(is_breaching(start) for start in starts if start >= 0) >= needed)

    return [minute for minute in range(end // 60 + 1) if is_alarm(minute * 60)]
