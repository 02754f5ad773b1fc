"""The workflows run what `.ci/run` runs."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from repository import REPOSITORY, make_calls, recipe, targets, text

WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))
# `make test` in parts.
PARTS = {"test-unit", "test-binary", "test-local"}
# The first downloads a toolchain. Of the second the script runs a small one, which needs no release build. The third and the
# release build for longer than the script may run; of the third it makes the toolchain. The last takes a quarter of an hour.
ONLY_WORKFLOW = {"check-rust-version", "soak", "test-arm64", "package", "test-package", "test-guide"}
ONLY_SCRIPT = {"test", "arm64-toolchain"}


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
