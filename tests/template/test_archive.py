"""The archive of signed notifications: nothing of it without its parameter, and a bucket that forgets."""

from __future__ import annotations

from typing import Any

import pytest
from samcli.yamlhelper import yaml_parse

import expand_template
from expanded import TEMPLATE, expand, target
from parameters import ARCHIVE

ARCHIVE_TEMPLATE = expand_template.REPOSITORY / "infra/archive.yaml"


def archive_bucket(**parameters: str) -> dict[str, Any]:
    template = expand(**parameters)
    return template.of_type("AWS::S3::Bucket")[target(template.variables["ARCHIVE_BUCKET"])]


def test_archive_is_off_by_default() -> None:
    template, with_archive = expand(), expand(**ARCHIVE)
    added = {resource["Type"] for id, resource in with_archive.resources.items() if id not in template.resources}
    assert added - {"AWS::Lambda::Version"} == {"AWS::S3::Bucket", "AWS::S3::BucketPolicy", "AWS::IAM::Policy"}
    assert with_archive.variables.keys() - template.variables.keys() == {"ARCHIVE_BUCKET", "ARCHIVE_REQUIRED"}
    assert with_archive.outputs.keys() - template.outputs.keys() == {"ArchiveBucket", "ArchiveBucketName"}
    assert not template.variables.keys() - with_archive.variables.keys()


@pytest.mark.parametrize(("parameters", "required"), [({"ArchiveDays": "1"}, "false"), (ARCHIVE, "true")])
def test_function_knows_whether_the_archive_is_required(parameters: dict[str, str], required: str) -> None:
    assert expand(**parameters).variables["ARCHIVE_REQUIRED"] == required


@pytest.mark.parametrize("days", ["1", "3650"])
def test_notifications_expire_for_good(days: str) -> None:
    bucket = archive_bucket(ArchiveDays=days)
    rules = bucket["LifecycleConfiguration"]["Rules"]
    assert [str(rule["ExpirationInDays"]) for rule in rules if "ExpirationInDays" in rule] == [days]
    assert all(rule["Status"] == "Enabled" and not rule.keys() & {"Prefix", "TagFilters"} for rule in rules)
    # A version would outlive erasure, and a lock would prevent it.
    assert not bucket.keys() & {"VersioningConfiguration", "ObjectLockEnabled", "ReplicationConfiguration"}


def test_required_archive_needs_days() -> None:
    parameters, rules = (yaml_parse(TEMPLATE.read_text())[section] for section in ("Parameters", "Rules"))
    days = parameters["ArchiveDays"]
    assert (days["Default"], days["MinValue"], days["MaxValue"]) == (0, 0, 3650)
    is_not_required = {"Fn::Equals": [{"Ref": "ArchiveRequired"}, "false"]}
    has_days = {"Fn::Not": [{"Fn::Equals": [{"Ref": "ArchiveDays"}, "0"]}]}
    assertions = [assertion["Assert"] for assertion in rules["NeededParameters"]["Assertions"]]
    assert {"Fn::Or": [is_not_required, has_days]} in assertions


def test_archive_template_is_readable_alone() -> None:
    text = ARCHIVE_TEMPLATE.read_text()
    assert len(text.splitlines()) <= 70
    assert "Fn::ForEach" not in text
