"""Who may do what: nothing beyond a list, and nothing by a parameter that is too wide."""

from __future__ import annotations

import re

import pytest
from samcli.commands.validate.lib.exceptions import InvalidSamDocumentException

from expanded import (
    ACCOUNT,
    CATCH_ALL,
    CATCH_ALL_QUEUE,
    DEAD_LETTER,
    FUNCTION,
    OWN_ACCOUNT,
    ROUTED,
    expand,
    principals,
    statements,
    target,
)
from parameters import FIFO, SETS

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
    # A bucket that was deleted, and created again by another account, gets no bodies.
    (FUNCTION, "s3:PutObject", f'AWS::S3::Bucket/* if StringEquals aws:ResourceAccount="{ACCOUNT}"'),
    (FUNCTION, "xray:PutTraceSegments", "*"),
    (FUNCTION, "xray:PutTelemetryRecords", "*"),
} | {(OWN_ACCOUNT, action, queue) for action in CONSUME for queue in (ROUTED, DEAD_LETTER)}
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
    "customer-key": {("111122223333", action, q) for action in CONSUME for q in (ROUTED, DEAD_LETTER)}
    | {("111122223333", action, "all but AWS::S3::Bucket/unrouted/*") for action in OBJECT_ACTIONS}
    | {(FUNCTION, action, "AWS::KMS::Key") for action in ("kms:GenerateDataKey", "kms:Decrypt")}
    | {(who, "kms:Decrypt", VIA_SERVICE) for who in (OWN_ACCOUNT, "111122223333")}
    | {(OWN_ACCOUNT, "kms:*", "AWS::KMS::Key")},
    "production": {
        ("codedeploy.amazonaws.com", "sts:AssumeRole", "AWS::IAM::Role"),
        ("CodeDeployServiceRole", "arn:aws:iam::aws:policy/service-role/AWSCodeDeployRoleForLambda", "*"),
    },
}


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_granted_beyond_the_list(name: str) -> None:
    assert expand(**SETS[name]).grants() == GRANTS | ADDED_GRANTS[name]


@pytest.mark.parametrize("name", SETS)
def test_function_may_send_to_the_queue_of_each_route(name: str) -> None:
    template = expand(**SETS[name])
    allowed = [
        target(statement["Resource"])
        for policy in template.of_type("AWS::IAM::Policy", "AWS::IAM::Role").values()
        for statement in statements(policy)
        if statement["Action"] == "sqs:SendMessage*"
    ]
    assert sorted(allowed) == sorted(template.routes().values())


def test_consumer_of_a_field_is_only_in_its_policies() -> None:
    template = expand(**SETS["consumers"])
    routes, dead_letter_queues = template.routes(), template.dead_letter_queues()
    readers: dict[str, set[str]] = {}
    for policy in template.of_type("AWS::SQS::QueuePolicy").values():
        allowed = [statement for statement in statements(policy) if statement["Effect"] == "Allow"]
        for queue in policy["Queues"]:
            readers[target(queue)] = {who for statement in allowed for who in principals(statement)}
    more = {"messages": {ONE, TWO}, "messages.statuses": {ONE}}
    for route, queue in routes.items():
        expected = set() if route == CATCH_ALL else {OWN_ACCOUNT, EVERY_FIELD} | more.get(route, set())
        assert readers[queue] == expected, route
        if route != CATCH_ALL:
            assert readers[dead_letter_queues[queue]] == expected, route


def test_parameters_reject_what_is_too_wide() -> None:
    parameters = expand().parameters
    role = "arn:aws:iam::111122223333:role/team/reader"
    wide = ["*", "arn:aws:iam::*:root", "arn:aws:iam::111122223333:role/*", f"{role}?", "1111", ","]
    wide += [f"{role},{each}" for each in ("", *wide)]
    consumers = {name: parameter for name, parameter in parameters.items() if "Consumers" in name}
    assert len(consumers) > 1
    for name, parameter in consumers.items():
        prefix = "" if name == "Consumers" else "Messages="
        for value in ("111122223333", role, f"111122223333,{role}"):
            assert re.fullmatch(parameter["AllowedPattern"], prefix + value), (name, value)
        for value in wide:
            assert not re.fullmatch(parameter["AllowedPattern"], prefix + value), (name, value)
    assert not re.fullmatch(parameters["TruststoreUri"]["AllowedPattern"], "https://example.com/meta.pem")
    assert not re.fullmatch(parameters["ClientCertificateCn"]["AllowedPattern"], "")


@pytest.mark.parametrize("name", [*FIFO, *(f"FieldConsumers{place}" for place in range(1, 6))])
def test_key_that_names_no_field_is_rejected(name: str) -> None:
    value = "messages=111122223333" if "Consumers" in name else "messages"
    with pytest.raises(InvalidSamDocumentException, match="cannot find key 'messages'"):
        expand(**{name: value})
