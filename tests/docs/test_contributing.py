"""The examples of CONTRIBUTING.md: each imports as written and does what its text says."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from schemas.artifacts import RowCounts, TicketTable
from tasks.curate.rows import read_rows, ticket_table, write_removed, write_tickets
from tests.support.documentation import examples_of_contributing


@pytest.fixture
def examples(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """Each example as a module, keyed by the path in its first line."""
    from tests.support.plugins import remove

    monkeypatch.syspath_prepend(tmp_path)
    found = {}
    for path, text in examples_of_contributing(project).items():
        name = f"contributing_{Path(path).stem}"
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        found[path] = importlib.import_module(name)
    yield found
    remove(steps="mentions", metrics="short", exports="card")
    for module in found.values():
        del sys.modules[module.__name__]


def test_the_folders_and_lists_that_the_page_names_exist(examples: dict[str, ModuleType], project: Path) -> None:
    assert len(examples) == 4
    for path in examples:
        assert (project / path).parent.is_dir()
        assert not (project / path).exists()
    for path in (
        "tasks/curate/steps.py",
        "tasks/sources/registry.py",
        "tasks/assess/metrics.py",
        "tasks/assess/checks.py",
        "tasks/release/export_formats.py",
    ):
        assert f"`{path}`" in " ".join((project / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
        assert (project / path).is_file()


def test_the_step_drops_tickets_that_mention_the_word(examples: dict[str, ModuleType], tmp_path: Path) -> None:
    module = examples["tasks/curate/mentions.py"]
    read, kept = tmp_path / "read", tmp_path / "kept"
    for folder in (read, kept):
        folder.mkdir()
    texts = {"empty": None, "gone": "I want a REFUND.", "kept": "Where is my parcel?"}
    n_rows = write_tickets(
        ticket_table(
            [
                {"ticket_id": name, "body": body, "source": "test", "source_line": line}
                for line, (name, body) in enumerate(texts.items(), 1)
            ]
        ),
        read,
    )
    write_removed([], read)
    tickets = TicketTable(root=read, rows=RowCounts(n_in=n_rows, n_out=n_rows))
    result = module.drop_mentions(tickets=tickets, step=module.MentionsStep(uses="mentions", word="refund"), out=kept)
    assert read_rows(result.tickets)["ticket_id"].to_pylist() == ["empty", "kept"]
    (row,) = read_rows(result.removed).to_pylist()
    assert (row["ticket_id"], row["code"], row["reason"]) == ("gone", "mentions", "the body mentions 'refund'")


def test_the_source_reads_a_row_from_each_line(examples: dict[str, ModuleType], tmp_path: Path) -> None:
    from tasks.sources.kind import Place

    module = examples["tasks/sources/feed.py"]
    (tmp_path / "feed.txt").write_text("Where is it? => On its way.\nIs it here? => Yes.\n")
    source, place = module.FeedSource(kind="feed", path="feed.txt"), Place(tmp_path)
    before = module.KIND.fingerprint(source, place)
    (part,) = module.KIND.parts(source, place)
    assert (part.name, sum(len(batch) for batch in part.batches)) == ("feed.txt", 2)
    (tmp_path / "feed.txt").write_text("Is it here? => Yes.\n")
    assert module.KIND.fingerprint(source, place) != before


def test_the_metric_scores_an_answer(examples: dict[str, ModuleType]) -> None:
    module = examples["tasks/assess/short.py"]
    score = module.short(module.ShortMetric(uses="short", longest=3))
    assert (score("abc", {}), score("abcd", {})) == (1.0, 0.0)


def test_the_export_fills_its_folder(examples: dict[str, ModuleType], tmp_path: Path) -> None:
    module = examples["tasks/release/export_card.py"]
    candidate = SimpleNamespace(version="3", trained=SimpleNamespace(method="lora", n_steps=6))
    assert module.write_card(candidate, tmp_path) == {"n_steps": 6.0}
    assert (tmp_path / "CARD.md").read_text() == "version 3, trained by lora\n"
