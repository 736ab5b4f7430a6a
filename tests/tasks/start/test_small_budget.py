"""The small budget of `tunegate try` only makes a proposal smaller."""

from pathlib import Path

import pytest

from tasks.start.propose import propose_pipeline
from tasks.start.small_budget import MIN_EXAMPLES, MIN_ITEMS, small_budget
from tests.support.ticket_file import write_tickets


@pytest.mark.parametrize(("reply", "cuts"), [("", False), ("Thank you. " * 40 + "{}", True), ("Yes, the {}.", False)])
def test_the_small_budget_never_exceeds_the_proposal_and_leaves_the_gate_alone(
    tmp_path: Path, reply: str, cuts: bool
) -> None:
    write_tickets(tmp_path / "t.csv", 400, reply=reply)
    proposal = propose_pipeline(tmp_path / "t.csv", name=None, root=tmp_path)
    budget = dict(each.split("=") for each in small_budget(proposal).settings)
    sizes = proposal.sizes
    assert MIN_EXAMPLES <= int(budget["train.max_examples"]) <= sizes.max_examples
    assert MIN_ITEMS <= int(budget["evaluate.max_items"]) <= sizes.max_items
    assert int(budget["train.max_length"]) <= sizes.max_length
    assert (int(budget["evaluate.max_new_tokens"]) < sizes.max_new_tokens) == cuts
    assert {path.partition(".")[0] for path in budget} == {"train", "evaluate"}
