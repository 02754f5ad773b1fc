//! What `make` and the scripts of CI do with what they find, where the commands that they run are others that tell.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Runs a target whose `$(INGRESS)` is this, and gives what it prints.
fn made(ingress: &str, arguments: &[&str], app_secret: Option<&str>) -> String {
    let mut make = Command::new("make");
    make.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap());
    // Those of a `make test` that runs this.
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "APP_SECRET", "SECRET", "URL", "STACK", "NO_STACK"] {
        make.env_remove(name);
    }
    make.envs(app_secret.map(|secret| ("APP_SECRET", secret)));
    make.args(["--silent", &format!("INGRESS={ingress}")]).args(arguments);
    let output = make.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_sample_is_signed_with_the_secret_of_the_shell_unless_another_is_named() {
    let signed_with = |arguments: &[&str], app_secret| {
        let arguments = [&["deliver", "EVENT=events/security.json"], arguments].concat();
        made(r#"echo "$${APP_SECRET-none}" #"#, &arguments, app_secret)
    };

    assert_eq!(signed_with(&[], Some("of-the-shell")), "of-the-shell");
    assert_eq!(signed_with(&["SECRET="], Some("of-the-shell")), "of-the-shell");
    assert_eq!(signed_with(&["SECRET=named"], Some("of-the-shell")), "named");
    assert_eq!(signed_with(&[], None), "none");
}

#[test]
fn an_endpoint_is_verified_without_a_stack_if_so_told() {
    assert_eq!(made("echo", &["verify", "URL=https://a.example"], None), "verify --url https://a.example");
    assert_eq!(
        made("echo", &["verify", "URL=https://a.example", "NO_STACK=1"], None),
        "verify --url https://a.example --no-stack"
    );
}

/// A command of this name that is a few lines of shell.
fn faked(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn what_needs_docker_is_skipped_and_said_so_where_it_cannot_be_installed() {
    let folder = tempfile::tempdir().unwrap();
    faked(folder.path(), "id", "echo 0");
    faked(folder.path(), "apt-get", r#"[ "$1" = update ] && echo "W: Failed to fetch" >&2"#);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join(".ci/with-docker");

    let output =
        Command::new("/bin/bash").arg(script).args(["echo", "ran"]).env("PATH", folder.path()).output().unwrap();

    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told, "SKIPPED, there is no Docker engine, and it cannot be installed from here: echo ran\n");
}
