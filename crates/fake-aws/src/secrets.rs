//! Secrets Manager's `GetSecretValue`, in its JSON protocol 1.1.

use crate::answer::Answer;
use crate::failure::Failure;
use crate::ids::{ACCOUNT, REGION, new_id};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashMap;
use std::time::SystemTime;

/// All secrets, by name.
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

/// The ARN of a secret.
pub(crate) fn arn(name: &str) -> String {
    format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-AbCdEf")
}

/// A reading of one secret.
#[derive(Debug, Deserialize)]
pub(crate) struct Get {
    #[serde(rename = "SecretId")]
    id: String,
}

impl Get {
    pub(crate) fn read(operation: &str, body: &[u8]) -> Result<Self, Answer> {
        if operation != "GetSecretValue" {
            return Err(error(400, "UnknownOperationException", "The fake knows GetSecretValue only."));
        }
        serde_json::from_slice(body).map_err(|cause| error(400, "SerializationException", &cause.to_string()))
    }

    pub(crate) fn act(self, secrets: &Secrets) -> Answer {
        let found = secrets.secrets.iter().find(|(name, _)| **name == self.id || arn(name) == self.id);
        let Some((name, secret)) = found else {
            let message = "Secrets Manager can't find the specified secret.";
            return error(400, "ResourceNotFoundException", message);
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
        Answer::new(200, CONTENT_TYPE, document.to_string()).header("x-amzn-requestid", new_id())
    }
}

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// A failure of the whole call in this service's words.
pub(crate) fn failure(failure: &Failure) -> Answer {
    match failure {
        Failure::InternalError => error(500, "InternalServiceError", "An error occurred on the server side."),
        Failure::Unavailable => error(503, "ServiceUnavailable", "The service is unavailable."),
        Failure::Throttled => error(400, "ThrottlingException", "Rate exceeded"),
        Failure::AccessDenied => {
            error(400, "AccessDeniedException", "User is not authorized to perform: secretsmanager:GetSecretValue")
        }
        Failure::QueueDoesNotExist => error(400, "ResourceNotFoundException", "There is no such secret."),
        Failure::KmsDisabled => {
            error(400, "DecryptionFailure", "Secrets Manager can't decrypt the protected secret text.")
        }
        Failure::Other { status, code } => error(*status, code, "The test asked for this error."),
    }
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    let body = json!({ "__type": code, "Message": message }).to_string();
    Answer::new(status, CONTENT_TYPE, body).header("x-amzn-requestid", new_id())
}
