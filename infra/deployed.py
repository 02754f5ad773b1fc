"""Tells what a caller needs of a deployed stack, as one line of JSON for the command line of this folder.

It asks AWS as any AWS tool does: credentials, profile and region are those of the environment, AWS_ENDPOINT_URL is
followed. Secret and credentials are in the line, so it belongs into a pipe and nowhere else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any


def main() -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stack", help="name of the CloudFormation stack")
    stack = parser.parse_args().stack
    config = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})
    try:
        # AWS_REGION, which every other SDK reads, is none of boto3's.
        session = boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
        if not session.region_name:
            raise NoRegionError
        if session.get_credentials() is None:
            raise NoCredentialsError

        def client(service: str) -> Any:
            return session.client(service, config=config)

        key = session.get_credentials().get_frozen_credentials()
        print(
            json.dumps(
                described(client, stack)
                | {
                    "aws_endpoint": client("sqs").meta.endpoint_url,
                    "region": session.region_name,
                    "access_key_id": key.access_key,
                    "secret_access_key": key.secret_key,
                    "session_token": key.token,
                }
            )
        )
    except NoRegionError:
        sys.exit("no AWS region is set: set AWS_REGION or AWS_PROFILE")
    except NoCredentialsError:
        sys.exit("no AWS credentials are set: set AWS_PROFILE, or sign in")
    except ClientError as error:
        sys.exit(f"AWS refused {error.operation_name}: {error.response['Error'].get('Message', error)}")
    except BotoCoreError as error:
        sys.exit(f"AWS cannot be asked: {error}")
    except KeyError as error:
        sys.exit(f"the stack {stack} is none of this template: it lacks {error}")


def described(client: Callable[[str], Any], stack: str) -> dict[str, Any]:
    """Outputs, routes and secret of a stack, by clients of the services' names."""
    found = client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}
    function = client("lambda").get_function_configuration(FunctionName=outputs["FunctionName"])
    return {
        "stack": stack,
        "callback_url": outputs["CallbackUrl"],
        "log_group": outputs["LogGroupName"],
        "outputs": outputs,
        "queue_urls": full_urls(json.loads(function["Environment"]["Variables"]["QUEUE_URLS"])),
        "secret": client("secretsmanager").get_secret_value(SecretId=outputs["SecretArn"])["SecretString"],
    }


def full_urls(routes: dict[str, str]) -> dict[str, str]:
    """The routes with a URL for each queue: a mere name is that of a queue beside the catch-all's."""
    beside = routes["*"].rpartition("/")[0]
    return {route: queue if "/" in queue else f"{beside}/{queue}" for route, queue in routes.items()}


if __name__ == "__main__":
    main()
