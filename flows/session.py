"""One run of one pipeline in progress: its spec, its store and ledger, what is done so far, who listens.

Plain Python; `flows/steps.py` puts Prefect around it. The four sub-flows of a run share one session (found by run id
in this process); a sub-flow started alone opens its own and first makes sure that what it needs is there.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cluster import check_cluster, on_cluster, place_of, spread_of
from flows.earlier import Earlier, earlier_results
from flows.engine.clock import present
from flows.engine.disk import named_disk_errors
from flows.engine.guard import guard_process
from flows.engine.keys import code_digests, digest_of, installed
from flows.engine.plan import left_out, run_step
from flows.engine.runs import Seen
from flows.engine.temporary import temporary_files_below
from flows.ingest import landed_folder, source_at_hand
from flows.listener import Listeners
from flows.measured import Measured
from flows.notify import tell_end
from flows.privacy.forget import apply_tombstones
from flows.privacy.keys import load_forgotten
from flows.registry_owner import check_registry
from flows.settings import Settings, load_settings, open_ledger, open_store
from flows.standing import Standing, note_held_out, standing_of
from schemas.artifacts import Artifact, EvalSet, Splits, WarehouseRef
from schemas.errors import TunegateError
from schemas.load import load_file
from schemas.schedule import OPERATIONS
from schemas.secrets import masked
from tasks.watch.arrivals import newest_time

if TYPE_CHECKING:
    from flows.engine.step import Step
    from flows.outcome import Outcome
    from schemas.pipeline import PipelineSpec

STAGES = ("curate", "finetune", "assess", "release")

_open: dict[str, Session] = {}


class Session:
    """State of a run. `steps_of(stage)` declares, `run(step)` does; nothing is done twice."""

    def __init__(self, spec: PipelineSpec, settings: Settings, *, root: Path, run_id: str) -> None:
        self.spec = spec
        self.settings = settings
        self.root = root
        self.run_id = run_id
        self.store = open_store(settings)
        self.ledger = open_ledger(settings)
        self.listeners = Listeners()
        self.done: dict[str, Artifact] = {}
        self.left_out: dict[str, str] = {}
        """Step -> why it has no result and needs none."""
        self.standing = standing_of(spec, self.ledger)
        self.champion = self.standing.champion
        self.shown_in_prefect = True
        """False: the same steps in the same order, as plain calls; for when Prefect does not answer."""
        self.outcome: Outcome | None = None
        """Set by whoever brings the run to an end; kept in the ledger when the session closes."""
        self._stages: dict[str, list[Step]] | None = None

    @property
    def stages(self) -> Mapping[str, list[Step]]:
        """Stage -> its steps, declared once: champion and earlier results are those of the session's start."""
        if self._stages is None:
            earlier = earlier_results(self.ledger, self.store, self.spec.name)
            self._stages = declare(
                self.spec, settings=self.settings, root=self.root, standing=self.standing, earlier=earlier
            )
        return self._stages

    @property
    def known(self) -> dict[str, Artifact | None]:
        """Results of the steps so far; None for those that were left out."""
        return {**dict.fromkeys(self.left_out), **self.done}

    def leaves_out(self, step: Step) -> bool:
        """Is the step not wanted? Asked before it is run; what is left out once stays out."""
        if step.name not in self.left_out and step.name not in self.done:
            unwanted = left_out(step, self.known)
            if unwanted is not None:
                self.left_out[step.name] = unwanted
        return step.name in self.left_out

    def run(self, step: Step) -> Artifact | None:
        """Do the step, or take its result from the store; record it in the ledger. None when it is left out."""
        if step.name in self.done or self.leaves_out(step):
            return self.done.get(step.name)

        measured = Measured()

        def progress(done: int, total: int | None, unit: str, **figures: float) -> None:
            measured.hear(figures)
            self.listeners.progressed(step, done, total, unit, figures)

        self.listeners.started(step)
        try:
            obtained = run_step(step, self.known, self.store, progress=progress)
        except Exception as error:
            self.ledger.record_failure(self.run_id, step.name, error)
            if isinstance(error, TunegateError) and error.code in step.tolerates:
                self.left_out[step.name] = f"{error.code}: {error.message}"
                self.listeners.noted(f"{step.name} has no result: {error.code}: {error.message}")
                return None
            raise
        measured.keep(self.settings, step.folder, obtained.key)
        self.ledger.record_step(self.run_id, step.name, obtained)
        if step.name == "items" and isinstance(obtained.artifact, EvalSet):
            note_held_out(self.ledger, obtained.artifact)
        self.done[step.name] = obtained.artifact
        self.listeners.finished(step, obtained.artifact, reused=obtained.reused, seconds=obtained.seconds)
        return obtained.artifact


def declare(
    spec: PipelineSpec, *, settings: Settings, root: Path, standing: Standing, earlier: Earlier
) -> dict[str, list[Step]]:
    """All steps of the pipeline by stage, as they compare with today's champion and go on from earlier results."""
    from flows.assess import assess_steps
    from flows.curate import curate_steps
    from flows.feedback import learn_step
    from flows.finetune import finetune_steps, trunks_of
    from flows.release import release_steps
    from tasks.curate.extract import fingerprint_source

    landed = landed_folder(settings, spec.name)
    fingerprint = fingerprint_source(spec.source, root=root, landed=landed)
    learned = learn_step(spec, settings.home)
    place = place_of(spec, settings)
    curation = curate_steps(
        spec, fingerprint=fingerprint, root=root, cache=settings.cache, landed=landed, earlier=earlier, learned=learned,
        forgotten=load_forgotten(settings), spread=spread_of(place),
    )  # fmt: skip
    names = {step.name for step in curation}
    tuning = finetune_steps(spec, root=root, cache=settings.cache, trunks=trunks_of(settings.home, spec.name))
    return {
        "curate": curation,
        "finetune": on_cluster((step for step in tuning if step.name not in names), place),
        "assess": on_cluster(assess_steps(spec, standing=standing, root=root), place),
        "release": release_steps(spec),
    }


@contextmanager
def attach(pipeline: str, config: str, run_id: str | None, *, wait_s: float = 0.0) -> Iterator[Session]:
    """The open session of this run id, or a new one of its own (which takes the pipeline's lock)."""
    if run_id is not None and run_id in _open:
        yield _open[run_id]
        return
    with open_session(pipeline, config, run_id=run_id, wait_s=wait_s) as session:
        yield session


@contextmanager
def open_session(
    pipeline: str,
    config: str,
    *,
    run_id: str | None = None,
    wait_s: float = 0.0,
    listen: Callable[[Session], None] | None = None,
) -> Iterator[Session]:
    """Load the pipeline, take its lock, enter the run into the ledger; when it closes, enter how it ended.

    Raises:
        ConfigError: pipelines.yaml is wrong or does not name the pipeline.
        StorageError: TG0568, and ServiceError: TG0723, as `check_cluster`.
        StorageError: TG0580, the ledger was altered; TG0581, it is not the one that was here, or
            MLflow's registered model belongs to another ledger.
        LockedError: another run holds the pipeline longer than `wait_s` seconds.
        SecurityError: TG0830, there are tombstones and their key is not here: forgotten customers would come
            back.
    """
    guard_process()  # Prefect may have started this process
    path = Path(config)
    spec = load_file(path).get(pipeline)
    settings = load_settings(path)
    check_cluster(spec, settings)
    run_id = run_id or new_run_id()
    held = open_ledger(settings).pipeline_lock(pipeline, wait_s=wait_s, run_id=run_id)
    with named_disk_errors(settings.home), held, temporary_files_below(settings.home, make=True):
        open_ledger(settings).check()
        apply_tombstones(settings)  # a backup may have brought back whom the workspace had forgotten
        session = Session(spec, settings, root=path.resolve().parent, run_id=run_id)
        session.ledger.mark_interrupted()
        if session.champion is None:  # perhaps there was one, and the ledger has lost it
            check_registry(spec, settings, session.ledger)
        if listen is not None:
            listen(session)
        _open[run_id] = session
        try:
            with _recorded(session), named_disk_errors(settings.home):
                yield session
        finally:
            del _open[run_id]
            tell_end(session)


@contextmanager
def _recorded(session: Session) -> Iterator[None]:
    ledger, run_id, spec = session.ledger, session.run_id, session.spec
    ledger.start_run(
        run_id,
        pipeline=spec.name,
        model_name=spec.registry.name,
        input_digest="",
        config_json=masked(spec.model_dump_json(by_alias=True)),
    )
    try:
        with source_at_hand(session):
            ledger.set_input_digest(run_id, input_digest(session))
            yield
    except TunegateError as error:
        told = f"{error.code}: {error.message}"
        ledger.finish_run(run_id, status="FAILED", reason=told, exit_code=error.exit_code)
        raise
    except Exception as error:  # its words may hold ticket text
        ledger.finish_run(run_id, status="FAILED", reason=type(error).__name__, exit_code=1)
        raise
    except BaseException as error:  # Ctrl-C, SIGTERM, cancelled by Prefect
        code = 130 if isinstance(error, KeyboardInterrupt) else 143
        ledger.finish_run(run_id, status="INTERRUPTED", reason=type(error).__name__, exit_code=code)
        raise
    outcome = session.outcome
    if outcome is None:
        ledger.finish_run(run_id, status="DONE", reason="a stage was run alone", exit_code=0)
        return
    ledger.finish_run(
        run_id,
        status="SKIPPED" if outcome.verdict == "SKIP" else "DONE",
        verdict=None if outcome.verdict == "SKIP" or outcome.verdict == "DONE" else outcome.verdict,
        reason=outcome.reason,
        exit_code=outcome.exit_code,
        seen=_seen(session) if outcome.verdict in ("PROMOTE", "HOLD", "BLOCK") else None,
    )


def _seen(session: Session) -> Seen | None:
    """What the verdict was about; the pipeline's mark moves there."""
    splits, warehouse = session.done.get("decontaminate"), session.done.get("warehouse")
    if not isinstance(splits, Splits) or not isinstance(warehouse, WarehouseRef):
        return None
    return Seen(warehouse.snapshot_id, newest_time(splits), splits.n_train + splits.n_validation + splits.n_test)


def input_digest(session: Session) -> str:
    """Digest of all that decides the run: configuration, tickets, base model, code and libraries.

    Not of the champion it will meet; `flows/pipeline.py` asks for that apart.
    """
    steps = [step for steps in session.stages.values() for step in steps]
    code: dict[str, str] = {}
    for step in steps:
        code |= code_digests(step.run)
    return digest_of(
        {
            "spec": session.spec.model_dump(
                mode="json", by_alias=True, exclude={"name", "description", "engine", *OPERATIONS}
            ),
            "fingerprint": session.stages["curate"][0].params["fingerprint"],
            "files": {step.name: dict(step.also) for step in steps if step.also},
            "code": code,
            "libraries": {name: installed(name) for step in steps for name in step.libraries},
            "python": list(sys.version_info[:2]),
        }
    )


def new_run_id() -> str:
    """`20260601-052301-9f3a`: sortable by time, unique enough for one ledger (which refuses a repeated id)."""
    return f"{present():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
