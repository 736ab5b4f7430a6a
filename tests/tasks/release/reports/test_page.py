"""The formats of a report: content, hostile text stays text, and nothing is loaded or run."""

import re
import xml.etree.ElementTree as ET  # our own XML
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import DatasetRef
from schemas.curation_card import LabelBalance, LabelCounts
from schemas.diagnosis import Diagnosis, LabelGroup, LabelShift, PastScore
from schemas.report import (
    ArmLine,
    Change,
    Curve,
    Example,
    GraphPicture,
    PictureNode,
    PictureState,
    RemovedExample,
    RunReport,
    StepLine,
)
from schemas.verdicts import Finding
from tasks.assess.economics import Measures, compute_costs, read_prices
from tasks.release.reports.ci import write_junit, write_markdown
from tasks.release.reports.graph_chart import draw_graph
from tasks.release.reports.page import MAX_WORDS, draw_page, marked
from tasks.release.reports.read import cut_replies, read_curves, reply_tokens, token_lengths

COSTS = compute_costs(
    read_prices(),
    Measures(10**9, 2 * 10**9, 100.0, {"tuned": 100.0, "few_shot": 400.0}, measured={"tokens_per_s": 20.0}),
    machine="l4",
)
HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(1)>\"'|`\u202etxt.exe"


DIAGNOSIS = Diagnosis(
    metric="exact",
    past=(
        PastScore(
            is_own=True, n_items=96, score=0.929, n_common=60, common_then=0.93, common_now=0.931, n_fresh=36,
            fresh=0.529,
        ),
    ),
    n_past_gone=2, falls=True, field="category",
    groups=(
        LabelGroup(
            kind="file", name=HOSTILE, n_checked=800, n_suspects=412, share_elsewhere=0.04, p_chance=0.0, disagrees=True
        ),
    ),
    shifts=(
        LabelShift(
            field="category", n_known=600, n_new=800, distance=0.3, p_chance=0.0, drifted=True, label=HOSTILE,
            share_known=0.1, share_new=0.5,
        ),
    ),
)  # fmt: skip


def finding(verdict: str, *, decides: bool = True, part: str = "primary", rule: str = "exact at least 0.5") -> Finding:
    return Finding.model_validate(
        {
            "rule": rule, "metric": "exact", "verdict": verdict, "n_items": 96, "candidate": 0.7, "reference": 0.6,
            "difference": 0.1, "lower": -0.02, "upper": 0.21, "limit": None, "method": "tango", "reason": HOSTILE,
            "won": 12, "lost": 3, "part": part, "decides": decides,
        }
    )  # fmt: skip


def report(**change: object) -> RunReport:
    example = Example(
        item_id=HOSTILE, metric="exact", candidate=0.0, reference=1.0, question=HOSTILE,
        wanted=f"close my order {HOSTILE}", candidate_answer=f"close the order {HOSTILE}", reference_answer=HOSTILE,
    )  # fmt: skip
    plain = RunReport(
        run_id="20260101-000000-abcd", pipeline="support", model_name="replies", verdict="BLOCK", reason=HOSTILE,
        started_at="2026-01-01T00:00:00+00:00", ended_at=None, version="4", compared_with="3", champion="3",
        evidence="these items have judged 2 candidates of at most 20", n_items=96,
        findings=(finding("BLOCK"), finding("PROMOTE", part="contamination"), finding("HOLD", decides=False)),
        arms=(ArmLine(arm="tuned", n_items=96, means={"exact": 0.7, "chrf": None}),), funnel=(),
        removed=(
            RemovedExample(
                step="rule", outcome="dropped", code=HOSTILE, reason=HOSTILE, where=HOSTILE, text=f"went: {HOSTILE}"
            ),
        ),
        training={"method": "lora"},
        diagnosis=DIAGNOSIS,
        curves=(
            Curve(name="loss", steps=(1, 2, 3), values=(3.0, 2.0, 1.5)),
            Curve(name="validation_loss", steps=(3,), values=(1.7,)),
        ),
        token_lengths=(("0-9", 3), ("10-19", 5)), choice=({"training": "rung_small", "state": HOSTILE},),
        worst=(example,), changes=(Change(what="train.seed", champion="1", candidate=HOSTILE),),
        costs=COSTS,
        steps=(StepLine(step="extract", state="done", n_in=5, n_out=5, seconds=0.1, digest="d" * 64),),
        reproduce="tunegate study reproduce 20260101-000000-abcd",
    )  # fmt: skip
    return plain.model_copy(update=change)


class Tags(HTMLParser):
    """Collects every tag with its attributes, unclosed tags, and the text."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_shows_cost_and_break_even_and_works_without_them() -> None:
    text = Tags(draw_page(report(), card="")).text
    for words in ("Cost and latency", "own model, one at a time, on l4", "API small, few_shot prompt", "300 fewer"):
        assert words in text
    assert "Cost and latency" not in draw_page(report(costs=None), card="")


@pytest.mark.parametrize(
    "text", ["ستصل الشحنة غدا \u200e+971", "می\u200cخواهم", "👨\u200d👩\u200d👧", "荷物は明日届く", "החבילה תגיע מחר"]
)
def test_texts_of_any_script_are_shown_completely_and_in_their_direction(text: str) -> None:
    item = report().worst[0].model_copy(update={"question": text, "candidate_answer": f"x {text}", "wanted": text})
    page = draw_page(report(worst=(item,)), card="")
    assert f'<p class="text" dir="auto">{text}</p>' in page
    assert Tags(page).text.count(text) >= 3
    assert "\ufffd" in draw_page(report(worst=(item.model_copy(update={"question": f"{text}\u202e"}),)), card="")


def test_a_page_shows_removed_rows_and_works_without_them() -> None:
    assert "Removed rows" in Tags(draw_page(report(), card="")).text
    assert "Removed rows" not in draw_page(report(removed=()), card="")


def test_a_page_runs_nothing_loads_nothing_and_escapes_hostile_text() -> None:
    page = Tags(draw_page(report(), card="<section><h2>Curation</h2></section>"))
    assert page.open == []
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "img", "link", "iframe", "object", "form", "a"}
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name in ("src", "href") for name in attributes)
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in page.text
    assert "Version 4 is worse than allowed" in page.text
    assert page.text.index("contamination") < page.text.index("primary")  # in order of precedence
    assert "not judged" in page.text


def graph_of(**states: PictureState) -> GraphPicture:
    """A graph of extract and train in two stages, with or without a check; states by name."""
    stages = {"extract": "curate", "split": "curate", "card": "curate", "train": "finetune", "rung": "finetune"}
    nodes = tuple(
        PictureNode(name=name, stage=stage, state=states.get(name, "made"), seconds=1.25, reason="")
        for name, stage in stages.items()
    )
    edges = (("extract", "split"), ("extract", "card"), ("split", "card"), ("split", "train"), ("train", "rung"))
    return GraphPicture(nodes=nodes, edges=edges, deciding=(("train", "rung"),))


def test_a_page_draws_the_graph_of_its_run_and_works_without_one() -> None:
    page = draw_page(report(graph=graph_of(extract="reused", rung="left out")), card="")
    drawn = Tags(page)
    assert drawn.open == []
    assert not {tag for tag, _ in drawn.tags} & {"script", "img", "link", "a", "foreignobject"}
    [svg] = [attributes for tag, attributes in drawn.tags if attributes.get("class") == "graph"]
    assert svg["role"] == "img"
    assert svg["aria-label"] == "Graph of 5 steps in 2 stages and 5 edges: 1 reused, 3 made, 1 left out"
    lines = [attributes for _, attributes in drawn.tags if "edge" in str(attributes.get("class")).split()]
    assert len(lines) == 5
    assert sum("stroke-dasharray" in line for line in lines) == 1
    for words in ("Graph of the run", "curate", "finetune", "reused", "made, 1.2 s", "left out", "extract to card"):
        assert words in drawn.text
    assert "Graph of the run" not in draw_page(report(), card="")
    assert draw_graph(GraphPicture(nodes=(), edges=())) == ""


def test_names_and_reasons_of_a_graph_are_escaped() -> None:
    node = PictureNode(name=HOSTILE, stage=HOSTILE, state="failed", seconds=None, reason=HOSTILE)
    drawn = Tags(draw_graph(GraphPicture(nodes=(node,), edges=())))
    assert drawn.open == []
    assert not {tag for tag, _ in drawn.tags} & {"script", "img", "p"}
    assert "<script>alert(1)</script>" in drawn.text
    assert "\u202e" not in drawn.text


def test_edges_are_drawn_between_their_column_and_the_next() -> None:
    names = [f"step_{number}" for number in range(40)]
    nodes = tuple(PictureNode(name=name, stage="curate", state="made", seconds=0.0) for name in names)
    edges = tuple((names[a], names[b]) for b in range(40) for a in range(b) if (a * 7 + b) % 5 == 0)
    drawn = Tags(draw_graph(GraphPicture(nodes=nodes, edges=edges)))
    [svg] = [attributes for tag, attributes in drawn.tags if tag == "svg"]
    paths = [str(attributes["d"]) for _, attributes in drawn.tags if attributes.get("class") == "edge"]
    assert len(paths) == len(edges)
    places = [float(x) for path in paths for x in re.findall(r"[MH]([0-9.]+)", path)]
    assert min(places) > 0
    assert max(places) < float(str(svg["width"]))


def test_a_comment_has_the_graph_collapsed() -> None:
    text = write_markdown(report(), graph="flowchart LR\n")
    assert "<details><summary>Graph of the run</summary>\n\n```mermaid\nflowchart LR\n```\n\n</details>" in text
    assert "mermaid" not in write_markdown(report())


@pytest.mark.parametrize("verdict", ["PROMOTE", "HOLD", "BLOCK", "ERROR", "NONE"])
def test_a_report_of_any_verdict_or_without_results_can_be_drawn(verdict: str) -> None:
    bare = report(
        verdict=verdict, findings=(), arms=(), training={}, curves=(), token_lengths=(), choice=(), worst=(),
        changes=(), steps=(), version=None, compared_with=None, champion=None, evidence="", n_items=0,
    )  # fmt: skip
    page = Tags(draw_page(bare, card=""))
    assert page.open == []
    assert "No version serves" in page.text
    [case] = ET.fromstring(write_junit(bare)).findall("testcase")  # noqa: S314
    assert case.find("error") is not None  # a run without findings is never a passing suite
    assert verdict in write_markdown(bare)


def test_a_hold_says_what_stays() -> None:
    assert report(verdict="HOLD", compared_with="3").sentence.endswith(" and champion version 3 stays.")
    assert report(verdict="HOLD", compared_with=None).sentence.endswith(" and the prompting baselines stay.")


def test_held_out_tickets_without_a_prompt_are_counted() -> None:
    for text in (draw_page(report(n_items_quarantined=2), card=""), write_markdown(report(n_items_quarantined=2))):
        assert "96 held-out tickets (2 more quarantined)" in text


def test_a_limit_under_the_replies_is_named_with_the_share_that_it_cuts(tmp_path: Path) -> None:
    """Ten replies of 1 to 10 tokens; of a conversation the last answer counts."""
    masks = [[0] * 5 + [1] * n for n in range(1, 10)] + [[0, 1, 1, 0, *[1] * 10, 0]]
    table = pa.table({"ticket_id": [str(n) for n in range(10)], "loss_mask": masks})
    (tmp_path / "train").mkdir()
    with pa.ipc.new_stream(tmp_path / "train" / "data.arrow", table.schema) as stream:
        stream.write_table(table)
    dataset = DatasetRef.model_construct(root=tmp_path)
    assert reply_tokens(tmp_path / "train") == list(range(1, 11))
    warning = cut_replies(dataset, max_new_tokens=6)
    assert warning is not None
    assert "max_new_tokens 6 cuts 40% of the replies: their 90th percentile is 10 tokens" in warning
    assert cut_replies(dataset, max_new_tokens=10) is None
    assert warning in draw_page(report(notes=(warning,)), card="")


def test_a_page_shows_the_labels_that_were_encoded_and_names_the_unseen() -> None:
    rows = [LabelCounts(value=HOSTILE, train=6, used=0, validation=0, test=1)]
    none = LabelCounts(value="", train=0, used=0, validation=0, test=0)
    balance = LabelBalance(
        column="category", n_train=1006, n_used=3, chosen="drawn", values=tuple(rows), other=none, missing=none,
        unseen=(HOSTILE,), n_unseen_labels=1, n_unseen_tickets=1,
    )  # fmt: skip
    page = draw_page(report(encoded=balance), card="")
    assert "3 of 1,006 train tickets are encoded: drawn by a seeded hash" in page
    assert "1 label of 1 ticket in validation and test: none is in what is encoded for training" in page
    assert "<script>" not in page
    assert "What training saw" not in draw_page(report(), card="")


def test_junit_counts_failures() -> None:
    findings = (
        finding("PROMOTE"),
        finding("BLOCK"),
        finding("HOLD"),
        finding("ERROR"),
        finding("BLOCK", decides=False),
    )
    suite = ET.fromstring(write_junit(report(findings=findings)))  # noqa: S314
    counted = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counted == {"tests": "5", "failures": "2", "errors": "1", "skipped": "1"}


def test_a_comment_keeps_its_table_and_escapes_html() -> None:
    text = write_markdown(report())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == (2 + 3) + (2 + 1)  # findings, and the champion at its own verdict
    assert {line.replace("\\|", "").count("|") for line in rows} == {9}
    assert "<script" not in text
    assert "close my order" not in text  # a comment has no ticket text


def test_different_words_are_marked_and_both_texts_are_complete() -> None:
    left, right = marked("close my order\nnow", "close the order")
    assert "".join(piece.text for piece in left) == "close my order\nnow"
    assert "".join(piece.text for piece in right) == "close the order"
    assert [piece.text for piece in right if not piece.same] == ["the"]
    long = " ".join(["word"] * MAX_WORDS)
    assert marked(long, "word")[0] == [(long, True)]


def test_curves_and_lengths_are_read_from_the_files(tmp_path: Path) -> None:
    path = tmp_path / "curves.parquet"
    columns = {"step": [1, 2], "loss": [2.0, float("inf")], "n_tokens": [5, 6], "validation_loss": [None, 1.5]}
    pq.write_table(pa.table(columns), path)
    curves = {curve.name: (curve.steps, curve.values) for curve in read_curves(path)}
    assert curves == {"loss": ((1,), (2.0,)), "validation_loss": ((2,), (1.5,))}

    table = pa.table({"input_ids": [[1] * 5, [1] * 6, [1] * 200]})
    with pa.OSFile(str(tmp_path / "data-0.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    lengths = token_lengths(tmp_path)
    assert sum(n for _, n in lengths) == 3
    assert (lengths[0], lengths[-1][1]) == (("0-12", 2), 1)
    assert token_lengths(tmp_path / "none") == ()


def test_the_champion_at_earlier_verdicts_and_disagreeing_labels_are_tables_and_sentences() -> None:
    comment = write_markdown(report())
    assert "| its own verdict | 96 | 0.929 | 60 | 0.930 | 0.931 | 36 | 0.529 |" in comment
    assert "- the champion itself falls to 0.529 on the 36 items that are new since its own verdict" in comment
    page = draw_page(report(), card="")
    assert "<h2>Champion and labels</h2>" in page
    assert "scores at 2 earlier verdicts are no longer in the store" in page
    assert "<bdi>disagree</bdi>" in page
    assert "<h2>Champion and labels</h2>" not in draw_page(report(diagnosis=None), card="")
