"""A pipeline run as a fork of this process, which has the heavy libraries loaded.

The child acknowledges its work (each finished step, the verdict) in memory shared with this process: that needs no
system call, so no fault can hit it, and it outlives the child. The run does not use Prefect, like a run without its
server (`flows/schedule/without_prefect.py`).

Faults inside the child come from an audit hook, which sees every file operation of Python code before it happens. It
counts those that change something below the try's folder; the run and its forked training process share one count.
Steps run in parallel, so a number is nearly, but not exactly, the same place in every run. strace handles writes of
native libraries (`kills.py`).
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import mmap
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.forked import Forked
from flows.context.listener import Listener

if TYPE_CHECKING:
    from flows.context.request import Stage
    from flows.context.run_context import RunContext
    from flows.graph.execute import NodeOutcome
    from flows.graph.graph import Node
    from schemas.schedule import Cause

PIPELINE = "desk"
PRELOADED = (
    "torch", "transformers", "peft", "mlflow", "mlflow.store.tracking.sqlalchemy_store", "sklearn.linear_model",
    "scipy.stats", "pandas", "datasets", "duckdb", "pyarrow.parquet", "flows.pipeline", "flows.cli.running",
)  # fmt: skip
limit_s = 120.0
"""A run that takes longer on a quiet machine is stuck; an undisturbed toy run takes five seconds."""
_SIZE = 1 << 18
_POLL_S = 0.005

Ack = dict[str, Any]
Work = Callable[["Acks"], int]
"""Runs in a fork; returns its exit code."""
Before = Callable[["Acks"], None]
"""Runs in the child before the run starts."""
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate", "sqlite3.connect")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_counting = threading.RLock()
"""Steps run in parallel threads."""


def _count_in_child() -> None:
    global _counting
    _counting = threading.RLock()  # another thread may have held it when this process was forked


os.register_at_fork(after_in_child=_count_in_child)


class Acks:
    """Lines in shared memory: one process writes them, another reads them after the first has ended."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE)

    def write(self, **ack: Any) -> None:
        data = json.dumps(ack).encode() + b"\n"
        with _counting:
            length = int.from_bytes(self._memory[:8], "little")
            self._memory[8 + length : 8 + length + len(data)] = data
            self._memory[:8] = (length + len(data)).to_bytes(8, "little")  # last, so that a kill leaves no partial line

    def read(self) -> list[Ack]:
        length = int.from_bytes(self._memory[:8], "little")
        return [json.loads(line) for line in self._memory[8 : 8 + length].splitlines()]


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    """Exit code of `tunegate run`; negative: the signal."""
    acks: tuple[Ack, ...]
    output: str
    """Its stdout and stderr."""
    seconds: float
    is_stuck: bool = False

    @property
    def error(self) -> str:
        """Code of the error that ended it; empty without an error."""
        return next((ack["code"] for ack in self.acks if ack["kind"] == "error"), "")


class Child:
    """One run in progress."""

    def __init__(self, pid: int, acks: Acks, output: Path) -> None:
        self.pid = pid
        self._acks, self._output = acks, output
        self._began = time.monotonic()
        self._status: int | None = None

    def is_alive(self) -> bool:
        """Whether it is running; reaps it if not."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is None

    def acks(self) -> list[Ack]:
        """Its acknowledgements so far."""
        return self._acks.read()

    def kill(self) -> None:
        """Send SIGKILL to the run only; its training process must notice by itself."""
        if self.is_alive():
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> Ended:
        """Wait until it ends; kill it if it takes too long."""
        is_stuck = False
        waiting = os.getloadavg()[0] / len(os.sched_getaffinity(0))  # processes for each processor
        while self.is_alive():
            if time.monotonic() - self._began > limit_s * max(1.0, waiting):
                is_stuck = True
                self.kill()
            time.sleep(_POLL_S)
        assert self._status is not None
        output = self._output.read_text(encoding="utf-8", errors="replace") if self._output.exists() else ""
        code = os.waitstatus_to_exitcode(self._status)
        return Ended(code, tuple(self.acks()), output, time.monotonic() - self._began, is_stuck)


def warm(names: Sequence[str] = PRELOADED) -> None:
    """Load a run's libraries once for all forks; call it again with those that a first run had to load itself."""
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", DO_NOT_TRACK="1", MLFLOW_DISABLE_TELEMETRY="true")
    for name in names:
        with contextlib.suppress(ImportError):  # some modules can only be imported by others
            importlib.import_module(name)
    from tasks.train import launch

    launch._start = Forked  # type: ignore[assignment]
    with contextlib.suppress(ImportError, AttributeError):  # MLflow scans all packages once per process
        importlib.import_module("mlflow.utils.requirements_utils")._init_modules_to_packages_map()
    gc.collect()
    gc.freeze()


def start(place: Path, output: Path, work: Work, *, environ: Mapping[str, str]) -> Child:
    """Run the work in a fork, in the folder `place`; its stdout and stderr go to the file `output`."""
    acks = Acks()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return Child(pid, acks, output)
    code = 70
    try:
        stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        os.environ.update(environ)
        if "TMPDIR" in environ:
            Path(environ["TMPDIR"]).mkdir(exist_ok=True)
            tempfile.tempdir = None  # drop the value cached before the fork
        os.chdir(place)
        code = work(acks)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def pipeline_run(before: Before | None = None, *, until: Stage = "release", tick: Cause | None = None) -> Work:
    """The work of `tunegate run`, after `before` has run in the child."""

    def work(acks: Acks) -> int:
        from flows.context.request import RunRequest
        from flows.run.open_run import open_run
        from flows.schedule.without_prefect import run_without_prefect
        from flows.workspace.settings import load_settings
        from schemas.errors import TunegateError
        from schemas.load import load_file

        loaded = set(sys.modules)
        if before is not None:
            before(acks)

        config = Path("pipelines.yaml")
        try:
            with open_run(
                load_file(config).get(PIPELINE), load_settings(config), RunRequest(until=until, tick=tick),
                root=Path.cwd(), listeners=lambda context: (_Acknowledger(context, acks),),
            ) as opened:  # fmt: skip
                outcome = run_without_prefect(opened)
        except TunegateError as error:
            acks.write(kind="error", code=error.code)
            print(f"{error.code}: {error.message} ({error.where})", file=sys.stderr)
            traceback.print_exc()
            return error.exit_code
        acks.write(kind="end", **outcome.model_dump())
        acks.write(kind="loaded", names=sorted(set(sys.modules) - loaded)[:2000])
        return outcome.exit_code

    return work


def reconciliation(_acks: Acks) -> int:
    """The work of `tunegate ops reconcile`."""
    from flows.champion.mlflow_sync import reconcile
    from flows.ledger.ledger import Ledger
    from flows.workspace.settings import load_settings

    settings = load_settings(Path("pipelines.yaml"))
    late = reconcile(Ledger(settings.home), settings).late
    if late is not None:
        print(f"{late.code}: {late.message}", file=sys.stderr)
    return 0 if late is None else late.exit_code


class _Acknowledger(Listener):
    """A listener that acknowledges finished work."""

    def __init__(self, context: RunContext, acks: Acks) -> None:
        self._run_id, self._acks = context.run_id, acks

    def ended(self, node: Node, outcome: NodeOutcome) -> None:
        if node.kind == "step" and not outcome.skipped:
            self._acks.write(
                kind="step", run_id=self._run_id, step=node.id, folder=node.folder, digest=outcome.result.digest,
                reused=outcome.reused,
            )  # fmt: skip

    def noted(self, text: str) -> None:
        print(f"note {text}", file=sys.stderr, flush=True)


# Faults inside the child


def count_operations(place: Path) -> Before:
    """Acknowledge each operation as `{"kind": "operations", "n": 1}`."""
    return _at_each(place, lambda acks, _number: acks.write(kind="operations", n=1))


def kill_at(place: Path, number: int) -> Before:
    """Send SIGKILL to the process that starts the operation of this number, before it happens."""

    def act(_acks: Acks, reached: int) -> None:
        if reached == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return _at_each(place, act)


def fail_from(place: Path, number: int, *, error: int = errno.ENOSPC, once: bool = False) -> Before:
    """Make this operation and all later ones fail, as on a full disk; `once`: only this one, as on a bad sector."""

    def act(acks: Acks, reached: int) -> None:
        if reached == number or (reached > number and not once):
            acks.write(kind="failed", n=reached)
            raise OSError(error, os.strerror(error))

    return _at_each(place, act)


def limit(what: int, value: int) -> Before:
    """Set a kernel limit for the run and its training process."""

    def before(_acks: Acks) -> None:
        resource.setrlimit(what, (value, resource.getrlimit(what)[1]))

    return before


def when_read(path: Path, number: int, act: Callable[[], None]) -> Before:
    """Call `act` right before the file is opened for the nth time."""

    def before(_acks: Acks) -> None:
        seen, busy = 0, False

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal seen, busy
            if event != "open" or busy or not _is_below(arguments[0], str(path)):
                return
            seen += 1
            if seen == number:
                busy = True
                act()
                busy = False

        sys.addaudithook(hook)

    return before


def _at_each(place: Path, act: Callable[[Acks, int], None]) -> Before:
    def before(acks: Acks) -> None:
        count, below = mmap.mmap(-1, 8), str(place)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if _changes(event, arguments) and _is_below(arguments[0], below):
                with _counting:
                    reached = int.from_bytes(count[:], "little") + 1
                    count[:] = reached.to_bytes(8, "little")
                    act(acks, reached)

        sys.addaudithook(hook)

    return before


def _changes(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        return isinstance(arguments[2], int) and bool(arguments[2] & _WRITES)
    return event in CHANGES


def _is_below(path: Any, folder: str) -> bool:
    return isinstance(path, str | os.PathLike) and str(os.fspath(path)).startswith(folder)
