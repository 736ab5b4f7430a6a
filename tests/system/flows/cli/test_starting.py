"""`tunegate try FILE`: from a file without a description to a verdict and its report, with no limit lowered."""

import json
import re

import pytest

from flows.views.report import report_folder
from schemas.load import load_file
from tests.support.desk_tables import desk_rows, write_postgres, write_sqlite
from tests.support.postgres import Postgres
from tests.support.ticket_file import write_tickets
from tests.support.workplace import Workplace


def tiny(workplace: Workplace) -> list[str]:
    """Settings with which the tiny model trains two steps and answers one item: too few to block anything."""
    settings = (
        f"train.base_model=file:{workplace.environ['TINY_MODEL']}", "train.adapter.layers=1", "train.threads=1",
        "train.max_examples=16", "train.max_steps=2", "evaluate.max_items=1", "evaluate.max_new_tokens=4",
        "evaluate.threads=1", "evaluate.arms=[zero_shot, tfidf]",
    )  # fmt: skip
    return [word for each in settings for word in ("--set", each)]


def test_a_file_reaches_a_verdict_that_says_how_many_items_are_needed(bare_workplace: Workplace) -> None:
    workplace = bare_workplace
    write_tickets(workplace.folder / "tickets.csv", 200)
    done = workplace.run("try", "tickets.csv", *tiny(workplace), "--json")
    assert done.returncode == 8, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["verdict"] == "HOLD"
    assert "are needed" in outcome["reason"]
    assert "train.max_examples=16" in outcome["set"]
    # Before the training it says what it can reach, and at the end how the arms compare at equal examples.
    assert "this try can end in HOLD or BLOCK: PROMOTE needs 50 items and this has 1" in done.stderr
    assert outcome["reachable"] == ["HOLD", "BLOCK"]
    examples = {arm["arm"]: arm["n_examples"] for arm in outcome["arms"]}
    assert (examples["tuned"], examples["tfidf_examples"]) == (16, 16)
    assert examples["tfidf"] > 100
    said = (
        rf"With 16 examples field_category is 0\.\d+, against \d\.\d+ of TF-IDF; TF-IDF with all {examples['tfidf']}: "
    )
    assert re.match(said, outcome["compared"])
    assert re.search(r"A whole run takes about .* `tunegate run tickets`\.$", outcome["compared"])
    assert outcome["compared"] in done.stderr
    assert not (workplace.home / "prefect").exists()
    assert (report_folder(workplace.home, outcome["run_id"]) / "report.html").is_file()
    assert "tunegate run tickets" in done.stderr

    # The file is what `init` writes: the whole run, with every limit; the small budget is of this run alone.
    spec = load_file(workplace.folder / "pipelines.yaml").get("tickets")
    assert spec.train.max_examples is not None
    assert spec.train.max_examples > 100
    assert spec.gates.min_items == 50
    shown = workplace.json("show", outcome["run_id"])
    assert shown["set"] == outcome["set"]
    page = (report_folder(workplace.home, outcome["run_id"]) / "report.html").read_text()
    assert "with other settings than the file: train.max_examples=" in page
    # Started again, it has nothing left to do; over an edited file it does not write.
    again = workplace.run("try", "tickets.csv", *tiny(workplace), "--json")
    assert (json.loads(again.stdout)["verdict"], again.returncode) == ("SKIP", 8)
    with (workplace.folder / "pipelines.yaml").open("a") as stream:
        stream.write("# mine\n")
    refused = workplace.run("try", "tickets.csv")
    assert (refused.returncode, "TG0189" in refused.stderr) == (2, True)

    # A plan of the whole run scales what this one took.
    plan = workplace.json("plan", "tickets", *tiny(workplace)[:4], "--set", "evaluate.arms=[zero_shot]")
    assert plan["minutes"] > 0
    assert "the last measured training and answers" in plan["minutes_from"]
    assert plan["sizes_from"] == "curated tickets"
    assert 100 < plan["train_examples"] <= spec.train.max_examples  # those that decontamination leaves
    assert 50 <= plan["held_out_items"] <= spec.evaluate.max_items  # all that there are can be answered in time


@pytest.mark.parametrize(
    "kind",
    [pytest.param("sqlite", marks=pytest.mark.campaign), pytest.param("postgres", marks=pytest.mark.server)],
)
def test_the_tables_of_a_database_reach_a_verdict(
    kind: str, bare_workplace: Workplace, request: pytest.FixtureRequest
) -> None:
    start = "desk.sqlite"
    if kind == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        start, bare_workplace.environ["HELPDESK_DSN"] = "env:HELPDESK_DSN", postgres.fresh()
        write_postgres(bare_workplace.environ["HELPDESK_DSN"], desk_rows(120))
    else:
        write_sqlite(bare_workplace.folder / start, desk_rows(120))
    done = bare_workplace.run("try", start, *tiny(bare_workplace), "--json")
    assert done.returncode == 8, done.stderr
    assert json.loads(done.stdout)["verdict"] == "HOLD"
