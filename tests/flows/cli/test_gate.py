"""`tunegate gate explain`: the verdict's reasons, with ticket text only on stdout."""

import html
import re

from tests.support.workplace import Workplace


def test_a_verdict_is_explained_down_to_the_items_with_text_only_on_stdout(workplace: Workplace) -> None:
    run_id = workplace.json("run", "strict")["run_id"]
    result = workplace.json("gate", "explain", run_id)
    assert result["verdict"] == "BLOCK"
    contamination, finding, compared = result["findings"]
    assert compared["rule"] == "exact improves on best_baseline (zero_shot), as there is no champion (gates.compare)"
    assert (contamination["part"], contamination["verdict"]) == ("contamination", "PROMOTE")
    assert (finding["metric"], finding["limit"], finding["n_items"]) == ("exact", 0.9, 12)
    assert finding["upper"] < 0.9
    assert result["shown"] == {"metric": "exact", "slice": None}
    worst = result["worst_items"]
    assert len(worst) == 5  # a random model has no correct answer
    assert all(item["candidate"] == 0 and item["question"] and item["wanted"] for item in worst)

    other = workplace.run("gate", "explain", run_id, "--metric", "chrf")
    assert other.returncode == 2
    assert "TG0159" in other.stderr
    assert "judged metrics: exact" in other.stderr

    done = workplace.run("gate", "explain", run_id)
    assert done.returncode == 0, done.stderr
    assert "bounds" in done.stdout
    assert worst[0]["item_id"] in done.stdout
    assert worst[0]["question"][:20] in done.stdout
    assert worst[0]["question"][:20] not in done.stderr
    assert "these items have judged 1 candidate of at most 20" in done.stdout

    reports = workplace.home / "reports" / run_id  # written at the end of the run
    assert {path.name for path in reports.iterdir()} == {
        "report.html", "report.json", "report.md", "junit.xml", "report-without-text.html", "digests.json",
        "items.json",
    }  # fmt: skip
    question = html.escape(worst[0]["question"][:20])
    for name in ("report.html", "report-without-text.html", "report.md", "junit.xml"):
        assert question not in (reports / name).read_text()  # held-out texts only when somebody asks for them
    page = (reports / "report.html").read_bytes()
    for _ in ("into a new folder", "again"):
        done = workplace.run("report", "--last", "strict", "--out", "pages/mine.html")
        assert done.returncode == 0, done.stderr
    assert "BLOCK" in done.stdout
    assert (workplace.folder / "pages" / "mine.html").read_bytes() == (reports / "report.html").read_bytes() == page
    result = workplace.json("report", run_id[:12])
    assert (result["verdict"], result["worst"], result["version"]) == ("BLOCK", [], "1")
    shown = workplace.run("report", run_id[:12], "--items", "5", "--out", "shown.html")
    assert shown.returncode == 0, shown.stderr
    assert question in (workplace.folder / "shown.html").read_text()
    # Each arm with the tickets that it learned from: a classifier of all of them is shown next to one of the same few.
    examples = {arm["arm"]: arm["n_examples"] for arm in result["arms"]}
    n_all, n_same = examples.pop("tfidf"), examples.pop("tfidf_examples")
    assert n_all == examples.pop("majority") > 32 >= n_same > 24  # those that have a label
    assert examples == {"tuned": 32, "zero_shot": 0}
    assert workplace.json("show", run_id)["arms"] == result["arms"]
    table = workplace.run("show", run_id).stdout.partition("examples")[2]
    assert re.search(rf"candidate +32 .*\n(.*\n)*tfidf +{n_all} .*\ntfidf examples +{n_same} ", table)
    assert result["funnel"][0]["step"] == "extract"
    assert {curve["name"] for curve in result["curves"]} >= {"loss", "learning_rate"}
    assert sum(n for _, n in result["token_lengths"]) == 32
    encoded = result["encoded"]
    assert (encoded["column"], encoded["n_used"], encoded["chosen"]) == ("category", 32, "newest")
    assert sum(row["used"] for row in [*encoded["values"], encoded["other"], encoded["missing"]]) == 32
    assert any("cuts 100% of the replies" in note for note in result["notes"])
    for wrong in (["report"], ["report", run_id, "--last", "strict"], ["report", "--last", "small"]):
        assert "TG0139" in workplace.run(*wrong).stderr


def test_a_run_without_a_gate_is_refused(workplace: Workplace) -> None:
    run_id = workplace.json("run", "small", "--until", "curate")["run_id"]
    done = workplace.run("gate", "explain", run_id)
    assert done.returncode == 2
    assert "TG0159" in done.stderr
