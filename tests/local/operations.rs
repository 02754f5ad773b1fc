//! What `docs/operations.md` says of metrics and log lines, held against the code that writes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use serde_json::Value;
use whatsapp_ingress::metrics::Metric;

use crate::root;

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
fn runbook_lists_exactly_the_metrics() {
    let names = Metric::ALL.iter().map(|metric| metric.name().to_owned());
    let parts = Metric::ALL.iter().filter_map(|metric| Some(format!("{}.<{}>", metric.name(), metric.part()?)));
    let template = template();
    let filters = template["Resources"].as_object().unwrap().values();
    let filters = filters.filter(|resource| resource["Type"] == "AWS::Logs::MetricFilter");
    let filtered = filters.map(|filter| &filter["Properties"]["MetricTransformations"][0]["MetricName"]);
    let filtered = filtered.map(|name| name.as_str().unwrap().to_owned());
    assert_eq!(column("The metrics"), names.chain(parts).chain(filtered).collect());
}

#[test]
fn every_line_of_the_table_is_written_somewhere() {
    let sources = sources();
    for message in column("The log") {
        assert!(sources.contains(&format!("\"{message}\"")), "nothing logs {message:?}");
    }
}

/// The template with all its alarms, those of parameters too.
fn template() -> Value {
    let mut expand = Command::new(root().join(".venv/bin/python"));
    expand.arg(root().join("infra/expand_template.py"));
    let output = expand.args(["--parameter", "SilenceSeconds=3600"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The names of the alarms of the template, after the stack's name, and with FIELD for that of a queue.
fn alarms() -> BTreeSet<String> {
    let template = template();
    let queues = template["Mappings"]["Field"].as_object().unwrap().values();
    let mut queues: Vec<_> = queues.filter_map(|field| field["Name"].as_str()).collect();
    // One name can be the beginning of another.
    queues.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let resources = template["Resources"].as_object().unwrap().values();
    let names = resources.filter(|resource| resource["Type"] == "AWS::CloudWatch::Alarm").map(|alarm| {
        let name = &alarm["Properties"]["AlarmName"];
        // With a stack's name that is known, a substitution may be left or not.
        let name = name["Fn::Sub"].as_str().or(name.as_str()).unwrap_or_else(|| panic!("no name in {alarm}"));
        let name = name.trim_start_matches("${AWS::StackName}-").trim_start_matches("stack-");
        let of_queue = |queue: &&str| name.strip_prefix(*queue)?.strip_prefix('-').map(|of| format!("FIELD-{of}"));
        queues.iter().find_map(of_queue).unwrap_or_else(|| name.to_owned())
    });
    names.collect()
}

#[test]
fn every_alarm_has_a_section_of_its_name_that_says_what_it_means_and_what_to_do() {
    let runbook = runbook();
    let of_alarms = runbook.split("\n## A section for each alarm\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let sections: BTreeMap<_, _> = of_alarms.split("\n### ").skip(1).filter_map(|of| of.split_once('\n')).collect();
    for (name, text) in &sections {
        let parts = text.matches("- **Means.**").count() + text.matches("- **Look").count();
        assert!(parts == 2 && (text.contains("**Do.**") || text.contains("**Look, do.**")), "{name}");
    }
    let alarms = alarms();
    assert!(alarms.len() > 10, "{alarms:?}");
    assert_eq!(alarms, sections.into_keys().map(str::to_owned).collect());
}
