"""A DAG of Airflow 3 in which the deployment follows the gate.

The task that calls tunegate is a plain function; as a script this file runs it alone.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from gate import check

FOLDER = Path("results")


def gate_candidate(folder: Path = FOLDER) -> bool:
    """Judge `candidate.jsonl`; whether the tasks behind this one run. Without a verdict the task fails."""
    found = check("support", folder / "candidate.jsonl", "--champion", str(folder / "in-service.jsonl"))
    sys.stdout.write(f"{found['verdict']}: {found['reason']}\n")
    return found["verdict"] in ("PROMOTE", "SKIP")


if importlib.util.find_spec("airflow"):
    from airflow.sdk import dag, task

    @dag(schedule="@weekly", catchup=False)
    def support_model() -> None:
        """Evaluate, judge, and deploy only what was promoted."""

        @task.bash
        def evaluate() -> str:
            return f"make evaluate OUT={FOLDER}/candidate.jsonl"

        @task.bash
        def deploy() -> str:
            return "make deploy"

        evaluate() >> task.short_circuit(gate_candidate)() >> deploy()

    support_model()

if __name__ == "__main__":
    sys.exit(0 if gate_candidate() else 1)
