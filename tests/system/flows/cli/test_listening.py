"""The server of `tunegate model endpoint` with clients that open connections and send nothing, or too slowly."""

import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.project import PROJECT

N_SILENT = 1_100
FILES = 1_024
TOKENS = {name: f"{name}-token-0123456789" for name in ("shop", "bank")}
BODY = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"
SERVE = """
import json, logging, resource, sys, asyncio
files, tokens, patience, more = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from flows.cli import listening
from tasks.release.endpoint import Access, Limits, Tenant, build_endpoint
from tasks.release.live import LiveModels
logging.basicConfig(level=logging.INFO, format="%(message)s")
async def hello(request):
    return PlainTextResponse("hello")
async def slow(request):
    body = await request.body()
    await asyncio.sleep(8)
    return PlainTextResponse(f"{len(body)} bytes")
async def stream(request):
    async def parts():
        while True:
            yield b"." * 100
            await asyncio.sleep(.1)
    from starlette.responses import StreamingResponse
    return StreamingResponse(parts())
tenants = [Tenant(LiveModels(dict), lambda turns: turns, token, lambda lines: {"new": len(lines)}) for token in tokens]
app = build_endpoint(tenants, limits=Limits(max_tokens=64, **more), access=Access())
app.router.routes += [Route("/", hello), Route("/slow", slow, methods=["POST"]), Route("/stream", stream)]
with listening.listen("127.0.0.1", 0) as listener:
    print(listener.getsockname()[1], flush=True)
    listening.run_server(app, listener, *([listening.Patience(**patience)] if patience else []))
"""


class Served(NamedTuple):
    port: int
    log: Path

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        client.sendall(data)
        return client

    def begin_body(
        self, path: str = "/v1/feedback", *, token: str | None = None, n_bytes: int = 1_000
    ) -> socket.socket:
        """Send the headers of a request and the first byte of its body."""
        bearer = f"Authorization: Bearer {token}\r\n".encode() if token else b""
        return self.connect(BODY % (path.encode(), bearer, n_bytes) + b"{")

    def hello(self) -> str:
        return self.get("/").text

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=30, trust_env=False)

    def post(self, path: str, token: str) -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{self.port}{path}", json={"a": 1}, headers={"authorization": f"Bearer {token}"},
            timeout=30, trust_env=False,
        )  # fmt: skip


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    running = []

    def start(*names: str, patience: dict[str, float] | None = None, **limits: Any) -> Served:
        given = json.dumps([FILES, [TOKENS[name] for name in names] or [None], patience, limits])
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVE, given], cwd=PROJECT, stdout=subprocess.PIPE, stderr=log, text=True
            )
        running.append(process)
        assert process.stdout is not None
        return Served(int(process.stdout.readline()), tmp_path / "log")

    yield start
    for process in running:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve()


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
            stack.enter_context(served.connect(b"GET / HTTP/1.1\r\nHost: localhost\r\n"))
        for _ in range(5):
            assert served.hello() == "hello"
        time.sleep(2)
        assert served.hello() == "hello"
    assert served.log.stat().st_size < 20_000


def test_a_request_whose_headers_do_not_end_is_dropped(served: Served) -> None:
    from flows.cli.listening import Patience

    headers_s = Patience().headers_s
    with served.connect() as silent, served.connect(b"GET / HTTP/1.1\r\nHo") as slow:
        begun = time.monotonic()
        with served.connect(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") as answered:
            assert answered.recv(4096).startswith(b"HTTP/1.1 200")
            answered.sendall(b"GET / HTTP/1.1\r\nHo")  # its next request is slow
            for client in (silent, slow, answered):
                client.settimeout(headers_s + 60)
                assert closed(client)
        assert time.monotonic() - begun >= headers_s - 1


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("names", [("shop",), ("shop", "bank")])
def test_512_bodies_that_stall_leave_every_tenant_its_answers(serve: Serve, names: tuple[str, ...]) -> None:
    served = serve(*names)
    with ExitStack() as stack:
        for _ in range(512):
            stack.enter_context(served.begin_body(token=TOKENS["shop"]))
        time.sleep(1)
        for _ in range(3):
            assert served.get("/health").status_code == 200
            assert served.post("/v1/feedback", TOKENS[names[-1]]).json() == {"new": 1}
            assert served.get("/v1/models", TOKENS["shop"]).status_code in (
                200,
                429,
            )  # 512 requests were above the rate
        time.sleep(2.5)
        assert served.get("/v1/models", TOKENS["shop"]).status_code == 200
    assert "Traceback" not in served.log.read_text()


@pytest.mark.usefixtures("many_files")
def test_of_too_many_bodies_the_oldest_gets_an_error_and_what_is_being_answered_its_answer(serve: Serve) -> None:
    served = serve("shop")
    with ExitStack() as stack:
        answered = stack.enter_context(served.begin_body("/slow", token=TOKENS["shop"], n_bytes=1))
        bodies = []
        for number in range(300):
            bodies.append(stack.enter_context(served.begin_body(token=TOKENS["shop"])))
            time.sleep(0.01 if number % 2 else 0)  # below the rate
        status, headers, error = response(bodies[0])
        assert (status, error["code"], headers["retry-after"]) == (503, "too_many_connections", "2")
        assert response(answered)[0] == 200
        assert served.get("/v1/models", TOKENS["shop"]).status_code == 200


def test_a_body_that_drips_is_refused_and_a_slow_one_that_proceeds_is_read(serve: Serve) -> None:
    from flows.cli.listening import Patience

    patience, n_bytes = Patience(), 30_000
    served = serve("shop")
    with (
        served.begin_body(token=TOKENS["shop"]) as drips,
        served.begin_body(token=TOKENS["shop"]) as stalls,
        served.begin_body("/slow", token=TOKENS["shop"], n_bytes=n_bytes) as proceeds,
    ):
        begun, sent = time.monotonic(), 1
        while time.monotonic() - begun < patience.progress_s + 3:
            with suppress(OSError):  # refused meanwhile
                drips.sendall(b" ")
            if sent < n_bytes - 2_000:
                proceeds.sendall(b" " * 1_500)
                sent += 1_500
            time.sleep(1)
        for client in (drips, stalls):
            status, _, error = response(client)
            assert (status, error["code"], error["type"]) == (408, "body_timeout", "invalid_request_error")
        proceeds.sendall(b" " * (n_bytes - sent))
        assert response(proceeds)[0] == 200
    lines = served.log.read_text().splitlines()
    assert [line.split(": ")[1][:3] for line in lines] == ["408", "408"]


def test_a_body_that_proceeds_all_the_time_has_an_end_too(serve: Serve) -> None:
    served = serve("shop", patience={"body_s": 3})
    begun = time.monotonic()
    with served.begin_body(token=TOKENS["shop"], n_bytes=200_000) as client:
        client.settimeout(0.2)
        while time.monotonic() - begun < 30:
            client.sendall(b" " * 2_000)
            try:
                assert client.recv(12) == b"HTTP/1.1 408"
                break
            except TimeoutError:
                continue
    assert 3 <= time.monotonic() - begun < 20


def test_a_body_that_nothing_reads_ends_after_the_headers_time(serve: Serve) -> None:
    served = serve("shop", patience={"headers_s": 1})
    with served.begin_body() as client:  # it has no token
        assert response(client)[0] == 401
        for _ in range(3):
            time.sleep(0.5)
            try:
                client.sendall(b" ")
            except OSError:
                break
        assert closed(client)


def test_a_client_that_leaves_within_a_request_is_one_line_in_the_log(serve: Serve) -> None:
    served = serve("shop")
    for _ in range(20):
        served.begin_body(token=TOKENS["shop"]).close()
    wait_for(lambda: served.log.read_text().count("\n") >= 20)
    for path in ("/stream", "/slow"):
        method = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n\r\n"
        if path == "/slow":
            client = served.begin_body(path, token=TOKENS["shop"], n_bytes=1)
        else:
            client = served.connect(method % (path.encode(), TOKENS["shop"].encode()))
            client.recv(100)
        client.close()
    time.sleep(9)
    lines = served.log.read_text().splitlines()
    assert len(lines) == 20, lines
    assert set(lines) == {"127.0.0.1 /v1/feedback: 499 the client left before its request was complete"}


def test_a_tenant_over_its_rate_is_refused_while_another_one_is_served(serve: Serve) -> None:
    served = serve("shop", "bank", max_per_s=1)
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", trust_env=False, timeout=30) as client:
        shop, bank = ({"authorization": f"Bearer {TOKENS[name]}"} for name in ("shop", "bank"))
        answers = [client.get("/v1/models", headers=shop) for _ in range(30)]
        refused = [each for each in answers if each.status_code == 429]
        assert len(refused) >= 5
        assert {each.status_code for each in answers} == {200, 429}
        assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"
        assert refused[0].json()["error"]["type"] == "rate_limit_error"
        assert client.get("/v1/models", headers=bank).status_code == 200
        assert client.get("/health").status_code == 200
        time.sleep(int(refused[-1].headers["retry-after"]))
        assert client.get("/v1/models", headers=shop).status_code == 200


def test_an_address_that_guesses_tokens_is_slowed_down_and_callers_with_one_are_not(serve: Serve) -> None:
    served = serve("shop", max_unknown_per_s=1)
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", trust_env=False, timeout=30) as client:
        guesses = [client.get("/v1/models", headers={"authorization": f"Bearer {n}"}) for n in range(100)]
        assert {each.status_code for each in guesses} == {401, 429}
        assert client.get("/v1/models", headers={"authorization": f"Bearer {TOKENS['shop']}"}).status_code == 200
        assert {client.get("/health").status_code for _ in range(50)} == {200}


def test_an_answer_on_an_open_connection_does_not_wait_for_an_acknowledgement(served: Served) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", trust_env=False, timeout=30) as client:
        took = []
        for _ in range(30):
            begun = time.monotonic()
            assert client.get("/").text == "hello"
            took.append(time.monotonic() - begun)
    assert min(took[5:]) < 0.03  # 40 ms for each of them


def response(client: socket.socket) -> tuple[int, dict[str, str], Any]:
    """The status, headers and error of a response; None for no error."""
    client.settimeout(60)
    received = b""
    while b"\r\n\r\n" not in received:
        part = client.recv(4096)
        assert part, "closed without a response"
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += client.recv(4096)
    return int(first.split()[1]), headers, json.loads(body)["error"] if first.split()[1] >= "400" else None


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def closed(client: socket.socket) -> bool:
    """Wait for the server to close the connection."""
    try:
        while client.recv(4096):
            pass
    except ConnectionResetError:
        return True
    return True
