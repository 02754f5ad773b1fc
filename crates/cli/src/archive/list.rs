//! Lists and verifies archived notifications.

use std::{collections::BTreeMap, io, sync::atomic::AtomicBool};

use serde::Serialize;

use super::{
    error::ArchiveError,
    notification::{Archived, SignatureState},
    printable::printable,
    scan::{Archive, ScanRange},
    selection::Selection,
};

/// A notification without its content.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The key of the object.
    pub key: String,
    /// The time of receipt.
    pub received: Option<String>,
    /// API Gateway's id of the request.
    pub request_id: Option<String>,
    /// The length of the body.
    pub bytes: Option<usize>,
    /// The number of changes by field and kind.
    pub changes: BTreeMap<String, usize>,
    /// Whether it is authentic.
    pub signature: SignatureState,
    /// When a person was erased from it.
    pub rewritten: Option<String>,
}

/// The number of notifications by their authenticity.
#[derive(Debug, Default, Serialize)]
pub struct Verification {
    /// The numbers.
    pub counts: BTreeMap<SignatureState, usize>,
    /// The keys of those that are not authentic.
    pub failed: Vec<(String, SignatureState)>,
}

impl Row {
    fn of(archived: Archived) -> Self {
        let signature = archived.signature();
        let content = archived.content.as_ref();
        Self {
            received: content.map(|content| printable(&content.header.received)),
            request_id: content.map(|content| printable(&content.header.request_id)),
            bytes: content.map(|content| content.body.len()),
            changes: content.map(super::notification::Content::changes).unwrap_or_default(),
            rewritten: content.and_then(|content| content.header.rewritten.as_deref().map(printable)),
            signature,
            key: archived.key,
        }
    }
}

impl Verification {
    /// Whether all notifications are authentic, and at least one was selected.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.failed.is_empty() && !self.counts.is_empty()
    }
}

fn range<'r>(selection: &Selection, stop: &'r AtomicBool) -> ScanRange<'r> {
    ScanRange { after: None, limit: selection.limit.unwrap_or(usize::MAX), stop }
}

/// Passes a row for each selected notification to `print`, until `print` fails.
pub async fn list(
    archive: &Archive,
    selection: &Selection,
    stop: &AtomicBool,
    mut print: impl FnMut(Row) -> io::Result<()>,
) -> Result<(), ArchiveError> {
    let visit = async |archived| print(Row::of(archived)).map_err(ArchiveError::Output);
    archive.scan(selection, range(selection, stop), visit).await
}

/// Returns the first selected notification.
///
/// An unreadable object may be another notification than the selected one. It is returned only if there is no other.
pub async fn find(
    archive: &Archive,
    selection: &Selection,
    stop: &AtomicBool,
) -> Result<Option<Archived>, ArchiveError> {
    let mut unreadable = None::<Archived>;
    loop {
        let after = unreadable.as_ref().map(|archived| archived.key.clone());
        let mut found = None;
        let visit = async |archived| {
            found = Some(archived);
            Ok(())
        };
        archive.scan(selection, ScanRange { after, limit: 1, stop }, visit).await?;
        match found {
            Some(archived) if archived.content.is_none() && selection.has_filter() => unreadable = Some(archived),
            found => return Ok(found.or(unreadable)),
        }
    }
}

/// Checks the signature of each selected notification.
pub async fn verify(
    archive: &Archive,
    selection: &Selection,
    stop: &AtomicBool,
    mut progress: impl FnMut(&Verification),
) -> Result<Verification, ArchiveError> {
    let mut verification = Verification::default();
    let visit = async |archived: Archived| {
        let signature = archived.signature();
        *verification.counts.entry(signature).or_default() += 1;
        if !signature.is_authentic() {
            verification.failed.push((archived.key, signature));
        }
        progress(&verification);
        Ok(())
    };
    archive.scan(selection, range(selection, stop), visit).await?;
    Ok(verification)
}
