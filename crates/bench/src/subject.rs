//! What is measured, and how each is started.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;

use crate::gate::Gate;

/// A function that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    /// This project's.
    Ours,
    /// Another build of it, which `AGAINST` names, to compare the two in one run.
    Other,
    /// `lambda_http` that answers 200.
    Null,
    /// Lambda's runtime with this project's event type, answering 200.
    NullRuntime,
    /// One call of the SDK, measured within the function.
    Bare,
    /// boto3 under awslambdaric.
    Python,
    /// AWS's SDK under aws-lambda-ric.
    Node,
}

impl Contender {
    pub(crate) const ALL: [Self; 7] =
        [Self::Ours, Self::Other, Self::Null, Self::NullRuntime, Self::Bare, Self::Python, Self::Node];

    /// Its name in results and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Other => "other",
            Self::Null => "null",
            Self::NullRuntime => "null_runtime",
            Self::Bare => "bare",
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    /// Whether it does the whole job.
    pub(crate) fn is_peer(self) -> bool {
        !matches!(self, Self::Null | Self::NullRuntime | Self::Bare)
    }

    /// The program, its arguments, and the folder that it runs in.
    fn invocation(self) -> (PathBuf, Vec<String>, PathBuf) {
        let (project, installed) = (project(), project().join(".local/bench"));
        let beside = |name: &str| env::current_exe().expect("a program has a path").with_file_name(name);
        match self {
            Self::Ours => (ours(), vec![], project),
            Self::Other => (other().unwrap_or_default(), vec![], project),
            Self::Null | Self::NullRuntime | Self::Bare => (beside(self.name()), vec![], project),
            Self::Python => (
                installed.join("python/bin/python"),
                ["-m", "awslambdaric", "app.handler"].map(str::to_owned).into(),
                project.join("crates/bench/contenders/python"),
            ),
            Self::Node => (
                PathBuf::from("/usr/bin/env"),
                ["node", "node_modules/aws-lambda-ric/bin/index.mjs", "app.handler"].map(str::to_owned).into(),
                installed.join("node"),
            ),
        }
    }

    /// The command that starts it inside the given control groups: a shell moves itself there, which can take the kernel
    /// longer than a start, waits at the gate, and becomes the function.
    pub(crate) fn command(self, groups: &[PathBuf], gate: &Gate) -> Command {
        const SHELL: &str = r#"while [ "$1" != -- ]; do echo $$ > "$1" || exit 1; shift; done; read -r _ < "$2" || exit 1; shift 2; exec "$@""#;
        let (program, arguments, folder) = self.invocation();
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(SHELL).arg("sh");
        command.args(groups.iter().map(|group| group.join("cgroup.procs"))).arg("--").arg(gate.path());
        command.arg(program).args(arguments).current_dir(folder);
        command
    }

    /// The variables that it needs besides those of the function.
    pub(crate) fn variables(self) -> Vec<(&'static str, String)> {
        let (_, _, folder) = self.invocation();
        vec![("LAMBDA_TASK_ROOT", folder.display().to_string()), ("PATH", env::var("PATH").unwrap_or_default())]
    }

    /// What says that it can be started.
    pub(crate) fn is_installed(self) -> bool {
        let (program, _, folder) = self.invocation();
        program.exists() && folder.exists()
    }
}

/// The project's folder.
pub(crate) fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or_else(|| Path::new("/")).to_owned()
}

/// The function as it is deployed, or another build of it.
pub(crate) fn ours() -> PathBuf {
    env::var_os("WHATSAPP_INGRESS").map_or_else(|| project().join("target/release/whatsapp-ingress"), PathBuf::from)
}

/// The other build, if there is one to compare with.
pub(crate) fn other() -> Option<PathBuf> {
    env::var_os("AGAINST").map(PathBuf::from)
}
