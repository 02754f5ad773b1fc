"""Describes the dependencies of the released programs: a bill of materials (CycloneDX) and the texts of the licences.

cargo-cyclonedx and cargo-bundle-licenses read `cargo metadata`, which has the dependencies of all packages, tests and
platforms. This script keeps those that `cargo tree` has for a program and its platform. Two runs on a commit are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = REPOSITORY / ".local/cargo/bin"
BILL = "bill-of-materials"
# The package and its folder by program.
PROGRAMS = {"whatsapp-ingress": ("whatsapp-ingress", "."), "ingress": ("whatsapp-ingress-tools", "crates/cli")}

Crate = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an existing folder")
    parser.add_argument("architectures", nargs="+", help="of the function, such as x86_64 and arm64")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    targets = {architecture: target_of(architecture) for architecture in arguments.architectures}
    crates: set[Crate] = set()
    for architecture, target in targets.items():
        used = used_crates("whatsapp-ingress", target)
        write_bill(folder / f"whatsapp-ingress-{architecture}.cdx.json", "whatsapp-ingress", target, used)
        crates |= used
    write_licences(folder / "whatsapp-ingress-licences.txt", "whatsapp-ingress", crates)
    host = target_of(platform.machine())
    used = used_crates("ingress", host)
    write_bill(folder / "ingress.cdx.json", "ingress", host, used)
    write_licences(folder / "ingress-licences.txt", "ingress", used)


def target_of(architecture: str) -> str:
    return f"{architecture.replace('arm64', 'aarch64')}-unknown-linux-gnu"


def used_crates(program: str, target: str) -> set[Crate]:
    """Returns names and versions of the crates that are compiled into a program, and of their macros."""
    package, _ = PROGRAMS[program]
    command = ["cargo", "tree", "--locked", "--package", package, "--edges", "normal", "--target", target]
    lines = run([*command, "--prefix", "none"]).splitlines()
    # Such as `serde v1.0.0 (proc-macro) (*)`
    return {(name, version.removeprefix("v")) for name, version, *_ in map(str.split, lines)}


def write_bill(path: Path, program: str, target: str, used: set[Crate]) -> None:
    # Without a random serial number, and with this time.
    time = os.environ.get("SOURCE_DATE_EPOCH") or run(["git", "log", "-1", "--format=%ct"]).strip()
    options = ["--format", "json", "--spec-version", "1.5", "--no-build-deps", "--quiet"]
    command = [str(TOOLS / "cargo-cyclonedx"), "cyclonedx", *options, "--target", target, "--override-filename", BILL]
    # One beside each Cargo.toml of the workspace.
    written = REPOSITORY / PROGRAMS[program][1] / f"{BILL}.json"
    try:
        run(command, SOURCE_DATE_EPOCH=time)
        text = written.read_text(encoding="utf-8")
    finally:
        for file in run(["git", "ls-files", "--others", "--", f"{BILL}.json", f"**/{BILL}.json"]).splitlines():
            (REPOSITORY / file).unlink()
    bill: dict[str, Any] = json.loads(text.replace(f"file://{REPOSITORY}", "file:///whatsapp-ingress"))
    bill["components"] = [each for each in bill["components"] if (each["name"], each["version"]) in used]
    described = {(each["name"], each["version"]) for each in [*bill["components"], bill["metadata"]["component"]]}
    require_all(used - described, path)
    references = {each["bom-ref"] for each in [*bill["components"], bill["metadata"]["component"]]}
    bill["dependencies"] = [
        each | {"dependsOn": [reference for reference in each.get("dependsOn", []) if reference in references]}
        for each in bill["dependencies"]
        if each["ref"] in references
    ]
    path.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")


def write_licences(path: Path, program: str, used: set[Crate]) -> None:
    command = [str(TOOLS / "cargo-bundle-licenses"), "bundle-licenses", "--format", "json"]
    found = json.loads(run(command, PROGRAMS[program][1]))["third_party_libraries"]
    libraries = {(each["package_name"], each["package_version"]): each for each in found}
    # Packages of this repository have its own licence.
    ours = {
        each["name"] for each in json.loads(run(["cargo", "metadata", "--format-version=1", "--no-deps"]))["packages"]
    }
    used = {crate for crate in used if crate[0] not in ours}
    require_all(used - set(libraries), path)
    parts = []
    for name, version in sorted(used):
        library = libraries[name, version]
        parts.append(f"{name} {version}: {library['license']}\n{library['repository']}\n")
        parts += [
            f"--- {each['license']}\n{each['text'].replace(chr(13), '').strip()}\n" for each in library["licenses"]
        ]
        parts.append("=" * 78 + "\n")
    path.write_text("\n".join(parts), encoding="utf-8")


def require_all(missing: set[Crate], path: Path) -> None:
    if missing:
        sys.exit(f"{path.name} lacks {sorted(missing)}")


def run(command: list[str], folder: str = ".", **variables: str) -> str:
    environment = os.environ | variables
    return subprocess.run(
        command, cwd=REPOSITORY / folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    main()
