"""Tells the age in seconds of the oldest message of each queue that is named, as one line of JSON.

SQS itself does not tell: CloudWatch does, a few minutes late, and not of a queue that nobody has used for hours. A queue
that it has no recent value of is not in the line. Asked as any AWS tool asks: see deployed.py.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime, timedelta, timezone
from typing import Any

# A value comes each minute, some minutes late; an older one says nothing about now.
RECENT = timedelta(minutes=15)
MOST_QUERIES = 500


def main() -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 3})
    try:
        session = boto3.Session(region_name=os.environ.get("AWS_REGION") or None)
        print(json.dumps(oldest(session.client("cloudwatch", config=config), sys.argv[1:])))
    except ClientError as error:
        sys.exit(f"AWS refused {error.operation_name}: {error.response['Error'].get('Message', error)}")
    except BotoCoreError as error:
        sys.exit(f"CloudWatch cannot be asked: {error}")


def oldest(cloudwatch: Any, queues: list[str]) -> dict[str, int]:
    """The newest value of each queue that has one."""
    now = datetime.now(timezone.utc)
    ages: dict[str, tuple[datetime, float]] = {}
    for start in range(0, len(queues), MOST_QUERIES):
        batch = queues[start : start + MOST_QUERIES]
        pages = cloudwatch.get_paginator("get_metric_data").paginate(
            MetricDataQueries=[query(f"q{place}", queue) for place, queue in enumerate(batch)],
            StartTime=now - RECENT,
            EndTime=now,
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                queue = batch[int(result["Id"][1:])]
                known = [ages[queue]] if queue in ages else []
                values = [*known, *zip(result["Timestamps"], result["Values"], strict=True)]
                if values:
                    ages[queue] = max(values)
    return {queue: round(age) for queue, (_, age) in ages.items()}


def query(identifier: str, queue: str) -> dict[str, Any]:
    metric = {
        "Namespace": "AWS/SQS",
        "MetricName": "ApproximateAgeOfOldestMessage",
        "Dimensions": [{"Name": "QueueName", "Value": queue}],
    }
    return {"Id": identifier, "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Maximum"}}


if __name__ == "__main__":
    main()
