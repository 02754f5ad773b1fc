"""Sets of parameters for the template."""

from __future__ import annotations

DOMAIN = {
    "DomainName": "hooks.example.com",
    "CertificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/c",
    "TruststoreUri": "s3://truststore/meta.pem",
}
SETS: dict[str, dict[str, str]] = {
    "default": {},
    # Consumers that are not of this account, or that need messages in order.
    "consumers": {
        "Consumers": "arn:aws:iam::111122223333:root",
        "FieldConsumers1": "Messages=444455556666,777788889999",
        "FieldConsumers5": "MessagesStatuses=444455556666",
        "FifoField1": "Messages",
        "FifoField2": "Security",
    },
    "customer-key": {"CustomerKey": "true", "Consumers": "111122223333"},
    # What changes API, function and alarms.
    "production": DOMAIN
    | {
        "Architecture": "arm64",
        "LogLevel": "WARN",
        "AlarmTopic": "arn:aws:sns:us-east-1:123456789012:operators",
        "OldestMessageSeconds": "600",
        "SilenceSeconds": "900",
        "Canary": "true",
        "ReservedConcurrency": "50",
        "RouteRateLimit": "9000",
    },
}
FIVE_KEYS = ["Security", "Messages", "AccountUpdate", "MessagesStatuses", "PhoneNumberNameUpdate"]
FIFO = {f"FifoField{place}": key for place, key in enumerate(FIVE_KEYS, start=1)}
EVERYTHING = SETS["consumers"] | SETS["customer-key"] | SETS["production"] | FIFO
