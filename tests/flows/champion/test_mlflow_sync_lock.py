"""Two processes that update MLflow: one waits and reports a timeout. And a lock that the disk refuses."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.champion import mlflow_sync as project
from flows.ledger.sqlite import LedgerFile
from flows.workspace.lock import hold
from tests.support.place import Place


def test_a_second_process_that_updates_mlflow_times_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "LOCK_WAIT_S", 0.0)
    place.record(1, "PROMOTE")
    locks = place.home / "locks"
    locks.mkdir(exist_ok=True)
    with hold(locks / "mlflow.teller", wait_s=0) as held:
        assert held
        late = project.synchronise(place.ledger, place.settings)
    assert late is not None
    assert late.code == "TG0710"
    assert place.ledger.pending_projections()


def test_a_host_that_loses_the_lock_between_two_updates_stops_sending(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    still_held = [True, False]

    @contextmanager
    def exclusive(self: LedgerFile, what: str, **_options: object) -> Iterator[Callable[[], bool]]:
        yield lambda: still_held.pop(0) if still_held else False

    place.promote(1, after=None)
    with monkeypatch.context() as patched:
        patched.setattr(LedgerFile, "exclusive", exclusive)
        result = project.reconcile(place.ledger, place.settings)
    assert result.late is not None
    assert (result.n_synced, result.repaired, result.late.code) == (1, (), "TG0710")
    assert [one.kind for one in place.ledger.pending_projections()] == ["champion"]
    assert project.synchronise(place.ledger, place.settings) is None
    assert place.mlflow_state()["versions"] == [("1", "PROMOTE")]


def test_a_disk_that_refuses_the_lock_keeps_the_verdict_and_the_outbox(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_options: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    place.record(1, "PROMOTE")
    with monkeypatch.context() as patched:
        patched.setattr("flows.ledger.base.hold", refuse)
        late = project.synchronise(place.ledger, place.settings)
    assert late is not None
    assert late.code == "TG0554"
    assert place.ledger.pending_projections()
    assert project.synchronise(place.ledger, place.settings) is None
