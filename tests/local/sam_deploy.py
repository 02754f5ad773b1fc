"""Deploys with the repository's own samconfig.toml to an empty local AWS, deploys again, adds a field, takes it away
while its queue holds a message, and deletes the stack: nothing unread may be deleted with it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "infra"))

import boto3  # noqa: E402
import local_stack  # noqa: E402
from botocore.exceptions import ClientError  # noqa: E402
from samcli.yamlhelper import yaml_dump, yaml_parse  # noqa: E402

STACK = "whatsapp-ingress"
FUNCTION = "Ingress"
# The field of events/unknown-field.json, which the template does not know.
FIELD = "bicycle_bell_update"
KEY = "BicycleBellUpdate"
SECRET = {"app_secret": "test-app-secret-of-the-samples", "verify_token": "test-verify-token-of-the-samples"}
SAM_SECONDS = 180
# What SAM CLI says, with exit code 1, when there is nothing to do.
NO_CHANGES = "No changes to deploy"


def main() -> None:
    arguments = argparse.Namespace(address="127.0.0.1", log_level="INFO")
    with (
        tempfile.TemporaryDirectory() as folder,
        local_stack.own_folder(Path(folder)) as own,
        local_stack.local_aws(own, arguments) as (endpoint, _),
    ):
        Deployment(own, endpoint).run()


class Deployment:
    def __init__(self, folder: Path, endpoint: str) -> None:
        self.folder = folder
        self.environment = local_stack.environment(folder, endpoint) | {
            "SAM_CLI_TELEMETRY": "0",
            "__SAM_CLI_APP_DIR": str(folder / "home"),
        }
        (folder / "home/metadata.json").write_text(json.dumps({"lastVersionCheck": 4_000_000_000}))
        key = local_stack.ROOT_KEY
        session = boto3.Session(key, key, region_name=local_stack.REGION)
        self.stacks, self.queues, self.secrets, self.functions, self.buckets = (
            session.client(service, endpoint_url=endpoint)
            for service in ("cloudformation", "sqs", "secretsmanager", "lambda", "s3")
        )

    def run(self) -> None:
        self.deploys_from_nothing()
        self.deploys_again_without_a_change()
        self.adds_a_field()
        self.takes_it_away_and_leaves_its_messages()
        self.deletes_the_stack_and_leaves_what_holds_data()

    def deploys_from_nothing(self) -> None:
        self.deploy()
        self.outputs = self.read_outputs()
        self.secrets.put_secret_value(SecretId=self.outputs["SecretArn"], SecretString=json.dumps(SECRET))
        self.takes("messages-text")
        assert self.count(self.outputs["QueueUrlMessages"]) == 1
        print("deployed from nothing: a sample is on its queue")

    def deploys_again_without_a_change(self) -> None:
        before = self.described().get("LastUpdatedTime")
        again = self.sam("deploy", "--no-confirm-changeset", fails=True)
        assert NO_CHANGES in again, again
        assert self.described().get("LastUpdatedTime") == before
        print("deployed again: nothing changes")

    def adds_a_field(self) -> None:
        self.takes("unknown-field")
        assert self.count(self.outputs["QueueUrlUnrouted"]) == 1
        # It looks for its settings beside the template.
        settings = ["--config-file", str(REPOSITORY / "samconfig.toml")]
        self.deploy(*settings, "--template-file", str(self.with_field()))
        self.queue = self.read_outputs()[f"QueueUrl{KEY}"]
        self.takes("unknown-field")
        assert self.count(self.queue) == 1
        assert self.count(self.outputs["QueueUrlUnrouted"]) == 1
        print("added a field: it has its queue, and the function may send to it")

    def takes_it_away_and_leaves_its_messages(self) -> None:
        self.deploy()
        assert f"QueueUrl{KEY}" not in self.read_outputs()
        assert self.count(self.queue) == 1
        self.takes("unknown-field")
        assert (self.count(self.queue), self.count(self.outputs["QueueUrlUnrouted"])) == (1, 2)
        print("took the field away: its message is still there, and new ones are on the catch-all")

    def deletes_the_stack_and_leaves_what_holds_data(self) -> None:
        self.sam("delete", "--no-prompts")
        try:
            status = self.described()["StackStatus"]
        except ClientError:
            status = "DELETE_COMPLETE"
        assert status == "DELETE_COMPLETE", status
        assert self.count(self.queue) == 1
        assert self.count(self.outputs["QueueUrlMessages"]) == 1
        assert self.count(self.outputs["QueueUrlUnrouted"]) == 2
        assert json.loads(self.secrets.get_secret_value(SecretId=self.outputs["SecretArn"])["SecretString"]) == SECRET
        self.buckets.head_bucket(Bucket=self.outputs["PayloadBucket"])
        try:
            self.functions.get_function(FunctionName=self.outputs["FunctionName"])
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ResourceNotFoundException", error
        else:
            raise AssertionError("the function is still there")
        print("deleted the stack: queues, secret and bucket are still there")

    def deploy(self, *arguments: str) -> None:
        self.sam("deploy", "--no-confirm-changeset", *arguments)
        summaries = self.stacks.get_paginator("list_stack_resources").paginate(StackName=STACK)
        resources = [resource for page in summaries for resource in page["StackResourceSummaries"]]
        ids = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
        local_stack.allow_without_tls(self.queues, self.buckets, ids)

    def with_field(self) -> Path:
        """The built template with one more line in each of its three lists, as the README tells to add a field."""
        built = local_stack.BUILT_TEMPLATE
        template = yaml_parse(built.read_text())
        template["Mappings"]["Queues"]["All"]["Keys"].append(KEY)
        template["Mappings"]["Field"][KEY] = {"Name": FIELD, KEY: "1"}
        function = template["Resources"][FUNCTION]["Properties"]
        _, lines = function["Environment"]["Variables"]["QUEUE_URLS"]["Fn::Join"]
        other, key_of_other = "security", "Security"
        line = json.dumps(next(line for line in lines if f'"{other}"' in json.dumps(line).replace("\\", "")))
        lines.insert(1, json.loads(line.replace(other, FIELD).replace(key_of_other, KEY)))
        function["CodeUri"] = str(built.parent / FUNCTION)
        changed = self.folder / "home/template.yaml"
        changed.write_text(yaml_dump(template))
        return changed

    def takes(self, sample: str) -> None:
        event = str(REPOSITORY / f"events/{sample}.json")
        answer = self.sam("remote", "invoke", FUNCTION, "--stack-name", STACK, "--event-file", event)
        assert json.loads(answer)["statusCode"] == 200, answer

    def sam(self, *arguments: str, fails: bool = False) -> str:
        command = [sys.executable, "-m", "samcli", *arguments]
        ended = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SAM_SECONDS,
            check=False,
        )
        assert (ended.returncode != 0) == fails, f"{arguments}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout + ended.stderr if fails else ended.stdout

    def described(self) -> dict[str, Any]:
        return self.stacks.describe_stacks(StackName=STACK)["Stacks"][0]

    def read_outputs(self) -> dict[str, str]:
        return {output["OutputKey"]: output["OutputValue"] for output in self.described()["Outputs"]}

    def count(self, url: str) -> int:
        name = "ApproximateNumberOfMessages"
        return int(self.queues.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])


if __name__ == "__main__":
    main()
