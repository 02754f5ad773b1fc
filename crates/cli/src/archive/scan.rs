//! Passes each selected notification of the archive to a command, in the order of their keys, and so of their times.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::try_join_all;
use signed_s3::{ListedObject, ObjectPage};
use whatsapp_webhook::routes::Routes;

use super::{
    app_secrets::AppSecrets,
    bucket::Buckets,
    error::ArchiveError,
    notification::{Archived, MAX_CONTENT_BYTES},
    selection::Selection,
};

/// Objects that are read at the same time. Each can have megabytes.
const PARALLEL_READS: usize = 16;

/// The archive of a stack: its buckets, app secrets and routes.
#[derive(Debug)]
pub struct Archive {
    /// The buckets of the stack.
    pub buckets: Buckets,
    /// All app secrets that may have signed a notification.
    pub secrets: AppSecrets,
    /// The current routes of the stack.
    pub routes: Routes,
}

/// Where a scan begins and when it ends.
#[derive(Debug)]
pub struct ScanRange<'r> {
    /// Only keys after this one.
    pub after: Option<String>,
    /// The maximum number of notifications.
    pub limit: usize,
    /// Ends the scan with [`ArchiveError::Interrupted`] when it is set.
    pub stop: &'r AtomicBool,
}

impl Archive {
    /// Passes each selected notification to `visit`. An object that cannot be read is always selected by its changes, because
    /// they are unknown.
    pub async fn scan(
        &self,
        selection: &Selection,
        range: ScanRange<'_>,
        mut visit: impl AsyncFnMut(Archived) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let mut after = selection.start_after().into_iter().chain(range.after).max();
        let mut found = 0;
        loop {
            let ObjectPage { objects, is_truncated } = self.buckets.list(after.as_deref()).await?;
            let is_last = !is_truncated || objects.last().is_none_or(|last| selection.is_after_end(&last.key));
            after = objects.last().map(|last| last.key.clone());
            let objects = objects.into_iter().filter(|object| selection.matches_key(&object.key));
            let objects: Vec<_> = objects.take_while(|object| !selection.is_after_end(&object.key)).collect();
            for objects in objects.chunks(PARALLEL_READS) {
                if range.stop.load(Ordering::Relaxed) {
                    return Err(ArchiveError::Interrupted);
                }
                for archived in try_join_all(objects.iter().map(|object| self.read(object))).await? {
                    // An object that is gone meanwhile has expired.
                    let Some(archived) = archived.filter(|archived| self.is_selected(archived, selection)) else {
                        continue;
                    };
                    if found == range.limit {
                        return Ok(());
                    }
                    if range.stop.load(Ordering::Relaxed) {
                        return Err(ArchiveError::Interrupted);
                    }
                    found += 1;
                    visit(archived).await?;
                }
            }
            if is_last || found == range.limit {
                return Ok(());
            }
        }
    }

    async fn read(&self, object: &ListedObject) -> Result<Option<Archived>, ArchiveError> {
        let key = object.key.clone();
        if object.size > MAX_CONTENT_BYTES {
            return Ok(Some(Archived { key, content: None }));
        }
        let content = self.buckets.get(&key).await?;
        Ok(content.map(|content| Archived::read(key, &content, &self.secrets)))
    }

    fn is_selected(&self, archived: &Archived, selection: &Selection) -> bool {
        let Some(content) = archived.content.as_ref().filter(|_| selection.has_filter()) else { return true };
        !selection.fragments(&content.body, &self.routes).is_empty()
    }
}
