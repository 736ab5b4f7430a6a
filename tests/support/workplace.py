"""A folder with a small pipeline on a tiny model, and `tunegate` commands to run in it.

Commands run in this process, without Prefect (`Workplace`), or as forks of a warm process with a Prefect server
(`ForkedWorkplace`). The fixture decides whether the store already holds the results of a finished run.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from flows.ledger.ledger import Ledger
from flows.workspace.disk import private_folder
from tests.support.commands import NOWHERE, run_here
from tests.support.warm import Warm, WarmProcess

FINISHED = ("store", "keys", "measured")
"""What a home folder gets from a finished run: results, their inputs, and their timings."""


@dataclass
class Workplace:
    """A folder with its own pipelines.yaml, and commands that run in this process."""

    folder: Path
    environ: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / ".tunegate"

    def declare(self, change: Callable[[dict[str, Any]], None] = lambda _document: None) -> None:
        """Write the small pipelines.yaml, modified by `change`."""
        document = small_document(self.environ["TINY_MODEL"])
        change(document)
        with (self.folder / "pipelines.yaml").open("w") as stream:
            YAML().dump(document, stream)

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `tunegate ...` and wait for it."""
        return run_here(arguments, cwd=self.folder, environ={**self.environ, **environ})

    def json(self, *arguments: str) -> Any:
        """The object that `tunegate ... --json` prints."""
        done = self.run(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


@dataclass
class ForkedWorkplace(Workplace):
    """A workplace that runs commands in separate processes, which tests can kill."""

    warm: Warm

    def start(self, *arguments: str, **environ: str) -> WarmProcess:
        """Start `tunegate ...` without waiting for it."""
        return self.warm.start(arguments, cwd=self.folder, environ={**self.environ, **environ})

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **environ)
        try:
            out, error = process.communicate(timeout=1700)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.returncode is not None
        return subprocess.CompletedProcess(arguments, process.returncode, out, error)


AS_GOOD: dict[str, Any] = {
    "confidence": 0.6,
    "min_items": 5,
    "round_trip": None,
    "anchor": None,
    "rules": [{"metric": "answered", "change_threshold": {"mode": "no_worse", "margin": 0.05}}],
}
"""Gates that an equal candidate passes on 12 held-out items; so few show a margin of 0.05 at no higher confidence."""
ANSWERED: dict[str, Any] = {
    "uses": "sql",
    "name": "answered",
    "select": (
        "SELECT p.item_id, (p.text <> '' AND NOT EXISTS (FROM items AS other WHERE contains(p.text, other.answer) "
        "AND other.answer <> mine.answer))::INT AS value FROM predictions AS p JOIN items AS mine USING (item_id)"
    ),
}
"""The metric of `AS_GOOD`, 0 for no answer or that of another ticket. It is 1 for the answers of a tiny random model,
which are never right: two models that are always wrong compare nothing."""


def environment(model: Path, cache: Path) -> dict[str, str]:
    """The environment of a workplace's commands: the tiny model, and no server."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return {**inherited, "TINY_MODEL": str(model), "TUNEGATE_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


def finish(workplace: Workplace) -> None:
    """Run both pipelines of the small document to their verdicts, without Prefect."""
    workplace.environ["PREFECT_API_URL"] = NOWHERE
    workplace.declare()
    assert workplace.run("run", "small").returncode == 0
    assert workplace.run("run", "strict").returncode == 5


def give_results(home: Path, finished: Path) -> None:
    """Copy a finished run's results into a home folder with a new, empty ledger.

    Copies, not links: they are only 5 MB, and a test may damage a file.
    """
    private_folder(home)
    Ledger(home).accept("new", reason="the store was given", actor="tests")
    for name in FINISHED:
        shutil.copytree(finished / ".tunegate" / name, home / name)


def give_mlflow(home: Path, empty_store: Path) -> None:
    """Copy an empty MLflow database into a home folder."""
    target = private_folder(home / "mlflow") / "mlflow.db"
    shutil.copy(empty_store, target)
    target.chmod(0o600)


def small_document(model: str) -> dict[str, Any]:
    """A pipeline that reaches a verdict in seconds: 240 tickets, a random two-layer model, four steps.

    Every candidate meets its one rule, since each answer counts as much as any other.
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
                    "metrics": [dict(ANSWERED)],
                    "threads": 1,
                },
                "gates": deepcopy(AS_GOOD),
                "register": {"name": "small"},
            },
            "strict": {
                "extends": "small",
                "train": {"seed": 1},
                "gates": {"rules": [{"metric": "exact", "value_threshold": 0.9}]},
            },
        },
    }
