"""What the gate reads from feedback: which version's suggestions, in which state; and where feedback enters a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.build import build
from flows.context.graph_context import GraphContext
from flows.graph.graph import Graph
from flows.registry.feedback import feedback_database, state_of
from flows.registry.state import registry_state_of
from schemas.artifacts import ModelRef
from schemas.errors import ConfigError
from schemas.pipeline import PipelineSpec
from schemas.training import PromptSpec
from tasks.monitor.feedback import FeedbackRules, ingest_feedback
from tests.support.place import Place
from tests.support.specs import pipeline_spec


def spec(**more: Any) -> PipelineSpec:
    steps = {"steps": [{"uses": "redact"}, {"uses": "dedup"}]}
    return pipeline_spec(register={"name": "replies"}, curate=steps, **more)


def ingest(home: Path, *ticket_ids: str) -> None:
    database = feedback_database(home, "replies")
    database.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"ticket_id": one, "version": "1", "outcome": "rejected", "at": "2026-07-01T10:00:00Z"}).encode()
        for one in ticket_ids
    ]
    ingest_feedback(lines, FeedbackRules(frozenset({"1"})), source="file", database=database)


def test_a_candidate_that_served_before_is_recognised_by_what_it_answers_with(place: Place) -> None:
    place.promote(1, after=None)
    ingest(place.home, "T-1", "T-2")
    registry_state = registry_state_of(spec(feedback={}), place.ledger)
    row = place.ledger.candidate("replies", "1")
    assert row is not None
    same = registry_state.live_for(PromptSpec(), 4, row.ref.model, row.ref.trained)
    assert (same.candidate, same.champion) == ("1", "1")
    assert [(one.version, one.n, one.n_accepted) for one in same.versions] == [("1", 2, 0)]
    assert registry_state.live_for(PromptSpec(), 5, row.ref.model, row.ref.trained).candidate is None
    assert registry_state_of(spec(), place.ledger).live is None  # feedback is not declared, so not read
    ingest(place.home, "T-3")
    assert registry_state_of(spec(feedback={}), place.ledger).feedback_digest != registry_state.feedback_digest


def test_feedback_is_a_step_after_redaction_only_if_there_is_feedback(tmp_path: Path, tiny_model: ModelRef) -> None:
    train = {"base_model": f"file:{tiny_model.root}"}

    def graph(**more: Any) -> Graph:
        declared = spec(train=train, **more)
        context = GraphContext(
            "f",
            root=tmp_path,
            cache=tmp_path,
            feedback=state_of(declared, tmp_path),
            feedback_database=feedback_database(tmp_path, declared.registry.name),
        )
        return build(declared, context).graph

    assert "feedback" not in graph(feedback={}).nodes
    ingest(tmp_path, "T-1")
    assert "feedback" not in graph().nodes
    assert "feedback" not in graph(feedback={"learn": False}).nodes
    learning = graph(feedback={})
    chain = {name: node.arguments["tickets"].node for name, node in learning.nodes.items() if "tickets" in node.inputs}
    assert list(learning.nodes)[:5] == ["extract", "validate", "redact", "feedback", "dedup"]
    steps = ("feedback", "dedup", "contract", "split")
    assert [chain[name] for name in steps] == ["redact", "feedback", "dedup", "contract"]


def test_an_invalid_clock_setting_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.workspace.clock import present

    for value in ("tomorrow", "2026-07-01T10:00:00"):
        monkeypatch.setenv("TUNEGATE_NOW", value)
        with pytest.raises(ConfigError, match="TG0103"):
            present()
