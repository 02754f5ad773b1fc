//! The functions that are measured, and their commands.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;

use crate::{gate::Gate, scenario::Scenario};

/// The bucket of [`Subject::Archive`].
pub(crate) const ARCHIVE: &str = "archive";

/// A function that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// The function of this project.
    Ours,
    /// Another build of it, the file that `BASELINE` names, for a comparison in one run.
    Baseline,
    /// The function of this project with the archive, which it requires.
    Archive,
    /// A function with `lambda_http` that returns 200.
    Null,
    /// A function with `lambda_runtime` that skips the event and returns 200.
    NullRuntime,
    /// A function with one call of the SDK, which measures that call itself.
    Bare,
    /// An implementation with boto3 and awslambdaric.
    Python,
    /// An implementation with AWS's SDK for JavaScript and aws-lambda-ric.
    Node,
}

impl Subject {
    pub(crate) const ALL: [Self; 8] = [
        Self::Ours,
        Self::Baseline,
        Self::Archive,
        Self::Null,
        Self::NullRuntime,
        Self::Bare,
        Self::Python,
        Self::Node,
    ];

    /// Returns the name in results and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Baseline => "baseline",
            Self::Archive => "archive",
            Self::Null => "null",
            Self::NullRuntime => "null_runtime",
            Self::Bare => "bare",
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    /// Returns whether it stores the notifications completely.
    pub(crate) fn is_full_implementation(self) -> bool {
        !matches!(self, Self::Null | Self::NullRuntime | Self::Bare)
    }

    /// Returns whether it can do what a scenario measures.
    pub(crate) fn is_measured_in(self, scenario: Scenario) -> bool {
        self != Self::Bare || scenario == Scenario::One
    }

    /// Returns the program, its arguments and its working directory.
    fn invocation(self) -> (PathBuf, Vec<String>, PathBuf) {
        let (project, installed) = (project_root(), project_root().join(".local/bench"));
        let sibling = |name: &str| env::current_exe().expect("a program has a path").with_file_name(name);
        match self {
            Self::Ours | Self::Archive => (ours(), vec![], project),
            Self::Baseline => (baseline().unwrap_or_default(), vec![], project),
            Self::Null | Self::NullRuntime | Self::Bare => (sibling(self.name()), vec![], project),
            Self::Python => (
                installed.join("python/bin/python"),
                ["-m", "awslambdaric", "app.handler"].map(str::to_owned).into(),
                project.join("crates/bench/subjects/python"),
            ),
            Self::Node => (
                PathBuf::from("/usr/bin/env"),
                ["node", "node_modules/aws-lambda-ric/bin/index.mjs", "app.handler"].map(str::to_owned).into(),
                installed.join("node"),
            ),
        }
    }

    /// Returns the command that starts the function in control groups. A shell moves itself into the groups, which can take
    /// longer than the start of a function, then waits for the gate, and finally executes the function.
    pub(crate) fn command(self, groups: &[PathBuf], gate: &Gate) -> Command {
        const SHELL: &str = r#"while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; read -r _ < "$2" || exit 1; shift 2; exec "$@""#;
        let (program, arguments, directory) = self.invocation();
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(SHELL).arg("sh");
        command.args(groups.iter().map(|group| group.join("cgroup.procs"))).arg("--").arg(gate.path());
        command.arg(program).args(arguments).current_dir(directory);
        command
    }

    /// Returns the environment variables in addition to those of every function.
    pub(crate) fn variables(self) -> Vec<(&'static str, String)> {
        let (_, _, directory) = self.invocation();
        let mut variables =
            vec![("LAMBDA_TASK_ROOT", directory.display().to_string()), ("PATH", env::var("PATH").unwrap_or_default())];
        if self == Self::Archive {
            variables.extend([("ARCHIVE_BUCKET", ARCHIVE.to_owned()), ("ARCHIVE_REQUIRED", "true".to_owned())]);
        }
        variables
    }

    /// Returns whether its program and working directory exist. The baseline must be another file than the function.
    pub(crate) fn is_installed(self) -> bool {
        let (program, _, directory) = self.invocation();
        let is_other_build = || program.canonicalize().ok() != ours().canonicalize().ok();
        program.is_file() && directory.is_dir() && (self != Self::Baseline || is_other_build())
    }
}

/// Returns the root directory of the project.
pub(crate) fn project_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or_else(|| Path::new("/")).to_owned()
}

/// Returns the path of the release build, or of the build in `WHATSAPP_INGRESS`.
pub(crate) fn ours() -> PathBuf {
    env::var_os("WHATSAPP_INGRESS")
        .map_or_else(|| project_root().join("target/release/whatsapp-ingress"), PathBuf::from)
}

/// Returns the file that `BASELINE` names.
pub(crate) fn baseline() -> Option<PathBuf> {
    env::var_os("BASELINE").map(PathBuf::from)
}
