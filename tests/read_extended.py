"""Reads what is on a queue as a consumer with the Amazon SQS Extended Client Library does.

Prints the bodies as a JSON list. The queue's URL is the argument; region, keys and endpoint are in the environment.
"""

import json
import sys

import boto3
import sqs_extended_client  # noqa: F401  (gives the sessions of boto3 the library's methods)

queue = sys.argv[1]
client = boto3.client("sqs")
bodies: list[str] = []
while messages := client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
    bodies += (message["Body"] for message in messages)
print(json.dumps(bodies))
