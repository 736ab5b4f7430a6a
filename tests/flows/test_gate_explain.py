"""`tunegate gate explain`: the verdict's reasons, and ticket text on stdout alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.flows.conftest import Workplace

pytestmark = pytest.mark.server


def test_a_verdict_is_explained_down_to_the_items_and_text_stays_on_stdout(workplace: Workplace) -> None:
    run_id = workplace.json("run", "strict")["run_id"]
    told = workplace.json("gate", "explain", run_id)
    assert told["verdict"] == "BLOCK"
    contamination, finding = told["findings"]
    assert (contamination["part"], contamination["verdict"]) == ("contamination", "PROMOTE")
    assert (finding["metric"], finding["limit"], finding["n_items"]) == ("exact", 0.9, 12)
    assert finding["upper"] < 0.9
    assert told["shown"] == {"metric": "exact", "slice": None}
    worst = told["worst_items"]
    assert len(worst) == 5  # a random model is right nowhere
    assert all(item["candidate"] == 0 and item["question"] and item["wanted"] for item in worst)

    other = workplace.run("gate", "explain", run_id, "--metric", "chrf")
    assert other.returncode == 2
    assert "TG0197" in other.stderr
    assert "judged were: exact" in other.stderr

    done = workplace.run("gate", "explain", run_id)
    assert done.returncode == 0, done.stderr
    assert "bounds" in done.stdout
    assert worst[0]["item_id"] in done.stdout
    assert worst[0]["question"][:20] in done.stdout
    assert worst[0]["question"][:20] not in done.stderr
    assert "verdict 1 of at most 20 on these items" in done.stdout


def test_a_run_that_came_to_no_gate_says_so(workplace: Workplace) -> None:
    run_id = workplace.json("run", "small", "--until", "curate")["run_id"]
    done = workplace.run("gate", "explain", run_id)
    assert done.returncode == 2
    assert "TG0197" in done.stderr
