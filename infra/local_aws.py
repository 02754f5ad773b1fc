"""Runs ministack, the local AWS, and ends it with this process's input, even if the parent is killed.

Closes three gaps of its CloudFormation: composite alarms, which its CloudWatch has; saved queries of Logs Insights, which are
only recorded; and the `DeletionPolicy` of resources in a nested stack that is deleted.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import uuid
from typing import Any

from ministack.app import main
from ministack.services import cloudwatch
from ministack.services.cloudformation import _stacks, provisioners

Created = tuple[str, dict[str, str]]
Properties = dict[str, Any]


def end_with_input() -> None:
    sys.stdin.buffer.read()
    # The whole process group: the function's processes are in it.
    os.killpg(0, signal.SIGKILL)


def create_composite_alarm(logical_id: str, properties: Properties, stack: str) -> Created:
    name = str(properties["AlarmName"])
    status, _, body = cloudwatch._put_composite_alarm({}, properties, is_cbor=False, is_json=True)
    if status != 200:
        raise ValueError(f"AWS::CloudWatch::CompositeAlarm {name}: {body!r}")
    return name, {}


def update_composite_alarm(id: str, old: Properties, new: Properties, stack: str) -> Created:
    return create_composite_alarm(id, new, stack)


def delete_composite_alarm(id: str, properties: Properties) -> None:
    cloudwatch._composite_alarms.pop(id, None)


def create_query(logical_id: str, properties: Properties, stack: str) -> Created:
    return str(uuid.uuid4()), {}


def update_query(id: str, old: Properties, new: Properties, stack: str) -> Created:
    return id, {}


def delete_query(id: str, properties: Properties) -> None:
    """Nothing was created."""


def delete_nested_stack(id: str, properties: Properties) -> None:
    child = _stacks.get(provisioners._nested_stack_lookup_name(id))
    if child:
        definitions = child["_template"]["Resources"]
        for resource in list(child["_resources"]):
            if definitions[resource].get("DeletionPolicy") == "Retain":
                del child["_resources"][resource]
        provisioners._cfn_nested_stack_delete(id, properties)


if __name__ == "__main__":
    provisioners._RESOURCE_HANDLERS |= {
        "AWS::CloudWatch::CompositeAlarm": {
            "create": create_composite_alarm,
            "update": update_composite_alarm,
            "delete": delete_composite_alarm,
        },
        "AWS::Logs::QueryDefinition": {"create": create_query, "update": update_query, "delete": delete_query},
    }
    provisioners._RESOURCE_HANDLERS["AWS::CloudFormation::Stack"]["delete"] = delete_nested_stack
    threading.Thread(target=end_with_input, daemon=True).start()
    main()
