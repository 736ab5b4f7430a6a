"""Small programs that tests of the engine start, race and kill, and helpers shared with those tests.

`main` reads HOME COMMAND ARGUMENTS from the command line and prints one JSON object.
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path

from flows.graph.execute import NodeOutcome, Run
from flows.graph.graph import Graph, Node
from flows.graph.keys import step_key
from flows.graph.store import Store
from flows.ledger import postgres, promotions
from flows.ledger.database import Database
from flows.ledger.ledger import Ledger
from flows.ledger.rows import RunVerdict
from schemas.artifacts import BundleRef, ChampionRef, ModelRef, RowCounts, TicketTable
from schemas.curation_steps import DedupStep
from schemas.errors import TunegateError
from schemas.training import PromptSpec
from tasks.step import BY_RUNNER, as_step
from tests.support.refs import trained_ref


def open_here(home: Path) -> Ledger:
    return Ledger(home, os.environ.get("TUNEGATE_LEDGER_URL") or None)


@as_step("table", libraries=("pydantic",), context=("journal", "pause_s"))
def make_table(out: Path, *, step: DedupStep, journal: Path, pause_s: float, scratch: Path = BY_RUNNER) -> TicketTable:
    """Write two files; note in the journal whether it began or resumed an earlier attempt."""
    with journal.open("a") as stream:
        stream.write(f"{'resumed' if (scratch / 'half').exists() else 'began'} {os.getpid()}\n")
    (scratch / "half").write_text("half of it")
    time.sleep(pause_s)
    (out / "parts").mkdir()
    (out / "parts" / "one.txt").write_text(f"threshold {step.threshold}\n")
    (out / "two.txt").write_text("two\n")
    return TicketTable(root=out, rows=RowCounts(n_in=3, n_out=2, n_dropped=1))


def table_node(journal: Path, *, threshold: float = 0.8, pause_s: float = 0.0) -> Node:
    """A graph's only node."""
    graph = Graph()
    graph.add(make_table, step=DedupStep(uses="dedup", threshold=threshold), journal=journal, pause_s=pause_s)
    return graph.nodes["table"]


def table_of(home: Path, journal: Path, *, threshold: float = 0.8, pause_s: float = 0.0) -> NodeOutcome:
    """Make the table, or reuse it from the home folder's store."""
    node = table_node(journal, threshold=threshold, pause_s=pause_s)
    return Run(Graph({node.name: node}), Store(home)).make(node)


def candidate_ref(home: Path, number: int, *, name: str = "replies") -> ChampionRef:
    def root(step: str) -> Path:
        return home / "store" / step / f"{number:064x}"

    return ChampionRef(
        name=name,
        version="",
        run_id=f"run-{number}",
        model=ModelRef(
            root=root("base_model"), digest="base", uri="file:///base", n_parameters=1, vocab_size=2, context_length=3
        ),
        trained=trained_ref(root("train"), digest=f"trained-{number}"),
        prompt=PromptSpec(user="{body}", answer="{reply}"),
        max_new_tokens=16,
        bundle=BundleRef(root=root("bundle"), digest=f"bundle-{number}", n_bytes=1),
        verdict_digest=f"verdict-{number}",
        promoted_at="",
    )  # fmt: skip


def obtain(home: Path, journal: str, pause_s: str) -> object:
    outcome = table_of(home, Path(journal), pause_s=float(pause_s))
    return {"reused": outcome.reused, "digest": outcome.result.digest, "root": str(outcome.result.root)}


def release(home: Path, number: str, expected: str, start_at: str = "0") -> object:
    ledger = open_here(home)
    candidate = candidate_ref(home, int(number))
    version = ledger.record_candidate(candidate, verdict="PROMOTE", reason="better")
    while time.time() < float(start_at):  # several processes promote at the same moment
        time.sleep(0.001)
    promoted = ledger.promote(
        "replies", expected=expected or None, version=version, verdict=RunVerdict(candidate.run_id, "better")
    )
    return {"version": promoted.to_version}


def decide(command: str, home: Path, argument: str, expected: str = "", start_at: str = "0") -> object:
    """Apply a person's decision at the given time."""
    ledger = open_here(home)
    while time.time() < float(start_at):
        time.sleep(0.001)
    if command == "approve":
        return {"version": ledger.approve(argument, actor="ada").to_version}
    if command == "rollback":
        return {"version": ledger.rollback("replies", reason=argument).version}
    champion = ledger.champion("replies")
    expected = expected or (champion.version if champion else "")
    return {"version": ledger.force("replies", expected=expected, version=argument, reason="r", actor="ada").to_version}


def hold(home: Path, name: str, seconds: str) -> object:
    ledger = open_here(home)
    with ledger.pipeline_lock(name, wait_s=0, run_id=f"run-{os.getpid()}"):
        ledger.start_run(f"run-{os.getpid()}", pipeline=name, model_name="replies", config_json="{}")
        send_line("holding")
        time.sleep(float(seconds))
    return {}


def whole_run(home: Path, number: str, expected: str = "", wait_s: str = "0") -> object:
    """A run that was judged against the expected champion and promotes on request."""
    ledger, run_id = open_here(home), f"run-{number}"
    with ledger.pipeline_lock("support", wait_s=float(wait_s), run_id=run_id):
        ledger.mark_interrupted()
        ledger.start_run(run_id, pipeline="support", model_name="replies", config_json="{}")
        version = ledger.record_candidate(candidate_ref(home, int(number)), verdict="PROMOTE", reason="better")
        wait_for_line("holding")
        verdict = RunVerdict(run_id, "better")
        promoted = ledger.promote("replies", expected=expected or None, version=version, verdict=verdict)
        ledger.finish_run(run_id, status="DONE", verdict="PROMOTE", exit_code=0)
    return {"version": promoted.to_version}


def slow_release(home: Path, number: str, place: str) -> object:
    """A promotion that pauses at a failpoint, or just before its commit, until the test releases it."""
    close = postgres.close_books

    def close_and_wait(db: Database) -> None:
        close(db)
        postgres.close_books = close
        wait_for_line("commit")

    def reached(here: str) -> None:
        if here == place:
            wait_for_line(here)
        elif (here, place) == ("ledger.promote.written", "commit"):
            postgres.close_books = close_and_wait

    promotions.reach = reached
    return release(home, number, "")


def sync_mlflow(home: Path, wait_s: str) -> object:
    with open_here(home).mlflow_lock(wait_s=float(wait_s)) as check_turn:
        check_turn()
        wait_for_line("syncing")
        check_turn()
    return {"synced": True}


def look(home: Path) -> object:
    """The ledger's state; reading it checks every row."""
    ledger, champion = open_here(home), open_here(home).champion("replies")
    return {
        "champion": champion.version if champion else None,
        "moves": [[event.from_version, event.to_version] for event in ledger.history()],
        "runs": {row.run_id: row.status for row in ledger.runs()},
    }


def wait_for_line(text: str) -> None:
    send_line(text)
    if not sys.stdin.readline():
        sys.exit("the other process is gone")


def key(_home: Path) -> object:
    return {"key": step_key(table_node(Path("journal")), {"tickets": "abc", "several": ("d", "e")}).key}


def send_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    home, command, *arguments = sys.argv[1:]
    programs = {"obtain": obtain, "release": release, "hold": hold, "key": key}
    programs |= {"run": whole_run, "slow_release": slow_release, "sync_mlflow": sync_mlflow, "look": look}
    programs |= {name: partial(decide, name) for name in ("approve", "force", "rollback")}
    try:
        send_line(json.dumps(programs[command](Path(home), *arguments)))
    except TunegateError as error:
        send_line(json.dumps(error.to_json()))
        return error.exit_code
    return 0
