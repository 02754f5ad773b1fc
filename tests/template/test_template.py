"""Promises that the template has to keep, whatever its resources are called. What it deploys in full is in snapshots/."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import runbook
from expanded import (
    ACCOUNT,
    CATCH_ALL,
    CATCH_ALL_QUEUE,
    DEAD_LETTER,
    FUNCTION,
    OWN_ACCOUNT,
    ROUTED,
    STACK,
    TEMPLATE,
    expand,
    principals,
    statements,
    target,
)
from snapshots import DOMAIN, SETS

DAY = 24 * 60 * 60
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
MAX_MESSAGE_SIZE, MAX_RETENTION = 1 << 20, 14 * DAY
FIELDS = [
    "account_review_update", "account_update", "business_capability_update", "message_template_status_update", "messages",
    "messages.statuses", "phone_number_name_update", "phone_number_quality_update", "security",
]  # fmt: skip
# The other fields that Meta documents or was seen to send.
OTHER_FIELDS = [
    "account_alerts", "account_settings_update", "automatic_events", "business_status_update", "business_username_updates",
    "calls", "consumer_profile", "flows", "group_lifecycle_update", "group_participants_update", "group_settings_update",
    "group_status_update", "history", "message_echoes", "message_template_components_update",
    "message_template_quality_update", "messaging_handovers", "partner_solutions", "payment_configuration_update",
    "smb_app_state_sync", "smb_message_echoes", "standby", "template_category_update",
    "template_correct_category_detection", "tracking_events", "user_id_update", "user_preferences",
]  # fmt: skip
FIVE_KEYS = ["Security", "Messages", "AccountUpdate", "MessagesStatuses", "PhoneNumberNameUpdate"]
FIFO = {f"FifoField{place}": key for place, key in enumerate(FIVE_KEYS, start=1)}
EVERYTHING = SETS["consumers"] | SETS["customer-key"] | SETS["production"] | FIFO

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
    (FUNCTION, "s3:PutObject", "AWS::S3::Bucket/* if aws:ResourceAccount"),
    (FUNCTION, "xray:PutTraceSegments", "*"),
    (FUNCTION, "xray:PutTelemetryRecords", "*"),
} | {(OWN_ACCOUNT, action, queue) for action in CONSUME for queue in (ROUTED, DEAD_LETTER)}
OBJECT_ACTIONS = ("s3:GetObject", "s3:DeleteObject")
EVERY_FIELD, ONE, TWO = "arn:aws:iam::111122223333:root", "444455556666", "777788889999"
VIA_SERVICE = "AWS::KMS::Key if kms:ViaService"
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
def test_every_route_has_a_queue_and_every_queue_a_use(name: str) -> None:
    template = expand(**SETS[name])
    routes = template.routes()
    assert routes.keys() >= {CATCH_ALL, *FIELDS}
    assert len(set(routes.values())) == len(routes)
    queues = set(template.of_type("AWS::SQS::Queue"))
    assert queues == set(routes.values()) | set(template.dead_letter_queues().values())


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


@pytest.mark.parametrize("parameters", [{}, FIFO], ids=["standard", "fifo"])
def test_queue_has_dead_letter_queue_of_its_kind(parameters: dict[str, str]) -> None:
    template = expand(**parameters)
    queues = template.of_type("AWS::SQS::Queue")
    routes, dead_letter_queues = template.routes(), template.dead_letter_queues()
    assert set(dead_letter_queues) == set(routes.values()) - {routes[CATCH_ALL]}
    assert len(set(dead_letter_queues.values())) == len(dead_letter_queues)
    for id, dead in dead_letter_queues.items():
        arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{queues[id]['QueueName']}"
        assert queues[dead]["RedriveAllowPolicy"] == {"redrivePermission": "byQueue", "sourceQueueArns": [arn]}
        assert queues[dead].get("FifoQueue") == queues[id].get("FifoQueue"), id
    for name, queue in ((queue["QueueName"], queue) for queue in queues.values()):
        assert name.endswith(".fifo") == ("FifoQueue" in queue), name
        if "FifoQueue" in queue:
            # Throughput and deduplication by conversation.
            kind = (queue["DeduplicationScope"], queue["FifoThroughputLimit"])
            assert kind == ("messageGroup", "perMessageGroupId"), name
    assert sum("FifoQueue" in queue for queue in queues.values()) == 2 * len(parameters)


def test_dead_letters_outlive_queues_and_bodies_both() -> None:
    template = expand()
    retention = {id: queue["MessageRetentionPeriod"] for id, queue in template.of_type("AWS::SQS::Queue").items()}
    # SQS counts from the first sending, not from the move.
    for queue, dead in template.dead_letter_queues().items():
        assert retention[dead] > retention[queue]
    assert retention[template.routes()[CATCH_ALL]] == MAX_RETENTION
    rules = template.one("AWS::S3::Bucket")["LifecycleConfiguration"]["Rules"]
    [days] = [rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule]
    longest = max(retention[queue] + retention[dead] for queue, dead in template.dead_letter_queues().items())
    assert days * DAY > longest


def test_data_and_its_policies_outlive_the_stack() -> None:
    kept = ["SQS::Queue", "SQS::QueuePolicy", "S3::Bucket", "S3::BucketPolicy", "SecretsManager::Secret", "KMS::Key"]
    template = expand(**EVERYTHING)
    for type in kept:
        ids = template.of_type(f"AWS::{type}")
        assert ids, type
        for id in ids:
            resource = template.resources[id]
            assert (resource.get("DeletionPolicy"), resource.get("UpdateReplacePolicy")) == ("Retain", "Retain"), id


def test_queues_and_bucket_reject_calls_without_tls() -> None:
    template = expand()
    protected: list[str] = []
    for type, actions in (("AWS::SQS::QueuePolicy", "sqs:*"), ("AWS::S3::BucketPolicy", "s3:*")):
        for policy in template.of_type(type).values():
            [denial] = [statement for statement in statements(policy) if statement["Effect"] == "Deny"]
            assert (denial["Principal"], denial["Action"]) == ("*", actions)
            assert denial["Condition"] == {"Bool": {"aws:SecureTransport": False}}
            protected += [target(each) for each in policy.get("Queues", [policy.get("Bucket")])]
            if "Bucket" in policy:
                bucket = target(policy["Bucket"])
                assert denial["Resource"] == [{"Fn::GetAtt": [bucket, "Arn"]}, f"${{{bucket}.Arn}}/*"]
            else:
                assert denial["Resource"] == "*"
    assert sorted(protected) == sorted(template.of_type("AWS::SQS::Queue", "AWS::S3::Bucket"))


@pytest.mark.parametrize("name", ["default", "customer-key"])
def test_everything_at_rest_is_encrypted(name: str) -> None:
    template = expand(**SETS[name])
    key = next(({"Fn::GetAtt": [id, "Arn"]} for id in template.of_type("AWS::KMS::Key")), None)
    assert (key is None) == (name == "default")
    for queue in template.of_type("AWS::SQS::Queue").values():
        assert (queue.get("KmsMasterKeyId"), queue.get("SqsManagedSseEnabled")) == (key, None if key else True)
    [rule] = template.one("AWS::S3::Bucket")["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    by_default = rule["ServerSideEncryptionByDefault"]
    assert by_default == ({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key} if key else {"SSEAlgorithm": "AES256"})
    assert template.one("AWS::SecretsManager::Secret").get("KmsKeyId") == key


def test_bucket_is_closed_to_the_public() -> None:
    bucket = expand().one("AWS::S3::Bucket")
    blocks = ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"]
    assert bucket["PublicAccessBlockConfiguration"] == dict.fromkeys(blocks, True)
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


@pytest.mark.parametrize("parameters", [{}, FIFO], ids=["standard", "fifo"])
def test_every_queue_accepts_the_largest_message(parameters: dict[str, str]) -> None:
    sizes = {queue["MaximumMessageSize"] for queue in expand(**parameters).of_type("AWS::SQS::Queue").values()}
    assert sizes == {MAX_MESSAGE_SIZE}


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
    wide = [
        "*",
        "arn:aws:iam::*:root",
        "arn:aws:iam::111122223333:role/*",
        f"{role}?",
        "111122223333,*",
        "1111",
        "",
        ",",
    ]
    consumers = {name: parameter for name, parameter in parameters.items() if "Consumers" in name}
    assert len(consumers) > 1
    for name, parameter in consumers.items():
        prefix = "" if name == "Consumers" else "Messages="
        for value in ("111122223333", role, f"111122223333,{role}"):
            assert re.fullmatch(parameter["AllowedPattern"], prefix + value), (name, value)
        for value in wide:
            if name == "Consumers" and value == "":
                continue
            assert not re.fullmatch(parameter["AllowedPattern"], prefix + value), (name, value)
    assert not re.fullmatch(parameters["TruststoreUri"]["AllowedPattern"], "https://example.com/meta.pem")
    assert not re.fullmatch(parameters["ClientCertificateCn"]["AllowedPattern"], "")


@pytest.mark.parametrize("parameters", [{"FifoField3": "messages"}, {"FieldConsumers2": "messages=111122223333"}])
def test_key_that_names_no_field_is_rejected(parameters: dict[str, str]) -> None:
    with pytest.raises(Exception, match=r"FindInMap|messages"):
        expand(**parameters)


def test_api_passes_body_and_certificate_to_alias() -> None:
    template = expand()
    [alias] = template.of_type("AWS::Lambda::Alias")
    [(path, methods)] = template.one("AWS::ApiGatewayV2::Api")["Body"]["paths"].items()
    assert (path, set(methods)) == ("/webhook", {"get", "post"})
    for operation in methods.values():
        integration = operation["x-amazon-apigateway-integration"]
        # Format 2.0 has the client certificate, and a proxy integration the whole body.
        assert (integration["type"], integration["payloadFormatVersion"]) == ("aws_proxy", "2.0")
        assert f"functions/${{{alias}}}/invocations" in integration["uri"]["Fn::Sub"]
        assert "requestParameters" not in integration
    permissions = template.of_type("AWS::Lambda::Permission").values()
    assert [target(each["FunctionName"]) for each in permissions] == [alias, alias]
    sources = [each["SourceArn"]["Fn::Sub"][0].rpartition("${__Stage__}/")[2] for each in permissions]
    assert sorted(sources) == ["GET/webhook", "POST/webhook"]


def test_client_certificate_is_the_only_way_in() -> None:
    def ways_in(**parameters: str) -> tuple[bool, bool, bool]:
        template = expand(**parameters)
        [server] = template.one("AWS::ApiGatewayV2::Api")["Body"]["servers"]
        domains = template.of_type("AWS::ApiGatewayV2::DomainName").values()
        return (
            not server["x-amazon-apigateway-endpoint-configuration"]["disableExecuteApiEndpoint"],
            any("MutualTlsAuthentication" in domain for domain in domains),
            "CLIENT_CERTIFICATE_CN" in template.variables,
        )

    without = {name: value for name, value in DOMAIN.items() if name != "TruststoreUri"}
    assert ways_in() == ways_in(**without) == (True, False, False)
    assert ways_in(**DOMAIN) == (False, True, True)
    # A truststore without a domain name would leave no way in.
    assert ways_in(TruststoreUri=DOMAIN["TruststoreUri"]) == (True, False, False)


def test_access_log_omits_query_headers_and_body() -> None:
    template = expand()
    settings = template.one("AWS::ApiGatewayV2::Stage")["AccessLogSettings"]
    assert target(settings["DestinationArn"]) != target(template.function["LoggingConfig"]["LogGroup"])
    for value in json.loads(settings["Format"]).values():
        assert value.startswith("$context.")
        assert not re.search("query|rawPath|requestOverride|authorizer|header|body", value), value


@pytest.mark.parametrize(
    "parameters",
    [{parameter: key} for parameter, key in FIFO.items()]
    + [{"LogLevel": "DEBUG"}, {"AwsEndpointUrl": "http://localhost:1"}, DOMAIN, DOMAIN | {"ClientCertificateCn": "x"}],
    ids=lambda parameters: "-".join(parameters),
)
def test_changed_function_gets_a_new_version(parameters: dict[str, str]) -> None:
    before = expand(**DOMAIN) if "ClientCertificateCn" in parameters else expand()
    after = expand(**parameters)
    assert before.function != after.function
    # CloudFormation publishes a version if its resource differs.
    assert before.of_type("AWS::Lambda::Version") != after.of_type("AWS::Lambda::Version")


def test_alias_points_to_the_version() -> None:
    template = expand(**EVERYTHING)
    [(version, properties)] = template.of_type("AWS::Lambda::Version").items()
    assert target(template.one("AWS::Lambda::Alias")["FunctionVersion"]) == version
    assert len(properties["Description"]) <= 256


def test_canary_watches_only_failures_of_the_function() -> None:
    assert not expand().of_type("AWS::CodeDeploy::DeploymentGroup")
    template = expand(Canary="true")
    [(id, group)] = template.of_type("AWS::CodeDeploy::DeploymentGroup").items()
    watched = [
        template.resources[target(alarm["Name"])]["Properties"] for alarm in group["AlarmConfiguration"]["Alarms"]
    ]
    # An anonymous caller can cause none of them.
    causes = {("AWS/Lambda", "Errors"), ("WhatsAppIngress", "NotStored")}
    assert {(alarm["Namespace"], alarm["MetricName"]) for alarm in watched} == causes
    assert group["AlarmConfiguration"]["Enabled"]
    assert group["AutoRollbackConfiguration"]["Enabled"]
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    [alias] = template.of_type("AWS::Lambda::Alias")
    update = template.resources[alias]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    assert target(update["DeploymentGroupName"]) == id


def test_all_fields_of_meta_fit(tmp_path: Path) -> None:
    text, present = TEMPLATE.read_text(), expand().routes()
    for field in OTHER_FIELDS:
        text = text if field in present else runbook.add_field(text, field)
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
    assert len(text) <= 1 << 20
    whole = tmp_path / "template.yaml"
    whole.write_text(text)
    template = expand(whole, **EVERYTHING)
    assert template.routes().keys() == {*present, *OTHER_FIELDS}
    assert len(template.resources) <= 500
    assert len(template.outputs) <= 200
    # The longest name of a stack that leaves room for the longest name of a queue, of 80 characters, in the longest region.
    stack = "s" * (80 - max(map(len, FIELDS + OTHER_FIELDS)) - len("--dead.fifo"))
    urls = template.variables["QUEUE_URLS"].replace(f'"{STACK}-', f'"{stack}-')
    urls = re.sub(r"\$\{\w+\.QueueUrl}", f"https://sqs.ap-southeast-1.amazonaws.com/{ACCOUNT}/{stack}-unrouted", urls)
    urls = re.sub(r'(?<!unrouted)(?<!\.fifo)"(?=[,}])', '.fifo"', urls)
    values: dict[str, Any] = template.variables | {
        "QUEUE_URLS": urls,
        "SECRET_ID": f"arn:aws:secretsmanager:ap-southeast-1:{ACCOUNT}:secret:{'s' * 64}-123456",
        "PAYLOAD_BUCKET": "b" * 63,
    }
    # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
    assert sum(len(name) + len(value) for name, value in values.items()) <= 4096


def test_every_alarmed_metric_is_on_the_dashboard() -> None:
    template = expand(**EVERYTHING)
    body = json.loads(template.one("AWS::CloudWatch::Dashboard")["DashboardBody"])
    shown = json.dumps(body)
    for name, alarm in template.alarms().items():
        metric = alarm["MetricName"]
        assert f'"{metric}"' in shown or f'MetricName=\\"{metric}' in shown or f'\\"{metric}\\"' in shown, name
    assert all(widget["x"] + widget["width"] <= 24 for widget in body["widgets"])


def test_outputs_name_every_queue() -> None:
    template = expand(**FIFO)
    values = [output["Value"] for output in template.outputs.values()]
    for id in template.of_type("AWS::SQS::Queue"):
        assert {"Fn::GetAtt": [id, "QueueUrl"]} in values, id
        assert {"Fn::GetAtt": [id, "Arn"]} in values, id


def test_generated_secret_has_a_placeholder() -> None:
    generated = expand().one("AWS::SecretsManager::Secret")["GenerateSecretString"]
    # The function rejects this value, so nobody can sign with what everybody can read here.
    assert json.loads(generated["SecretStringTemplate"]) == {"app_secret": "REPLACE_ME"}
    assert (generated["GenerateStringKey"], generated["PasswordLength"]) == ("verify_token", 40)
