"""`tunegate reproduce RUN`: does a recorded run give the same bytes again?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from flows.commands.output import out, print_json, talk
from flows.graph.execute import Observer
from flows.graph.graph import Node
from flows.run.reproduce import Repeated, reproduce_run
from flows.workspace.settings import load_settings


def reproduce(*, run_id: str, config: Path, as_json: bool) -> int:
    """Repeat the run's data and training steps; exit code 1 at the first that is not the same."""

    results: list[Repeated] = []
    for result in reproduce_run(run_id, load_settings(config), root=config.resolve().parent, observer=_Notes()):
        results.append(result)
        if not as_json:
            out().print(f"{result.step:<18} {result.state:<8} {result.told}".rstrip(), markup=False, soft_wrap=True)
    reproduced = all(result.state == "same" for result in results)
    if as_json:
        print_json({"run_id": run_id, "reproduced": reproduced, "steps": [asdict(result) for result in results]})
    else:
        out().print("reproduced byte for byte" if reproduced else "NOT reproduced", markup=False)
    return 0 if reproduced else 1


class _Notes(Observer):
    """Prints what is being repeated."""

    def started(self, node: Node) -> None:
        talk().print(f"  {node.name} ...", style="dim", markup=False)
