//! An object of the archive: decompressed, decoded, and its signature checked.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use serde::Serialize;
use whatsapp_webhook::{
    archive::ArchiveHeader,
    notification::{Fragment, Kind, split},
};

use super::{
    app_secrets::{AppSecrets, Signer},
    printable::printable,
};

/// A larger content is not read: Lambda [accepts 6 MB](https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
pub(super) const MAX_CONTENT_BYTES: u64 = 32 << 20;

/// An object of the archive.
#[derive(Debug)]
pub struct Archived {
    /// The key.
    pub key: String,
    /// The content, or `None` if it is not an archived notification.
    pub content: Option<Content>,
}

/// A notification as the function received it, unless it was rewritten.
#[derive(Debug)]
pub struct Content {
    /// The header of the object, with the data of the request.
    pub header: ArchiveHeader,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the body is authentic.
    pub signature: SignatureState,
    /// The app secret that the signature was made with.
    pub(crate) signer: Option<Signer>,
}

/// Whether an object is authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureState {
    /// An app secret that the function accepts signed the body.
    Verified,
    /// An app secret that the function no longer accepts signed the body.
    VerifiedByOlderSecret,
    /// A person was erased from the body, which the operator then signed.
    Rewritten,
    /// The signature matches none of the app secrets.
    Mismatch,
    /// The object has the key of another notification.
    WrongKey,
    /// The object is not an archived notification.
    Unreadable,
}

impl SignatureState {
    /// Whether the body is authentic.
    #[must_use]
    pub const fn is_authentic(self) -> bool {
        matches!(self, Self::Verified | Self::VerifiedByOlderSecret | Self::Rewritten)
    }

    /// Returns the text for tables.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::VerifiedByOlderSecret => "verified, older secret",
            Self::Rewritten => "verified, rewritten",
            Self::Mismatch => "DOES NOT VERIFY",
            Self::WrongKey => "WRONG KEY",
            Self::Unreadable => "UNREADABLE",
        }
    }
}

impl Archived {
    /// Decodes the content of an object, and checks its signature and its key.
    #[must_use]
    pub fn read(key: String, object: &[u8], secrets: &AppSecrets) -> Self {
        let content = decode(object).map(|(header, body)| {
            let signer = secrets.signer(&body, &header.signature);
            let signature = match signer {
                None => SignatureState::Mismatch,
                Some(_) if header.key().ok().as_deref() != Some(&key) => SignatureState::WrongKey,
                Some(_) if header.rewritten.is_some() => SignatureState::Rewritten,
                Some(Signer::Older) => SignatureState::VerifiedByOlderSecret,
                Some(Signer::Current) => SignatureState::Verified,
            };
            Content { header, body, signature, signer }
        });
        Self { key, content }
    }

    /// Returns whether the object is authentic.
    #[must_use]
    pub fn signature(&self) -> SignatureState {
        self.content.as_ref().map_or(SignatureState::Unreadable, |content| content.signature)
    }
}

impl Content {
    /// Counts the changes by field and kind, such as `messages.statuses`. Text that is not a change counts as `-`.
    #[must_use]
    pub fn changes(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for fragment in split(&self.body) {
            *counts.entry(change_name(&fragment)).or_default() += 1;
        }
        counts
    }
}

/// Returns the field and the kind of a change, without characters that could control a terminal.
fn change_name(fragment: &Fragment<'_>) -> String {
    let Fragment::Change(change) = fragment else { return "-".to_owned() };
    let field = printable(change.field.as_deref().unwrap_or("-"));
    change.kind.map_or_else(|| field.clone(), |kind| format!("{field}.{}", Kind::name(kind)))
}

fn decode(object: &[u8]) -> Option<(ArchiveHeader, Vec<u8>)> {
    let mut content = Vec::new();
    MultiGzDecoder::new(object).take(MAX_CONTENT_BYTES + 1).read_to_end(&mut content).ok()?;
    if u64::try_from(content.len()).is_ok_and(|length| length > MAX_CONTENT_BYTES) {
        return None;
    }
    let (header, body) = ArchiveHeader::decode(&content).ok()?;
    Some((header, body.to_vec()))
}

/// Returns the content of an object with this header and body.
///
/// # Panics
///
/// Never: a vector takes all bytes.
#[must_use]
pub fn encode(header: &ArchiveHeader, body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&header.encode(body)).expect("a vector takes all bytes");
    encoder.finish().expect("a vector takes all bytes")
}

#[cfg(test)]
mod tests {
    use whatsapp_webhook::signature;

    use super::*;

    const BODY: &[u8] =
        br#"{"entry":[{"changes":[{"field":"messages","value":{"statuses":[{}]}},{"field":"a\u0007b"}]},{}]}"#;

    fn header(app_secret: &str) -> ArchiveHeader {
        ArchiveHeader {
            received: "2026-01-02T03:04:05.678Z".to_owned(),
            request_id: "a-request".to_owned(),
            trace: None,
            signature: signature::sign(app_secret, BODY),
            rewritten: None,
        }
    }

    fn state(header: &ArchiveHeader, key: &str) -> SignatureState {
        let secrets = AppSecrets::new(vec!["new".to_owned()], vec!["old".to_owned()]);
        Archived::read(key.to_owned(), &encode(header, BODY), &secrets).signature()
    }

    #[test]
    fn signature_and_key_decide_about_authenticity() {
        let key = header("new").key().unwrap();
        assert_eq!(state(&header("new"), &key), SignatureState::Verified);
        assert_eq!(state(&header("old"), &key), SignatureState::VerifiedByOlderSecret);
        assert_eq!(state(&header("other"), &key), SignatureState::Mismatch);
        assert_eq!(state(&header("new"), &key.replace("20260102", "20260103")), SignatureState::WrongKey);
        let rewritten = ArchiveHeader { rewritten: Some("2026-01-03T00:00:00.000Z".to_owned()), ..header("new") };
        assert_eq!(state(&rewritten, &key), SignatureState::Rewritten);
        let forged = ArchiveHeader { signature: signature::sign("other", BODY), ..rewritten };
        assert_eq!(state(&forged, &key), SignatureState::Mismatch);
    }

    #[test]
    fn other_object_is_unreadable() {
        let secrets = AppSecrets::new(vec!["new".to_owned()], Vec::new());
        let key = header("new").key().unwrap();
        let mut truncated = encode(&header("new"), BODY);
        truncated.pop();
        let mut bomb = GzEncoder::new(Vec::new(), Compression::default());
        bomb.write_all(&vec![b' '; usize::try_from(MAX_CONTENT_BYTES).unwrap() + 1]).unwrap();
        for object in [Vec::new(), header("new").encode(BODY), truncated, bomb.finish().unwrap()] {
            assert_eq!(Archived::read(key.clone(), &object, &secrets).signature(), SignatureState::Unreadable);
        }
    }

    #[test]
    fn changes_are_counted_by_field_and_kind() {
        let content =
            Content { header: header("new"), body: BODY.to_vec(), signature: SignatureState::Verified, signer: None };
        let counts: Vec<_> = content.changes().into_iter().collect();
        assert_eq!(
            counts,
            [("-", 1), ("a?b", 1), ("messages.statuses", 1)].map(|(name, count)| (name.to_owned(), count))
        );
    }
}
