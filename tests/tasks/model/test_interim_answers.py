"""A candidate that can hardly pass stops answering; one that answers everything gets the verdict of a gate without
looks."""

import os
import signal
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import (
    EvalSet,
    GateDecision,
    InterimAnswers,
    ModelArm,
    ModelRef,
    Predictions,
    PromptSet,
    Scores,
    TrainedRef,
)
from schemas.evaluation import DecodingSpec, EvaluateSpec
from schemas.gates import GatesSpec
from tasks.assess.gate import GateContext, JudgedArms, decide
from tasks.assess.score import score_answers
from tasks.model.answer_engine import Answer
from tasks.model.generate import AnsweredBefore, AnswerJob, Batch, generate_answers
from tasks.model.interim_answers import answer_until_futile, take_answers
from tasks.storage.failpoint import VARIABLE
from tasks.tickets.draw import hash_rank, look_ends
from tasks.tickets.prompts import dump_messages
from tests.support.refs import trained_ref
from tests.tasks.assess.conftest import ticket_table

N, CUSTOMERS = 240, 80
DECODING = DecodingSpec(max_new_tokens=4, batch_size=8, threads=1, dtype="float32")
EVALUATE = EvaluateSpec(slices=())
CONTEXT = GateContext(champion_version="1")
RULES: list[dict[str, Any]] = [{"metric": "exact", "change_threshold": {"mode": "improve"}}]


@dataclass(frozen=True)
class Asked(AnsweredBefore):
    """Answers from a file, and notes which items were answered."""

    items: list[str] = field(default_factory=list)

    def answers(self, job: AnswerJob, batches: Sequence[Batch]) -> Generator[tuple[int, list[Answer]], None, None]:
        for start, found in super().answers(job, batches):
            self.items.extend(each.item_id for each in found)
            yield start, found


@dataclass
class Desk:
    """240 held-out items, their prompts, and a champion that answers four of five right."""

    folder: Path
    items: EvalSet
    prompts: PromptSet
    model: ModelRef
    right: dict[str, bool]

    def new(self) -> Path:
        """An empty folder."""
        folder = self.folder / f"{len(list(self.folder.iterdir())):03}"
        folder.mkdir()
        return folder

    def predictions(self, right: dict[str, bool]) -> Predictions:
        rows = [
            {"item_id": name, "text": "yes" if good else "no", "n_new_tokens": 1, "finished": True, "loss": 1.0}
            for name, good in right.items()
        ]
        root = self.new()
        pq.write_table(pa.Table.from_pylist(rows), root / "predictions.parquet")
        return Predictions(root=root, n_items=len(rows), n_new_tokens=len(rows))

    def scores(self, predictions: Predictions, arm: ModelArm) -> Scores:
        return score_answers(self.new(), items=self.items, predictions=predictions, evaluate=EVALUATE, arm=arm)

    def changed(self, *, gain: float, lose: float) -> dict[str, bool]:
        """The champion's answers, with shares of the wrong ones put right and of the right ones spoiled."""
        luck = np.random.default_rng(4).random(N)
        pairs = zip(self.right.items(), luck, strict=True)
        return {name: each >= lose if good else each < gain for (name, good), each in pairs}


@pytest.fixture
def the_desk(tmp_path: Path, tiny_model: ModelRef) -> Desk:
    ids = [f"t{number:03}" for number in range(N)]
    rows = [{"ticket_id": name, "body": name, "customer_id": f"c{at % CUSTOMERS}"} for at, name in enumerate(ids)]
    table = ticket_table(rows).append_column("item_id", pa.array(ids)).append_column("answer", pa.array(["yes"] * N))
    (tmp_path / "items").mkdir()
    pq.write_table(table, tmp_path / "items" / "items.parquet")
    items = EvalSet(root=tmp_path / "items", n_items=N, n_available=N)
    (tmp_path / "prompts").mkdir()
    asked = [f"Is it right? {'please ' * (at % 7)}{name}" for at, name in enumerate(ids)]
    texts = [dump_messages([{"role": "user", "content": text}]) for text in asked]
    table = {"item_id": ids, "messages": texts, "answer": ["yes"] * N}
    pq.write_table(pa.table(table), tmp_path / "prompts" / "prompts.parquet")
    prompts = PromptSet(root=tmp_path / "prompts", arm="tuned", format="instruction", n_items=N)
    right = dict(zip(ids, (np.random.default_rng(3).random(N) < 0.8).tolist(), strict=True))
    return Desk(tmp_path, items, prompts, tiny_model, right)


def trained(model: ModelRef) -> TrainedRef:
    return trained_ref(model.root, digest="t", base_digest=model.digest)


def gates(**more: Any) -> GatesSpec:
    return GatesSpec.model_validate(
        {
            "rules": RULES, "interim": {}, "contamination": None, "round_trip": None, "anchor": None,
            "power": {"effect": 0.06, "discordance": 0.1}, **more,
        }
    )  # fmt: skip


@dataclass
class Run:
    """One candidate's answers and verdict."""

    seen: InterimAnswers
    decision: GateDecision
    asked: list[str]


def run(desk: Desk, right: dict[str, bool], spec: GatesSpec, *, scratch: Path | None = None) -> Run:
    """Answer, score and judge as `flows/assess.py` does."""
    asked = Asked(desk.predictions(right).root / "predictions.parquet")
    champion = desk.scores(desk.predictions(desk.right), "champion")
    seen = answer_until_futile(
        desk.new(), items=desk.items, prompts=desk.prompts, model=desk.model, trained=trained(desk.model),
        decoding=DECODING, evaluate=EVALUATE, gates=spec, champion=champion, baselines=(), context=CONTEXT,
        scratch=scratch or desk.new(), answering=asked,
    )  # fmt: skip
    answers = take_answers(desk.new(), seen=seen) if seen.use.stopped else whole_answers(desk, right)
    decision = decide(
        desk.new(),
        judged=JudgedArms(
            candidate=desk.scores(answers, "tuned"), champion=champion, baselines=(), items=desk.items, interim=seen
        ),
        gates=spec,
        context=CONTEXT,
    )
    return Run(seen, decision, asked.items)


def whole_answers(desk: Desk, right: dict[str, bool]) -> Predictions:
    """The candidate's answers without looks."""
    before = AnsweredBefore(desk.predictions(right).root / "predictions.parquet")
    return generate_answers(
        desk.new(), prompts=desk.prompts, model=desk.model, decoding=DECODING, trained=trained(desk.model),
        scratch=desk.new(), answering=before,
    )  # fmt: skip


def test_a_candidate_that_is_worse_stops_early_and_asks_for_no_more_answers(the_desk: Desk) -> None:
    found = run(the_desk, the_desk.changed(gain=0.1, lose=0.15), gates())
    use = found.seen.use
    assert use.stopped
    assert use.n_items in look_ends(N, batches=10, batch_size=8)
    assert use.n_items <= 72
    first = sorted(the_desk.right, key=lambda name: hash_rank(name, seed=0))[: use.n_items]
    answered = pq.read_table(found.seen.root / "predictions.parquet")["item_id"].to_pylist()
    assert answered == sorted(first) == sorted(found.asked), "the first by hash, and no answer beyond them"
    assert found.decision.verdict in ("HOLD", "BLOCK")
    assert found.decision.n_items == use.n_items
    assert found.decision.interim == use
    assert found.decision.use is not None
    assert found.decision.use.confidence == pytest.approx(0.9675), "harm at a stop is read at a higher confidence"
    if found.decision.verdict == "HOLD":
        assert f"stopped after {use.n_items} of 240 items" in found.decision.reason
    [stop] = [each for each in found.decision.findings if each.metric == "interim"]
    assert f"stopped after {use.n_items} of 240 items" in stop.reason
    assert f"{240 - use.n_items} items are left unanswered" in stop.reason


def test_a_candidate_that_answers_everything_gets_the_verdict_of_a_gate_without_looks(the_desk: Desk) -> None:
    right = the_desk.changed(gain=0.6, lose=0.02)
    found, without = run(the_desk, right, gates()), gates(interim=None)
    assert not found.seen.use.stopped
    assert len(found.seen.use.looks) == 9
    assert found.decision.verdict == "PROMOTE"
    plain = decide(
        the_desk.new(),
        judged=JudgedArms(
            candidate=the_desk.scores(whole_answers(the_desk, right), "tuned"),
            items=the_desk.items,
            champion=the_desk.scores(the_desk.predictions(the_desk.right), "champion"),
            baselines=(),
        ),
        gates=without,
        context=CONTEXT,
    )
    same = {"root", "digest", "interim"}
    assert found.decision.model_dump(exclude=same) == plain.model_dump(exclude=same)
    once = (whole_answers(the_desk, right).root / "predictions.parquet").read_bytes()
    assert (found.seen.root / "predictions.parquet").read_bytes() == once


def test_a_run_that_is_killed_after_any_batch_stops_where_it_would_have_stopped(the_desk: Desk) -> None:
    right = the_desk.changed(gain=0.1, lose=0.06)
    whole = run(the_desk, right, gates())
    assert whole.seen.use.stopped
    scratch, n_batches = the_desk.new(), whole.seen.use.n_items // 8
    assert n_batches > 3
    for killed_at in (1, n_batches - 2):
        child = os.fork()
        if child == 0:  # pragma: no cover
            os.environ[VARIABLE] = f"answers.kept:{killed_at}"
            run(the_desk, right, gates(), scratch=scratch)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    again = run(the_desk, right, gates(), scratch=scratch)
    assert len(again.asked) == 8, "only the last batch is answered again"
    assert again.seen.use == whole.seen.use
    one, other = ((each.seen.root / "predictions.parquet").read_bytes() for each in (again, whole))
    assert one == other
    assert again.decision.findings == whole.decision.findings


def test_items_of_the_same_customer_may_stop_a_run_too(the_desk: Desk) -> None:
    found = run(the_desk, the_desk.changed(gain=0.0, lose=0.2), gates(cluster_by="customer_id"))
    assert found.seen.use.stopped
    assert found.decision.verdict in ("HOLD", "BLOCK")


def test_fewer_looks_are_taken_where_they_are_declared(the_desk: Desk) -> None:
    found = run(the_desk, the_desk.changed(gain=0.6, lose=0.02), gates(interim={"batches": 4}))
    assert [each.n_items for each in found.seen.use.looks] == [72, 120, 192]


def test_arms_with_other_items_are_still_an_error_if_no_run_stopped(the_desk: Desk) -> None:
    right = the_desk.changed(gain=0.1, lose=0.15)
    seen = run(the_desk, right, gates()).seen
    candidate = the_desk.scores(take_answers(the_desk.new(), seen=seen), "tuned")
    champion = the_desk.scores(the_desk.predictions(the_desk.right), "champion")
    decision = decide(
        the_desk.new(),
        judged=JudgedArms(candidate=candidate, champion=champion, baselines=()),
        gates=gates(),
        context=CONTEXT,
    )
    assert decision.verdict == "ERROR"
