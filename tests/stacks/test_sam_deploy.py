"""`sam deploy` and `sam delete` with the settings of the repository, and steps 1 to 3 of "Adding a field" in docs/tasks.md.

Each fixture changes the same stack, so the tests run in this order.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

import local_stack
import rows
import runbook
from harness import EVENTS, SECRET, LocalAws

STACK = "whatsapp-ingress"
FUNCTION = "Ingress"
SAMPLE_OF_FIELD = "unknown-field"
SAM_TIMEOUT = 180
# SAM CLI prints this and exits with 1 if nothing changed.
NO_CHANGES = "No changes to deploy"


class Deployment:
    """A stack that SAM CLI deploys."""

    def __init__(self, aws: LocalAws) -> None:
        home = aws.folder / "home"
        (home / "metadata.json").write_text(json.dumps({"lastVersionCheck": 4_000_000_000}))
        settings = {"SAM_CLI_TELEMETRY": "0", "__SAM_CLI_APP_DIR": str(home)}
        self.environment = local_stack.environment(aws.folder, aws.endpoint) | settings
        self.stacks, self.sqs, self.s3 = map(aws.root, ("cloudformation", "sqs", "s3"))
        self.first_outputs: dict[str, str] = {}
        self.field_queue = ""

    def sam(self, *arguments: str, project: Path = local_stack.REPOSITORY) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "samcli", *arguments],
            cwd=project,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SAM_TIMEOUT,
            check=False,
        )

    def deploy(self, project: Path = local_stack.REPOSITORY, *arguments: str) -> None:
        deployed = self.sam("deploy", "--no-confirm-changeset", *arguments, project=project)
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        local_stack.allow_without_tls(self.sqs, self.s3, local_stack.resources_of(self.stacks, STACK))

    def deliver(self, sample: str) -> None:
        event = str(EVENTS / f"{sample}.json")
        invoked = self.sam("remote", "invoke", FUNCTION, "--stack-name", STACK, "--event-file", event)
        assert invoked.returncode == 0, invoked.stderr
        assert json.loads(invoked.stdout)["statusCode"] == 200, invoked.stdout

    def described(self) -> dict[str, Any]:
        described: dict[str, Any] = self.stacks.describe_stacks(StackName=STACK)["Stacks"][0]
        return described

    def outputs(self) -> dict[str, str]:
        return local_stack.outputs_of(self.stacks, STACK)

    def count(self, url: str) -> int:
        name = "ApproximateNumberOfMessages"
        return int(self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])

    def counts(self) -> tuple[int, int, int]:
        """Counts the messages on the queue of `messages`, on the catch-all queue and on that of the added field."""
        urls = [self.first_outputs["QueueMessagesQueueUrl"], self.first_outputs["CatchAllQueueUrl"], self.field_queue]
        messages, catch_all, field = (self.count(url) if url else 0 for url in urls)
        return messages, catch_all, field


@pytest.fixture(scope="module")
def deployment(aws: LocalAws) -> Deployment:
    """Deploys the stack, and delivers a message of `messages` and one of a field without a queue."""
    deployment = Deployment(aws)
    deployment.deploy()
    deployment.first_outputs = outputs = deployment.outputs()
    aws.root("secretsmanager").put_secret_value(SecretId=outputs["SecretArn"], SecretString=json.dumps(SECRET))
    for sample in ("messages-text", SAMPLE_OF_FIELD):
        deployment.deliver(sample)
    return deployment


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies the project, and edits the template as in the runbook."""
    root, copy = local_stack.REPOSITORY, tmp_path_factory.mktemp("project")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0"):
        if (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)
    (copy / ".local").mkdir()
    for installed in (".venv", ".local/checkov"):
        (copy / installed).symlink_to(root / installed)
    template = copy / "template.yaml"
    template.write_text(runbook.add_field(template.read_text()))
    return copy


def build(project: Path) -> None:
    """Imitates the output of `sam build` without compiling the same function again."""
    built = project / ".aws-sam/build"
    built.mkdir(parents=True, exist_ok=True)
    if not (built / FUNCTION).exists():
        (built / FUNCTION).symlink_to(local_stack.BUILT_TEMPLATE.parent / FUNCTION)
    text = (project / "template.yaml").read_text()
    for source, target in (("CodeUri: .", f"CodeUri: {FUNCTION}"), ("TemplateURL: infra", "TemplateURL: ../../infra")):
        assert source in text
        text = text.replace(source, target)
    (built / "template.yaml").write_text(text)


@pytest.fixture(scope="module")
def with_field(deployment: Deployment, project: Path) -> Deployment:
    """Deploys the project with the added field, and delivers a message of the field."""
    build(project)
    deployment.deploy(project)
    deployment.field_queue = deployment.outputs()[f"Queue{runbook.KEY}QueueUrl"]
    deployment.deliver(SAMPLE_OF_FIELD)
    return deployment


@pytest.fixture(scope="module")
def with_more_queues(with_field: Deployment, project: Path) -> Deployment:
    """The deployed project with a second queue for a route, a queue for a narrowed route, and the archive."""
    template = project / "template.yaml"
    template.write_text(rows.add(rows.add(template.read_text(), *rows.SECOND_QUEUE), *rows.NARROWED_ROUTE))
    build(project)
    with_field.deploy(project, "--parameter-overrides", "ArchiveDays=30")
    return with_field


@pytest.fixture(scope="module")
def without_field(with_more_queues: Deployment) -> Deployment:
    """The project without the added rows is deployed again, and has got another message of the field."""
    with_more_queues.deploy()
    with_more_queues.deliver(SAMPLE_OF_FIELD)
    return with_more_queues


@pytest.fixture(scope="module")
def deleted(without_field: Deployment) -> Deployment:
    ended = without_field.sam("delete", "--no-prompts")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return without_field


def test_first_deployment_stores_messages(deployment: Deployment) -> None:
    assert deployment.counts() == (1, 1, 0)


def test_second_deployment_changes_nothing(deployment: Deployment) -> None:
    before = deployment.described().get("LastUpdatedTime")
    ended = deployment.sam("deploy", "--no-confirm-changeset")
    assert NO_CHANGES in ended.stdout + ended.stderr
    assert deployment.described().get("LastUpdatedTime") == before


def test_added_field_passes_the_template_checks(project: Path) -> None:
    before = (local_stack.REPOSITORY / "tests/template/snapshots/default.yaml").read_text().splitlines()
    # Without these options, make would install the tools into the copy.
    command = [
        "make",
        "--assume-old",
        ".venv/installed",
        "--assume-old",
        ".venv/dev-installed",
        "--assume-old",
        ".local/checkov/installed",
        "snapshots",
        "check-template",
    ]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    result = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    after = (project / "tests/template/snapshots/default.yaml").read_text().splitlines()
    assert len(after) > len(before) + 100
    # The field adds a queue, and its route before the last one of QUEUE_URLS. It changes nothing else.
    [removed] = Counter(before) - Counter(after)
    assert '"*":"${CatchAllQueue.QueueUrl}"}' in removed


def test_added_field_has_its_queue(with_field: Deployment) -> None:
    assert with_field.counts() == (1, 1, 1)


def test_second_queue_and_narrowed_route_are_deployed(aws: LocalAws, with_more_queues: Deployment) -> None:
    outputs = with_more_queues.outputs()
    function = aws.root("lambda").get_function_configuration(FunctionName=outputs["FunctionName"], Qualifier="live")
    pairs = json.loads(function["Environment"]["Variables"]["QUEUE_URLS"], object_pairs_hook=list)
    assert [queue for route, queue in pairs if route == "messages"] == [
        f"{STACK}-messages",
        f"{STACK}-messages-bicycles",
    ]
    assert dict(pairs)["messages@106540352242999"] == f"{STACK}-messages-106540352242999"
    for key, _ in (rows.SECOND_QUEUE, rows.NARROWED_ROUTE):
        assert with_more_queues.count(outputs[f"Queue{key}QueueUrl"]) == 0
        assert with_more_queues.count(outputs[f"Queue{key}DeadLetterQueueUrl"]) == 0


def test_archive_is_turned_on(aws: LocalAws, with_more_queues: Deployment) -> None:
    outputs = with_more_queues.outputs()
    function = aws.root("lambda").get_function_configuration(FunctionName=outputs["FunctionName"], Qualifier="live")
    assert function["Environment"]["Variables"]["ARCHIVE_BUCKET"] == outputs["ArchiveBucket"]
    with_more_queues.first_outputs["ArchiveBucket"] = outputs["ArchiveBucket"]


def test_removed_field_leaves_its_messages(without_field: Deployment) -> None:
    assert f"Queue{runbook.KEY}QueueUrl" not in without_field.outputs()
    # Its new messages go to the catch-all queue.
    assert without_field.counts() == (1, 2, 1)


def test_deleted_stack_leaves_everything_with_data(aws: LocalAws, deleted: Deployment) -> None:
    outputs = deleted.first_outputs
    try:
        status = deleted.described()["StackStatus"]
    except ClientError:
        status = "DELETE_COMPLETE"
    assert status == "DELETE_COMPLETE"
    assert deleted.counts() == (1, 2, 1)
    secret = aws.root("secretsmanager").get_secret_value(SecretId=outputs["SecretArn"])
    assert json.loads(secret["SecretString"]) == SECRET
    deleted.s3.head_bucket(Bucket=outputs["PayloadBucket"])
    [archived] = deleted.s3.list_objects_v2(Bucket=outputs["ArchiveBucket"])["Contents"]
    assert archived["Key"].startswith("archive/")
    with pytest.raises(ClientError, match="ResourceNotFound"):
        aws.root("lambda").get_function(FunctionName=outputs["FunctionName"])
