//! Remembers how far a replay got, in a file, so that the next run goes on there even if the process was killed.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{error::ArchiveError, time::Time};
use crate::endpoint_secrets::variable;

const FOLDER: &str = "whatsapp-ingress";
/// More are counted but not named, because the file is written after each batch.
const MAX_NAMES: usize = 100;

/// How far a replay got. It contains no data about people: the selection is in the name of the file as a hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// When the replay began: the value of the attribute `replayed`. Notifications received later are not replayed, also not
    /// by a run that resumes.
    pub(crate) started: Time,
    /// The key of the last notification that was replayed or left out.
    pub(crate) last_key: Option<String>,
    /// The number of notifications that were replayed or left out.
    pub(crate) notifications: usize,
    /// The notifications and messages that were left out.
    pub(crate) not_replayed: NotReplayed,
}

/// The notifications and messages that a replay left out, by reason.
pub type NotReplayed = BTreeMap<String, LeftOut>;

/// What a replay left out for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Their number.
    pub count: usize,
    /// The keys of the first notifications, or the event ids of the first messages.
    pub first: Vec<String>,
}

impl LeftOut {
    pub(crate) fn add(&mut self, name: &str) {
        self.count += 1;
        if self.first.len() < MAX_NAMES {
            self.first.push(name.to_owned());
        }
    }
}

/// The file of one selection and destination.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
}

/// Returns the folder for the state of replays, which need not exist.
pub fn folder() -> Result<PathBuf, ArchiveError> {
    let home = || variable("HOME").map(|home| Path::new(&home).join(".local/state"));
    let folder = variable("XDG_STATE_HOME").map(PathBuf::from).or_else(home).ok_or(ArchiveError::NoStateFolder)?;
    Ok(folder.join(FOLDER))
}

impl StateFile {
    /// Returns the file of a replay that these texts identify.
    pub(crate) fn in_folder(folder: &Path, identity: &impl Serialize) -> Self {
        let identity = serde_json::to_vec(identity).expect("strings and numbers are JSON");
        let hash = hex::encode(&Sha256::digest(identity)[..8]);
        Self { path: folder.join(format!("replay-{hash}.json")) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a lock that one process at a time has. A process that was killed loses it.
    pub(crate) fn lock(&self) -> Result<StateLock, ArchiveError> {
        let path = self.path.with_extension("lock");
        let locked = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.try_lock()?;
            Ok(file)
        };
        let error = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => ArchiveError::Running,
            _ => ArchiveError::state("lock", &path)(error),
        };
        let file = locked().map_err(error)?;
        Ok(StateLock { path, _file: file })
    }

    /// Reads the state of a replay that was interrupted. `None` if there is none.
    pub(crate) fn read(&self) -> Result<Option<State>, ArchiveError> {
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(ArchiveError::state("read", &self.path))?,
        };
        serde_json::from_slice(&text).map(Some).map_err(|_| ArchiveError::State {
            action: "use",
            path: self.path.clone(),
            reason: "it is not the state of a replay; --restart replaces it".to_owned(),
        })
    }

    /// Replaces the state at once, so that a killed process leaves the old or the new one.
    pub(crate) fn write(&self, state: &State) -> Result<(), ArchiveError> {
        let text = serde_json::to_vec(state).expect("strings and numbers are JSON");
        let new = self.path.with_extension("new");
        let written = || {
            self.path.parent().map_or(Ok(()), fs::create_dir_all)?;
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            fs::rename(&new, &self.path)
        };
        written().map_err(ArchiveError::state("write", &self.path))
    }

    /// Deletes the file, because the replay is complete.
    pub(crate) fn delete(&self) -> Result<(), ArchiveError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            deleted => deleted.map_err(ArchiveError::state("delete", &self.path)),
        }
    }
}

/// The right to run one replay. Ends when this is dropped.
#[derive(Debug)]
pub(crate) struct StateLock {
    path: PathBuf,
    _file: File,
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // A file that remains is no lock.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn state_is_that_of_its_selection() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        let [file, other] = ["a", "b"].map(|identity| StateFile::in_folder(&folder, &identity));
        let mut left_out = LeftOut::default();
        (0..MAX_NAMES + 2).for_each(|number| left_out.add(&format!("archive/{number}")));
        assert_eq!((left_out.count, left_out.first.len()), (MAX_NAMES + 2, MAX_NAMES));
        let state = State {
            started: Time::now(),
            last_key: Some("archive/x".to_owned()),
            notifications: 3,
            not_replayed: [("a reason".to_owned(), left_out)].into(),
        };
        assert_eq!(file.read().unwrap(), None);
        file.write(&state).unwrap();
        file.write(&State { notifications: 4, ..state.clone() }).unwrap();

        assert_eq!(file.read().unwrap(), Some(State { notifications: 4, ..state }));
        assert_eq!(other.read().unwrap(), None);
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        file.delete().unwrap();
        file.delete().unwrap();
        assert_eq!(file.read().unwrap(), None);
    }

    #[test]
    fn damaged_state_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_folder(folder.path(), &"a");
        for text in ["", "{}", r#"{"started":"soon","last_key":null,"notifications":1}"#] {
            fs::write(file.path(), text).unwrap();
            assert!(file.read().unwrap_err().to_string().contains("--restart"), "{text}");
        }
    }
}
