"""Repeat a recorded run's data and training steps from their recorded inputs, and compare every byte.

Each step is repeated separately on the stored results of the steps before it: a difference is reported where it arises,
not where it ends. Nothing is stored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import orjson

from flows.build import build
from flows.context.as_of import end_of
from flows.context.graph_context import context_of
from flows.context.previous_run import PreviousRun
from flows.graph.execute import NodeOutcome, Observer, Run, repeat
from flows.graph.graph import Node
from flows.graph.keys import why_changed
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.ledger.rows import StepRow
from flows.registry.held import LEARNED
from flows.registry.state import RegistryState, StartingPoint, starting_point
from flows.views.run_reader import declared_of
from flows.workspace.settings import Settings
from schemas.artifacts import Artifact, CheckResults, CurationCard, Splits, TrainedRef, WarehouseRef
from schemas.errors import ConfigError
from schemas.pipeline import DataPipeline, PipelineSpec
from tasks.assess.items import select_items
from tasks.storage.sealed_folder import MANIFEST
from tasks.train.base_fit import check_prompts

STAGES = ("curate", "finetune")
NOT_OF_TRAINING = "it is part of the verdict"
A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class RepeatedStep:
    """The outcome of repeating one step.

    Attributes:
        state: `same` bytes, `differs`, or `changed`: it cannot be repeated because its code, libraries, configuration
            or source are no longer those of the run.
        message: The first difference, or what changed; empty if the same.
    """

    step: str
    state: Literal["same", "differs", "changed"]
    message: str = ""


def reproduce_run(run_id: str, settings: Settings, *, root: Path, observer: Observer) -> Iterator[RepeatedStep]:
    """Repeat the steps of the run in order and yield an outcome each; end after the first that is not the same.

    Args:
        run_id: Id of the run, or its first characters.
        root: Folder of pipelines.yaml.
        observer: Is notified of each repeated step.

    Raises:
        ConfigError: TG0151, no such run or several; TG0159, the run completed no step or trained nothing, a stored
            result that is needed is gone, or this version cannot read the run's configuration.
    """
    # A store without `recorded`, so that exchanged results are found: repeating the step shows the difference.
    store, ledger = Store(settings.home), open_ledger(settings)
    row = ledger.run(run_id)
    rows = {step.step: step for step in ledger.steps(row.run_id) if step.key}
    if LEARNED in rows:
        trained = ledger.made_by(rows["train"].key) if "train" in rows else ""
        raise ConfigError(
            f"run {row.run_id} trained nothing: it judged the candidate of an earlier run again", code="TG0159",
            where=row.run_id, hint=f"`tunegate study reproduce {trained or 'RUN'}` repeats its training",
        )  # fmt: skip
    # The recorded configuration, not the one in today's file.
    spec = declared_of(row)
    registry_state = RegistryState(
        start=_start(spec, ledger, store, rows),
        judged=ledger.looks(before=row.as_of and end_of(row.as_of)),
        held_out=ledger.held_out_items,
    )
    context = context_of(
        spec,
        settings,
        root=root,
        registry_state=registry_state,
        previous_run=_previous_run(store, rows),
        as_of=row.as_of,
    )
    run = Run(build(spec, context).graph, store, observer=observer)
    n_steps = 0
    for node in run.nodes():
        if node.stage not in STAGES:
            break
        if node.kind == "expand":
            run.expand(node)
            continue
        # Which items are judged depends on the registry of then, and their prompts with it; no training does.
        of_verdict = node.function in (select_items, check_prompts)
        reason = NOT_OF_TRAINING if of_verdict else run.why_left_out(node)
        if node.id not in rows:
            reason = "the run did not reach it"
        if reason:
            run.outcomes[node.name] = NodeOutcome(skipped=reason)
            continue
        n_steps += 1
        recorded = _recorded(node, rows[node.id], row.run_id, store, ledger)
        if not isinstance(recorded, WarehouseRef):  # its bytes may differ where its rows do not
            result = _repeat(run, node, recorded)
            yield result
            if result.state != "same":
                return
        run.outcomes[node.name] = NodeOutcome(recorded, recorded.root.name, reused=True)
    if not n_steps:
        raise ConfigError(f"run {row.run_id} completed no step", code="TG0159", where=row.run_id)


def _recorded(node: Node, row: StepRow, run_id: str, store: Store, ledger: Ledger) -> Artifact:
    """Return the result that the run recorded for the step."""
    found: Artifact | None = store.whole(node.folder, row.key, node.returns)
    gone = ledger.gone_at(f"store/{node.folder}/{row.key}")
    if found is not None and gone is None:
        return found
    why = f": its rows of a forgotten customer were removed at {gone.at}" if gone is not None else ""
    raise ConfigError(
        f"the result of step {node.name} is no longer in the store{why}",
        code="TG0159",
        where=run_id,
        hint="what was forgotten is not made again"
        if gone is not None
        else "raw texts are removed after curate.keep_raw_days; the next run makes a damaged result again",
    )


def _start(spec: DataPipeline, ledger: Ledger, store: Store, rows: dict[str, StepRow]) -> StartingPoint | None:
    """Find the champion that the run's training continued from, which need not be the present one."""
    trained = store.whole("train", rows["train"].key, TrainedRef) if "train" in rows else None
    if trained is None or trained.started_from is None or not isinstance(spec, PipelineSpec):
        return None
    found = ledger.candidates(spec.registry.name)
    champion = next((row.ref for row in found if row.ref.trained.digest == trained.started_from), None)
    return starting_point(spec, ledger, champion)


def _previous_run(store: Store, rows: dict[str, StepRow]) -> PreviousRun:
    """Find what the run extended, by the digests that it recorded."""

    def previous(name: str, returns: type[A]) -> A | None:
        parts = store.parts(name, rows[name].key) if name in rows else None
        digest = parts.inputs.get("previous") if parts is not None else None
        return store.with_digest(name, digest, returns) if isinstance(digest, str) else None

    return PreviousRun(
        split=previous("split", Splits), card=previous("card", CurationCard), checks=previous("checks", CheckResults)
    )


def _repeat(run: Run, node: Node, recorded: Artifact) -> RepeatedStep:
    old = run.store.parts(node.folder, recorded.root.name)
    changed = why_changed(old, run.parts(node)) if old is not None else ("its inputs were not recorded",)
    if changed:
        return RepeatedStep(node.id, "changed", "; ".join(changed))
    with repeat(run, node) as again:
        if again.digest == recorded.digest:
            return RepeatedStep(node.id, "same")
        return RepeatedStep(node.id, "differs", _first_difference(recorded.root, again.root))


def _first_difference(one: Path, two: Path) -> str:
    """Describe the first file by name that differs between two sealed directories, or that only one has."""
    first, second = (orjson.loads((root / MANIFEST).read_bytes())["files"] for root in (one, two))
    for name in sorted(first.keys() | second.keys()):
        was, now = first.get(name), second.get(name)
        if was != now:
            return f"{name}: {_hash(was)} was recorded, now it is {_hash(now)}"
    return "the manifests differ"


def _hash(entry: dict[str, object] | None) -> str:
    return "no file" if entry is None else f"sha256 {str(entry['sha256'])[:16]}"
