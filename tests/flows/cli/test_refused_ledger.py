"""A ledger that was altered, restored, removed or exchanged is refused by every command that reads it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from flows.cli.app import app
from flows.cli.commands import TopLevel
from flows.workspace.settings import load_settings
from tests.support.place import Place
from tests.support.workplace import Workplace

RUN = "run-2"
COMMANDS: dict[str, tuple[str, ...]] = {
    "plan": ("plan", "small"),
    "run": ("run", "small", "--until", "curate"),
    "status": ("status",),
    "runs": ("runs",),
    "show": ("show", RUN),
    "report": ("report", "--last", "small", "--out", "report.html"),
    "predict": ("predict", "small", "--file", "ticket.txt"),
    "graph": ("graph", "small"),
    "data curate": ("data", "curate", "small"),
    "data diff": ("data", "diff", RUN, "run-1"),
    "data funnel": ("data", "funnel", "small"),
    "data quarantine": ("data", "quarantine", "small"),
    "data review": ("data", "review", "small"),
    "data suspects": ("data", "suspects", "small"),
    "data export": ("data", "export", "small", "--out", "exported"),
    "data preview": ("data", "preview", "small"),
    "data lineage": ("data", "lineage", "small@champion"),
    "data forget --plan": ("data", "forget", "C-1", "--plan"),
    "data forget --apply": ("data", "forget", "C-1", "--apply", "--unknown", "--reason", "asked"),
    "gate check": ("gate", "check", "vendor", "--champion", "a.csv", "--candidate", "b.csv"),
    "gate explain": ("gate", "explain", RUN),
    "gate resume": ("gate", "resume", RUN),
    "gate label": ("gate", "label", RUN),
    "model champion": ("model", "champion", "small"),
    "model history": ("model", "history", "small"),
    "model promote": ("model", "promote", "small", "1", "--force", "--reason", "r"),
    "model approve": ("model", "approve", RUN, "--by", "ada"),
    "model rollback": ("model", "rollback", "small", "--reason", "r"),
    "model export": ("model", "export", "small@champion", "--out", "exported"),
    "model endpoint": ("model", "endpoint", "small", "--port", "0"),
    "model feedback": ("model", "feedback", "small", "feedback.jsonl"),
    "study advise": ("study", "advise", "small"),
    "study cost": ("study", "cost", "small", "--queries", "1000"),
    "study ablate": ("study", "ablate", "small"),
    "study compare": ("study", "compare", RUN, "run-1"),
    "study reproduce": ("study", "reproduce", RUN),
    "ops tick": ("ops", "tick", "small"),
    "ops reconcile": ("ops", "reconcile"),
    "ops metrics": ("ops", "metrics"),
    "ops doctor": ("ops", "doctor"),
}
NOT_READING = {
    "init", "try", "validate", "pin", "explain", "data sample", "data dictionary", "model verify", "study estimate",
    "ops up", "ops down", "ops serve", "ops deploy", "ops migrate", "ops schema",
}  # fmt: skip
"""Commands that believe nothing that the ledger says; `ops serve` starts runs, which check it."""


def alter(place: Place, _tmp: Path) -> None:
    """Demote the champion as someone who knows about the triggers does."""
    with closing(sqlite3.connect(place.ledger.path)) as db, db:
        db.execute("UPDATE champions SET version = '1'")
        db.execute("DELETE FROM touched")


def put_back(place: Place, tmp: Path) -> None:
    shutil.copy(tmp / "before.sqlite", place.ledger.path)


def remove(place: Place, _tmp: Path) -> None:
    place.ledger.path.unlink()


def exchange(place: Place, tmp: Path) -> None:
    other = Place(replace(place.settings, home=tmp / "other", state=None))
    other.promote(1, after=None, name="small")
    other.promote(2, after="1", name="small")
    shutil.copy(other.ledger.path, place.ledger.path)


def put_bytes(place: Place, _tmp: Path) -> None:
    with closing(sqlite3.connect(place.ledger.path)) as db, db:
        db.execute("UPDATE runs SET reason = x'00ff'")
        db.execute("DELETE FROM touched")


def put_no_text(place: Place, _tmp: Path) -> None:
    with closing(sqlite3.connect(place.ledger.path)) as db, db:
        db.execute("UPDATE runs SET reason = CAST(x'ff' AS TEXT)")
        db.execute("DELETE FROM touched")


def drop_table(place: Place, _tmp: Path) -> None:
    with closing(sqlite3.connect(place.ledger.path)) as db, db:
        db.execute("DROP TABLE marks")


EDITS: dict[str, tuple[str, Callable[[Place, Path], None]]] = {
    "altered": ("TG0580", alter),
    "older": ("TG0581", put_back),
    "removed": ("TG0581", remove),
    "exchanged": ("TG0581", exchange),
    "bytes": ("TG0580", put_bytes),
    "no text": ("TG0580", put_no_text),
    "no table": ("TG0580", drop_table),
}


@pytest.fixture
def filled(empty_workplace: Workplace, tmp_path: Path) -> Place:
    """The workplace's home with two champions, and a backup of its ledger from before the second."""
    settings = load_settings(empty_workplace.folder / "pipelines.yaml", environ=empty_workplace.environ)
    place = Place(replace(settings, home=empty_workplace.home))
    place.promote(1, after=None, name="small")
    shutil.copy(place.ledger.path, tmp_path / "before.sqlite")
    place.promote(2, after="1", name="small")
    for name, value in (("a.csv", 0), ("b.csv", 1)):
        (empty_workplace.folder / name).write_text(f"id,exact\nt1,{value}\nt2,1\n")
    (empty_workplace.folder / "ticket.txt").write_text("Where is my parcel?")
    (empty_workplace.folder / "feedback.jsonl").write_text('{"id": "1", "reply": "r", "version": "2"}\n')
    return place


@pytest.mark.parametrize("edit", EDITS)
def test_a_bad_ledger_is_refused_by_every_command_that_reads_it(
    empty_workplace: Workplace, filled: Place, tmp_path: Path, edit: str
) -> None:
    assert empty_workplace.run("status").returncode == 0
    assert filled.settings.state is not None
    code, apply = EDITS[edit]
    apply(filled, tmp_path)
    witness = filled.ledger.witness
    assert witness is not None
    seen = witness.seen()
    passed = []
    for name, arguments in COMMANDS.items():
        done = empty_workplace.run(*arguments)
        if code not in done.stderr + done.stdout or done.returncode == 0:
            passed.append((name, done.returncode, done.stdout[-300:], done.stderr[-300:]))
    assert passed == []
    assert witness.seen() == seen


def test_every_command_is_known_to_read_the_ledger_or_not_to() -> None:
    top = get_command(app)
    assert isinstance(top, TopLevel)
    found = set()
    for name, each in top.commands.items():
        found |= {f"{name} {inner}" for inner in each.commands} if isinstance(each, TyperGroup) else {name}
    assert found == {name.partition(" --")[0] for name in COMMANDS} | NOT_READING
