"""Fixtures that all of tests/tasks share."""

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.openai_desk import Desk


@pytest.fixture
def desk() -> Iterator[Desk]:
    server = Desk()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def new_folder(tmp_path: Path) -> Callable[[], Path]:
    """A function that returns a new, empty directory at each call."""
    numbers = itertools.count()

    def new() -> Path:
        folder = tmp_path / f"out{next(numbers)}"
        folder.mkdir()
        return folder

    return new
