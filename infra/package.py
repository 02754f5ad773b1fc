"""Writes a release into a folder: the files for a deployment without a compiler, and their checksums.

The function, the command line and their descriptions have to be built: `make package`. Equal input makes equal bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TEMPLATE = REPOSITORY / "template.yaml"
ARCHITECTURES = ("x86_64", "arm64")
# The first time that a zip file can have.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
CHECKSUMS = "SHA256SUMS"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder, which is emptied first")
    parser.add_argument("--function", action="append", required=True, metavar="ARCHITECTURE=BOOTSTRAP")
    parser.add_argument(
        "files", nargs="+", type=Path, help="files to copy: the command line, the bill of materials, the licences"
    )
    arguments = parser.parse_args()
    functions = {}
    for function in arguments.function:
        architecture, _, bootstrap = function.partition("=")
        if architecture not in ARCHITECTURES:
            sys.exit(f"unknown architecture: {function}")
        functions[architecture] = Path(bootstrap)
    write_release(arguments.folder, functions, {file.name: file for file in arguments.files})
    print((arguments.folder / CHECKSUMS).read_text(), end="")


def write_release(folder: Path, functions: dict[str, Path], files: dict[str, Path]) -> None:
    """Writes the zip file and the template of each function, the nested templates, and `files` by their names."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for architecture, bootstrap in functions.items():
        code = f"whatsapp-ingress-{architecture}.zip"
        write_zip(folder / code, bootstrap)
        template, nested = released_template(TEMPLATE.read_text(encoding="utf-8"), architecture, code)
        (folder / f"template-{architecture}.yaml").write_text(template, encoding="utf-8")
        files = files | {Path(path).name: TEMPLATE.parent / path for path in nested}
    for name, file in files.items():
        shutil.copyfile(file, folder / name)
        shutil.copymode(file, folder / name)
    # As `sha256sum` prints them, and as `sha256sum --check` reads them.
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(folder.iterdir())]
    (folder / CHECKSUMS).write_text("".join(sums), encoding="utf-8")


def write_zip(path: Path, bootstrap: Path) -> None:
    """Writes the deployment package of a function, without the time and the owner of its file."""
    entry = zipfile.ZipInfo("bootstrap", ZIP_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, so that the next line is its mode
    entry.external_attr = 0o100755 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, bootstrap.read_bytes(), compresslevel=9)


def released_template(template: str, architecture: str, code: str) -> tuple[str, list[str]]:
    """Replaces the source code by a zip file, and restricts the parameter `Architecture` to that of the file.

    Nested templates are in the same folder. Also returns their paths in the repository.
    """
    template = replace_once(r"^( +CodeUri: )\.$", rf"\g<1>{code}", template)
    # The parameter is a block or a line.
    template = replace_once(
        r"^(  Architecture:(?:(?!\n  \w)[\s\S])*?\bDefault: )\w+((?:(?!\n  \w)[\s\S])*?\bAllowedValues: )\[[^\]]*\]",
        rf"\g<1>{architecture}\g<2>[{architecture}]",
        template,
    )
    nested = re.findall(r"\bTemplateURL: ([\w./-]+)", template)
    template = re.sub(r"(\bTemplateURL: )(?:[\w.-]+/)*([\w.-]+)", r"\1\2", template)
    return template, sorted(set(nested))


def replace_once(pattern: str, replacement: str, text: str) -> str:
    text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
    if count != 1:
        sys.exit(f"{TEMPLATE.name} has {count} matches instead of one for {pattern}")
    return text


if __name__ == "__main__":
    main()
