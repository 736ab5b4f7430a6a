"""Sub-flow one: tickets from the source to train, validation and test (`tunegate run NAME --until curate`)."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.declared import declared_steps
from flows.earlier import Earlier
from flows.engine.step import Step
from flows.feedback import insert_behind_redaction
from flows.finetune import base_model_step
from flows.privacy.index import index_new_results
from flows.quarantine import within_limit
from flows.retention import forget_old_texts
from flows.session import attach
from flows.snapshots import publish_snapshot
from flows.steps import run_stage
from schemas.artifacts import CurationCard, Perplexities, Splits, TicketTable, WarehouseRef
from schemas.pipeline import PipelineSpec
from tasks.curate.card import build_card
from tasks.curate.decontaminate import decontaminate
from tasks.curate.extract import extract_tickets
from tasks.curate.publish import publish_warehouse
from tasks.curate.split import split_tickets
from tasks.curate.validate import validate_tickets
from tasks.files import sha256_json
from tasks.forget.hashes import Forgotten
from tasks.spread import Spread

NOTHING = Earlier()


def curate_steps(
    spec: PipelineSpec,
    *,
    fingerprint: str,
    root: Path,
    cache: Path,
    landed: Path | None = None,
    earlier: Earlier = NOTHING,
    learned: Step | None = None,
    forgotten: Forgotten | None = None,
    spread: Spread | None = None,
) -> list[Step]:
    """The steps in order.

    Args:
        fingerprint: The source's content digest: new tickets make a new key.
        root: Folder of pipelines.yaml.
        cache: Downloads, for the base model when perplexity is measured.
        landed: Where sources are brought in (`flows/ingest.py`).
        earlier: What the last complete run left.
        learned: What agents' feedback brings in; goes behind redaction.
        forgotten: Customers whose rows are not read.
        spread: Does the parts of redaction and dedup elsewhere.
    """
    extract = Step(
        "extract",
        extract_tickets,
        TicketTable,
        params={"source": spec.source, "fingerprint": fingerprint},
        context={"root": root, "landed": landed, "forgotten": forgotten},
        also={"forgotten": sha256_json(sorted(forgotten.owners))} if forgotten else {},
        libraries=("datasets", "duckdb", "orjson", "pyarrow", "zstandard"),
        reports=True,
    )
    validate = Step(
        "validate",
        validate_tickets,
        TicketTable,
        inputs={"tickets": "extract"},
        params={"table": spec.table},
        libraries=("duckdb", "pyarrow", "pandera"),
    )
    declared = declared_steps(spec.curate.steps, after=validate.name, root=root, spread=spread)
    steps = insert_behind_redaction([extract, validate, *declared], learned)
    steps = [
        within_limit(step, spec.table) if step.returns is TicketTable and step not in (extract, validate) else step
        for step in steps
    ]
    tables = tuple(step.name for step in steps if step.returns is TicketTable)
    if any(step.returns is Perplexities for step in steps):
        steps.insert(2, base_model_step(spec, root=root, cache=cache))
    previous = {"previous": earlier.split} if earlier.split is not None and spec.split.stable else {}
    split = Step(
        "split",
        split_tickets,
        Splits,
        inputs={"tickets": tables[-1], **previous},
        goes_on_from="previous",
        params={"split": spec.split},
        libraries=("duckdb", "numpy", "pyarrow", "scipy"),
    )
    clean = Step(
        "decontaminate",
        decontaminate,
        Splits,
        inputs={"splits": "split"},
        params={"spec": spec.curate.decontaminate},
        libraries=("duckdb", "numba", "numpy", "pyarrow", "scipy"),
    )
    warehouse = Step(
        "warehouse",
        publish_warehouse,
        WarehouseRef,
        inputs={"stages": tables, "split": "split", "clean": "decontaminate"},
        params={"stage_names": tables},
        libraries=("duckdb", "pyarrow"),
    )
    card = Step(
        "card",
        build_card,
        CurationCard,
        inputs={
            "stages": tables,
            "split": "split",
            "clean": "decontaminate",
            **({"previous": earlier.card} if earlier.card is not None else {}),
        },
        params={"stage_names": tables},
        goes_on_from="previous",
        libraries=("duckdb", "orjson", "pyarrow"),
    )
    return [*steps, within_limit(split, spec.table), within_limit(clean, spec.table), warehouse, card]


@flow(name="curate")
def curate(pipeline: str, config: str = "pipelines.yaml", run_id: str | None = None) -> None:
    """Bring the pipeline's tickets to splits; every row that goes is kept with its reason."""
    with attach(pipeline, config, run_id) as session:
        run_stage(session, "curate")
        publish_snapshot(session)
        index_new_results(session.settings)
        forget_old_texts(session)
