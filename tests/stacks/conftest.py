"""One local AWS for all tests. Each test deploys its own stacks."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator

import pytest

import local_stack
from harness import Edit, LocalAws, Stack


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    if not local_stack.BUILT_TEMPLATE.is_file():
        pytest.fail(f"{local_stack.BUILT_TEMPLATE} is missing: run `make build` first")
    arguments = argparse.Namespace(address="127.0.0.1", log_level="INFO")
    with (
        local_stack.own_folder(tmp_path_factory.mktemp("aws")) as folder,
        local_stack.local_aws(folder, arguments) as (endpoint, _),
    ):
        yield LocalAws(folder, endpoint)


@pytest.fixture
def deploy(aws: LocalAws, request: pytest.FixtureRequest) -> Callable[..., Stack]:
    """Returns a function that deploys a stack with the name of the test. Call it only once."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:35].strip("-")

    def deploy(requires_tls: bool = False, edit: Edit = str, **parameters: str) -> Stack:
        return Stack(aws, name, parameters, requires_tls, edit)

    return deploy
