"""The process that ingests sources, shared by the tests of a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ingest_process import Ingests, ingests


@pytest.fixture(scope="module")
def process(project: Path) -> Iterator[Ingests]:
    with ingests(project) as started:
        yield started
