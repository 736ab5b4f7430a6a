"""`make compare-demo BASE=COMMIT`: check that the demo gives the same results as at an earlier commit, on this machine.

Both commits are cloned below `.tunegate/compare/`, installed, and run one after the other; the outcome of a commit that
ran before is read back. Every step's files must have the same bytes, the gate's findings the same numbers, and the runs
the same exit codes and verdicts.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
PIPELINES = ("support-replies", "support-replies-mislabelled")
WITHOUT_BYTES = "warehouse.duckdb"
"""DuckDB does not order a file's pages; its tables are compared as Parquet."""


def main() -> int:
    """Print the differences; return 0 if there are none."""
    parser = argparse.ArgumentParser(prog="compare-demo", description=__doc__)
    parser.add_argument("base", help="commit to compare with")
    parser.add_argument("candidate", nargs="?", default="HEAD")
    parser.add_argument("--pipelines", nargs="+", default=PIPELINES)
    chosen = parser.parse_args()
    base, candidate = (outcome_of(commit, tuple(chosen.pipelines)) for commit in (chosen.base, chosen.candidate))
    differences = list(compare(base, candidate))
    n_steps = sum(len(run["steps"]) for run in candidate.values())
    total = f"{len(differences)} differences in {len(candidate)} runs of {n_steps} steps"
    sys.stdout.write("\n".join([*differences, total]) + "\n")
    return 1 if differences else 0


def outcome_of(commit: str, pipelines: tuple[str, ...]) -> dict[str, Any]:
    """Return each pipeline's outcome at the commit: exit code, verdict, findings, sha256 of each file of each step."""
    sha = _output(["git", "rev-parse", "--short=12", f"{commit}^{{commit}}"], PROJECT).strip()
    tree = PROJECT / ".tunegate" / "compare" / sha
    if not tree.exists():
        tree.parent.mkdir(parents=True, exist_ok=True)
        _output(["git", "clone", "--quiet", "--no-checkout", str(PROJECT), str(tree)], PROJECT)
        _output(["git", "checkout", "--quiet", "--detach", sha], tree)
    _output(["make", "--quiet", "install"], tree)
    return {pipeline: _run(tree, pipeline) for pipeline in pipelines}


def compare(base: dict[str, Any], candidate: dict[str, Any]) -> list[str]:
    """Return one line for each difference."""
    lines = []
    for pipeline, before in base.items():
        after = candidate[pipeline]
        names = [name for name in ("exit_code", "verdict", "findings") if before[name] != after[name]]
        lines += [f"{pipeline} {name}: {before[name]} -> {after[name]}" for name in names]
        for step in sorted(before["steps"].keys() | after["steps"].keys()):
            old, new = before["steps"].get(step), after["steps"].get(step)
            if old is None or new is None:
                lines.append(f"{pipeline} {step}: only in {'the candidate' if old is None else 'the base'}")
                continue
            files = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
            lines += [f"{pipeline} {step}/{name}: other bytes" for name in files]
    return lines


def _run(tree: Path, pipeline: str) -> dict[str, Any]:
    """Run the pipeline in the tree unless it ran before, and read its outcome."""
    kept = tree / ".tunegate" / f"outcome-{pipeline}.json"
    if not kept.exists():
        sys.stderr.write(f"{tree.name}: {pipeline}\n")
        # A separate state folder: each home has its own witness of its ledger.
        environment = {**os.environ, "XDG_STATE_HOME": str(tree / ".tunegate" / "state")}
        tunegate = str(tree / ".venv" / "bin" / "tunegate")
        done = subprocess.run(
            [tunegate, "run", pipeline, "--json"], cwd=tree, env=environment, check=False, stdout=subprocess.PIPE
        )
        run = json.loads(done.stdout)
        if run.get("verdict") in (None, "SKIP"):  # a comparison was interrupted after its run
            raise SystemExit(f"{pipeline} ended with {done.returncode}: {run}\nhint: remove {tree}, then compare again")
        show = json.loads(_output([tunegate, "show", run["run_id"], "--json"], tree, environment))
        outcome = {
            "exit_code": done.returncode,
            "verdict": run["verdict"],
            "findings": show["findings"],
            "steps": {step["step"]: _files(tree, step["key"]) for step in show["steps"] if step["key"]},
        }
        kept.write_text(json.dumps(outcome))
    outcome: dict[str, Any] = json.loads(kept.read_text())
    return outcome


def _files(tree: Path, key: str) -> dict[str, str]:
    """Return name -> sha256 of each file of a stored result."""
    (manifest,) = (tree / ".tunegate" / "store").glob(f"*/{key}/MANIFEST.json")
    files = json.loads(manifest.read_text())["files"]
    return {name: entry["sha256"] for name, entry in files.items() if name != WITHOUT_BYTES}


def _output(command: list[str], where: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=where, env=environment, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed in {where}:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
