"""What is handed over to a worker and taken back, and what both sides refuse; tests/system covers the Prefect part."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.graph.execute import Run, run_plainly
from flows.run.open_run import OpenRun, open_run
from flows.run.placement import (
    check_taken,
    first_missing,
    give_back,
    hand_over,
    made_first,
    open_placed,
    runs_on_worker,
    take_back,
)
from flows.workspace.settings import Settings, load_settings
from schemas.errors import ConfigError, SecurityError, StorageError
from schemas.load import load_file
from schemas.pipeline import PipelineSpec
from tests.support.workplace import Workplace


@pytest.fixture
def opened(empty_workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenRun]:
    """A run of the small pipeline that has just begun, in this process."""
    for name, value in empty_workplace.environ.items():
        monkeypatch.setenv(name, value)
    config = empty_workplace.folder / "pipelines.yaml"
    spec, settings = load_file(config).get("small"), load_settings(config)
    with open_run(spec, settings, root=config.parent) as found:
        yield found


@pytest.fixture
def worker(opened: OpenRun, tmp_path: Path) -> Settings:
    """Another machine: its own home without a ledger, and the shared folder."""
    return replace(opened.context.settings, home=tmp_path / "worker", shared_store=opened.context.settings.home)


def place(opened: OpenRun, settings: Settings, stage: str, spec: PipelineSpec | None = None) -> tuple[Run, str]:
    """Hand a stage over and open it on the worker; the work itself is not done."""
    _, digest = hand_over(opened, stage)
    return open_stage(opened, settings, stage, digest, spec), digest


def open_stage(
    opened: OpenRun, settings: Settings, stage: str, digest: str, spec: PipelineSpec | None = None, run_id: str = ""
) -> Run:
    """Open a stage on the worker from the handover with this digest."""
    return open_placed(
        spec or opened.context.spec, settings, root=opened.context.root, run_id=run_id or opened.context.run_id,
        stage=stage, handover=digest,
    )  # fmt: skip


def run_on_worker(opened: OpenRun, settings: Settings, stage: str) -> set[str]:
    """Run a stage on the worker and take it back; return the names of what it made."""
    run, digest = place(opened, settings, stage)
    work(run, stage)
    give_back(run, stage, opened.context.run_id, digest)
    made = take_back(opened, stage, run_id=opened.context.run_id, handover=digest)
    run_plainly(opened.run, stage=stage)
    check_taken(opened, made)
    return set(made)


def work(run: Run, stage: str) -> None:
    run_plainly(run, stage=stage, only=lambda node: runs_on_worker(run.graph, node))


def test_a_worker_makes_a_stage_and_the_ledger_records_it_as_made(opened: OpenRun, worker: Settings) -> None:
    assert first_missing(opened, "curate") == "extract"
    made = run_on_worker(opened, worker, "curate")
    assert {"extract", "dedup", "split", "card", "warehouse"} <= made
    rows = {row.step: row for row in opened.context.ledger.steps(opened.context.run_id)}
    assert {rows[name].state for name in ("extract", "dedup", "split")} == {"done"}
    assert rows["dedup"].seconds > 0
    assert not (worker.home / "ledger.sqlite").exists()
    assert first_missing(opened, "curate") is None


def test_a_worker_reuses_what_was_made_here_first(opened: OpenRun, worker: Settings) -> None:
    """As after a customer is forgotten, when only the holder of the tombstones' key reads the source."""
    raw = dict(opened.pipeline.curated.tables)["extract"]
    run_plainly(opened.run, targets=(raw,))
    run, _ = place(opened, worker, "curate")
    assert run.outcomes["extract"].result.digest == opened.run.result(raw).digest
    made = run_on_worker(opened, worker, "curate")
    assert "extract" not in made
    assert "dedup" in made


def test_what_needs_no_training_is_made_here_before_a_worker_gets_the_stage(opened: OpenRun, worker: Settings) -> None:
    run_plainly(opened.run, stage="curate")
    first = made_first(opened.run.graph, "finetune")
    assert {"items", "prompts · tuned", "scores · majority", "scores · tfidf", "base_model", "fits"} <= first
    assert not {"encode", "train"} & first
    assert first_missing(opened, "finetune") == "encode"  # of the others none needs a worker
    run_plainly(opened.run, stage="finetune", only=lambda node: node.name in first)
    run, _ = place(opened, worker, "finetune")
    assert first == {node.name for node in run.graph.of_stage("finetune") if node.name in run.outcomes}
    assert not first & {node.name for node in run.graph.of_stage("finetune") if runs_on_worker(run.graph, node)}


def test_the_gate_and_all_effects_stay_with_the_ledger(opened: OpenRun) -> None:
    graph = opened.run.graph
    stays = {node.name for node in graph.nodes.values() if not runs_on_worker(graph, node)}
    assert {"gate", "show_verdict", "publish", "index_customers", "record", "promote"} <= stays
    assert not {"extract", "train", "answers · tuned"} & stays


def test_a_worker_gets_what_it_needs_of_a_later_rung_with_another_base_model(
    empty_workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def climb(document: dict[str, Any]) -> None:
        train = document["pipelines"]["small"]["train"]
        other = shutil.copytree(train["base_model"].removeprefix("file:"), empty_workplace.folder / "other")
        rungs = [
            {"name": "first", "set": {"method": "lora"}},
            {"name": "second", "set": {"method": "lora", "base_model": f"file:{other}"}},
        ]
        target = {"metric": "answered", "value": 0.5}
        train |= {"method": "ladder", "ladder": {"target": target, "rungs": rungs}}

    for name, value in empty_workplace.environ.items():
        monkeypatch.setenv(name, value)
    empty_workplace.declare(climb)
    config = empty_workplace.folder / "pipelines.yaml"
    with open_run(load_file(config).get("small"), load_settings(config), root=config.parent) as opened:
        graph = opened.run.graph
        first, nodes = made_first(graph, "finetune"), graph.of_stage("finetune")
        workers = {node for node in nodes if runs_on_worker(graph, node)}
        known = workers | {node for node in nodes if node.name in first}
        assert "base_model_2" in {node.name for node in workers}
        assert "base_model" in first
        for node in workers:
            assert graph.ancestors(node) & set(nodes) <= known, node.name


def test_a_result_that_the_worker_did_not_make_is_an_error(opened: OpenRun, worker: Settings) -> None:
    run, digest = place(opened, worker, "curate")
    run_plainly(
        run, stage="curate", only=lambda node: runs_on_worker(run.graph, node) and node.name in ("extract", "validate")
    )
    give_back(run, "curate", opened.context.run_id, digest)
    with pytest.raises(StorageError, match=r"TG0549.*no result of redact"):
        take_back(opened, "curate", run_id=opened.context.run_id, handover=digest)


def test_a_run_with_a_worker_store_is_refused(empty_workplace: Workplace) -> None:
    done = empty_workplace.run("run", "small", TUNEGATE_STORE="/mnt/shared")
    assert done.returncode == 2
    assert "TUNEGATE_STORE" in done.stderr


def test_no_ticket_text_is_handed_over(opened: OpenRun, worker: Settings) -> None:
    run_on_worker(opened, worker, "curate")
    hand_over(opened, "finetune")
    tickets = opened.run.result(opened.pipeline.curated.clean).train
    import pyarrow.parquet as pq

    bodies = [body for body in pq.read_table(tickets, columns=["body"]).column(0).to_pylist() if body]
    for file in sorted((opened.context.settings.home / "handover").glob("*.json")):
        text = file.read_text()
        assert not any(body[:40] in text for body in bodies), file.name
        assert file.stat().st_mode & 0o077 == 0


def test_a_worker_without_the_shared_folder_is_refused(opened: OpenRun, worker: Settings) -> None:
    with pytest.raises(ConfigError, match=r"TG0119.*shared folder"):
        place(opened, replace(worker, shared_store=None), "curate")


def test_a_different_declaration_is_named(opened: OpenRun, worker: Settings) -> None:
    spec = opened.context.spec
    other = spec.model_copy(update={"train": spec.train.model_copy(update={"seed": 99})})
    with pytest.raises(ConfigError, match=r"TG0119.*the declaration of small"):
        place(opened, worker, "curate", other)


@pytest.mark.parametrize(
    ("part", "name", "expected"),
    [
        ("code", "tasks.curate.dedup", "code of tasks.curate.dedup"),
        ("libraries", "duckdb", r"duckdb 0\.0\.1 there, .+ here"),
    ],
)
def test_different_code_and_libraries_are_named(
    opened: OpenRun, worker: Settings, part: str, name: str, expected: str
) -> None:
    digest = forge(opened, "curate", lambda handover: handover[part].update({name: "0.0.1"}))
    with pytest.raises(ConfigError, match=rf"TG0119.*{expected}"):
        open_stage(opened, worker, "curate", digest)


def test_a_changed_handover_is_refused(opened: OpenRun, worker: Settings) -> None:
    _, digest = hand_over(opened, "curate")
    forge(opened, "curate", lambda handover: handover.update(source="another"))
    with pytest.raises(SecurityError, match="TG0840"):
        open_stage(opened, worker, "curate", digest)
    with pytest.raises(SecurityError, match="TG0840"):
        open_stage(opened, worker, "curate", digest, run_id="20260101-000000-aaaa")


def test_a_changed_earlier_result_is_refused(opened: OpenRun, worker: Settings) -> None:
    run_on_worker(opened, worker, "curate")
    clean = opened.run.result(opened.pipeline.curated.clean)
    (clean.root / "train.parquet").write_bytes(b"other tickets")
    with pytest.raises(StorageError, match="TG0549"):
        place(opened, worker, "finetune")


def test_results_of_another_handover_are_not_taken_back(opened: OpenRun, worker: Settings) -> None:
    run, digest = place(opened, worker, "curate")
    work(run, "curate")
    give_back(run, "curate", opened.context.run_id, "0" * 64)
    with pytest.raises(SecurityError, match="TG0840"):
        take_back(opened, "curate", run_id=opened.context.run_id, handover=digest)


def test_results_for_another_ledger_are_not_taken_back(opened: OpenRun, worker: Settings) -> None:
    digest = forge(opened, "curate", lambda handover: handover.update(ledger="f" * 64))
    run = open_stage(opened, worker, "curate", digest)
    work(run, "curate")
    give_back(run, "curate", opened.context.run_id, digest)
    with pytest.raises(SecurityError, match="TG0840"):
        take_back(opened, "curate", run_id=opened.context.run_id, handover=digest)


def test_the_same_work_has_the_same_name_after_the_ledger_moved_on(opened: OpenRun) -> None:
    first, _ = hand_over(opened, "curate")
    opened.context.ledger.name_run(opened.context.run_id, prefect_run_id="another")  # changes the ledger
    second, _ = hand_over(opened, "curate")
    assert first.ledger != second.ledger
    assert first.work == second.work
    assert first.model_copy(update={"source": "new tickets"}).work != first.work


def forge(opened: OpenRun, stage: str, change: Callable[[dict[str, Any]], object]) -> str:
    """Change the handover; return the sha256 of the changed file."""
    from tasks.storage.files import sha256_file

    hand_over(opened, stage)
    file = opened.context.settings.home / "handover" / f"{opened.context.run_id}-{stage}.json"
    handover = json.loads(file.read_text())
    change(handover)
    file.write_text(json.dumps(handover))
    return sha256_file(file)
