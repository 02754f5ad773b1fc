//! The form of an archived notification: one line of JSON, the header, and then the body as received.
//!
//! The header has the signature, with which the body can be verified again. The object in S3 is compressed with gzip, so that
//! `zcat` prints both.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The prefix of the keys of all archived notifications.
pub const PREFIX: &str = "archive/";

/// The data of a request that the archive keeps in addition to the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveHeader {
    /// The time of receipt in UTC, in the form `2026-01-02T03:04:05.678Z`.
    pub received: String,
    /// API Gateway's id of the request.
    pub request_id: String,
    /// The X-Ray tracing header, if the trace was sampled, see [`trace::header`](crate::trace::header).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The value of the header [`signature::HEADER`](crate::signature::HEADER).
    pub signature: String,
    /// The time when a person's data was erased from the body, in the form of `received`. The command line then changed the body
    /// and signed it with the current app secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<String>,
}

/// The time of receipt does not have the expected form, or an object is not an archived notification.
#[derive(Debug, Error)]
#[error("not an archived notification")]
pub struct ArchiveError;

impl ArchiveHeader {
    /// The key of the notification's object, `archive/<yyyy>/<mm>/<dd>/<hh>/<time>-<request id>`. Keys of one hour sort by time.
    ///
    /// Characters of the request id that are neither alphanumeric nor `-`, `_` or `=` become `_`.
    ///
    /// # Errors
    ///
    /// If `received` does not have the form `2026-01-02T03:04:05.678Z`.
    pub fn key(&self) -> Result<String, ArchiveError> {
        const FORM: &[u8] = b"0000-00-00T00:00:00.000Z";
        let has_form = self.received.len() == FORM.len()
            && self.received.bytes().zip(FORM).all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                _ => byte == *form,
            });
        if !has_form {
            return Err(ArchiveError);
        }
        let folder = self.received[..13].replace(['-', 'T'], "/");
        let time = self.received.replace(['-', ':'], "");
        let is_allowed = |character: char| character.is_ascii_alphanumeric() || "-_=".contains(character);
        let request_id = self.request_id.replace(|character| !is_allowed(character), "_");
        Ok(format!("{PREFIX}{folder}/{time}-{request_id}"))
    }

    /// The content of the notification's object, before compression.
    ///
    /// # Panics
    ///
    /// Never, because a string always serializes to JSON.
    #[must_use]
    pub fn encode(&self, body: &[u8]) -> Vec<u8> {
        let mut object = serde_json::to_vec(self).expect("strings are JSON");
        object.reserve_exact(1 + body.len());
        object.push(b'\n');
        object.extend_from_slice(body);
        object
    }

    /// Splits the content of an object, after decompression, into header and body.
    ///
    /// # Errors
    ///
    /// If the first line is not a header.
    pub fn decode(object: &[u8]) -> Result<(Self, &[u8]), ArchiveError> {
        let end = memchr::memchr(b'\n', object).ok_or(ArchiveError)?;
        let header = serde_json::from_slice(&object[..end]).map_err(|_| ArchiveError)?;
        Ok((header, &object[end + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> ArchiveHeader {
        ArchiveHeader {
            received: "2026-01-02T03:04:05.678Z".into(),
            request_id: "JKJaXmPLvHcESHA=".into(),
            trace: None,
            signature: "sha256=00".into(),
            rewritten: None,
        }
    }

    #[test]
    fn key_has_hour_time_and_request_id() {
        assert_eq!(header().key().unwrap(), "archive/2026/01/02/03/20260102T030405.678Z-JKJaXmPLvHcESHA=");
        let unusual = ArchiveHeader { request_id: "../a b/\u{e9}".into(), ..header() };
        assert_eq!(unusual.key().unwrap(), "archive/2026/01/02/03/20260102T030405.678Z-___a_b__");
    }

    #[test]
    fn time_of_another_form_has_no_key() {
        for received in ["", "2026-01-02T03:04:05Z", "2026-01-02 03:04:05.678Z", "2026-01-02T03:04:0\u{e9}.678Z"] {
            assert!(ArchiveHeader { received: received.into(), ..header() }.key().is_err(), "{received}");
        }
    }

    #[test]
    fn every_body_is_decoded_unchanged() {
        let full = ArchiveHeader { trace: Some("Root=1".into()), rewritten: Some("later\n".into()), ..header() };
        for body in [&b""[..], b"{}", b"\n\n{\"a\":\n1}\r\n", b"\0\xff", b"{\"received\":\"x\"}\n"] {
            for header in [header(), full.clone()] {
                let object = header.encode(body);
                assert_eq!(ArchiveHeader::decode(&object).unwrap(), (header, body));
            }
        }
    }

    #[test]
    fn object_without_a_header_is_rejected() {
        for object in [&b""[..], b"{}", b"{}\n", b"\n{}", br#"{"received":1}"#, b"[]\n{}", b"\xff\n"] {
            assert!(ArchiveHeader::decode(object).is_err());
        }
    }
}
