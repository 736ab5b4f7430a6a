"""New Python environments with only the packages that a test names, and with the built wheel.

They are filled from uv's cache by hard links where it lies on the same disk, without a network.
"""

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.project import PROJECT


def clean_python(folder: Path, wanted: list[Requirement]) -> Path:
    """A new environment with these requirements and what they need, in the versions of requirements.lock."""
    python, locked = folder / "bin" / "python", folder.with_suffix(".lock")
    locked.write_text(lock_of(wanted))
    uv("venv", "--python", sys.executable, folder)
    uv("pip", "sync", "--require-hashes", "--python", python, locked)
    return python


def wheel_python(folder: Path, *extras: str) -> Path:
    """A new environment with the wheel of this checkout and the extras; `tunegate` is next to the Python."""
    python = clean_python(folder, [Requirement(f"tunegate[{','.join(extras)}]")])
    built = folder.with_name(f"{folder.name}-wheel")
    uv("build", "--wheel", "--no-build-isolation", "--out-dir", built, PROJECT)
    uv("pip", "install", "--no-deps", "--python", python, *built.glob("*.whl"))
    [packages] = folder.glob("lib/python*/site-packages")
    _give_kernels(packages)
    return python


def _give_kernels(packages: Path) -> None:
    """Give an environment the machine code that this checkout has of the same sources: to compile it takes a minute."""
    for code in (PROJECT / "tasks").rglob("__pycache__/*.nb[ic]"):
        source = code.parents[1] / f"{code.name.partition('.')[0]}.py"
        theirs = packages / source.relative_to(PROJECT)
        if theirs.stat().st_mtime_ns != source.stat().st_mtime_ns:  # numba compares time and size
            assert theirs.read_bytes() == source.read_bytes()
            theirs.unlink()  # a hard link into uv's cache
            shutil.copy2(source, theirs)
        (theirs.parent / "__pycache__").mkdir(exist_ok=True)
        shutil.copy2(code, theirs.parent / "__pycache__")


def uv(*arguments: str | Path) -> None:
    """Run `uv` without a network; skip if its cache lacks what it needs."""
    program = str(Path(sys.executable).with_name("uv"))
    done = subprocess.run([program, "--quiet", "--offline", *arguments], check=False, capture_output=True, text=True)
    if "network was disabled" in done.stderr:
        pytest.skip(f"uv's cache lacks a requirement: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def lock_of(wanted: list[Requirement]) -> str:
    """The entries of requirements.lock for the requirements and all that they need, as they are installed here."""
    extras: dict[str, set[str]] = {}
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name in extras and requirement.extras <= extras[name]:
            continue
        extras.setdefault(name, {""}).update(requirement.extras)
        needs = [Requirement(line) for line in metadata.distribution(name).requires or ()]
        wanted += [
            each for each in needs
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras[name])
        ]  # fmt: skip
    entries = re.split(r"\n(?=\S)", (PROJECT / "requirements.lock").read_text())
    return "\n".join(each for each in entries if canonicalize_name(re.split(r"[=\[ ;]", each)[0]) in extras)
