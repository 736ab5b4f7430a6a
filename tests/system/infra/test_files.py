"""Image, compose file and systemd units say what the stack does: the same servers, closed in the same way."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.support.project import PROJECT

INFRA = PROJECT / "infra"


def test_the_lock_of_a_machine_without_a_gpu_lacks_torch_and_cuda_alone() -> None:
    lock = INFRA.parent / "requirements.lock"

    def ask(*options: str) -> str:
        command = [sys.executable, str(INFRA / "cpu_lock.py"), str(lock), *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    pins = re.findall(r"^([a-z0-9][^ =]*)==", lock.read_text(), re.M)
    kept = re.findall(r"^([a-z0-9][^ =]*)==", ask(), re.M)
    gone = [name for name in pins if name not in kept]
    assert "torch" in gone
    assert all(name in ("torch", "triton") or name.startswith(("nvidia-", "cuda-")) for name in gone)
    assert ask().count("--hash=sha256:") < lock.read_text().count("--hash=sha256:")
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+\n", ask("--torch"))
