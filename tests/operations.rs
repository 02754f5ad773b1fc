//! What `docs/operations.md` says of metrics and log lines, held against the code that writes them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn runbook() -> String {
    fs::read_to_string(root().join("docs/operations.md")).unwrap()
}

/// What is between backticks in the first column of the table under a heading.
fn column(heading: &str) -> BTreeSet<String> {
    let runbook = runbook();
    let section = runbook.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let cells: BTreeSet<_> = cells.map(|(cell, _)| cell.to_owned()).collect();
    assert!(cells.len() > 5, "{cells:?}");
    cells
}

/// The code of the function, without its tests.
fn sources() -> String {
    let mut folders = vec![root().join("src")];
    let mut files: Vec<PathBuf> = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.file_name().is_some_and(|name| name != "tests.rs") {
                files.push(entry);
            }
        }
    }
    let without_tests =
        |file: PathBuf| fs::read_to_string(file).unwrap().split("#[cfg(test)]").next().unwrap().to_owned();
    files.into_iter().map(without_tests).collect()
}

#[test]
fn every_metric_is_in_the_table_and_no_other() {
    let sources = sources();
    let named = |call: &str| {
        let calls = sources.split(call).skip(1).filter_map(|rest| rest.split_once('"'));
        calls.map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>()
    };
    let parts = named(".count_of(\"").into_iter().map(|name| match name.as_str() {
        "Unrouted" => "Unrouted.<reason>".to_owned(),
        _ => format!("{name}.<route>"),
    });
    let metrics: BTreeSet<_> = named(".count(\"").into_iter().chain(named(".time(\"")).chain(parts).collect();
    assert_eq!(column("The metrics"), metrics);
}

#[test]
fn every_line_of_the_table_is_written_somewhere() {
    let sources = sources();
    for message in column("The log") {
        assert!(sources.contains(&format!("\"{message}\"")), "nothing logs {message:?}");
    }
}
