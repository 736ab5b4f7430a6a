"""A user's function over the tickets: where it may come from, what it may return, and its errors."""

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.curation_steps import PythonStep
from schemas.errors import ConfigError, DataError
from tasks.curate.python_step import BATCH_ROWS, fingerprint_python, run_python

ROWS = [
    {"ticket_id": f"t{number:02}", "source": "test", "source_line": number, "body": f"text {number}"}
    for number in range(10)
]
KEEP_ODD = """
import pyarrow.compute as pc

def keep(batch):
    return batch.filter(pc.equal(pc.bit_wise_and(batch["source_line"], 1), 1))
"""


def step(entry: str = "own_steps.clean:keep") -> PythonStep:
    return PythonStep(uses="python", name="clean", entry_point=entry)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "own_steps").mkdir(parents=True)
    return folder


def write(root: Path, source: str, name: str = "own_steps/clean.py") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)


def test_rows_that_the_function_leaves_out_are_dropped_under_the_steps_name(
    make_tickets: Any, new_folder: Any, rows_of: Any, root: Path
) -> None:
    write(root, KEEP_ODD)
    result = run_python(tickets=make_tickets(ROWS), step=step(), root=root, out=new_folder())
    assert list(rows_of(result.tickets)) == ["t01", "t03", "t05", "t07", "t09"]
    removed = rows_of(result.removed)
    assert {(row["outcome"], row["code"]) for row in removed.values()} == {("dropped", "clean")}
    assert removed["t04"]["reason"] == "the step's function leaves it out"
    assert removed["t04"]["source_line"] == 4
    assert result.notes == {"dropped_clean": 5, "changed_rows": 0}
    assert (result.rows.n_in, result.rows.n_out, result.rows.n_dropped) == (10, 5, 5)


def test_changed_values_and_a_table_in_another_order_are_taken(
    make_tickets: Any, new_folder: Any, rows_of: Any, root: Path
) -> None:
    write(
        root,
        """
import pyarrow as pa

def keep(batch):
    rows = [row | {"body": row["body"].upper(), "category": None} for row in batch.to_pylist()]
    rows[3]["body"] = rows[3]["body"].lower()
    return pa.Table.from_pylist(rows[::-1], batch.schema).select(batch.schema.names[::-1])
""",
    )
    result = run_python(tickets=make_tickets(ROWS), step=step(), root=root, out=new_folder())
    assert [row["body"] for row in rows_of(result.tickets).values()][2:5] == ["TEXT 2", "text 3", "TEXT 4"]
    assert result.notes == {"dropped_clean": 0, "changed_rows": 9}


def test_batches_are_bounded_and_come_in_the_order_of_ids(
    make_tickets: Any, new_folder: Any, rows_of: Any, root: Path
) -> None:
    write(
        root,
        """
import pyarrow as pa

def keep(batch):
    assert isinstance(batch, pa.RecordBatch)
    ids = batch["ticket_id"].to_pylist()
    assert ids == sorted(ids)
    return batch.set_column(batch.schema.get_field_index("rating"), batch.schema.field("rating"),
                            pa.array([float(len(ids))] * len(ids)))
""",
    )
    rows = [{"ticket_id": f"t{number:05}", "body": "x"} for number in range(BATCH_ROWS + 5)]
    random.Random(2).shuffle(rows)
    result = run_python(tickets=make_tickets(rows), step=step(), root=root, out=new_folder())
    ratings = [row["rating"] for row in rows_of(result.tickets).values()]
    assert ratings == [float(BATCH_ROWS)] * BATCH_ROWS + [5.0] * 5


def test_helpers_of_the_folder_are_imported_and_nothing_stays_behind(
    make_tickets: Any, new_folder: Any, root: Path
) -> None:
    write(root, "def keep(batch):\n    from own_steps import rules\n    return rules.first(batch)\n")
    write(
        root, "from own_helper import TWO\n\ndef first(batch):\n    return batch.slice(0, TWO)\n", "own_steps/rules.py"
    )
    write(root, "TWO = 2\n", "own_helper.py")
    path, modules = list(sys.path), set(sys.modules)
    result = run_python(tickets=make_tickets(ROWS), step=step(), root=root, out=new_folder())
    assert result.rows.n_out == 2
    assert sys.path == path
    assert {name for name in set(sys.modules) - modules if name.startswith("own_")} == set()
    assert not list(root.rglob("__pycache__"))


def test_an_edited_module_runs_as_it_is_now(make_tickets: Any, new_folder: Any, root: Path) -> None:
    for n_rows in (3, 4):
        write(root, f"def keep(batch):\n    return batch.slice(0, {n_rows})\n")
        result = run_python(tickets=make_tickets(ROWS), step=step(), root=root, out=new_folder())
        assert result.rows.n_out == n_rows


def test_a_module_of_the_same_name_elsewhere_is_not_taken_and_comes_back(
    make_tickets: Any, new_folder: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "def keep(batch):\n    return batch.slice(0, 1)\n", "elsewhere/own_steps/clean.py")
    write(tmp_path, "def keep(batch):\n    return batch.slice(0, 1)\n", "elsewhere/own_alone.py")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    import own_alone  # type: ignore[import-not-found]
    import own_steps.clean  # type: ignore[import-not-found]

    monkeypatch.setattr(sys, "path", list(sys.path))
    write(root, "def keep(batch):\n    return batch.slice(0, 2)\n")
    result = run_python(tickets=make_tickets(ROWS), step=step(), root=root, out=new_folder())
    assert result.rows.n_out == 2
    assert sys.modules["own_steps.clean"] is own_steps.clean
    with pytest.raises(ConfigError, match=r"no own_alone\.py in the folder"):
        run_python(tickets=make_tickets(ROWS), step=step("own_alone:keep"), root=root, out=new_folder())
    for name in ("own_steps", "own_steps.clean", own_alone.__name__):
        del sys.modules[name]


@pytest.mark.parametrize(
    ("entry", "source", "message"),
    [
        ("own_steps.absent:keep", KEEP_ODD, "there is no own_steps/absent.py in the folder of pipelines.yaml"),
        ("own_steps.clean:absent", KEEP_ODD, "has no function absent"),
        ("own_steps.clean:keep", "keep = 3", "has no function keep"),
        ("own_steps.clean:keep", "1 / 0", "importing own_steps.clean raised ZeroDivisionError"),
        ("own_steps.clean:keep", "raise SystemExit(0)", "importing own_steps.clean raised SystemExit"),
        ("own_steps.clean:keep", "def keep(batch:\n", "own_steps/clean.py:1 cannot be read: SyntaxError"),
        ("os.path:join", KEEP_ODD, "`os` is taken"),
        ("numpy.linalg:norm", KEEP_ODD, "there is no numpy/linalg.py in the folder"),
        ("tasks.storage.files:seal", KEEP_ODD, "`tasks` is taken"),
        ("own_steps..clean:keep", KEEP_ODD, "there is no own_steps//clean.py"),
    ],
)
def test_an_entry_point_that_is_not_in_the_folder_is_refused(
    make_tickets: Any, new_folder: Any, root: Path, entry: str, source: str, message: str
) -> None:
    write(root, source)
    with pytest.raises(ConfigError, match="TG0128") as error:
        run_python(tickets=make_tickets(ROWS), step=step(entry), root=root, out=new_folder())
    assert message in error.value.message
    assert error.value.where == f"curate.python.clean: {entry}"


def test_a_function_cannot_end_the_run_by_itself(make_tickets: Any, new_folder: Any, root: Path) -> None:
    write(root, "def keep(batch):\n    raise SystemExit(0)\n")
    with pytest.raises(DataError, match=r"raised SystemExit at own_steps/clean\.py:2"):
        run_python(tickets=make_tickets(ROWS), step=step(), root=root, out=new_folder())


def test_an_exception_is_reported_by_type_and_place_and_its_words_are_only_chained(
    make_tickets: Any, new_folder: Any, root: Path
) -> None:
    write(root, "def keep(batch):\n    raise KeyError('my secret text')\n")
    with pytest.raises(DataError, match="TG0259") as error:
        run_python(tickets=make_tickets(ROWS), step=step(), root=root, out=new_folder())
    assert error.value.message == "the function raised KeyError at own_steps/clean.py:2"
    assert "secret" not in str(error.value)
    assert isinstance(error.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("return None", "TG0260", "the function returned NoneType"),
        ("return batch.to_pylist()", "TG0260", "the function returned list"),
        ("return batch.drop_columns(['body'])", "TG0260", "body is missing"),
        ("return batch.append_column('extra', batch['body'])", "TG0260", "extra is new"),
        ("return batch.append_column('body', batch['body'])", "TG0260", "body appears twice"),
        (
            "return batch.set_column(8, 'body', batch['body'].cast('large_string'))",
            "TG0260",
            "body is large_string, must be string",
        ),
        ("return batch.set_column(15, 'source', pa.nulls(len(batch), pa.string()))", "TG0260", "nulls in source"),
        ("return pa.concat_batches([batch, batch.slice(0, 3)])", "TG0260", "3 returned already"),
        (
            "return batch.set_column(0, 'ticket_id', pc.binary_join_element_wise(batch['ticket_id'], 'x', ''))",
            "TG0260",
            "10 not in its batch",
        ),
    ],
)
def test_what_is_no_part_of_the_batch_is_refused(
    make_tickets: Any, new_folder: Any, root: Path, body: str, code: str, message: str
) -> None:
    write(root, f"import pyarrow as pa\nimport pyarrow.compute as pc\n\ndef keep(batch):\n    {body}\n")
    with pytest.raises(DataError) as error:
        run_python(tickets=make_tickets(ROWS), step=step(), root=root, out=new_folder())
    assert error.value.code == code
    assert message in error.value.message


def test_the_fingerprint_moves_with_every_module_of_the_folder_that_is_reached(root: Path) -> None:
    write(root, "from . import rules\n\ndef keep(batch):\n    import own_helper\n    return batch\n")
    write(root, "X = 1\n", "own_steps/rules.py")
    write(root, "Y = 1\n", "own_helper.py")
    write(root, "Z = 1\n", "own_other.py")
    seen = [fingerprint_python(step(), root)]
    for name in ("own_steps/rules.py", "own_helper.py", "own_steps/__init__.py", "own_steps/clean.py"):
        path = root / name
        path.write_text((path.read_text() if path.exists() else "") + "# changed\n")
        seen.append(fingerprint_python(step(), root))
    assert len(set(seen)) == 5
    write(root, "Z = 2\n", "own_other.py")
    assert fingerprint_python(step(), root) == seen[-1]


def test_the_fingerprint_runs_nothing_and_does_not_depend_on_the_place(root: Path, tmp_path: Path) -> None:
    write(root, "raise SystemExit(1)\n")
    write(tmp_path, "raise SystemExit(1)\n", "copy/own_steps/clean.py")
    assert fingerprint_python(step(), root) == fingerprint_python(step(), tmp_path / "copy")
