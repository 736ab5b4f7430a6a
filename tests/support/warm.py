"""Starts `tunegate` commands as forks of one process that has already imported the heavy libraries.

Importing torch, transformers, peft, MLflow, Prefect and our own modules costs twelve CPU-seconds per command, and the
tests run a hundred commands. A fork has its own pid, environment, folder, pipes, signals and exit code. Prefect reads
its environment on import, so the fork makes it read it again; our code reads it when called. The training process of a
command is a fork of that command; with `FRESH_WORKER` in the environment it is a new interpreter, as users get it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PRELOADED = (
    "torch", "transformers", "peft", "mlflow", "sklearn.linear_model", "scipy.stats", "datasets", "pandas", "duckdb",
    "transformers.models.llama.modeling_llama", "transformers.models.auto.tokenization_auto", "pyarrow.parquet",
    "transformers.generation.utils", "mlflow.store.tracking.sqlalchemy_store", "sqlalchemy.orm", "jsonschema", "httpx",
    "torch.utils.checkpoint", "torch.distributed.fsdp", "sklearn.feature_extraction.text", "rich.console",
    "flows.cli", "flows.pipeline", "flows.cli.running",
)  # fmt: skip
FRESH_WORKER = "FRESH_WORKER"
_POLL_S = 0.01


class Warm:
    """The process to fork; tests call `start`."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._address = str(folder / "warm.sock")
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__)), self._address], env=dict(environ), stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 900
        while not Path(self._address).exists():
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the warm process did not come up")
            time.sleep(0.05)

    def start(
        self, arguments: Sequence[str], *, cwd: Path, environ: Mapping[str, str], program: str = "flows.cli"
    ) -> WarmProcess:
        """Start `tunegate ARGUMENTS`, or another module's `main`, without waiting for it; no standard input."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(self._address)
        out, out_end = os.pipe()
        error, error_end = os.pipe()
        request = {"arguments": list(arguments), "cwd": str(cwd), "environ": dict(environ), "program": program}
        socket.send_fds(connection, [b"!"], [out_end, error_end])
        connection.sendall(json.dumps(request).encode() + b"\n")
        os.close(out_end)
        os.close(error_end)
        answers = connection.makefile("r")
        return WarmProcess(list(arguments), int(answers.readline()), connection, answers, out, error)

    def stop(self) -> None:
        """Stop the process; tests stop forks that still run."""
        self._server.terminate()
        self._server.wait(60)


class WarmProcess:
    """The subset of `subprocess.Popen[str]` that tests use."""

    def __init__(
        self, arguments: list[str], pid: int, connection: socket.socket, answers: Any, out: int, error: int
    ) -> None:
        self.args, self.pid = arguments, pid
        self.returncode: int | None = None
        self.stdout, self.stderr = os.fdopen(out, encoding="utf-8"), os.fdopen(error, encoding="utf-8")
        self._connection, self._answers = connection, answers

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end.

        Raises:
            subprocess.TimeoutExpired: as `Popen.wait`.
        """
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            time.sleep(_POLL_S)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait until it has ended and its pipes are closed; return stdout and stderr."""
        deadline = time.monotonic() + timeout if timeout is not None else float("inf")
        streams = {self.stdout.fileno(): b"", self.stderr.fileno(): b""}
        waiting = set(streams)
        while waiting:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            for ready in select.select(list(waiting), [], [], 0.2)[0]:
                data = os.read(ready, 65536)
                streams[ready] += data
                if not data:
                    waiting.discard(ready)
        self.wait(max(1.0, deadline - time.monotonic()) if timeout is not None else None)
        out, error = (streams[stream.fileno()].decode("utf-8") for stream in (self.stdout, self.stderr))
        self.stdout.close()
        self.stderr.close()
        return out, error

    def send_signal(self, number: int) -> None:
        """As `Popen.send_signal`."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)


def serve(address: str) -> None:
    """Fork for each request; report its pid and, at its end, its exit code."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    for name in PRELOADED:
        importlib.import_module(name)
    _prepare()
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address + ".new")
    listener.listen(64)
    Path(address + ".new").rename(address)
    running: dict[int, socket.socket] = {}
    while True:
        if select.select([listener], [], [], _POLL_S)[0]:
            connection, _ = listener.accept()
            _, ends, _, _ = socket.recv_fds(connection, 1, 2)
            request = json.loads(connection.makefile("r").readline())
            pid = os.fork()
            if pid == 0:
                for other in (listener, connection, *running.values()):
                    other.close()
                _become(request, ends)
            for end in ends:
                os.close(end)
            running[pid] = connection
            connection.sendall(f"{pid}\n".encode())
        _report_ends(running)


def _prepare() -> None:
    """Do once what every command would repeat: read the sources that keys depend on, list the installed packages."""
    from mlflow.utils import requirements_utils

    from flows.graph.keys import module_digests

    for name in [name for name in sys.modules if name.startswith("tasks.")]:
        file = sys.modules[name].__file__
        if file is not None:
            module_digests(name, Path(file))
    requirements_utils._init_packages_to_modules_map()
    assert threading.active_count() == 1, "a fork would lack the other threads"


def _report_ends(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        connection = running.pop(pid)
        with contextlib.suppress(OSError):  # the test failed and closed its end
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        connection.close()


def _become(request: dict[str, Any], ends: Sequence[int]) -> None:
    """Turn this fork into the command; never returns."""
    code = 1
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (ends[0], 1), (ends[1], 2)):
            os.dup2(source, target)
        for end in (nothing, *ends):
            os.close(end)
        # As in a new process: those of the parent remember whether their file could seek.
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        # A shell that starts the tests in the background ignores it, and the command would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request["environ"])
        os.chdir(request["cwd"])
        sys.path[0] = ""  # as with `python -m`
        sys.argv = ["tunegate", *request["arguments"]]
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()  # read the new environment
        if FRESH_WORKER not in os.environ:
            _fork_the_training()
        code = importlib.import_module(request["program"]).main() or 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for handler in (sys.stdout, sys.stderr):
            handler.flush()
        _run_exit_handlers()
        os._exit(code)


def _fork_the_training() -> None:
    from benchmarks.forked import ALONE, Forked
    from tasks.train import launch

    os.environ.update({**ALONE, **os.environ})
    launch._start = Forked  # type: ignore[assignment]


def _run_exit_handlers() -> None:
    import atexit
    import threading

    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does on exit
    atexit._run_exitfuncs()


if __name__ == "__main__":
    serve(sys.argv[1])
