"""Two processes that tell MLflow: one waits, and says so when it waited in vain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flows import project
from flows.engine.lock import hold

if TYPE_CHECKING:
    from tests.flows.conftest import Place


def test_a_second_process_that_tells_mlflow_gives_up(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "TELLER_WAIT_S", 0.0)
    place.record(1, "PROMOTE")
    locks = place.home / "locks"
    locks.mkdir(exist_ok=True)
    with hold(locks / "mlflow.teller", wait_s=0) as held:
        assert held
        late = project.synchronise(place.ledger, place.settings)
    assert late is not None
    assert late.code == "TG0711"
    assert place.ledger.pending_projections()
