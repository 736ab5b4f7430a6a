"""A run that is stopped while a thread of it hangs: the process ends, with what is finished in the store."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.prefect_server import PrefectServer
from tests.support.project import PROJECT

RUN = """
import signal, sys, time
from pathlib import Path
from flows.graph import execute
from flows.graph.graph import Graph
from flows.graph.store import Store
from schemas.artifacts import Artifact
from tasks.step import as_step

execute.END_WITHIN_S = float(sys.argv[3])

@as_step("quick")
def quick(out: Path) -> Artifact:
    (out / "text").write_text("done")
    return Artifact(root=out)

@as_step("hangs")
def hangs(out: Path, *, after: Artifact) -> Artifact:
    print("hangs", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    graph = Graph()
    graph.add(hangs, after=graph.add(quick))
    run = execute.Run(graph, Store(Path(sys.argv[1])))
    if sys.argv[2] == "prefect":
        from prefect import flow
        from flows.graph.prefect_runner import run_nodes
        from flows.pipeline import step
        flow(lambda: run_nodes(step, run, None), name="x")()
    else:
        execute.run_plainly(run)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_step_that_hangs_does_not_keep_a_stopped_run_alive(tmp_path: Path, number: int) -> None:
    errors = stop_while_it_hangs(tmp_path, "plain", number, {})
    assert "stopped without waiting for hangs, which did not end within 2 s" in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_waits_for_a_step_says_so_and_ends_at_once_if_it_is_stopped_again(
    tmp_path: Path, number: int
) -> None:
    errors = stop_while_it_hangs(tmp_path, "plain", number, {}, again=True)
    assert errors.splitlines() == [
        "waiting at most 500 s for hangs; stop it again to end at once",
        "stopped without waiting for hangs, since it was stopped again",
    ]


@pytest.mark.server
def test_a_step_that_hangs_does_not_keep_a_stopped_flow_alive(tmp_path: Path, prefect_server: PrefectServer) -> None:
    errors = stop_while_it_hangs(tmp_path, "prefect", signal.SIGTERM, prefect_server.environ)
    assert "stopped without waiting for hangs, which did not end within 2 s" in errors


@pytest.mark.server
def test_a_flow_that_waits_for_a_step_ends_at_once_if_it_is_stopped_again(
    tmp_path: Path, prefect_server: PrefectServer
) -> None:
    errors = stop_while_it_hangs(tmp_path, "prefect", signal.SIGTERM, prefect_server.environ, again=True)
    assert "stopped without waiting for hangs, since it was stopped again" in errors


def stop_while_it_hangs(folder: Path, runner: str, number: int, environ: dict[str, str], *, again: bool = False) -> str:
    script = folder / "run.py"
    script.write_text(RUN)
    with subprocess.Popen(
        [sys.executable, str(script), str(folder / "home"), runner, "500" if again else "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT,
        env={**environ, "PYTHONPATH": str(PROJECT), "HOME": str(folder)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        while process.stdout.readline().strip() != "hangs":
            assert process.poll() is None
        process.send_signal(number)
        begun, said = time.monotonic(), ""
        try:
            while again and "waiting at most" not in said:
                assert process.poll() is None
                said += process.stderr.readline()
            if again:
                process.send_signal(number)
            _, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    assert time.monotonic() - begun < 250
    assert process.returncode == 143
    assert list((folder / "home").rglob("text"))
    return said + errors
