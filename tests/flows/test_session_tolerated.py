"""A step that may fail leaves itself out, the run goes on, and the ledger keeps what went wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flows.engine.step import Step
from flows.session import Session
from schemas.artifacts import Artifact
from schemas.errors import TrainingError


def diverge(*, code: str, out: Path) -> Artifact:
    raise TrainingError("loss is not finite", code=code)


def after(*, out: Path, x: Artifact | None = None, several: tuple[Artifact, ...] = ()) -> Artifact:
    (out / "count").write_text(str(len(several)))
    return Artifact(root=out)


def test_a_diverged_training_is_out_and_the_others_go_on(session: Session) -> None:
    training = Step("t1", diverge, Artifact, params={"code": "TG0401"}, tolerates=("TG0401",))
    assert session.run(training) is None
    assert session.run(Step("s1", after, Artifact, {"x": "t1"})) is None
    chosen = session.run(Step("all", after, Artifact, {"several": ("t1", "s1")}))
    assert chosen is not None
    assert (chosen.root / "count").read_text() == "0"
    assert session.left_out == {"t1": "TG0401: loss is not finite", "s1": "t1 was left out"}
    rows = {row.step: (row.state, row.error) for row in session.ledger.steps("run-1")}
    assert rows["t1"] == ("failed", "TG0401: loss is not finite")
    assert "s1" not in rows


def test_any_other_error_ends_the_run(session: Session) -> None:
    training = Step("t1", diverge, Artifact, params={"code": "TG0405"}, tolerates=("TG0401",))
    with pytest.raises(TrainingError):
        session.run(training)
    assert "t1" not in session.left_out
    with pytest.raises(TrainingError):
        session.run(replace(training, name="t2", params={"code": "TG0401"}, tolerates=()))
