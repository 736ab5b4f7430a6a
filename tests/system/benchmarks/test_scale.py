"""The tickets of the scale benchmark, and its arithmetic."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measure import Sampler


def test_the_sampler_counts_processes_that_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    parent = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {burn!r}]); time.sleep(0.5)"
    process = subprocess.Popen([sys.executable, "-c", parent])
    sampler = Sampler(process.pid, every_s=0.01)
    sampler.start()
    process.wait()
    sampler.stop()
    assert sampler.cpu_s > 0.35
