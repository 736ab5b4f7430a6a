"""HTTP server of a fake help desk on loopback, with faulty answers on request."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def send(handler: BaseHTTPRequestHandler, status: int, body: object, headers: dict[str, str] | None = None) -> None:
    data = json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
        **(headers or {}),
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(data)


def send_part(handler: BaseHTTPRequestHandler, body: object, mood: str) -> None:
    """Send a faulty answer.

    `half`: fewer bytes than `Content-Length`; `cut`: half a document with a matching length; `wrong`: another document;
    `login`: an HTML login page with status 200."""
    data = json.dumps({"hello": 1} if mood == "wrong" else body).encode()
    if mood == "login":
        data = b"<!DOCTYPE html><title>Log in</title>"
    sent = data if mood in ("wrong", "login") else data[: len(data) // 2]
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html" if mood == "login" else "application/json")
    handler.send_header("Content-Length", str(len(data) if mood == "half" else len(sent)))
    handler.end_headers()
    handler.wfile.write(sent)
    handler.close_connection = True


@contextmanager
def serving(
    answer: Callable[[BaseHTTPRequestHandler], None], *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[str]:
    """Answer every GET, HEAD and POST to this host while the block runs; yields the address on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def do_HEAD(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    open_connections: set[socket.socket] = set()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def process_request(self, request: Any, client_address: Any) -> None:
            open_connections.add(request)
            super().process_request(request, client_address)

        def shutdown_request(self, request: Any) -> None:
            open_connections.discard(request)
            super().shutdown_request(request)

        def handle_error(self, *_: Any) -> None:
            """Ignore killed clients, which hang up."""

    server = Server((host, 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        for connection in tuple(open_connections):  # a client may keep it alive
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()
