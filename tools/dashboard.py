"""Draws the template's dashboard as docs/dashboard.svg, with the figures of a day that never was.

What is shown, and where, is read from the template; the figures are made up: a busy number, and a team whose consumer of
`messages` stands still for three quarters of an hour.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from expand_template import REPOSITORY, expand

PICTURE = REPOSITORY / "docs/dashboard.svg"
MINUTES = 180
COLUMN, ROW, GAP = 50, 44, 6
STILL, AGAIN = 90, 135
COLORS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf", "#393b79",
    "#ad494a", "#637939",
)  # fmt: skip
CATCH_ALL = "unrouted"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="draw nothing; exit with 1 if the picture is stale")
    check = parser.parse_args().check
    picture = draw(expand(REPOSITORY / "template.yaml"))
    if not check:
        PICTURE.write_text(picture, encoding="utf-8")
    elif PICTURE.read_text(encoding="utf-8") != picture:
        sys.exit(f"{PICTURE.relative_to(REPOSITORY)} is stale: run tools/dashboard.py")


def draw(template: dict[str, Any]) -> str:
    body = template["Resources"]["Dashboard"]["Properties"]["DashboardBody"]
    widgets = json.loads(body)["widgets"]
    keys = template["Mappings"]["Queues"]["All"]["Keys"]
    queues = [template["Mappings"]["Field"][key]["Name"] for key in keys]
    height = max(widget["y"] + widget["height"] for widget in widgets) * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {24 * COLUMN} {height}" font-family="sans-serif">',
        f'<rect width="{24 * COLUMN}" height="{height}" fill="#f2f3f3"/>',
    ]
    for widget in widgets:
        x, y = widget["x"] * COLUMN, widget["y"] * ROW
        parts.append(f'<g transform="translate({x},{y})">')
        if widget["type"] == "text":
            parts.append(text(GAP, 28, widget["properties"]["markdown"].removeprefix("## "), 18, weight="bold"))
        else:
            parts += chart(widget, queues)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def chart(widget: dict[str, Any], queues: list[str]) -> Iterator[str]:
    width, height = widget["width"] * COLUMN - GAP, widget["height"] * ROW - GAP
    properties = widget["properties"]
    lines = []
    for metric, dimension, options in series_of(properties["metrics"]):
        is_right = options.get("yAxis") == "right"
        lines += [(*line, is_right) for line in figures((metric, dimension, options), queues)]
    rules = properties.get("annotations", {}).get("horizontal", [])
    legend = 14 * math.ceil(len(lines) / 2)
    has_right = any(is_right for *_, is_right in lines)
    left, top, right, bottom = 46, 34, width - (52 if has_right else 12), height - 14 - legend
    most = {
        side: max([1.0, *(value for _, _, values, is_right in lines if is_right == side for value in values)])
        for side in (False, True)
    }
    most[False] = max([most[False], *(rule["value"] for rule in rules)])

    def at(minute: float, value: float, is_right: bool = False) -> str:
        y = bottom - (bottom - top) * value / most[is_right] / 1.08
        return f"{left + (right - left) * minute / MINUTES:.1f},{y:.1f}"

    yield f'<rect x="{GAP / 2}" y="{GAP / 2}" width="{width}" height="{height}" rx="6" fill="#fff" stroke="#d5dbdb"/>'
    yield text(12, 22, properties["title"], 13, weight="bold")
    for share in (0, 0.5, 1):
        value = most[False] * share
        start, end = at(0, value), at(MINUTES, value)
        yield f'<polyline points="{start} {end}" stroke="#eaeded" fill="none"/>'
        y = float(start.split(",")[1]) + 4
        yield text(left - 6, y, f"{value:,.0f}", 10, anchor="end")
        if has_right:
            yield text(right + 6, y, f"{most[True] * share:,.{int(most[True] <= 1)}f}", 10)
    for rule in rules:
        points = f"{at(0, rule['value'])} {at(MINUTES, rule['value'])}"
        yield f'<polyline points="{points}" stroke="#d62728" stroke-dasharray="5 4" fill="none"/>'
        y = float(at(0, rule["value"]).split(",")[1])
        yield text(right, y - 4, rule["label"], 10, anchor="end")
    for number, (label, color, values, is_right) in enumerate(lines):
        color = color or COLORS[number % len(COLORS)]
        points = " ".join(at(minute, value, is_right) for minute, value in enumerate(values))
        yield f'<polyline points="{points}" stroke="{color}" stroke-width="1.4" fill="none"/>'
        x, y = left + number % 2 * (right - left) / 2, bottom + 18 + number // 2 * 14
        yield f'<rect x="{x:.0f}" y="{y - 8:.0f}" width="9" height="9" fill="{color}"/>'
        yield text(x + 13, y, label, 10)


def text(x: float, y: float, words: str, size: int, weight: str = "normal", anchor: str = "start") -> str:
    style = f'font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="#16191f"'
    return f'<text x="{x:.0f}" y="{y:.0f}" {style}>{escape(words)}</text>'


def series_of(metrics: list[list[Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Metric, last dimension's value and options of each line; a dot stands for what the line before has there."""
    before: list[str] = []
    for metric in metrics:
        options = metric[-1] if isinstance(metric[-1], dict) else {}
        names = [each for each in metric if isinstance(each, str)]
        if "expression" in options:
            yield options["expression"], "", options
            continue
        if names != ["..."]:
            before = [before[place] if name == "." else name for place, name in enumerate(names)]
        names = before
        yield names[1], names[-1], options


def figures(series: tuple[str, str, dict[str, Any]], queues: list[str]) -> Iterator[tuple[str, str, list[float]]]:
    """Label, color and value of each minute: one line, or one for each queue or route that a search finds."""
    metric, dimension, options = series
    label, color = options.get("label", ""), options.get("color", "")
    if "Changes" in metric and metric.startswith("SEARCH"):
        for queue in queues:
            yield queue.replace("-", "."), "", [changes(queue, minute) for minute in range(MINUTES)]
    elif metric.startswith("SEARCH"):
        name = "age" if "AgeOfOldest" in metric else "waiting"
        found = [*queues, "account_update-dead", CATCH_ALL]
        for queue in found:
            yield queue, "", [of_queue(name, queue, minute) for minute in range(MINUTES)]
    elif dimension.endswith("Unrouted.QueueName}"):
        name = "age" if "AgeOfOldest" in metric else "waiting"
        yield label, color, [of_queue(name, CATCH_ALL, minute) for minute in range(MINUTES)]
    else:
        key = f"{metric} {options.get('stat', '')}".strip()
        yield label, color, [of_function(key, minute) for minute in range(MINUTES)]


def noise(name: str, minute: int) -> float:
    return random.Random(f"{name} {minute}").random()


def traffic(minute: int) -> float:
    return 900 + 350 * math.sin(minute / 40) + 60 * noise("traffic", minute)


def changes(queue: str, minute: int) -> float:
    share = {"messages": 0.35, "messages-statuses": 1.05}.get(queue)
    return traffic(minute) * share if share else float(noise(queue, minute) > 0.9)


def of_queue(name: str, queue: str, minute: int) -> float:
    """A message is taken within seconds, but where somebody stands still, gave up, or does not look."""
    if queue == CATCH_ALL:
        came = [earlier for earlier in range(minute) if noise(queue, earlier) > 0.95]
        return float(len(came) if name == "waiting" else 60 * (minute - came[0]) if came else 0)
    if queue.endswith("-dead"):
        return float((2 if name == "waiting" else 60 * (minute - 70)) * (minute >= 70))
    if queue == "messages" and STILL <= minute:
        since = minute - STILL if minute < AGAIN else max(0.0, (AGAIN - STILL) - 6 * (minute - AGAIN))
        return since * (60 if name == "age" else changes(queue, minute))
    return 3 * noise(queue + name, minute)


def of_function(key: str, minute: int) -> float:
    match key:
        case "Count" | "Notifications":
            return traffic(minute)
        case "Changes" | "Stored":
            return 1.4 * traffic(minute)
        case "4xx" | "RefusedSignatures":
            return 40 * noise("forger", minute) * (20 <= minute < 32)
        case "SignatureMatches Average":
            return traffic(minute) / (traffic(minute) + of_function("RefusedSignatures", minute))
        case "NotFoundPosts":
            return float(noise("scanner", minute) > 0.97)
        case "Unrouted":
            return float(noise(CATCH_ALL, minute) > 0.95)
        case "QueueRetries":
            return float(round(3 * noise(key, minute) ** 6))
        case "Latency p50":
            return 22 + 6 * noise(key, minute)
        case "Latency p99":
            return 95 + 60 * noise(key, minute) + 260 * (noise("start", minute) > 0.97)
        case "StoreTime p50":
            return 11 + 4 * noise(key, minute)
        case "EventAge p50":
            return 1 + noise(key, minute)
        case "EventAge p99":
            return 4 + 5 * noise(key, minute)
    return 0.0


if __name__ == "__main__":
    main()
