//! `GetSecretValue` of Secrets Manager in the AWS JSON 1.1 protocol.

use crate::ids::{ACCOUNT, REGION, new_id};
use crate::response::ServiceResponse;
use crate::service_error::ServiceError;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::time::SystemTime;

/// All secrets by name.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    secrets: HashMap<String, Secret>,
}

#[derive(Debug)]
struct Secret {
    value: Value,
    version: String,
}

#[derive(Debug)]
enum Value {
    Text(String),
    Bytes(Vec<u8>),
}

impl Secrets {
    pub(crate) fn set_text(&mut self, name: &str, text: String) {
        self.set(name, Value::Text(text));
    }

    pub(crate) fn set_bytes(&mut self, name: &str, bytes: Vec<u8>) {
        self.set(name, Value::Bytes(bytes));
    }

    fn set(&mut self, name: &str, value: Value) {
        self.secrets.insert(name.to_owned(), Secret { value, version: new_id() });
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.secrets.remove(name);
    }
}

/// Returns the ARN of a secret.
pub(crate) fn arn(name: &str) -> String {
    format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-AbCdEf")
}

/// A well-formed call of `GetSecretValue`.
#[derive(Debug, Deserialize)]
pub(crate) struct GetSecretValueCall {
    #[serde(rename = "SecretId")]
    id: String,
}

impl GetSecretValueCall {
    pub(crate) fn parse(operation: &str, body: &[u8]) -> Result<Self, ServiceResponse> {
        if operation != "GetSecretValue" {
            return Err(json_error(400, "UnknownOperationException", "The fake supports only GetSecretValue."));
        }
        serde_json::from_slice(body).map_err(|cause| json_error(400, "SerializationException", &cause.to_string()))
    }

    pub(crate) fn execute(self, secrets: &Secrets) -> ServiceResponse {
        let secret = secrets.secrets.iter().find(|(name, _)| **name == self.id || arn(name) == self.id);
        let Some((name, secret)) = secret else {
            let message = "Secrets Manager can't find the specified secret.";
            return json_error(400, "ResourceNotFoundException", message);
        };
        let mut document = json!({
            "ARN": arn(name),
            "CreatedDate": SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64(),
            "Name": name,
            "VersionId": secret.version,
            "VersionStages": ["AWSCURRENT"],
        });
        match &secret.value {
            Value::Text(text) => document["SecretString"] = json!(text),
            Value::Bytes(bytes) => document["SecretBinary"] = json!(BASE64_STANDARD.encode(bytes)),
        }
        ServiceResponse::new(200, CONTENT_TYPE, document.to_string()).with_header("x-amzn-requestid", new_id())
    }
}

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// Makes the response of Secrets Manager for an error.
pub(crate) fn error_response(error: &ServiceError) -> ServiceResponse {
    match error {
        ServiceError::InternalError => json_error(500, "InternalServiceError", "An error occurred on the server side."),
        ServiceError::Unavailable => json_error(503, "ServiceUnavailable", "The service is unavailable."),
        ServiceError::Throttled => json_error(400, "ThrottlingException", "Rate exceeded"),
        ServiceError::AccessDenied => {
            json_error(400, "AccessDeniedException", "User is not authorized to perform: secretsmanager:GetSecretValue")
        }
        ServiceError::ResourceDoesNotExist => {
            json_error(400, "ResourceNotFoundException", "The secret does not exist.")
        }
        ServiceError::KmsDisabled => {
            json_error(400, "DecryptionFailure", "Secrets Manager can't decrypt the protected secret text.")
        }
        ServiceError::Other { status, code } => json_error(*status, code, "The test injected this error."),
    }
}

fn json_error(status: u16, code: &str, message: &str) -> ServiceResponse {
    let body = json!({ "__type": code, "Message": message }).to_string();
    ServiceResponse::new(status, CONTENT_TYPE, body).with_header("x-amzn-requestid", new_id())
}
