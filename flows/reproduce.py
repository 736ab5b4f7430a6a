"""Do a recorded run's data and training steps once more, from the inputs it had, and compare every byte.

Each step is repeated by itself on the stored result of the steps before it: a difference is told where it arises, not
where it ends. Nothing is kept. Called by `tunegate reproduce`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from flows.earlier import Earlier
from flows.engine.keys import why_changed
from flows.engine.plan import Known, parts_of, repeat_step
from flows.engine.rows import StepRow
from flows.engine.step import Step
from flows.engine.store import Store
from flows.recorded import spec_of
from flows.session import declare
from flows.settings import Settings, open_ledger
from flows.standing import Standing
from schemas.artifacts import Artifact, Splits, WarehouseRef
from schemas.errors import ConfigError
from tasks.files import MANIFEST
from tasks.progress import Progress

STAGES = ("curate", "finetune")


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


def reproduce_run(
    run_id: str, settings: Settings, *, root: Path, listen: Callable[[Step], Progress]
) -> Iterator[Repeated]:
    """Repeat the steps of the run in order, one result each; ends after the first that is not the same.

    Args:
        run_id: Of the run, or the start of it.
        root: Folder of pipelines.yaml.
        listen: Called before a step is repeated; gives what its progress is told to.

    Raises:
        ConfigError: TG0151, no such run or several; TG0159, the run has no complete step, or a stored result
            that is needed is gone, or the run was configured as this version does not read.
    """
    # What was exchanged is looked at, too: the repetition says where it differs.
    store, ledger = Store(settings.home), open_ledger(settings)
    run = ledger.run(run_id)
    rows = {row.step: row for row in ledger.steps(run.run_id) if row.key}
    # The configuration is the one that was recorded, not the one that the file holds today.
    spec = spec_of(run)
    standing = Standing(judged=ledger.judged_candidates(), held_out=ledger.held_out_items)
    stages = declare(spec, settings=settings, root=root, standing=standing, earlier=_earlier(store, rows))
    steps = [step for stage in STAGES for step in stages[stage] if step.name in rows]
    if not steps:
        raise ConfigError(f"run {run.run_id} completed no step", code="TG0159", where=run.run_id)
    done: dict[str, Artifact | None] = {step.name: None for stage in STAGES for step in stages[stage]}
    for step in steps:
        recorded = store.look(step.folder, rows[step.name].key, step.returns)
        gone = ledger.gone_at(f"store/{step.folder}/{rows[step.name].key}")
        if not isinstance(recorded, step.returns) or gone is not None:
            why = f": its rows of a forgotten customer were removed at {gone.at}" if gone is not None else ""
            raise ConfigError(
                f"the result of step {step.name} is not in the store any more{why}",
                code="TG0159",
                where=run.run_id,
                hint="what was forgotten is not made again"
                if gone is not None
                else "raw texts go after curate.keep_raw_days; a damaged result is made again by the next run",
            )
        # A warehouse's bytes may differ where its rows do not; what is picked was repeated in its own place.
        if not isinstance(recorded, WarehouseRef) and step.pick is None:
            result = _repeat(step, done, store, recorded, listen)
            yield result
            if result.state != "same":
                return
        done[step.name] = recorded


def _earlier(store: Store, rows: dict[str, StepRow]) -> Earlier:
    """What the run went on from, found by the digest that it recorded."""
    parts = store.parts("split", rows["split"].key) if "split" in rows else None
    digest = parts.inputs.get("previous") if parts is not None else None
    return Earlier(split=store.with_digest("split", digest, Splits)) if isinstance(digest, str) else Earlier()


def _repeat(step: Step, done: Known, store: Store, recorded: Artifact, listen: Callable[[Step], Progress]) -> Repeated:
    old, new = store.parts(step.folder, recorded.root.name), parts_of(step, done)
    changed = why_changed(old, new) if old is not None else ("what it was made from was not kept",)
    if changed:
        return Repeated(step.name, "changed", "; ".join(changed))
    with repeat_step(step, done, store, progress=listen(step)) as again:
        if again.digest == recorded.digest:
            return Repeated(step.name, "same")
        return Repeated(step.name, "differs", _first_difference(recorded.root, again.root))


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
