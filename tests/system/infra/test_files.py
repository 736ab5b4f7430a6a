"""The image's lock without CUDA, and the make targets that check packages."""

import os
import re
import subprocess
import sys

from tests.support.project import PROJECT

INFRA = PROJECT / "infra"


def test_the_lock_of_a_machine_without_a_gpu_lacks_only_torch_and_cuda() -> None:
    lock = INFRA.parent / "requirements.lock"

    def ask(*options: str) -> str:
        command = [sys.executable, str(INFRA / "cpu_lock.py"), str(lock), *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    pins = re.findall(r"^([a-z0-9][^ =]*)==", lock.read_text(), re.M)
    kept = re.findall(r"^([a-z0-9][^ =]*)==", ask(), re.M)
    missing = [name for name in pins if name not in kept]
    assert "torch" in missing
    assert all(name in ("torch", "triton") or name.startswith(("nvidia-", "cuda-")) for name in missing)
    assert ask().count("--hash=sha256:") < lock.read_text().count("--hash=sha256:")
    assert re.fullmatch(r"torch==\d+\.\d+\.\d+\n", ask("--torch"))


def test_installed_packages_have_allowed_licences_and_others_are_named() -> None:
    command = [sys.executable, "-m", "piplicenses", "--summary"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Apache-2.0" in done.stdout
    refused = [*command, "--allow-only", "Apache-2.0", "--packages", "pydantic"]
    done = subprocess.run(refused, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "license MIT not in allow-only licenses was found for package pydantic" in done.stderr


def test_an_unreachable_advisory_database_is_an_error() -> None:
    nowhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9")
    environ = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    done = subprocess.run(
        ["make", "--no-print-directory", "--assume-old=install", "audit", f"BIN={sys.prefix}/bin"],
        cwd=PROJECT, env={**environ, **nowhere}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "the advisories could not be read" in done.stderr.splitlines()[-2]
