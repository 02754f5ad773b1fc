"""Tests of the check for dependencies: it finds cycles of modules and forbidden dependencies."""

from __future__ import annotations

from pathlib import Path

import pytest

import check_dependencies

CYCLES = {
    "use of siblings": {"lib": "mod a; mod b;", "a": "use crate::b::B;", "b": "use crate::a::A;"},
    "path outside use": {"lib": "mod a; fn f() { a::g() }", "a": "use crate::f;"},
    "super": {"lib": "mod a; use a::A;", "a": "fn f() -> super::B {}"},
    "group": {"lib": "mod a; mod b;", "a": "use crate::{x, b::{self, B}};", "b": "use super::a;"},
    "spaces": {"lib": "mod a; mod b;", "a": "fn f() { crate :: b\n:: g() }", "b": "use crate::a;"},
    "quote as a character": {"lib": "mod a; mod b;", "a": "const Q: char = '\"'; use crate::b;", "b": "use crate::a;"},
    "after unit tests": {"lib": "mod a; mod b;", "a": "mod tests { fn f() {} } use crate::b;", "b": "use crate::a;"},
    "path attribute": {"lib": '#[path = "c.rs"] mod a; mod b;', "c": "use crate::b;", "b": "use crate::a;"},
}
NO_CYCLES = {
    "one direction": {"lib": "mod a; mod b;", "a": "use crate::b::B;", "b": ""},
    "unit tests": {"lib": "mod a; use a::A;", "a": "#[cfg(test)]\nmod tests { use super::A; use crate::x; }"},
    "comment and string": {"lib": "mod a; use a::A;", "a": '// crate::x\nconst T: &str = "crate::x";'},
    "other crate": {"lib": "mod serde; use serde::A;", "serde": "use ::serde::B;"},
}


def find_cycles(directory: Path, sources: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(check_dependencies, "REPOSITORY", directory)
    for name, text in sources.items():
        (directory / f"{name}.rs").write_text(text)
    return check_dependencies.find_cycles("package", directory / "lib.rs")


@pytest.mark.parametrize("name", CYCLES)
def test_cycle_is_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [problem] = find_cycles(tmp_path, CYCLES[name], monkeypatch)
    assert problem.startswith("package: a cycle of modules in lib.rs: crate")


@pytest.mark.parametrize("name", NO_CYCLES)
def test_tree_without_cycle_is_accepted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cycles(tmp_path, NO_CYCLES[name], monkeypatch) == []


def test_missing_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="the module a has no file"):
        find_cycles(tmp_path, {"lib": "mod a;"}, monkeypatch)


def test_forbidden_dependency_is_found() -> None:
    dependency = {"name": "ureq", "kind": None}
    package = {"name": "whatsapp-webhook", "dependencies": [dependency]}
    expected = ["whatsapp-webhook is pure and must not depend on ureq"]
    assert check_dependencies.find_forbidden_dependencies(package) == expected
