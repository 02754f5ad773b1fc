"""Prints a template as CloudFormation receives it: as JSON, with expanded loops and translated SAM resources.

Does not call AWS. The name of the stack is `stack`. A `${AWS::StackName}` in the output is a mistake: it was not in a
`!Sub`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

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


def expand(template: Path, parameters: dict[str, str] | None = None) -> dict[str, Any]:
    """Expands a template. `parameters` override the default values.

    Raises the exception of SAM if the template is invalid.
    """
    validator = SamTemplateValidator(
        yaml_parse(template.read_text(encoding="utf-8")),
        _NoManagedPolicies(),
        region=PSEUDO_PARAMETERS["AWS::Region"],
        parameter_overrides=PSEUDO_PARAMETERS | (parameters or {}),
        language_extensions_enabled=True,
    )
    return _remove_unused(yaml_parse(validator.get_translated_template_if_valid()))


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
