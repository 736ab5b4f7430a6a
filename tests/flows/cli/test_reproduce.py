"""`tunegate study reproduce` repeats a run from its inputs and finds the first byte that differs."""

from collections.abc import Callable
from pathlib import Path

from flows.ledger.ledger import Ledger
from schemas.artifacts import ModelRef
from schemas.load import load_file


def test_a_run_without_a_complete_step_cannot_be_reproduced(
    refusal: Callable[..., str], tmp_path: Path, tiny_model: ModelRef
) -> None:
    pipelines = tmp_path / "pipelines.yaml"
    pipelines.write_text(pipelines.read_text().replace("file:models/x", f"file:{tiny_model.root}"))
    (tmp_path / "absent.sql").write_text("SELECT * FROM tickets")
    spec = load_file(pipelines).get("replies")
    config = spec.model_dump_json(by_alias=True)
    Ledger(tmp_path / ".tunegate").start_run("run-1", pipeline="replies", model_name="replies", config_json=config)
    assert "error[TG0159]" in refusal("study", "reproduce", "run-1")
