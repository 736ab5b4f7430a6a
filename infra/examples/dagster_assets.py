"""Assets of Dagster: the gate is a blocking check of the candidate's results.

What calls tunegate is a plain function; as a script this file runs it alone.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from gate import check

FOLDER = Path("results")


def judge(folder: Path = FOLDER) -> tuple[bool, dict[str, Any]]:
    """Judge `candidate.jsonl`; whether it was promoted, and the numbers to show."""
    found = check("support", folder / "candidate.jsonl", "--champion", str(folder / "in-service.jsonl"))
    shown = {"verdict": found["verdict"], "reason": found["reason"], "n_items": found["n_items"]}
    shown |= {
        f"candidate {name}": mean for name, mean in found["files"].get("candidate", {"means": {}})["means"].items()
    }
    return found["verdict"] in ("PROMOTE", "SKIP"), shown


if importlib.util.find_spec("dagster"):
    import dagster as dg

    @dg.asset
    def candidate_results() -> None:
        """Answers and scores of the candidate on the held-out items: results/candidate.jsonl."""

    @dg.asset_check(asset=candidate_results, blocking=True)
    def gate() -> dg.AssetCheckResult:
        """What depends on the results is made only if the candidate was promoted."""
        passed, shown = judge()
        return dg.AssetCheckResult(passed=passed, metadata=shown)

    defs = dg.Definitions(assets=[candidate_results], asset_checks=[gate])

if __name__ == "__main__":
    promoted, numbers = judge()
    sys.stdout.write("".join(f"{name}: {value}\n" for name, value in numbers.items()))
    sys.exit(0 if promoted else 1)
