"""Runs the commands of docs/operations.md and docs/tasks.md on a local AWS, with the policies of docs/policies.

The sections run in the order of the pages, because each changes the same stack. Before the first one, the section on the local AWS
starts it and deploys.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import hmac
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

import guide
import local_stack
import runbook
from guide import Person, Section, Shell
from harness import CONFIG, OWNER, assert_denied, change, receive_all

STACK, STAGING = "whatsapp-ingress", "whatsapp-ingress-staging"
# Each page takes minutes, because its commands deploy. `make test-guide` sets the variable.
pytestmark = pytest.mark.skipif("TEST_GUIDE" not in os.environ, reason="run by `make test-guide`")

POLICIES = local_stack.REPOSITORY / "docs/policies"
ROOT = Person(local_stack.ROOT_KEY, local_stack.ROOT_KEY)
INGRESS = local_stack.REPOSITORY / "target/debug/ingress"
WORDS = "what a customer wrote"
# The first one is the person whom the sections on erasure erase.
PEOPLE = ("447700900317", "447700900318")
# A name with the beginning that CloudFormation gives the bucket of the archive.
ARCHIVE = f"{STACK}-archive-1a2b"
# `ingress queues` reports such a queue, and its exit status is 1.
GONE = f"{STACK}-security: gone"

# Commands that the local AWS cannot answer, by their beginning.
NOT_RUN = {
    "make ": "test_sam_deploy.py runs these targets on a copy of the project",
    "git ": "the copy of the project has no history",
    "sam build": "compiles the function; the built one is there",
    ".venv/bin/python infra/local_stack.py --empty": "runs until its end; the fixture starts it",
    "ingress subscribe": "requires Meta; crates/cli/tests/operator runs it with a Graph API of the tests",
    "aws service-quotas": "the local AWS has no quotas",
}
# A section without commands that run here.
NOT_RUN_SECTIONS = {"The region is lost": "the local AWS is one region; the other sections run its commands"}
# Who has the permission for a command, by its beginning. The on-call person runs all others.
DEPLOYER = ("sam ", "drift ", "aws lambda put-function-concurrency")
PRIVACY_SECTIONS = ("Erasing a person from the queues", "Erasing a person from the archive")
ADMINISTRATOR = (
    "aws iam",
    "aws sqs delete-queue",
    "leftovers delete",
    "aws secretsmanager delete-secret",
    "aws s3 rb",
    "aws cloudformation update-termination-protection",
)
BY_HAND, HELPERS = "A local AWS by hand", "Before the first command"
SECTIONS = [each for each in guide.sections() if each.heading not in (BY_HAND, HELPERS)]


class Operator:
    """A stack on a local AWS that was deployed by hand, a copy of the project, and the people who work with it."""

    def __init__(self, project: Path, home: Path) -> None:
        self.project, self.home = project, home
        # Version 1 of the AWS CLI ignores AWS_ENDPOINT_URL for SQS. Version 2 does not, but is not in a registry of Python.
        aws = home / "bin/aws"
        aws.parent.mkdir()
        aws.write_text(f'#!/bin/sh\nexec {project}/.local/aws-cli/bin/aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"\n')
        aws.chmod(0o755)
        tools = [INGRESS.parent, aws.parent, project / ".venv/bin"]
        self.environment = guide.environment(home, tools)
        # How to reach the local AWS without the proxy, with all permissions.
        self.root: dict[str, str] = {}
        self.state = project / ".local/state"
        self.people: dict[str, Person] = {}
        self.outputs: dict[str, str] = {}
        self.edited: set[str] = set()

    def connect(self) -> None:
        """Creates the people, with the policies of the pages."""
        settings = (self.project / ".local/stack/aws.sh").read_text()
        [self.endpoint] = re.findall(r"AWS_ENDPOINT_URL=(\S+)", settings)
        self.root = dict(re.findall(r"^export (\w+)=(.*)$", settings, re.MULTILINE))
        for stack in (STACK, STAGING):
            for name in ("deployer", "on-call", "privacy"):
                policy = (POLICIES / f"{name}.json").read_text()
                for placeholder, value in (
                    ("111122223333", OWNER),
                    ("eu-central-1", local_stack.REGION),
                    (STACK, stack),
                ):
                    assert placeholder in policy
                    policy = policy.replace(placeholder, value)
                self.people[f"{name} of {stack}"] = self._user(f"{name}-{stack}", policy)

    def _user(self, name: str, policy: str) -> Person:
        iam = self.client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="guide", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return Person(key["AccessKeyId"], key["SecretAccessKey"])

    def client(self, service: str, person: Person = ROOT) -> Any:
        session = boto3.Session(person.key, person.secret, region_name=local_stack.REGION)
        client = session.client(service, endpoint_url=self.endpoint, config=CONFIG)
        client.meta.events.register("before-sign", local_stack.claim_tls)
        return client

    def person(self, command: str, section: Section) -> Person:
        if section.heading == BY_HAND:
            return ROOT
        if command.startswith(ADMINISTRATOR):
            return ROOT
        if section.heading in PRIVACY_SECTIONS:
            return self.people[f"privacy of {STACK}"]
        stack = STAGING if "staging" in command else STACK
        return self.people[f"{'deployer' if command.startswith(DEPLOYER) else 'on-call'} of {stack}"]

    def run(self, section: Section, before: dict[str, Callable[[Operator], None]]) -> dict[str, str]:
        """Runs the commands of a section in a new shell. Returns their outputs."""
        shell = Shell(self.project, self.environment)
        try:
            if self.state.exists():
                shell.run(f". {self.state}", ROOT)
            outputs = {}
            for command in section.commands:
                if is_not_run(command):
                    continue
                for beginning, prepare in before.items():
                    if command.startswith(beginning):
                        prepare(self)
                status, outputs[command] = shell.run(command, self.person(command, section))
                is_expected = command == "ingress queues" and GONE in outputs[command]
                assert status == is_expected, "\n".join(f"$ {each}\n{output}" for each, output in outputs.items())
                self._prepare(command)
            return outputs
        finally:
            shell.close()

    def _prepare(self, command: str) -> None:
        """Does what `--prepare` does, after a command that restores the rule on TLS, or creates an API."""
        is_restored = command.startswith("ingress restore-queue") and command.endswith("--apply")
        if is_restored or command.startswith("sam deploy"):
            local_stack.prepare(self.client, STAGING if "staging" in command else STACK)

    def keep_state(self, section: Section) -> None:
        """Keeps the functions and variables of a section for the following ones."""
        names = sorted({name for command in section.commands for name in re.findall(r"\b([A-Z_]+)=", command)})
        commands = [*section.commands, f"{{ declare -f; declare -p {' '.join(names)}; }} > {self.state}"]
        self.run(Section(section.page, section.heading, commands), {})

    @functools.cached_property
    def stack(self) -> dict[str, str]:
        return local_stack.outputs_of(self.client("cloudformation"), STACK)

    def url(self, name: str) -> str:
        return str(self.client("sqs").get_queue_url(QueueName=f"{STACK}-{name}")["QueueUrl"])

    def count(self, name: str) -> int:
        attributes = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client("sqs").get_queue_attributes(QueueUrl=self.url(name), AttributeNames=attributes)
        return sum(map(int, found["Attributes"].values()))

    def deliver(self, field: str, value: Any) -> None:
        body = self.project / ".local/body.json"
        body.write_text(json.dumps(change(field, value)))
        secret = self.client("secretsmanager").get_secret_value(SecretId=self.stack["SecretArn"])["SecretString"]
        app_secret = json.loads(secret)["app_secret"]
        subprocess.run(
            [str(INGRESS), "deliver", "--body", str(body), "--url", self.stack["CallbackUrl"]],
            env=self.environment
            | self.root
            | {"APP_SECRET": app_secret if isinstance(app_secret, str) else app_secret[0]},
            check=True,
            capture_output=True,
        )


def is_not_run(command: str) -> bool:
    return command.startswith(tuple(NOT_RUN))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies what the commands read, without the source of the function."""
    root, copy = local_stack.REPOSITORY, tmp_path_factory.mktemp("operator")
    for name in ("template.yaml", "samconfig.toml", "infra", "events", "docs", ".aws-sam"):
        source = root / name
        if source.is_dir():
            shutil.copytree(source, copy / name)
        else:
            shutil.copy2(source, copy / name)
    (copy / ".local").mkdir()
    for installed in (".venv", ".local/aws-cli"):
        (copy / installed).symlink_to(root / installed)
    return copy


@pytest.fixture(scope="module")
def operator(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Follows the section on the local AWS, with its process in the background."""
    for required in (INGRESS, project / ".local/aws-cli/bin/aws", project / ".aws-sam/build/template.yaml"):
        if not required.exists():
            pytest.fail(
                f"{required} is missing: run `make build`, `make .local/aws-cli/installed` and `cargo build --workspace`"
            )
    home = tmp_path_factory.mktemp("home")
    (home / "metadata.json").write_text(json.dumps({"lastVersionCheck": time.time()}))
    (home / ".aws").mkdir()
    # Version 1 of the AWS CLI would read the URL of a queue as a file. Version 2 does not.
    (home / ".aws/config").write_text("[default]\ncli_follow_urlparam = false\n")
    operator = Operator(project, home)
    [by_hand] = [each for each in guide.sections() if each.heading == BY_HAND]
    [command] = [each for each in by_hand.commands if each.endswith("--empty")]
    server = subprocess.Popen(
        command.split(), cwd=project, env=operator.environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if "ready" in line:
                break
        operator.connect()
        with guide.tls_proxy(operator.endpoint) as endpoint:
            # From the first deployment on, because the local AWS cannot update a nested stack, whose URL this is a part of.
            settings = project / ".local/stack/aws.sh"
            settings.write_text(settings.read_text().replace(operator.endpoint, endpoint))
            operator.run(by_hand, {})
            operator.environment |= operator.root | {"AWS_ENDPOINT_URL": endpoint}
            [helpers] = [each for each in guide.sections() if each.heading == HELPERS]
            operator.keep_state(helpers)
            yield operator
    finally:
        server.terminate()
        server.wait()
        if server.stderr:
            server.stderr.close()


def test_list_of_skipped_commands_has_no_old_entry() -> None:
    commands = [command for section in guide.sections() for command in section.commands]
    for beginning in (*NOT_RUN, *DEPLOYER, *ADMINISTRATOR):
        assert any(command.startswith(beginning) for command in commands), beginning
    headings = {section.heading for section in guide.sections()}
    assert {*NOT_RUN_SECTIONS, *BEFORE_SECTION, *BEFORE_COMMAND, *AFTER_SECTION, BY_HAND, HELPERS} <= headings


def test_commands_work_on_every_system() -> None:
    for section in guide.sections():
        for command in section.commands:
            # GNU and BSD differ in them, and zsh reads no comment in a pasted line.
            assert not re.search(r"\bdate -[a-z]*[dv]\b|\bsed -i|\breadlink -f|(^|\s)#|…|<[a-zA-Z]", command), command


# What happened before an alarm.


def lose_queue(operator: Operator) -> None:
    empty_queues(operator)
    operator.client("sqs").delete_queue(QueueUrl=operator.url("security"))
    operator.deliver("security", {"event": "PIN_CHANGED", "requester": WORDS})
    assert operator.count("unrouted") == 1


def fail_five_times(operator: Operator) -> None:
    operator.deliver("messages", {"messages": [{"id": "wamid.1", "from": "15550101", "text": {"body": WORDS}}]})
    sqs, url = operator.client("sqs"), operator.url("messages")
    for _ in range(6):
        sqs.receive_message(QueueUrl=url, VisibilityTimeout=0)
    assert operator.count("messages-dead") == 1


def send_unrouted(operator: Operator) -> None:
    operator.deliver("calls", {"calls": [WORDS]})
    assert operator.count("unrouted") == 1


def shorten_retention(operator: Operator) -> None:
    operator.client("sqs").set_queue_attributes(
        QueueUrl=operator.url("messages"), Attributes={"MessageRetentionPeriod": "60"}
    )


def break_secret(operator: Operator) -> None:
    store, id = operator.client("secretsmanager"), operator.stack["SecretArn"]
    store.put_secret_value(SecretId=id, SecretString='{"app_secret": "REPLACE_ME", "verify_token": "x"}')


def delete_secret(operator: Operator) -> None:
    operator.client("secretsmanager").delete_secret(SecretId=operator.stack["SecretArn"], RecoveryWindowInDays=7)


def add_app_secret(operator: Operator) -> None:
    """Edits the file as the page says. The operator repeats the step with the new one alone after a week."""
    file = operator.project / "secret.json"
    secret = json.loads(file.read_text())
    secret["app_secret"] = ["0123456789abcdef0123456789abcdef", secret["app_secret"]]
    file.write_text(json.dumps(secret))


def add_stages(operator: Operator) -> None:
    page = (local_stack.REPOSITORY / "docs/tasks.md").read_text()
    [stages] = re.findall(r"^   ```toml\n(.*?)^   ```$", page, re.DOTALL | re.MULTILINE)
    with (operator.project / "samconfig.toml").open("a") as settings:
        settings.write("\n" + re.sub("^   ", "", stages, flags=re.MULTILINE))


def change_template(operator: Operator) -> None:
    """SAM CLI fails if there is nothing to deploy."""
    template = operator.project / ".aws-sam/build/template.yaml"
    text = template.read_text()
    [size] = re.findall(r"MemorySize: (\d+)", text)
    template.write_text(text.replace(f"MemorySize: {size}", f"MemorySize: {int(size) + 64}"))


def add_field(operator: Operator) -> None:
    """Makes the edits of the section in the built template. test_sam_deploy.py builds an edited template."""
    template = operator.project / ".aws-sam/build/template.yaml"
    text = template.read_text()
    for old, added in (
        ("    Security:\n      Route: security\n", f"    {runbook.KEY}:\n      Route: {runbook.FIELD}\n"),
        ("    - Security\n", f"    - {runbook.KEY}\n"),
        ("${QueueSecurity.Outputs.RouteEntry},", f" ${{Queue{runbook.KEY}.Outputs.RouteEntry}},"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, old + added)
    template.write_text(text)
    empty_queues(operator)
    operator.deliver(runbook.FIELD, {"bell": WORDS})
    assert operator.count("unrouted") == 1


def leave_queues(operator: Operator) -> None:
    for name in ("flows", "flows-dead"):
        operator.client("sqs").create_queue(QueueName=f"{STACK}-{name}")


def turn_archive_on(operator: Operator) -> None:
    command = f"sam deploy --stack-name {STACK} --parameter-overrides ArchiveDays=30"
    shell = Shell(operator.project, operator.environment)
    try:
        status, output = shell.run(command, operator.people[f"deployer of {STACK}"])
    finally:
        shell.close()
    assert status == 0, output
    local_stack.prepare(operator.client, STACK)


def fill_archive(operator: Operator) -> None:
    """Gives the function an archive with notifications of two people, as it stores them."""
    s3, functions, name = operator.client("s3"), operator.client("lambda"), operator.stack["FunctionName"]
    secret = operator.client("secretsmanager").get_secret_value(SecretId=operator.stack["SecretArn"])["SecretString"]
    app_secret = json.loads(secret)["app_secret"]
    key = (app_secret if isinstance(app_secret, str) else app_secret[0]).encode()
    variables = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    variables["ARCHIVE_BUCKET"] = ARCHIVE
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=ARCHIVE)
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
    for minute, sender in enumerate(PEOPLE):
        value = {"messages": [{"id": "wamid.1", "from": sender, "text": {"body": WORDS}}]}
        body = json.dumps({"entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}]}).encode()
        signature = "sha256=" + hmac.new(key, body, "sha256").hexdigest()
        receipt = {"received": f"2026-01-02T03:0{minute}:00.000Z", "request_id": "a", "signature": signature}
        time = receipt["received"].replace("-", "").replace(":", "")
        content = gzip.compress(json.dumps(receipt).encode() + b"\n" + body)
        s3.put_object(Bucket=ARCHIVE, Key=f"archive/2026/01/02/03/{time}-a", Body=content)


def name_person(operator: Operator) -> None:
    """Stores messages, one of them in the raw form, and bodies of two people, and a body of the archive."""
    empty_queues(operator)
    sqs, s3, bucket = operator.client("sqs"), operator.client("s3"), operator.stack["PayloadBucket"]
    encoding = {"encoding": {"DataType": "String", "StringValue": "base64"}}
    for sender in PEOPLE:
        body = json.dumps({"from": sender, "text": WORDS})
        raw = base64.b64encode(body.encode()).decode()
        for name in ("unrouted", "messages-dead"):
            sqs.send_message(QueueUrl=operator.url(name), MessageBody=body)
        sqs.send_message(QueueUrl=operator.url("unrouted"), MessageBody=raw, MessageAttributes=encoding)
        for name, content in (
            ("plain", body.encode()),
            ("raw", raw.encode()),
            ("archived", gzip.compress(body.encode())),
        ):
            s3.put_object(Bucket=bucket, Key=f"messages/2026-01-02/{name}-{sender}", Body=content)


def empty_queues(operator: Operator) -> None:
    sqs = operator.client("sqs")
    for url in sqs.list_queues(QueueNamePrefix=STACK)["QueueUrls"]:
        for received in receive_all(sqs, url):
            sqs.delete_message(QueueUrl=url, ReceiptHandle=received["ReceiptHandle"])


BEFORE_SECTION: dict[str, Callable[[Operator], None]] = {
    "diverted": lose_queue,
    "unrouted": send_unrouted,
    "catch-all-not-empty": send_unrouted,
    "QUEUE-consumer-lag": shorten_retention,
    "QUEUE-dead-letters": fail_five_times,
    "secret-failures": break_secret,
    "Deploying": change_template,
    "Deploying from a pipeline": add_stages,
    "not-archived": turn_archive_on,
    "Adding a field": add_field,
    "Adding a field that was removed before": leave_queues,
    "A team's queue is lost": lose_queue,
    "Replaying from the archive": fill_archive,
    "Erasing a person from the queues": name_person,
    "Erasing a person from the archive": fill_archive,
    "A secret or a key is scheduled for deletion": delete_secret,
    "Leaving": empty_queues,
}
BEFORE_COMMAND: dict[str, dict[str, Callable[[Operator], None]]] = {
    "Rotating the app secret": {"aws secretsmanager put-secret-value": add_app_secret},
}


# How it is over.


def is_rerouted(operator: Operator, outputs: dict[str, str]) -> None:
    assert operator.count("security") >= 1
    assert operator.count("unrouted") == 0


def is_dropped(operator: Operator, outputs: dict[str, str]) -> None:
    assert operator.count("unrouted") == 0
    [copy] = (operator.project / f"catch-all/{STACK}-unrouted").iterdir()
    assert WORDS in copy.read_text()


def is_replayed(operator: Operator, outputs: dict[str, str]) -> None:
    request = {"QueueUrl": operator.url("messages"), "MaxNumberOfMessages": 10, "MessageAttributeNames": ["replayed"]}
    messages = operator.client("sqs").receive_message(**request)["Messages"]
    assert len([message for message in messages if "replayed" in message.get("MessageAttributes", {})]) == 2


def is_erased_from_queues(operator: Operator, outputs: dict[str, str]) -> None:
    sqs, s3 = operator.client("sqs"), operator.client("s3")
    listed = s3.list_objects_v2(Bucket=operator.stack["PayloadBucket"])["Contents"]
    keys = [f"messages/2026-01-02/{name}-{PEOPLE[1]}" for name in ("archived", "plain", "raw")]
    assert [each["Key"] for each in listed] == keys
    assert (operator.count("unrouted"), operator.count("messages-dead")) == (2, 1)
    [deletions] = [
        output for command, output in outputs.items() if "erase_messages" in command and "for url" in command
    ]
    assert deletions.count("deleted from") == 3
    # What the commands have hidden is not in the way of the next sections.
    for name in ("unrouted", "messages-dead"):
        sqs.purge_queue(QueueUrl=operator.url(name))


def is_erased(operator: Operator, outputs: dict[str, str]) -> None:
    [left] = operator.client("s3").list_objects_v2(Bucket=ARCHIVE)["Contents"]
    assert left["Key"] == "archive/2026/01/02/03/20260102T030100.000Z-a"


def has_retention(operator: Operator, outputs: dict[str, str]) -> None:
    [attributes] = [
        operator.client("sqs").get_queue_attributes(QueueUrl=operator.url("messages"), AttributeNames=["All"])
    ]
    assert attributes["Attributes"]["MessageRetentionPeriod"] == "1209600"


def is_redriven(operator: Operator, outputs: dict[str, str]) -> None:
    assert operator.count("messages-dead") == 0
    assert operator.count("messages") == 1
    [shown] = [output for command, output in outputs.items() if command.startswith("aws sqs receive-message")]
    assert "event_id" in shown
    assert "ApproximateReceiveCount" in shown


def is_rotated(operator: Operator, outputs: dict[str, str]) -> None:
    stored = operator.client("secretsmanager").get_secret_value(SecretId=operator.stack["SecretArn"])["SecretString"]
    assert json.loads(stored)["app_secret"][0] == "0123456789abcdef0123456789abcdef"
    assert not (operator.project / "secret.json").exists()


def is_rolled_back(operator: Operator, outputs: dict[str, str]) -> None:
    function = {"FunctionName": operator.stack["FunctionName"]}
    versions = operator.client("lambda").list_versions_by_function(**function)["Versions"]
    assert len(versions) > 2
    previous = str(int(versions[-1]["Version"]) - 1)
    assert operator.client("lambda").get_alias(**function, Name="live")["FunctionVersion"] == previous


def has_field(operator: Operator, outputs: dict[str, str]) -> None:
    assert (operator.count(runbook.FIELD), operator.count("unrouted")) == (1, 0)


def is_protected(operator: Operator, outputs: dict[str, str]) -> None:
    assert [output.strip() for command, output in outputs.items() if "EnableTermination" in command] == ["True"]


def is_detected(operator: Operator, outputs: dict[str, str]) -> None:
    [result] = [output for command, output in outputs.items() if command.startswith("drift ")]
    assert result.startswith("DETECTION_COMPLETE\n")


AFTER_SECTION: dict[str, Callable[[Operator, dict[str, str]], None]] = {
    "api-failing": is_detected,
    "not-archived": is_detected,
    "diverted": is_rerouted,
    "unrouted": is_dropped,
    "QUEUE-consumer-lag": has_retention,
    "QUEUE-dead-letters": is_redriven,
    "Rolling back": is_rolled_back,
    "Rotating the app secret": is_rotated,
    "Adding a field": has_field,
    "A team's queue is lost": is_rerouted,
    "Replaying from the archive": is_replayed,
    "Erasing a person from the queues": is_erased_from_queues,
    "Erasing a person from the archive": is_erased,
    "Protecting the stack": is_protected,
}


def test_people_may_do_nothing_else(operator: Operator) -> None:
    on_call, deployer = (operator.people[f"{name} of {STACK}"] for name in ("on-call", "deployer"))
    url, function = operator.url("messages"), operator.stack["FunctionName"]
    queue = {"QueueUrl": url}
    person = functools.partial(operator.client, person=on_call)
    assert_denied(person("sqs").purge_queue, **queue)
    assert_denied(person("sqs").delete_queue, **queue)
    assert_denied(person("lambda").update_function_code, FunctionName=function, ZipFile=b"")
    assert_denied(person("cloudformation").delete_stack, StackName=STACK)
    assert_denied(person("iam").put_user_policy, UserName=f"on-call-{STACK}", PolicyName="more", PolicyDocument="{}")
    assert_denied(person("secretsmanager").delete_secret, SecretId=operator.stack["SecretArn"])
    assert_denied(person("s3").delete_object, Bucket=operator.stack["PayloadBucket"], Key="messages/any")
    person = functools.partial(operator.client, person=operator.people[f"privacy of {STACK}"])
    assert_denied(person("sqs").receive_message, **queue)
    assert_denied(person("sqs").send_message, **queue, MessageBody="any")
    assert_denied(person("s3").put_object, Bucket=operator.stack["PayloadBucket"], Key="messages/any", Body=b"")
    person = functools.partial(operator.client, person=deployer)
    assert_denied(person("sqs").receive_message, **queue)
    assert_denied(person("sqs").delete_queue, **queue)
    assert_denied(person("secretsmanager").get_secret_value, SecretId=operator.stack["SecretArn"])
    assert_denied(person("cloudformation").delete_stack, StackName="another")
    assert_denied(person("iam").create_role, RoleName="another", AssumeRolePolicyDocument="{}")
    assert_denied(
        person("iam").attach_role_policy, RoleName=f"{STACK}-x", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
    )


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.heading)
def test_commands_of_section_succeed(operator: Operator, section: Section) -> None:
    if section.heading in NOT_RUN_SECTIONS:
        pytest.skip(NOT_RUN_SECTIONS[section.heading])
    if prepare := BEFORE_SECTION.get(section.heading):
        prepare(operator)
    outputs = operator.run(section, BEFORE_COMMAND.get(section.heading, {}))
    for command, output in outputs.items():
        assert WORDS not in output, command
    if is_over := AFTER_SECTION.get(section.heading):
        is_over(operator, outputs)
