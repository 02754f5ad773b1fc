"""The deployment of a release in an empty folder, with the AWS CLI and without a toolchain.

The release has the function that `sam build` built and the command line of the debug build; with the variable RELEASE, the
files of that folder, such as the output of `make package`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

import local_stack
import package
from harness import EVENTS, LocalAws, receive_all

ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
STACK = "released"
AWS_CLI = local_stack.REPOSITORY / ".local/aws-cli/bin/aws"
BUCKET = "release"
TIMEOUT = 240


class Computer:
    """An empty folder with a release. Its PATH has only the AWS CLI."""

    def __init__(self, aws: LocalAws, folder: Path) -> None:
        self.folder = folder / "release"
        binaries = folder / "bin"
        binaries.mkdir()
        (binaries / "aws").symlink_to(AWS_CLI)
        # A secret in the form of Meta's, because `ingress verify` requires it.
        self.secret = {"app_secret": secrets.token_hex(16), "verify_token": secrets.token_hex(16)}
        self.environment = local_stack.environment(aws.folder, aws.endpoint) | {
            "PATH": str(binaries),
            "APP_SECRET": self.secret["app_secret"],
            "VERIFY_TOKEN": self.secret["verify_token"],
        }

    def run(self, program: str, *arguments: str) -> str:
        """Runs the AWS CLI or the released command line, which must succeed. Returns its output."""
        path = shutil.which(program, path=self.environment["PATH"]) or str(self.folder / program)
        done = subprocess.run(
            [path, *arguments],
            cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{program} {arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def computer(aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Computer:
    computer = Computer(aws, tmp_path_factory.mktemp("computer"))
    if "RELEASE" in os.environ:
        shutil.copytree(local_stack.REPOSITORY / os.environ["RELEASE"], computer.folder)
    else:
        bootstrap = local_stack.BUILT_TEMPLATE.parent / "Ingress/bootstrap"
        command_line = local_stack.REPOSITORY / "target/debug/ingress"
        if not command_line.is_file():
            pytest.fail(f"{command_line} is missing: run `cargo build --workspace` first")
        package.write_release(computer.folder, {ARCHITECTURE: bootstrap}, {"ingress": command_line})
    return computer


@pytest.fixture(scope="module")
def outputs(aws: LocalAws, computer: Computer) -> dict[str, str]:
    """Deploys the release as docs/deployment.md describes it. Returns the outputs of the stack."""
    aws.root("s3").create_bucket(Bucket=BUCKET)
    template, packaged = f"template-{ARCHITECTURE}.yaml", "../packaged.yaml"
    computer.run(
        "aws", "cloudformation", "package",
        "--template-file", template, "--s3-bucket", BUCKET, "--output-template-file", packaged,
    )  # fmt: skip
    computer.run(
        "aws", "cloudformation", "deploy",
        "--template-file", packaged, "--stack-name", STACK, "--s3-bucket", BUCKET,
        "--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND",
    )  # fmt: skip
    stacks = aws.root("cloudformation")
    resources = local_stack.resources_of(stacks, STACK)
    local_stack.add_routes(aws.root("apigatewayv2"), aws.root("lambda"), resources)
    local_stack.allow_without_tls(aws.root("sqs"), aws.root("s3"), resources)
    outputs = local_stack.outputs_of(stacks, STACK)
    aws.root("secretsmanager").put_secret_value(SecretId=outputs["SecretArn"], SecretString=json.dumps(computer.secret))
    return outputs


def test_checksums_cover_every_file(computer: Computer) -> None:
    check = ["sha256sum", "--check", "--strict", package.CHECKSUMS]
    checked = subprocess.run(check, cwd=computer.folder, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    names = {line.split("  ")[1] for line in (computer.folder / package.CHECKSUMS).read_text().splitlines()}
    assert names == {file.name for file in computer.folder.iterdir()} - {package.CHECKSUMS}


def test_stack_and_command_line_have_the_version(computer: Computer, outputs: dict[str, str]) -> None:
    [version] = re.findall(r'^version = "(.+)"$', (local_stack.REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)
    assert computer.run("ingress", "--version") == f"ingress {version}\n"
    assert outputs["Version"] == version


def test_released_stack_stores_a_delivered_sample(aws: LocalAws, computer: Computer, outputs: dict[str, str]) -> None:
    computer.run("ingress", "deliver", str(EVENTS / "messages-text.json"), "--url", outputs["CallbackUrl"])
    sqs = aws.root("sqs")
    [received] = receive_all(sqs, sqs.get_queue_url(QueueName=f"{STACK}-messages")["QueueUrl"])
    assert json.loads(received["Body"])["entry"][0]["changes"][0]["field"] == "messages"


def test_verify_passes_for_the_released_stack(computer: Computer, outputs: dict[str, str]) -> None:
    computer.run("ingress", "verify", "--stack", STACK, "--url", outputs["CallbackUrl"])
