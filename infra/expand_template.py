"""Prints the resources of a template as one JSON template, with expanded loops, translated SAM resources and inlined nested stacks.

Does not call AWS. The name of the stack is `stack`. A `${AWS::StackName}` in the output is a mistake: it was not in a
`!Sub`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from samcli.lib.cfn_language_extensions.sam_integration import process_template_for_sam_cli
from samcli.lib.translate.sam_template_validator import SamTemplateValidator
from samcli.yamlhelper import yaml_parse

REPOSITORY = Path(__file__).resolve().parent.parent
PSEUDO_PARAMETERS = {
    "AWS::StackName": "stack",
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::AccountId": "123456789012",
    "AWS::URLSuffix": "amazonaws.com",
}


class _NoManagedPolicies:
    """An empty list of managed policies. SAM would fetch the list from AWS if the template used one."""

    def load(self) -> dict[str, str]:
        return {}


NESTED_STACK = "AWS::CloudFormation::Stack"


def expand(template: Path, parameters: dict[str, str] | None = None, text: str | None = None) -> dict[str, Any]:
    """Expands `template`, or this text in its place, and inlines its nested stacks.

    `parameters` replace the defaults. Raises SAM's errors if it is no valid template.
    """
    return _inline_nested_stacks(expand_root(template, parameters, text), template.parent)


def expand_root(template: Path, parameters: dict[str, str] | None = None, text: str | None = None) -> dict[str, Any]:
    """As `expand`, but leaves nested stacks as resources."""
    validator = SamTemplateValidator(
        yaml_parse(text or template.read_text(encoding="utf-8")),
        _NoManagedPolicies(),
        region=PSEUDO_PARAMETERS["AWS::Region"],
        parameter_overrides=PSEUDO_PARAMETERS | (parameters or {}),
        language_extensions_enabled=True,
    )
    return _remove_unused(yaml_parse(validator.get_translated_template_if_valid()))


def _inline_nested_stacks(template: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Replaces each nested stack by its resources and outputs, whose ids then begin with the id of the stack."""
    resources: dict[str, Any] = {}
    values: dict[str, str] = {}
    for stack, resource in template["Resources"].items():
        if resource["Type"] != NESTED_STACK:
            resources[stack] = resource
            continue
        properties = resource["Properties"]
        child = yaml_parse((folder / properties["TemplateURL"]).read_text(encoding="utf-8"))
        given = {name: _as_text(value) for name, value in properties["Parameters"].items()}
        _check_parameters(child["Parameters"], given)
        made = process_template_for_sam_cli(child, parameter_values=PSEUDO_PARAMETERS | given)
        names = {f"{id}.QueueName": each["Properties"].get("QueueName", "") for id, each in made["Resources"].items()}
        made = _rename(made, {id: stack + id for id in made["Resources"]}, names)
        resources |= {stack + id: each for id, each in made["Resources"].items()}
        template["Outputs"] |= {stack + name: output for name, output in made["Outputs"].items()}
        values |= {f"{stack}.Outputs.{name}": _as_text(output["Value"]) for name, output in made["Outputs"].items()}
    return template | {"Resources": _rename(resources, {}, values), "Outputs": _rename(template["Outputs"], {}, values)}


def _as_text(value: Any) -> str:
    """A reference as it stands in a `!Sub`, so that it can be the value of a parameter."""
    match value:
        case {"Ref": id}:
            return f"${{{id}}}"
        case {"Fn::GetAtt": [id, attribute]}:
            return f"${{{id}.{attribute}}}"
    return str(value)


def _check_parameters(declared: dict[str, Any], given: dict[str, str]) -> None:
    """Raises `ValueError` where CloudFormation rejects the parameters of a nested stack."""
    if missing := {name for name, each in declared.items() if "Default" not in each} - given.keys():
        raise ValueError(f"the nested stack lacks {missing}")
    for name, value in given.items():
        if not re.fullmatch(declared[name].get("AllowedPattern", ".*"), value):
            raise ValueError(f"{name} {declared[name]['ConstraintDescription']}: {value}")
        if value not in declared[name].get("AllowedValues", [value]):
            raise ValueError(f"{name} is not one of {declared[name]['AllowedValues']}: {value}")


def _rename(node: Any, ids: dict[str, str], values: dict[str, str]) -> Any:
    """Replaces logical ids in the keys of resources and in references, and references within texts by known values."""
    match node:
        case {"Ref": str(id)}:
            return {"Ref": ids.get(id, id)}
        case {"Fn::GetAtt": [str(id), str(attribute)]} if attribute.startswith("Outputs."):
            return _rename(values[f"{id}.{attribute}"], ids, {})
        case {"Fn::GetAtt": [str(id), attribute]}:
            return {"Fn::GetAtt": [ids.get(id, id), attribute]}
        case dict():
            return {key: _rename(value, ids, values) for key, value in node.items()}
        case list():
            return [_rename(each, ids, values) for each in node]
        case str():
            for name, value in values.items():
                node = node.replace(f"${{{name}}}", value)
            if reference := re.fullmatch(r"\$\{(\w+)(?:\.(\w+))?}", node):
                id, attribute = ids.get(reference[1], reference[1]), reference[2]
                return {"Fn::GetAtt": [id, attribute]} if attribute else {"Ref": id}
            return re.sub(r"\$\{(\w+)(?=[.}])", lambda found: f"${{{ids.get(found[1], found[1])}", node)
    return node


def _remove_unused(template: dict[str, Any]) -> dict[str, Any]:
    """Removes the resources and outputs whose condition is false. SAM has already replaced the parameters."""
    conditions = template.get("Conditions", {})

    def is_true(condition: dict[str, Any]) -> bool:
        [(function, value)] = condition.items()
        match function:
            case "Fn::Equals":
                return str(value[0]) == str(value[1])
            case "Fn::Not":
                return not is_true(value[0])
            case "Fn::And":
                return all(is_true(operand) for operand in value)
            case "Fn::Or":
                return any(is_true(operand) for operand in value)
            case "Condition":
                return is_true(conditions[value])
        raise ValueError(f"unsupported condition: {condition}")

    for section in ("Resources", "Outputs"):
        template[section] = {
            name: definition
            for name, definition in template[section].items()
            if "Condition" not in definition or is_true(conditions[definition["Condition"]])
        }
    return template


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("template", nargs="?", type=Path, default=REPOSITORY / "template.yaml")
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    parameters = dict(parameter.split("=", 1) for parameter in arguments.parameter)
    json.dump(expand(arguments.template, parameters), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
