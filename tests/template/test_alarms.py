"""Which traffic raises which alarm, and what every alarm has."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from samcli.yamlhelper import yaml_parse

import rows
from cloudwatch import Lines, Samples, alarm_minutes, apply_filter
from expanded import CATCH_ALL, TEMPLATE, expand, expand_set, target
from parameters import EVERYTHING, SETS, TEAM_TOPIC

MINUTE = 60
HOUR = 60 * MINUTE


def alarm(name: str) -> dict[str, Any]:
    return expand().alarms()[name]


def filter_for(metric: str) -> dict[str, Any]:
    filters = expand().of_type("AWS::Logs::MetricFilter").values()
    [found] = [each for each in filters if each["MetricTransformations"][0]["MetricName"] == metric]
    return found


def requests(metrics: dict[str, int], first: int, interval: int, end: int) -> Lines:
    """Log lines of requests at equal intervals."""
    line = {"level": "INFO", "message": "any", "FunctionName": "stack-Ingress", "response.status": 200}
    return [(second, line | metrics) for second in range(first, end, interval)]


def notifications(first: int, interval: int, end: int) -> Lines:
    return requests({"Notifications": 1, "Changes": 1, "Stored": 1}, first, interval, end)


def mismatches(first: int, interval: int, end: int) -> Lines:
    return requests({"Notifications": 0, "RefusedSignatures": 1, "SignatureMismatches": 1}, first, interval, end)


def mismatch_alarm_minutes(lines: Lines, end: int) -> list[int]:
    return alarm_minutes(alarm("signature-mismatches"), apply_filter(filter_for("SignatureMatches"), lines), end)


def test_wrong_app_secret_raises_alarm_within_an_hour() -> None:
    # Four requests an hour are enough.
    assert mismatch_alarm_minutes(mismatches(0, 15 * MINUTE, 3 * HOUR), 3 * HOUR)[0] == 45


def test_forgeries_among_notifications_raise_no_alarm() -> None:
    lines = notifications(0, 10 * MINUTE, 6 * HOUR) + mismatches(0, 10, 6 * HOUR)
    assert mismatch_alarm_minutes(lines, 6 * HOUR) == []


@pytest.mark.parametrize("minute", range(20))
def test_ten_forgeries_at_night_raise_no_mismatch_alarm(minute: int) -> None:
    start = 2 * HOUR + minute * MINUTE
    lines = mismatches(start, 30, start + 5 * MINUTE)
    assert len(lines) == 10
    assert mismatch_alarm_minutes(lines, 6 * HOUR) == []
    # The alarm `refused-signatures` reports them.
    assert alarm_minutes(alarm("refused-signatures"), [(second, 1) for second, _ in lines], 6 * HOUR)


def test_forgeries_do_not_hide_a_wrong_app_secret() -> None:
    lines = notifications(0, MINUTE, 2 * HOUR) + mismatches(0, 30, 2 * HOUR) + mismatches(2 * HOUR, MINUTE, 4 * HOUR)
    minutes = mismatch_alarm_minutes(lines, 4 * HOUR)
    assert (minutes[0], minutes[-1]) == (120 + 45, 240)


def test_one_notification_ends_the_mismatch_alarm_minutes() -> None:
    lines = mismatches(0, MINUTE, 2 * HOUR) + notifications(2 * HOUR, MINUTE, 3 * HOUR)
    assert mismatch_alarm_minutes(lines, 3 * HOUR)[-1] == 120


def test_unsigned_requests_raise_no_mismatch_alarm() -> None:
    lines = requests({"Notifications": 0, "RefusedSignatures": 1}, 0, MINUTE, 3 * HOUR)
    lines += requests({"Notifications": 0, "RefusedTokens": 1}, 0, MINUTE, 3 * HOUR)
    assert mismatch_alarm_minutes(lines, 3 * HOUR) == []


def test_filters_select_429_and_posts_with_404() -> None:
    names = json.loads(expand().one("AWS::ApiGatewayV2::Stage")["AccessLogSettings"]["Format"])

    def line(method: str, status: str) -> dict[str, str]:
        values = {"$context.apiId": "a1b2c3", "$context.httpMethod": method, "$context.status": status}
        return {name: values.get(variable, "-") for name, variable in names.items()}

    seen = [("POST", "200"), ("POST", "401"), ("POST", "429"), ("GET", "429"), ("POST", "404"), ("GET", "404")]
    lines = [(second, line(*request)) for second, request in enumerate(seen)]
    assert apply_filter(filter_for("ThrottledRequests"), lines) == [(2, 1.0), (3, 1.0)]
    assert apply_filter(filter_for("NotFoundPosts"), lines) == [(4, 1.0)]


def test_filters_have_the_dimension_of_their_alarm() -> None:
    template = expand()
    for id, each in template.of_type("AWS::Logs::MetricFilter").items():
        [made] = each["MetricTransformations"]
        [alarm] = [alarm for alarm in template.alarms().values() if alarm["MetricName"] == made["MetricName"]]
        assert alarm["Namespace"] == made["MetricNamespace"], id
        [dimension] = made["Dimensions"]
        assert [each["Name"] for each in alarm["Dimensions"]] == [dimension["Key"]], id
        # CloudWatch requires the field of a dimension in the pattern.
        assert f'{dimension["Value"]} = "*"' in each["FilterPattern"], id


@pytest.mark.parametrize("name", ["api-failing", "api-not-found"])
def test_single_errors_of_the_api_raise_no_alarm(name: str) -> None:
    # A burst of 5 minutes, then an error in each period.
    burst: Samples = [(2 * HOUR + count * 6, 1) for count in range(50)]
    assert alarm_minutes(alarm(name), burst, 6 * HOUR) == []
    lasting: Samples = [(2 * HOUR + count * 5 * MINUTE, 1) for count in range(12)]
    assert alarm_minutes(alarm(name), lasting, 6 * HOUR)[0] == 120 + 11


def test_messages_that_wait_three_days_raise_alarm() -> None:
    def visible(hours: int) -> Samples:
        # Each day a command receives all of them for some minutes.
        return [(minute * MINUTE, 0 if minute % 1440 < 10 else 2) for minute in range(hours * 60)]

    assert alarm_minutes(alarm("catch-all-not-empty"), visible(60), 60 * HOUR) == []
    assert alarm_minutes(alarm("catch-all-not-empty"), visible(73), 73 * HOUR)


def test_catch_all_that_is_read_raises_no_alarm() -> None:
    # Messages arrive all the time, and a consumer takes them every half hour.
    visible: Samples = [(minute * MINUTE, minute % 30) for minute in range(96 * 60)]
    assert alarm_minutes(alarm("catch-all-not-empty"), visible, 96 * HOUR) == []


def test_no_traffic_raises_alarm_after_its_time() -> None:
    no_traffic = expand(NoTrafficAlarmSeconds="900").alarms()["no-traffic"]
    seen: Samples = [(minute * MINUTE, 1) for minute in range(60)]
    assert alarm_minutes(no_traffic, seen, 2 * HOUR) == list(range(75, 121))
    # Requests that are no notification count as zero.
    assert alarm_minutes(no_traffic, [*seen, (80 * MINUTE, 0)], 80 * MINUTE)[0] == 75
    assert "no-traffic" not in expand().alarms()


def test_missing_data_raises_only_no_traffic() -> None:
    # The function logs no zero counts, so missing data is normal.
    for name, each in expand(**SETS["production"]).alarms().items():
        assert each["TreatMissingData"] == ("breaching" if name == "no-traffic" else "notBreaching"), name


def test_every_alarm_notifies_the_topic() -> None:
    topic = SETS["production"]["AlarmTopicArn"]
    alarms = expand(**SETS["production"]).alarms()
    assert len(alarms) > 12
    # The topics of rows that the operator added. The template has none.
    own = [[row["AlarmTopicArn"]] for row in rows.deployed(TEMPLATE.read_text()).values() if "AlarmTopicArn" in row]
    for name, each in alarms.items():
        assert each["AlarmActions"] == each["OKActions"], name
        assert each["AlarmActions"] in [[topic], *own], name
    for name, each in expand().alarms().items():
        assert each.get("AlarmActions") in [None, *own], name
        assert each.get("AlarmActions") == each.get("OKActions"), name


def test_row_has_alarms_of_its_team() -> None:
    template = expand_set("consumers")
    own = {name: each for name, each in template.alarms().items() if each.get("AlarmActions") == [TEAM_TOPIC]}
    assert own.keys() == {"messages-statuses-consumer-lag", "messages-statuses-dead-letters"}
    assert str(own["messages-statuses-consumer-lag"]["Threshold"]) == "120"
    assert all("Owner: receipts." in each["AlarmDescription"] for each in own.values())
    owned = [queue for queue in template.of_type("AWS::SQS::Queue").values() if owner(queue) == "receipts"]
    assert {queue["QueueName"] for queue in owned} == {"stack-messages-statuses", "stack-messages-statuses-dead"}


def owner(queue: dict[str, Any]) -> str | None:
    return next((str(tag["Value"]) for tag in queue.get("Tags", []) if tag["Key"] == "owner"), None)


def test_one_alarm_pages() -> None:
    template = expand(**SETS["production"])
    page = template.one("AWS::CloudWatch::CompositeAlarm")
    assert page["AlarmActions"] == page["OKActions"] == [SETS["production"]["PageTopicArn"]]
    # test_runbook.py compares the alarms of the rule with those that the table of the page marks.
    assert all(re.fullmatch(r'ALARM\("\$\{\w+}"\)', term) for term in page["AlarmRule"].split(" OR "))
    assert "NoTraffic" not in expand().one("AWS::CloudWatch::CompositeAlarm")["AlarmRule"]


def test_alarm_says_the_first_step_and_its_section() -> None:
    template = expand(**SETS["production"])
    url = SETS["production"]["RunbookUrl"]
    for id, each in template.of_type("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm").items():
        text, name = each["AlarmDescription"], each["AlarmName"].removeprefix("stack-")
        assert re.search(r"[.:] First: \w.*\. ", text), id
        anchor = re.sub(".*-(consumer-lag|dead-letters)$", r"queue-\1", name)
        assert text.endswith(f" {url}#{anchor}"), id
        # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
        assert len(text) <= 1024


@pytest.mark.parametrize("name", ["default", "consumers"])
def test_every_queue_has_its_alarms(name: str) -> None:
    template = expand_set(name)
    watched: dict[str, dict[str, Any]] = {}
    for each in template.alarms().values():
        if each["Namespace"] == "AWS/SQS":
            [dimension] = each["Dimensions"]
            assert target(dimension["Value"]) not in watched
            watched[target(dimension["Value"])] = each
    assert watched.keys() == template.of_type("AWS::SQS::Queue").keys() - {template.probe_queue()}
    [catch_all] = template.routes()[CATCH_ALL]
    dead_letter_queues = template.dead_letter_queues().values()
    for id, each in watched.items():
        if id in dead_letter_queues or id == catch_all:
            assert (each["MetricName"], each["Threshold"]) == ("ApproximateNumberOfMessagesVisible", 1), id
        else:
            assert each["MetricName"] == "ApproximateAgeOfOldestMessage", id


def test_every_row_of_the_table_is_an_alarm() -> None:
    mappings = yaml_parse(TEMPLATE.read_text())["Mappings"]
    names = {row["Name"] for table in ("Alarms", "LatencyAlarms") for row in mappings[table].values()}
    assert names <= expand().alarms().keys()
    queries = {query["Name"] for query in expand().of_type("AWS::Logs::QueryDefinition").values()}
    assert {f"stack/{row['Name']}" for row in mappings["LogQueries"].values()} == queries


def test_every_alarmed_metric_is_on_the_dashboard() -> None:
    template = expand(**EVERYTHING)
    body = json.loads(template.one("AWS::CloudWatch::Dashboard")["DashboardBody"])
    shown = json.dumps(body)
    for name, alarm in template.alarms().items():
        metric = alarm["MetricName"]
        assert f'"{metric}"' in shown or f'MetricName=\\"{metric}' in shown or f'\\"{metric}\\"' in shown, name
    # The function sets a message group on standard queues as well, so SQS has these for them:
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues.html
    for metric in (
        "ApproximateNumberOfNoisyGroups",
        "ApproximateAgeOfOldestMessageInQuietGroups",
        "ApproximateNumberOfMessagesVisibleInQuietGroups",
    ):
        assert metric in shown
    assert all(widget["x"] + widget["width"] <= 24 for widget in body["widgets"])
