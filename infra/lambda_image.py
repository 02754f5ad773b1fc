"""Sees to the container image that `sam local` runs the function in, and says in a line of JSON which it is.

AWS's own image wherever it can be had. Without it, a stand-in under the name by which SAM CLI looks for its own build
of it: the emulator that SAM CLI ships, and of this machine's system just the libraries that the built function needs.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from samcli.local.docker.lambda_image import RAPID_IMAGE_TAG_PREFIX, LambdaImage, Runtime

BUILT = Path(__file__).resolve().parent.parent / ".aws-sam/build/Ingress/bootstrap"
RUNTIME = "provided.al2023"
ARCHITECTURE = "x86_64"
LABEL = "stand-in"
PULL_SECONDS = 300
# The directory that Lambda unpacks the function into, and the one it may write to.
FOLDERS = {"var/task": 0o755, "tmp": 0o1777}
CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
# What glibc loads by itself to look up names.
ALSO_LOADED = ("libresolv.so.2", "libnss_dns.so.2", "libnss_files.so.2")


def main() -> None:
    name, _, tag = Runtime.get_image_name_tag(RUNTIME, ARCHITECTURE).partition(":")
    repository = f"{LambdaImage._INVOKE_REPO_PREFIX}/{name}"
    base = f"{repository}:{tag}"
    built = f"{repository}:{tag.removesuffix(ARCHITECTURE)}{RAPID_IMAGE_TAG_PREFIX}-{ARCHITECTURE}"
    refusal = pull(base)
    if refusal is None:
        remove_stand_in(built)
    else:
        make_stand_in(built)
    print(json.dumps({"image": base if refusal is None else built, "stand_in_because": refusal}))


def docker(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = ["docker", *arguments]
    ended: subprocess.CompletedProcess[bytes] = subprocess.run(command, capture_output=True, check=False, **options)
    return ended


def pull(image: str) -> str | None:
    """Gets the image, if it is not there; returns why it cannot be had."""
    if docker("image", "inspect", image).returncode == 0:
        return None
    try:
        pulled = docker("pull", "--quiet", image, timeout=PULL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"pulling it took longer than {PULL_SECONDS} s"
    return None if pulled.returncode == 0 else pulled.stderr.decode(errors="replace").strip()


def remove_stand_in(image: str) -> None:
    """Makes room for SAM CLI's own build."""
    labels = docker("image", "inspect", "--format", "{{json .Config.Labels}}", image)
    if labels.returncode == 0 and LABEL in (json.loads(labels.stdout) or {}):
        docker("image", "rm", "--force", image)


def make_stand_in(image: str) -> None:
    docker("image", "rm", "--force", image)
    imported = docker(
        "import", "--change", "WORKDIR /var/task", "--change", f"LABEL {LABEL}=true", "-", image, input=root()
    )
    if imported.returncode != 0:
        sys.exit(f"the stand-in cannot be imported: {imported.stderr.decode(errors='replace').strip()}")


def root() -> bytes:
    """The root file system, as a tar file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for folder, mode in FOLDERS.items():
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        emulator = LambdaImage._RAPID_SOURCE_PATH / f"aws-lambda-rie-{ARCHITECTURE}"
        add(archive, emulator, "/var/rapid/aws-lambda-rie")
        for library in libraries():
            add(archive, library)
        for certificates in CERTIFICATES:
            if Path(certificates).exists():
                add(archive, Path(certificates))
    return packed.getvalue()


def add(archive: tarfile.TarFile, file: Path, name: str | None = None) -> None:
    content = file.read_bytes()
    entry = tarfile.TarInfo((name or str(file)).lstrip("/"))
    entry.size, entry.mode = len(content), 0o755
    archive.addfile(entry, io.BytesIO(content))


def libraries() -> list[Path]:
    """The files that the dynamic loader would load for the function, and the loader."""
    listed = subprocess.run(["ldd", BUILT], capture_output=True, check=True, text=True).stdout
    named = [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]
    beside = [path.with_name(name) for path in named if path.name.startswith("libc.so") for name in ALSO_LOADED]
    return named + [path for path in beside if path.exists()]


if __name__ == "__main__":
    main()
