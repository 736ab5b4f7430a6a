"""A server that ends when it has been idle for a while, and not before."""

import os
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

from flows.workspace.servers import answers, free_port
from tests.support.processes import wait_for
from tests.support.project import PROJECT

APPLICATION = """
import asyncio

async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await asyncio.sleep(3)  # a slow start is not idleness
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(4)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

def make():
    return application
"""


def test_it_ends_after_its_last_use_and_not_during_a_start_or_an_answer(tmp_path: Path) -> None:
    (tmp_path / "slow_application.py").write_text(APPLICATION)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.workspace.idle", "slow_application:make", "--port", str(port), "--idle-s", "2"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(PROJECT), str(tmp_path)))}, cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/"))
        slow = HTTPConnection("127.0.0.1", port, timeout=60)
        slow.request("GET", "/slow")
        assert slow.getresponse().status == 200  # it took longer than the idle time
        slow.close()
        for _ in range(10):
            time.sleep(0.3)
            assert answers(f"http://127.0.0.1:{port}/")
        last = time.monotonic()
        assert process.wait(60) == 0
        assert time.monotonic() - last >= 1.9
    finally:
        process.kill()
        process.wait()
