"""Find a published snapshot of a pipeline, with what is known of its origin."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from flows.ledger.open import open_ledger
from flows.ledger.rows import RunRow
from flows.records.published import published_database, warehouse_folder
from flows.views.run_reader import declared_of
from flows.workspace.settings import Settings
from schemas.curation_steps import RedactStep
from schemas.errors import ConfigError, TunegateError
from schemas.export import DataOrigin
from schemas.names import closest
from schemas.pipeline import PipelineSpec
from schemas.training import PromptSpec
from tasks.curate.publish import SNAPSHOT
from tasks.curate.warehouse_query import snapshot_of


@dataclass(frozen=True)
class Snapshot:
    """One published state of a pipeline's tickets."""

    folder: Path
    """Has a Parquet file per split."""
    origin: DataOrigin
    prompt: PromptSpec
    """Of the run that made it; the default if that trains nothing."""
    failed: str
    """Why the run that published it failed, as by a check; empty if it did not."""


def find_snapshot(settings: Settings, pipeline: str, prefix: str | None, *, form: str) -> Snapshot:
    """Find the snapshot with an id that begins with `prefix`; None for the state that the warehouse shows.

    Args:
        form: Format of the export that it is for.

    Raises:
        ConfigError: TG0159, the pipeline has not been curated yet, has no such snapshot, or several, or what it shows
            was removed with a customer.
    """
    ledger = open_ledger(settings)
    ledger.identity()  # a damaged one is refused, instead of counting as one that does not know the run
    known = known_snapshots(settings, pipeline)
    if prefix is None:
        prefix = snapshot_of(published_database(settings.home, pipeline))
        if prefix not in known:
            # `data forget` removes the snapshots that held the customer; an older one is not what was asked for.
            raise ConfigError(
                f"the snapshot that {pipeline} shows is gone, since a customer in it was forgotten", code="TG0159",
                where="--snapshot", hint=f"`tunegate run {pipeline}` makes one of what is left",
            )  # fmt: skip
    found = [name for name in known if prefix and name.startswith(prefix)]
    if len(found) != 1:
        what = "no snapshot" if not found else f"{len(found)} snapshots"
        raise ConfigError(
            f"{pipeline} has {what} {prefix or repr(prefix)}", code="TG0159", where="--snapshot",
            hint=closest(prefix, tuple(known)) if known else f"tunegate data curate {pipeline}",
        )  # fmt: skip
    facts = known[found[0]]
    row: RunRow | None = None
    with suppress(ConfigError):  # the ledger is another one by now
        row = ledger.run(str(facts["run_id"]))
    return _snapshot(snapshot_folder(settings, pipeline, found[0]), row, facts, pipeline, form)


def known_snapshots(settings: Settings, pipeline: str) -> dict[str, dict[str, str]]:
    """Return id -> facts (`snapshot.json`) of each published state that still has its tables."""
    files = warehouse_folder(settings.home, pipeline).glob(f"snapshots/*/{SNAPSHOT}")
    found = {path.parent.name: orjson.loads(path.read_bytes()) for path in sorted(files)}
    return {name: facts for name, facts in found.items() if not name.startswith(".")}


def snapshot_folder(settings: Settings, pipeline: str, name: str) -> Path:
    """Return the folder with the Parquet files of a published state."""
    return warehouse_folder(settings.home, pipeline) / "snapshots" / name


def _snapshot(folder: Path, row: RunRow | None, facts: dict[str, str], pipeline: str, form: str) -> Snapshot:
    try:
        spec = None if row is None else declared_of(row)
    except TunegateError:  # of an older version
        spec = None
    redacted = spec is not None and any(isinstance(step, RedactStep) for step in spec.curate.steps)
    origin = DataOrigin(
        format=form, pipeline=pipeline, snapshot_id=folder.name, run_id=facts["run_id"],
        run_sha256="" if row is None else row.input_digest, redacted=redacted,
    )  # fmt: skip
    prompt = spec.train.prompt if isinstance(spec, PipelineSpec) else PromptSpec()
    return Snapshot(folder, origin, prompt, row.reason if row is not None and row.status == "FAILED" else "")
