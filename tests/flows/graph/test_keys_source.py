"""Code digests: what counts as a change of a step's code."""

import os

import pytest

from flows.graph import keys
from flows.graph.keys import code_digests, module_digests

DEDUP = '''"""Drop duplicates."""

from schemas.curation_steps import DedupStep
from tasks.storage import files


def drop(step: DedupStep) -> int:
    """Drop."""
    from tasks.curate.shingles import shingles

    return shingles(step.words) + files.SIZE
'''


@pytest.fixture
def source_tree(tmp_path):
    """A small source tree, and the digests of the modules that `tasks.curate.dedup` imports in it."""

    class SourceTree:
        def write(self, path, text):
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

        def digests(self, name="tasks.curate.dedup"):
            return module_digests(name, tmp_path.joinpath(*name.split(".")).with_suffix(".py"), root=tmp_path)

    source_tree = SourceTree()
    source_tree.write("tasks/__init__.py", "")
    source_tree.write("tasks/storage/files.py", "SIZE = 1\n")
    source_tree.write("tasks/unrelated.py", "X = 1\n")
    source_tree.write("tasks/curate/__init__.py", "")
    source_tree.write("tasks/curate/dedup.py", DEDUP)
    source_tree.write("tasks/curate/shingles.py", "def shingles(n):\n    return n\n")
    source_tree.write("schemas/__init__.py", "")
    source_tree.write("schemas/curation_steps.py", 'class DedupStep:\n    words: int = 3\n    """How many."""\n')
    return source_tree


def test_exactly_the_imported_modules_count(source_tree):
    assert list(source_tree.digests()) == [
        "schemas", "schemas.curation_steps",
        "tasks", "tasks.curate", "tasks.curate.dedup", "tasks.curate.shingles", "tasks.storage.files",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "same",
    [
        DEDUP.replace('"""Drop."""', '"""Drop what was said before."""'),
        DEDUP.replace("    return", "    # both parts\n    return"),
        DEDUP.replace(
            "shingles(step.words) + files.SIZE", "(\n        shingles(step.words)\n        + files.SIZE\n    )"
        ),
        DEDUP.replace("\n\n\n", "\n\n\n\n\n"),
    ],
    ids=["docstring", "comment", "layout", "blank lines"],
)
def test_comments_docstrings_and_layout_do_not_count(source_tree, same):
    before = source_tree.digests()
    assert same != DEDUP
    source_tree.write("tasks/curate/dedup.py", same)
    assert source_tree.digests() == before


@pytest.mark.parametrize(
    "other",
    [
        DEDUP.replace(" + ", " - "),
        DEDUP.replace("files.SIZE", "files.SIZES"),
        DEDUP.replace("return", "x ="),
        DEDUP.replace("step: DedupStep", "step: DedupStep | None"),
        DEDUP + "drop(None)\n",
    ],
)
def test_code_counts(source_tree, other):
    before = source_tree.digests()
    source_tree.write("tasks/curate/dedup.py", other)
    after = source_tree.digests()
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"tasks.curate.dedup"}


@pytest.mark.parametrize(
    ("path", "text", "module"),
    [
        ("tasks/storage/files.py", "SIZE = 2\n", "tasks.storage.files"),
        ("tasks/curate/shingles.py", "def shingles(n):\n    return n + 1\n", "tasks.curate.shingles"),
        ("schemas/curation_steps.py", "class DedupStep:\n    words: int = 4\n", "schemas.curation_steps"),
        ("tasks/curate/__init__.py", "import os\n", "tasks.curate"),
    ],
)
def test_changes_in_imported_modules_count(source_tree, path, text, module):
    before = source_tree.digests()
    source_tree.write(path, text)
    after = source_tree.digests()
    assert [name for name in after if after[name] != before[name]] == [module]


def test_an_attribute_description_does_not_count(source_tree):
    before = source_tree.digests()
    source_tree.write("schemas/curation_steps.py", "class DedupStep:\n    words: int = 3\n")
    assert source_tree.digests() == before


@pytest.mark.parametrize(
    "text",
    [
        "from . import worker\n",
        "from .worker import work\n",
        "from ..train.worker import work\n",
        "import tasks.train.worker as w\n",
        "COMMAND = ['-m', 'tasks.train.worker']\n",
        "ENTRY = 'tasks.train.worker:main'\n",
        "def f():\n    if 1:\n        import tasks.train.worker\n",
    ],
)
def test_relative_late_and_string_imports_are_followed(source_tree, text):
    source_tree.write("tasks/train/__init__.py", "")
    source_tree.write("tasks/train/worker.py", "work = 1\n")
    source_tree.write("tasks/train/launch.py", text)
    assert "tasks.train.worker" in source_tree.digests("tasks.train.launch")


def test_prose_that_mentions_a_module_is_not_followed(source_tree):
    source_tree.write("tasks/train/launch.py", "HELP = 'tasks.unrelated is never meant here'\n")
    assert "tasks.unrelated" not in source_tree.digests("tasks.train.launch")


def test_circular_imports_end(source_tree):
    source_tree.write("tasks/storage/files.py", "import tasks.curate.dedup\nSIZE = 1\n")
    assert len(source_tree.digests()) == 7


def test_word_lists_next_to_a_task_count_by_their_bytes(source_tree):
    source_tree.write("tasks/curate/phrases.json", "[1]")
    before = source_tree.digests()
    assert "tasks.curate/phrases.json" in before
    source_tree.write("tasks/curate/phrases.json", "[2]")
    source_tree.write("tasks/curate/.phrases.json.swp", "editor")
    source_tree.write("tasks/curate/phrases.json~", "editor")
    after = source_tree.digests()
    assert [name for name in after if after[name] != before.get(name)] == ["tasks.curate/phrases.json"]


@pytest.fixture
def digests_of_a_new_process(source_tree, monkeypatch):
    """The digests of the source tree as a new process computes them, which has parsed nothing yet."""

    def digests():
        keys._walks.clear()
        keys._parse.cache_clear()
        return source_tree.digests()

    monkeypatch.setattr("sys.dont_write_bytecode", False)
    return digests


def test_what_an_earlier_process_parsed_is_not_parsed_again(digests_of_a_new_process, monkeypatch):
    first = digests_of_a_new_process()
    with monkeypatch.context() as patch:
        patch.delattr(keys, "_normalise")
        assert digests_of_a_new_process() == first


@pytest.mark.parametrize("damage", [b"", b"\xff", b" ", "cut", "another name"])
def test_damaged_notes_of_an_earlier_process_are_not_believed(digests_of_a_new_process, tmp_path, damage):
    first = digests_of_a_new_process()
    notes = tmp_path / "tasks" / "curate" / "__pycache__" / "dedup.digest"
    text = notes.read_text()
    assert "tasks.curate.shingles" in text
    match damage:
        case "cut":
            notes.write_text(text.rpartition(" ")[0])
        case "another name":
            notes.write_text(text.replace("tasks.curate.shingles", "tasks.curate.shinglez"))
        case _:
            notes.write_bytes(damage)
    assert digests_of_a_new_process() == first
    assert notes.read_text() == text


def test_a_change_that_keeps_size_and_time_counts_in_the_next_process(digests_of_a_new_process, source_tree, tmp_path):
    first = digests_of_a_new_process()
    file = tmp_path / "tasks" / "curate" / "shingles.py"
    before = file.stat()
    source_tree.write("tasks/curate/shingles.py", "def shingles(m):\n    return m\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    after = digests_of_a_new_process()
    assert [name for name in after if after[name] != first[name]] == ["tasks.curate.shingles"]


def test_other_code_of_the_digests_makes_all_of_them_anew(digests_of_a_new_process, monkeypatch):
    first = digests_of_a_new_process()
    monkeypatch.setattr(keys, "_own_digest", lambda: b"other")
    monkeypatch.setattr(keys, "_normalise", lambda _tree, tokens, _names, _package: tokens.append("same"))
    after = digests_of_a_new_process()
    assert after["tasks.curate.dedup"] != first["tasks.curate.dedup"]


def test_sources_that_cannot_be_written_next_to_are_parsed_each_time(digests_of_a_new_process, tmp_path):
    for package in ("tasks", "tasks/curate", "tasks/storage", "schemas"):
        (tmp_path / package / "__pycache__").write_text("a file where the folder should be")
    assert digests_of_a_new_process() == digests_of_a_new_process()


def test_a_function_of_the_users_project_counts_with_its_modules():
    from tasks.storage.sealed_folder import seal

    assert {"tasks", "tasks.storage.files", "schemas.errors"} <= code_digests(seal).keys()
