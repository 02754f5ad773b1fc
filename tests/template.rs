//! What `template.yaml` deploys: the wiring from the callback URL to the queues, and what the function may do.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by its panic")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

const FIELDS: [&str; 8] = [
    "account_review_update",
    "account_update",
    "business_capability_update",
    "message_template_status_update",
    "messages",
    "phone_number_name_update",
    "phone_number_quality_update",
    "security",
];

const OWN_ACCOUNT: &str = "arn:aws:iam::123456789012:root";
const FOUR_DAYS: u64 = 4 * 24 * 60 * 60;
const FOURTEEN_DAYS: u64 = 14 * 24 * 60 * 60;

static TEMPLATE: LazyLock<Value> = LazyLock::new(|| expand(&[]));

/// The template as `CloudFormation` gets to see it, with `NAME=VALUE` parameters.
fn expand(parameters: &[&str]) -> Value {
    let output = command(parameters).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn command(parameters: &[&str]) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: install the tools of requirements.txt into .venv", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("tools/expand_template.py"));
    command.args(parameters.iter().flat_map(|parameter| ["--parameter", parameter]));
    command
}

fn resource(id: &str) -> &'static Value {
    let resource = &TEMPLATE["Resources"][id];
    assert!(resource.is_object(), "the template has no resource {id}");
    resource
}

fn properties(id: &str) -> &'static Value {
    &resource(id)["Properties"]
}

/// Ids and properties of the resources of a type.
fn all(kind: &str) -> impl Iterator<Item = (&'static str, &'static Value)> {
    let resources = TEMPLATE["Resources"].as_object().unwrap();
    resources
        .iter()
        .filter(move |(_, resource)| resource["Type"] == kind)
        .map(|(id, resource)| (&**id, &resource["Properties"]))
}

fn get_att(id: &str, attribute: &str) -> Value {
    json!({ "Fn::GetAtt": [id, attribute] })
}

/// What the function is told of its routes: route and queue.
fn routes() -> Vec<(String, String)> {
    let routes = properties("Ingress")["Environment"]["Variables"]["QUEUE_URLS"].as_str().unwrap();
    let routes: Value = serde_json::from_str(routes).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    routes.as_object().unwrap().iter().map(|(route, queue)| (route.clone(), text(queue))).collect()
}

/// The keys by which the loops make the queues of fields, each with the name that follows the stack's.
fn fields() -> Vec<(&'static str, &'static str)> {
    let keys = TEMPLATE["Mappings"]["Queues"]["All"]["Keys"].as_array().unwrap();
    let name = |key| TEMPLATE["Mappings"]["Field"][key]["Name"].as_str().unwrap();
    keys.iter().map(|key| key.as_str().unwrap()).map(|key| (key, name(key))).collect()
}

fn statement(actions: &Value, resource: &Value) -> Value {
    json!({ "Effect": "Allow", "Action": actions, "Resource": resource })
}

fn only_tls(actions: &Value, resource: &Value) -> Value {
    json!({
        "Sid": "OnlyTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": actions,
        "Resource": resource,
        "Condition": { "Bool": { "aws:SecureTransport": false } },
    })
}

fn consume(principals: &[&str]) -> Value {
    let actions = ["ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes", "GetQueueUrl"];
    json!({
        "Sid": "Consume",
        "Effect": "Allow",
        "Principal": { "AWS": principals },
        "Action": actions.map(|action| format!("sqs:{action}")),
        "Resource": "*",
    })
}

#[test]
fn every_field_and_the_receipts_have_a_route() {
    let routes: BTreeSet<String> = routes().into_iter().map(|(route, _)| route).collect();

    for route in FIELDS.iter().chain(&["messages.statuses", "*"]) {
        assert!(routes.contains(*route), "QUEUE_URLS has no {route}");
    }
}

#[test]
fn every_route_has_a_queue_of_its_field() {
    for (route, queue) in routes() {
        if route == "*" {
            assert_eq!(queue, "${Unrouted.QueueUrl}");
            continue;
        }
        assert_eq!(queue, format!("stack-{}", route.replace('.', "-")));
        let queues = all("AWS::SQS::Queue").filter(|(_, properties)| properties["QueueName"] == *queue).count();
        assert_eq!(queues, 1, "queues named {queue}");
    }
}

#[test]
fn every_queue_has_a_route() {
    let mut queues: Vec<String> = fields().into_iter().map(|(_, name)| format!("stack-{name}")).collect();
    let mut routed: Vec<String> =
        routes().into_iter().filter(|(route, _)| route != "*").map(|(_, queue)| queue).collect();
    queues.sort();
    routed.sort();

    assert_eq!(queues, routed);
}

#[test]
fn every_name_in_the_mapping_has_a_queue() {
    let names: BTreeSet<&str> = TEMPLATE["Mappings"]["Field"].as_object().unwrap().keys().map(|key| &**key).collect();
    let keys: BTreeSet<&str> = fields().into_iter().map(|(key, _)| key).chain(["None"]).collect();

    assert_eq!(names, keys);
}

#[test]
fn every_name_in_the_mapping_knows_its_own_key_and_no_other() {
    for (key, name) in fields() {
        assert_eq!(TEMPLATE["Mappings"]["Field"][key], json!({ "Name": name, key: "1" }));
    }
    assert_eq!(TEMPLATE["Mappings"]["Field"]["None"], json!({ "Name": "none" }));
}

#[test]
fn there_is_no_queue_but_those_of_the_fields_their_dead_letters_and_the_catch_all() {
    let found: BTreeSet<String> = all("AWS::SQS::Queue").map(|(id, _)| id.to_owned()).collect();
    let expected = fields().into_iter().flat_map(|(key, _)| [format!("Queue{key}"), format!("QueueDead{key}")]);

    assert_eq!(found, expected.chain(["Unrouted".to_owned()]).collect());
}

#[test]
fn the_queue_of_a_field_gives_up_on_a_message_to_its_own_dead_letter_queue() {
    for (key, name) in fields() {
        let queue = properties(&format!("Queue{key}"));
        assert_eq!(queue["QueueName"], format!("stack-{name}"));
        assert_eq!(queue["MessageRetentionPeriod"], FOUR_DAYS);
        assert_eq!(queue["VisibilityTimeout"], 180);
        assert_eq!(
            queue["RedrivePolicy"],
            json!({ "deadLetterTargetArn": get_att(&format!("QueueDead{key}"), "Arn"), "maxReceiveCount": 5 })
        );

        let dead = properties(&format!("QueueDead{key}"));
        assert_eq!(dead["QueueName"], format!("stack-{name}-dead"));
        assert_eq!(dead["MessageRetentionPeriod"], FOURTEEN_DAYS);
        assert_eq!(dead.get("RedrivePolicy"), None);
        assert_eq!(
            dead["RedriveAllowPolicy"],
            json!({
                "redrivePermission": "byQueue",
                "sourceQueueArns": [format!("arn:aws:sqs:us-east-1:123456789012:stack-{name}")],
            })
        );
    }
}

#[test]
fn the_catch_all_keeps_what_it_gets_for_as_long_as_sqs_can() {
    let queue = properties("Unrouted");

    assert_eq!(queue["QueueName"], "stack-unrouted");
    assert_eq!(queue["MessageRetentionPeriod"], FOURTEEN_DAYS);
    assert_eq!(queue.get("RedrivePolicy"), None);
}

#[test]
fn every_queue_is_encrypted_and_takes_all_that_sqs_can() {
    for (id, queue) in all("AWS::SQS::Queue") {
        assert_eq!(queue["SqsManagedSseEnabled"], true, "{id}");
        assert_eq!(queue["MaximumMessageSize"], 1_048_576, "{id}");
    }
}

#[test]
fn queues_bucket_and_secret_outlive_the_stack() {
    let queues = all("AWS::SQS::Queue").map(|(id, _)| id);
    for id in queues.chain(["Payloads", "Secret"]) {
        assert_eq!(resource(id)["DeletionPolicy"], "Retain", "{id}");
        assert_eq!(resource(id)["UpdateReplacePolicy"], "Retain", "{id}");
    }
}

#[test]
fn the_role_is_the_functions_alone_and_carries_four_statements() {
    assert_eq!(properties("Ingress")["Role"], get_att("Role", "Arn"));
    assert_eq!(
        *properties("Role"),
        json!({
            "AssumeRolePolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [{
                    "Effect": "Allow",
                    "Principal": { "Service": "lambda.amazonaws.com" },
                    "Action": "sts:AssumeRole",
                }],
            },
            "Policies": [{
                "PolicyName": "ingress",
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [
                        statement(&json!(["logs:CreateLogStream", "logs:PutLogEvents"]), &get_att("LogGroup", "Arn")),
                        statement(&json!("secretsmanager:GetSecretValue"), &get_att("Secret", "Id")),
                        statement(&json!("sqs:SendMessage*"), &get_att("Unrouted", "Arn")),
                        statement(&json!("s3:PutObject"), &json!("${Payloads.Arn}/*")),
                    ],
                },
            }],
        })
    );
}

#[test]
fn the_role_may_send_to_each_queue_of_a_field_and_to_no_dead_letter_queue() {
    let keys = fields();
    for (key, _) in &keys {
        assert_eq!(
            *properties(&format!("QueueSend{key}")),
            json!({
                "PolicyName": format!("send-{key}"),
                "Roles": [{ "Ref": "Role" }],
                "PolicyDocument": {
                    "Version": "2012-10-17",
                    "Statement": [statement(&json!("sqs:SendMessage*"), &get_att(&format!("Queue{key}"), "Arn"))],
                },
            })
        );
    }

    assert_eq!(all("AWS::IAM::Policy").count(), keys.len());
}

#[test]
fn the_bucket_is_private_encrypted_and_only_for_tls() {
    let bucket = properties("Payloads");
    let encryption = &bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"];
    assert_eq!(*encryption, json!([{ "ServerSideEncryptionByDefault": { "SSEAlgorithm": "AES256" } }]));
    assert_eq!(bucket["OwnershipControls"], json!({ "Rules": [{ "ObjectOwnership": "BucketOwnerEnforced" }] }));
    let blocks = bucket["PublicAccessBlockConfiguration"].as_object().unwrap();
    assert_eq!((blocks.len(), blocks.values().all(|block| *block == true)), (4, true));

    assert_eq!(
        *properties("PayloadsPolicy"),
        json!({
            "Bucket": { "Ref": "Payloads" },
            "PolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [
                    only_tls(&json!("s3:*"), &json!([get_att("Payloads", "Arn"), "${Payloads.Arn}/*"])),
                ],
            },
        })
    );
}

#[test]
fn queues_are_only_for_tls_and_by_default_for_this_account() {
    for (key, _) in fields() {
        let queues = ["Queue", "QueueDead"].map(|kind| get_att(&format!("{kind}{key}"), "QueueUrl"));
        let statements = json!([only_tls(&json!("sqs:*"), &json!("*")), consume(&[OWN_ACCOUNT])]);
        assert_eq!(
            *properties(&format!("QueuePolicy{key}")),
            json!({ "Queues": queues, "PolicyDocument": { "Version": "2012-10-17", "Statement": statements } })
        );
    }
    let statements = &properties("UnroutedPolicy")["PolicyDocument"]["Statement"];
    assert_eq!(*statements, json!([only_tls(&json!("sqs:*"), &json!("*"))]));
    assert_eq!(properties("UnroutedPolicy")["Queues"], json!([get_att("Unrouted", "QueueUrl")]));
}

#[test]
fn a_consumer_of_every_field_is_in_every_policy_but_the_catch_alls_and_one_of_a_field_in_its_own() {
    let (everything, one, two) = ("arn:aws:iam::111122223333:root", "444455556666", "777788889999");
    let both = format!("Messages={one},{two}");
    let template = expand(&[
        &format!("Consumers={everything}"),
        &format!("FieldConsumers1={both}"),
        &format!("FieldConsumers5=MessagesStatuses={one}"),
    ]);
    let statements = |id: &str| template["Resources"][id]["Properties"]["PolicyDocument"]["Statement"].clone();
    for (key, _) in fields() {
        let expected = match key {
            "Messages" => consume(&[OWN_ACCOUNT, everything, one, two]),
            "MessagesStatuses" => consume(&[OWN_ACCOUNT, everything, one]),
            _ => consume(&[OWN_ACCOUNT, everything]),
        };
        assert_eq!(statements(&format!("QueuePolicy{key}"))[1], expected, "{key}");
    }
    assert_eq!(statements("UnroutedPolicy").as_array().unwrap().len(), 1);

    let read = |sid: &str, who: &[&str], prefix: &str| {
        json!({
            "Sid": sid,
            "Effect": "Allow",
            "Principal": { "AWS": who },
            "Action": ["s3:GetObject", "s3:DeleteObject"],
            "Resource": format!("${{Payloads.Arn}}/{prefix}*"),
        })
    };
    let not_the_catch_all = json!({
        "Sid": "NotTheCatchAll",
        "Effect": "Deny",
        "Principal": { "AWS": [everything] },
        "Action": "s3:*",
        "Resource": "${Payloads.Arn}/unrouted/*",
    });
    assert_eq!(
        statements("PayloadsPolicy").as_array().unwrap()[1..],
        [
            read("Consume", &[everything], ""),
            not_the_catch_all,
            read("Consume1", &[one, two], "messages/"),
            read("Consume5", &[one], "messages.statuses/"),
        ]
    );
}

#[test]
fn a_field_gets_a_fifo_queue_where_one_of_five_parameters_names_it_and_all_that_belongs_to_it_follows() {
    for place in 1..=5 {
        let template = expand(&[&format!("FifoField{place}=MessagesStatuses")]);
        let fifo = json!({
            "FifoQueue": true,
            "DeduplicationScope": "messageGroup",
            "FifoThroughputLimit": "perMessageGroupId",
            "MaximumMessageSize": 1_048_576,
        });
        let resources = template["Resources"].as_object().unwrap();
        for (id, name) in [("Fifo", "stack-messages-statuses.fifo"), ("FifoDead", "stack-messages-statuses-dead.fifo")]
        {
            let queue = &resources[&format!("{id}MessagesStatuses")]["Properties"];
            assert_eq!(queue["QueueName"], name);
            for (property, value) in fifo.as_object().unwrap() {
                assert_eq!(queue[property], *value, "{property}");
            }
        }
        let queue = &resources["FifoMessagesStatuses"]["Properties"];
        assert_eq!(queue["RedrivePolicy"]["deadLetterTargetArn"], get_att("FifoDeadMessagesStatuses", "Arn"));
        let sources = &resources["FifoDeadMessagesStatuses"]["Properties"]["RedriveAllowPolicy"]["sourceQueueArns"];
        assert_eq!(*sources, json!(["arn:aws:sqs:us-east-1:123456789012:stack-messages-statuses.fifo"]));
        let send = &resources["FifoSendMessagesStatuses"]["Properties"]["PolicyDocument"]["Statement"];
        assert_eq!(*send, json!([statement(&json!("sqs:SendMessage*"), &get_att("FifoMessagesStatuses", "Arn"))]));
        let urls = resources["Ingress"]["Properties"]["Environment"]["Variables"]["QUEUE_URLS"].as_str().unwrap();
        let urls: Value = serde_json::from_str(urls).unwrap();
        assert_eq!(urls["messages.statuses"], "stack-messages-statuses.fifo");
        assert_eq!(urls["messages"], "stack-messages");

        // Nothing is left of the other kind, nor has any other field changed its own.
        let ids: BTreeSet<&str> = resources.keys().map(|id| &**id).collect();
        let before: BTreeSet<&str> = TEMPLATE["Resources"].as_object().unwrap().keys().map(|id| &**id).collect();
        assert!(before.difference(&ids).all(|id| id.starts_with("Queue") && id.ends_with("MessagesStatuses")));
        assert!(ids.difference(&before).all(|id| id.starts_with("Fifo") && id.ends_with("MessagesStatuses")));
        assert_eq!(ids.len(), before.len());
        assert!(template["Outputs"]["FifoUrlMessagesStatuses"].is_object());
    }
}

#[test]
fn a_key_that_is_no_fields_is_refused() {
    for parameter in ["FifoField3=messages", "FieldConsumers2=messages=111122223333"] {
        assert!(!command(&[parameter]).output().unwrap().status.success(), "{parameter}");
    }
}

#[test]
fn a_body_outlives_every_message_that_points_to_it() {
    let rules = properties("Payloads")["LifecycleConfiguration"]["Rules"].as_array().unwrap();
    let days: Vec<u64> = rules.iter().filter_map(|rule| rule["ExpirationInDays"].as_u64()).collect();
    let [days] = days[..] else { panic!("{days:?}") };

    assert!(rules.iter().all(|rule| rule["Status"] == "Enabled"));
    assert!(days * 24 * 60 * 60 > FOUR_DAYS + FOURTEEN_DAYS);
}

#[test]
fn nothing_else_in_the_stack_grants_anything() {
    let granting =
        ["AWS::IAM::", "AWS::SQS::QueuePolicy", "AWS::SecretsManager::ResourcePolicy", "AWS::S3::BucketPolicy"];
    let resources = TEMPLATE["Resources"].as_object().unwrap();
    let kinds: BTreeSet<&str> = resources.values().map(|resource| resource["Type"].as_str().unwrap()).collect();
    let found: Vec<&str> =
        kinds.into_iter().filter(|kind| granting.iter().any(|prefix| kind.starts_with(prefix))).collect();

    assert_eq!(found, ["AWS::IAM::Policy", "AWS::IAM::Role", "AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"]);
    assert!(all("AWS::S3::BucketPolicy").all(|(id, _)| id == "PayloadsPolicy"));
    assert_eq!(all("AWS::SQS::QueuePolicy").count(), fields().len() + 1);
    assert_eq!(all("AWS::IAM::Role").count(), 1);
}

#[test]
fn the_function_is_the_binary_of_this_package_on_the_runtime_without_a_language() {
    let function = resource("Ingress");
    assert_eq!(
        function["Metadata"],
        json!({
            "BuildMethod": "rust-cargolambda",
            "BuildProperties": { "Binary": env!("CARGO_PKG_NAME") },
        })
    );

    let function = &function["Properties"];
    assert_eq!(function["Runtime"], "provided.al2023");
    assert_eq!(function["Handler"], "bootstrap");
    assert_eq!(function["MemorySize"], 512);
    assert_eq!(function["Timeout"], 10);
}

#[test]
fn the_function_is_told_of_its_secret_its_queues_and_its_bucket_and_nothing_else() {
    let variables = properties("Ingress")["Environment"]["Variables"].as_object().unwrap();

    assert_eq!(variables.len(), 3);
    assert_eq!(variables["PAYLOAD_BUCKET"], json!({ "Ref": "Payloads" }));
    assert!(variables.contains_key("QUEUE_URLS"));
    assert_eq!(variables["SECRET_ID"], get_att("Secret", "Id"));
}

#[test]
fn the_function_finds_aws_where_it_is_unless_a_parameter_says_another_place() {
    let endpoint = |template: &Value| {
        let variables = &template["Resources"]["Ingress"]["Properties"]["Environment"]["Variables"];
        variables.get("AWS_ENDPOINT_URL").cloned()
    };
    assert_eq!(TEMPLATE["Parameters"]["AwsEndpointUrl"]["Default"], "");
    assert_eq!(endpoint(&TEMPLATE), None);
    assert_eq!(endpoint(&expand(&["AwsEndpointUrl=http://localhost:1"])), Some(json!("http://localhost:1")));
}

#[test]
fn the_architecture_is_a_parameter_and_x86_64_unless_said() {
    let architectures = |template: &Value| template["Resources"]["Ingress"]["Properties"]["Architectures"].clone();

    assert_eq!(TEMPLATE["Parameters"]["Architecture"]["AllowedValues"], json!(["x86_64", "arm64"]));
    assert_eq!(architectures(&TEMPLATE), json!(["x86_64"]));
    assert_eq!(architectures(&expand(&["Architecture=arm64"])), json!(["arm64"]));
}

#[test]
fn the_function_writes_json_to_a_log_group_that_forgets() {
    let logging =
        |level| json!({ "LogGroup": { "Ref": "LogGroup" }, "LogFormat": "JSON", "ApplicationLogLevel": level });
    let levels = json!(["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]);
    assert_eq!(TEMPLATE["Parameters"]["LogLevel"]["AllowedValues"], levels);
    assert_eq!(properties("Ingress")["LoggingConfig"], logging("INFO"));
    let debugging = expand(&["LogLevel=DEBUG"]);
    assert_eq!(debugging["Resources"]["Ingress"]["Properties"]["LoggingConfig"], logging("DEBUG"));

    assert_eq!(*properties("LogGroup"), json!({ "LogGroupName": "/aws/lambda/stack", "RetentionInDays": 30 }));
}

#[test]
fn the_secret_has_a_verify_token_of_its_own_and_an_app_secret_that_the_function_refuses() {
    let generated = &properties("Secret")["GenerateSecretString"];
    assert_eq!(generated["GenerateStringKey"], "verify_token");
    assert_eq!(generated["PasswordLength"], 40);
    assert_eq!(generated["ExcludePunctuation"], true);

    let rest: Value = serde_json::from_str(generated["SecretStringTemplate"].as_str().unwrap()).unwrap();
    assert_eq!(rest, json!({ "app_secret": "REPLACE_ME" }));
}

#[test]
fn get_and_post_of_webhook_reach_the_function_and_nothing_else_does() {
    let integration = json!({
        "type": "aws_proxy",
        "httpMethod": "POST",
        "payloadFormatVersion": "2.0",
        "uri": { "Fn::Sub": "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${Ingress.Arn}/invocations" },
    });
    let operation = json!({ "x-amazon-apigateway-integration": integration, "responses": {} });
    assert_eq!(properties("Api")["Body"]["paths"], json!({ "/webhook": { "get": operation, "post": operation } }));
    assert_eq!(all("AWS::ApiGatewayV2::Api").count(), 1);

    let permission = |method: &str| {
        json!({
            "Action": "lambda:InvokeFunction",
            "FunctionName": { "Ref": "Ingress" },
            "Principal": "apigateway.amazonaws.com",
            "SourceArn": { "Fn::Sub": [
                format!("arn:${{AWS::Partition}}:execute-api:${{AWS::Region}}:${{AWS::AccountId}}:${{__ApiId__}}/${{__Stage__}}/{method}/webhook"),
                { "__ApiId__": { "Ref": "Api" }, "__Stage__": "*" },
            ] },
        })
    };
    let permissions: Vec<Value> = all("AWS::Lambda::Permission").map(|(_, permission)| permission.clone()).collect();
    assert_eq!(permissions, [permission("GET"), permission("POST")]);
}

#[test]
fn the_outputs_name_all_that_an_operator_or_a_consumer_needs() {
    let outputs = TEMPLATE["Outputs"].as_object().unwrap();
    let value = |id: &str| outputs.get(id).unwrap_or_else(|| panic!("there is no output {id}"))["Value"].clone();
    assert_eq!(value("CallbackUrl"), "${Api.ApiEndpoint}/webhook");
    assert_eq!(value("SecretArn"), get_att("Secret", "Id"));
    assert_eq!(value("FunctionName"), json!({ "Ref": "Ingress" }));
    assert_eq!(value("LogGroupName"), json!({ "Ref": "LogGroup" }));
    assert_eq!(value("PayloadBucket"), json!({ "Ref": "Payloads" }));
    assert_eq!(value("QueueUrlUnrouted"), get_att("Unrouted", "QueueUrl"));
    assert_eq!(value("QueueArnUnrouted"), get_att("Unrouted", "Arn"));

    for (key, _) in fields() {
        for kind in ["Queue", "QueueDead"] {
            let queue = format!("{kind}{key}");
            assert_eq!(value(&format!("{kind}Url{key}")), get_att(&queue, "QueueUrl"));
            assert_eq!(value(&format!("{kind}Arn{key}")), get_att(&queue, "Arn"));
        }
    }
}
