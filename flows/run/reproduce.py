"""Do a recorded run's data and training steps once more, from the inputs it had, and compare every byte.

Each step is repeated by itself on the stored result of the steps before it: a difference is told where it arises, not
where it ends. Nothing is kept. Called by `tunegate study reproduce`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import orjson

from flows.build import build
from flows.context.graph_context import context_of
from flows.context.previous_run import Earlier
from flows.context.registry_state import Standing
from flows.graph.execute import Observer, Outcome, Run, repeat
from flows.graph.graph import Node
from flows.graph.keys import why_changed
from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.ledger.opened import open_ledger
from flows.ledger.rows import StepRow
from flows.views.run_reader import spec_of
from flows.workspace.settings import Settings
from schemas.artifacts import Artifact, CurationCard, Splits, WarehouseRef
from schemas.errors import ConfigError
from tasks.files import MANIFEST

STAGES = ("curate", "finetune")
A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class Repeated:
    """What came of one step.

    Attributes:
        state: `same` bytes, `differs`, or `changed`: it cannot be repeated since its code, libraries, configuration or
            source are not those of the run any more.
        told: The first difference, or what changed; empty when the same.
    """

    step: str
    state: Literal["same", "differs", "changed"]
    told: str = ""


def reproduce_run(run_id: str, settings: Settings, *, root: Path, observer: Observer) -> Iterator[Repeated]:
    """Repeat the steps of the run in order, one result each; ends after the first that is not the same.

    Args:
        run_id: Of the run, or the start of it.
        root: Folder of pipelines.yaml.
        observer: Hears of each step that is repeated.

    Raises:
        ConfigError: TG0151, no such run or several; TG0159, the run has no complete step, or a stored result
            that is needed is gone, or the run was configured as this version does not read.
    """
    # What was exchanged is looked at, too: the repetition says where it differs.
    store, ledger = Store(settings.home), open_ledger(settings)
    row = ledger.run(run_id)
    rows = {step.step: step for step in ledger.steps(row.run_id) if step.key}
    # The configuration is the one that was recorded, not the one that the file holds today.
    spec = spec_of(row)
    standing = Standing(judged=ledger.judged_candidates(), held_out=ledger.held_out_items)
    context = context_of(spec, settings, root=root, standing=standing, earlier=_earlier(store, rows))
    run = Run(build(spec, context).graph, store, observer=observer)
    n_steps = 0
    for node in run.nodes():
        if node.stage not in STAGES:
            break
        if node.kind == "grow":
            run.grow(node)
            continue
        if node.id not in rows:
            run.outcomes[node.name] = Outcome(skipped="the run did not come to it")
            continue
        n_steps += 1
        recorded = _recorded(node, rows[node.id], row.run_id, store, ledger)
        if not isinstance(recorded, WarehouseRef):  # its bytes may differ where its rows do not
            result = _repeat(run, node, recorded)
            yield result
            if result.state != "same":
                return
        run.outcomes[node.name] = Outcome(recorded, recorded.root.name, reused=True)
    if not n_steps:
        raise ConfigError(f"run {row.run_id} completed no step", code="TG0159", where=row.run_id)


def _recorded(node: Node, row: StepRow, run_id: str, store: Store, ledger: Ledger) -> Artifact:
    """The result that the run recorded for the step."""
    found = store.look(node.folder, row.key, node.returns)
    gone = ledger.gone_at(f"store/{node.folder}/{row.key}")
    if isinstance(found, Artifact) and gone is None:
        return found
    why = f": its rows of a forgotten customer were removed at {gone.at}" if gone is not None else ""
    raise ConfigError(
        f"the result of step {node.name} is not in the store any more{why}",
        code="TG0159",
        where=run_id,
        hint="what was forgotten is not made again"
        if gone is not None
        else "raw texts go after curate.keep_raw_days; a damaged result is made again by the next run",
    )


def _earlier(store: Store, rows: dict[str, StepRow]) -> Earlier:
    """What the run extended, found by the digests that it recorded."""

    def previous(name: str, returns: type[A]) -> A | None:
        parts = store.parts(name, rows[name].key) if name in rows else None
        digest = parts.inputs.get("previous") if parts is not None else None
        return store.with_digest(name, digest, returns) if isinstance(digest, str) else None

    return Earlier(split=previous("split", Splits), card=previous("card", CurationCard))


def _repeat(run: Run, node: Node, recorded: Artifact) -> Repeated:
    old = run.store.parts(node.folder, recorded.root.name)
    changed = why_changed(old, run.parts(node)) if old is not None else ("what it was made from was not kept",)
    if changed:
        return Repeated(node.id, "changed", "; ".join(changed))
    with repeat(run, node) as again:
        if again.digest == recorded.digest:
            return Repeated(node.id, "same")
        return Repeated(node.id, "differs", _first_difference(recorded.root, again.root))


def _first_difference(one: Path, two: Path) -> str:
    """The first file by name that only one of two sealed directories has, or that differs, with both digests."""
    first, second = (orjson.loads((root / MANIFEST).read_bytes())["files"] for root in (one, two))
    for name in sorted(first.keys() | second.keys()):
        was, now = first.get(name), second.get(name)
        if was != now:
            return f"{name}: {_hash(was)} was recorded, {_hash(now)} is made now"
    return "the manifests differ"


def _hash(entry: dict[str, object] | None) -> str:
    return "no file" if entry is None else f"sha256 {str(entry['sha256'])[:16]}"
