"""The newest check of labels is found however many ticks were skipped since, and its steps can be pasted."""

import textwrap
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.ledger.open import open_ledger, open_store
from flows.views.label_suspects import find_suspects
from flows.workspace.settings import Settings
from schemas.artifacts import LabelSources
from schemas.curation_steps import RuleStep
from schemas.diagnosis import LabelGroup
from schemas.errors import ConfigError
from schemas.load import load_file
from schemas.schedule import Decision
from tests.support.specs import SMALL_FILE

NAMES = (
    "week47.csv", "week 47.csv", "week-47.csv", "表.csv", "票.csv", "é😀.csv", "it's \"the\" week\\47.csv",
    "a\nb: {c}, #d.csv", f"{'long/' * 40}week47.csv", f"{'long/' * 40}week48.csv",
)  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", cache=tmp_path, prefect_api_url=None, mlflow_tracking_uri=None)


def check(settings: Settings, run_id: str, *, pipeline: str = "replies") -> None:
    """Record a run whose check of labels names every file of `NAMES`."""
    groups = tuple(
        LabelGroup(
            kind="file", name=name, n_checked=30, n_suspects=20, share_elsewhere=0.0, p_chance=0.0, disagrees=True
        )
        for name in NAMES
    )

    def produce(out: Path) -> LabelSources:
        pq.write_table(pa.table({"source": list(NAMES)}), out / "label_suspects.parquet")
        return LabelSources(root=out, field="category", n_checked=300, n_suspects=200, groups=groups, shifts=())

    ledger = open_ledger(settings)
    ledger.start_run(run_id, pipeline=pipeline, model_name="replies", config_json="{}")
    ledger.record_step(
        run_id, "label_sources", open_store(settings).obtain("label_sources", run_id, LabelSources, produce)
    )


def test_the_newest_check_is_found_after_any_number_of_skipped_ticks(settings: Settings) -> None:
    for run_id, pipeline in (("r1", "replies"), ("r2", "replies"), ("r3", "other")):
        check(settings, run_id, pipeline=pipeline)
    for number in range(120):
        open_ledger(settings).record_skip(
            f"s{number}", pipeline="replies", model_name="replies", cause="schedule", scheduled_for="",
            decision=Decision(run=False, code="few", reason="too few"),
        )  # fmt: skip
    assert find_suspects(settings, "replies", limit=5).run_id == "r2"
    with pytest.raises(ConfigError, match="TG0159"):
        find_suspects(settings, "unchecked", limit=5)


def test_the_printed_steps_load_and_each_leaves_out_its_own_file(settings: Settings, tmp_path: Path) -> None:
    check(settings, "r1")
    ways = list(find_suspects(settings, "replies", limit=5).ways_out())
    steps = textwrap.indent("\n".join(["curate:", "  steps:", *(f"  {way}" for way in ways)]), "    ")
    file = tmp_path / "pipelines.yaml"
    file.write_text(SMALL_FILE + steps + "\n", encoding="utf-8")
    loaded = load_file(file).get("replies").curate.steps
    names = pa.table({"source": list(NAMES)})
    assert len(loaded) == len(NAMES)
    for name, step in zip(NAMES, loaded, strict=True):
        assert isinstance(step, RuleStep)
        with duckdb.connect() as db:
            db.register("names", names)
            kept = {row[0] for row in db.execute(f"SELECT source FROM names WHERE {step.keep}").fetchall()}
        assert kept == set(NAMES) - {name}
    assert loaded[0].label.startswith("without_week47_csv_")
