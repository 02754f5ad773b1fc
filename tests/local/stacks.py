"""Deploys the built template to one local AWS with each of its parameters and with all of them, looks at how the parts
are wired, and acts as those whom they are about: consumers in other accounts, a team that asked for order, Meta and
somebody else with client certificates.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import io
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "infra"))

import boto3  # noqa: E402
import local_stack  # noqa: E402
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402
from samcli.yamlhelper import yaml_dump, yaml_parse  # noqa: E402

SECRET = {"app_secret": "an-app-secret", "verify_token": "a-verify-token"}
BUCKET, CODE = "built", "function.zip"
ALIAS = "live"
OWNER = "000000000000"
CONFIG = Config(retries={"total_max_attempts": 1}, read_timeout=30, s3={"addressing_style": "path"})
TOO_LARGE = 1 << 20
REFUSED = ("AccessDenied", "AccessDeniedException", "403")


def main() -> None:
    arguments = argparse.Namespace(address="127.0.0.1", log_level="INFO")
    with (
        tempfile.TemporaryDirectory() as folder,
        local_stack.own_folder(Path(folder)) as own,
        local_stack.local_aws(own, arguments) as (endpoint, _),
    ):
        aws = LocalAws(endpoint)
        with_each_parameter_and_with_all_the_parts_are_wired(aws)
        what_would_leave_no_way_in_or_an_open_one_is_refused(aws)
        principals_that_are_too_wide_are_rejected(aws)
        own_account_among_consumers_stops_nothing(aws)
        a_parameter_that_changes_the_function_publishes_it(aws)
        only_metas_client_certificate_is_let_in(aws)
        consumers_of_other_accounts_may_read_what_is_theirs_and_do_nothing_else(aws)
        a_fifo_queue_keeps_a_conversation_in_order_and_drops_what_was_sent_again(aws)


class LocalAws:
    """The accounts of a local AWS, and the built function in a bucket of the first."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.root = self.account(local_stack.ROOT_KEY, local_stack.ROOT_KEY)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write(local_stack.BUILT_TEMPLATE.parent / "Ingress/bootstrap", "bootstrap")
        self.root("s3").create_bucket(Bucket=BUCKET)
        self.stored(CODE, packed.getvalue())

    def stored(self, key: str, content: bytes) -> str:
        """The URL of an object of this content."""
        self.root("s3").put_object(Bucket=BUCKET, Key=key, Body=content)
        return f"{self.endpoint}/{BUCKET}/{key}"

    def account(self, key: str, secret: str, tls: bool = False) -> Callable[[str], Any]:
        """Clients by the names of services, whose calls count as made by TLS if so told."""
        session = boto3.Session(key, secret, region_name=local_stack.REGION)

        def client(service: str) -> Any:
            made = session.client(service, endpoint_url=self.endpoint, config=CONFIG)
            if tls:
                made.meta.events.register("before-sign", local_stack.claim_tls)
            return made

        return client

    def user(self, account: str) -> tuple[str, str]:
        """Keys of a user whom another account allows everything: what it may do here is for our policies to say."""
        iam = self.account(account, account)("iam")
        iam.create_user(UserName="consumer")
        anything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        iam.put_user_policy(UserName="consumer", PolicyName="anything", PolicyDocument=json.dumps(anything))
        key = iam.create_access_key(UserName="consumer")["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]


class Stack:
    """A deployment of the built template with parameters of its own."""

    def __init__(self, aws: LocalAws, name: str, **parameters: str) -> None:
        template = yaml_parse(local_stack.BUILT_TEMPLATE.read_text())
        template["Resources"]["Ingress"]["Properties"]["CodeUri"] = f"s3://{BUCKET}/{CODE}"
        self.name, self.parameters = name, parameters
        self.stacks, self.functions = aws.root("cloudformation"), aws.root("lambda")
        self.template = aws.stored(f"{name}.yaml", yaml_dump(template).encode())
        self.stacks.create_stack(**self.definition())
        self.look("stack_create_complete")
        aws.root("secretsmanager").put_secret_value(SecretId=self.outputs["SecretArn"], SecretString=json.dumps(SECRET))

    def update(self, **parameters: str) -> None:
        self.parameters |= parameters
        self.stacks.update_stack(**self.definition())
        self.look("stack_update_complete")

    def definition(self) -> dict[str, Any]:
        parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()]
        capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
        return {
            "StackName": self.name,
            "TemplateURL": self.template,
            "Parameters": parameters,
            "Capabilities": capabilities,
        }

    def look(self, waiter: str) -> None:
        self.stacks.get_waiter(waiter).wait(StackName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        described = self.stacks.describe_stacks(StackName=self.name)["Stacks"][0]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
        self.resources = {
            resource["LogicalResourceId"]: resource["PhysicalResourceId"]
            for page in self.stacks.get_paginator("list_stack_resources").paginate(StackName=self.name)
            for resource in page["StackResourceSummaries"]
        }
        self.function = self.functions.get_function_configuration(
            FunctionName=self.outputs["FunctionName"], Qualifier=ALIAS
        )
        self.variables = self.function["Environment"]["Variables"]
        self.queue_urls = json.loads(self.variables["QUEUE_URLS"])

    def takes(self, body: dict[str, Any], status: int = 200, subject: str | None = None) -> None:
        """Has the function answer a notification that Meta signed, and maybe showed a client certificate with."""
        text = json.dumps(body)
        event = json.loads((REPOSITORY / "events/messages-text.json").read_text())
        digest = hmac.digest(SECRET["app_secret"].encode(), text.encode(), hashlib.sha256)
        event["headers"]["x-hub-signature-256"] = f"sha256={digest.hex()}"
        event |= {"body": text, "isBase64Encoded": False}
        if subject is not None:
            validity = {"notBefore": "Jan  1 00:00:00 2026 GMT", "notAfter": "Jan  1 00:00:00 2027 GMT"}
            certificate = {"subjectDN": subject, "issuerDN": "CN=ca", "clientCertPem": "", "serialNumber": "1"}
            event["requestContext"]["authentication"] = {"clientCert": certificate | {"validity": validity}}
        answer = self.functions.invoke(
            FunctionName=self.outputs["FunctionName"], Qualifier=ALIAS, Payload=json.dumps(event)
        )
        answer = json.loads(answer["Payload"].read())
        assert answer.get("statusCode") == status, answer


def change(field: str, value: Any) -> dict[str, Any]:
    changes = [{"field": field, "value": value}]
    return {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": changes}]}


def message(number: int) -> dict[str, Any]:
    metadata = {"phone_number_id": "15550100"}
    return change("messages", {"metadata": metadata, "messages": [{"from": "15550101", "id": f"wamid.{number}"}]})


def is_refused(call: Callable[..., Any], **arguments: Any) -> None:
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] in REFUSED, error
    else:
        raise AssertionError(f"{call} with {arguments} is allowed")


TOPIC = f"arn:aws:sns:us-east-1:{OWNER}:operators"
CERTIFICATE = f"arn:aws:acm:us-east-1:{OWNER}:certificate/00000000-0000-0000-0000-000000000000"
META = "client.webhooks.fbclientcerts.com"
DOMAIN = {"DomainName": "hooks.example.com", "CertificateArn": CERTIFICATE}
# CodeDeploy, which Canary asks for, the local AWS does not have; tests/template.rs reads what it makes.
EACH: list[dict[str, str]] = [
    {},
    {"Architecture": "arm64"},
    {"LogLevel": "WARN"},
    {"CustomerKey": "true"},
    {"AlarmTopic": TOPIC},
    {"OldestMessageSeconds": "600"},
    {"SilenceSeconds": "900"},
    DOMAIN,
    {"ReservedConcurrency": "50"},
    {"RouteRateLimit": "9000"},
    {"FifoField2": "MessagesStatuses"},
    {"Consumers": "111122223333"},
    {"FieldConsumers3": "Security=111122223333"},
]
TRUST = {"TruststoreUri": "s3://truststore/meta.pem"}


def with_each_parameter_and_with_all_the_parts_are_wired(aws: LocalAws) -> None:
    aws.root("sns").create_topic(Name="operators")
    everything: dict[str, str] = {}
    for parameters in EACH:
        everything |= parameters
    everything |= {"Architecture": "x86_64", "DomainName": "all.example.com"} | TRUST
    for number, parameters in enumerate([*EACH, everything]):
        stack = Stack(aws, f"with{number}", **parameters)
        local_stack.allow_without_tls(aws.root("sqs"), aws.root("s3"), stack.resources)
        the_parts_are_wired(aws, stack)
        says = " ".join(f"{name}={value}" for name, value in parameters.items())
        print(f"wired with {says or 'nothing'}" if parameters is not everything else "wired with all of these")


def the_parts_are_wired(aws: LocalAws, stack: Stack) -> None:
    """From the function's environment to the exact actions of its role, and one change of each route to its queue."""
    asked = stack.parameters
    function, outputs = stack.function, stack.outputs
    assert function["Architectures"] == [asked.get("Architecture", "x86_64")]
    assert function["Role"].endswith("/" + stack.resources["Role"])
    assert function["TracingConfig"]["Mode"] == "Active"
    assert function["LoggingConfig"]["LogGroup"] == outputs["LogGroupName"]
    assert function["LoggingConfig"]["ApplicationLogLevel"] == asked.get("LogLevel", "INFO")
    variables = {"SECRET_ID": outputs["SecretArn"], "PAYLOAD_BUCKET": outputs["PayloadBucket"]}
    variables |= {"MALLOC_MMAP_THRESHOLD_": "8388608", "MALLOC_TRIM_THRESHOLD_": "33554432"}
    certificate = {"CLIENT_CERTIFICATE_CN": META} if "TruststoreUri" in asked else {}
    variables |= {"QUEUE_URLS": stack.variables["QUEUE_URLS"]} | certificate
    assert stack.variables == variables, stack.variables
    assert set(stack.queue_urls) == {"*", *ROUTES}

    # Every queue exists under the name that the function is told, and the role may do these things and no other.
    sqs = aws.root("sqs")
    names = {route: name.rsplit("/", 1)[-1] for route, name in stack.queue_urls.items()}
    urls = {route: sqs.get_queue_url(QueueName=name)["QueueUrl"] for route, name in names.items()}
    queues = {arn_of(sqs, url) for url in urls.values()}
    assert len(queues) == len(urls)
    key = {(action, outputs["KeyArn"]) for action in ("kms:GenerateDataKey", "kms:Decrypt") if "CustomerKey" in asked}
    log_group = f"arn:aws:logs:us-east-1:{OWNER}:log-group:{outputs['LogGroupName']}:*"
    expected = {("sqs:SendMessage*", queue) for queue in queues} | key | {
        ("logs:CreateLogStream", log_group), ("logs:PutLogEvents", log_group),
        ("secretsmanager:GetSecretValue", outputs["SecretArn"]),
        ("s3:PutObject", f"arn:aws:s3:::{outputs['PayloadBucket']}/*"),
        ("xray:PutTraceSegments", "*"), ("xray:PutTelemetryRecords", "*"),
    }  # fmt: skip
    allowed = allowed_to(aws, stack.resources["Role"])
    assert allowed == expected, allowed ^ expected

    the_settings_are_those_of_the_parameters(aws, stack)
    if asked.get("Architecture") == "arm64":
        return
    subject = {"subject": f"CN={META}"} if "TruststoreUri" in asked else {}
    for field, value in (route_of_change(route) for route in ROUTES):
        stack.takes(change(field, value), **subject)
    stack.takes(change("messages", "x" * TOO_LARGE), **subject)
    stack.takes(change("unheard_of", {}), **subject)
    found = {route: len(received_from(sqs, url)) for route, url in urls.items()}
    # On a FIFO queue a message hides those of its group behind it.
    assert found == {route: 2 if route == "messages" else 1 for route in urls}, found
    stored = aws.root("s3").list_objects_v2(Bucket=outputs["PayloadBucket"])["Contents"]
    assert [body["Key"].split("/")[0] for body in stored] == ["messages"]


ROUTES = [
    "account_review_update", "account_update", "business_capability_update", "message_template_status_update",
    "messages", "messages.statuses", "phone_number_name_update", "phone_number_quality_update", "security",
]  # fmt: skip


def route_of_change(route: str) -> tuple[str, dict[str, Any]]:
    field, _, kind = route.partition(".")
    return field, {kind: [{}]} if kind else {}


def arn_of(sqs: Any, url: str) -> str:
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    return str(attributes["QueueArn"])


OWN_BUCKET = {"StringEquals": {"aws:ResourceAccount": OWNER}}


def allowed_to(aws: LocalAws, role: str) -> set[tuple[str, str]]:
    """The pairs of action and resource in the policies of a role."""
    iam = aws.root("iam")
    assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    pairs = set()
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for statement in document["Statement"]:
            actions, resource = statement["Action"], statement["Resource"]
            condition = {"Condition": OWN_BUCKET} if actions == "s3:PutObject" else {}
            assert statement == {"Effect": "Allow", "Action": actions, "Resource": resource} | condition, statement
            pairs |= {(action, resource) for action in ([actions] if isinstance(actions, str) else actions)}
    return pairs


def the_settings_are_those_of_the_parameters(aws: LocalAws, stack: Stack) -> None:
    asked, outputs = stack.parameters, stack.outputs
    key = outputs.get("KeyArn")
    assert (key is not None) == ("CustomerKey" in asked)
    attributes = aws.root("sqs").get_queue_attributes(QueueUrl=outputs["QueueUrlMessages"], AttributeNames=["All"])
    queue = attributes["Attributes"]
    assert queue.get("KmsMasterKeyId") == key, queue
    assert (queue.get("SqsManagedSseEnabled") == "true") == (key is None), queue
    secret = aws.root("secretsmanager").describe_secret(SecretId=outputs["SecretArn"])
    assert secret.get("KmsKeyId") == key, secret
    # The local AWS does not look at the bucket's encryption, reserved concurrency and limits of routes in a template.
    alarms = {
        alarm["AlarmName"].removeprefix(f"{stack.name}-"): alarm
        for page in aws.root("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{stack.name}-")
        for alarm in page["MetricAlarms"]
    }
    assert alarms["messages-late"]["Threshold"] == float(asked.get("OldestMessageSeconds", 3600))
    assert ("silence" in alarms) == ("SilenceSeconds" in asked)
    if "silence" in alarms:
        assert alarms["silence"]["Period"] == int(asked["SilenceSeconds"])
    told = [asked["AlarmTopic"]] if "AlarmTopic" in asked else []
    for alarm in alarms.values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == told, alarm
    apis = aws.root("apigatewayv2")
    if "DomainName" in asked:
        assert outputs["CallbackUrl"] == f"https://{asked['DomainName']}/webhook"
        domain = apis.get_domain_name(DomainName=asked["DomainName"])
        assert domain.get("MutualTlsAuthentication", {}).get("TruststoreUri") == asked.get("TruststoreUri"), domain
        [mapping] = apis.get_api_mappings(DomainName=asked["DomainName"])["Items"]
        assert mapping["ApiId"] == stack.resources["Api"]


def what_would_leave_no_way_in_or_an_open_one_is_refused(aws: LocalAws) -> None:
    for number, parameters in enumerate([TRUST, {"DomainName": "alone.example.com"}]):
        try:
            Stack(aws, f"refused{number}", **parameters)
        except ClientError as error:
            assert "needs" in error.response["Error"]["Message"], error
        else:
            raise AssertionError(f"{parameters} are taken")
    print("a truststore without a name, and a name without a certificate, are refused")


def principals_that_are_too_wide_are_rejected(aws: LocalAws) -> None:
    wide = ["*", "arn:aws:iam::*:root", "arn:aws:iam::111122223333:role/*", "111122223333,*"]
    for number, principal in enumerate(wide):
        for parameter, key in (("Consumers", ""), ("FieldConsumers4", "Messages=")):
            try:
                Stack(aws, f"wide{number}", **{parameter: key + principal})
            except ClientError as error:
                assert "without wildcards" in error.response["Error"]["Message"], error
            else:
                raise AssertionError(f"{parameter} accepts {principal}")
    print("principals with a wildcard are rejected")


def own_account_among_consumers_stops_nothing(aws: LocalAws) -> None:
    consumers = f"arn:aws:iam::{OWNER}:root,arn:aws:iam::111122223333:role/team/reader"
    stack = Stack(aws, "owned", Consumers=consumers, FieldConsumers1=f"Messages={OWNER}")
    local_stack.allow_without_tls(aws.root("sqs"), aws.root("s3"), stack.resources)
    stack.takes(change("unheard_of", "x" * TOO_LARGE))
    stored = aws.root("s3").list_objects_v2(Bucket=stack.outputs["PayloadBucket"])["Contents"]
    assert [body["Key"].split("/")[0] for body in stored] == ["unrouted"]
    print("the stack's own account among the consumers stops nothing")


def a_parameter_that_changes_the_function_publishes_it(aws: LocalAws) -> None:
    stack = Stack(aws, "changing")
    local_stack.allow_without_tls(aws.root("sqs"), aws.root("s3"), stack.resources)
    stack.takes(message(1))
    before, old = stack.function["Version"], stack.outputs["QueueUrlMessages"]
    stack.update(FifoField1="Messages")
    local_stack.allow_without_tls(aws.root("sqs"), aws.root("s3"), stack.resources)
    assert stack.function["Version"] != before
    stack.takes(message(2))
    sqs = aws.root("sqs")
    # Deployed or not, what is unread stays.
    assert [number_of(received) for received in received_from(sqs, old)] == ["wamid.1"]
    assert [number_of(received) for received in received_from(sqs, stack.outputs["FifoUrlMessages"])] == ["wamid.2"]
    stack.update(DomainName="later.example.com", CertificateArn=CERTIFICATE, **TRUST)
    stack.takes(message(3), status=403)
    print("a parameter that changes the function publishes a version of it")


def only_metas_client_certificate_is_let_in(aws: LocalAws) -> None:
    stack = Stack(aws, "trusting", DomainName="meta.example.com", CertificateArn=CERTIFICATE, **TRUST)
    local_stack.allow_without_tls(aws.root("sqs"), aws.root("s3"), stack.resources)
    stack.takes(message(1), subject=f"C=US, ST=California, O=Meta, CN={META}")
    stack.takes(message(2), status=403, subject="CN=client.webhooks.example.com")
    stack.takes(message(3), status=403)
    received = received_from(aws.root("sqs"), stack.outputs["QueueUrlMessages"])
    assert [number_of(each) for each in received] == ["wamid.1"]
    print("a client certificate: Meta's is let in, others are not")


# A key of another account, which the local AWS does not know of, is left to tests/template.rs.
def consumers_of_other_accounts_may_read_what_is_theirs_and_do_nothing_else(aws: LocalAws) -> None:
    everything, messages, statuses, stranger = "111111111111", "222222222222", "333333333333", "444444444444"
    stack = Stack(
        aws,
        "shared",
        Consumers=f"arn:aws:iam::{everything}:root",
        FieldConsumers1=f"Messages=arn:aws:iam::{messages}:root",
        FieldConsumers2=f"MessagesStatuses=arn:aws:iam::{statuses}:root,555555555555",
    )
    keys = {account: aws.user(account) for account in (everything, messages, statuses, stranger)}

    # By HTTP alone, nobody gets in: neither they nor the function, which can then store nothing.
    stack.takes(change("messages", "small"), status=503)
    own = stack.outputs["QueueUrlMessages"]
    for key in keys.values():
        is_refused(aws.account(*key)("sqs").receive_message, QueueUrl=own)
        is_refused(aws.account(*key)("s3").get_object, Bucket=stack.outputs["PayloadBucket"], Key="messages/x")
    local_stack.allow_without_tls(aws.root("sqs"), aws.root("s3"), stack.resources)

    bucket = stack.outputs["PayloadBucket"]
    large = "x" * TOO_LARGE
    statuses_value = {"statuses": [{"id": large}]}
    for body in (
        change("messages", "small"), change("messages", large), change("messages", statuses_value),
        change("security", large), change("unheard_of", large),
    ):  # fmt: skip
        stack.takes(body)
    objects = [found["Key"] for found in aws.root("s3").list_objects_v2(Bucket=bucket)["Contents"]]
    prefixes = {key.split("/")[0]: key for key in objects}
    assert set(prefixes) == {"messages", "messages.statuses", "security", "unrouted"}, prefixes

    fields = {"Messages": "messages", "MessagesStatuses": "messages.statuses", "Security": "security"}
    allowed = {
        everything: {"Messages", "MessagesStatuses", "Security"},
        messages: {"Messages"},
        statuses: {"MessagesStatuses"},
        stranger: set(),
    }
    for account, theirs in allowed.items():
        sqs, s3 = (aws.account(*keys[account])(service) for service in ("sqs", "s3"))
        for field, route in fields.items():
            for kind in ("Queue", "QueueDead"):
                url = stack.outputs[f"{kind}Url{field}"]
                if field in theirs:
                    reads_and_nothing_else(sqs, url)
                else:
                    may_do_nothing(sqs, url)
            if field not in theirs:
                is_refused(s3.get_object, Bucket=bucket, Key=prefixes[route])
                is_refused(s3.delete_object, Bucket=bucket, Key=prefixes[route])
        may_do_nothing(sqs, stack.outputs["QueueUrlUnrouted"])
        is_refused(s3.get_object, Bucket=bucket, Key=prefixes["unrouted"])
        is_refused(s3.list_objects_v2, Bucket=bucket)
        for route in fields.values():
            is_refused(s3.put_object, Bucket=bucket, Key=f"{route}/x", Body=b"")
        if account == messages:
            the_library_reads_and_deletes(sqs, s3, stack, bucket)
    for account in (everything, statuses):
        s3 = aws.account(*keys[account])("s3")
        assert large.encode() in s3.get_object(Bucket=bucket, Key=prefixes["messages.statuses"])["Body"].read()
    print("consumers of other accounts: each reads and deletes what is its own, and may do nothing else")


def reads_and_nothing_else(sqs: Any, url: str) -> None:
    name = url.rsplit("/", 1)[1]
    assert sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=OWNER)["QueueUrl"].endswith(f"/{OWNER}/{name}")
    assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    for received in sqs.receive_message(QueueUrl=url).get("Messages", []):
        receipt = received["ReceiptHandle"]
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=receipt, VisibilityTimeout=0)
    is_refused(sqs.send_message, QueueUrl=url, MessageBody="forged")
    entry = {"Id": "1", "MessageBody": "forged"}
    is_refused(sqs.send_message_batch, QueueUrl=url, Entries=[entry])
    is_refused(sqs.purge_queue, QueueUrl=url)
    is_refused(sqs.delete_queue, QueueUrl=url)
    is_refused(sqs.set_queue_attributes, QueueUrl=url, Attributes={"VisibilityTimeout": "1"})


def may_do_nothing(sqs: Any, url: str) -> None:
    is_refused(sqs.receive_message, QueueUrl=url)
    is_refused(sqs.get_queue_attributes, QueueUrl=url, AttributeNames=["QueueArn"])
    is_refused(sqs.send_message, QueueUrl=url, MessageBody="forged")
    is_refused(sqs.delete_message, QueueUrl=url, ReceiptHandle="any")
    is_refused(sqs.purge_queue, QueueUrl=url)


def the_library_reads_and_deletes(sqs: Any, s3: Any, stack: Stack, bucket: str) -> None:
    """What a reader of pointers does: receives, reads the body, deletes both."""
    url = stack.outputs["QueueUrlMessages"]
    taken = received_from(sqs, url)
    bodies = [json.loads(taken_message["Body"]) for taken_message in taken]
    pointers = [body[1] for body in bodies if isinstance(body, list)]
    assert (len(taken), len(pointers)) == (2, 1), bodies
    assert pointers[0]["s3BucketName"] == bucket
    assert len(s3.get_object(Bucket=bucket, Key=pointers[0]["s3Key"])["Body"].read()) > TOO_LARGE
    s3.delete_object(Bucket=bucket, Key=pointers[0]["s3Key"])
    for taken_message in taken:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=taken_message["ReceiptHandle"])
    assert received_from(sqs, url) == []


def received_from(sqs: Any, url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while some := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        found += some
    return found


def a_fifo_queue_keeps_a_conversation_in_order_and_drops_what_was_sent_again(aws: LocalAws) -> None:
    stack = Stack(aws, "ordered", FifoField1="Messages", FifoField4="Security")
    local_stack.allow_without_tls(aws.root("sqs"), aws.root("s3"), stack.resources)
    sqs = aws.root("sqs")
    fifo = {route for route, name in stack.queue_urls.items() if name.endswith(".fifo")}
    assert fifo == {"messages", "security"}, stack.queue_urls
    assert stack.outputs["FifoFields"].split() == ["messages", "none", "none", "security", "none"]

    url, dead = stack.outputs["FifoUrlMessages"], stack.outputs["FifoDeadUrlMessages"]
    assert url.endswith("/ordered-messages.fifo") and dead.endswith("/ordered-messages-dead.fifo")
    for each in (url, dead):
        attributes = sqs.get_queue_attributes(QueueUrl=each, AttributeNames=["All"])["Attributes"]
        assert attributes["FifoQueue"] == "true"
        assert attributes["DeduplicationScope"] == "messageGroup"
        assert attributes["FifoThroughputLimit"] == "perMessageGroupId"

    for number in (1, 2, 3):
        stack.takes(message(number))
    # Meta got no answer to the second, say, and sends it again.
    for number in (2, 4, 5):
        stack.takes(message(number))
    first = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=2)["Messages"]
    assert sqs.receive_message(QueueUrl=url).get("Messages") is None, "a conversation is with one consumer at a time"
    order = [number_of(received) for received in first]
    for received in first:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=received["ReceiptHandle"])
    order += [number_of(received) for received in received_from(sqs, url)]
    assert order == [f"wamid.{number}" for number in (1, 2, 3, 4, 5)], order

    # The other kind, beside it, has both copies.
    for _ in range(2):
        stack.takes(change("account_update", {}))
    assert len(received_from(sqs, stack.outputs["QueueUrlAccountUpdate"])) == 2
    print("a FIFO queue: a conversation in order, and a redelivery once")


def number_of(received: dict[str, Any]) -> str:
    return json.loads(received["Body"])["entry"][0]["changes"][0]["value"]["messages"][0]["id"]


if __name__ == "__main__":
    main()
