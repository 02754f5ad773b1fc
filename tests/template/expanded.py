"""The template as CloudFormation receives it, with lookups by meaning instead of logical ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import expand_template
from parameters import ROWS, SETS

TEMPLATE = expand_template.REPOSITORY / "template.yaml"
QUEUE_TEMPLATE = expand_template.REPOSITORY / "infra/field-queue.yaml"
STACK = "stack"
ACCOUNT = expand_template.PSEUDO_PARAMETERS["AWS::AccountId"]
CATCH_ALL = "*"
# The route of the notifications of `ingress verify`, which no team consumes.
PROBE = "ingress_verify"

# Kinds of queues, and the function as a principal.
ROUTED, DEAD_LETTER, CATCH_ALL_QUEUE, UNUSED = "routed queue", "dead-letter queue", "catch-all queue", "unused queue"
PROBE_QUEUE = "queue of `ingress verify`"
FUNCTION = "the function"


@dataclass(frozen=True)
class Expanded:
    """Resources, outputs and parameters. Resources whose condition is false are left out."""

    resources: dict[str, dict[str, Any]]
    outputs: dict[str, Any]
    parameters: dict[str, dict[str, Any]]

    def of_type(self, *types: str) -> dict[str, dict[str, Any]]:
        """The properties of all resources of these types, by logical id."""
        return {id: each.get("Properties", {}) for id, each in self.resources.items() if each["Type"] in types}

    def one(self, type: str) -> dict[str, Any]:
        [properties] = self.of_type(type).values()
        return properties

    @property
    def function(self) -> dict[str, Any]:
        return self.one("AWS::Lambda::Function")

    @property
    def variables(self) -> dict[str, Any]:
        variables: dict[str, Any] = self.function["Environment"]["Variables"]
        return variables

    def routes(self) -> dict[str, list[str]]:
        """The logical ids of each route's queues, without the probe's. Fails on a queue that the template does not make."""
        routes: dict[str, list[str]] = {}
        for route, queue in self.route_queues():
            routes.setdefault(route, []).append(queue)
        del routes[PROBE]
        return routes

    def routed_queues(self) -> list[str]:
        """The logical ids of the queues of all routes, without the probe's."""
        return [queue for queues in self.routes().values() for queue in queues]

    def probe_queue(self) -> str:
        return dict(self.route_queues())[PROBE]

    def route_queues(self) -> list[tuple[str, str]]:
        """Returns each route with the logical id of its queue. A route with two queues occurs twice."""
        queues = self.of_type("AWS::SQS::Queue")
        ids = {queue["QueueName"]: id for id, queue in queues.items()}
        ids |= {f"${{{id}.{output}}}": id for id in queues for output in ("QueueUrl", "QueueName")}
        pairs: list[tuple[str, str]] = json.loads(self.variables["QUEUE_URLS"], object_pairs_hook=list)
        return [(route, ids[queue]) for route, queue in pairs]

    def dead_letter_queues(self) -> dict[str, str]:
        """The logical id of the dead-letter queue of each queue that has one."""
        policies = {id: queue.get("RedrivePolicy") for id, queue in self.of_type("AWS::SQS::Queue").items()}
        return {id: target(policy["deadLetterTargetArn"]) for id, policy in policies.items() if policy}

    def kind_of_queue(self, id: str) -> str:
        if id in self.routes()[CATCH_ALL]:
            return CATCH_ALL_QUEUE
        if id == self.probe_queue():
            return PROBE_QUEUE
        if id in self.routed_queues():
            return ROUTED
        return DEAD_LETTER if id in self.dead_letter_queues().values() else UNUSED

    def alarms(self) -> dict[str, dict[str, Any]]:
        """The properties of each alarm, by its name without the stack's."""
        alarms = self.of_type("AWS::CloudWatch::Alarm").values()
        return {alarm["AlarmName"].removeprefix(f"{STACK}-"): alarm for alarm in alarms}

    def grants(self) -> set[tuple[str, str, str]]:
        """Who may do what to what, by every policy and permission of the template."""
        found = set()
        for id, resource in self.resources.items():
            properties = resource.get("Properties", {})
            if resource["Type"] == "AWS::Lambda::Permission":
                called = self.resources[target(properties["FunctionName"])]["Type"]
                found.add((properties["Principal"], properties["Action"], called))
            for arn in properties.get("ManagedPolicyArns", []):
                found.add((self._principal(id), str(arn), "*"))
            for statement in statements(properties):
                if statement["Effect"] == "Allow":
                    whats = self._subjects(id, statement)
                    whos = principals(statement) or [self._principal(role) for role in self._roles(id)]
                    found |= {
                        (who, action, what) for who in whos for action in listed(statement["Action"]) for what in whats
                    }
        return found

    def _roles(self, id: str) -> list[str]:
        resource = self.resources[id]
        return (
            [id] if resource["Type"] == "AWS::IAM::Role" else [target(role) for role in resource["Properties"]["Roles"]]
        )

    def _principal(self, role: str) -> str:
        return FUNCTION if target(self.function["Role"]) == role else role

    def _subjects(self, id: str, statement: dict[str, Any]) -> list[str]:
        """What a statement is about: types of resources and kinds of queues, with the path of objects in a bucket."""
        resource = self.resources[id]
        condition = "".join(
            f" if {operator} {key}={json.dumps(value)}"
            for operator, test in statement.get("Condition", {}).items()
            for key, value in test.items()
        )
        if "Resource" not in statement and "NotResource" not in statement:
            return [resource["Type"] + condition]
        named = listed(statement.get("Resource", [])) + [
            ("not", each) for each in listed(statement.get("NotResource", []))
        ]
        if named == ["*"] and "Principal" in statement:
            named = resource["Properties"].get("Queues", [{"Ref": id}])
        return [self._subject(each) + condition for each in named]

    def _subject(self, what: Any) -> str:
        if isinstance(what, tuple):
            return f"all but {self._subject(what[1])}"
        if what == "*":
            return "*"
        id = target(what)
        path = what.partition("}")[2] if isinstance(what, str) else ""
        kind = self.resources[id]["Type"]
        return self.kind_of_queue(id) if kind == "AWS::SQS::Queue" else kind + path


def expand(text: str | None = None, /, **parameters: str) -> Expanded:
    """The template, or this text in its place."""
    return _expand(text, tuple(sorted(parameters.items())))


def expand_set(name: str) -> Expanded:
    """The template with a set of parameters and rows."""
    return expand(text_of_set(name), **SETS[name])


def text_of_set(name: str) -> str:
    """The text of the template with the rows of a set."""
    return ROWS.get(name, str)(TEMPLATE.read_text())


@cache
def _expand(text: str | None, parameters: tuple[tuple[str, str], ...]) -> Expanded:
    # Converts to plain dictionaries, as expand_template.main() does by printing JSON.
    made = json.loads(json.dumps(expand_template.expand(TEMPLATE, dict(parameters), text)))
    return Expanded(made["Resources"], made["Outputs"], made["Parameters"])


def target(reference: Any) -> str:
    """The logical id that a reference, or the beginning of a substitution, names."""
    match reference:
        case {"Ref": str(id)} | {"Fn::GetAtt": [str(id), _]}:
            return id
        case str() if named := re.match(r"\$\{(\w+)[.}]", reference):
            return named[1]
    raise ValueError(f"no reference: {reference}")


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def principals(statement: dict[str, Any]) -> list[str]:
    principal = statement.get("Principal", {})
    return [principal] if isinstance(principal, str) else [who for kind in principal.values() for who in listed(kind)]


def statements(value: Any) -> Iterator[dict[str, Any]]:
    """All statements of policies, wherever they are."""
    if isinstance(value, dict):
        if "Effect" in value:
            yield value
        for inner in value.values():
            yield from statements(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from statements(inner)
