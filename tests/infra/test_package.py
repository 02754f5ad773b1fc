"""Tests of the files of a release."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

import package

TEMPLATE = """\
Parameters:
  Architecture:
    Type: String
    Default: x86_64
    AllowedValues: [x86_64, arm64]
  LogLevel:
    Default: INFO
    AllowedValues: [INFO]
Resources:
  Queue:
    Properties:
      TemplateURL: infra/queue.yaml
  Function:
    Properties:
      CodeUri: .
"""
RELEASED = """\
Parameters:
  Architecture:
    Type: String
    Default: arm64
    AllowedValues: [arm64]
  LogLevel:
    Default: INFO
    AllowedValues: [INFO]
Resources:
  Queue:
    Properties:
      TemplateURL: queue.yaml
  Function:
    Properties:
      CodeUri: code.zip
"""


def in_lines(template: str) -> str:
    """Writes the parameters as lines instead of blocks."""
    head, _, rest = template.partition("Parameters:\n")
    parameters, _, resources = rest.partition("Resources:\n")
    lines = parameters.replace("\n    ", ", ").replace(":, ", ": { ").replace("\n", " }\n")
    return f"{head}Parameters:\n{lines}Resources:\n{resources}"


@pytest.mark.parametrize("form", [str, in_lines], ids=["blocks", "lines"])
def test_template_refers_to_the_files_of_the_release(form: type[str]) -> None:
    template, nested = package.released_template(form(TEMPLATE), "arm64", "code.zip")
    assert template == form(RELEASED)
    assert nested == ["infra/queue.yaml"]


@pytest.mark.parametrize("text", ["CodeUri: .", "Architecture:"])
def test_template_without_a_place_to_change_is_an_error(text: str) -> None:
    with pytest.raises(SystemExit, match="0 matches"):
        package.released_template(TEMPLATE.replace(text, "Other:"), "arm64", "code.zip")


def test_equal_input_makes_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/queue.yaml").write_text("Resources: {}\n")
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    monkeypatch.setattr(package, "TEMPLATE", tmp_path / "template.yaml")
    releases = []
    for name, time in (("first", 1_000_000_000), ("second", 2_000_000_000)):
        program = tmp_path / f"bootstrap-{name}"
        program.write_bytes(b"program" * 1000)
        program.chmod(0o755 if name == "first" else 0o700)
        os.utime(program, (time, time))
        package.write_release(tmp_path / name, {"arm64": program}, {"ingress": program})
        releases.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert releases[0] == releases[1]
    names = {"SHA256SUMS", "ingress", "queue.yaml", "template-arm64.yaml", "whatsapp-ingress-arm64.zip"}
    assert set(releases[0]) == names


def test_lambda_may_execute_the_function(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"program")
    (tmp_path / "program").chmod(0o600)
    package.write_zip(tmp_path / "code.zip", tmp_path / "program")
    with zipfile.ZipFile(tmp_path / "code.zip") as archive:
        [entry] = archive.infolist()
        assert (entry.filename, entry.external_attr >> 16, archive.read(entry)) == ("bootstrap", 0o100755, b"program")
