//! Samples: files with one event of API Gateway each (HTTP API, payload format 2.0).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use thiserror::Error;
use whatsapp_webhook::signature;

use crate::endpoint_secrets::EndpointSecrets;

/// The app secret of the samples' signatures.
pub const APP_SECRET: &str = "test-app-secret-of-the-samples";
/// The verify token of the sample of a verification request.
pub const VERIFY_TOKEN: &str = "test-verify-token-of-the-samples";
/// The app secret of the forged samples' signatures, whatever the secret of the endpoint is.
pub const FORGER_APP_SECRET: &str = "a-secret-that-meta-does-not-know";

/// Returns the secrets of a function that accepts the unchanged samples.
#[must_use]
pub fn secrets() -> EndpointSecrets {
    EndpointSecrets { app_secret: APP_SECRET.to_owned(), verify_token: VERIFY_TOKEN.to_owned() }
}

/// One event.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The file's name without `.json`.
    pub name: String,
    /// The path of the file.
    pub path: PathBuf,
    /// The unchanged event of the file, which is the input of the function.
    pub text: String,
    /// The HTTP method.
    pub method: String,
    /// The query string as in the URL, without `?`.
    pub query: String,
    /// Header names in lower case, as API Gateway sends them.
    pub headers: BTreeMap<String, String>,
    /// The bytes that Meta sent, decoded if the event contains them in base64.
    pub body: Vec<u8>,
}

/// The signer of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// Meta, with the app secret.
    Meta,
    /// An attacker without the app secret. The file's name starts with `forged`.
    Forger,
    /// Nobody: there is no signature header.
    Nobody,
}

/// Samples that cannot be read.
#[derive(Debug, Error)]
pub enum SampleError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file is not an event.
    #[error("{} is not an event of an HTTP API: {source}", path.display())]
    InvalidEvent {
        /// The file.
        path: PathBuf,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// The event declares its body as base64, which it is not.
    #[error("the body in {} is not base64: {source}", path.display())]
    InvalidBase64 {
        /// The file.
        path: PathBuf,
        /// The error of the decoder.
        source: base64::DecodeError,
    },
    /// A folder contains no sample.
    #[error("no samples in {}", .0.display())]
    NoSamples(PathBuf),
}

impl Sample {
    /// Reads every `*.json` of a folder, in the order of their names.
    pub fn load_all(folder: &Path) -> Result<Vec<Self>, SampleError> {
        let unreadable = |source| SampleError::Unreadable { path: folder.to_owned(), source };
        let mut paths = Vec::new();
        for file in fs::read_dir(folder).map_err(unreadable)? {
            let path = file.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Err(SampleError::NoSamples(folder.to_owned()));
        }
        paths.sort_by(|one, other| one.file_stem().cmp(&other.file_stem()));
        paths.iter().map(|path| Self::load(path)).collect()
    }

    /// Reads one file.
    pub fn load(path: &Path) -> Result<Self, SampleError> {
        let text =
            fs::read_to_string(path).map_err(|source| SampleError::Unreadable { path: path.to_owned(), source })?;
        Self::from_text(path, text)
    }

    /// Reads the body of a notification, which [`Signer::Meta`] signs.
    pub fn load_body(path: &Path) -> Result<Self, SampleError> {
        let body = fs::read(path).map_err(|source| SampleError::Unreadable { path: path.to_owned(), source })?;
        let headers = [("accept", "*/*"), ("content-type", "application/json"), (signature::HEADER, "")];
        Ok(Self {
            // Unlike a sample, its name does not choose the signer.
            name: format!("body {}", path.display()),
            path: path.to_owned(),
            text: String::new(),
            method: "POST".to_owned(),
            query: String::new(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            body,
        })
    }

    /// Parses an event. `path` gives the sample its name and is not read.
    pub fn from_text(path: &Path, text: String) -> Result<Self, SampleError> {
        let event: Event = serde_json::from_str(&text)
            .map_err(|source| SampleError::InvalidEvent { path: path.to_owned(), source })?;
        let body = if event.is_base64_encoded {
            BASE64_STANDARD
                .decode(&event.body)
                .map_err(|source| SampleError::InvalidBase64 { path: path.to_owned(), source })?
        } else {
            event.body.into_bytes()
        };
        Ok(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            path: path.to_owned(),
            method: event.request_context.http.method,
            query: event.raw_query_string,
            headers: event.headers,
            body,
            text,
        })
    }

    /// Returns the signer by the sample's name and the presence of the header, without a check of the signature.
    #[must_use]
    pub fn signer(&self) -> Signer {
        if !self.headers.contains_key(signature::HEADER) {
            Signer::Nobody
        } else if self.name.starts_with("forged") {
            Signer::Forger
        } else {
            Signer::Meta
        }
    }

    /// Returns the decoded value of a query parameter.
    #[must_use]
    pub fn query_value(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    raw_query_string: String,
    headers: BTreeMap<String, String>,
    request_context: RequestContext,
    #[serde(default)]
    body: String,
    is_base64_encoded: bool,
}

#[derive(Deserialize)]
struct RequestContext {
    http: Http,
}

#[derive(Deserialize)]
struct Http {
    method: String,
}
