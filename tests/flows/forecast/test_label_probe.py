"""What a plan says of the label that answers begin with."""

import random
from pathlib import Path

import pyarrow.parquet as pq

from flows.forecast.label_probe import probe_label
from tasks.curate.rows import ticket_table
from tests.support.specs import pipeline_spec
from tests.support.strangers import TEAMS, about

SPEC = pipeline_spec(train={"base_model": "m", "prompt": {"user": "{body}", "answer": "[{category}]\n{reply}"}})


def write(folder: Path, *, shown: bool, copies: int = 1) -> Path:
    draw = random.Random(1)
    rows = []
    for number in range(240):
        team = draw.choice(list(TEAMS))
        text = about(draw, team if shown else draw.choice(list(TEAMS)))
        for copy in range(copies):
            ids = {"ticket_id": f"t{number}-{copy}", "source": "t.csv", "source_line": copies * number + copy + 2}
            rows.append({**ids, "body": f"{text} {'Thanks.' * copy}", "reply": "Yes.", "category": team})
    path = folder / "tickets.parquet"
    pq.write_table(ticket_table(rows), path)
    return path


def test_a_label_that_words_show_is_named_with_what_is_left_to_learn(tmp_path: Path) -> None:
    found = probe_label(SPEC, write(tmp_path, shown=True), curated=True)
    assert found is not None
    (finding,) = found.findings
    assert "routing needs no language model; train.prompt.answer without {category} learns the replies" in finding


def test_near_copies_before_curation_do_not_show_the_label(tmp_path: Path) -> None:
    path = write(tmp_path, shown=False, copies=3)
    found = probe_label(SPEC, path, curated=False)
    assert found is not None
    assert (found.probe.n_tickets, found.probe.is_predictable) == (240, False)
    assert found.findings[0].startswith("category is not predictable from the text")


def test_answers_without_the_label_are_not_probed(tmp_path: Path) -> None:
    assert probe_label(pipeline_spec(), write(tmp_path, shown=True), curated=True) is None
