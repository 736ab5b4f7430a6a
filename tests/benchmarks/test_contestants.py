"""Every engine can be run from what the checkout holds, and what is left out says why."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks.contestants import ENGINES, LIMIT_S, QUICK, not_run, plan
from benchmarks.corpus import SIZES
from benchmarks.home import PEERS, MissingError, find_python, pinned


def test_every_engine_has_its_script_and_its_list_of_pins(project: Path) -> None:
    for engine in ENGINES:
        assert (project / "benchmarks" / "engines" / engine.script).is_file(), engine.name
        assert engine.environment == "project" or pinned(engine.environment), engine.name


def test_the_lists_hold_exact_versions_and_no_address() -> None:
    for path in PEERS.glob("*.txt"):
        for line in path.read_text().splitlines():
            assert re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.]+", line), f"{path.name}: {line}"


def test_every_corpus_has_a_limit_and_every_planned_corpus_exists() -> None:
    assert set(LIMIT_S) == set(SIZES)
    assert {name for engine in ENGINES for name in engine.rounds} <= set(SIZES)


def test_an_engine_left_out_of_a_corpus_says_why() -> None:
    everywhere = {"20k", "200k", "1m", "flood"}
    told = "\n".join(not_run())
    assert "NeMo Curator" in told
    for engine in ENGINES:
        assert set(engine.rounds) == everywhere or f"{engine.name}: " in told, engine.name


def test_the_quick_plan_is_ours_the_floor_and_rensa() -> None:
    chosen = plan("200k", quick=True)
    assert {engine.environment for engine in chosen} == {"project", "rensa"}
    assert {engine.name for engine in chosen if engine.environment == "project"} == set(QUICK)


def test_an_absent_python_is_named() -> None:
    assert find_python(f"{sys.version_info.major}.{sys.version_info.minor}") == sys.executable
    with pytest.raises(MissingError, match=r"no Python 3\.99"):
        find_python("3.99")
