"""The workflows run what `.ci/run` runs."""

from __future__ import annotations

import json
import re
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from samcli.yamlhelper import yaml_parse

from repository import REPOSITORY, make_calls, recipe, targets, text

WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))
# `make test` in parts.
PARTS = {"test-unit", "test-binary", "test-local"}
ONLY_WORKFLOW = {
    "check-rust-version",  # downloads a toolchain
    "soak",  # the script runs test-soak
    # These take too long for the script. It makes the toolchain of test-arm64.
    "test-arm64",
    "package",
    "test-package",
    "test-guide",
    "test-concurrent",
}
# The file that Dependabot reads in each ecosystem.
LOCK_FILES = {"cargo": "Cargo.lock", "pip": "requirements*.txt", "npm": "package-lock.json"}
ONLY_SCRIPT = {"test", "arm64-toolchain", "test-soak"}


def test_workflow_and_ci_script_make_the_same_targets() -> None:
    script = make_calls(text(".ci/run"))
    workflow = set().union(*(make_calls(path.read_text(encoding="utf-8")) for path in WORKFLOWS))
    assert script >= ONLY_SCRIPT
    assert workflow - ONLY_WORKFLOW == script - ONLY_SCRIPT | PARTS
    assert ONLY_WORKFLOW <= workflow <= targets()


def test_parts_run_every_test() -> None:
    output = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--format-version", "1", "--locked"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    packages = json.loads(output)["packages"]
    tests = {target["name"] for package in packages for target in package["targets"] if "test" in target["kind"]}
    run = [name for part in PARTS for name in re.findall(r"--test (\w+)", recipe(part))]
    assert sorted(run) == sorted(tests)
    assert re.search(r"--workspace --lib --bins\b", recipe("test-unit"))
    assert re.search(r"^\tpytest$", recipe("test-local"), re.MULTILINE)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow_needs_only_jobs_that_exist(path: object) -> None:
    # The linter does not follow `needs`, so the workflows do without.
    assert not re.search(r"^\s+needs:", text(str(path)), re.MULTILINE)


def test_every_file_of_a_rust_test_is_a_module() -> None:
    mains = [*REPOSITORY.glob("tests/*/main.rs"), *REPOSITORY.glob("crates/*/tests/*/main.rs")]
    assert mains
    for main in mains:
        for module in [main, *main.parent.glob("*/mod.rs")]:
            declared = re.findall(
                r"^(?:pub(?:\(crate\))? )?mod (\w+);$", module.read_text(encoding="utf-8"), re.MULTILINE
            )
            files = {path.stem for path in module.parent.glob("*.rs")} | {
                path.parent.name for path in module.parent.glob("*/mod.rs")
            }
            assert files - {module.stem} <= set(declared), module


@pytest.mark.parametrize("ecosystem", LOCK_FILES)
def test_dependabot_updates_every_lock_file(ecosystem: str) -> None:
    [update] = [
        each for each in yaml_parse(text(".github/dependabot.yml"))["updates"] if each["package-ecosystem"] == ecosystem
    ]
    tracked = subprocess.run(
        ["git", "ls-files", f":(glob)**/{LOCK_FILES[ecosystem]}"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    folders = {f"/{Path(path).parent}".removesuffix("/.") or "/" for path in tracked}
    assert folders
    found = {
        pattern: {folder for folder in folders if fnmatchcase(folder, pattern)} for pattern in update["directories"]
    }
    assert [pattern for pattern, matches in found.items() if not matches] == []
    assert folders == set().union(*found.values())
