"""A candidate that got HOLD is judged again, at declared looks, when held-out tickets have arrived."""

import json
import os
import signal
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.registry.held import find_held, learned_by, newest_held
from flows.registry.state import registry_state_of
from schemas.errors import GateError
from schemas.load import load_file
from schemas.source import GeneratedSource
from tasks.model.answer_engine import Answer
from tasks.model.base_model import load_tokenizer
from tasks.model.generate import AnswerJob, Batch, InThisProcess
from tasks.sources.helpdesk import generate_tickets
from tests.support.workplace import Workplace

Row = dict[str, Any]
LOOKS = [20, 40, 60]


def make_tickets() -> list[Row]:
    """Tickets of as many customers, so that the split's customers do not hold them together."""
    source = GeneratedSource(kind="generated", n_tickets=700, n_customers=600, seed=5)
    found = []
    for line in generate_tickets(source):
        try:
            row = json.loads(line)
        except ValueError:
            continue  # a damaged line
        if isinstance(row, dict) and row.get("reply") and row.get("category") and row.get("created_at"):
            found.append(row | {"customer_id": f"c{len(found)}", "thread_id": None})
    return found


@pytest.fixture(scope="module")
def tickets() -> list[Row]:
    return make_tickets()


@pytest.fixture(autouse=True)
def answered(monkeypatch: pytest.MonkeyPatch, tickets: list[Row]) -> list[tuple[bool, str]]:
    """A trained model is right on tickets of the third week, the base on none. Lists (trained, item) of answers."""
    calls: list[tuple[bool, str]] = []
    right = {row["ticket_id"] for row in tickets[190:]}

    def answers(
        _self: object, job: AnswerJob, batches: Sequence[Batch]
    ) -> Generator[tuple[int, list[Answer]], None, None]:
        tokenizer = load_tokenizer(job.model)
        for start, items in batches:
            calls.extend((job.trained is not None, item.item_id) for item in items)
            yield start, [
                Answer(
                    item.item_id,
                    tokenizer.decode(item.reference, skip_special_tokens=True).strip()
                    if job.trained is not None and item.item_id in right
                    else "no",
                    2, True, 2.0,
                )
                for item in items
            ]  # fmt: skip

    monkeypatch.setattr(InThisProcess, "answers", answers)
    return calls


class Desk:
    """A pipeline over files, with three looks."""

    def __init__(self, workplace: Workplace, *, looks: Row | None = None, **sections: Any) -> None:
        self.workplace = workplace
        self.looks = {"at": LOOKS, "spend": "equal"} if looks is None else looks
        self.sections = sections
        (workplace.folder / "weeks").mkdir()

    def export(self, name: str, rows: Iterable[Row]) -> None:
        path = self.workplace.folder / "weeks" / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def declare(self, **train: Any) -> None:
        def change(document: Row) -> None:
            small = document["pipelines"]["small"]
            small["source"] = {"kind": "files", "paths": ["weeks/*.jsonl"]}
            small["schema"] = {"fail_above": 0.9}
            small["split"] = {"test_fraction": 0.25, "validation_fraction": 0.05, "by_time": False}
            small["train"] |= {"max_steps": 2, "prompt": {"answer": "{category}"}, **train}
            small["evaluate"] |= {"arms": ["zero_shot"], "max_items": 60, "metrics": []}
            small["gates"] = {
                "rules": [{"metric": "exact", "change_threshold": {"mode": "improve"}}],
                "min_items": 5,
                "round_trip": None,
                "looks": self.looks,
            }
            for name, section in self.sections.items():
                small[name] = {**small.get(name, {}), **section}

        self.workplace.declare(change)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.workplace.home)

    def items(self, run_id: str) -> set[str]:
        key = self.ledger.keys_of(run_id)["items"]
        path = self.workplace.home / "store" / "items" / key / "items.parquet"
        return set(pq.read_table(path)["item_id"].to_pylist())


def test_a_hold_becomes_promote_at_a_later_look(
    empty_workplace: Workplace, tickets: list[Row], answered: list[tuple[bool, str]]
) -> None:
    desk, run = Desk(empty_workplace), empty_workplace.json

    def refused(run_id: str) -> str:
        done = empty_workplace.run("gate", "resume", run_id)
        assert done.returncode == 9, done.stderr
        return done.stderr

    desk.declare()
    desk.export("week1.jsonl", tickets[:110])
    first = run("run", "small")
    assert first["verdict"] == "HOLD", first["reason"]
    run_id = first["run_id"]
    assert len(desk.items(run_id)) == LOOKS[0]

    # Too few tickets for the next look: nothing is answered, and nothing is spent.
    answered.clear()
    early = run("gate", "resume", run_id)
    assert (early["verdict"], early["holds"], early["exit_code"]) == ("SKIP", "HOLD", 8)
    assert f"its next look needs {LOOKS[1]}" in early["reason"]
    assert not answered
    assert "TG0625" in refused(early["run_id"])
    assert len(desk.ledger.looks()) == 1

    # What is not the declared candidate, or not at the declared looks, is refused.
    desk.declare(max_steps=3)
    assert "TG0625" in (changed := refused(run_id))
    assert "train, curate" in changed
    desk.looks = {"at": [20, 25, 40], "spend": "equal"}
    desk.declare()
    assert "looks are declared before the first verdict" in refused(run_id)
    desk.looks = {"at": LOOKS, "spend": "equal"}
    desk.declare()

    # Enough of them: earlier answers are kept, and the candidate has one look more.
    desk.export("week2.jsonl", tickets[110:190])
    second = run("gate", "resume", run_id)
    assert (second["verdict"], second["version"], second["exit_code"]) == ("HOLD", first["version"], 8), second[
        "reason"
    ]
    before, now = desk.items(run_id), desk.items(second["run_id"])
    assert before < now
    assert len(now) == LOOKS[1]
    assert sorted(answered) == sorted((trained, item) for trained in (False, True) for item in now - before)
    steps = {each: {step.step: step for step in desk.ledger.steps(each)} for each in (run_id, second["run_id"])}
    for name in ("base_model", "encode", "train"):
        was, is_now = (steps[each][name] for each in (run_id, second["run_id"]))
        assert (was.digest, was.key, is_now.state) == (is_now.digest, is_now.key, "reused"), name
    explained = empty_workplace.run("gate", "explain", second["run_id"], "--items", "0").stdout
    assert "2 looks (sets of items) of at most 3" in " ".join(explained.split())
    assert desk.ledger.mark_of(second["run_id"]) is None  # the new tickets have trained no candidate
    assert f"next look needs {LOOKS[2]}" in run("gate", "resume", run_id)["reason"]

    # Another champion meanwhile, or what it learned from is gone.
    ledger, store = desk.ledger, Store(empty_workplace.home)
    spec = load_file(empty_workplace.folder / "pipelines.yaml").get("small")
    state, row = registry_state_of(spec, ledger), ledger.run(run_id)
    assert find_held(spec, row, ledger, store, state).sizes == (LOOKS[2],)
    with pytest.raises(GateError, match="TG0620"):
        find_held(spec, row, ledger, store, replace(state, champion=ledger.candidates("small")[0].ref))
    examples = store.place("encode", ledger.keys_of(run_id)["encode"])
    examples.rename(examples.with_name("away"))
    assert newest_held(spec, ledger, store, state) is None  # a tick trains then
    assert "TG0159" in empty_workplace.run("gate", "resume", run_id).stderr
    examples.with_name("away").rename(examples)

    # References that people correct meanwhile are no part of the evidence of then.
    one = min(before)
    value = next(row["category"] for row in tickets if row["ticket_id"] == one)
    other = next(row["category"] for row in tickets if row["category"] != value)
    line = {"ticket_id": one, "do": "set", "field": "category", "old": value, "new": other, "by": "ada"}
    (empty_workplace.folder / "fixes.jsonl").write_text(json.dumps(line | {"at": "2026-12-01T00:00:00+00:00"}) + "\n")
    desk.sections["curate"] = {"corrections": "fixes.jsonl"}

    # A tick judges it again before it trains the next, though enough tickets for that have arrived, too.
    desk.sections["schedule"] = {"cron": "@hourly", "resume_hold": True, "retrain": {"min_new": 40}}
    desk.declare()
    desk.export("week3.jsonl", tickets[190:290])
    third = run("ops", "tick", "small")
    assert (third["verdict"], third["exit_code"]) == ("PROMOTE", 0), third["reason"]
    assert (third["version"], third["champion"]) == (first["version"], first["version"])
    assert now < desk.items(third["run_id"])
    explained = " ".join(empty_workplace.run("gate", "explain", third["run_id"], "--items", "0").stdout.split())
    assert "1 held-out item was corrected; 1 item has changed since an earlier look" in explained
    assert "at 98.3333 %" in explained  # with nothing in common; nested it would be 97 %
    tick = desk.ledger.ticks("small")[-1]
    assert (tick.decision.code, desk.ledger.run(tick.run_id).status) == ("look", "SKIPPED")
    assert len(desk.ledger.candidates("small")) == 1
    assert "judged again: PROMOTE" in refused(run_id)
    assert "only a candidate that got HOLD" in refused(third["run_id"])

    # Tickets that arrived since the training are new to the champion.
    mark = desk.ledger.used_mark("small")
    assert mark is not None
    assert mark.run_id == third["run_id"]
    learned = learned_by(desk.ledger.keys_of(third["run_id"]), store)
    assert learned == learned_by(desk.ledger.keys_of(run_id), store)
    assert learned is not None
    assert run("data", "lineage", "small/1")["model"]["tickets"]["train"] == learned.n_train
    reproduced = empty_workplace.run("study", "reproduce", third["run_id"])
    assert "TG0159" in reproduced.stderr
    assert f"`tunegate study reproduce {run_id}`" in reproduced.stderr


def test_a_resumed_run_that_ends_between_its_verdict_and_its_end_is_repeated(
    empty_workplace: Workplace, tickets: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(empty_workplace, looks={"at": LOOKS[:2], "spend": "equal"})
    desk.declare()
    desk.export("week1.jsonl", tickets[:110])
    first = empty_workplace.json("run", "small")
    assert first["verdict"] == "HOLD", first["reason"]
    desk.export("week3.jsonl", tickets[190:290])
    desk.sections["place"] = {"assess": "gpu"}
    desk.declare()
    n_runs = len(desk.ledger.runs())
    placed = empty_workplace.run("gate", "resume", first["run_id"])
    assert (placed.returncode, len(desk.ledger.runs())) == (2, n_runs)
    assert "TG0139" in placed.stderr
    assert "remove `place`" in placed.stderr
    del desk.sections["place"]
    desk.declare()

    def end(place: str) -> None:
        if place == "ledger.candidate":
            raise RuntimeError("the process ends here")

    with monkeypatch.context() as patch:
        patch.setattr("flows.ledger.champions.reach", end)
        assert empty_workplace.run("gate", "resume", first["run_id"]).returncode != 0
    ledger, store = desk.ledger, Store(empty_workplace.home)
    (candidate,) = ledger.candidates("small")
    assert candidate.verdict == "PROMOTE"
    spec = load_file(empty_workplace.folder / "pipelines.yaml").get("small")
    state = registry_state_of(spec, ledger)
    assert newest_held(spec, ledger, store, state) is None  # a tick trains rather than fail each time

    child = os.fork()
    if not child:
        empty_workplace.run("gate", "resume", first["run_id"], TUNEGATE_FAILPOINT="ledger.promote.committed")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (event,) = desk.ledger.history("small")
    assert (event.action, event.to_version) == ("promote", first["version"])
    assert desk.ledger.runs()[0].status == "RUNNING"
    state = registry_state_of(spec, ledger)
    ended = newest_held(spec, ledger, store, state)  # a tick ends it before it trains
    assert ended is not None
    assert ended.is_champion
    n_looks = len(desk.ledger.looks())

    # With other tickets nothing is judged either, and they stay new.
    desk.export("week2.jsonl", tickets[110:120])
    other = empty_workplace.json("gate", "resume", first["run_id"])
    assert (other["verdict"], other["holds"], other["exit_code"]) == ("SKIP", "PROMOTE", 0), other["reason"]
    assert desk.ledger.mark_of(other["run_id"]) is None
    (empty_workplace.folder / "weeks" / "week2.jsonl").unlink()
    again = empty_workplace.json("gate", "resume", first["run_id"])
    assert (again["verdict"], again["champion"]) == ("PROMOTE", first["version"]), again["reason"]
    assert desk.ledger.mark_of(again["run_id"]) is not None
    assert desk.ledger.history("small") == (event,)
    assert len(desk.ledger.looks()) == n_looks
    assert len(desk.ledger.candidates("small")) == 1
    continued = candidate.ref.trained.model_copy(update={"started_from": "d" * 64})
    row = replace(candidate, verdict="HOLD", ref=candidate.ref.model_copy(update={"trained": continued}))
    monkeypatch.setattr(Ledger, "candidates", lambda *_, **__: (row,))
    with pytest.raises(GateError, match="continues a champion"):
        find_held(spec, ledger.run(first["run_id"]), ledger, store, state)
