"""Prints a template as CloudFormation gets to see it: loops unrolled and SAM's resources translated, as JSON.

Nothing is asked of AWS. The stack is called `stack`; a `${AWS::StackName}` that is left in the output stood outside
of any `!Sub`.
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
    """Stands in for the list of managed policies, which SAM would fetch from AWS if the template named one."""

    def load(self) -> dict[str, str]:
        return {}


def expand(template: Path, parameters: dict[str, str] | None = None) -> dict[str, Any]:
    """Expands `template` with its parameters' defaults or what `parameters` says instead.

    Raises what SAM raises if it is no valid template.
    """
    validator = SamTemplateValidator(
        yaml_parse(template.read_text(encoding="utf-8")),
        _NoManagedPolicies(),
        region=PSEUDO_PARAMETERS["AWS::Region"],
        parameter_overrides=PSEUDO_PARAMETERS | (parameters or {}),
        language_extensions_enabled=True,
    )
    return _without_what_is_not_made(yaml_parse(validator.get_translated_template_if_valid()))


def _without_what_is_not_made(template: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the resources and outputs whose condition does not hold; SAM has put the parameters in already."""
    conditions = template.get("Conditions", {})

    def holds(condition: dict[str, Any]) -> bool:
        [(function, value)] = condition.items()
        match function:
            case "Fn::Equals":
                return str(value[0]) == str(value[1])
            case "Fn::Not":
                return not holds(value[0])
            case "Fn::And":
                return all(holds(each) for each in value)
            case "Fn::Or":
                return any(holds(each) for each in value)
            case "Condition":
                return holds(conditions[value])
        raise ValueError(f"a condition that is not understood: {condition}")

    for section in ("Resources", "Outputs"):
        template[section] = {
            name: made
            for name, made in template[section].items()
            if "Condition" not in made or holds(conditions[made["Condition"]])
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
