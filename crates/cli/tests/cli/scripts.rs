//! Tests the Makefile and a script of CI with commands that print their arguments.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Runs `make` with `ingress` as `$(INGRESS)`, and returns the output.
fn run_make(ingress: &str, arguments: &[&str], app_secret: Option<&str>) -> String {
    let mut make = Command::new("make");
    make.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap());
    // `make test` sets these for this process.
    for name in [
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "APP_SECRET",
        "SECRET",
        "URL",
        "STACK",
        "NO_STACK",
        "FIELD",
        "QUEUE",
        "JSON",
    ] {
        make.env_remove(name);
    }
    make.envs(app_secret.map(|secret| ("APP_SECRET", secret)));
    make.args(["--silent", &format!("INGRESS={ingress}")]).args(arguments);
    let output = make.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn deliver_uses_secret_or_environment() {
    let signed_with = |arguments: &[&str], app_secret| {
        let arguments = [&["deliver", "EVENT=events/security.json"], arguments].concat();
        run_make(r#"echo "$${APP_SECRET-none}" #"#, &arguments, app_secret)
    };

    assert_eq!(signed_with(&[], Some("of-the-shell")), "of-the-shell");
    assert_eq!(signed_with(&["SECRET="], Some("of-the-shell")), "of-the-shell");
    assert_eq!(signed_with(&["SECRET=named"], Some("of-the-shell")), "named");
    assert_eq!(signed_with(&[], None), "none");
}

#[test]
fn verify_passes_no_stack() {
    assert_eq!(run_make("echo", &["verify", "URL=https://a.example"], None), "verify --url https://a.example");
    assert_eq!(
        run_make("echo", &["verify", "URL=https://a.example", "NO_STACK=1"], None),
        "verify --url https://a.example --no-stack"
    );
}

#[test]
fn targets_for_messages_pass_their_options() {
    for (arguments, expected) in [
        (&["peek", "STACK=s", "JSON=1"][..], "peek --stack s --json"),
        (&["drop", "FIELD=calls", "REASON=no-route", "APPLY=1"], "drop --field calls --reason no-route --apply"),
        (
            &["export", "TO=copies", "QUEUE=calls", "MAX_MESSAGES=5", "DELETE=1", "APPLY=1"],
            "export --to copies --queue calls --max-messages 5 --apply --delete",
        ),
        (&["restore-queue", "ROUTE=*", "APPLY=1"], "restore-queue * --apply"),
        (&["redrive", "FIELD=calls", "FROM=old", "TO=new"], "redrive --field calls --from old --to new"),
    ] {
        let words: Vec<_> = run_make("echo", arguments, None).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words.join(" "), expected);
    }
}

/// Writes a shell script with this name.
fn write_script(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn command_is_skipped_without_docker() {
    let folder = tempfile::tempdir().unwrap();
    write_script(folder.path(), "id", "echo 0");
    write_script(folder.path(), "apt-get", r#"[ "$1" = update ] && echo "W: Failed to fetch" >&2"#);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().join(".ci/with-docker");

    let output =
        Command::new("/bin/bash").arg(script).args(["echo", "ran"]).env("PATH", folder.path()).output().unwrap();

    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "SKIPPED, because there is no Docker engine, and its installation failed: echo ran\n");
}
