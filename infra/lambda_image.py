"""Provides the container image in which `sam local` runs the function, and prints its name as a line of JSON.

Uses the image of AWS if it can be pulled. Otherwise builds a stand-in with the name of the image that SAM CLI would build:
it contains the emulator of SAM CLI and the libraries of this system that the built function needs.
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
# The directory of the function, and the one that it may write to.
DIRECTORIES = {"var/task": 0o755, "tmp": 0o1777}
CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
# The libraries that glibc loads at run time to resolve names.
RUNTIME_LIBRARIES = ("libresolv.so.2", "libnss_dns.so.2", "libnss_files.so.2")


def main() -> None:
    name, _, tag = Runtime.get_image_name_tag(RUNTIME, ARCHITECTURE).partition(":")
    repository = f"{LambdaImage._INVOKE_REPO_PREFIX}/{name}"
    base = f"{repository}:{tag}"
    built = f"{repository}:{tag.removesuffix(ARCHITECTURE)}{RAPID_IMAGE_TAG_PREFIX}-{ARCHITECTURE}"
    pull_error = pull(base)
    if pull_error is None:
        remove_stand_in(built)
    else:
        make_stand_in(built)
    print(json.dumps({"image": base if pull_error is None else built, "stand_in_reason": pull_error}))


def docker(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = ["docker", *arguments]
    ended: subprocess.CompletedProcess[bytes] = subprocess.run(command, capture_output=True, check=False, **options)
    return ended


def pull(image: str) -> str | None:
    """Pulls the image if it is missing. Returns the error if that fails."""
    if docker("image", "inspect", image).returncode == 0:
        return None
    try:
        pulled = docker("pull", "--quiet", image, timeout=PULL_SECONDS)
    except subprocess.TimeoutExpired:
        return f"pulling it took longer than {PULL_SECONDS} s"
    return None if pulled.returncode == 0 else pulled.stderr.decode(errors="replace").strip()


def remove_stand_in(image: str) -> None:
    """Removes the stand-in, so that SAM CLI builds its own image."""
    labels = docker("image", "inspect", "--format", "{{json .Config.Labels}}", image)
    if labels.returncode == 0 and LABEL in (json.loads(labels.stdout) or {}):
        docker("image", "rm", "--force", image)


def make_stand_in(image: str) -> None:
    docker("image", "rm", "--force", image)
    imported = docker(
        "import", "--change", "WORKDIR /var/task", "--change", f"LABEL {LABEL}=true", "-", image, input=make_root()
    )
    if imported.returncode != 0:
        sys.exit(f"the stand-in cannot be imported: {imported.stderr.decode(errors='replace').strip()}")


def make_root() -> bytes:
    """Returns the root file system as a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for directory, mode in DIRECTORIES.items():
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        emulator = LambdaImage._RAPID_SOURCE_PATH / f"aws-lambda-rie-{ARCHITECTURE}"
        add(archive, emulator, "/var/rapid/aws-lambda-rie")
        for library in libraries():
            add(archive, library)
        for certificates in CERTIFICATES:
            if Path(certificates).exists():
                add(archive, Path(certificates))
    return buffer.getvalue()


def add(archive: tarfile.TarFile, file: Path, name: str | None = None) -> None:
    content = file.read_bytes()
    entry = tarfile.TarInfo((name or str(file)).lstrip("/"))
    entry.size, entry.mode = len(content), 0o755
    archive.addfile(entry, io.BytesIO(content))


def libraries() -> list[Path]:
    """Returns the libraries that the dynamic loader loads for the function, and the loader."""
    listed = subprocess.run(["ldd", BUILT], capture_output=True, check=True, text=True).stdout
    direct = [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]
    indirect = [
        path.with_name(name) for path in direct if path.name.startswith("libc.so") for name in RUNTIME_LIBRARIES
    ]
    return direct + [path for path in indirect if path.exists()]


if __name__ == "__main__":
    main()
