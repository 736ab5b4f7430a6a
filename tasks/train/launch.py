"""Training as a step: a process of its own, watched until it ends; its result or its error comes back.

Where the process has its training done is the business of tasks/train/place.py. It knows nothing of optimisers and
imports no torch. `train_model` is a step of flows/finetune.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

import orjson

from schemas import errors
from schemas.artifacts import DatasetRef, ModelRef, TrainedRef
from schemas.errors import StorageError, TrainingError, TunegateError
from schemas.training import TrainSpec
from tasks.files import MANIFEST, verify, write_json
from tasks.progress import Progress, silent
from tasks.step import BY_RUNNER, as_step
from tasks.train.job import ERROR, FINAL, INTERRUPTED, JOB, LOG, MEMORY_FIGURES, PROGRESS, ProgressLog, TrainJob
from tasks.train.memory import device_at_hand, memory_advice, predict_parts
from tasks.train.place import ThisMachine, TrainingPlace

GRACE_S = 10.0
"""Seconds between the wish to stop (finish the step, save a checkpoint) and SIGKILL."""
_POLL_S = 0.2
THIS_MACHINE = ThisMachine()


@as_step("train", libraries=("torch", "transformers", "peft", "bitsandbytes"), context=("trunks", "place"), heavy=True)
def train_model(
    out: Path,
    *,
    dataset: DatasetRef,
    model: ModelRef,
    spec: TrainSpec,
    scratch: Path = BY_RUNNER,
    trunks: Path | None = None,
    place: TrainingPlace = THIS_MACHINE,
    progress: Progress = silent,
) -> TrainedRef:
    """Train in a separate process and put the result into `out`; a killed attempt goes on from its last checkpoint.

    Args:
        dataset: Token ids and loss masks.
        model: The base model they were encoded for.
        spec: The settings. Equal inputs give equal bytes, with or without interruptions.
        out: An empty directory.
        scratch: Outlives a killed attempt: checkpoints, `progress.jsonl`, `worker.log`.
        trunks: Folder where trainings share what frozen layers computed; None for one of its own. Used only where the
            training would compute that for itself too: it must not change the last bits of the result.
        place: Where the training runs; it must not change the result.
        progress: Told of each step with loss and tokens_per_s.

    Raises:
        TrainingError: does not fit into memory (TG0405), diverged (TG0401), out of memory (TG0405), too long (TG0406),
            crashed (TG0407), stopped (TG0408).
        ConfigError: settings that do not fit the model.
        DataError: nothing to train on.
    """
    scratch = scratch.resolve()
    job = TrainJob(
        dataset=dataset.model_copy(update={"root": dataset.root.resolve()}),
        model=model.model_copy(update={"root": model.root.resolve()}),
        spec=spec,
        scratch=scratch,
        threads=spec.threads or max(1, len(os.sched_getaffinity(0)) // spec.processes),
        trunks=trunks.resolve() if trunks is not None and caches_trunk(spec) else None,
    )
    if not _is_complete(scratch / FINAL):
        place.check(job)
        for stale in (scratch / FINAL, scratch / f".{FINAL}.tmp"):
            shutil.rmtree(stale, ignore_errors=True)
        (scratch / ERROR).unlink(missing_ok=True)
        write_json(scratch / JOB, job.model_dump(mode="json"))
        _run(job, place, progress)
    return _collect(job, out)


def caches_trunk(spec: TrainSpec) -> bool:
    """Would the training surely cache its frozen layers' output in a folder of its own?

    >>> caches_trunk(TrainSpec(base_model="m", epochs=2)), caches_trunk(TrainSpec(base_model="m"))
    (True, False)
    """
    return spec.cache_trunk == "on" or (spec.cache_trunk == "auto" and spec.epochs > 1 and spec.max_steps is None)


def _run(job: TrainJob, place: TrainingPlace, progress: Progress) -> None:
    """Start the process and watch it to its end."""
    log = ProgressLog(job.scratch / PROGRESS)
    offset = log.path.stat().st_size if log.path.exists() else 0
    deadline = time.monotonic() + job.spec.timeout_minutes * 60
    with (job.scratch / LOG).open("wb") as stderr:
        process = _start(job, place, stderr)
        try:
            while process.poll() is None:
                offset = _report(log, offset, progress)
                if time.monotonic() > deadline:
                    stop(process)
                    raise TrainingError(
                        f"training was not done after {job.spec.timeout_minutes:g} minutes and was stopped",
                        code="TG0406",
                        where=str(job.scratch),
                        hint="raise train.timeout_minutes and run again: it goes on from its last checkpoint",
                    )
                time.sleep(_POLL_S)
            _report(log, offset, progress)
        finally:
            # Ctrl-C or SIGTERM of the run: the process saves a checkpoint first.
            if process.poll() is None:
                stop(process)
    if process.returncode != 0:
        raise _error_of(job, process.returncode)


def _start(job: TrainJob, place: TrainingPlace, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        place.command(job.scratch / JOB),
        env=place.environment(os.environ, threads=job.threads),
        stdin=subprocess.DEVNULL,
        stdout=stderr,
        stderr=stderr,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the process and its children to stop, wait `GRACE_S`, then kill them."""
    for number, wait_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
            process.wait(wait_s)
            return
        except ProcessLookupError:
            process.wait()
            return
        except subprocess.TimeoutExpired:
            continue


def _report(log: ProgressLog, offset: int, progress: Progress) -> int:
    entries, offset = log.read(offset)
    for entry in entries:
        if entry["event"] == "step":
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
    return offset


def _error_of(job: TrainJob, code: int) -> TunegateError:
    """What the process says went wrong, or what its end says."""
    where = str(job.scratch / LOG)
    if code == 1:
        try:
            told = orjson.loads((job.scratch / ERROR).read_bytes())
            kind = getattr(errors, told.pop("type"))
            return kind(told["message"], code=told["code"], where=told["where"], hint=told["hint"])  # type: ignore[no-any-return]
        except (OSError, ValueError, KeyError, AttributeError):
            pass
    if code == INTERRUPTED:
        return TrainingError(
            "the training process was asked to stop; a checkpoint is saved",
            code="TG0408",
            where=where,
            hint="run again: it goes on from there",
        )
    if code == -signal.SIGKILL:
        work = job.workload()
        total = predict_parts(work, job.spec, device=device_at_hand())["total"] if work else None
        predicted = f"; about {total / 2**30:.1f} GiB were predicted" if total else ""
        return TrainingError(
            f"the training process was killed (out of memory?){predicted}",
            code="TG0405",
            where=where,
            hint=f"run again to go on from the last checkpoint; against a lack of memory: {memory_advice(job.spec)}",
        )
    lines = (job.scratch / LOG).read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
    ended = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return TrainingError(
        "\n".join([f"the training process ended {ended}; its last lines:", *lines]), code="TG0407", where=where
    )


def _is_complete(final: Path) -> bool:
    """Is there a sealed result of an attempt that was killed after training?"""
    try:
        verify(final)
    except StorageError:
        return False
    return True


def _collect(job: TrainJob, out: Path) -> TrainedRef:
    """Copy the result into `out`; the scratch folder keeps its own until the step is committed."""
    final = job.scratch / FINAL
    for path in sorted(final.iterdir()):
        if path.name == MANIFEST:
            continue
        try:
            os.link(path, out / path.name)
        except OSError:
            shutil.copyfile(path, out / path.name)
    told = orjson.loads((final / "training.json").read_bytes())
    return TrainedRef(
        root=out,
        method=job.spec.method,
        format=job.spec.format,
        base_digest=job.model.digest,
        **{key: told[key] for key in ("n_trainable", "n_steps", "n_tokens", "train_loss", "validation_loss")},
    )
