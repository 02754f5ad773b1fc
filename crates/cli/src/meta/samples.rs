//! Samples: whole events of API Gateway (HTTP API, payload format 2.0), one a file.

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

/// The app secret that the samples are signed with.
pub const APP_SECRET: &str = "test-app-secret-of-the-samples";
/// The verify token that the sample of the challenge carries.
pub const VERIFY_TOKEN: &str = "test-verify-token-of-the-samples";
/// What forged samples are signed with, whoever asks.
pub const FORGER_APP_SECRET: &str = "a-secret-that-meta-does-not-know";

/// The secrets of a function that is to take the samples as they are.
#[must_use]
pub fn secrets() -> EndpointSecrets {
    EndpointSecrets { app_secret: APP_SECRET.to_owned(), verify_token: VERIFY_TOKEN.to_owned() }
}

/// One event, as the file has it and taken apart.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The file's name without `.json`.
    pub name: String,
    /// Where it was read.
    pub path: PathBuf,
    /// The whole event as the file has it: what the function gets.
    pub text: String,
    /// The HTTP method.
    pub method: String,
    /// The query as it stands in the URL, without `?`.
    pub query: String,
    /// Header names in lower case, as API Gateway sends them.
    pub headers: BTreeMap<String, String>,
    /// The bytes that Meta sent: decoded where the event has them in base64.
    pub body: Vec<u8>,
}

/// Who signed a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// Meta, with the app secret.
    Meta,
    /// Somebody who does not have the app secret. The file's name starts with `forged`.
    Forger,
    /// Nobody: there is no signature header.
    Nobody,
}

/// Why samples could not be had.
#[derive(Debug, Error)]
pub enum SampleError {
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is no event.
    #[error("{} is no event of an HTTP API: {source}", path.display())]
    NoEvent {
        /// The file.
        path: PathBuf,
        /// What JSON says.
        source: serde_json::Error,
    },
    /// A body says that it is base64 and is not.
    #[error("the body in {} is no base64: {source}", path.display())]
    NoBase64 {
        /// The file.
        path: PathBuf,
        /// What base64 says.
        source: base64::DecodeError,
    },
    /// A folder has no sample.
    #[error("no samples in {}", .0.display())]
    None(PathBuf),
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
            return Err(SampleError::None(folder.to_owned()));
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

    /// Takes apart an event; its name comes from `path`, which is not read.
    pub fn from_text(path: &Path, text: String) -> Result<Self, SampleError> {
        let event: Event =
            serde_json::from_str(&text).map_err(|source| SampleError::NoEvent { path: path.to_owned(), source })?;
        let body = if event.is_base64_encoded {
            BASE64_STANDARD
                .decode(&event.body)
                .map_err(|source| SampleError::NoBase64 { path: path.to_owned(), source })?
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

    /// Says who signed it: by its name and the presence of the header, not by trying the signature.
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

    /// The value of one member of the query, decoded.
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
