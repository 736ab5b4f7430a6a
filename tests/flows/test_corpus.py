"""A pipeline with help articles: what a run prompts with, reports and packs is what the served model finds."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.cli.endpoint import offers
from flows.ledger.ledger import Ledger
from tasks.release.live import LiveModels
from tests.support.workplace import Workplace

pytestmark = pytest.mark.needs_extra("corpus")

ARTICLES = {
    "parcels.md": "# Parcels\n\n## Late parcel\n\nA late parcel is refunded. Write to help@shop.example.org.\n",
    "site/charges.html": "<nav>Home</nav><h1>Charges</h1><p>We refund a second charge to the card.",
    "notes.jsonl": json.dumps({"title": "Lamps", "body": "Reset the lamp: hold its button.\n\nThen turn it on."})
    + "\n",
}
BEAT_IT = {"metric": "exact", "change_threshold": {"against": "best_baseline", "mode": "improve"}}


@pytest.fixture
def with_corpus(workplace: Workplace) -> Workplace:
    for name, text in ARTICLES.items():
        path = workplace.folder / "help" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def change(document: dict[str, Any]) -> None:
        small = document["pipelines"]["small"]
        small["evaluate"] |= {"arms": ["zero_shot", "rag"], "corpus": {"paths": ["help"], "n_passages": 1}}
        small["train"]["prompt"] = {"user": "{passages}\n\n{subject}\n{body}"}
        small["gates"]["rules"].append(BEAT_IT)
        del document["pipelines"]["strict"]

    workplace.declare(change)
    return workplace


def stored(home: Path, step: str, file: str) -> list[dict[str, Any]]:
    """The rows of the newest result of a step."""
    newest = max((home / "store" / step).iterdir(), key=lambda path: path.stat().st_mtime)
    rows: list[dict[str, Any]] = pq.read_table(newest / file).to_pylist()
    return rows


def test_passages_reach_prompts_report_and_served_model(with_corpus: Workplace) -> None:
    done = with_corpus.run("run", "small")
    assert done.returncode == 8, done.stderr  # an untrained model beats nothing
    home = with_corpus.home
    passages = {row["passage_id"]: row for row in stored(home, "corpus", "passages.parquet")}
    assert {(row["source"], row["heading"]) for row in passages.values()} == {
        ("help/parcels.md", "Parcels > Late parcel"),
        ("help/site/charges.html", "Charges"),
        ("help/notes.jsonl:1", "Lamps"),
    }
    assert passages["help/parcels.md#1"]["text"].endswith("Write to [EMAIL_1].")
    prompts = {file.parent.name: file for file in (home / "store" / "prompts").glob("*/prompts.parquet")}
    texts = [turn["content"] for file in prompts.values() for row in pq.read_table(file).to_pylist()
             for turn in json.loads(row["messages"])]  # fmt: skip
    assert any(text.startswith("[help/") for text in texts)
    assert any(not text.startswith("[help/") for text in texts)  # zero_shot shows none

    (page,) = (home / "reports").glob("*/report.json")
    corpus = json.loads(page.read_text())["corpus"]
    assert (corpus["n_articles"], corpus["n_passages"], corpus["n_redacted"]) == (3, 3, 1)
    assert corpus["cited"][0]["n_items"] >= 1
    assert corpus["cited"][0]["source"] in page.with_name("report.html").read_text()

    newest = max(stored(home, "passages", "train.parquet"), key=lambda row: (row["created_at"], row["ticket_id"]))
    plan = with_corpus.json("data", "forget", newest["customer_id"], "--plan")
    assert [each["version"] for each in plan["versions"]] == ["1"]  # it learned from tickets with passages
    assert any(each["place"].startswith("store/passages/") for each in plan["held"])

    served = LiveModels(lambda: offers(Ledger(home), "small", candidates=True)).find("version-1")
    assert served is not None
    item = stored(home, "items", "items.parquet")[0]
    question = "\n".join(item[name] for name in ("subject", "body") if item[name])
    tuned = next(
        row["messages"] for file in prompts.values() for row in pq.read_table(file).to_pylist()
        if row["item_id"] == item["item_id"] and item["passages"] in json.loads(row["messages"])[-1]["content"]
    )  # fmt: skip
    assert item["passages"]
    assert served.prompt_of([{"role": "user", "content": question}]).ids == served._codec.prompt_ids(json.loads(tuned))


def test_validate_reports_missing_articles(with_corpus: Workplace) -> None:
    assert with_corpus.run("validate").returncode == 0
    for name in ARTICLES:
        (with_corpus.folder / "help" / name).unlink()
    done = with_corpus.run("validate")
    assert done.returncode == 3
    assert "TG0201" in done.stderr
    assert "'help' has no article" in done.stderr


def test_a_champion_is_compared_with_its_own_articles(with_corpus: Workplace) -> None:
    assert with_corpus.run("run", "small").returncode == 8
    done = with_corpus.run("model", "promote", "small", "1", "--force", "--reason", "a test", "--by", "ann")
    assert done.returncode == 0, done.stderr
    (with_corpus.folder / "help" / "parcels.md").write_text("# Parcels\n\nEverything is new: parcel order refund.\n")
    assert with_corpus.run("run", "small").returncode in (5, 8)
    served = stored(with_corpus.home, "passages_as_served", "items.parquet")
    items = stored(with_corpus.home, "items", "items.parquet")
    assert any("Everything is new" in row["passages"] for row in items)
    assert any("A late parcel is refunded" in row["passages"] for row in served)
    assert not any("Everything is new" in row["passages"] for row in served)
