"""Stacks with each parameter and with all: the settings of their resources, and the delivery of a change for each route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError

import rows
from expanded import listed
from harness import OWNER, SECRET, TOO_LARGE, Edit, LocalAws, Stack, change, message, message_ids, receive_all

TOPIC = f"arn:aws:sns:us-east-1:{OWNER}:operators"
CERTIFICATE = f"arn:aws:acm:us-east-1:{OWNER}:certificate/00000000-0000-0000-0000-000000000000"
META = "client.webhooks.fbclientcerts.com"
DOMAIN = {"DomainName": "hooks.example.com", "CertificateArn": CERTIFICATE}
TRUST = {"TruststoreUri": "s3://truststore/meta.pem"}
# tests/template checks Canary, because the local AWS does not support CodeDeploy.
SINGLE_PARAMETERS: list[dict[str, str]] = [
    {"Architecture": "arm64"},
    {"LogLevel": "WARN"},
    {"SystemLogLevel": "INFO"},
    {"UseCustomerManagedKey": "true"},
    {"AlarmTopicArn": TOPIC},
    {"PageTopicArn": TOPIC},
    {"ConsumerLagAlarmSeconds": "600"},
    {"NoTrafficAlarmSeconds": "900"},
    DOMAIN,
    {"ReservedConcurrency": "50"},
    {"Consumers": "111122223333"},
    {"ArchiveDays": "30"},
]
ALL_PARAMETERS = {name: value for each in SINGLE_PARAMETERS for name, value in each.items()}
ALL_PARAMETERS |= {"Architecture": "x86_64", "DomainName": "all.example.com", "ArchiveRequired": "true"} | TRUST
PARAMETER_SETS: dict[str, dict[str, str]] = {
    "none": {},
    **{next(iter(each)): each for each in SINGLE_PARAMETERS},
    "all": ALL_PARAMETERS,
}


@pytest.fixture(scope="module", params=PARAMETER_SETS)
def stack(aws: LocalAws, request: pytest.FixtureRequest) -> Stack:
    return Stack(aws, f"with-{request.param.lower()}", PARAMETER_SETS[request.param])


def test_function_has_its_settings(stack: Stack) -> None:
    function, parameters = stack.function, stack.parameters
    assert function["Architectures"] == [parameters.get("Architecture", "x86_64")]
    assert function["Role"].endswith("/" + stack.resources["FunctionRole"])
    assert function["TracingConfig"]["Mode"] == "Active"
    assert function["LoggingConfig"]["LogGroup"] == stack.outputs["LogGroupName"]
    assert function["LoggingConfig"]["ApplicationLogLevel"] == parameters.get("LogLevel", "INFO")
    assert function["LoggingConfig"]["SystemLogLevel"] == parameters.get("SystemLogLevel", "WARN")


def test_environment_names_secret_bucket_and_queues(stack: Stack) -> None:
    variables = {
        "SECRET_ID": stack.outputs["SecretArn"],
        "PAYLOAD_BUCKET": stack.outputs["PayloadBucket"],
        "QUEUE_URLS": stack.variables["QUEUE_URLS"],
        "MALLOC_MMAP_THRESHOLD_": "8388608",
        "MALLOC_TRIM_THRESHOLD_": "33554432",
    }
    if "TruststoreUri" in stack.parameters:
        variables["CLIENT_CERTIFICATE_CN"] = META
    if "ArchiveDays" in stack.parameters:
        required = stack.parameters.get("ArchiveRequired", "false")
        variables |= {"ARCHIVE_BUCKET": stack.outputs["ArchiveBucket"], "ARCHIVE_REQUIRED": required}
    assert stack.variables == variables
    urls = [stack.queue_url(route) for route in stack.routes]
    assert len(set(urls)) == len(stack.routes) > 9


def test_role_allows_only_these_actions(stack: Stack) -> None:
    outputs = stack.outputs
    log_group = f"arn:aws:logs:us-east-1:{OWNER}:log-group:{outputs['LogGroupName']}:*"
    expected = {
        ("logs:CreateLogStream", log_group),
        ("logs:PutLogEvents", log_group),
        ("secretsmanager:GetSecretValue", outputs["SecretArn"]),
        ("s3:PutObject", f"arn:aws:s3:::{outputs['PayloadBucket']}/*"),
        ("xray:PutTraceSegments", "*"),
        ("xray:PutTelemetryRecords", "*"),
    }
    expected |= {("sqs:SendMessage*", stack.attributes(stack.queue_url(route))["QueueArn"]) for route in stack.routes}
    if "ArchiveDays" in stack.parameters:
        expected.add(("s3:PutObject", f"arn:aws:s3:::{outputs['ArchiveBucket']}/archive/*"))
    if "UseCustomerManagedKey" in stack.parameters:
        expected |= {(action, outputs["EncryptionKeyArn"]) for action in ("kms:GenerateDataKey", "kms:Decrypt")}
    assert allowed_to(stack.aws.root("iam"), stack.resources["FunctionRole"]) == expected


def allowed_to(iam: Any, role: str) -> set[tuple[str, str]]:
    """Returns the pairs of action and resource in the policies of a role."""
    assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    pairs = set()
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        for statement in iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]["Statement"]:
            actions, resources = statement["Action"], statement["Resource"]
            expected = {"Effect": "Allow", "Action": actions, "Resource": resources}
            if actions == "s3:PutObject":
                expected["Condition"] = {"StringEquals": {"aws:ResourceAccount": OWNER}}
            assert statement == expected
            pairs |= {(action, resource) for action in listed(actions) for resource in listed(resources)}
    return pairs


# tests/template checks bucket encryption and reserved concurrency, which the local AWS does not support.
def test_key_encrypts_queue_and_secret(stack: Stack) -> None:
    key = stack.outputs.get("EncryptionKeyArn")
    assert (key is not None) == ("UseCustomerManagedKey" in stack.parameters)
    queue = stack.attributes(stack.queue_url("messages"))
    assert queue.get("KmsMasterKeyId") == key
    assert (queue.get("SqsManagedSseEnabled") == "true") == (key is None)
    secret = stack.aws.root("secretsmanager").describe_secret(SecretId=stack.outputs["SecretArn"])
    assert secret.get("KmsKeyId") == key


def test_alarms_have_thresholds_and_topic(stack: Stack) -> None:
    pages = stack.aws.root("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{stack.name}-")
    found = [alarm for page in pages for alarm in page["MetricAlarms"]]
    alarms = {alarm["AlarmName"].removeprefix(f"{stack.name}-"): alarm for alarm in found}
    lag = float(stack.parameters.get("ConsumerLagAlarmSeconds", 3600))
    assert alarms["messages-consumer-lag"]["Threshold"] == lag
    assert ("no-traffic" in alarms) == ("NoTrafficAlarmSeconds" in stack.parameters)
    if "no-traffic" in alarms:
        assert alarms["no-traffic"]["Period"] == int(stack.parameters["NoTrafficAlarmSeconds"])
    actions = [stack.parameters["AlarmTopicArn"]] if "AlarmTopicArn" in stack.parameters else []
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == alarm["OKActions"] == actions, name


def test_page_alarm_watches_the_alarms_of_the_stack(stack: Stack) -> None:
    types = {"AlarmNames": [f"{stack.name}-page"], "AlarmTypes": ["CompositeAlarm"]}
    [page] = stack.aws.root("cloudwatch").describe_alarms(**types)["CompositeAlarms"]
    assert f'ALARM("{stack.name}-not-stored")' in page["AlarmRule"]
    assert (f"{stack.name}-no-traffic" in page["AlarmRule"]) == ("NoTrafficAlarmSeconds" in stack.parameters)
    assert page["AlarmActions"] == ([stack.parameters["PageTopicArn"]] if "PageTopicArn" in stack.parameters else [])


def test_domain_name_leads_to_the_api(stack: Stack) -> None:
    if "DomainName" not in stack.parameters:
        assert stack.outputs["CallbackUrl"].endswith("/webhook")
        assert "Domain" not in stack.resources
        return
    name, apis = stack.parameters["DomainName"], stack.aws.root("apigatewayv2")
    assert stack.outputs["CallbackUrl"] == f"https://{name}/webhook"
    domain = apis.get_domain_name(DomainName=name)
    truststore = domain.get("MutualTlsAuthentication", {}).get("TruststoreUri")
    assert truststore == stack.parameters.get("TruststoreUri")
    [mapping] = apis.get_api_mappings(DomainName=name)["Items"]
    assert mapping["ApiId"] == stack.resources["Api"]


def test_change_of_each_route_is_on_its_queue(stack: Stack) -> None:
    if stack.parameters.get("Architecture") == "arm64":
        pytest.skip("the built function is for x86_64")
    subject = f"CN={META}" if "TruststoreUri" in stack.parameters else None
    bodies = [change("messages", "x" * TOO_LARGE), change("unheard_of", {})]
    for route in stack.routes.keys() - {"*"}:
        field, _, kind = route.partition(".")
        bodies.append(change(field, {kind: [{}]} if kind else {}))
    assert [stack.deliver(body, subject) for body in bodies] == [200] * len(bodies)
    found = {route: len(receive_all(stack.sqs, stack.queue_url(route))) for route in stack.routes}
    assert found == {route: 2 if route == "messages" else 1 for route in stack.routes}
    assert set(stack.prefixes()) == {"messages"}
    if "ArchiveDays" in stack.parameters:
        archived = stack.s3.list_objects_v2(Bucket=stack.outputs["ArchiveBucket"])["Contents"]
        assert len(archived) == len(bodies)


Deploy = Callable[..., Stack]


@pytest.mark.parametrize(
    "parameters",
    [TRUST, {"DomainName": "alone.example.com"}, {"ArchiveRequired": "true"}],
    ids=lambda each: "-".join(each),
)
def test_parameters_need_each_other(deploy: Deploy, parameters: dict[str, str]) -> None:
    with pytest.raises(ClientError, match="needs"):
        deploy(**parameters)


PRINCIPALS = ["*", "arn:aws:iam::*:root", "arn:aws:iam::111122223333:role/*", "111122223333,*"]


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_principal_with_wildcard_is_rejected(deploy: Deploy, principal: str) -> None:
    with pytest.raises(ClientError, match="without wildcards"):
        deploy(Consumers=principal)


def messages_row(row: str) -> Edit:
    return lambda template: rows.replace(template, "Messages", "Messages", row)


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_row_with_wildcard_is_rejected(deploy: Deploy, principal: str) -> None:
    with pytest.raises(WaiterError, match=r"CREATE_FAILED|ROLLBACK"):
        deploy(edit=messages_row(f'{{ Route: messages, Consumers: "{principal}" }}'))


def test_own_account_among_consumers_is_harmless(deploy: Deploy) -> None:
    consumers = f"arn:aws:iam::{OWNER}:root,arn:aws:iam::111122223333:role/team/reader"
    stack = deploy(edit=messages_row(f'{{ Route: messages, Consumers: "{OWNER}" }}'), Consumers=consumers)
    assert stack.deliver(change("unheard_of", "x" * TOO_LARGE)) == 200
    assert set(stack.prefixes()) == {"unrouted"}


def test_changed_parameter_reaches_the_function(deploy: Deploy) -> None:
    stack = deploy()
    version = stack.function["Version"]
    stack.update({"DomainName": "later.example.com", "CertificateArn": CERTIFICATE} | TRUST)
    assert stack.function["Version"] != version
    assert stack.deliver(message(3)) == 403


def test_archive_that_is_turned_off_stays(deploy: Deploy) -> None:
    stack = deploy(ArchiveDays="30", ArchiveRequired="true")
    bucket, version = stack.outputs["ArchiveBucket"], stack.function["Version"]
    assert stack.deliver(message(1)) == 200
    stack.update({"ArchiveDays": "0", "ArchiveRequired": "false"})
    assert stack.function["Version"] != version
    assert not stack.variables.keys() & {"ARCHIVE_BUCKET", "ARCHIVE_REQUIRED"}
    assert stack.deliver(message(2)) == 200
    assert len(stack.s3.list_objects_v2(Bucket=bucket)["Contents"]) == 1


@pytest.mark.parametrize(("required", "status"), [("false", 200), ("true", 503)])
def test_deleted_archive(deploy: Deploy, required: str, status: int) -> None:
    stack = deploy(ArchiveDays="30", ArchiveRequired=required)
    stack.s3.delete_bucket(Bucket=stack.outputs["ArchiveBucket"])
    assert stack.deliver(message(1)) == status
    assert message_ids(receive_all(stack.sqs, stack.queue_url("messages"))) == ["wamid.1"]


def test_row_that_turns_fifo_keeps_the_old_queue(deploy: Deploy) -> None:
    stack = deploy(Consumers="111122223333")
    assert stack.deliver(message(1)) == 200
    version, standard = stack.function["Version"], stack.queue_url("messages")
    policy = stack.attributes(standard)["Policy"]
    fifo = '{ Route: messages, Fifo: "true" }'
    stack.update({}, lambda template: rows.replace(template, "Messages", "MessagesFifo", fifo))
    assert stack.function["Version"] != version
    assert stack.deliver(message(2)) == 200
    # The unread message stays on the queue that was removed from the stack, and its consumers keep their access.
    assert "QueueMessagesQueue" not in stack.resources
    assert stack.attributes(standard)["Policy"] == policy
    assert message_ids(receive_all(stack.sqs, standard)) == ["wamid.1"]
    assert message_ids(receive_all(stack.sqs, stack.queue_url("messages"))) == ["wamid.2"]


def test_only_metas_client_certificate_is_accepted(deploy: Deploy) -> None:
    stack = deploy(DomainName="meta.example.com", CertificateArn=CERTIFICATE, **TRUST)
    assert stack.deliver(message(1), subject=f"C=US, ST=California, O=Meta, CN={META}") == 200
    assert stack.deliver(message(2), subject="CN=client.webhooks.example.com") == 403
    assert stack.deliver(message(3)) == 403
    assert message_ids(receive_all(stack.sqs, stack.queue_url("messages"))) == ["wamid.1"]


def test_placeholder_secret_is_rejected(deploy: Deploy) -> None:
    stack = deploy()
    stack.put_secret(SECRET | {"app_secret": "REPLACE_ME"})
    assert stack.deliver(message(1)) != 200
    assert receive_all(stack.sqs, stack.queue_url("messages")) == []
