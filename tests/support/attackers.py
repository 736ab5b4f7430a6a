"""Attackers of a local server: a web page of another origin in a real browser, and another user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import open_browser
from tests.support.desk_server import send, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

NOBODY = 65_534
_SEND = """
async ([url, options, body]) => {
  if (body !== null) options.body = options.bare ? new Blob([body]) : body;  // a bare blob has no content type
  try {
    const answer = await fetch(url, options);
    return {status: answer.status, text: await answer.text()};
  } catch (error) { return {status: null, text: String(error)}; }
}
"""
_LISTEN = """
([url, subprotocols]) => new Promise((done) => {
  const received = [], socket = new WebSocket(url, subprotocols);
  socket.onopen = () => socket.send(JSON.stringify({type: "auth", token: "guess"}));
  socket.onmessage = (message) => received.push(message.data);
  socket.onclose = () => done(received);
  socket.onerror = () => done(received);
})
"""
_AS_ANOTHER = f"""
import encodings.idna, json, os, sys, urllib.error, urllib.request
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})  # after the imports: they may have no access to this Python
task = json.loads(sys.argv[1])
if "file" in task:
    try:
        reply = {{"status": 200, "text": open(task["file"]).read()}}
    except PermissionError as error:
        reply = {{"status": 403, "text": str(error)}}
else:
    body = task["body"]
    request = urllib.request.Request(task["url"], None if body is None else body.encode(), task["headers"])
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(request, timeout=60) as answer:
            reply = {{"status": answer.status, "text": answer.read().decode()}}
    except urllib.error.HTTPError as error:
        reply = {{"status": error.code, "text": error.read().decode()}}
print(json.dumps(reply))
"""


class ForeignPage:
    """A page of another origin; sends requests in every way that needs no permission of the server."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def send(self, url: str, body: str | None = None) -> list[dict[str, Any]]:
        """Status and text of each answer as the page sees them; status 0 if it may not read the answer."""
        method = "GET" if body is None else "POST"
        ways: list[dict[str, Any]] = [
            {"mode": "no-cors"},
            {"mode": "cors"},
            {"mode": "no-cors", "bare": True},
            {"mode": "cors", "bare": True},
            {"mode": "cors", "headers": {"Content-Type": "application/json"}},
            {"mode": "no-cors", "credentials": "include"},
        ]
        return [self._page.evaluate(_SEND, [url, {**way, "method": method}, body]) for way in ways]

    def listen(self, url: str, *subprotocols: str) -> list[str]:
        """What it receives on a WebSocket until it closes."""
        received: list[str] = self._page.evaluate(_LISTEN, [url, list(subprotocols)])
        return received


@contextmanager
def foreign_page() -> Iterator[ForeignPage]:
    """A page on another port of this machine: another origin, same site."""
    html = {"Content-Type": "text/html"}
    with serving(lambda handler: send(handler, 200, "a foreign page", html)) as url, open_browser() as browser:
        page = browser.new_page()
        page.goto(url.replace("127.0.0.1", "localhost"))
        yield ForeignPage(page)


def ask_as_another_user(url: str, body: Any = None, **headers: str) -> tuple[int, str]:
    """Status and text of a GET, or a POST of JSON, by another user of this machine."""
    data = None if body is None else json.dumps(body)
    reply = _as_another({"url": url, "body": data, "headers": {"Content-Type": "application/json", **headers}})
    return reply["status"], reply["text"]


def may_read_as_another_user(path: str) -> bool:
    """Whether another user of this machine can read the file."""
    return bool(_as_another({"file": path})["status"] == 200)


def _as_another(task: dict[str, Any]) -> dict[str, Any]:
    """Make the request as the user `nobody`; skip if this process may not become another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user of this machine")
    done = subprocess.run(
        [sys.executable, "-c", _AS_ANOTHER, json.dumps(task)], cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply
