"""Training as a step: start a separate process, watch it until it ends, return its result or raise its error.

tasks/train/place.py decides where the training runs. No torch is imported here.
"""

import logging
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import orjson

from schemas import errors
from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from schemas.errors import OutOfMemoryError, ProcessLostError, TrainingError, TunegateError
from schemas.training import TrainSpec
from tasks.compute.children import THIS_PROCESS, Children, start_group
from tasks.progress import Progress, silent
from tasks.step import BY_RUNNER, as_step
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import MANIFEST, is_whole, remove_unfinished
from tasks.train.job import (
    CHECKPOINTS,
    ERROR,
    FINAL,
    INTERRUPTED,
    JOB,
    LOG,
    MEMORY_FIGURES,
    PROGRESS,
    USED,
    ProgressLog,
    TrainJob,
)
from tasks.train.limits import TrainingLimits, Use, cards_of
from tasks.train.memory import detect_device, memory_advice, predict_parts
from tasks.train.place import ThisMachine, TrainingPlace

_POLL_S = 0.2
_KEEP_S = 5.0
"""Seconds between two writes of the time used: what a killed run loses at most."""
ADAPTER_FORM = ("rank", "alpha", "rslora", "dora", "target_modules", "layers")
"""Settings of an adapter that a training which continues from it must share."""
THIS_MACHINE = ThisMachine()
NO_LIMITS = TrainingLimits()
log = logging.getLogger("tunegate.train")


@as_step(
    "train",
    libraries=("torch", "transformers", "peft", "bitsandbytes"),
    context=("trunks", "place", "limits", "children"),
    heavy=True,
    memory_gb=2.0,
)
def train_model(
    out: Path,
    *,
    dataset: DatasetRef,
    model: ModelRef,
    spec: TrainSpec,
    start: TrainedRef | None = None,
    scratch: Path = BY_RUNNER,
    trunks: Path | None = None,
    place: TrainingPlace = THIS_MACHINE,
    limits: TrainingLimits = NO_LIMITS,
    children: Children = THIS_PROCESS,
    progress: Progress = silent,
) -> TrainedRef:
    """Train in a separate process and write the result to `out`; a killed attempt resumes from its last checkpoint.

    A process that runs out of memory is followed by one more, with half the batch size and twice the
    `gradient_accumulation_steps`: each optimiser step has as many examples as before, but different ones, since the
    order depends on the batch size. It therefore starts over. Its result has the same bytes as a training that declares
    these settings, whenever the memory ran out; `training.json` lists them. The scratch folder records the change, and
    later attempts keep the smaller batches.

    Args:
        dataset: Token ids and loss masks.
        model: The base model that they were encoded for.
        spec: The settings. Equal inputs give equal bytes, with or without interruptions, as long as memory suffices.
        start: The champion's adapter to continue from; None starts from the base.
        out: An empty directory.
        scratch: Survives a killed attempt: checkpoints, `progress.jsonl`, `worker.log`.
        trunks: Folder where trainings share the output of frozen layers; None for a folder of its own. Used only if
            the training would compute that output anyway: sharing must not change the last bits of the result.
        place: Where the training runs; it must not change the result.
        limits: When to stop; a stopped training saves a checkpoint, and a call with larger limits continues from it.
            The time of earlier attempts counts for the budget.
        children: Its `end`, called from another thread, stops the training, which saves a checkpoint first.
        progress: Called for each step with loss and tokens_per_s. An exception in it stops the training the same way.

    Raises:
        ProcessLostError: the process died of a signal that we did not send: TG0405 for SIGKILL, which the kernel sends
            when memory runs out, else TG0407. It is `transient`: another call resumes from the checkpoint.
        TrainingError: does not fit into memory (TG0405), diverged (TG0401), ran out of memory even with smaller batches
            (TG0405), took too long or used up its budget (TG0406), failed (TG0407), was stopped (TG0408), or continues
            from an adapter of another form (TG0403).
        ConfigError: the settings do not fit the model.
        DataError: there is nothing to train on.
    """
    if start is not None:
        check_start(start, model, spec)
        start = start.model_copy(update={"root": start.root.resolve()})
    scratch = scratch.resolve()
    job = TrainJob(
        dataset=dataset.model_copy(update={"root": dataset.root.resolve()}),
        model=model.model_copy(update={"root": model.root.resolve()}),
        spec=spec,
        scratch=scratch,
        threads=spec.threads or max(1, len(os.sched_getaffinity(0)) // spec.processes),
        start=start,
        trunks=trunks.resolve() if trunks is not None and caches_trunk(spec) else None,
    )
    if not is_whole(scratch / FINAL):  # else an attempt that was killed after training left its result
        _train(job, _Watch(limits, place, children, progress))
    return _collect(job, out)


def check_start(start: TrainedRef, model: ModelRef, spec: TrainSpec) -> None:
    """Refuse to continue from an adapter of another form: its factors would not fit, or would mean something else.

    Raises:
        TrainingError: TG0403, base, method, adapter, quantisation, format or prompt differ.
    """
    settings = orjson.loads((start.root / "training.json").read_bytes())["settings"]
    before = TrainSpec.model_validate({**settings, "start": "base", "allow_unusual_learning_rate": True})
    differ = [name for name in ADAPTER_FORM if getattr(before.adapter, name) != getattr(spec.adapter, name)]
    found = {
        "base_model": (start.base_digest[:12], model.digest[:12]),
        "method": (before.method, spec.method),
        "format": (before.format, spec.format),
        "quantization": (before.four_bits(), spec.four_bits()),
        **{f"adapter.{name}": (getattr(before.adapter, name), getattr(spec.adapter, name)) for name in differ},
        **{
            f"prompt.{name}": (getattr(before.prompt, name), getattr(spec.prompt, name))
            for name in type(spec.prompt).model_fields
        },
    }
    for name, (champion, declared) in found.items():
        if champion != declared:
            raise TrainingError(
                f"the champion was trained with {name} {champion!s:.60}, and {declared!s:.60} is declared",
                code="TG0403",
                where=f"train.{name}",
                hint="use start: base for this training; the next one can continue from it",
            )


@dataclass(frozen=True)
class _Watch:
    """What watches a training."""

    limits: TrainingLimits
    place: TrainingPlace
    children: Children
    progress: Progress


class _Clock:
    """Measures the time of a training over all its attempts, and keeps it on disk."""

    def __init__(self, job: TrainJob, watch: _Watch) -> None:
        self._job, self._limits = job, watch.limits
        self._file = job.scratch / USED
        self._n_cards = cards_of(job.spec, local=isinstance(watch.place, ThisMachine))
        self._before = self._kept()
        self._began = self._written = time.monotonic()
        minutes = self._limits.timeout_minutes or job.spec.timeout_minutes
        self._timeout_s, self._minutes = minutes * 60, minutes

    def check(self, steps: str) -> None:
        """Stop a training that is past a limit.

        Raises:
            TrainingError: TG0406.
        """
        now = time.monotonic()
        if now - self._began > self._timeout_s:
            raise TrainingError(
                f"training was stopped: it did not finish within {self._minutes:g} minutes", code="TG0406",
                where=str(self._job.scratch),
                hint="raise train.timeout_minutes and run again: it resumes from its last checkpoint",
            )  # fmt: skip
        if now - self._written > _KEEP_S:
            self.keep()
        uses = self._limits.used.report(str(self._job.scratch), Use(self._before + now - self._began, self._n_cards))
        if (reached := self._limits.exceeded(uses)) is not None:
            raise TrainingError(
                f"training was stopped by train.budget: {reached} are used{steps}", code="TG0406",
                where=str(self._job.scratch),
                hint="raise train.budget and run again: it continues from its checkpoint, and the time so far counts",
            )  # fmt: skip

    def keep(self) -> None:
        """Write the time so far: a later attempt counts it."""
        self._written = time.monotonic()
        write_json(self._file, {"seconds": self._before + self._written - self._began})

    def _kept(self) -> float:
        try:
            return float(orjson.loads(self._file.read_bytes())["seconds"])
        except (OSError, ValueError, KeyError):
            return 0.0


def _train(job: TrainJob, watch: _Watch) -> None:
    """Leave the sealed result in the scratch folder; `train_model` says what happens when memory runs out."""
    halved = job.halved()
    if halved is None or not _was_halved(job):
        watch.place.check(job)
        try:
            _attempt(job, watch)
            return
        except OutOfMemoryError as error:
            if halved is None:
                raise
            _note_halved(job, halved, error)
    else:
        watch.place.check(halved)
    try:
        _attempt(halved, watch)
    except OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"{error.message}, both with train.batch_size {job.spec.batch_size} and with "
            f"{halved.spec.batch_size} (gradient_accumulation_steps {halved.spec.gradient_accumulation_steps})",
            code="TG0405",
            where=error.where or str(job.scratch / LOG),
            hint=error.hint,
        ) from error


def _was_halved(job: TrainJob) -> bool:
    """Whether this training has run out of memory before."""
    entries, _ = ProgressLog(job.scratch / PROGRESS).read(0)
    return any(entry["event"] == "halved" and entry.get("key") == job.key() for entry in entries)


def _note_halved(job: TrainJob, halved: TrainJob, error: OutOfMemoryError) -> None:
    """Record the decision for later attempts, and log it."""
    # Delete the checkpoints first, or they would count among those to keep: a kill in between costs one attempt.
    shutil.rmtree(job.scratch / CHECKPOINTS, ignore_errors=True)
    settings = {name: getattr(halved.spec, name) for name in ("batch_size", "gradient_accumulation_steps")}
    ProgressLog(job.scratch / PROGRESS).write(event="halved", key=job.key(), **settings)
    changes = ", ".join(f"train.{name}: {value}" for name, value in settings.items())
    log.warning("%s %s; it starts over with %s", error.code, error.message, changes)


def _attempt(job: TrainJob, watch: _Watch) -> None:
    """Write the job file and run the job from its newest checkpoint."""
    shutil.rmtree(job.scratch / FINAL, ignore_errors=True)
    remove_unfinished(job.scratch / FINAL)
    (job.scratch / ERROR).unlink(missing_ok=True)
    write_json(job.scratch / JOB, job.model_dump(mode="json"))
    _run(job, watch)


def caches_trunk(spec: TrainSpec) -> bool:
    """Whether the training is certain to cache its frozen layers' output in its own folder.

    >>> caches_trunk(TrainSpec(base_model="m", epochs=2)), caches_trunk(TrainSpec(base_model="m"))
    (True, False)
    """
    return spec.cache_trunk == "on" or (spec.cache_trunk == "auto" and spec.epochs > 1 and spec.max_steps is None)


def _run(job: TrainJob, watch: _Watch) -> None:
    """Start the process and watch it until it ends."""
    reports = ProgressLog(job.scratch / PROGRESS)
    offset = reports.path.stat().st_size if reports.path.exists() else 0
    clock = _Clock(job, watch)
    clock.check("")
    # Anything that leaves the inner block (Ctrl-C, a limit, an error in `progress`) stops the process, which saves a
    # checkpoint first. That takes time too, so the clock is kept last.
    try:
        with (
            (job.scratch / LOG).open("wb") as stderr,
            watch.children.running(partial(_start, job, watch.place, stderr)) as child,
        ):
            steps = ""
            while child.process.poll() is None:
                offset, steps = _report(reports, offset, watch.progress, steps)
                clock.check(steps)
                time.sleep(_POLL_S)
            _report(reports, offset, watch.progress, steps)
    finally:
        clock.keep()
    if code := child.process.returncode:
        raise _error_of(job, code, stopped=child.stopped)


def _start(job: TrainJob, place: TrainingPlace, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = place.environment(os.environ, threads=job.threads)
    return start_group(place.command(job.scratch / JOB), output=stderr, env=environment)


def _report(reports: ProgressLog, offset: int, progress: Progress, steps: str) -> tuple[int, str]:
    """Pass on what is new; return where to continue, and how far the training is."""
    entries, offset = reports.read(offset)
    for entry in entries:
        if entry["event"] == "step":
            steps = f", with {entry['step']:,} of {entry['n_steps']:,} steps done"
            progress(
                entry["step"],
                entry["n_steps"],
                "steps",
                loss=entry["loss"],
                learning_rate=entry["learning_rate"],
                tokens_per_s=entry["step_tokens"] / entry["seconds"],
            )
        elif entry["event"] == "memory":
            progress(
                entry["step"],
                entry["step"],
                "steps",
                **{name: entry[name] for name in MEMORY_FIGURES if entry[name] is not None},
            )
    return offset, steps


def _error_of(job: TrainJob, code: int, *, stopped: bool) -> TunegateError:
    """The error that the process reports, or one that follows from its exit code.

    Args:
        job: The training.
        code: Exit code, negative for a signal.
        stopped: We stopped it.
    """
    where = str(job.scratch / LOG)
    if (reported := _reported(job)) is not None:
        return reported
    if stopped or code in (INTERRUPTED, -signal.SIGTERM, -signal.SIGINT):
        saved = "a checkpoint is saved" if code == INTERRUPTED else "it ended before it could save a checkpoint"
        return TrainingError(
            f"the training process was stopped; {saved}",
            code="TG0408",
            where=where,
            hint="run again: it resumes from its last checkpoint",
        )
    if code == -signal.SIGKILL:
        work = job.workload()
        parts = predict_parts(work, job.spec, device=detect_device()) if work else None
        predicted = f"; about {parts['total'] / 2**30:.1f} GiB were predicted" if parts else ""
        return ProcessLostError(
            f"the training process was killed (out of memory?){predicted}",
            code="TG0405",
            where=where,
            hint=f"run again to resume from the last checkpoint; to use less memory: {memory_advice(job.spec)}",
        )
    lines = (job.scratch / LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
    ended = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    kind = ProcessLostError if code < 0 else TrainingError
    return kind("\n".join([f"the training process ended {ended}; its last lines:", *lines]), code="TG0407", where=where)


def _reported(job: TrainJob) -> TunegateError | None:
    """The error that this attempt's process wrote; None if it wrote none."""
    try:
        error = orjson.loads((job.scratch / ERROR).read_bytes())
        kind = getattr(errors, error.pop("type"))
        return kind(error["message"], code=error["code"], where=error["where"], hint=error["hint"])  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _collect(job: TrainJob, out: Path) -> TrainedRef:
    """Copy the result to `out`; the scratch folder keeps its copy until the step is committed."""
    final = job.scratch / FINAL
    for path in sorted(final.iterdir()):
        if path.name == MANIFEST:
            continue
        try:
            os.link(path, out / path.name)
        except OSError:
            shutil.copyfile(path, out / path.name)
    training = orjson.loads((final / "training.json").read_bytes())
    return TrainedRef(
        root=out,
        method=job.spec.method,
        format=job.spec.format,
        base_digest=job.model.digest,
        started_from=job.start.digest if job.start else None,
        **{key: training[key] for key in ("n_trainable", "n_steps", "n_tokens", "train_loss", "validation_loss")},
    )
