//! The entries of a batch that a fault applies to.

use super::entry::Entry;
use std::fmt;
use std::sync::Arc;

/// Whether an entry with this index in its batch is selected.
type Predicate = dyn Fn(usize, &Entry) -> bool + Send + Sync;

/// Selects entries of a batch by their index and content.
#[derive(Clone)]
pub(crate) struct Selection(Arc<Predicate>);

impl Selection {
    pub(crate) fn new(is_selected: impl Fn(usize, &Entry) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_selected))
    }

    pub(crate) fn includes(&self, index: usize, entry: &Entry) -> bool {
        (self.0)(index, entry)
    }

    pub(crate) fn includes_any(&self, entries: &[Entry]) -> bool {
        entries.iter().enumerate().any(|(index, entry)| self.includes(index, entry))
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Selection(…)")
    }
}

/// The entries that are rejected, and their error.
#[derive(Debug, Clone)]
pub(crate) struct EntryFault {
    pub(crate) entries: Selection,
    pub(crate) code: String,
    pub(crate) sender_fault: bool,
}
