//! Payloads of public projects, in the directory that `PAYLOAD_CORPUS` names. They are not part of this project.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

/// Returns the directory, or `None` with a message if the variable is not set.
#[allow(clippy::explicit_write, reason = "the test harness captures the output of eprintln!")]
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("PAYLOAD_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        writeln!(std::io::stderr(), "SKIPPED: PAYLOAD_CORPUS is not set").unwrap();
    }
    folder
}

/// Returns path and text of every JSON file in the subdirectories.
pub(crate) fn payloads(corpus: &Path) -> Vec<(String, String)> {
    let mut folders = vec![corpus.to_owned()];
    let mut payloads = Vec::new();
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "json") && path.parent() != Some(corpus) {
                payloads.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(payloads.len() >= 248, "only {} payloads in {}", payloads.len(), corpus.display());
    payloads
}
