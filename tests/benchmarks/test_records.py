"""A result page is stale when the code that it measures does something else, and only then."""

import subprocess
from pathlib import Path

import pytest

from benchmarks import records
from benchmarks.records import MARK, declared, fingerprint, report, stale_citations, wrong_marks

CODE = '"""Adds."""\n\nfrom a import b\n\n\ndef add(x: int) -> int:\n    """Add one."""\n    return x + 1  # one\n'
TIMES = "\n\ndef times(x: int) -> int:\n    return 2 * x\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project with one page that is current, without git."""
    for folder in ("benchmarks/results", "tasks/old"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tasks/old/add.py").write_text(CODE + TIMES)
    (tmp_path / "tasks/words.yaml").write_text("- hello\n")
    (tmp_path / "benchmarks/records.yaml").write_text(
        "sum: {command: make bench-sum, minutes: 3, code: [tasks/**/*.py, tasks/words.yaml]}\n"
    )
    digest = fingerprint(tuple(tmp_path.glob("tasks/**/*.*")))
    (tmp_path / "benchmarks/results/sum.md").write_text(
        f"# Sum\n\n- processor: Z80\n- time: 2026-11-01 10:00 UTC\n- commit: 0123456789ab\n- code: {digest}\n"
    )
    return tmp_path


def test_a_reworded_formatted_moved_and_divided_file_makes_no_page_stale(checkout: Path) -> None:
    (checkout / "tasks/new").mkdir()
    (checkout / "tasks/old/add.py").unlink()
    reworded = (
        CODE.replace("Add one.", "Return one more.").replace("  # one", "").replace("from a import b", "import b")
    )
    (checkout / "tasks/new/plus.py").write_text(reworded.replace("x + 1", "(x\n        + 1)"))
    (checkout / "tasks/twice.py").write_text(TIMES)
    assert report(checkout) == ["sum: current (2026-11-01 10:00 UTC, commit 0123456789ab)"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tasks/old/add.py", CODE.replace("+ 1", "+ 2") + TIMES),
        ("tasks/old/add.py", CODE),
        ("tasks/more.py", "def more() -> None: ...\n"),
        ("tasks/words.yaml", "- goodbye\n"),
    ],
)
def test_a_change_makes_the_page_stale_until_it_is_undone_and_the_mark_follows(
    checkout: Path, file: str, text: str
) -> None:
    path, page = checkout / file, checkout / "benchmarks/results/sum.md"
    before, unmarked = path.read_text() if path.exists() else None, page.read_text()
    path.write_text(text)
    [line] = report(checkout)
    assert line.startswith("sum: stale, NOT MARKED, MARK=1 does (2026-11-01 10:00 UTC, commit 0123456789ab;")
    assert line.endswith("again: RECORD=1 make bench-sum, about 3 minutes")
    assert wrong_marks(checkout) == ["sum"]
    for _ in range(2):
        declared(checkout)["sum"].mark()
        assert page.read_text() == unmarked.replace("# Sum\n\n", f"# Sum\n\n{MARK}\n\n")
    assert "stale, marked" in report(checkout)[0]
    assert wrong_marks(checkout) == []
    path.unlink() if before is None else path.write_text(before)
    assert wrong_marks(checkout) == ["sum"]
    declared(checkout)["sum"].mark()
    assert page.read_text() == unmarked


def test_the_readme_may_not_cite_a_page_that_has_become_stale(checkout: Path) -> None:
    readme = checkout / "README.md"
    readme.write_text("- 2 seconds ([sum](benchmarks/results/sum.md), [again](benchmarks/results/sum.md))\n")
    assert stale_citations(checkout) == []
    (checkout / "tasks/old/add.py").write_text(CODE)
    declared(checkout)["sum"].mark()
    assert wrong_marks(checkout) == []  # to mark it is not enough
    [line] = stale_citations(checkout)
    assert line.startswith("README.md cites results/sum.md, which is stale: measure again (RECORD=1 make bench-sum)")
    readme.write_text("- 2 seconds\n")
    assert stale_citations(checkout) == []


def test_only_a_clone_with_history_counts_commits(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    def git(folder: Path, *arguments: str) -> str:
        user = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        return subprocess.run(
            ["git", *user, "-C", folder, *arguments], check=True, capture_output=True, text=True
        ).stdout

    page = checkout / "benchmarks/results/sum.md"
    git(checkout, "init", "--quiet")
    git(checkout, "add", ".")
    git(checkout, "commit", "--quiet", "--message", "Add")
    page.write_text(page.read_text().replace("0123456789ab", records.commit(checkout)))
    (checkout / "tasks/old/add.py").write_text(CODE)
    assert records.commit(checkout).endswith(" with changes")
    git(checkout, "commit", "--quiet", "--all", "--message", "Remove")
    assert "; 1 commits since)" in report(checkout)[0]
    shallow = tmp_path_factory.mktemp("shallow") / "clone"
    git(checkout, "clone", "--quiet", "--depth", "1", f"file://{checkout}", str(shallow))
    assert "; its commit is not in this clone)" in report(shallow)[0]


def test_a_page_or_a_file_that_is_not_there_is_named(checkout: Path) -> None:
    results = checkout / "benchmarks/results"
    (results / "sum.md").rename(results / "new.md")
    assert report(checkout) == [
        "new: not declared in benchmarks/records.yaml",
        "sum: not recorded yet; RECORD=1 make bench-sum, about 3 minutes",
    ]
    (checkout / "tasks/words.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"sum: tasks/words.yaml matches no file"):
        report(checkout)


def test_every_page_of_results_is_declared_and_names_processor_date_commit_and_code(project: Path) -> None:
    pages = {page.stem for page in (project / "benchmarks/results").glob("*.md")}
    assert pages <= set(declared())
    for name in pages:
        record = declared()[name]
        assert set(record.names) == {"processor", "time", "commit", "code"}, name
        assert len(record.names["commit"].partition(" ")[0]) == 12, name
