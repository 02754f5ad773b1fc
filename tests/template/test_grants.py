"""Who may do what: nothing beyond a list, and nothing by a parameter that is too wide."""

from __future__ import annotations

import re

import pytest
from samcli.yamlhelper import yaml_parse

import rows
from expanded import (
    ACCOUNT,
    CATCH_ALL,
    CATCH_ALL_QUEUE,
    DEAD_LETTER,
    FUNCTION,
    PROBE_QUEUE,
    QUEUE_TEMPLATE,
    ROUTED,
    TEMPLATE,
    expand,
    expand_set,
    listed,
    principals,
    statements,
    target,
    text_of_set,
)
from parameters import SETS

CONSUME = {
    f"sqs:{action}"
    for action in ("ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes", "GetQueueUrl")
}
GRANTS = {
    ("lambda.amazonaws.com", "sts:AssumeRole", "AWS::IAM::Role"),
    ("apigateway.amazonaws.com", "lambda:InvokeFunction", "AWS::Lambda::Alias"),
    (FUNCTION, "logs:CreateLogStream", "AWS::Logs::LogGroup"),
    (FUNCTION, "logs:PutLogEvents", "AWS::Logs::LogGroup"),
    (FUNCTION, "secretsmanager:GetSecretValue", "AWS::SecretsManager::Secret"),
    (FUNCTION, "sqs:SendMessage*", CATCH_ALL_QUEUE),
    (FUNCTION, "sqs:SendMessage*", ROUTED),
    (FUNCTION, "sqs:SendMessage*", PROBE_QUEUE),
    # A bucket that was deleted, and created again by another account, gets no bodies.
    (FUNCTION, "s3:PutObject", f'AWS::S3::Bucket/* if StringEquals aws:ResourceAccount="{ACCOUNT}"'),
    (FUNCTION, "xray:PutTraceSegments", "*"),
    (FUNCTION, "xray:PutTelemetryRecords", "*"),
} | {(ACCOUNT, action, queue) for action in CONSUME for queue in (ROUTED, DEAD_LETTER)}
OBJECT_ACTIONS = ("s3:GetObject", "s3:DeleteObject")
EVERY_FIELD, ONE, TWO = "arn:aws:iam::111122223333:root", "444455556666", "777788889999"
SERVICES = '["sqs.us-east-1.amazonaws.com", "s3.us-east-1.amazonaws.com"]'
VIA_SERVICE = f"AWS::KMS::Key if StringEquals kms:ViaService={SERVICES}"
ADDED_GRANTS: dict[str, set[tuple[str, str, str]]] = {
    "default": set(),
    "consumers": {
        (who, action, q) for who in (EVERY_FIELD, ONE, TWO) for action in CONSUME for q in (ROUTED, DEAD_LETTER)
    }
    | {(EVERY_FIELD, action, "all but AWS::S3::Bucket/unrouted/*") for action in OBJECT_ACTIONS}
    | {(who, action, "AWS::S3::Bucket/messages/*") for who in (ONE, TWO) for action in OBJECT_ACTIONS}
    | {(ONE, action, "AWS::S3::Bucket/messages.statuses/*") for action in OBJECT_ACTIONS},
    "customer-managed-key": {("111122223333", action, q) for action in CONSUME for q in (ROUTED, DEAD_LETTER)}
    | {("111122223333", action, "all but AWS::S3::Bucket/unrouted/*") for action in OBJECT_ACTIONS}
    | {(FUNCTION, action, "AWS::KMS::Key") for action in ("kms:GenerateDataKey", "kms:Decrypt")}
    | {(who, "kms:Decrypt", VIA_SERVICE) for who in (ACCOUNT, "111122223333")}
    | {(f"arn:aws:iam::{ACCOUNT}:root", "kms:*", "AWS::KMS::Key")},
    # The function may not read, list or delete what it archived, and nobody else may do anything.
    "archive": {
        (FUNCTION, "s3:PutObject", f'AWS::S3::Bucket/archive/* if StringEquals aws:ResourceAccount="{ACCOUNT}"')
    },
    "production": {
        ("codedeploy.amazonaws.com", "sts:AssumeRole", "AWS::IAM::Role"),
        ("CodeDeployServiceRole", "arn:aws:iam::aws:policy/service-role/AWSCodeDeployRoleForLambda", "*"),
    },
}


def own_consumers(name: str) -> list[tuple[str, str]]:
    """Consumers and routes of the rows that the operator added. The template has none, and the rows of the set are not among them."""
    before, after = (rows.deployed(text) for text in (TEMPLATE.read_text(), text_of_set(name)))
    kept = [row for key, row in before.items() if after.get(key) == row]
    return [(who, row["Route"]) for row in kept for who in rows.consumers(row)]


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_granted_beyond_the_list(name: str) -> None:
    expected = GRANTS | ADDED_GRANTS[name]
    for who, route in own_consumers(name):
        expected |= {(who, action, queue) for action in CONSUME for queue in (ROUTED, DEAD_LETTER)}
        expected |= {(who, action, f"AWS::S3::Bucket/{route}/*") for action in OBJECT_ACTIONS}
        if "UseCustomerManagedKey" in SETS[name]:
            expected |= {(who, "kms:Decrypt", VIA_SERVICE)}
    assert expand_set(name).grants() == expected


@pytest.mark.parametrize("name", SETS)
def test_function_may_send_to_the_queue_of_each_route(name: str) -> None:
    template = expand_set(name)
    allowed = [
        target(resource)
        for policy in template.of_type("AWS::IAM::Policy", "AWS::IAM::Role").values()
        for statement in statements(policy)
        if statement["Action"] == "sqs:SendMessage*"
        for resource in listed(statement["Resource"])
    ]
    assert sorted(allowed) == sorted([*template.routed_queues(), template.probe_queue()])


def test_consumer_of_a_field_is_only_in_its_policies() -> None:
    template = expand_set("consumers")
    dead_letter_queues = template.dead_letter_queues()
    deployed = rows.deployed(text_of_set("consumers"))
    readers: dict[str, set[str]] = {}
    for policy in template.of_type("AWS::SQS::QueuePolicy").values():
        allowed = [statement for statement in statements(policy) if statement["Effect"] == "Allow"]
        for queue in policy["Queues"]:
            readers[target(queue)] = {who for statement in allowed for who in principals(statement)}
    assert {*rows.consumers(deployed["MessagesFifo"])} == {ONE, TWO}
    for key, row in deployed.items():
        # A row with consumers does not name this account, whose own policies are enough.
        expected = {EVERY_FIELD, *(rows.consumers(row) or [ACCOUNT])}
        queue = f"Queue{key}Queue"
        assert readers[queue] == readers[dead_letter_queues[queue]] == expected, key
    assert [readers[queue] for queue in template.routes()[CATCH_ALL]] == [set()]


def test_key_policy_names_the_consumers_of_rows() -> None:
    policy = expand(text_of_set("consumers"), UseCustomerManagedKey="true", **SETS["consumers"]).one("AWS::KMS::Key")[
        "KeyPolicy"
    ]
    [consume] = [statement for statement in statements(policy) if statement["Sid"] == "Consume"]
    assert set(principals(consume)) == {ACCOUNT, EVERY_FIELD, ONE, TWO, *(who for who, _ in own_consumers("consumers"))}


ROLE = "arn:aws:iam::111122223333:role/team/reader"
WIDE = ["*", "arn:aws:iam::*:root", "arn:aws:iam::111122223333:role/*", f"{ROLE}?", "1111", ","]
WIDE += [f"{ROLE},{each}" for each in ("", *WIDE)]


def test_parameters_reject_what_is_too_wide() -> None:
    parameters = expand().parameters
    of_row = yaml_parse(QUEUE_TEMPLATE.read_text())["Parameters"]["Consumers"]
    for pattern in (parameters["Consumers"]["AllowedPattern"], of_row["AllowedPattern"]):
        for value in ("111122223333", ROLE, f"111122223333,{ROLE}"):
            assert re.fullmatch(pattern, value), value
        for value in WIDE:
            assert not re.fullmatch(pattern, value), value
    assert not re.fullmatch(parameters["TruststoreUri"]["AllowedPattern"], "https://example.com/meta.pem")
    assert not re.fullmatch(parameters["ClientCertificateCn"]["AllowedPattern"], "")


def test_consumers_of_a_row_reach_the_pattern() -> None:
    row = '{ Route: messages, Consumers: "111122223333,*" }'
    with pytest.raises(ValueError, match="without wildcards"):
        expand(rows.replace(TEMPLATE.read_text(), "Messages", "Messages", row))
