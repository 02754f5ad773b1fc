//! What `template.yaml` deploys: the wiring from the callback URL to the queues, and what the function may do.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

#[path = "alarms.rs"]
mod alarms;

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
    assert!(python.exists(), "{} is missing: install the tools of infra/requirements.txt into .venv", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("infra/expand_template.py"));
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
        assert_eq!(queue.get("KmsMasterKeyId"), None, "{id}");
        assert_eq!(queue["MaximumMessageSize"], 1_048_576, "{id}");
    }
}

#[test]
fn a_key_of_the_account_encrypts_queues_bucket_and_secret_and_the_role_may_use_it() {
    let template = expand(&["CustomerKey=true", "Consumers=111122223333", "FieldConsumers2=Messages=444455556666"]);
    let resources = template["Resources"].as_object().unwrap();
    let key = get_att("Key", "Arn");
    for (id, queue) in resources.iter().filter(|(_, resource)| resource["Type"] == "AWS::SQS::Queue") {
        assert_eq!(queue["Properties"]["KmsMasterKeyId"], key, "{id}");
        assert_eq!(queue["Properties"].get("SqsManagedSseEnabled"), None, "{id}");
    }
    assert_eq!(resources["Secret"]["Properties"]["KmsKeyId"], key);
    assert_eq!(
        resources["Payloads"]["Properties"]["BucketEncryption"]["ServerSideEncryptionConfiguration"],
        json!([{
            "ServerSideEncryptionByDefault": { "SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key },
            "BucketKeyEnabled": true,
        }])
    );
    let role = &resources["Role"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"];
    assert!(role.as_array().unwrap().contains(&statement(&json!(["kms:GenerateDataKey", "kms:Decrypt"]), &key)));

    assert_eq!(resources["Key"]["DeletionPolicy"], "Retain");
    assert_eq!(resources["Key"]["UpdateReplacePolicy"], "Retain");
    assert_eq!(resources["Key"]["Properties"]["EnableKeyRotation"], true);
    let statements = resources["Key"]["Properties"]["KeyPolicy"]["Statement"].as_array().unwrap();
    assert_eq!(statements.len(), 2);
    assert_eq!(statements[0]["Principal"]["AWS"], OWN_ACCOUNT);
    assert_eq!(statements[1]["Principal"]["AWS"], json!([OWN_ACCOUNT, "111122223333", "444455556666"]));
    assert_eq!(statements[1]["Action"], "kms:Decrypt");
    let services = ["sqs.us-east-1.amazonaws.com", "s3.us-east-1.amazonaws.com"];
    assert_eq!(statements[1]["Condition"], json!({ "StringEquals": { "kms:ViaService": services } }));
}

#[test]
fn queues_bucket_and_secret_outlive_the_stack_and_stay_open_to_those_who_read_them() {
    let [queues, policies] = ["AWS::SQS::Queue", "AWS::SQS::QueuePolicy"].map(|of| all(of).map(|(id, _)| id));
    for id in queues.chain(policies).chain(["Payloads", "PayloadsPolicy", "Secret"]) {
        assert_eq!(resource(id)["DeletionPolicy"], "Retain", "{id}");
        assert_eq!(resource(id)["UpdateReplacePolicy"], "Retain", "{id}");
    }
}

#[test]
fn the_role_is_the_functions_alone_and_carries_five_statements() {
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
                        put_object(),
                        statement(&json!(["xray:PutTraceSegments", "xray:PutTelemetryRecords"]), &json!("*")),
                    ],
                },
            }],
        })
    );
}

fn put_object() -> Value {
    let mut statement = statement(&json!("s3:PutObject"), &json!("${Payloads.Arn}/*"));
    statement["Condition"] = json!({ "StringEquals": { "aws:ResourceAccount": "123456789012" } });
    statement
}

#[test]
fn the_role_may_send_to_each_queue_of_a_field_and_to_no_dead_letter_queue() {
    let keys = fields();
    for (key, _) in &keys {
        assert_eq!(
            *properties(&format!("QueueSend{key}")),
            json!({
                "PolicyName": format!("send-Queue-{key}"),
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
    let but_the_catch_all = json!({
        "Sid": "Consume",
        "Effect": "Allow",
        "Principal": { "AWS": [everything] },
        "Action": ["s3:GetObject", "s3:DeleteObject"],
        "NotResource": "${Payloads.Arn}/unrouted/*",
    });
    assert_eq!(
        statements("PayloadsPolicy").as_array().unwrap()[1..],
        [but_the_catch_all, read("Consume1", &[one, two], "messages/"), read("Consume5", &[one], "messages.statuses/"),]
    );
}

#[test]
fn a_field_gets_a_fifo_queue_where_one_of_five_parameters_names_it_and_all_that_belongs_to_it_follows() {
    let asked = ["Security", "Messages", "AccountUpdate", "MessagesStatuses", "PhoneNumberNameUpdate"];
    let parameters: Vec<String> = (1..).zip(asked).map(|(place, key)| format!("FifoField{place}={key}")).collect();
    let template = expand(&parameters.iter().map(|parameter| &**parameter).collect::<Vec<_>>());
    let resources = template["Resources"].as_object().unwrap();
    let urls = resources["Ingress"]["Properties"]["Environment"]["Variables"]["QUEUE_URLS"].as_str().unwrap();
    let urls: Value = serde_json::from_str(urls).unwrap();
    let fifo = json!({
        "FifoQueue": true,
        "DeduplicationScope": "messageGroup",
        "FifoThroughputLimit": "perMessageGroupId",
        "MaximumMessageSize": 1_048_576,
    });
    for (key, name) in fields() {
        let route = name.replace('-', ".");
        if !asked.contains(&key) {
            assert_eq!(urls[route], format!("stack-{name}"));
            for id in ["Queue", "QueueDead", "QueueSend", "QueuePolicy", "QueueLate", "QueueLetters"] {
                let id = format!("{id}{key}");
                assert_eq!(resources[&id], TEMPLATE["Resources"][&id], "{id}");
            }
            continue;
        }
        assert_eq!(urls[route], format!("stack-{name}.fifo"));
        let made = |id: &str| &resources[&format!("{id}{key}")]["Properties"];
        for (id, name) in [("Fifo", format!("stack-{name}.fifo")), ("FifoDead", format!("stack-{name}-dead.fifo"))] {
            assert_eq!(made(id)["QueueName"], name);
            for (property, value) in fifo.as_object().unwrap() {
                assert_eq!(made(id)[property], *value, "{property}");
            }
        }
        assert_eq!(made("Fifo")["RedrivePolicy"]["deadLetterTargetArn"], get_att(&format!("FifoDead{key}"), "Arn"));
        let sources = &made("FifoDead")["RedriveAllowPolicy"]["sourceQueueArns"];
        assert_eq!(*sources, json!([format!("arn:aws:sqs:us-east-1:123456789012:stack-{name}.fifo")]));
        let queue = get_att(&format!("Fifo{key}"), "Arn");
        let send = &made("FifoSend")["PolicyDocument"]["Statement"];
        assert_eq!(*send, json!([statement(&json!("sqs:SendMessage*"), &queue)]));
        assert_eq!(template["Outputs"][&format!("FifoArn{key}")]["Value"], queue);
        // What has a name of its own is not that of the other kind, which goes only when this has come.
        assert_eq!(made("FifoSend")["PolicyName"], format!("send-Fifo-{key}"));
        assert_eq!(made("FifoLate")["AlarmName"], format!("stack-{name}.fifo-late"));
        assert_eq!(made("FifoLetters")["AlarmName"], format!("stack-{name}.fifo-dead-letters"));
        let alarm = json!([{ "Name": "QueueName", "Value": get_att(&format!("Fifo{key}"), "QueueName") }]);
        assert_eq!(made("FifoLate")["Dimensions"], alarm);
        assert!(resources.keys().all(|id| !(id.starts_with("Queue") && id.ends_with(key)) || key == "Messages"));
        assert!(!resources.contains_key(&format!("Queue{key}")));
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
fn the_function_is_told_of_its_secret_its_queues_and_its_bucket_and_its_allocator_what_to_keep() {
    let variables = properties("Ingress")["Environment"]["Variables"].as_object().unwrap();

    assert_eq!(variables.len(), 5);
    assert_eq!(variables["MALLOC_MMAP_THRESHOLD_"], "8388608");
    assert_eq!(variables["MALLOC_TRIM_THRESHOLD_"], "33554432");
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
        "uri": { "Fn::Sub": "arn:${AWS::Partition}:apigateway:${AWS::Region}:lambda:path/2015-03-31/functions/${IngressAliaslive}/invocations" },
    });
    let operation = json!({ "x-amazon-apigateway-integration": integration, "responses": {} });
    assert_eq!(properties("Api")["Body"]["paths"], json!({ "/webhook": { "get": operation, "post": operation } }));
    assert_eq!(all("AWS::ApiGatewayV2::Api").count(), 1);

    let permission = |method: &str| {
        json!({
            "Action": "lambda:InvokeFunction",
            "FunctionName": { "Ref": "IngressAliaslive" },
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
fn the_log_of_the_api_is_apart_from_the_functions_and_has_no_query_string() {
    let settings = &properties("ApiApiGatewayDefaultStage")["AccessLogSettings"];
    assert_eq!(settings["DestinationArn"], get_att("AccessLog", "Arn"));
    assert_eq!(*properties("AccessLog"), json!({ "LogGroupName": "/aws/apigateway/stack", "RetentionInDays": 30 }));

    let format: Value = serde_json::from_str(settings["Format"].as_str().unwrap()).unwrap();
    assert_eq!(format["requestId"], "$context.requestId");
    // What has the query string, or headers and body of a request, in it.
    let telling = ["query", "rawPath", "requestOverride", "authorizer", "header", "body"];
    for value in format.as_object().unwrap().values().map(|value| value.as_str().unwrap()) {
        assert!(value.starts_with("$context.") && !telling.iter().any(|word| value.contains(word)), "{value}");
    }
}

#[test]
fn the_function_is_traced() {
    assert_eq!(properties("Ingress")["TracingConfig"], json!({ "Mode": "Active" }));
}

#[test]
fn every_parameter_that_changes_the_function_is_published_as_a_version() {
    // A version of another description is another version.
    let version = |parameters: &[&str]| {
        let template = expand(parameters);
        let resources = template["Resources"].as_object().unwrap();
        let (id, version) = resources.iter().find(|(_, resource)| resource["Type"] == "AWS::Lambda::Version").unwrap();
        assert_eq!(resources["IngressAliaslive"]["Properties"]["FunctionVersion"], get_att(id, "Version"));
        version["Properties"]["Description"].as_str().unwrap().to_owned()
    };
    let asked = ["Security", "Messages", "AccountUpdate", "MessagesStatuses", "PhoneNumberNameUpdate"];
    let fifo: Vec<String> = (1..).zip(asked).map(|(place, key)| format!("FifoField{place}={key}")).collect();
    let fifo: Vec<&str> = fifo.iter().map(|parameter| &**parameter).collect();
    let descriptions = [
        version(&[]),
        version(&fifo),
        version(&["LogLevel=DEBUG", "AwsEndpointUrl=http://localhost:1"]),
        version(&["DomainName=a.example.com", "TruststoreUri=s3://b/k"]),
    ];
    for (description, told) in descriptions.iter().zip([
        &["INFO", "anyone"][..],
        &asked,
        &["DEBUG", "http://localhost:1"],
        &["client.webhooks"],
    ]) {
        assert!(told.iter().all(|word| description.contains(word)), "{description}");
        assert!(description.len() <= 256, "{description}");
    }
}

#[test]
fn a_canary_rolls_back_when_the_new_version_fails_and_for_nothing_that_others_do() {
    assert_eq!(all("AWS::CodeDeploy::DeploymentGroup").count(), 0);
    assert_eq!(resource("IngressAliaslive").get("UpdatePolicy"), None);

    let template = expand(&["Canary=true"]);
    let group = &template["Resources"]["IngressDeploymentGroup"]["Properties"];
    let alarms = ["FunctionFailing", "NotStored"].map(|alarm| json!({ "Name": { "Ref": alarm } }));
    assert_eq!(group["AlarmConfiguration"], json!({ "Enabled": true, "Alarms": alarms }));
    assert_eq!(group["AutoRollbackConfiguration"]["Enabled"], true);
    let events = group["AutoRollbackConfiguration"]["Events"].as_array().unwrap();
    assert!(events.contains(&json!("DEPLOYMENT_STOP_ON_ALARM")));
    assert_eq!(group["DeploymentConfigName"]["Fn::Sub"][1]["ConfigName"], "Canary10Percent5Minutes");
    assert_eq!(
        template["Resources"]["IngressAliaslive"]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]["DeploymentGroupName"],
        json!({ "Ref": "IngressDeploymentGroup" })
    );
}

#[test]
fn a_name_of_ones_own_takes_the_place_of_api_gateways() {
    let (name, certificate) = ("hooks.example.com", "arn:aws:acm:us-east-1:123456789012:certificate/c");
    let domain = [&*format!("DomainName={name}"), &*format!("CertificateArn={certificate}")];
    let template = expand(&domain);
    let resources = &template["Resources"];
    assert_eq!(
        resources["Domain"]["Properties"],
        json!({
            "DomainName": name,
            "DomainNameConfigurations": [
                { "CertificateArn": certificate, "EndpointType": "REGIONAL", "SecurityPolicy": "TLS_1_2" },
            ],
        })
    );
    assert_eq!(
        resources["DomainMapping"]["Properties"],
        json!({
            "ApiId": { "Ref": "Api" },
            "DomainName": { "Ref": "Domain" },
            "Stage": { "Ref": "ApiApiGatewayDefaultStage" },
        })
    );
    assert_eq!(template["Outputs"]["CallbackUrl"]["Value"], format!("https://{name}/webhook"));
    for id in ["Domain", "DomainMapping"] {
        assert!(TEMPLATE["Resources"].get(id).is_none(), "{id}");
    }
}

#[test]
fn client_certificates_are_asked_for_and_api_gateways_own_name_no_longer_answers() {
    let disabled = |template: &Value| {
        let servers = &template["Resources"]["Api"]["Properties"]["Body"]["servers"];
        servers[0]["x-amazon-apigateway-endpoint-configuration"]["disableExecuteApiEndpoint"].clone()
    };
    let name = |template: &Value| {
        let variables = &template["Resources"]["Ingress"]["Properties"]["Environment"]["Variables"];
        variables.get("CLIENT_CERTIFICATE_CN").cloned()
    };
    assert_eq!((disabled(&TEMPLATE), name(&TEMPLATE)), (json!(false), None));
    // A truststore is of no use without a name, and would leave no way in.
    let nowhere = expand(&["TruststoreUri=s3://b/k"]);
    assert_eq!((disabled(&nowhere), name(&nowhere)), (json!(false), None));

    let template = expand(&["DomainName=hooks.example.com", "TruststoreUri=s3://b/k"]);
    let domain = &template["Resources"]["Domain"]["Properties"];
    assert_eq!(domain["MutualTlsAuthentication"], json!({ "TruststoreUri": "s3://b/k" }));
    let meta = json!("client.webhooks.fbclientcerts.com");
    assert_eq!((disabled(&template), name(&template)), (json!(true), Some(meta)));
}

#[test]
fn concurrency_and_requests_are_limited_where_a_parameter_says_so_and_only_there() {
    let limits = |template: &Value| template["Resources"]["ApiApiGatewayDefaultStage"]["Properties"].clone();
    assert_eq!(properties("Ingress").get("ReservedConcurrentExecutions"), None);
    assert_eq!(limits(&TEMPLATE)["DefaultRouteSettings"], json!({}));

    let template = expand(&["ReservedConcurrency=50", "RouteRateLimit=9000"]);
    assert_eq!(template["Resources"]["Ingress"]["Properties"]["ReservedConcurrentExecutions"], "50");
    let settings = json!({ "ThrottlingRateLimit": "9000", "ThrottlingBurstLimit": 5000 });
    assert_eq!(limits(&template)["DefaultRouteSettings"], settings);
}

/// Metric, statistic, comparison and threshold of the alarm with a name, after the stack's.
fn alarm<'t>(template: &'t Value, name: &str) -> &'t Value {
    let name = format!("stack-{name}");
    let resources = template["Resources"].as_object().unwrap().values();
    let mut alarms = resources.filter(|resource| {
        resource["Type"] == "AWS::CloudWatch::Alarm" && resource["Properties"]["AlarmName"] == *name
    });
    let alarm = alarms.next().unwrap_or_else(|| panic!("there is no alarm {name}"));
    assert!(alarms.next().is_none(), "{name}");
    &alarm["Properties"]
}

#[test]
fn there_is_an_alarm_for_all_that_needs_a_person() {
    let api = json!([{ "Name": "ApiId", "Value": { "Ref": "Api" } }]);
    let function = json!([{ "Name": "FunctionName", "Value": { "Ref": "Ingress" } }]);
    let catch_all = json!([{ "Name": "QueueName", "Value": get_att("Unrouted", "QueueName") }]);
    let (over, from) = ("GreaterThanThreshold", "GreaterThanOrEqualToThreshold");
    let mut names = BTreeSet::new();
    for (name, namespace, metric, dimensions, statistic, comparison, threshold) in [
        ("api-failing", "AWS/ApiGateway", "5xx", &api, "Sum", from, 1),
        ("api-throttled", "WhatsAppIngress", "ThrottledRequests", &api, "Sum", from, 1),
        ("api-not-found", "WhatsAppIngress", "NotFoundPosts", &api, "Sum", from, 1),
        ("api-slow", "AWS/ApiGateway", "Latency", &api, "p50", over, 250),
        ("api-very-slow", "AWS/ApiGateway", "Latency", &api, "p99", over, 1000),
        ("function-failing", "AWS/Lambda", "Errors", &function, "Sum", from, 1),
        ("function-throttled", "AWS/Lambda", "Throttles", &function, "Sum", from, 1),
        ("not-stored", "WhatsAppIngress", "NotStored", &function, "Sum", from, 1),
        ("diverted", "WhatsAppIngress", "Diverted", &function, "Sum", from, 1),
        ("unrouted", "WhatsAppIngress", "Unrouted", &function, "Sum", from, 1),
        ("catch-all-not-empty", "AWS/SQS", "ApproximateNumberOfMessagesVisible", &catch_all, "Minimum", from, 1),
        ("refused-signatures", "WhatsAppIngress", "RefusedSignatures", &function, "Sum", from, 10),
        ("signature-mismatches", "WhatsAppIngress", "SignatureMatches", &function, "Maximum", "LessThanThreshold", 1),
        ("refused-certificates", "WhatsAppIngress", "RefusedCertificates", &function, "Sum", from, 1),
        ("secret-failures", "WhatsAppIngress", "SecretFailures", &function, "Sum", from, 1),
    ] {
        let alarm = alarm(&TEMPLATE, name);
        names.insert(format!("stack-{name}"));
        assert_eq!((&alarm["Namespace"], &alarm["MetricName"]), (&json!(namespace), &json!(metric)), "{name}");
        assert_eq!(alarm["Dimensions"], *dimensions, "{name}");
        let kind = if statistic.starts_with('p') { "ExtendedStatistic" } else { "Statistic" };
        assert_eq!(alarm[kind], statistic, "{name}");
        assert_eq!(
            (&alarm["ComparisonOperator"], &alarm["Threshold"]),
            (&json!(comparison), &json!(threshold)),
            "{name}"
        );
        // Zero counts are not sent.
        assert_eq!(alarm["TreatMissingData"], "notBreaching", "{name}");
    }

    for (key, name) in fields() {
        for (suffix, queue, metric, threshold) in [
            ("late", "Queue", "ApproximateAgeOfOldestMessage", 3600),
            ("dead-letters", "QueueDead", "ApproximateNumberOfMessagesVisible", 1),
        ] {
            let alarm = alarm(&TEMPLATE, &format!("{name}-{suffix}"));
            names.insert(format!("stack-{name}-{suffix}"));
            assert_eq!((&alarm["Namespace"], &alarm["MetricName"]), (&json!("AWS/SQS"), &json!(metric)));
            let queue = get_att(&format!("{queue}{key}"), "QueueName");
            assert_eq!(alarm["Dimensions"], json!([{ "Name": "QueueName", "Value": queue }]));
            assert_eq!((&alarm["Statistic"], &alarm["Threshold"]), (&json!("Maximum"), &json!(threshold)));
        }
    }
    let found: BTreeSet<String> =
        all("AWS::CloudWatch::Alarm").map(|(_, alarm)| alarm["AlarmName"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, names);
}

#[test]
fn silence_is_an_alarm_after_the_time_that_a_parameter_says() {
    let template = expand(&["SilenceSeconds=900"]);
    let alarm = alarm(&template, "silence");
    assert_eq!((&alarm["MetricName"], &alarm["Statistic"]), (&json!("Notifications"), &json!("Sum")));
    assert_eq!((&alarm["ComparisonOperator"], &alarm["Threshold"]), (&json!("LessThanThreshold"), &json!(1)));
    assert_eq!((&alarm["Period"], &alarm["EvaluationPeriods"]), (&json!("900"), &json!(1)));
    assert_eq!(alarm["TreatMissingData"], "breaching");
}

#[test]
fn every_alarm_tells_the_topic_that_a_parameter_names() {
    let template = expand(&["AlarmTopic=arn:aws:sns:us-east-1:123456789012:t", "SilenceSeconds=900"]);
    let alarms = template["Resources"].as_object().unwrap().values();
    let alarms: Vec<&Value> = alarms.filter(|resource| resource["Type"] == "AWS::CloudWatch::Alarm").collect();
    assert!(alarms.len() > 12);
    for alarm in alarms {
        for action in ["AlarmActions", "OKActions"] {
            assert_eq!(alarm["Properties"][action], json!(["arn:aws:sns:us-east-1:123456789012:t"]));
        }
    }
    for (id, alarm) in all("AWS::CloudWatch::Alarm") {
        assert_eq!((alarm.get("AlarmActions"), alarm.get("OKActions")), (None, None), "{id}");
    }
}

#[test]
fn the_dashboard_is_json_and_shows_every_metric_that_an_alarm_looks_at() {
    let body = properties("Dashboard")["DashboardBody"].as_str().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let text = body.to_string();
    for (id, alarm) in all("AWS::CloudWatch::Alarm") {
        let metric = alarm["MetricName"].as_str().unwrap();
        assert!(text.contains(&format!("\"{metric}\"")) || text.contains(&format!("MetricName=\\\"{metric}")), "{id}");
    }
    for widget in body["widgets"].as_array().unwrap() {
        assert!(widget["x"].as_u64().unwrap() + widget["width"].as_u64().unwrap() <= 24);
    }
}

#[test]
fn thirty_five_fields_are_within_what_lambda_and_cloudformation_allow() {
    // The longest stack name that leaves room for the longest queue name in SQS's 80 characters.
    let fields = META_FIELDS.map(|field| field.replace('.', "-"));
    let longest = fields.iter().map(String::len).max().unwrap();
    let stack = "s".repeat(80 - longest - "--dead.fifo".len());
    let urls = fields.iter().zip(META_FIELDS).map(|(name, field)| format!(",\"{field}\":\"{stack}-{name}.fifo\""));
    let unrouted = format!("https://sqs.ap-southeast-1.amazonaws.com/123456789012/{stack}-unrouted");
    let variables = [
        ("QUEUE_URLS", format!("{{\"*\":\"{unrouted}\"{}}}", urls.collect::<String>())),
        ("SECRET_ID", format!("arn:aws:secretsmanager:ap-southeast-1:123456789012:secret:{}-123456", "s".repeat(64))),
        ("PAYLOAD_BUCKET", "b".repeat(63)),
        ("CLIENT_CERTIFICATE_CN", "client.webhooks.fbclientcerts.com".to_owned()),
        ("MALLOC_MMAP_THRESHOLD_", "8388608".to_owned()),
        ("MALLOC_TRIM_THRESHOLD_", "33554432".to_owned()),
    ];
    let names: BTreeSet<&str> = variables.iter().map(|(name, _)| *name).collect();
    let template = expand(&["DomainName=hooks.example.com", "TruststoreUri=s3://b/k"]);
    let told = template["Resources"]["Ingress"]["Properties"]["Environment"]["Variables"].as_object().unwrap();
    assert_eq!(told.keys().map(|name| &**name).collect::<BTreeSet<_>>(), names);
    let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(bytes <= 4096, "{bytes} bytes of environment, with a stack name of {}", stack.len());

    let (mine, count) = (fields_of_the_template(), META_FIELDS.len());
    let all_with = expand(&["Canary=true", "CustomerKey=true", "DomainName=a.example.com", "SilenceSeconds=300"]);
    let grows = |section: &str, most: usize| {
        let ids = all_with[section].as_object().unwrap();
        let of_fields = ids.keys().filter(|id| mine.iter().any(|key| id.ends_with(key))).count();
        let expected = ids.len() - of_fields + of_fields / mine.len() * count;
        assert!(expected <= most, "{expected} {section}");
    };
    grows("Resources", 500);
    grows("Outputs", 200);
}

fn fields_of_the_template() -> Vec<&'static str> {
    fields().into_iter().map(|(key, _)| key).collect()
}

/// Those that Meta documents or has been seen to send, and the receipts.
const META_FIELDS: [&str; 36] = [
    "account_alerts",
    "account_review_update",
    "account_settings_update",
    "account_update",
    "automatic_events",
    "business_capability_update",
    "business_status_update",
    "business_username_updates",
    "calls",
    "consumer_profile",
    "flows",
    "group_lifecycle_update",
    "group_participants_update",
    "group_settings_update",
    "group_status_update",
    "history",
    "message_echoes",
    "message_template_components_update",
    "message_template_quality_update",
    "message_template_status_update",
    "messages",
    "messages.statuses",
    "messaging_handovers",
    "partner_solutions",
    "payment_configuration_update",
    "phone_number_name_update",
    "phone_number_quality_update",
    "security",
    "smb_app_state_sync",
    "smb_message_echoes",
    "standby",
    "template_category_update",
    "template_correct_category_detection",
    "tracking_events",
    "user_id_update",
    "user_preferences",
];

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
