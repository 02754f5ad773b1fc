//! The items that are done, in a file that one poller at a time uses.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
};

/// The keys of the items that are done. The lock of the file is the claim on all other items, and ends with the process.
///
/// The file grows by a line for each item. Several pollers need a table instead, as in `../node-poller`.
pub(crate) struct Handled {
    file: File,
    keys: HashSet<String>,
}

impl Handled {
    /// Opens or creates the file, and locks it until this is dropped or the process ends.
    ///
    /// # Errors
    ///
    /// If another poller uses the file, or if the file cannot be read.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        file.try_lock()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The poller ended while it wrote the last line. Its item is handled again.
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        file.set_len(text.len().try_into().map_err(io::Error::other)?)?;
        Ok(Self { file, keys: text.lines().map(str::to_owned).collect() })
    }

    /// Does the work on an item that is not done, then stores the key.
    ///
    /// # Errors
    ///
    /// If the work fails, or if the key cannot be stored. The item is then not done.
    pub(crate) fn once<E: From<io::Error>>(
        &mut self,
        key: String,
        work: impl FnOnce(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.keys.contains(&key) {
            return Ok(());
        }
        work(&key)?;
        self.file.write_all(format!("{key}\n").as_bytes())?;
        self.file.sync_data()?;
        self.keys.insert(key);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{env, fs, path::PathBuf, process::Command};

    use super::*;

    /// If it is set, the test is the poller that ends in the middle of an item.
    const ENDING_POLLER: &str = "HANDLED_TESTS_ENDING_POLLER";

    fn new_file(name: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        path
    }

    /// Whether the item was worked on.
    fn is_worked_on(handled: &mut Handled, key: &str) -> bool {
        let mut worked = false;
        let work = |_: &str| {
            worked = true;
            Ok::<_, io::Error>(())
        };
        handled.once(key.to_owned(), work).unwrap();
        worked
    }

    #[test]
    fn copy_is_skipped_also_after_a_restart() {
        let path = new_file("copy");
        let mut handled = Handled::open(&path).unwrap();
        assert!(is_worked_on(&mut handled, "a 0"));
        assert!(!is_worked_on(&mut handled, "a 0"));
        drop(handled);
        let mut handled = Handled::open(&path).unwrap();
        assert!(!is_worked_on(&mut handled, "a 0"));
        assert!(is_worked_on(&mut handled, "a 1"));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn failed_item_is_retried() {
        let path = new_file("failed");
        let mut handled = Handled::open(&path).unwrap();
        handled.once("a 0".to_owned(), |_| Err(io::Error::other("failed"))).unwrap_err();
        assert!(is_worked_on(&mut handled, "a 0"));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn item_of_a_killed_poller_is_handled() {
        if let Some(path) = env::var_os(ENDING_POLLER) {
            let mut handled = Handled::open(Path::new(&path)).unwrap();
            assert!(is_worked_on(&mut handled, "a 0"));
            let _ = handled.once::<io::Error>("a 1".to_owned(), |_| std::process::abort());
        }
        let path = new_file("killed");
        let test = "item_of_a_killed_poller_is_handled";
        let mut ending = Command::new(env::current_exe().unwrap());
        let ended = ending.arg(test).env(ENDING_POLLER, &path).output().unwrap();
        assert_eq!(ended.status.code(), None, "a signal ended the poller");
        let mut handled = Handled::open(&path).unwrap();
        assert!(!is_worked_on(&mut handled, "a 0"));
        assert!(is_worked_on(&mut handled, "a 1"));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn incomplete_line_is_not_a_done_item() {
        let path = new_file("incomplete");
        fs::write(&path, "a 0\na 1").unwrap();
        let mut handled = Handled::open(&path).unwrap();
        assert!(!is_worked_on(&mut handled, "a 0"));
        assert!(is_worked_on(&mut handled, "a 1"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "a 0\na 1\n");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn second_poller_cannot_open_the_file() {
        let path = new_file("second");
        let handled = Handled::open(&path).unwrap();
        assert!(Handled::open(&path).is_err());
        drop(handled);
        assert!(Handled::open(&path).is_ok());
        fs::remove_file(path).unwrap();
    }
}
