"""Reads the commands of the operator's pages, and runs them in a shell with the permissions of a person."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import local_stack

PAGES = [local_stack.REPOSITORY / "docs" / name for name in ("operations.md", "tasks.md")]
# Evaluates one file after another, each with the credentials in the line before, and answers with the exit status.
SHELL = """
while read -r AWS_ACCESS_KEY_ID && read -r AWS_SECRET_ACCESS_KEY && read -r file; do
    export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    eval "$(cat "$file")" > "$file.out" 2>&1 <<< y
    echo $?
done
"""


@dataclass(frozen=True)
class Section:
    """A heading of a page with the commands below it, in their order."""

    page: str
    heading: str
    commands: list[str]


def sections() -> Iterator[Section]:
    """Yields each section with commands."""
    for page in PAGES:
        for part in re.split(r"^(?=#{2,3} )", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
            blocks = re.findall(r"^( *)```sh\n(.*?)^\1```$", part, re.DOTALL | re.MULTILINE)
            commands = [command for _, block in blocks for command in split(textwrap.dedent(block))]
            if commands:
                yield Section(page.name, part.partition("\n")[0].lstrip("# "), commands)


def split(block: str) -> list[str]:
    """Splits a block into its commands: as many lines as the shell needs to parse one."""
    commands, lines = [], ""
    for line in block.splitlines(keepends=True):
        lines += line
        is_continued = line.endswith("\\\n")
        if not is_continued and subprocess.run(["bash", "-n", "-c", lines], capture_output=True).returncode == 0:
            commands.append(lines.strip())
            lines = ""
    assert not lines.strip(), f"incomplete command: {lines}"
    return [command for command in commands if command]


@dataclass(frozen=True)
class Person:
    """Credentials for calls to AWS."""

    key: str
    secret: str


class Shell:
    """A bash in which one command runs after another, so that variables and functions stay."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            ["bash", "-c", SHELL],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.file = folder / f".local/command-{self.process.pid}"

    def run(self, command: str, person: Person) -> tuple[int, str]:
        """Runs a command. Returns its exit status and its output."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.file.write_text(command)
        self.process.stdin.write(f"{person.key}\n{person.secret}\n{self.file}\n")
        self.process.stdin.flush()
        status = self.process.stdout.readline()
        output = Path(f"{self.file}.out").read_text(errors="replace")
        return int(status or 255), output

    def close(self) -> None:
        local_stack.end_group(self.process)


def environment(home: Path, tools: list[Path]) -> dict[str, str]:
    """The environment of a new terminal, in which `tools` are found."""
    path = os.pathsep.join([*map(str, tools), os.environ.get("PATH", os.defpath)])
    return {"PATH": path, "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(home), "__SAM_CLI_APP_DIR": str(home)}


@contextmanager
def tls_proxy(endpoint: str) -> Iterator[str]:
    """Serves the local AWS at another URL, as a proxy does that ended TLS. Policies require TLS of people."""
    target = endpoint.removeprefix("http://")
    port = target.rpartition(":")[2]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                self.send_error(411)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            connection = http.client.HTTPConnection(target)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.putheader("X-Forwarded-Proto", "https")
            connection.endheaders(body)
            response = connection.getresponse()
            # The local AWS builds the URLs of queues from the header Host, but CloudFormation there from its own address.
            queues = f"http://{self.headers['Host']}/000000000000/"
            answer = response.read().replace(queues.encode(), f"http://localhost:{port}/000000000000/".encode())
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            length = response.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(answer))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(answer)
            connection.close()

        do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = forward

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
