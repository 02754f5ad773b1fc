"""Sets of parameters and rows for the template."""

from __future__ import annotations

from collections.abc import Callable

import rows

DOMAIN = {
    "DomainName": "hooks.example.com",
    "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/c",
    "TruststoreUri": "s3://truststore/meta.pem",
}
SETS: dict[str, dict[str, str]] = {
    "default": {},
    # Consumers that are not of this account, or that need messages in order.
    "consumers": {"Consumers": "arn:aws:iam::111122223333:root"},
    "customer-managed-key": {"UseCustomerManagedKey": "true", "Consumers": "111122223333"},
    "archive": {"ArchiveDays": "30", "ArchiveRequired": "true"},
    # What changes API, function and alarms.
    "production": DOMAIN
    | {
        "TruststoreVersion": "3",
        "Architecture": "arm64",
        "LogLevel": "WARN",
        "SystemLogLevel": "INFO",
        "AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:operators",
        "PageTopicArn": "arn:aws:sns:us-east-1:123456789012:pager",
        "ConsumerLagAlarmSeconds": "600",
        "NoTrafficAlarmSeconds": "900",
        "Canary": "true",
        "ReservedConcurrency": "50",
        "RunbookUrl": "https://wiki.example.com/ingress",
    },
}
ARCHIVE = SETS["archive"]
TEAM_TOPIC = "arn:aws:sns:us-east-1:123456789012:receipts"


def with_consumers(template: str) -> str:
    """Two rows with consumers, one of which has all columns, and two FIFO queues."""
    fifo = '{ Route: messages, Fifo: "true", Consumers: "444455556666,777788889999" }'
    team = (
        '{ Route: messages.statuses, Name: messages-statuses, Consumers: "444455556666", Owner: receipts, '
        f'AlarmTopicArn: "{TEAM_TOPIC}", ConsumerLagAlarmSeconds: 120 }}'
    )
    template = rows.replace(template, "Messages", "MessagesFifo", fifo)
    template = rows.replace(template, "MessagesStatuses", "MessagesStatuses", team)
    template = rows.replace(template, "Security", "SecurityFifo", '{ Route: security, Fifo: "true" }')
    for key, route in (("MessagesFifo", "messages"), ("MessagesStatuses", "messages.statuses")):
        template = rows.open_key(rows.open_bodies(template, key, route), key)
    return template


ROWS: dict[str, Callable[[str], str]] = {"consumers": with_consumers}
EVERYTHING = SETS["consumers"] | SETS["customer-managed-key"] | ARCHIVE | SETS["production"]
