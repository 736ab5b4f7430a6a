"""A step that loses its connection is tried again, and what it said is not passed on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from flows.engine.step import Step
from flows.session import Session
from flows.steps import run_plainly
from schemas.artifacts import Artifact
from schemas.errors import ServiceError


def ask(*, port: int, answers_at: int, tries: str, out: Path) -> Artifact:
    """Refused by a port at which nobody listens, until it is asked for the `answers_at`th time."""
    with Path(tries).open("a") as file:
        file.write("x")
    if Path(tries).stat().st_size < answers_at:
        socket.create_connection(("127.0.0.1", port), timeout=5)
    (out / "answer").write_text("here")
    return Artifact(root=out)


@pytest.fixture
def closed() -> int:
    """A port of this machine at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def asking(port: int, answers_at: int, tries: Path) -> Step:
    return Step("ask", ask, Artifact, params={"port": port, "answers_at": answers_at, "tries": str(tries)})


def test_a_lost_connection_is_tried_again_until_it_answers(session: Session, closed: int, tmp_path: Path) -> None:
    done = run_plainly(session, asking(closed, 3, tmp_path / "tries"), delay_s=0)
    assert done is not None
    assert (done.root / "answer").read_text() == "here"
    assert (tmp_path / "tries").read_text() == "xxx"


def test_one_that_stays_lost_is_told_by_its_kind_alone(session: Session, closed: int, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="TG0704") as told:
        run_plainly(session, asking(closed, 99, tmp_path / "tries"), retries=2, delay_s=0)
    assert told.value.message == "ConnectionRefusedError in step ask"
    assert told.value.__cause__ is None
    assert (tmp_path / "tries").read_text() == "xxx", "the first try and two more"
