"""What pages of MLflow and Prefect say of a verdict: Markdown in which labels of tickets are text."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from flows.champion.run_record import describe_verdict
from flows.effects.pages import show_verdict
from schemas.artifacts import GateDecision

DECISION = GateDecision(
    root=Path("gate"), verdict="BLOCK", reason="worse in category=![x](https://evil/p.png)\n# PROMOTE", findings=(),
    n_items=3, champion_version=None,
)  # fmt: skip
AS_TEXT = "worse in category=!\\[x\\](https:&#8203;//evil/p.png) # PROMOTE"


def test_a_label_in_a_reason_is_text_on_the_pages_of_mlflow_and_prefect() -> None:
    assert describe_verdict(DECISION) == f"**BLOCK**\n\nchampion: none\n\n{AS_TEXT}"
    shown: list[Any] = []
    listeners = SimpleNamespace(table=lambda *given: shown.append(given), text=lambda *given: shown.append(given))
    show_verdict(cast("Any", SimpleNamespace(listeners=listeners)), decision=DECISION)
    assert shown == [("gate", [], AS_TEXT), ("verdict", f"# BLOCK\n\n{AS_TEXT}\n")]
