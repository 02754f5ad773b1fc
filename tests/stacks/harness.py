"""A local AWS, and stacks of the built template on it."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from samcli.yamlhelper import yaml_dump, yaml_parse

import local_stack

TEMPLATE = local_stack.REPOSITORY / "template.yaml"
EVENTS = local_stack.REPOSITORY / "events"
# The secret with which the samples in events/ are signed.
SECRET = {"app_secret": "test-app-secret-of-the-samples", "verify_token": "test-verify-token-of-the-samples"}
OWNER = "000000000000"
ALIAS = "live"
TOO_LARGE = 1 << 20
BUCKET, CODE = "built", "function.zip"
CONFIG = Config(retries={"total_max_attempts": 1}, read_timeout=30, s3={"addressing_style": "path"})
ACCESS_DENIED_CODES = ("AccessDenied", "AccessDeniedException", "403")

ClientFactory = Callable[[str], Any]


class LocalAws:
    """The accounts of a local AWS. A bucket of the first one contains the built function."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder, self.endpoint = folder, endpoint
        self.root = self.account(local_stack.ROOT_KEY, local_stack.ROOT_KEY)
        self.users: dict[str, ClientFactory] = {}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write(local_stack.BUILT_TEMPLATE.parent / "Ingress/bootstrap", "bootstrap")
        self.root("s3").create_bucket(Bucket=BUCKET)
        self.store(CODE, buffer.getvalue())
        self.root("sns").create_topic(Name="operators")

    def store(self, key: str, content: bytes) -> str:
        """Stores an object. Returns its URL."""
        self.root("s3").put_object(Bucket=BUCKET, Key=key, Body=content)
        return f"{self.endpoint}/{BUCKET}/{key}"

    def account(self, key: str, secret: str) -> ClientFactory:
        """Returns a function that makes the client of a service."""
        session = boto3.Session(key, secret, region_name=local_stack.REGION)
        return lambda service: session.client(service, endpoint_url=self.endpoint, config=CONFIG)

    def user(self, account: str) -> ClientFactory:
        """Returns the clients of a user in another account. It has all permissions there, so only the policies of the stack limit it."""
        if account not in self.users:
            iam = self.account(account, account)("iam")
            iam.create_user(UserName="consumer")
            anything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
            iam.put_user_policy(UserName="consumer", PolicyName="anything", PolicyDocument=json.dumps(anything))
            key = iam.create_access_key(UserName="consumer")["AccessKey"]
            self.users[account] = self.account(key["AccessKeyId"], key["SecretAccessKey"])
        return self.users[account]


Edit = Callable[[str], str]


class Stack:
    """A deployment of the template with these parameters and the built function.

    `edit` changes the text of the template, such as its rows. Calls without TLS are allowed unless `requires_tls`.
    """

    def __init__(
        self, aws: LocalAws, name: str, parameters: dict[str, str], requires_tls: bool = False, edit: Edit = str
    ) -> None:
        self.aws, self.name, self.parameters, self.requires_tls = aws, name, dict(parameters), requires_tls
        self.stacks, self.functions, self.sqs, self.s3 = map(aws.root, ("cloudformation", "lambda", "sqs", "s3"))
        self.template = self._package(edit)
        self.stacks.create_stack(**self._definition())
        self._read("stack_create_complete")
        self.put_secret(SECRET)

    def _package(self, edit: Edit) -> str:
        template = yaml_parse(edit(TEMPLATE.read_text()))
        resources = template["Resources"]
        resources["Ingress"]["Properties"]["CodeUri"] = f"s3://{BUCKET}/{CODE}"
        for loop in ("Queues", "Archive"):
            [nested] = resources[f"Fn::ForEach::{loop}"][2].values()
            path = TEMPLATE.parent / nested["Properties"]["TemplateURL"]
            nested["Properties"]["TemplateURL"] = self.aws.store(path.name, path.read_bytes())
        return self.aws.store(f"{self.name}.yaml", yaml_dump(template).encode())

    def update(self, parameters: dict[str, str], edit: Edit = str) -> None:
        self.parameters |= parameters
        self.template = self._package(edit)
        self.stacks.update_stack(**self._definition())
        self._read("stack_update_complete")

    def _definition(self) -> dict[str, Any]:
        parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in self.parameters.items()]
        return {
            "StackName": self.name,
            "TemplateURL": self.template,
            "Parameters": parameters,
            "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        }

    def _read(self, waiter: str) -> None:
        self.stacks.get_waiter(waiter).wait(StackName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        self.outputs = local_stack.outputs_of(self.stacks, self.name)
        self.resources = local_stack.resources_of(self.stacks, self.name)
        alias = {"FunctionName": self.outputs["FunctionName"], "Qualifier": ALIAS}
        self.function = self.functions.get_function_configuration(**alias)
        self.variables = self.function["Environment"]["Variables"]
        self.routes: dict[str, str] = json.loads(self.variables["QUEUE_URLS"])
        if not self.requires_tls:
            self.allow_without_tls()

    def allow_without_tls(self) -> None:
        local_stack.allow_without_tls(self.sqs, self.s3, self.resources)

    def put_secret(self, secret: dict[str, str]) -> None:
        store = self.aws.root("secretsmanager")
        store.put_secret_value(SecretId=self.outputs["SecretArn"], SecretString=json.dumps(secret))

    def invoke(self, body: dict[str, Any], subject: str | None = None) -> Any:
        """Delivers a signed notification, with a client certificate for this subject. Returns the response."""
        text = json.dumps(body)
        event = json.loads((EVENTS / "messages-text.json").read_text())
        digest = hmac.digest(SECRET["app_secret"].encode(), text.encode(), hashlib.sha256)
        event["headers"]["x-hub-signature-256"] = f"sha256={digest.hex()}"
        event |= {"body": text, "isBase64Encoded": False}
        if subject is not None:
            validity = {"notBefore": "Jan  1 00:00:00 2026 GMT", "notAfter": "Jan  1 00:00:00 2027 GMT"}
            certificate = {"subjectDN": subject, "issuerDN": "CN=ca", "clientCertPem": "", "serialNumber": "1"}
            event["requestContext"]["authentication"] = {"clientCert": certificate | {"validity": validity}}
        alias = {"FunctionName": self.outputs["FunctionName"], "Qualifier": ALIAS}
        return json.loads(self.functions.invoke(**alias, Payload=json.dumps(event))["Payload"].read())

    def deliver(self, body: dict[str, Any], subject: str | None = None) -> int | None:
        """Delivers a notification like `invoke`, but returns only the status."""
        status: int | None = self.invoke(body, subject).get("statusCode")
        return status

    def queue_url(self, route: str) -> str:
        """Returns the URL of the queue of a route. Fails if the queue does not exist."""
        return str(self.sqs.get_queue_url(QueueName=self.routes[route].rpartition("/")[2])["QueueUrl"])

    def attributes(self, url: str) -> dict[str, str]:
        attributes: dict[str, str] = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        return attributes

    def prefixes(self) -> dict[str, str]:
        """Returns the keys of the objects in the bucket by their prefix."""
        objects = self.s3.list_objects_v2(Bucket=self.outputs["PayloadBucket"]).get("Contents", [])
        return {each["Key"].partition("/")[0]: each["Key"] for each in objects}


def change(field: str, value: Any) -> dict[str, Any]:
    """Makes a notification with one change."""
    entry = {"id": "1", "changes": [{"field": field, "value": value}]}
    return {"object": "whatsapp_business_account", "entry": [entry]}


def message(number: int) -> dict[str, Any]:
    """Makes a notification with a message. All messages belong to one conversation."""
    messages = [{"from": "15550101", "id": f"wamid.{number}"}]
    return change("messages", {"metadata": {"phone_number_id": "15550100"}, "messages": messages})


def receive_all(sqs: Any, url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while batch := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        found += batch
    return found


def message_ids(received: list[dict[str, Any]]) -> list[str]:
    """Returns the ids of received messages that `message` made."""
    values = [json.loads(each["Body"])["entry"][0]["changes"][0]["value"] for each in received]
    return [value["messages"][0]["id"] for value in values]


def assert_denied(call: Callable[..., Any], **arguments: Any) -> None:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    assert raised.value.response["Error"]["Code"] in ACCESS_DENIED_CODES, f"{arguments}: {raised.value}"
