"""Fails if modules of a crate depend on each other in a cycle, or if a package depends on one that it must not use.

A module depends on another if it names it by `crate::`, `super::`, `self::`, or by the name of its child. A parent and its child
count like any two modules.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent

# The packages of this repository that a package may use. Its tests may also use those of ALLOWED_IN_TESTS.
ALLOWED: dict[str, set[str]] = {
    "whatsapp-webhook": set(),
    "whatsapp-webhook-oracle": set(),
    "whatsapp-ingress": {"whatsapp-webhook"},
    "whatsapp-ingress-tools": {"whatsapp-webhook", "whatsapp-webhook-oracle"},
    "whatsapp-ingress-bench": {"whatsapp-webhook", "fake-aws"},
    "whatsapp-ingress-fuzz": {"whatsapp-webhook", "whatsapp-webhook-oracle"},
    "fake-aws": set(),
    "whatsapp-poller": set(),
}
ALLOWED_IN_TESTS = {"whatsapp-ingress": {"fake-aws", "whatsapp-ingress-tools", "whatsapp-webhook-oracle"}}
# The pure package does no input or output.
IMPURE = re.compile(r"aws-|lambda|tokio|hyper|http|reqwest|tracing|fastrand")
PURE = "whatsapp-webhook"

Module = tuple[str, ...]
NOT_CODE = re.compile(r'//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|"(?:\\.|[^"\\])*"', re.DOTALL)
USE = re.compile(r"\buse\s+([^;]+);")
PATH = re.compile(r"\b(?:crate|super|self)(?:::\w+)+")


def main() -> None:
    problems: list[str] = []
    for manifest in (REPOSITORY / "Cargo.toml", REPOSITORY / "fuzz/Cargo.toml"):
        command = ["cargo", "metadata", "--format-version=1", "--no-deps", "--locked", "--manifest-path", str(manifest)]
        for package in json.loads(subprocess.check_output(command))["packages"]:
            problems += forbidden_dependencies(package)
            for target in package["targets"]:
                if {"lib", "bin"} & set(target["kind"]):
                    problems += cycles(package["name"], Path(target["src_path"]))
    print(*problems, sep="\n", end="\n" if problems else "")
    sys.exit(bool(problems))


def forbidden_dependencies(package: dict[str, Any]) -> list[str]:
    name = package["name"]
    problems: list[str] = []
    for dependency in package["dependencies"]:
        used, is_ours = dependency["name"], "path" in dependency
        allowed = ALLOWED[name] | (ALLOWED_IN_TESTS.get(name, set()) if dependency["kind"] == "dev" else set())
        if is_ours and used not in allowed:
            problems.append(f"{name} must not depend on {used}")
        if name == PURE and dependency["kind"] is None and IMPURE.match(used):
            problems.append(f"{name} is pure and must not depend on {used}")
    return problems


def cycles(package: str, root: Path) -> list[str]:
    files = find_modules(root)
    graph = {module: dependencies(module, file.read_text(), set(files)) for module, file in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names = " -> ".join("::".join(["crate", *module]) for module in reversed(error.args[1]))
        return [f"{package}: a cycle of modules: {names}"]
    return []


def find_modules(root: Path) -> dict[Module, Path]:
    """The files of a crate by module path. Another target in the same folder is not a module of this one."""
    found: dict[Module, Path] = {(): root}
    waiting: list[tuple[Module, Path, Path]] = [((), root, root.parent)]
    while waiting:
        module, file, folder = waiting.pop()
        for name in re.findall(r"^\s*(?:pub(?:\([^)]*\))? )?mod (\w+);", code(file.read_text()), re.MULTILINE):
            child = next(file for file in (folder / f"{name}.rs", folder / name / "mod.rs") if file.exists())
            path = (*module, name)
            found[path] = child
            waiting.append((path, child, folder / name))
    return found


def code(text: str) -> str:
    return NOT_CODE.sub('""', text)


def dependencies(module: Module, text: str, known: set[Module]) -> set[Module]:
    text = code(text).split("#[cfg(test)]\nmod ")[0]
    paths = [path for tree in USE.findall(text) for path in use_paths(re.sub(r"\s+", " ", tree).strip())]
    found = {resolve(module, path.split("::"), known) for path in paths + PATH.findall(text)}
    return {path for path in found if path is not None and path != module}


def use_paths(tree: str) -> list[str]:
    """The paths of a `use` tree such as `crate::{a, b::{c, d}}`."""
    start = tree.find("{")
    if start < 0:
        return [tree.split(" as ")[0].strip()]
    inner, parts, depth = tree[start + 1 : tree.rindex("}")], [""], 0
    for character in inner:
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [tree[:start].strip() + leaf for part in parts if part.strip() for leaf in use_paths(part.strip())]


def resolve(module: Module, names: list[str], known: set[Module]) -> Module | None:
    """The module that a path leads to; `None` for a path out of the crate."""
    if names[0] == "crate":
        path: Module = ()
    elif names[0] in ("self", "super"):
        path = module
    elif (*module, names[0]) in known:
        path, names = module, ["self", *names]
    else:
        return None
    for name in names[0 if names[0] == "super" else 1 :]:
        if name == "super":
            path = path[:-1]
        elif (*path, name) in known:
            path = (*path, name)
        else:
            break
    return path


if __name__ == "__main__":
    main()
