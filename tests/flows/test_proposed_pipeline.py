"""What `tunegate init` proposes for files of strangers, and what a run of it then does."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from flows.build import PipelineGraph, build
from flows.context.graph_context import GraphContext
from flows.graph.execute import Run, run_plainly
from flows.graph.store import Store
from flows.run.guarded_run import QuarantineGuard
from schemas.errors import DataError
from schemas.load import load_file
from tasks.sources.registry import fingerprint_source
from tasks.start.pipeline_yaml import write_pipeline
from tasks.start.propose import Proposal, propose_pipeline
from tests.support import strangers


@cache
def proposal_for(name: str) -> tuple[Proposal, str]:
    """The proposal for a stranger's file, which is the same in each folder, and its text."""
    with TemporaryDirectory() as folder:
        path = strangers.STRANGERS[name](Path(folder))
        proposal = propose_pipeline(path, name="desk", root=path.parent)
        return proposal, write_pipeline(proposal)


def proposed(name: str, folder: Path) -> tuple[Proposal, str]:
    """The file and the proposal for it, written into the folder."""
    proposal, text = proposal_for(name)
    strangers.STRANGERS[name](folder)
    (folder / "pipelines.yaml").write_text(text)
    return proposal, text


def curated(folder: Path) -> tuple[PipelineGraph, Run]:
    """Curation of the file's pipeline, up to the parts without leakage."""
    spec = load_file(folder / "pipelines.yaml").get("desk")
    context = GraphContext(fingerprint=fingerprint_source(spec.source, root=folder), root=folder, cache=folder)
    pipeline = build(spec, context)
    run = Run(pipeline.graph, Store(folder / "home"), guard=QuarantineGuard(spec.table))
    run_plainly(run, targets=(pipeline.curated.clean,))
    return pipeline, run


@pytest.mark.parametrize("name", strangers.STRANGERS)
def test_columns_are_known_and_a_run_keeps_as_many_tickets_as_init_said(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_PSEUDONYM_KEY", "0" * 64)
    proposal, _ = proposed(name, tmp_path)
    if name in strangers.COLUMNS:
        assert {str(role.column): role.name for role in proposal.roles.found} == strangers.COLUMNS[name]
    pipeline, run = curated(tmp_path)
    left = run.result(pipeline.curated.tables[-1][1]).rows.n_out
    assert left == pytest.approx(proposal.sizes.n_tickets, rel=0.05)
    assert left >= 100


def test_a_step_that_takes_more_than_a_fifth_is_a_comment_with_its_count_and_places(tmp_path: Path) -> None:
    _, text = proposed("public_desk", tmp_path)
    said = " ".join(text.replace("#", " ").split())
    assert "CHECK: not proposed, because it takes too much: {uses: quality, drop_stub_replies: true, " in said
    assert "takes 300 of 300 sampled: template_leftovers 300 (lines 3, 6, 9)" in said
    steps = load_file(tmp_path / "pipelines.yaml").get("desk").curate.steps
    assert [step.max_template_leftovers for step in steps if step.uses == "quality"] == [None]


def test_where_no_form_of_a_step_suits_the_file_the_step_is_left_out(tmp_path: Path) -> None:
    _, text = proposed("chatty", tmp_path)
    assert text.count("not proposed, because it takes too much") == 2
    assert "quality" not in {step.uses for step in load_file(tmp_path / "pipelines.yaml").get("desk").curate.steps}


def test_the_error_of_an_empty_split_names_the_step_that_took_the_tickets_and_its_setting(tmp_path: Path) -> None:
    _, text = proposed("anonymised", tmp_path)
    steps = "drop_stub_replies: true}"
    assert text.count(f"- {{uses: quality, {steps}") == 1
    text = text.replace(f"- {{uses: quality, {steps}", "- {uses: quality, max_template_leftovers: 0}")
    (tmp_path / "pipelines.yaml").write_text(text)
    with pytest.raises(DataError, match="TG0221") as caught:
        curated(tmp_path)
    assert "`quality` left 0 of 600: template_leftovers 600 times, first at anonymised.csv:2" in caught.value.message
    assert "above `max_template_leftovers: 0`" in caught.value.message
    assert caught.value.where == "quality"
