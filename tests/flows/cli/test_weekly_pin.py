"""`tunegate pin` looks the commit of a branch up, and is the only command that does."""

import json
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import huggingface_hub.constants
import pytest

from tests.support.commands import run_here
from tests.support.desk_server import send, serving
from tests.support.specs import SMALL_FILE

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = SMALL_FILE.replace('"file:models/x"}', '"hf://org/name@main"}   # mine')


def answer_as_hub(handler: BaseHTTPRequestHandler) -> None:
    """Know one model and one dataset at `main`."""
    kind, _, rest = handler.path.removeprefix("/api/").partition("/")
    known = rest.partition("?")[0] == "org/name/revision/main" and kind in ("models", "datasets")
    send(handler, 200 if known else 404, {"id": "org/name", "_id": "1", "sha": COMMIT} if known else {"error": "no"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of a command that reaches the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with serving(answer_as_hub) as url:
        yield {**os.environ, "HF_ENDPOINT": url, "NO_PROXY": "127.0.0.1"}


def test_a_branch_is_pinned_to_its_commit_in_the_file(hub: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "pipelines.yaml"
    config.write_text(FILE)
    refused = run_here(("validate",), cwd=tmp_path, environ=hub)
    assert "`tunegate pin org/name@main` looks its commit up" in " ".join(refused.stderr.split())
    shown = run_here(("pin", "org/name@main"), cwd=tmp_path, environ=hub)
    assert shown.stdout == f"base_model: hf://org/name@{COMMIT}\n", shown.stderr
    assert config.read_text() == FILE
    done = run_here(("pin", "hf://org/name", "--save", "--json"), cwd=tmp_path, environ=hub)
    assert json.loads(done.stdout) == {"repo": "org/name", "revision": "main", "commit": COMMIT, "replaced": 1}
    assert config.read_text() == FILE.replace("@main", f"@{COMMIT}")
    assert run_here(("validate",), cwd=tmp_path, environ=hub).returncode == 0
    dataset = run_here(("pin", "org/name", "--dataset"), cwd=tmp_path, environ=hub)
    assert dataset.stdout == f"path: org/name\nrevision: {COMMIT}\n"


def test_a_hub_that_cannot_be_reached_is_one_line(hub: dict[str, str], tmp_path: Path) -> None:
    for nowhere in ("http://127.0.0.1:9", "http://hub.invalid"):
        done = run_here(("pin", "org/name"), cwd=tmp_path, environ={**hub, "HF_ENDPOINT": nowhere})
        assert (done.returncode, "TG0720" in done.stderr) == (7, True), done.stderr
        assert len(done.stderr.split("\n\nhint: ")[0].splitlines()) == 2


@pytest.mark.parametrize(("name", "code"), [("org/name@gone", 7), ("org/other", 7), ("nameless", 2)])
def test_what_the_hub_does_not_know_is_one_line(hub: dict[str, str], tmp_path: Path, name: str, code: int) -> None:
    done = run_here(("pin", name), cwd=tmp_path, environ=hub)
    assert done.returncode == code
    assert done.stderr.startswith("error[TG")
    assert len(done.stderr.split("\n\nhint: ")[0].splitlines()) == 2  # the error, and its place


def test_without_a_network_the_error_is_one_line(tmp_path: Path) -> None:
    done = run_here(("pin", "org/name"), cwd=tmp_path, environ=os.environ)  # HF_HUB_OFFLINE is set
    assert (done.returncode, "OfflineModeIsEnabled" in done.stderr) == (7, True)
    assert "\n" not in done.stderr.splitlines()[0]
    assert not list(tmp_path.iterdir())
