"""The measured cost of a process is its real cost, workers included."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.measure import Cost, Sampler, run_measured
from tests.support.processes import is_running

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the benchmarks read /proc: Linux only")
BURN = "import time; end = time.process_time() + {seconds}\nwhile time.process_time() < end: pass\n"


def measure(code: str, folder: Path, limit_s: float = 60.0) -> Cost:
    return run_measured(
        [sys.executable, "-c", code], limit_s=limit_s, environment=dict(os.environ), folder=folder, scratch=folder
    )


def test_cpu_seconds_include_the_process_and_its_workers(tmp_path: Path) -> None:
    alone = measure(BURN.format(seconds=0.4), tmp_path)
    assert alone.complete
    assert 0.4 <= alone.cpu_s < 0.75
    worker = BURN.format(seconds=0.4)
    both = measure(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])\n{worker}", tmp_path)
    assert 0.8 <= both.cpu_s < 1.6


def test_peak_memory_counts_memory_that_is_freed_before_the_end(tmp_path: Path) -> None:
    code = "import time; block = bytearray(200_000_000); time.sleep(0.2); del block; time.sleep(0.2)"
    assert 200 < measure(code, tmp_path).peak_mb < 260


def test_a_run_over_its_limit_is_stopped_with_its_workers_and_reported(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('pid', 'w').write(str(child.pid)); child.wait()"
    )
    cost = measure(code, tmp_path, limit_s=4.0)
    assert cost.code is None
    assert not cost.complete
    assert cost.wall_s < 30
    worker = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30  # the kernel has not removed it yet
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(worker)


def test_the_output_of_a_failing_run_is_kept(tmp_path: Path) -> None:
    cost = measure("import sys; print('before'); sys.exit('a reason')", tmp_path)
    assert (cost.code, cost.stdout, cost.stderr) == (1, "before\n", "a reason\n")


def test_the_sampler_counts_processes_that_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    parent = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {burn!r}]); time.sleep(0.5)"
    process = subprocess.Popen([sys.executable, "-c", parent])
    sampler = Sampler(process.pid, every_s=0.01)
    sampler.start()
    process.wait()
    sampler.stop()
    assert sampler.cpu_s > 0.35
