"""A small pipeline on a tiny model, run by the real command against a real Prefect server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.servers import client_environment, ensure_prefect, stop_all
from schemas.artifacts import ModelRef


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real Prefect server for all tests."""
    home = tmp_path_factory.mktemp("prefect-home")
    server = ensure_prefect(
        home, environ={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    )
    assert server is not None
    yield f"{server.url}/api"
    stop_all(home)


@dataclass
class Workplace:
    """A folder with a pipelines.yaml of its own, and the command to run in it."""

    folder: Path
    environ: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / ".tunegate"

    def declare(self, change: Callable[[dict[str, Any]], None] = lambda _document: None) -> None:
        """Write pipelines.yaml after `change` has had its way with the small one."""
        document = small_document(self.environ["TINY_MODEL"])
        change(document)
        with (self.folder / "pipelines.yaml").open("w") as stream:
            YAML().dump(document, stream)

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Start `tunegate ...` without waiting for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=self.folder, env={**self.environ, **environ}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `tunegate ...` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=self.folder, env={**self.environ, **environ}, text=True, capture_output=True, check=False, timeout=300,
        )  # fmt: skip

    def json(self, *arguments: str) -> Any:
        """The object that `tunegate ... --json` prints."""
        done = self.run(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


def small_document(model: str) -> dict[str, Any]:
    """A pipeline that reaches a verdict in seconds: 240 tickets, a random two-layer model, four steps.

    Its one rule (at least 0 % of the answers are not empty) is always met: what a tiny random model writes is of no
    interest here.
    """
    return {
        "version": 1,
        "pipelines": {
            "small": {
                "source": {"kind": "generated", "n_tickets": 240, "n_customers": 60, "seed": 3},
                "schema": {"fail_above": 0.2},
                "curate": {
                    "steps": [
                        {"uses": "redact"},
                        {"uses": "rule", "name": "has_reply", "keep": "reply is not null"},
                        {"uses": "dedup"},
                    ]
                },
                "split": {"test_fraction": 0.25, "validation_fraction": 0.05},
                "train": {
                    "base_model": f"file:{model}",
                    "dtype": "float32",
                    "max_examples": 32,
                    "max_length": 512,
                    "overflow": "truncate_left",
                    "batch_size": 4,
                    "max_steps": 6,
                    "save_every": 2,
                    "threads": 1,
                },
                "evaluate": {
                    "max_items": 12,
                    "max_new_tokens": 4,
                    "arms": ["zero_shot", "majority", "tfidf"],
                    "threads": 1,
                },
                "gates": {"min_items": 5, "round_trip": None, "rules": [{"metric": "format", "value_threshold": 0.0}]},
                "register": {"name": "small"},
            },
            "strict": {
                "extends": "small",
                "train": {"seed": 1},
                "gates": {"rules": [{"metric": "exact", "value_threshold": 0.9}]},
            },
        },
    }


@pytest.fixture
def bare_workplace(tmp_path: Path, tiny_model: ModelRef) -> Workplace:
    """A workplace without a Prefect server of its own: whoever needs one starts it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environ |= {"TINY_MODEL": str(tiny_model.root), "TUNEGATE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    return Workplace(tmp_path, environ)


@pytest.fixture
def workplace(bare_workplace: Workplace, prefect_url: str) -> Workplace:
    """A workplace that uses the tests' Prefect server."""
    bare_workplace.environ |= {**client_environment(None), "PREFECT_API_URL": prefect_url}
    bare_workplace.declare()
    return bare_workplace
