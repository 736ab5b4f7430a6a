"""The gate's checks by the real command; tests/system/benchmarks/test_regressions.py covers other planted faults."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server


def write_twins(folder: Path) -> None:
    """60 tickets, each repeated by another customer with one extra word."""
    rows = []
    for number in range(60):
        body = " ".join(f"w{(number * 401 + k * k * 13 + k) % 4999}" for k in range(20))
        for copy, text in enumerate((body, f"{body} please")):
            rows.append(
                {
                    "ticket_id": f"t{number}-{copy}",
                    "customer_id": f"c{number}-{copy}",
                    "body": text,
                    "reply": f"Case {number} is settled.",
                    "category": ("billing", "delivery")[number % 2],
                }
            )
    (folder / "tickets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_held_out_set_that_leaked_into_train_is_an_error_and_nothing_is_promoted(
    empty_workplace: ForkedWorkplace,
) -> None:
    def leave_leaks_in(document: dict[str, Any]) -> None:
        pipeline = document["pipelines"]["small"]
        pipeline["source"] = {"kind": "files", "paths": ["tickets.jsonl"]}
        pipeline["curate"] |= {
            "steps": [],  # without deduplication, and decontamination disabled
            "decontaminate": {"near_threshold": 1.0, "long_threshold": 1.0, "short_threshold": 1.0},
        }
        pipeline["train"]["max_examples"] = 60
        pipeline["gates"]["round_trip"] = {"n_prompts": 2}

    write_twins(empty_workplace.folder)
    empty_workplace.declare(leave_leaks_in)
    done = empty_workplace.run("run", "small", "--json")
    assert done.returncode == 9, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["verdict"] == "ERROR"
    assert not outcome["champion"]
    first, trip, *_ = empty_workplace.json("gate", "explain", outcome["run_id"])["findings"]
    assert (first["part"], first["verdict"]) == ("contamination", "ERROR")
    assert first["candidate"] > 0
    assert "train tickets leak" in first["reason"]
    assert (trip["part"], trip["verdict"]) == ("round_trip", "PROMOTE")
    assert trip["candidate"] < trip["limit"] / 2  # bfloat16 if the processor supports it
