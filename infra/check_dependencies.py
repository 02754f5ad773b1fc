"""Fails if modules of a crate depend on each other in a cycle, or if a package depends on one that it must not use.

A module depends on another if it has a path to it that starts with `crate::`, `super::`, `self::` or the name of a child. A parent
and its child count like any two modules. The check ignores inline modules, such as unit tests, and aliases of `crate`.
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
    "signed-s3": set(),
    "whatsapp-ingress": {"signed-s3", "whatsapp-webhook"},
    "whatsapp-ingress-tools": {"signed-s3", "whatsapp-webhook", "whatsapp-webhook-oracle"},
    "whatsapp-ingress-bench": {"whatsapp-webhook", "fake-aws"},
    "whatsapp-ingress-fuzz": {"whatsapp-webhook", "whatsapp-webhook-oracle"},
    "fake-aws": set(),
    "whatsapp-poller": set(),
}
ALLOWED_IN_TESTS = {"whatsapp-ingress": {"fake-aws", "whatsapp-ingress-tools", "whatsapp-webhook-oracle"}}
# All dependencies of the packages without input and output.
PURE = {
    "whatsapp-webhook": {
        "base64",
        "form_urlencoded",
        "hex",
        "hmac",
        "memchr",
        "serde",
        "serde_json",
        "sha2",
        "subtle",
        "thiserror",
    },
    "whatsapp-webhook-oracle": {"serde", "serde_json"},
}
# The command line must not depend on these, directly or indirectly, because they would slow its build down.
FORBIDDEN_INDIRECTLY = {"whatsapp-ingress-tools": re.compile(r"aws-lc|aws-sdk-(?!sqs)|aws-config|lambda_")}

Module = tuple[str, ...]
NOT_CODE = re.compile(r"""//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|"(?:\\.|[^"\\])*"|'(?:\\.[^']*|[^'\\])'""", re.DOTALL)
MODULE = re.compile(r'(?:#\[path = "([^"]+)"\]\s*)?(?:\bpub(?:\([^)]*\))?\s+)?\bmod\s+(\w+)\s*;')
USE = re.compile(r"\buse\s+([^;]+);")
PATH = re.compile(r"(?<![\w:])\w+(?:\s*::\s*\w+)+")


def main() -> None:
    problems: list[str] = []
    for manifest in (REPOSITORY / "Cargo.toml", REPOSITORY / "fuzz/Cargo.toml"):
        command = ["cargo", "metadata", "--format-version=1", "--no-deps", "--locked", "--manifest-path", str(manifest)]
        for package in json.loads(subprocess.check_output(command))["packages"]:
            problems += find_forbidden_dependencies(package)
            for target in package["targets"]:
                problems += find_cycles(package["name"], Path(target["src_path"]))
    problems += find_forbidden_indirect_dependencies()
    print(*problems, sep="\n", end="\n" if problems else "")
    sys.exit(bool(problems))


def find_forbidden_dependencies(package: dict[str, Any]) -> list[str]:
    name = package["name"]
    if name not in ALLOWED:
        return [f"{name} is missing in the table of {Path(__file__).name}"]
    problems: list[str] = []
    for dependency in package["dependencies"]:
        used, is_ours, is_for_tests = dependency["name"], "path" in dependency, dependency["kind"] == "dev"
        allowed = ALLOWED[name] | (ALLOWED_IN_TESTS.get(name, set()) if is_for_tests else set())
        if is_ours and used not in allowed:
            problems.append(f"{name} must not depend on {used}")
        if name in PURE and not is_for_tests and used not in PURE[name]:
            problems.append(f"{name} is pure and must not depend on {used}")
    return problems


def find_forbidden_indirect_dependencies() -> list[str]:
    problems = []
    for package, forbidden in FORBIDDEN_INDIRECTLY.items():
        command = ["cargo", "tree", "--locked", "--package", package, "--edges", "normal", "--prefix", "none"]
        tree = subprocess.check_output(command, cwd=REPOSITORY, text=True)
        found = {line.split()[0] for line in tree.splitlines() if forbidden.match(line)}
        problems += [f"{package} must not depend on {name}, not even indirectly" for name in sorted(found)]
    return problems


def find_cycles(package: str, root: Path) -> list[str]:
    files = find_modules(root)
    graph = {module: find_dependencies(module, file.read_text(), set(files)) for module, file in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names = " -> ".join("::".join(["crate", *module]) for module in reversed(error.args[1]))
        return [f"{package}: a cycle of modules in {root.relative_to(REPOSITORY)}: {names}"]
    return []


def find_modules(root: Path) -> dict[Module, Path]:
    """Returns the files of a target by module path."""
    found: dict[Module, Path] = {(): root}
    pending: list[tuple[Module, Path, Path]] = [((), root, root.parent)]
    while pending:
        module, file, directory = pending.pop()
        # Keeps strings, because `#[path]` has one.
        for path, name in MODULE.findall(re.sub(r"//[^\n]*", "", file.read_text())):
            candidates = [file.parent / path] if path else [directory / f"{name}.rs", directory / name / "mod.rs"]
            child = next((candidate for candidate in candidates if candidate.exists()), None)
            if child is None:
                sys.exit(f"{file.relative_to(REPOSITORY)}: the module {name} has no file")
            found[(*module, name)] = child
            pending.append(((*module, name), child, directory / name))
    return found


def find_dependencies(module: Module, text: str, known: set[Module]) -> set[Module]:
    text = remove_inline_modules(NOT_CODE.sub('""', text))
    paths = [path for tree in USE.findall(text) for path in use_paths(re.sub(r"\s+", " ", tree).strip())]
    paths += PATH.findall(USE.sub("", text))
    found = {resolve(module, [name.strip() for name in path.split("::")], known) for path in paths}
    return {path for path in found if path is not None and path != module}


def remove_inline_modules(text: str) -> str:
    while found := re.search(r"\bmod \w+ \{", text):
        depth, end = 1, found.end()
        while depth:
            depth += (text[end] == "{") - (text[end] == "}")
            end += 1
        text = text[: found.start()] + text[end:]
    return text


def use_paths(tree: str) -> list[str]:
    """Returns the paths of a `use` tree such as `crate::{a, b::{c, d}}`."""
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
    return [tree[:start].strip() + path for part in parts if part.strip() for path in use_paths(part.strip())]


def resolve(module: Module, names: list[str], known: set[Module]) -> Module | None:
    """Returns the module of a path, or `None` if the path leaves the crate."""
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
