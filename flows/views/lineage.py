"""Trace where a ticket, a customer's tickets or a model came from, and what became of them. Only reads.

`tunegate data lineage` prints it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.ledger.rows import CandidateRow
from flows.privacy.index import HomeGraph, StoredResult
from flows.privacy.keys import hashes_of, load_hashes, names_of
from flows.privacy.trace import Tracer
from flows.records.published import warehouse_folder
from flows.registry.held import LEARNED
from flows.views.run_reader import Recorded
from flows.workspace.settings import Settings
from schemas.artifacts import DatasetRef, Splits, WarehouseRef
from schemas.errors import DataError
from schemas.load import PipelineFile
from schemas.pipeline import DataPipeline
from tasks.curate.warehouse_query import Lineage, customer_fates, lineage_of


@dataclass(frozen=True)
class NamedLineage:
    """What has this name: a model, a ticket by pipeline, a customer."""

    model: Mapping[str, Any] | None
    tickets: Mapping[str, Lineage]
    customer: Mapping[str, Any] | None


def find_lineage(what: str, loaded: PipelineFile, settings: Settings, *, pipeline: str | None) -> NamedLineage:
    """Find whatever has this name.

    Args:
        what: `NAME/VERSION` or `NAME` of a model, or the id of a ticket or a customer as in the source.
        pipeline: Only this one; None for all that have a warehouse.

    Raises:
        DataError: TG0265, nothing has this name.
        ConfigError: TG0190, a pipeline makes pseudonyms of customers, and their key is not in the environment.
    """
    names = [pipeline] if pipeline is not None else sorted(loaded.pipelines)
    specs = [loaded.find(name) for name in names]
    row = find_version(open_ledger(settings), what)
    model = None if row is None else model_lineage(settings, row)
    databases = {name: warehouse_folder(settings.home, name) / "warehouse.duckdb" for name in names}
    if pipeline is None:
        databases = {name: file for name, file in databases.items() if file.is_file()}
    tickets = {name: found for name, file in databases.items() if (found := lineage_of(file, what)) is not None}
    customer = None if model or tickets else _customer(settings, specs, databases, what)
    if not model and not tickets and not customer:
        raise DataError(
            "no ledger knows this model, no warehouse this ticket or this customer",
            code="TG0265",
            where=what,
            hint="`tunegate data curate PIPELINE` first; ids are those of the source, made ones are FILE-LINE; "
            "models are NAME or NAME/VERSION",
        )
    return NamedLineage(model, tickets, customer)


def find_version(ledger: Ledger, what: str) -> CandidateRow | None:
    """Return `NAME/VERSION`; for `NAME` its champion, or its newest candidate if it has none."""
    name, slash, version = what.rpartition("/")
    if slash and version.isdecimal():
        return ledger.candidate(name, version)
    champion = ledger.champion(what)
    if champion is not None:
        return ledger.candidate(what, champion.version)
    return next(iter(ledger.candidates(what)), None)


def model_lineage(settings: Settings, row: CandidateRow) -> dict[str, Any]:
    """Return everything that is known about the version's origin; what is gone from the store is None."""
    ledger, ref = open_ledger(settings), row.ref
    graph = HomeGraph(settings.home, ledger)
    recorded = Recorded(settings, ref.run_id)
    if LEARNED in recorded.keys:  # that run judged it again; the tickets are those of the one that trained it
        recorded = Recorded(settings, ledger.made_by(ref.trained.root.name) or ref.run_id)
    mark = ledger.mark_of(recorded.row.run_id)
    warehouse = recorded.result("warehouse", WarehouseRef)
    clean = recorded.result("decontaminate", Splits)
    trained = next((node for node in graph.nodes if node.key == ref.trained.root.name and node.step == "train"), None)
    inputs = [] if trained is None else [
        node for digest in sorted(trained.inputs) for node in graph.by_digest.get(digest, [])
    ]  # fmt: skip
    source = next((node for node in inputs if "n_supervised" in graph.reference(node)), None)
    dataset = None if source is None else recorded.store.whole(source.step, source.key, DatasetRef)
    champion = ledger.champion(ref.name)
    return {
        "name": ref.name,
        "version": ref.version,
        "is_champion": champion is not None and champion.version == ref.version,
        "verdict": row.verdict,
        "run_id": ref.run_id,
        "pipeline": recorded.row.pipeline,
        "recorded_at": row.recorded_at,
        "mlflow_version": row.mlflow_version,
        "snapshot_id": mark.snapshot_id if mark else warehouse.snapshot_id if warehouse else None,
        "tickets": {"train": clean.n_train, "validation": clean.n_validation, "test": clean.n_test} if clean else None,
        "examples": (
            {"train": dataset.n_train, "validation": dataset.n_validation, "tokens": dataset.n_tokens}
            if dataset
            else None
        ),
        "base": {"uri": ref.model.uri, "digest": ref.model.digest},
        "trained": {
            "method": ref.trained.method, "format": ref.trained.format, "steps": ref.trained.n_steps,
            "digest": ref.trained.digest, "external": ref.trained.external,
        },
        "goes_on_from": _parents(graph, inputs, ledger),
        "bundle": ref.bundle.digest,
        "marked": [mark.summary for mark in ledger.marked(ref.name, ref.version)],
    }  # fmt: skip


def _parents(graph: HomeGraph, inputs: list[StoredResult], ledger: Ledger) -> list[str]:
    """Return the trainings among the inputs of a training, as versions if they are registered."""
    versions = {
        row.ref.trained.root.name: f"{row.ref.name} v{row.ref.version}"
        for name in ledger.model_names()
        for row in ledger.candidates(name)
    }
    return [versions.get(node.key, node.place) for node in inputs if "n_trainable" in graph.reference(node)]


def _customer(
    settings: Settings, specs: list[DataPipeline], databases: dict[str, Path], what: str
) -> dict[str, Any] | None:
    """Return the fates of a customer's tickets by pipeline, and versions that learned from them; None if unknown."""
    fates = {
        spec.name: customer_fates(databases[spec.name], names_of(what, [spec]))
        for spec in specs
        if spec.name in databases
    }
    owner, forgotten = hashes_of(what, specs, load_hashes(settings))
    tracer = Tracer(settings, forgotten, skip_locked=True)
    versions = list(tracer.versions(tracer.found(sorted(forgotten.owners))))
    forgotten_at = [each.at for each in tracer.ledger.tombstones() if each.id == owner]
    if not any(fates.values()) and not versions and not forgotten_at:
        return None
    return {
        "pipelines": {name: list(rows) for name, rows in fates.items() if rows},
        "learned_by": [version.model_dump(mode="json") for version in versions],
        "forgotten_at": forgotten_at[0] if forgotten_at else None,
    }
