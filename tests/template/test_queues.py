"""Promises about queues, bodies and secret: everything has a place, stays there long enough and is protected."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

import generate_contract
import rows
from expand_template import expand_root
from expanded import ACCOUNT, CATCH_ALL, STACK, TEMPLATE, expand, expand_set, statements, target
from parameters import ARCHIVE, EVERYTHING, SETS

HOUR = 60 * 60
DAY = 24 * HOUR
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
MAX_MESSAGE_SIZE, MAX_RETENTION = 1 << 20, 14 * DAY
# Routes with a queue by default, and the other fields that Meta documents or was seen to send.
FIELDS = [queue.route for queue in generate_contract.queues()]
OTHER_FIELDS = [row["field"] for row in generate_contract.fields() if not row["queues"]]


@pytest.mark.parametrize("name", SETS)
def test_every_route_has_a_queue_and_every_queue_a_use(name: str) -> None:
    template = expand_set(name)
    routed = template.routed_queues()
    assert template.routes().keys() >= {CATCH_ALL, *FIELDS}
    assert len(set(routed)) == len(routed)
    queues = set(template.of_type("AWS::SQS::Queue"))
    assert queues == {*routed, *template.dead_letter_queues().values(), template.probe_queue()}


@pytest.mark.parametrize(("name", "fifo_queues"), [("default", 0), ("consumers", 2)])
def test_queue_has_dead_letter_queue_of_its_kind(name: str, fifo_queues: int) -> None:
    template = expand_set(name)
    queues = template.of_type("AWS::SQS::Queue")
    dead_letter_queues = template.dead_letter_queues()
    assert set(dead_letter_queues) == {*template.routed_queues()} - {*template.routes()[CATCH_ALL]}
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
    assert sum("FifoQueue" in queue for queue in queues.values()) == 2 * fifo_queues


def test_queues_keep_messages_as_long_as_possible() -> None:
    template = expand()
    retention = {id: queue["MessageRetentionPeriod"] for id, queue in template.of_type("AWS::SQS::Queue").items()}
    # It holds no data of a customer.
    assert retention.pop(template.probe_queue()) == HOUR
    assert set(retention.values()) == {MAX_RETENTION}


def test_bodies_outlive_their_messages() -> None:
    template = expand()
    rules = template.one("AWS::S3::Bucket")["LifecycleConfiguration"]["Rules"]
    [days] = [rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule]
    # A FIFO queue counts from the move to the dead-letter queue:
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
    assert days * DAY > 2 * MAX_RETENTION


def test_data_and_its_policies_outlive_the_stack() -> None:
    kept = ["SQS::Queue", "SQS::QueuePolicy", "S3::Bucket", "S3::BucketPolicy", "SecretsManager::Secret", "KMS::Key"]
    template = expand(**EVERYTHING)
    for type in kept:
        ids = template.of_type(f"AWS::{type}").keys() - {template.probe_queue()}
        assert ids, type
        for id in ids:
            resource = template.resources[id]
            assert (resource.get("DeletionPolicy"), resource.get("UpdateReplacePolicy")) == ("Retain", "Retain"), id


def test_queues_and_buckets_reject_calls_without_tls() -> None:
    template = expand(**ARCHIVE)
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


@pytest.mark.parametrize("name", ["default", "customer-managed-key"])
def test_everything_at_rest_is_encrypted(name: str) -> None:
    template = expand(**SETS[name], **ARCHIVE)
    key = next(({"Fn::GetAtt": [id, "Arn"]} for id in template.of_type("AWS::KMS::Key")), None)
    assert (key is None) == (name == "default")
    for queue in template.of_type("AWS::SQS::Queue").values():
        assert (queue.get("KmsMasterKeyId"), queue.get("SqsManagedSseEnabled")) == (key, None if key else True)
    for bucket in template.of_type("AWS::S3::Bucket").values():
        [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        by_default = rule["ServerSideEncryptionByDefault"]
        assert by_default == ({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key} if key else {"SSEAlgorithm": "AES256"})
    assert template.one("AWS::SecretsManager::Secret").get("KmsKeyId") == key


def test_buckets_are_closed_to_the_public() -> None:
    buckets = expand(**ARCHIVE).of_type("AWS::S3::Bucket").values()
    assert len(buckets) == 2
    blocks = ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"]
    for bucket in buckets:
        assert bucket["PublicAccessBlockConfiguration"] == dict.fromkeys(blocks, True)
        assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}


@pytest.mark.parametrize("name", ["default", "consumers"])
def test_every_queue_accepts_the_largest_message(name: str) -> None:
    sizes = {queue["MaximumMessageSize"] for queue in expand_set(name).of_type("AWS::SQS::Queue").values()}
    assert sizes == {MAX_MESSAGE_SIZE}


def camel_case(field: str) -> str:
    return "".join(word.capitalize() for word in re.split("[_-]", field))


def test_all_fields_narrowed_routes_and_fan_outs_fit() -> None:
    text, present = TEMPLATE.read_text(), expand().routes()
    for field in OTHER_FIELDS:
        # The row is there.
        text = text if field in present else rows.add(text, camel_case(field))
    # Rows that the operator added take the place of narrowed routes.
    names = {field.replace(".", "-") for field in (*FIELDS, *OTHER_FIELDS)}
    added = [row for row in rows.deployed(text).values() if row.get("Name", row["Route"]) not in names]
    for number in range(10 - len(added)):
        id = 206540352242900 + number
        text = rows.add(text, f"Messages{id}", f"{{ Route: messages@{id}, Name: messages-{id} }}")
    for field in ("messages", "calls", "security"):
        text = rows.add(text, f"{camel_case(field)}Second", f"{{ Route: {field}, Name: {field}-second }}")
    assert rows.problems(text) == []
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
    assert len(text) <= 1 << 20
    template = expand(text, **EVERYTHING)
    routes = [route for route, _ in template.route_queues()]
    assert len(routes) >= len(FIELDS) + len(OTHER_FIELDS) + 10 + 3 + 1
    assert {*routes} >= {CATCH_ALL, *FIELDS, *OTHER_FIELDS}
    assert len(expand_root(TEMPLATE, EVERYTHING, text)["Resources"]) <= 500
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    role = target(template.function["Role"])
    policies = [*template.of_type("AWS::IAM::Policy").values(), *template.resources[role]["Properties"]["Policies"]]
    assert sum(len(re.sub(r"\s", "", json.dumps(each["PolicyDocument"]))) for each in policies) <= 10_240
    stack = "whatsapp-ingress-staging"
    urls = template.variables["QUEUE_URLS"].replace(f'"{STACK}-', f'"{stack}-')
    urls = re.sub(r"\$\{\w+\.QueueUrl}", f"https://sqs.ap-southeast-1.amazonaws.com/{ACCOUNT}/{stack}-unrouted", urls)
    urls = re.sub(r"\$\{\w+\.QueueName}", f"{stack}-verify", urls)
    values: dict[str, Any] = template.variables | {
        "QUEUE_URLS": urls,
        "SECRET_ID": f"arn:aws:secretsmanager:ap-southeast-1:{ACCOUNT}:secret:{'s' * 64}-123456",
        "PAYLOAD_BUCKET": "b" * 63,
        "ARCHIVE_BUCKET": "b" * 63,
    }
    # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
    assert sum(len(name) + len(value) for name, value in values.items()) <= 4096


def test_outputs_name_every_queue() -> None:
    template = expand_set("consumers")
    values = [output["Value"] for output in template.outputs.values()]
    for id in template.of_type("AWS::SQS::Queue").keys() - {template.probe_queue()}:
        assert {"Ref": id} in values or {"Fn::GetAtt": [id, "QueueUrl"]} in values, id
        assert {"Fn::GetAtt": [id, "Arn"]} in values, id
