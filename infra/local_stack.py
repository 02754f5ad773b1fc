"""Deploys the built template to a local AWS, and runs until standard input ends or a SIGTERM, SIGINT or SIGHUP.

Prints one line of JSON to standard output when the stack is ready, and a line for each step to standard error. The local AWS
is ministack: one process on loopback, which runs the function as a child process and checks the IAM policies of every call,
so that the function has only the permissions of its role. Run `sam build` first.

With --empty it deploys nothing, and --prepare completes a stack that `sam deploy` then deployed by hand.

The variables APP_SECRET and VERIFY_TOKEN set the function's secret. Random values are used for unset or empty ones. They are
not arguments, because every process of this computer can read the arguments of another.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent
BUILT_TEMPLATE = REPOSITORY / ".aws-sam/build/template.yaml"
STACK = "whatsapp-ingress"
REGION = "us-east-1"
# The access key of the root user of ministack, which has all permissions.
ROOT_KEY = "test"
# The template's app secret, with which the function does not start.
PLACEHOLDER = "REPLACE_ME"

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
START_SECONDS = 60
DEPLOY_SECONDS = 180
STOP_SECONDS = 5

LOCAL_AWS = str(Path(__file__).with_name("local_aws.py"))


class StepError(Exception):
    """A failed step, optionally with its log."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


def main() -> None:
    arguments = parse_arguments()
    if arguments.prepare:
        prepare_deployed(arguments.prepare)
        return
    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    try:
        threading.Thread(target=end_with_input, daemon=True).start()
        if not BUILT_TEMPLATE.is_file() and not arguments.empty:
            raise StepError(f"{BUILT_TEMPLATE} is missing: run `sam build` first")
        with own_folder(arguments.dir) as folder, local_aws(folder, arguments) as (endpoint, server):
            if arguments.empty:
                step(f"in another terminal, run: . {write_settings(folder, endpoint)}")
            else:
                print(json.dumps(deploy(folder, endpoint, arguments)), flush=True)
            step("ready")
            server.wait()
            raise StepError(f"ministack ended with status {server.returncode}", folder / "ministack.log")
    except StepError as failure:
        report(failure)
    finally:
        step("stopped")


def stop(_number: int, _frame: object) -> NoReturn:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(0)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        help="the address of the local AWS (default: %(default)s); for containers, the address of their bridge",
    )
    parser.add_argument("--log-level", default="INFO", help="the template's LogLevel (default: %(default)s)")
    parser.add_argument("--archive-days", default="0", help="the template's ArchiveDays (default: %(default)s)")
    parser.add_argument(
        "--dir",
        type=Path,
        default=REPOSITORY / ".local/stack",
        help="the working directory, which is emptied first (default: .local/stack)",
    )
    parser.add_argument("--empty", action="store_true", help="start a local AWS without a stack")
    parser.add_argument(
        "--prepare",
        metavar="STACK",
        help="instead of all this, prepare a stack on the local AWS of AWS_ENDPOINT_URL: its API routes, no TLS, an app secret",
    )
    return parser.parse_args()


def end_with_input() -> None:
    """Stops this process when its standard input ends."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """Locks and empties `folder`. Keeps only the logs afterwards."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        # Another stack in this directory may be stopping.
        deadline = time.monotonic() + 2 * STOP_SECONDS
        while not try_lock(lock):
            if time.monotonic() > deadline:
                raise StepError(f"another stack is running in {folder}: stop it, or use another --dir")
            time.sleep(0.1)
        for log in folder.glob("*.log"):
            log.unlink()
        shutil.rmtree(folder / "home", ignore_errors=True)
        (folder / "home").mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder / "home", ignore_errors=True)
            (folder / "aws.sh").unlink(missing_ok=True)


def try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_settings(folder: Path, endpoint: str) -> Path:
    """Writes a file for a shell that makes the AWS CLI, SAM CLI and `ingress` use the local AWS. Deleted at the end."""
    settings = {
        "AWS_ACCESS_KEY_ID": ROOT_KEY,
        "AWS_SECRET_ACCESS_KEY": ROOT_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint,
        "SAM_CLI_TELEMETRY": "0",
    }
    lines = ["unset AWS_PROFILE AWS_SESSION_TOKEN", *(f"export {name}={value}" for name, value in settings.items())]
    file = folder / "aws.sh"
    file.write_text("\n".join(lines) + "\n")
    return file


def environment(folder: Path, endpoint: str) -> dict[str, str]:
    """Returns the environment variables of a child process, without the caller's AWS settings, credentials and proxies."""
    home = str(folder / "home")
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": home,
        "TMPDIR": home,
        "AWS_ACCESS_KEY_ID": ROOT_KEY,
        "AWS_SECRET_ACCESS_KEY": ROOT_KEY,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint,
    }


@contextmanager
def local_aws(folder: Path, arguments: argparse.Namespace) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Runs ministack on a free port. Yields its endpoint and its process."""
    port = free_port(arguments.address)
    endpoint = f"http://{arguments.address}:{port}"
    log = folder / "ministack.log"
    step(f"starting the local AWS at {endpoint}")
    settings = {
        "AUTH": "true",
        "BIND_HOST": arguments.address,
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": REGION,
        "STATE_DIR": str(folder / "home/state"),
        "S3_DATA_DIR": str(folder / "home/s3"),
        "LAMBDA_EXECUTOR": "local",
        # By default it would listen on more ports of all interfaces, and remove containers.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": f"unix://{folder}/home/no-docker",
        # Lambda sets these from the LoggingConfig of the function. ministack passes only its own environment on.
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_LAMBDA_LOG_LEVEL": arguments.log_level,
    }
    server = start_python([LOCAL_AWS], folder, environment(folder, endpoint) | settings, log)
    try:
        wait_until_ready(server, endpoint, log)
        yield endpoint, server
    finally:
        end_group(server)


def start_python(python: list[str], folder: Path, variables: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Starts Python in a new session, which `end_group` kills. Standard input is a pipe, whose end the child can detect."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *python],
            cwd=folder / "home",
            env=variables,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def wait_until_ready(server: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise StepError(f"ministack ended with status {server.returncode}", log)
        try:
            opener.open(f"{endpoint}/_ministack/ready", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise StepError(f"ministack was not ready after {START_SECONDS} s", log)


def end_group(process: subprocess.Popen[Any]) -> None:
    """Stops a process and all its children."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin:
        process.stdin.close()


def deploy(folder: Path, endpoint: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Deploys the built template. Returns the description of the stack for the caller."""
    from botocore.exceptions import BotoCoreError, ClientError

    sam_deploy(folder, endpoint, {"LogLevel": arguments.log_level, "ArchiveDays": arguments.archive_days})
    client = clients(endpoint)
    try:
        prepare(client, STACK)
        return described(client, STACK) | {
            "aws_endpoint": endpoint,
            "region": REGION,
            "access_key_id": ROOT_KEY,
            "secret_access_key": ROOT_KEY,
            "log": str(folder / "ministack.log"),
        }
    except (BotoCoreError, ClientError) as error:
        raise StepError(f"the local AWS rejected a call: {error}", folder / "ministack.log") from error
    except (KeyError, ValueError) as error:
        raise StepError(f"the stack is incomplete: {error!r}", folder / "deploy.log") from error


def clients(endpoint: str) -> Callable[[str], Any]:
    """Returns a function that makes the client of a service."""
    import boto3
    from botocore.config import Config

    session = boto3.Session(ROOT_KEY, ROOT_KEY, region_name=REGION)
    config = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 1}, proxies={})
    return lambda service: session.client(service, endpoint_url=endpoint, config=config)


def prepare_deployed(stack: str) -> None:
    """Prepares a stack on the local AWS of AWS_ENDPOINT_URL. Refuses any other endpoint, because it removes the TLS rule."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    if not re.match(r"http://127\.0\.0\.1:\d+$", endpoint):
        step(f"failed: AWS_ENDPOINT_URL is not a local AWS: {endpoint!r}")
        sys.exit(1)
    prepare(clients(endpoint), stack)


def prepare(client: Callable[[str], Any], stack: str) -> None:
    """Makes the parts of a deployed stack that the local AWS does not make. Repeat this after each deployment of the stack."""
    resources = resources_of(client("cloudformation"), stack)
    step("adding the API's routes")
    add_routes(client("apigatewayv2"), client("lambda"), resources)
    allow_without_tls(client("sqs"), client("s3"), resources)
    step("storing the app secret")
    put_secret(client("secretsmanager"), resources["Secret"])


def resources_of(stacks: Any, stack: str) -> dict[str, str]:
    """The physical ids of a stack's resources by their logical ids. Those of a nested stack begin with its logical id."""
    found = {}
    for page in stacks.get_paginator("list_stack_resources").paginate(StackName=stack):
        for each in page["StackResourceSummaries"]:
            id, physical = each["LogicalResourceId"], each["PhysicalResourceId"]
            found[id] = physical
            if each["ResourceType"] == "AWS::CloudFormation::Stack":
                found |= {id + nested: value for nested, value in resources_of(stacks, physical).items()}
    return found


def outputs_of(stacks: Any, stack: str) -> dict[str, str]:
    """The outputs of a stack. Those of a nested stack begin with its logical id, such as QueueMessagesQueueArn."""
    [described] = stacks.describe_stacks(StackName=stack)["Stacks"]
    found = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
    for page in stacks.get_paginator("list_stack_resources").paginate(StackName=stack):
        for each in page["StackResourceSummaries"]:
            if each["ResourceType"] == "AWS::CloudFormation::Stack":
                nested = outputs_of(stacks, each["PhysicalResourceId"])
                found |= {each["LogicalResourceId"] + name: value for name, value in nested.items()}
    return found


def described(client: Callable[[str], Any], stack: str) -> dict[str, Any]:
    """Returns outputs, routes and secret of a stack, with clients by the names of the services."""
    outputs = outputs_of(client("cloudformation"), stack)
    function = client("lambda").get_function_configuration(FunctionName=outputs["FunctionName"])
    return {
        "stack": stack,
        "callback_url": outputs["CallbackUrl"],
        "log_group": outputs["LogGroupName"],
        "outputs": outputs,
        "queue_urls": full_urls(function["Environment"]["Variables"]["QUEUE_URLS"]),
        "secret": client("secretsmanager").get_secret_value(SecretId=outputs["SecretArn"])["SecretString"],
    }


def full_urls(queue_urls: str) -> dict[str, list[str]]:
    """Returns the URLs of each route. A route may occur twice, and a queue beside the catch-all queue may be a name."""
    routes: dict[str, list[str]] = {}
    for route, queues in json.loads(queue_urls, object_pairs_hook=list):
        routes.setdefault(route, []).extend([queues] if isinstance(queues, str) else queues)
    account = routes["*"][0].rpartition("/")[0]
    return {
        route: [queue if "/" in queue else f"{account}/{queue}" for queue in queues] for route, queues in routes.items()
    }


def sam_deploy(folder: Path, endpoint: str, parameters: dict[str, str]) -> None:
    step(f"deploying {BUILT_TEMPLATE.relative_to(REPOSITORY)} as {STACK}")
    home = folder / "home"
    log = folder / "deploy.log"
    # Without this file, the settings of an earlier guided deployment would apply.
    (home / "samconfig.toml").write_text("version = 0.1\n")
    # Without the date of the last version check, SAM CLI looks for a newer version on the network.
    (home / "metadata.json").write_text(json.dumps({"lastVersionCheck": time.time()}))
    command = [
        "-m", "samcli", "deploy",
        "--template-file", str(BUILT_TEMPLATE),
        "--config-file", str(home / "samconfig.toml"),
        "--stack-name", STACK,
        "--region", REGION,
        "--capabilities", "CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND",
        "--parameter-overrides", *(f"{name}={value}" for name, value in parameters.items()),
        "--resolve-s3",
        "--language-extensions",
        "--no-confirm-changeset",
        "--no-progressbar",
    ]  # fmt: skip
    # A wide table, because SAM CLI wraps the reasons of failed resources.
    settings = {"SAM_CLI_TELEMETRY": "0", "__SAM_CLI_APP_DIR": str(home), "COLUMNS": "240"}
    sam = start_python(command, folder, environment(folder, endpoint) | settings, log)
    try:
        if sam.wait(DEPLOY_SECONDS) != 0:
            raise StepError(f"sam deploy ended with status {sam.returncode}", log)
    except subprocess.TimeoutExpired:
        raise StepError(f"sam deploy took longer than {DEPLOY_SECONDS} s", log) from None
    finally:
        end_group(sam)


def add_routes(apis: Any, functions: Any, resources: dict[str, str]) -> None:
    """Creates the routes in the OpenAPI body of each API, because ministack does not create them."""
    from expand_template import expand

    for name, resource in expand(BUILT_TEMPLATE)["Resources"].items():
        if resource["Type"] != "AWS::ApiGatewayV2::Api":
            continue
        api = resources[name]
        present = {route["RouteKey"] for route in apis.get_routes(ApiId=api)["Items"]}
        for path, methods in resource["Properties"]["Body"]["paths"].items():
            for method, operation in methods.items():
                route = f"{method.upper()} {path}"
                if route in present:
                    continue
                definition = operation["x-amazon-apigateway-integration"]
                target = re.search(r"\$\{(\w+)(\.Arn)?}/invocations", definition["uri"]["Fn::Sub"])
                if target is None:
                    raise StepError(f"{method} {path} has no function: {definition['uri']}")
                # The id of an alias is its ARN, and the id of a function is its name.
                function = resources[target[1]]
                if target[2]:
                    function = functions.get_function(FunctionName=function)["Configuration"]["FunctionArn"]
                integration = apis.create_integration(
                    ApiId=api,
                    IntegrationType=definition["type"].upper(),
                    IntegrationMethod=definition["httpMethod"],
                    IntegrationUri=function,
                    PayloadFormatVersion=definition["payloadFormatVersion"],
                )["IntegrationId"]
                apis.create_route(ApiId=api, RouteKey=route, Target=f"integrations/{integration}")


def allow_without_tls(queues: Any, buckets: Any, resources: dict[str, str]) -> None:
    """Removes the statements that require TLS from the policies of the queues and buckets, because the local AWS has no TLS and
    would reject every message and body.
    """
    for client in (queues, buckets):
        client.meta.events.register("before-sign", claim_tls)
    for url in (name for name in resources.values() if name.startswith("http")):
        attributes = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"]).get("Attributes", {})
        if "Policy" in attributes:
            queues.set_queue_attributes(QueueUrl=url, Attributes={"Policy": without_tls(attributes["Policy"])})
    for bucket in (resources[name] for name in ("PayloadBucket", "ArchiveBucket") if name in resources):
        try:
            policy = without_tls(buckets.get_bucket_policy(Bucket=bucket)["Policy"])
        except buckets.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchBucketPolicy":
                raise
            continue
        if json.loads(policy)["Statement"]:
            buckets.put_bucket_policy(Bucket=bucket, Policy=policy)
        else:
            buckets.delete_bucket_policy(Bucket=bucket)


def claim_tls(request: Any, **_: object) -> None:
    """Marks a call as received through TLS, as a proxy would."""
    request.headers["X-Forwarded-Proto"] = "https"


def without_tls(policy: str) -> str:
    document = json.loads(policy)
    document["Statement"] = [statement for statement in document["Statement"] if statement.get("Sid") != "OnlyTls"]
    return json.dumps(document)


def put_secret(store: Any, secret_id: str) -> None:
    """Replaces the placeholder of the app secret, and the verify token with it. ministack ignores that the template excludes punctuation from
    the generated token, and the function rejects a token in quotes.
    """
    secret: dict[str, Any] = json.loads(store.get_secret_value(SecretId=secret_id)["SecretString"])
    if secret["app_secret"] != PLACEHOLDER:
        return
    secret["app_secret"] = os.environ.get("APP_SECRET") or secrets.token_hex(16)
    secret["verify_token"] = os.environ.get("VERIFY_TOKEN") or secrets.token_hex(20)
    store.put_secret_value(SecretId=secret_id, SecretString=json.dumps(secret))


def report(failure: StepError) -> NoReturn:
    step(f"failed: {failure}")
    if failure.log:
        lines = failure.log.read_text(errors="replace").splitlines()[-60:]
        print(f"--- the end of {failure.log}", *lines, "---", sep="\n", file=sys.stderr, flush=True)
    sys.exit(1)


def step(text: str) -> None:
    print(f"local stack: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
