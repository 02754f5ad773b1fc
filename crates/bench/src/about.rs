//! Describes the computer and the programs of a run.

use std::{collections::BTreeMap, fs, process::Command, thread};

use crate::subject::{Subject, project_root};

/// Returns the conditions of the measurement, for the reader of the figures.
pub(crate) fn describe(subjects: &[Subject]) -> BTreeMap<String, String> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let mut about = BTreeMap::from([
        ("computer".to_owned(), format!("{processors} × {}", processor())),
        ("kernel".to_owned(), read("/proc/sys/kernel/osrelease")),
        ("compiler".to_owned(), output_of("rustc", &["--version"])),
    ]);
    let installed = project_root().join(".local/bench");
    if subjects.contains(&Subject::Python) {
        let python = installed.join("python/bin/python").display().to_string();
        let versions =
            "import boto3, platform; print('Python', platform.python_version(), 'with boto3', boto3.__version__)";
        about.insert("python".to_owned(), output_of(&python, &["-c", versions]));
    }
    if subjects.contains(&Subject::Node) {
        let sdk = installed.join("node/node_modules/@aws-sdk/client-sqs/package.json").display().to_string();
        let sdk: serde_json::Value = serde_json::from_str(&read(&sdk)).unwrap_or_default();
        let sdk = sdk["version"].as_str().unwrap_or_default();
        about.insert("node".to_owned(), format!("Node {} with SDK {sdk}", output_of("node", &["--version"])));
    }
    about
}

fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.trim().to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Returns the standard output of a program. Empty if the program cannot be started.
pub(crate) fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
