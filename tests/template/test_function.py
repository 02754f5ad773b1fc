"""The way from the API to the function, and its versions."""

from __future__ import annotations

import json
import re

import pytest

from expanded import STACK, TEMPLATE, expand, target
from parameters import ARCHIVE, DOMAIN, EVERYTHING, ROWS


def test_api_passes_body_and_certificate_to_alias() -> None:
    template = expand()
    [alias] = template.of_type("AWS::Lambda::Alias")
    [(path, methods)] = template.one("AWS::ApiGatewayV2::Api")["Body"]["paths"].items()
    assert (path, set(methods)) == ("/webhook", {"get", "post"})
    for operation in methods.values():
        integration = operation["x-amazon-apigateway-integration"]
        # Format 2.0 has the client certificate, and a proxy integration the whole body.
        assert (integration["type"], integration["payloadFormatVersion"]) == ("aws_proxy", "2.0")
        assert f"functions/${{{alias}}}/invocations" in integration["uri"]["Fn::Sub"]
        assert "requestParameters" not in integration
    permissions = template.of_type("AWS::Lambda::Permission").values()
    assert [target(each["FunctionName"]) for each in permissions] == [alias, alias]
    sources = [each["SourceArn"]["Fn::Sub"][0].rpartition("${__Stage__}/")[2] for each in permissions]
    assert sorted(sources) == ["GET/webhook", "POST/webhook"]


def test_truststore_closes_other_ways_in() -> None:
    def ways_in(**parameters: str) -> tuple[bool, bool, bool]:
        template = expand(**parameters)
        [server] = template.one("AWS::ApiGatewayV2::Api")["Body"]["servers"]
        domains = template.of_type("AWS::ApiGatewayV2::DomainName").values()
        return (
            not server["x-amazon-apigateway-endpoint-configuration"]["disableExecuteApiEndpoint"],
            any("MutualTlsAuthentication" in domain for domain in domains),
            "CLIENT_CERTIFICATE_CN" in template.variables,
        )

    without = {name: value for name, value in DOMAIN.items() if name != "TruststoreUri"}
    assert ways_in() == ways_in(**without) == (True, False, False)
    assert ways_in(**DOMAIN) == (False, True, True)
    # A truststore without a domain name would leave no way in.
    assert ways_in(TruststoreUri=DOMAIN["TruststoreUri"]) == (True, False, False)


def test_truststore_has_the_version_of_its_file() -> None:
    def truststore(**parameters: str) -> dict[str, str]:
        mutual: dict[str, str] = expand(**DOMAIN, **parameters).one("AWS::ApiGatewayV2::DomainName")[
            "MutualTlsAuthentication"
        ]
        return mutual

    uri = {"TruststoreUri": DOMAIN["TruststoreUri"]}
    assert truststore() == uri
    assert truststore(TruststoreVersion="3") == uri | {"TruststoreVersion": "3"}


def test_access_log_omits_query_headers_and_body() -> None:
    template = expand()
    settings = template.one("AWS::ApiGatewayV2::Stage")["AccessLogSettings"]
    assert target(settings["DestinationArn"]) != target(template.function["LoggingConfig"]["LogGroup"])
    for value in json.loads(settings["Format"]).values():
        assert value.startswith("$context.")
        assert not re.search("query|rawPath|requestOverride|authorizer|header|body", value), value


@pytest.mark.parametrize(
    "parameters",
    [
        {"LogLevel": "DEBUG"},
        {"SystemLogLevel": "DEBUG"},
        {"AwsEndpointUrl": "http://localhost:1"},
        DOMAIN,
        DOMAIN | {"ClientCertificateCn": "x"},
        {"ArchiveDays": "30"},
        ARCHIVE,
    ],
    ids=lambda parameters: "-".join(parameters),
)
def test_changed_function_gets_a_new_version(parameters: dict[str, str]) -> None:
    before = expand(**DOMAIN) if "ClientCertificateCn" in parameters else expand()
    if "ArchiveRequired" in parameters:
        before = expand(ArchiveDays=parameters["ArchiveDays"])
    after = expand(**parameters)
    assert before.function != after.function
    # Compares properties. SAM derives the logical id from the template's text, which parameters do not change.
    assert before.one("AWS::Lambda::Version") != after.one("AWS::Lambda::Version")


def test_changed_row_gets_a_new_version() -> None:
    before = expand().of_type("AWS::Lambda::Version")
    after = expand(ROWS["consumers"](TEMPLATE.read_text())).of_type("AWS::Lambda::Version")
    # SAM derives the logical id from the text of the function's properties.
    assert before.keys() != after.keys()


def test_alias_points_to_the_version() -> None:
    template = expand(**EVERYTHING)
    [(version, properties)] = template.of_type("AWS::Lambda::Version").items()
    # A changed parameter replaces the version. The replaced one has to stay, because a rollback moves the alias to it.
    resource = template.resources[version]
    assert (resource.get("DeletionPolicy"), resource.get("UpdateReplacePolicy")) == ("Retain", "Retain")
    assert target(template.one("AWS::Lambda::Alias")["FunctionVersion"]) == version
    assert len(properties["Description"]) <= 256
    # A person who rolls back reads there which release a version is.
    assert properties["Description"].startswith(f"{template.outputs['Version']['Value']} ")


def test_canary_watches_only_failures_of_the_function() -> None:
    assert not expand().of_type("AWS::CodeDeploy::DeploymentGroup")
    template = expand(Canary="true")
    [(id, group)] = template.of_type("AWS::CodeDeploy::DeploymentGroup").items()
    names = [alarm["Name"] for alarm in group["AlarmConfiguration"]["Alarms"]]
    # References would be a cycle of resources.
    assert all(isinstance(name, str) for name in names)
    watched = [template.alarms()[name.removeprefix(f"{STACK}-")] for name in names]
    # An anonymous caller can cause none of them.
    causes = {("AWS/Lambda", "Errors"), ("WhatsAppIngress", "NotStored")}
    assert {(alarm["Namespace"], alarm["MetricName"]) for alarm in watched} == causes
    assert group["AlarmConfiguration"]["Enabled"]
    assert group["AutoRollbackConfiguration"]["Enabled"]
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
    [alias] = template.of_type("AWS::Lambda::Alias")
    update = template.resources[alias]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    assert target(update["DeploymentGroupName"]) == id


def test_generated_secret_has_a_placeholder() -> None:
    generated = expand().one("AWS::SecretsManager::Secret")["GenerateSecretString"]
    # The function rejects this value, so nobody can sign with what everybody can read here.
    assert json.loads(generated["SecretStringTemplate"]) == {"app_secret": "REPLACE_ME"}
    assert (generated["GenerateStringKey"], generated["PasswordLength"]) == ("verify_token", 40)
