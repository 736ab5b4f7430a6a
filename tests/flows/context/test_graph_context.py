"""What a graph depends on besides its declaration, of today and of a past day."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows.context.graph_context import context_of
from flows.context.labels import add_votes
from flows.context.previous_run import PreviousRun
from flows.registry.state import RegistryState
from flows.workspace.settings import load_settings
from schemas.artifacts import ModelRef
from schemas.load import load_file
from tests.support.workplace import small_document


def test_a_look_at_a_past_day_has_the_labels_of_that_day(
    tmp_path: Path, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = small_document(str(tiny_model.root))
    document["pipelines"]["small"]["evaluate"]["labels"] = "differing"
    config = tmp_path / "pipelines.yaml"
    YAML().dump(document, config)
    spec, settings = load_file(config).get("small"), load_settings(config)
    for moment, label in (("2026-05-31T23:59:59Z", "a"), ("2026-06-01T00:00:00Z", "b")):
        monkeypatch.setenv("TUNEGATE_NOW", moment)
        add_votes(settings.home, "small", "ada", {label: True})

    def labels(as_of: str | None) -> list[str]:
        state, previous = RegistryState(), PreviousRun()
        context = context_of(
            spec, settings, root=tmp_path, registry_state=state, previous_run=previous, as_of=as_of
        )  # fmt: skip
        return [*context.labels]

    assert [labels(day) for day in ("2026-05-30", "2026-05-31", None)] == [[], ["a"], ["a", "b"]]
