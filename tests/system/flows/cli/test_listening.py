"""The server of `tunegate model endpoint` with clients that open connections and send nothing."""

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.support.project import PROJECT

N_SILENT = 1_100
FILES = 1_024
SERVE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from flows.cli import listening
async def hello(request):
    return PlainTextResponse("hello")
with listening.listen("127.0.0.1", 0) as listener:
    print(listener.getsockname()[1], flush=True)
    listening.run_server(Starlette(routes=[Route("/", hello)]), listener)
"""


class Served(NamedTuple):
    port: int
    log: Path

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        client.sendall(data)
        return client

    def hello(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.port}/", timeout=30, trust_env=False).text


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(FILES)], cwd=PROJECT, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    yield Served(int(process.stdout.readline()), tmp_path / "log")
    process.terminate()
    process.communicate(timeout=60)


@pytest.fixture
def many_files() -> Iterator[None]:
    """Allow this process to open more files than the server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * N_SILENT
    if hard not in (resource.RLIM_INFINITY, -1) and hard < wanted:
        pytest.skip(f"this process may open {hard} files; the test needs {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_more_half_open_connections_than_files_block_nothing_and_do_not_flood_the_log(served: Served) -> None:
    with ExitStack() as stack:
        for _ in range(N_SILENT):
            stack.enter_context(served.connect(b"GET / HTTP/1.1\r\nHost: x\r\n"))
        for _ in range(5):
            assert served.hello() == "hello"
        time.sleep(2)
        assert served.hello() == "hello"
    assert served.log.stat().st_size < 20_000


def test_a_request_whose_headers_do_not_end_is_dropped(served: Served) -> None:
    from flows.cli.listening import HEADERS_TIMEOUT_S

    with served.connect() as silent, served.connect(b"GET / HTTP/1.1\r\nHo") as slow:
        begun = time.monotonic()
        with served.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") as answered:
            assert answered.recv(4096).startswith(b"HTTP/1.1 200")
            answered.sendall(b"GET / HTTP/1.1\r\nHo")  # its next request is slow
            for client in (silent, slow, answered):
                client.settimeout(HEADERS_TIMEOUT_S + 60)
                assert closed(client)
        assert time.monotonic() - begun >= HEADERS_TIMEOUT_S - 1


def closed(client: socket.socket) -> bool:
    """Wait for the server to close the connection."""
    try:
        while client.recv(4096):
            pass
    except ConnectionResetError:
        return True
    return True
