"""Work pools of a server that asks for a login or an API key."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from flows.forecast.plan import where_stages_run
from flows.workspace.servers import ensure_prefect
from tests.support.specs import pipeline_spec


class Asks(BaseHTTPRequestHandler):
    """Answers only callers with the key."""

    def do_GET(self) -> None:
        self.send_response(200 if self.headers["Authorization"] == "Bearer key-of-the-cloud" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def cloud() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Asks)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


def test_an_api_key_is_sent_wherever_the_server_is_called(cloud: str, tmp_path: Path) -> None:
    environ = {"PREFECT_API_URL": cloud, "PREFECT_API_KEY": "key-of-the-cloud"}
    spec = pipeline_spec(place={"finetune": "gpu"})
    assert where_stages_run(spec, tmp_path, environ=environ) == {"finetune": "pool gpu"}
    assert ensure_prefect(tmp_path, environ=environ) is None  # that server is used, none is started
