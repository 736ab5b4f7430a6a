"""The small budget of `tunegate try` only makes a proposal smaller, and says what is left to reach."""

from collections.abc import Callable
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest

from schemas.gates import GatesSpec
from tasks.assess.gate import JudgedArms, decide
from tasks.assess.score import write_scores
from tasks.start.propose import Proposal, propose_pipeline
from tasks.start.small_budget import FEW, LABEL_TOKENS, MAX_ITEMS, MIN_EXAMPLES, MIN_ITEMS, SmallBudget, small_budget
from tests.support.ticket_file import write_tickets

Propose = Callable[..., Proposal]


@pytest.fixture(scope="module")
def propose(tmp_path_factory: pytest.TempPathFactory) -> Propose:
    root = tmp_path_factory.mktemp("tickets")

    @cache
    def make(n: int = 400, *, reply: str = "") -> Proposal:
        write_tickets(root / "t.csv", n, reply=reply)
        return propose_pipeline(root / "t.csv", name=None, root=root)

    return make


@pytest.mark.parametrize("reply", ["", "Thank you. " * 40 + "{}"])
def test_the_small_budget_never_exceeds_the_proposal_and_leaves_the_gate_alone(propose: Propose, reply: str) -> None:
    proposal = propose(reply=reply)
    budget = dict(each.split("=") for each in small_budget(proposal).settings)
    sizes = proposal.sizes
    assert MIN_EXAMPLES <= int(budget["train.max_examples"]) <= sizes.max_examples
    assert MIN_ITEMS <= int(budget["evaluate.max_items"]) <= sizes.max_items
    assert int(budget["train.max_length"]) <= sizes.max_length
    # The label comes first, and is whole at this length; of a long reply only the beginning is written.
    assert len("[delivery]") <= int(budget["evaluate.max_new_tokens"]) <= min(LABEL_TOKENS, sizes.max_new_tokens)
    assert {path.partition(".")[0] for path in budget} == {"train", "evaluate"}


def test_so_many_items_as_the_gate_needs_come_before_examples(propose: Propose) -> None:
    budget = small_budget(propose(400))
    assert (budget.n_items, budget.verdicts) == (50, ("PROMOTE", "HOLD", "BLOCK"))
    assert budget.outlook == "this try can end in PROMOTE or HOLD or BLOCK"
    own = small_budget(propose(400), ["evaluate.max_items=9", "train.max_examples=4"])
    assert (own.n_items, own.n_examples, own.verdicts) == (9, 4, ("HOLD",))
    # A file that has fewer, or wordings, which need 320, cannot end better than HOLD: that is said, not discovered.
    few = small_budget(propose(120))
    assert few.n_items < 50
    assert few.outlook == f"this try can end in HOLD or BLOCK: PROMOTE needs 50 items and this has {few.n_items}"


def test_long_tickets_leave_fewer_items_and_a_reply_without_label_too_few(tmp_path: Path) -> None:
    def budget(words: int, *, label: bool) -> SmallBudget:
        texts = (" ".join(f"w{(7 * i + k * i) % 997}" for k in range(words)) for i in range(200))
        rows = [f"{text} {i}.,Wir helfen gern im Fall {i}.,{'ab'[i % 2]}" for i, text in enumerate(texts)]
        columns = ["question,answer,queue", *rows]
        if not label:
            columns = [row.rpartition(",")[0] for row in columns]
        (tmp_path / "t.csv").write_text("\n".join(columns))
        return small_budget(propose_pipeline(tmp_path / "t.csv", name=None, root=tmp_path))

    assert budget(20, label=True).n_items == 50
    long = budget(300, label=True)
    assert MIN_ITEMS <= long.n_items < 50
    wording = budget(20, label=False)
    assert (wording.n_least, wording.verdicts) == (320, ("HOLD", "BLOCK"))
    assert wording.n_items <= MAX_ITEMS


def test_labels_that_get_too_few_examples_are_counted_and_rule_block_out(tmp_path: Path) -> None:
    rows = [
        f"Question {i} about the {word} of {i * 7 % 53}?,team{i % 40}"
        for i, word in zip(range(400), cycle(("parcel", "invoice", "lamp")), strict=False)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["question,queue", *rows]))
    budget = small_budget(propose_pipeline(tmp_path / "t.csv", name=None, root=tmp_path))
    assert budget.n_examples < 40 * FEW
    assert (budget.n_few, budget.verdicts) == (40, ("PROMOTE", "HOLD"))
    assert "40 labels get fewer than 5 examples, which is no reason to BLOCK" in budget.outlook


def test_of_a_hundred_equal_candidates_at_most_five_pass_a_try(propose: Propose, tmp_path: Path) -> None:
    """By the proposal's own rules, on as many items as a try has."""
    proposal = propose(400)
    n_items, dice = small_budget(proposal).n_items, np.random.default_rng(20261201)
    gates = GatesSpec(
        rules=proposal.gate.rules, confidence=proposal.gate.confidence, contamination=None, round_trip=None
    )

    def promoted(number: int) -> bool:
        hard = dice.beta(6, 1, n_items)  # how likely an item is right, for every arm
        arms = []
        for arm in ("tuned", "zero_shot", "tfidf"):
            right = dice.random(n_items) < hard * (0.3 if arm == "zero_shot" else 1.0)
            (folder := tmp_path / f"{number}-{arm}").mkdir()
            scored = [
                (f"i{item:03}", {proposal.metric: float(one), "format": 1.0}) for item, one in enumerate(right.tolist())
            ]
            arms.append(write_scores(scored, metrics=(proposal.metric, "format"), slices=(), arm=arm, out=folder))
        (folder := tmp_path / f"{number}-gate").mkdir()
        return decide(folder, judged=JudgedArms(arms[0], baselines=tuple(arms[1:])), gates=gates).verdict == "PROMOTE"

    assert sum(map(promoted, range(100))) <= 5
