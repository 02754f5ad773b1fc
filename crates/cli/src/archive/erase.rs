//! Erases a person from the archive: deletes notifications about this person alone, and rewrites those about others too.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use serde::Serialize;
use whatsapp_webhook::{archive::ArchiveHeader, notification::split};

use super::{
    notification::{Archived, Content, encode},
    person::Person,
    rewrite::{Remainder, remove_person},
    scan::{Archive, ScanRange},
    selection::Selection,
    time::Time,
};

const OUTSIDE_OF_CHANGES: &str = "verified, but names the person outside of its changes";

/// The result of an erasure, or of its dry run.
#[derive(Debug, Default, Serialize)]
pub struct EraseReport {
    /// Notifications that were deleted.
    pub deleted: usize,
    /// Notifications that were rewritten and signed.
    pub rewritten: usize,
    /// Further ids that the archive pairs with those of the person.
    pub other_ids: Vec<String>,
    /// The keys of objects that remain as they are, with the reason.
    pub not_erased: Vec<(String, &'static str)>,
    /// The reason why the erasure is not complete.
    pub stop_reason: Option<String>,
}

impl EraseReport {
    /// Whether the person is in no selected notification any more, also not by another id.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.stop_reason.is_none() && self.not_erased.is_empty() && self.other_ids.is_empty()
    }
}

/// Erases a person from the selected notifications. Without `apply`, only counts them.
///
/// An error ends the erasure, but is only reported: the next run no longer finds the other ids in what this run erased.
/// An object that is not authentic is not rewritten, because the operator's signature would make it authentic.
pub async fn erase(
    archive: &Archive,
    selection: &Selection,
    person: &Person,
    apply: bool,
    stop: &AtomicBool,
    mut progress: impl FnMut(&EraseReport),
) -> EraseReport {
    let selection = Selection { person: Some(person.clone()), ..selection.clone() };
    let range = ScanRange { after: None, limit: selection.limit.unwrap_or(usize::MAX), stop };
    let (mut report, mut ids) = (EraseReport::default(), Person::default());
    let visit = async |archived: Archived| {
        let signature = archived.signature();
        let Some(content) = archived.content.filter(|_| signature.is_authentic()) else {
            report.not_erased.push((archived.key, signature.text()));
            return Ok(());
        };
        match remove_person(&content.body, person, &mut ids) {
            Remainder::Nothing => {
                if apply {
                    archive.buckets.delete(&archived.key).await?;
                }
                report.deleted += 1;
            }
            Remainder::Text(body) if split(body.as_bytes()).iter().all(|fragment| !person.is_in(fragment)) => {
                if apply {
                    let object = rewritten(archive, content, body.as_bytes());
                    archive.buckets.put(&archived.key, object).await?;
                }
                report.rewritten += 1;
            }
            _ => report.not_erased.push((archived.key, OUTSIDE_OF_CHANGES)),
        }
        progress(&report);
        Ok(())
    };
    report.stop_reason = archive.scan(&selection, range, visit).await.err().map(|error| error.to_string());
    let known: Vec<&str> = person.ids().collect();
    report.other_ids = ids.ids().filter(|id| !known.contains(id)).map(str::to_owned).collect();
    report
}

/// Returns the object with a new body, which the function's current app secret signs.
fn rewritten(archive: &Archive, content: Content, body: &[u8]) -> Bytes {
    let signature = archive.secrets.sign(body);
    let rewritten = Some(Time::now().as_str().to_owned());
    encode(&ArchiveHeader { signature, rewritten, ..content.header }, body).into()
}
